//! Nights in which nothing dies.

use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::run::Outcome;
use afterhours::domain::step::Step;
use chrono::DateTime;
use chrono::SubsecRound;
use chrono::TimeDelta;
use chrono::Utc;
use serde_json::Value;
use serde_json::json;

use super::releases::Edition;
use super::releases::V2;
use super::releases::V3;
use super::site::Site;
use super::site::eventually;
use super::truth::Left;

/// A whole second, some seconds from now.
pub(crate) fn in_secs(secs: i64) -> DateTime<Utc> {
    (SystemClock.now() + TimeDelta::seconds(secs)).trunc_subsecs(0)
}

/// The start condition of a job that is due then.
pub(crate) fn once(at: DateTime<Utc>) -> Value {
    json!({"kind": "time", "local": at.format("%Y-%m-%d %H:%M:%S").to_string(), "zone": "UTC"})
}

#[tokio::test]
async fn a_job_falls_due_and_installs_what_is_pending() {
    let mut site = Site::new().await;
    V2.publish(&site.feed());
    V3.publish(&site.feed());
    site.open().await;
    assert_eq!(site.order("third").await.as_deref(), Some("1.0"));
    let due_at = in_secs(2);
    site.job("nightly", json!({"start": once(due_at), "mail": ["boss@example.com"]})).await;
    let nightly = "nightly".parse().unwrap();
    let history = async || site.client().job_history(&nightly, None).await.unwrap();
    eventually("the job starts by itself", async || !history().await.is_empty()).await;
    let run = site.settled(history().await[0].id).await;
    assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}");
    let left = site.must_be_whole(&run, &[V2, V3], &["first", "second", "third"]).await;
    assert_eq!(left, Left::New);
    assert_eq!(site.read("data/starts"), "1.0\n2.0\n3.0");
    let late = run.started_at.unwrap() - due_at;
    assert!((TimeDelta::zero()..TimeDelta::seconds(2)).contains(&late), "{late}");
    assert!(run.downtime_ms.is_some_and(|ms| ms > 0));
    site.reports(1).await;
    site.stop().await;
    let mails = site.mail.taken();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, ["boss@example.com", "it@example.com"]);
    assert!(mails[0].subject.contains("Order desk"), "{}", mails[0].subject);
    for part in ["1.0", "3.0", "migrated 3 orders to 3"] {
        assert!(mails[0].content.contains(part), "{part}: {}", mails[0].content);
    }
}

#[tokio::test]
async fn what_a_migration_warned_of_is_told_though_it_ended_well() {
    const SCRIPT: &str = "python3 -I -S migrate.py 1 2; echo order 7 has no date >&2; echo nor has order 9 >&2";
    let warns = Edition { migrate: Some(&["sh", "-c", SCRIPT]), ..V2 };
    let mut site = Site::new().await;
    warns.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    let run = site.settled(run).await;
    assert_eq!(site.must_be_whole(&run, &[warns], &["first", "second"]).await, Left::New);
    let step = run.steps.iter().find(|step| step.step == Step::MigrateData).unwrap();
    let said = "migrated 2 orders to 2; it warned:\norder 7 has no date\nnor has order 9";
    assert_eq!(step.message.as_deref(), Some(said));
    site.reports(1).await;
    for text in [site.run(&["run", "show", "1"]).await.1, site.mail.taken()[0].content.clone()] {
        for line in said.lines() {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
