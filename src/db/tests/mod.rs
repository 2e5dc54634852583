//! What the store promises, asked of a real file.

mod claims;
mod retention;
mod schema;
mod statements;
mod tables;
mod together;

use std::sync::Arc;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use tempfile::TempDir;

use crate::db::events::RunHead;
use crate::db::jobs::Settle;
use crate::db::store::Store;
use crate::domain::event::LoggedEvent;
use crate::domain::event::RunEvent;
use crate::domain::job::Job;
use crate::domain::job::JobSpec;
use crate::domain::job::JobType;
use crate::domain::job::MisfirePolicy;
use crate::domain::job::StartCondition;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::run::Order;
use crate::domain::run::RunId;
use crate::domain::run::RunState;
use crate::domain::run::Trigger;
use crate::domain::span::Span;
use crate::domain::step::At;
use crate::domain::step::Step;

struct Fresh {
    dir: TempDir,
    store: Store,
}

fn fresh() -> Fresh {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.db")).unwrap();
    Fresh { dir, store }
}

impl Fresh {
    /// The same file once more, as another process would have it.
    fn again(&self) -> Store {
        Store::open(&self.dir.path().join("store.db")).unwrap()
    }
}

fn night() -> DateTime<Utc> {
    "2026-11-22T02:30:00Z".parse().unwrap()
}

fn app() -> AppName {
    "orders".parse().unwrap()
}

fn job_name(name: &str) -> JobName {
    name.parse().unwrap()
}

/// An enabled job that falls due at `due_at`.
fn job(name: &str, due_at: Option<DateTime<Utc>>) -> Job {
    Job {
        spec: JobSpec {
            name: job_name(name),
            title: String::new(),
            kind: JobType::SoftwareUpdate,
            app: app(),
            remarks: String::new(),
            start: StartCondition::Immediate,
            grace: None,
            max_runtime: Span::hours(4),
            misfire: MisfirePolicy::Run,
            misfire_tolerance: Span::hours(4),
            to: None,
            to_named_at: None,
            on_failure: None,
            repair: false,
            mail: Vec::new(),
        },
        enabled: true,
        due_at,
        missed_at: None,
        created_by: "anna".to_owned(),
        created_at: night(),
        updated_at: night(),
    }
}

fn order() -> Order {
    Order { job: None, ..Order::of_job(&job("nightly", None).spec, Trigger::Manual, "anna") }
}

fn daily() -> Settle {
    Arc::new(|_, due_at, now| (due_at, Some(due_at.max(now) + TimeDelta::days(1))))
}

fn never() -> Settle {
    Arc::new(|_, due_at, _| (due_at, None))
}

fn logged(run: RunId, seq: i64, event: RunEvent) -> LoggedEvent {
    LoggedEvent { run, seq, at: night() + TimeDelta::seconds(seq), up: None, event }
}

fn running() -> RunHead {
    RunHead { state: RunState::Running { at: At::first(Step::Preflight) }, away: false }
}
