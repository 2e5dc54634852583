//! The daemon and everything it knows, on one page.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::release::ReleaseId;
use crate::wire::job::LastRun;
use crate::wire::people::GateView;
use crate::wire::run::RunView;

/// How many jobs the status names at most.
pub const NEXT_JOBS_MAX: u32 = 20;

/// The daemon and everything it knows, on one page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// The daemon; nothing where none runs, and what it would know was read from its store.
    pub daemon: Option<DaemonView>,
    /// The applications, by name.
    pub apps: Vec<AppView>,
    /// The jobs that start next, soonest first, at most [`NEXT_JOBS_MAX`].
    pub next: Vec<NextJob>,
    /// The runs that are under way or stuck, without their steps.
    pub runs: Vec<RunView>,
    /// What an operator should know, in sentences: a clock that stepped, a job that waits for an answer.
    pub notices: Vec<String>,
}

/// The daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonView {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it was started.
    pub started_at: DateTime<Utc>,
    /// What time it thinks it is.
    pub now_at: DateTime<Utc>,
    /// The zone that it reads times in where nobody says.
    pub zone: String,
    /// How many jobs it keeps.
    pub jobs: u64,
}

/// One application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppView {
    /// Its name.
    pub app: AppName,
    /// For people.
    pub title: String,
    /// What is installed, where that is known.
    pub installed: Option<ReleaseId>,
    /// Whether users may log in.
    pub gate: GateView,
    /// How many are logged in; absent when that cannot be known.
    pub sessions: Option<u64>,
    /// The newest run.
    pub last_run: Option<LastRun>,
}

/// A job that will start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextJob {
    /// The job.
    pub job: JobName,
    /// The application.
    pub app: AppName,
    /// When.
    pub due_at: DateTime<Utc>,
}
