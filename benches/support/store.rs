//! Jobs for the real store.

use afterhours::db::store::Store;
use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::job::Job;
use afterhours::domain::job::JobSpec;
use afterhours::domain::job::JobType;
use afterhours::domain::job::MAX_RUNTIME_DEFAULT;
use afterhours::domain::job::MISFIRE_TOLERANCE_DEFAULT;
use afterhours::domain::job::MisfirePolicy;
use afterhours::domain::job::StartCondition;
use chrono::DateTime;
use chrono::Utc;
use chrono_tz::Tz;

/// Adds jobs that start at these instants; their names begin with `prefix`.
pub(crate) async fn add_jobs(store: &Store, prefix: &str, due: Vec<DateTime<Utc>>) {
    let now = SystemClock.now();
    let job = |(id, due_at): (i64, DateTime<Utc>)| Job {
        spec: spec(prefix, id, due_at),
        enabled: true,
        due_at: Some(due_at),
        missed_at: None,
        created_by: "root".to_owned(),
        created_at: now,
        updated_at: now,
    };
    store.create_jobs((1..).zip(due).map(job).collect()).await.expect("jobs are stored");
}

/// A job as an administrator would write it.
fn spec(prefix: &str, id: i64, due_at: DateTime<Utc>) -> JobSpec {
    JobSpec {
        name: format!("{prefix}-{id}").parse().expect("a sound name"),
        title: "Update of the order desk".to_owned(),
        kind: JobType::SoftwareUpdate,
        app: "orders".parse().expect("a sound name"),
        remarks: "agreed with the head of the department".to_owned(),
        start: StartCondition::Time { local: due_at.naive_utc(), zone: Tz::UTC },
        grace: None,
        max_runtime: MAX_RUNTIME_DEFAULT,
        misfire: MisfirePolicy::Run,
        misfire_tolerance: MISFIRE_TOLERANCE_DEFAULT,
        to: None,
        to_named_at: None,
        on_failure: None,
        repair: false,
        mail: vec!["it@example.com".to_owned()],
    }
}
