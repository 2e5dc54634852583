//! Who does what a command asks: the daemon where one listens, this process where none does.
//!
//! A daemon always comes first, because it keeps the history and the gate, and knows who is connected to it.
//! Where none runs, whoever may read its store looks for themselves, by the same use cases.
//!
//! *Invariant:* whoever listens at the socket counts as a daemon, also one that does not answer or sends us
//! away: we never work beside it.

use std::io;
use std::sync::Arc;

use tokio::net::UnixStream;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::client::api::Client;
use crate::config::settings::Settings;
use crate::control::Control;
use crate::daemon::alone;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::release::Version;
use crate::domain::run::RunId;
use crate::domain::run::Side;
use crate::wire::app::AllowRelease;
use crate::wire::app::AllowedView;
use crate::wire::app::BackupView;
use crate::wire::app::DoctorView;
use crate::wire::app::EvidenceView;
use crate::wire::app::QuarantinedView;
use crate::wire::app::SnapshotView;
use crate::wire::app::UpdatesView;
use crate::wire::audit::EntriesQuery;
use crate::wire::audit::EntryView;
use crate::wire::audit::ProofView;
use crate::wire::audit::VerifyQuery;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;
use crate::wire::job::JobView;
use crate::wire::mail::MailedView;
use crate::wire::mail::TestMail;
use crate::wire::plan::PlanView;
use crate::wire::run::LookView;
use crate::wire::run::RunView;
use crate::wire::run::RunsQuery;
use crate::wire::status::StatusView;

/// Who does the work.
pub(crate) enum Doer {
    /// The daemon.
    Daemon(Client),
    /// Nobody listens: we do.
    Ourselves(Alone),
}

/// This process, in place of a daemon.
pub(crate) struct Alone {
    /// The configuration.
    pub(crate) settings: Box<Settings>,
    /// The daemon that does not run.
    absent: Client,
}

impl Doer {
    /// The daemon where one listens.
    pub(crate) async fn find(context: &Context<'_>) -> Result<Self, CliError> {
        let client = context.client()?;
        match UnixStream::connect(context.socket()?).await {
            Err(error) if is_nobody(&error) => {
                Ok(Self::Ourselves(Alone { settings: Box::new(context.settings()?), absent: client }))
            }
            // What else is wrong with the socket, the first request says better.
            _ => Ok(Self::Daemon(client)),
        }
    }

    /// Who answers about the configuration on disk: this process, where the daemon works with another one, and says so.
    pub(crate) async fn find_for_disk(context: &Context<'_>) -> Result<Self, CliError> {
        let doer = Self::find(context).await?;
        let Self::Daemon(client) = &doer else { return Ok(doer) };
        if !works_with_another(&client.status().await?, context) {
            return Ok(doer);
        }
        let path = context.config_path().display();
        context.ui.say(format_args!(
            "The daemon still works with another configuration than {path}, about which this is: `systemctl reload afterhours`"
        ));
        Ok(Self::Ourselves(Alone { settings: Box::new(context.settings()?), absent: context.client()? }))
    }

    /// All applications.
    pub(crate) async fn apps(&self) -> Result<Vec<AppName>, CliError> {
        match self {
            Self::Daemon(client) => {
                let status = client.status().await?;
                let unfit = status.unfit.into_iter().filter_map(|unfit| unfit.app?.parse().ok());
                Ok(status.apps.into_iter().map(|app| app.app).chain(unfit).collect())
            }
            Self::Ourselves(alone) => {
                Ok(alone.settings.names().into_iter().filter_map(|name| name.parse().ok()).collect())
            }
        }
    }

    /// What a run of a job would do.
    pub(crate) async fn plan(&self, name: &JobName) -> Result<PlanView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.plan_job(name).await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.plan_job(name).await?),
        }
    }

    /// Finds and tests the newest backup.
    pub(crate) async fn check_backup(&self, app: &AppName) -> Result<BackupView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.check_backup(app).await?),
            Self::Ourselves(alone) => Ok(alone::check_backup((*alone.settings).clone(), app).await?),
        }
    }

    /// Makes a backup and tests it.
    pub(crate) async fn make_backup(&self, app: &AppName) -> Result<BackupView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.make_backup(app).await?),
            Self::Ourselves(alone) => Ok(alone::make_backup((*alone.settings).clone(), app).await?),
        }
    }

    /// The backups that are found, newest first.
    pub(crate) async fn backups(&self, app: &AppName) -> Result<Vec<EvidenceView>, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.list_backups(app).await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.backups(app).await?),
        }
    }

    /// Everything on one page.
    pub(crate) async fn status(&self) -> Result<StatusView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.status().await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.status().await?),
        }
    }

    /// Sends a mail that says nothing but that it came.
    pub(crate) async fn test_mail(&self, to: String) -> Result<MailedView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.test_mail(&TestMail { to }).await?),
            Self::Ourselves(alone) => Ok(alone::test_mail(&alone.settings, to).await?),
        }
    }

    /// The next entries of the history; none where there are no more.
    pub(crate) async fn history(&self, query: EntriesQuery) -> Result<Vec<EntryView>, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.history(&query).await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.history(query).await?),
        }
    }

    /// Whether the history is what it was.
    pub(crate) async fn prove_history(&self, query: VerifyQuery) -> Result<ProofView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.prove_history(&query).await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.prove_history(query).await?),
        }
    }

    /// All jobs.
    pub(crate) async fn jobs(&self) -> Result<Vec<JobView>, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.list_jobs().await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.jobs().await?),
        }
    }

    /// One job.
    pub(crate) async fn job(&self, name: &JobName) -> Result<JobView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.show_job(name).await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.job(name).await?),
        }
    }

    /// The runs of a job, the newest first.
    pub(crate) async fn job_history(&self, name: &JobName, limit: Option<u32>) -> Result<Vec<RunView>, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.job_history(name, limit).await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.job_history(name, limit).await?),
        }
    }

    /// Runs, the newest first.
    pub(crate) async fn runs(&self, query: RunsQuery) -> Result<Vec<RunView>, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.list_runs(&query).await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.runs(query).await?),
        }
    }

    /// One run with its steps.
    pub(crate) async fn run(&self, run: RunId) -> Result<RunView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.show_run(run).await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.run_view(run).await?),
        }
    }

    /// What is seen of the version that is in place while a run is stuck.
    pub(crate) async fn look_at_run(&self, run: RunId, side: Side) -> Result<LookView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.look_at_run(run, side).await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.look_at_run(&alone::ourselves(), run, side).await?),
        }
    }

    /// Copies kept for rollback, the newest first.
    pub(crate) async fn snapshots(&self, app: &AppName) -> Result<Vec<SnapshotView>, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.list_snapshots(app).await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.snapshots(app).await?),
        }
    }

    /// Everything a run will need, checked.
    pub(crate) async fn doctor(&self, app: &AppName) -> Result<DoctorView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.doctor(app).await?),
            Self::Ourselves(alone) => Ok(alone::doctor((*alone.settings).clone(), app).await?),
        }
    }

    /// Newer releases.
    pub(crate) async fn updates(&self, app: &AppName) -> Result<UpdatesView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.check_updates(app).await?),
            Self::Ourselves(alone) => Ok(alone::check_updates((*alone.settings).clone(), app).await?),
        }
    }

    /// What failed here and is held back.
    pub(crate) async fn quarantined(&self, app: &AppName) -> Result<Vec<QuarantinedView>, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.list_quarantined(app).await?),
            Self::Ourselves(alone) => Ok(alone.look().await?.quarantined(app).await?),
        }
    }

    /// Lets a release that failed here be tried again.
    pub(crate) async fn allow_release(&self, app: &AppName, version: Version) -> Result<AllowedView, CliError> {
        match self {
            Self::Daemon(client) => Ok(client.allow_release(app, &AllowRelease { version }).await?),
            Self::Ourselves(alone) => Ok(alone::allow_release((*alone.settings).clone(), app, version).await?),
        }
    }
}

impl Alone {
    /// The use cases upon the daemon's store, for looking.
    pub(crate) async fn look(&self) -> Result<Arc<Control>, CliError> {
        match alone::look((*self.settings).clone()).await {
            Ok(control) => Ok(control),
            Err(error) => Err(self.neither(error.into()).await),
        }
    }

    /// A store that is not to be had is only half of the truth: a daemon would have done as well.
    async fn neither(&self, why: CliError) -> CliError {
        match self.absent.status().await {
            Err(error) if why.kind() == ErrorKind::Unavailable && error.kind() == ErrorKind::Unavailable => {
                let ErrorView { kind, message, mut because, .. } = error.view();
                because.push(why.view().message.clone());
                ErrorView { because, hint: why.view().hint.clone(), ..ErrorView::new(kind, message) }.into()
            }
            _ => why,
        }
    }
}

/// Whether the daemon works with another configuration than the one on disk, as far as this user may know.
pub(crate) fn works_with_another(status: &StatusView, context: &Context<'_>) -> bool {
    let theirs = status.daemon.as_ref().and_then(|daemon| daemon.config.clone());
    theirs.zip(context.config_digest()).is_some_and(|(theirs, ours)| theirs != ours)
}

/// No daemon runs, as opposed to one that cannot be reached.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
