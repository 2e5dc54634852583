//! A good new program: the same process, the same run, one report.

use std::os::unix::fs::MetadataExt;

use afterhours::domain::run::Outcome;
use afterhours::wire::app::UpdateNow;

use super::updater::folder;
use super::updater::in_place;
use super::updater::publish_good;
use super::updater::record;
use super::updater::said;
use super::updater::site;
use crate::night::releases::V2;
use crate::night::releases::V3;
use crate::night::site::app;
use crate::night::truth::Left;

#[tokio::test]
async fn a_newer_afterhours_goes_first_and_the_run_goes_on() {
    let mut site = site().await;
    let new = publish_good(&site, "0.2.0", 2);
    V2.publish(&site.feed());
    site.open().await;
    site.job("nightly", serde_json::json!({})).await;
    let (code, plan, talk) = site.run(&["job", "plan", "nightly"]).await;
    assert_eq!(code, 0, "{talk}");
    assert!(plan.contains("first Afterhours updates itself from 0.1.0 to 0.2.0 (build 2)"), "{plan}");
    let (_, doctor, _) = site.run(&["doctor", "orders"]).await;
    assert!(doctor.contains("self_update: first, Afterhours updates itself from 0.1.0 to 0.2.0 (build 2)"), "{doctor}");
    let (_, check, _) = site.run(&["update", "check", "orders"]).await;
    assert!(
        check.contains("\n  first, Afterhours updates itself from 0.1.0 to 0.2.0 (build 2)\n  2.0 (build 2"),
        "{check}"
    );
    let (_, check, _) = site.run(&["update", "check", "orders", "--json"]).await;
    let check: serde_json::Value = serde_json::from_str(&check).unwrap();
    assert_eq!(check["self_update"]["to"]["version"], "0.2.0");
    let (pid, mode) = (site.pid(), fs_err::metadata(site.path("bin/afterhours")).unwrap().mode());

    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    assert_eq!(said(&site, run).await, ("Afterhours 0.2.0 (build 2) runs, before it was 0.1.0".to_owned(), Vec::new()));
    assert!(in_place(&site) == new);
    assert_eq!(fs_err::metadata(site.path("bin/afterhours")).unwrap().mode(), mode);
    assert_eq!(
        site.client().status().await.unwrap().daemon.unwrap().pid,
        pid,
        "to an init system nothing has happened"
    );
    let exe = fs_err::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(exe, site.path("bin/afterhours"));
    site.reports(1).await;
    let mail = &site.mail.taken()[0].content;
    assert!(mail.contains("Afterhours 0.2.0 (build 2) runs"), "{mail}");

    // The next run finds nothing newer, and nothing that the caretaker might still do.
    assert_eq!(record(&site)["pending"], serde_json::Value::Null);
    V3.publish(&site.feed());
    let view = site.settled(site.update().await).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    let (message, _) = said(&site, view.id).await;
    assert_eq!(message, "Afterhours 0.2.0 (build 2) stays; the feed has no newer one");
    site.stop().await;
    assert!(folder(&site).join("kept").exists(), "the one of before stays at hand");
}

#[tokio::test]
async fn a_release_that_needs_a_newer_afterhours_waits_for_it() {
    let mut site = site().await;
    V2.publish(&site.feed());
    let description = site.path("feed/2.0-2/release.toml");
    let text = fs_err::read_to_string(&description).unwrap();
    fs_err::write(&description, format!("min_afterhours = \"0.2\"\n{text}")).unwrap();
    site.open().await;
    let view = site.settled(site.update().await).await;
    assert_eq!(view.outcome, Some(Outcome::Failed));
    let said = format!("{view:?}");
    assert!(said.contains("it needs Afterhours 0.2 at least, and this is 0.1.0"), "{said}");
    publish_good(&site, "0.2.0", 2);
    let view = site.settled(site.update().await).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
}

#[tokio::test]
async fn a_release_with_a_key_of_a_newer_afterhours_keeps_nothing_from_updating_first() {
    let mut site = site().await;
    V2.publish(&site.feed());
    V3.publish(&site.feed());
    let description = site.path("feed/3.0-3/release.toml");
    let understood = fs_err::read_to_string(&description).unwrap();
    fs_err::write(&description, format!("moon = \"full\"\n{understood}")).unwrap();
    site.open().await;
    let (_, doctor, _) = site.run(&["doctor", "orders"]).await;
    let beyond = "3.0 (build 3) needs a newer Afterhours, because this one does not know its key moon";
    assert!(doctor.contains(&format!("1 pending, up to 2.0 (build 2); {beyond}")), "{doctor}");
    assert!(doctor.contains("remedy: update Afterhours"), "{doctor}");
    let new = publish_good(&site, "0.2.0", 2);
    let view = site.settled(site.update().await).await;
    assert_eq!(site.must_be_whole(&view, &[V2], &["first", "second"]).await, Left::New);
    assert_eq!(said(&site, view.id).await.0, "Afterhours 0.2.0 (build 2) runs, before it was 0.1.0");
    assert!(in_place(&site) == new);
    // Named or not, it is not installed before it is understood.
    let (code, check, talk) = site.run(&["update", "check", "orders"]).await;
    assert!(code == 0 && check.contains(beyond), "{check}{talk}");
    let ordered = UpdateNow { to: Some("3.0".parse().unwrap()), ..UpdateNow::default() };
    let run = site.client().update_now(&app(), &ordered).await.unwrap().id;
    site.settled(run).await;
    site.desk_answers("2.0").await;
    fs_err::write(&description, understood).unwrap();
    let view = site.settled(site.update().await).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    site.desk_answers("3.0").await;
}
