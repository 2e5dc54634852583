//! The daemon and everything it knows, on one page.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::failure::Failure;
use crate::domain::history::Anchor;
use crate::domain::letter::Letter;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::release::ReleaseId;
use crate::domain::update_check::Offer;
use crate::domain::update_check::UpdateCheck;
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
    /// Mails that somebody does not have: to be sent, to be tried again, or given up within a week. The newest first.
    #[serde(default)]
    pub mail: Vec<Letter>,
    /// The newest entry of the history; keep it elsewhere, and `audit verify` proves by it later that nothing was rewritten.
    #[serde(default)]
    pub history: Option<Anchor>,
    /// What of the configuration cannot be used, and is left out.
    #[serde(default)]
    pub unfit: Vec<UnfitView>,
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
    /// The SHA-256 of the text of the configuration that it works with.
    #[serde(default)]
    pub config: Option<String>,
}

/// A part of the configuration that cannot be used: nothing is done with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfitView {
    /// The application; the mail where absent.
    pub app: Option<String>,
    /// File, line, key, and what is wrong there.
    pub why: String,
    /// What a person can do about it.
    pub hint: Option<String>,
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
    /// Whether that is only what the application says: Afterhours has not put it there.
    #[serde(default)]
    pub unverified: bool,
    /// Whether users may log in.
    pub gate: GateView,
    /// How many are logged in; absent when that cannot be known.
    pub sessions: Option<u64>,
    /// The newest run.
    pub last_run: Option<LastRun>,
    /// What came of looking for newer releases, the last time; absent where nobody has looked yet.
    #[serde(default)]
    pub last_check: Option<LastCheck>,
}

/// The last look for newer releases: by the daemon itself, or because somebody asked it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheck {
    /// When.
    pub at: DateTime<Utc>,
    /// Why newer releases could not be looked for; its message is a fragment that fits after "failed to". Absent when
    /// all went well.
    pub failure: Option<Failure>,
    /// When it went well the last time; absent where it never did. What follows was seen then.
    pub seen_at: Option<DateTime<Utc>>,
    /// The releases that are newer than what is installed now, ascending: the newest 100 at most.
    pub pending: Vec<ReleaseId>,
    /// How many of them are held back: the last ones of the list. `update check` says why.
    pub held: u64,
}

impl LastCheck {
    /// What of a look is news while `installed` is in place.
    pub fn new(check: UpdateCheck, installed: Option<&ReleaseId>) -> Self {
        let UpdateCheck { at, offer, failure } = check;
        let (seen_at, pending, open) = match offer.map(|offer| offer.beyond(installed)) {
            None => (None, Vec::new(), 0),
            Some(Offer { at, pending, open }) => (Some(at), pending, open),
        };
        let held = pending.len().saturating_sub(open) as u64;
        Self { at, failure, seen_at, pending, held }
    }
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
