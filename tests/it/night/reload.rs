//! SIGHUP: a changed configuration is taken up between runs, whole or not at all.

use std::process::Stdio;

use afterhours::domain::run::Outcome;
use afterhours::wire::status::StatusView;
use rustix::process::Pid;
use rustix::process::Signal;

use super::alone::ALONE;
use super::away::WAITS;
use super::site::PATIENCE;
use super::site::Site;
use super::site::eventually;

async fn status(site: &Site) -> Option<StatusView> {
    // A daemon that takes up its configuration is away for a moment.
    site.client().status().await.ok()
}

async fn is_called(site: &Site, title: &str) -> bool {
    status(site).await.is_some_and(|status| status.apps.iter().any(|app| app.title == title))
}

#[tokio::test]
async fn a_changed_configuration_is_taken_up_in_place() {
    let mut site = Site::new().await;
    site.open().await;
    let (pid, before) = (site.pid(), status(&site).await.unwrap());
    site.reconfigure("Order desk", "Orders and more");
    // Who asks is told about what is on disk.
    let (code, said, noted) = site.run(&["doctor", "orders"]).await;
    assert!(noted.contains("still works with another configuration"), "{code}: {said}{noted}");
    let (_, said, _) = site.run(&["status"]).await;
    assert!(said.contains("systemctl reload afterhours"), "{said}");
    site.hang_up();
    eventually("the new title is shown", async || is_called(&site, "Orders and more").await).await;
    let after = status(&site).await.unwrap();
    assert_eq!((after.daemon.as_ref().unwrap().pid, site.pid()), (pid, pid));
    assert_ne!(after.daemon.unwrap().config, before.daemon.unwrap().config);
    let (_, _, noted) = site.run(&["doctor", "orders"]).await;
    assert!(!noted.contains("another configuration"), "{noted}");
    site.desk_answers("1.0").await;
    site.stop().await;
}

#[tokio::test]
async fn a_bad_configuration_is_refused_whole() {
    let mut site = Site::new().await;
    site.open().await;
    site.reconfigure("Order desk", "Orders and more");
    site.reconfigure("grace = ", "graze = ");
    site.hang_up();
    let is_refused =
        async || status(&site).await.is_some_and(|status| status.notices.iter().any(|it| it.contains("graze")));
    eventually("it is refused", is_refused).await;
    assert!(is_called(&site, "Order desk").await);
    assert!(site.read("log").contains("is refused"));
    site.reconfigure("graze = ", "grace = ");
    site.hang_up();
    eventually("the mended one is taken up", async || is_called(&site, "Orders and more").await).await;
    assert_eq!(status(&site).await.unwrap().notices, Vec::<String>::new());
}

#[tokio::test]
async fn a_run_under_way_is_not_disturbed() {
    let mut site = Site::new().await;
    WAITS.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    site.is_migrating().await;
    site.reconfigure("Order desk", "Orders and more");
    site.hang_up();
    let waits = async || {
        let waits = format!("run {run} is");
        status(&site).await.is_some_and(|status| status.notices.iter().any(|it| it.contains(&waits)))
    };
    eventually("it waits for the run", waits).await;
    assert!(is_called(&site, "Order desk").await);
    site.go_on();
    assert_eq!(site.settled(run).await.outcome, Some(Outcome::Succeeded));
    eventually("it is taken up then", async || is_called(&site, "Orders and more").await).await;
    site.reports(1).await;
}

#[tokio::test]
async fn a_hangup_ends_no_update_without_a_daemon() {
    let site = Site::with(ALONE).await;
    WAITS.publish(&site.feed());
    let mut update = site
        .command(&["update", "now", "orders", "--yes"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    site.is_migrating().await;
    let pid = Pid::from_raw(update.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::HUP).unwrap();
    site.go_on();
    let ended = tokio::time::timeout(PATIENCE, update.wait()).await.expect("it ends in time").unwrap();
    assert!(ended.success(), "{ended}");
    site.desk_answers("2.0").await;
}
