//! The typed client of the API: one method for each route of [`crate::wire`].
//!
//! Whatever a method returns as an error is an [`ApiError`]: the daemon's own words where it
//! answered, ours where it did not. How it is asked stands in `connection.rs`.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use reqwest::StatusCode;
use tokio::io::AsyncWrite;

pub use crate::client::connection::ApiError;
pub use crate::client::connection::Events;

use crate::client::connection::Connection;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::run::RunId;
use crate::domain::run::Side;
use crate::wire::app::AllowRelease;
use crate::wire::app::AllowedView;
use crate::wire::app::BackupView;
use crate::wire::app::DoctorView;
use crate::wire::app::EvidenceView;
use crate::wire::app::QuarantinedView;
use crate::wire::app::SnapshotView;
use crate::wire::app::UpdateNow;
use crate::wire::app::UpdatesView;
use crate::wire::audit::EntriesQuery;
use crate::wire::audit::EntryView;
use crate::wire::audit::ProofView;
use crate::wire::audit::VerifyQuery;
use crate::wire::error::ErrorKind;
use crate::wire::job::CreateJob;
use crate::wire::job::EditJob;
use crate::wire::job::JobChanged;
use crate::wire::job::JobView;
use crate::wire::job::RunJob;
use crate::wire::mail::MailedView;
use crate::wire::mail::TestMail;
use crate::wire::people::CloseGate;
use crate::wire::people::EndSessions;
use crate::wire::people::EndedView;
use crate::wire::people::GateView;
use crate::wire::people::GivePass;
use crate::wire::people::MessageSessions;
use crate::wire::people::MessagedView;
use crate::wire::people::PassView;
use crate::wire::people::SessionsView;
use crate::wire::plan::PlanView;
use crate::wire::route;
use crate::wire::run::CancelRun;
use crate::wire::run::EventsQuery;
use crate::wire::run::LookView;
use crate::wire::run::ResolveRun;
use crate::wire::run::RetryRun;
use crate::wire::run::RunView;
use crate::wire::run::RunsQuery;
use crate::wire::status::StatusView;

/// How long the daemon may take where it has to ask others: providers, feeds, backup programs.
const ASKING_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long making a backup may take; the application's own deadline ends it earlier.
const MAKING_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest bundle.
const BUNDLE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The daemon, as seen from outside.
#[derive(Debug, Clone)]
pub struct Client(Connection);

impl Client {
    /// A client of the daemon that listens at `socket`. Nothing is connected yet.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(socket: &Path) -> Result<Self, ApiError> {
        Connection::new(socket).map(Self)
    }

    /// The daemon and everything it knows, on one page.
    ///
    /// # Errors
    /// As for every method: the daemon cannot be asked, or says no.
    pub async fn status(&self) -> Result<StatusView, ApiError> {
        self.0.get(route::STATUS.to_owned()).json().await
    }

    /// Sends a mail that says nothing but that it came.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn test_mail(&self, test: &TestMail) -> Result<MailedView, ApiError> {
        self.0.post(route::MAIL_TEST.to_owned()).body(test).within(ASKING_TIMEOUT).json().await
    }

    /// The next entries of the history; none where there are no more.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn history(&self, query: &EntriesQuery) -> Result<Vec<EntryView>, ApiError> {
        let query = [("after", Some(query.after.to_string())), ("since", query.since.map(|since| since.to_rfc3339()))];
        self.0.find(route::AUDIT, &query).json().await
    }

    /// Whether the history is what it was.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn prove_history(&self, query: &VerifyQuery) -> Result<ProofView, ApiError> {
        let query = [("number", query.number.map(|number| number.to_string())), ("head", query.head.clone())];
        self.0.find(route::AUDIT_VERIFY, &query).within(ASKING_TIMEOUT).json().await
    }

    /// All jobs.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn list_jobs(&self) -> Result<Vec<JobView>, ApiError> {
        self.0.get(route::JOBS.to_owned()).json().await
    }

    /// A new job.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn create_job(&self, job: &CreateJob) -> Result<JobChanged, ApiError> {
        self.0.post(route::JOBS.to_owned()).body(job).json().await
    }

    /// One job.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn show_job(&self, job: &JobName) -> Result<JobView, ApiError> {
        self.0.get(route::fill(route::JOB, job)).json().await
    }

    /// Changes a job.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn edit_job(&self, job: &JobName, edit: &EditJob) -> Result<JobChanged, ApiError> {
        self.0.ask(Method::PATCH, route::fill(route::JOB, job)).body(edit).json().await
    }

    /// Removes a job; its runs stay in the history.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn delete_job(&self, job: &JobName) -> Result<(), ApiError> {
        self.0.ask(Method::DELETE, route::fill(route::JOB, job)).nothing().await
    }

    /// Lets a job start by itself.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn enable_job(&self, job: &JobName) -> Result<JobChanged, ApiError> {
        self.0.post(route::fill(route::JOB_ENABLE, job)).json().await
    }

    /// Keeps a job from starting by itself.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn disable_job(&self, job: &JobName) -> Result<JobChanged, ApiError> {
        self.0.post(route::fill(route::JOB_DISABLE, job)).json().await
    }

    /// Starts a job now.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn run_job(&self, job: &JobName, run: &RunJob) -> Result<RunView, ApiError> {
        self.0.post(route::fill(route::JOB_RUN, job)).body(run).within(ASKING_TIMEOUT).json().await
    }

    /// What a run of the job would do.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn plan_job(&self, job: &JobName) -> Result<PlanView, ApiError> {
        self.0.get(route::fill(route::JOB_PLAN, job)).within(ASKING_TIMEOUT).json().await
    }

    /// The runs of a job, newest first.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn job_history(&self, job: &JobName, limit: Option<u32>) -> Result<Vec<RunView>, ApiError> {
        let query = [("limit", limit.map(|limit| limit.to_string()))];
        self.0.find(&route::fill(route::JOB_HISTORY, job), &query).json().await
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn list_runs(&self, query: &RunsQuery) -> Result<Vec<RunView>, ApiError> {
        let query = [
            ("app", query.app.as_ref().map(ToString::to_string)),
            ("job", query.job.as_ref().map(ToString::to_string)),
            ("limit", query.limit.map(|limit| limit.to_string())),
        ];
        self.0.find(route::RUNS, &query).json().await
    }

    /// One run with its steps.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn show_run(&self, run: RunId) -> Result<RunView, ApiError> {
        self.0.get(route::fill(route::RUN, &run)).json().await
    }

    /// The log of a run after the line `after`, and with `follow` what comes until it is finished or stuck.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn run_events(&self, run: RunId, query: EventsQuery) -> Result<Events, ApiError> {
        let EventsQuery { follow, after } = query;
        let query = [("follow", Some(follow.to_string())), ("after", Some(after.to_string()))];
        self.0.find(&route::fill(route::RUN_EVENTS, &run), &query).events().await
    }

    /// Stops a run.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn cancel_run(&self, run: RunId) -> Result<RunView, ApiError> {
        self.0.post(route::fill(route::RUN_CANCEL, &run)).body(&CancelRun {}).json().await
    }

    /// Lets a stuck run try again.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn retry_run(&self, run: RunId) -> Result<RunView, ApiError> {
        self.0.post(route::fill(route::RUN_RETRY, &run)).body(&RetryRun {}).json().await
    }

    /// Looks at the version that is in place while a run is stuck.
    ///
    /// # Errors
    /// As [`Self::status`]; it is not that version.
    pub async fn look_at_run(&self, run: RunId, side: Side) -> Result<LookView, ApiError> {
        let query = [("as", Some(side.name().to_owned()))];
        self.0.find(&route::fill(route::RUN_LOOK, &run), &query).within(ASKING_TIMEOUT).json().await
    }

    /// Says which version of a stuck run is the good one.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn resolve_run(&self, run: RunId, resolve: ResolveRun) -> Result<RunView, ApiError> {
        self.0.post(route::fill(route::RUN_RESOLVE, &run)).body(&resolve).json().await
    }

    /// Writes what support needs to know of a run into `to`; returns the number of bytes.
    ///
    /// # Errors
    /// As [`Self::status`]; `to` cannot be written.
    pub async fn run_bundle(&self, run: RunId, to: &mut (impl AsyncWrite + Unpin)) -> Result<u64, ApiError> {
        self.0.get(route::fill(route::RUN_BUNDLE, &run)).within(ASKING_TIMEOUT).copy(to, BUNDLE_BYTES_MAX).await
    }

    /// Who is logged in.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn list_sessions(&self, app: &AppName) -> Result<SessionsView, ApiError> {
        self.0.get(route::fill(route::SESSIONS, app)).within(ASKING_TIMEOUT).json().await
    }

    /// Tells something to who is logged in.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn message_sessions(&self, app: &AppName, message: &MessageSessions) -> Result<MessagedView, ApiError> {
        self.0.post(route::fill(route::SESSIONS_MESSAGE, app)).body(message).within(ASKING_TIMEOUT).json().await
    }

    /// Logs somebody out.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn end_sessions(&self, app: &AppName, end: &EndSessions) -> Result<EndedView, ApiError> {
        self.0.post(route::fill(route::SESSIONS_END, app)).body(end).within(ASKING_TIMEOUT).json().await
    }

    /// Whether users may log in.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn show_gate(&self, app: &AppName) -> Result<GateView, ApiError> {
        self.0.get(route::fill(route::GATE, app)).json().await
    }

    /// Refuses logins.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn close_gate(&self, app: &AppName, close: &CloseGate) -> Result<GateView, ApiError> {
        self.0.post(route::fill(route::GATE_CLOSE, app)).body(close).within(ASKING_TIMEOUT).json().await
    }

    /// Admits logins.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn open_gate(&self, app: &AppName) -> Result<GateView, ApiError> {
        self.0.post(route::fill(route::GATE_OPEN, app)).within(ASKING_TIMEOUT).json().await
    }

    /// Admits one login through a closed gate.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn give_pass(&self, app: &AppName, pass: &GivePass) -> Result<PassView, ApiError> {
        self.0.post(route::fill(route::GATE_PASS, app)).body(pass).json().await
    }

    /// The gate's answer to a web server: whether it would let a request through.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn check_gate(&self, app: &AppName) -> Result<bool, ApiError> {
        match self.0.get(route::fill(route::GATE_CHECK, app)).nothing().await {
            Ok(()) => Ok(true),
            Err(ApiError::NotOurs { status: StatusCode::FORBIDDEN, .. }) => Ok(false),
            Err(ApiError::Answered(view)) if view.kind == ErrorKind::Refused => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The newest backup, tested now.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn check_backup(&self, app: &AppName) -> Result<BackupView, ApiError> {
        self.0.get(route::fill(route::BACKUP, app)).within(ASKING_TIMEOUT).json().await
    }

    /// Makes a backup.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn make_backup(&self, app: &AppName) -> Result<BackupView, ApiError> {
        self.0.post(route::fill(route::BACKUP, app)).within(MAKING_TIMEOUT).json().await
    }

    /// All backups that are found, newest first.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn list_backups(&self, app: &AppName) -> Result<Vec<EvidenceView>, ApiError> {
        self.0.get(route::fill(route::BACKUPS, app)).within(ASKING_TIMEOUT).json().await
    }

    /// Copies kept for rollback, newest first.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn list_snapshots(&self, app: &AppName) -> Result<Vec<SnapshotView>, ApiError> {
        self.0.get(route::fill(route::SNAPSHOTS, app)).json().await
    }

    /// Says that the clock is right.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn accept_clock(&self) -> Result<(), ApiError> {
        self.0.post(route::CLOCK_ACCEPT.to_owned()).nothing().await
    }

    /// Everything a run will need, checked.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn doctor(&self, app: &AppName) -> Result<DoctorView, ApiError> {
        self.0.get(route::fill(route::DOCTOR, app)).within(ASKING_TIMEOUT).json().await
    }

    /// Newer releases.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn check_updates(&self, app: &AppName) -> Result<UpdatesView, ApiError> {
        self.0.get(route::fill(route::UPDATES, app)).within(ASKING_TIMEOUT).json().await
    }

    /// What failed here and is held back, ascending by build.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn list_quarantined(&self, app: &AppName) -> Result<Vec<QuarantinedView>, ApiError> {
        self.0.get(route::fill(route::QUARANTINE, app)).json().await
    }

    /// Lets a release that failed here be tried again.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn allow_release(&self, app: &AppName, allow: &AllowRelease) -> Result<AllowedView, ApiError> {
        self.0.post(route::fill(route::UPDATE_ALLOW, app)).body(allow).json().await
    }

    /// Updates an application now.
    ///
    /// # Errors
    /// As [`Self::status`].
    pub async fn update_now(&self, app: &AppName, update: &UpdateNow) -> Result<RunView, ApiError> {
        self.0.post(route::fill(route::UPDATE, app)).body(update).within(ASKING_TIMEOUT).json().await
    }
}
