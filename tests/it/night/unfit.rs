//! What is written wrong takes out what it is about, and nothing else.

use afterhours::domain::run::Outcome;
use afterhours::domain::run::RunId;
use afterhours::wire::people::CloseGate;

use super::plain::in_secs;
use super::plain::once;
use super::releases::V2;
use super::site::Site;
use super::site::app;
use super::site::eventually;

#[tokio::test]
async fn one_bad_application_takes_out_itself_only() {
    let mut site = Site::new().await;
    V2.publish(&site.feed());
    let text = site.read("afterhours.toml");
    fs_err::write(site.path("afterhours.toml"), format!("{text}\n[app.broken]\ninstal_dir = \"/opt/broken\"\n"))
        .unwrap();
    site.open().await;
    let status = site.client().status().await.unwrap();
    assert_eq!(status.unfit.iter().map(|unfit| unfit.app.as_deref()).collect::<Vec<_>>(), [Some("broken")]);
    assert!(status.unfit[0].why.contains("instal_dir"), "{status:#?}");
    assert!(status.notices.iter().any(|it| it.contains("broken") && it.contains("did you mean")), "{status:#?}");
    assert!(site.read("log").contains("nothing is done with the application"));
    let (code, said, _) = site.run(&["doctor", "broken"]).await;
    assert!(code == 1 && said.contains("instal_dir"), "{code}: {said}");
    let (code, _, said) = site.run(&["update", "now", "broken"]).await;
    assert!(code == 4 && said.contains("instal_dir"), "{code}: {said}");
    let run = site.update().await;
    assert_eq!(site.settled(run).await.outcome, Some(Outcome::Succeeded));
    site.reports(1).await;
}

#[tokio::test]
async fn an_application_that_is_out_keeps_its_gate_and_its_jobs() {
    let mut site = Site::with(&[("sessions", "[{ workstations = true }]")]).await;
    site.open().await;
    site.job("nightly", serde_json::json!({})).await;
    site.stop().await;
    site.reconfigure("grace = \"2s\"", "grace = \"soon\"");
    site.serve().await;
    assert_eq!(site.client().status().await.unwrap().unfit.len(), 1);
    let (_, said, noted) = site.run(&["job", "show", "nightly"]).await;
    assert!(format!("{said}{noted}").contains("no run of it starts"), "{said}{noted}");
    // Nobody has closed its gate, so people go on working.
    let logs_in = async || site.run(&["client", "run", "--app", "orders", "--", "true"]).await.0;
    assert_eq!(logs_in().await, 0);
    site.reconfigure("grace = \"soon\"", "grace = \"2s\"");
    site.hang_up();
    let is_back = async || site.client().status().await.is_ok_and(|status| status.apps.len() == 1);
    eventually("it is taken up again", is_back).await;
    site.client().close_gate(&app(), &CloseGate { until: None, message: None }).await.unwrap();
    site.stop().await;
    site.reconfigure("grace = \"2s\"", "grace = \"soon\"");
    site.serve().await;
    assert!(!site.client().show_gate(&app()).await.unwrap().admits);
    let logs_in = async || site.run(&["client", "run", "--app", "orders", "--", "true"]).await.0;
    assert_eq!(logs_in().await, 4, "it is closed as it was");
}

#[tokio::test]
async fn a_missing_password_takes_out_the_mail_only() {
    let mut site = Site::new().await;
    V2.publish(&site.feed());
    let (from, file) = ("from = \"afterhours@example.com\"", site.path("password").display().to_string());
    let with_login = format!("{from}, user = \"a\", password_file = \"{file}\"");
    site.reconfigure(from, &with_login);
    site.open().await;
    let status = site.client().status().await.unwrap();
    assert_eq!(status.unfit.iter().map(|unfit| unfit.app.as_deref()).collect::<Vec<_>>(), [None]);
    assert!(status.notices.iter().any(|it| it.contains("no mail is sent")), "{status:#?}");
    let run = site.update().await;
    assert_eq!(site.settled(run).await.outcome, Some(Outcome::Succeeded));
    // What is owed waits, and goes out when it can.
    site.reconfigure(&with_login, from);
    site.hang_up();
    site.reports(1).await;
}

#[tokio::test]
async fn two_stores_do_not_share_an_installation() {
    let mut site = Site::new().await;
    site.open().await;
    let installed = format!("\"{}\"", site.installed().display());
    let mut other = Site::with(&[("install_dir", &installed)]).await;
    let state = site.path("state").display().to_string();
    let (code, said, _) = other.run(&["doctor", "orders"]).await;
    assert!(code == 1 && said.contains(&state), "{code}: {said}");
    other.serve().await;
    let unfit = other.client().status().await.unwrap().unfit;
    assert!(unfit.len() == 1 && unfit[0].why.contains(&state), "{unfit:#?}");
    // Something inside it, and another name for it.
    let link = other.path("link");
    std::os::unix::fs::symlink(site.path("opt"), &link).unwrap();
    for install_dir in [site.path("opt/orders/lib/inner"), link.join("orders")] {
        other.configure(&[("install_dir", &format!("\"{}\"", install_dir.display()))]);
        let (code, said, _) = other.run(&["doctor", "orders"]).await;
        assert!(code == 1 && said.contains(&state), "{code}: {said}");
    }
    // It is given back with its holder.
    other.configure(&[("install_dir", &installed)]);
    site.kill().await;
    other.hang_up();
    let is_taken_up = async || other.client().status().await.is_ok_and(|status| status.unfit.is_empty());
    eventually("it is free", is_taken_up).await;
}

#[tokio::test]
async fn a_start_of_an_application_that_is_out_is_missed_and_noted() {
    let mut site = Site::new().await;
    V2.publish(&site.feed());
    site.open().await;
    site.job("nightly", serde_json::json!({"start": once(in_secs(4)), "misfire": "run"})).await;
    site.stop().await;
    site.reconfigure("grace = \"2s\"", "grace = \"soon\"");
    site.serve().await;
    eventually("the start comes", async || site.client().show_run(RunId(1)).await.is_ok()).await;
    let run = site.settled(RunId(1)).await;
    assert_eq!(run.outcome, Some(Outcome::Skipped), "{run:#?}");
    let cause = run.cause.unwrap().message;
    assert!(cause.contains("was missed") && cause.contains("grace"), "{cause}");
    site.desk_answers("1.0").await;
}
