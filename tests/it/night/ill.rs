//! An application that does not pass its own check before the run, and whose fault it was afterwards.

use afterhours::domain::run::Outcome;
use afterhours::domain::step::Leg;
use afterhours::domain::step::Step;
use afterhours::wire::app::UpdateNow;
use afterhours::wire::run::RunView;
use afterhours::wire::run::StepView;
use rstest::rstest;

use super::releases::Edition;
use super::releases::SICK;
use super::releases::V2;
use super::releases::V3;
use super::site::Site;
use super::site::app;

/// A health check with a part of its own.
fn health(more: &str) -> String {
    format!("{{ http = \"http://127.0.0.1:PORT/\", {more}, times = 2, every = \"30ms\", deadline = \"3s\" }}")
}

/// Updates, and waits for the end.
async fn updated(site: &Site, repair: bool) -> RunView {
    let ask = UpdateNow { repair, ..UpdateNow::default() };
    let run = site.client().update_now(&app(), &ask).await.unwrap().id;
    site.settled(run).await
}

/// What is held back, as a script sees it.
async fn held(site: &Site) -> String {
    site.run(&["update", "allow", "--list", "--app", "orders", "--json"]).await.1
}

#[rstest]
#[case::deep_command(&health("deep = [\"sh\", \"-c\", \"echo no module named login >&2; exit 1\"]"), "no module named login")]
#[case::other_version(
    "{ command = [\"echo\", \"1.0+build.7\"], times = 2, every = \"30ms\", deadline = \"3s\" }",
    "1.0+build.7"
)]
#[case::page(
    "{ http = \"http://127.0.0.1:PORT/\", version = \"http://127.0.0.1:1/\", times = 2, every = \"30ms\", deadline = \"1s\" }",
    "http://127.0.0.1:1/"
)]
#[tokio::test]
async fn a_check_that_the_running_version_fails_ends_the_run_before_anybody_notices(
    #[case] health: &str,
    #[case] because: &str,
) {
    let mut site = Site::with(&[("health", health), ("installed_version", "\"1.0\"")]).await;
    V2.publish(&site.feed());
    site.open().await;
    let run = updated(&site, false).await;
    assert_eq!(run.outcome, Some(Outcome::Failed), "{run:#?}");
    let cause = run.cause.unwrap();
    assert!(cause.to_string().contains(because), "{cause}");
    let begun = |step: &StepView| step.started_at.is_some() && step.step.row().leg == Leg::Away;
    assert!(!run.steps.iter().any(begun), "{:#?}", run.steps);
    assert!(!run.steps.iter().any(|step| step.step == Step::CloseGate && step.started_at.is_some()));
    assert_eq!(site.read("data/starts"), "1.0", "nobody was disturbed");
    let (code, doctor, _) = site.run(&["doctor", "orders"]).await;
    assert!(code != 0 && doctor.contains(because), "{doctor}");
}

#[tokio::test]
async fn an_update_mends_an_application_that_is_ill() {
    let health = health("deep = [\"test\", \"!\", \"-e\", \"DIR/opt/orders/broken\"]");
    let mut site = Site::with(&[("health", &health)]).await;
    fs_err::write(site.path("opt/orders/broken"), "").unwrap();
    V2.publish(&site.feed());
    site.open().await;
    let run = updated(&site, false).await;
    assert_eq!(run.outcome, Some(Outcome::Failed), "{run:#?}");
    let hint = run.cause.unwrap().hint.unwrap();
    assert!(hint.contains("afterhours update now orders --repair"), "{hint}");
    let run = updated(&site, true).await;
    assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}");
    site.desk_answers("2.0").await;
}

#[tokio::test]
async fn after_a_rollback_no_more_is_asked_than_before() {
    let health = health("deep = [\"test\", \"!\", \"-e\", \"DIR/opt/orders/broken\"]");
    let mut site = Site::with(&[("health", &health)]).await;
    fs_err::write(site.path("opt/orders/broken"), "").unwrap();
    SICK.publish(&site.feed());
    site.open().await;
    let run = updated(&site, true).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    site.desk_answers("1.0").await;
}

#[tokio::test]
async fn an_application_that_is_down_is_updated_although_it_cannot_say_who_is_logged_in() {
    let start =
        "cd DIR/opt/orders; setsid sh -c 'exec python3 -I -S desk.py PORT' > /dev/null 2>&1 < /dev/null & touch DIR/up";
    let stop = "rm -f DIR/up; kill $(cat DIR/pid)";
    let service = format!(
        "{{ start = [\"sh\", \"-c\", \"{start}\"], stop = [\"sh\", \"-c\", \"{stop}\"], \
         status = [\"sh\", \"-c\", \"test -e DIR/up || exit 3\"], deadline = \"15s\", port = \"127.0.0.1:PORT\" }}"
    );
    let sessions =
        "[{ list = [\"sh\", \"-c\", \"test -e DIR/up && echo []\"], message = [\"test\", \"-e\", \"DIR/up\"] }]";
    let quick = "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"5s\" }";
    let mut site = Site::with(&[("service", &service), ("sessions", sessions), ("health", quick)]).await;
    V2.publish(&site.feed());
    site.serve().await;
    let run = updated(&site, false).await;
    assert_eq!(run.outcome, Some(Outcome::Failed), "{run:#?}");
    let run = updated(&site, true).await;
    assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}\n{}", site.read("log"));
    site.desk_answers("2.0").await;
}

#[tokio::test]
async fn a_release_that_failed_by_itself_is_held_back_by_name() {
    let mut site = Site::new().await;
    Edition { migrate: Some(&["sh", "-c", "echo 'no licence' >&2; echo '   ^' >&2; exit 1"]), ..V2 }
        .publish(&site.feed());
    site.open().await;
    let run = updated(&site, false).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    let cause = run.cause.unwrap().to_string();
    assert!(cause.ends_with("exit status 1: no licence"), "{cause}");
    site.reports(1).await;
    let mail = site.mail.taken()[0].content.clone();
    assert!(mail.contains("2.0 is held back"), "{mail}");
    assert!(mail.contains("afterhours update allow 2.0 --app orders"), "{mail}");
    assert!(held(&site).await.contains("2.0"));
    V3.publish(&site.feed());
    let run = updated(&site, false).await;
    assert_eq!(run.outcome, Some(Outcome::Skipped), "{run:#?}");
    site.reports(2).await;
    let mail = site.mail.taken()[1].content.clone();
    assert!(mail.contains("not updated, 2.0 failed before and is held back"), "{mail}");
}

#[rstest]
#[case::full_disk("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1")]
#[case::killed("kill -9 $$")]
#[tokio::test]
async fn a_release_is_not_held_back_for_what_the_machine_did(#[case] script: &'static str) {
    let mut site = Site::new().await;
    let argv: &'static [&'static str] = Vec::leak(vec!["sh", "-c", script]);
    Edition { migrate: Some(argv), ..V2 }.publish(&site.feed());
    site.open().await;
    let run = updated(&site, false).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    assert_eq!(held(&site).await.trim(), "[]");
    site.reports(1).await;
    assert!(site.mail.taken()[0].content.contains("tried again"), "{}", site.mail.taken()[0].content);
}

#[tokio::test]
async fn what_a_sick_version_answered_outlives_the_rollback() {
    let mut site = Site::with(&[("health", &health("deep = [\"true\"]"))]).await;
    SICK.publish(&site.feed());
    site.open().await;
    let run = updated(&site, false).await;
    assert_eq!(run.outcome, Some(Outcome::RolledBack), "{run:#?}");
    site.reports(1).await;
    for text in [site.run(&["run", "show", "1"]).await.1, site.mail.taken()[0].content.clone()] {
        assert!(text.contains("wrong data, or sick"), "{text}");
    }
}
