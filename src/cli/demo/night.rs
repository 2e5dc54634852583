//! One run of the demo's job, told while it happens.

use std::path::Path;
use std::time::Duration;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Timelike;
use chrono::Utc;
use indicatif::ProgressBar;
use tokio::process::Child;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::cli::context::Context;
use crate::cli::demo::crew::Crew;
use crate::cli::demo::stage::Stage;
use crate::cli::exit::CliError;
use crate::cli::out::Ui;
use crate::cli::text;
use crate::cli::text::Times;
use crate::client::api::Client;
use crate::domain::event::Output;
use crate::domain::event::RunEvent;
use crate::domain::job::JobType;
use crate::domain::job::MisfirePolicy;
use crate::domain::name::JobName;
use crate::domain::run::RunId;
use crate::domain::span::Span;
use crate::domain::step::At;
use crate::domain::step::Step;
use crate::sample::care::fingerprint;
use crate::wire::job::CreateJob;
use crate::wire::job::EditJob;
use crate::wire::job::StartRequest;
use crate::wire::run::EventsQuery;
use crate::wire::run::RunEventView;
use crate::wire::run::RunView;
use crate::wire::run::RunsQuery;

/// The job of both nights.
const JOB: &str = "nightly";
/// How far ahead it is set, at least.
const AHEAD: TimeDelta = TimeDelta::milliseconds(1_500);
/// How long after its time a run may appear.
const DUE_MAX: Duration = Duration::from_secs(20);
/// How long a run may take.
const RUN_MAX: Duration = Duration::from_secs(120);
/// How often a run is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a refused login may take.
const REFUSED_MAX: Duration = Duration::from_secs(20);
/// The last column that text is written into.
const WIDTH: usize = 118;

/// What was seen of a night.
#[derive(Debug)]
pub(super) struct Night {
    /// The run when it was over.
    pub(super) run: RunView,
    /// What each step said when it was done.
    pub(super) said: Vec<(At, String)>,
    /// The step that failed.
    pub(super) failed_at: Option<At>,
    /// Who was logged out when time was up.
    pub(super) logged_out: Vec<String>,
    /// What became of a login while the gate was closed.
    pub(super) late_login: Option<i32>,
    /// The data just after they were put back, before anybody could touch them.
    pub(super) print_restored: Option<String>,
    /// What was mailed.
    pub(super) mails: Vec<String>,
}

impl Night {
    /// Sets the job, follows its run to the end, and tells what happens.
    pub(super) async fn live(
        number: u32,
        grace: Span,
        stage: &Stage,
        crew: &Crew,
        client: &Client,
        context: &Context<'_>,
    ) -> Result<Self, CliError> {
        let at = next_instant(context.now());
        let before = newest(client).await?;
        set_job(number, at, grace, client).await?;
        context.ui.say(format!(
            "  {}  job {JOB} is due at {}",
            context.times().time(context.now()),
            context.times().time(at)
        ));
        let mut teller = Teller::new(context.ui, context.times(), stage);
        teller.now("waits for its time");
        let id = appears(client, before).await?;
        let mut witness = Witness { stage, crew, eva: None, seen: Seen::default() };
        let followed = timeout(RUN_MAX, follow(client, id, &mut teller, &mut witness));
        let run = followed.await.map_err(|error| CliError::failed("see the run end", &error))??;
        drop(teller);
        let late_login = witness.late_login().await;
        let Seen { said, failed_at, logged_out, print_restored } = witness.seen;
        let mails = mails(client, id).await?;
        show_mail(number, &mails, stage, context.ui)?;
        Ok(Self { run, said, failed_at, logged_out, late_login, print_restored, mails })
    }

    /// What a step said when it was done, for each build.
    pub(super) fn said(&self, step: Step) -> Vec<&str> {
        self.said.iter().filter(|(at, _)| at.step == step).map(|(_, what)| what.as_str()).collect()
    }
}

/// The first whole second that is far enough ahead.
fn next_instant(now: DateTime<Utc>) -> DateTime<Utc> {
    let soon = now + AHEAD + TimeDelta::seconds(1);
    soon.with_nanosecond(0).unwrap_or(soon)
}

/// The first time the job is made; the second time it gets a new start.
async fn set_job(number: u32, at: DateTime<Utc>, grace: Span, client: &Client) -> Result<(), CliError> {
    let name: JobName = JOB.parse().map_err(|error| CliError::failed("name the job", &error))?;
    let local = at.format("%Y-%m-%d %H:%M:%S").to_string();
    let start = StartRequest::Time { local, zone: Some("UTC".to_owned()) };
    if number > 1 {
        let edit = EditJob { start: Some(start), grace: Some(Some(grace)), enabled: Some(true), ..EditJob::default() };
        client.edit_job(&name, &edit).await?;
        return Ok(());
    }
    let app = "orders".parse().map_err(|error| CliError::failed("name the application", &error))?;
    let job = CreateJob {
        name,
        title: Some("Order desk, at night".to_owned()),
        kind: JobType::SoftwareUpdate,
        app,
        remarks: String::new(),
        start,
        enabled: true,
        grace: Some(grace),
        max_runtime: None,
        misfire: MisfirePolicy::default(),
        misfire_tolerance: None,
        to: None,
        on_failure: None,
        repair: false,
        mail: Vec::new(),
    };
    client.create_job(&job).await?;
    Ok(())
}

async fn newest(client: &Client) -> Result<Option<RunId>, CliError> {
    let query = RunsQuery { limit: Some(1), ..RunsQuery::default() };
    Ok(client.list_runs(&query).await?.first().map(|run| run.id))
}

/// Waits for a run after `before`.
async fn appears(client: &Client, before: Option<RunId>) -> Result<RunId, CliError> {
    let until = Instant::now() + DUE_MAX;
    loop {
        match newest(client).await? {
            Some(id) if Some(id) > before => return Ok(id),
            _ if Instant::now() >= until => {
                return Err(CliError::refused("the job was due and no run began", "see the daemon's log, with --dir"));
            }
            _ => sleep(LOOK_EVERY).await,
        }
    }
}

async fn follow(
    client: &Client,
    id: RunId,
    teller: &mut Teller<'_>,
    witness: &mut Witness<'_>,
) -> Result<RunView, CliError> {
    let mut events = client.run_events(id, EventsQuery { follow: true, after: 0 }).await?;
    while let Some(view) = events.next().await? {
        if let RunEventView::Event { event, .. } = &view {
            witness.sees(event)?;
        }
        teller.tells(&view);
    }
    Ok(client.show_run(id).await?)
}

/// What is noticed while a run goes on.
#[derive(Debug, Default)]
struct Seen {
    said: Vec<(At, String)>,
    failed_at: Option<At>,
    logged_out: Vec<String>,
    print_restored: Option<String>,
}

/// Looks at the right moments.
struct Witness<'a> {
    stage: &'a Stage,
    crew: &'a Crew,
    /// Somebody who comes while the gate is closed.
    eva: Option<Child>,
    seen: Seen,
}

impl Witness<'_> {
    fn sees(&mut self, event: &RunEvent) -> Result<(), CliError> {
        match event {
            RunEvent::StepSucceeded { at, output, message } => {
                self.seen.said.push((*at, message.clone()));
                if let Output::LoggedOut { closed } = output {
                    self.seen.logged_out.extend(closed.iter().map(|session| session.user.clone()));
                }
                if at.step == Step::CloseGate {
                    self.eva = Some(self.crew.try_station("eva", self.stage)?);
                }
            }
            RunEvent::StepFailed { at, .. } => self.seen.failed_at = Some(*at),
            RunEvent::UndoSucceeded { at, .. } if at.step == Step::MigrateData => {
                let print = fingerprint(&self.stage.data());
                let print = print.map_err(|error| CliError::failed("look at the data that were put back", &error))?;
                self.seen.print_restored = Some(print);
            }
            _ => {}
        }
        Ok(())
    }

    /// The exit code of the login that came too late.
    async fn late_login(&mut self) -> Option<i32> {
        let eva = self.eva.as_mut()?;
        timeout(REFUSED_MAX, eva.wait()).await.ok()?.ok()?.code()
    }
}

/// Tells a run: a line for what is done, and below it, on a terminal, what is going on.
struct Teller<'u> {
    ui: &'u Ui,
    times: Times,
    bar: Option<ProgressBar>,
    /// Goes without saying.
    dir: String,
}

impl<'u> Teller<'u> {
    fn new(ui: &'u Ui, times: Times, stage: &Stage) -> Self {
        let bar = ui.can_draw().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self { ui, times, bar, dir: format!("{}/", stage.dir().display()) }
    }

    fn now(&self, what: impl Into<String>) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.into());
        }
    }

    fn tells(&self, view: &RunEventView) {
        match view {
            RunEventView::Event { logged_at, event, .. } => {
                if let RunEvent::StepStarted { at, .. } = event {
                    self.now(format!("{at}: {}", at.step.row().does));
                }
                if let Some((what, text)) = told(event) {
                    self.line(&format!("  {}  {what:<16} {text}", self.times.time(*logged_at)));
                }
            }
            RunEventView::Progress { at, done, total: Some(total), what } => {
                self.now(format!("{at}: {done} of {total} {what}"));
            }
            RunEventView::Progress { at, total: None, what, .. } => self.now(format!("{at}: {what}")),
            RunEventView::Alive => {}
        }
    }

    fn line(&self, line: &str) {
        let line: String = line.replace(&self.dir, "").chars().take(WIDTH).collect();
        match &self.bar {
            Some(bar) => bar.suspend(|| self.ui.say(line)),
            None => self.ui.say(line),
        }
    }
}

impl Drop for Teller<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What is told of an event: of a step when it is over, and every turn.
fn told(event: &RunEvent) -> Option<(String, String)> {
    let or_done = |message: &String| if message.is_empty() { "done".to_owned() } else { message.clone() };
    Some(match event {
        RunEvent::StepSucceeded { at, message, .. } => (at.to_string(), or_done(message)),
        RunEvent::StepFailed { at, failure } => (at.to_string(), format!("FAILED: {failure}")),
        RunEvent::Deferred { at, reason, .. } => (at.to_string(), format!("waits: {reason}")),
        RunEvent::PassedOver { at, failure } => (at.to_string(), format!("left out: {failure}")),
        RunEvent::UndoSucceeded { at, message } => (at.to_string(), format!("put back: {}", or_done(message))),
        RunEvent::UndoFailed { at, failure, again_at: Some(_), .. } => {
            (at.to_string(), format!("NOT PUT BACK, tried again: {failure}"))
        }
        RunEvent::UndoFailed { at, failure, .. } | RunEvent::GaveUp { at, failure } => {
            (at.to_string(), format!("STUCK: {failure}"))
        }
        RunEvent::UnwindStarted { .. } => (String::new(), "Everything is put back as it was.".to_owned()),
        RunEvent::Committed => (String::new(), "The new version is accepted.".to_owned()),
        RunEvent::Finished { outcome } => (String::new(), format!("The run is over: {outcome}.")),
        _ => return None,
    })
}

/// The mails of a run, from its bundle for support.
async fn mails(client: &Client, id: RunId) -> Result<Vec<String>, CliError> {
    let mut bundle = Vec::new();
    client.run_bundle(id, &mut bundle).await?;
    let unpack = || -> std::io::Result<Vec<String>> {
        let mut mails = Vec::new();
        for entry in tar::Archive::new(zstd::Decoder::new(bundle.as_slice())?).entries()? {
            let entry = entry?;
            let is_mail =
                |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mail-"));
            if is_mail(&entry.path()?) {
                mails.push(std::io::read_to_string(entry)?);
            }
        }
        Ok(mails)
    };
    unpack().map_err(|error| CliError::failed("read the bundle of the run", &error))
}

/// The first lines are what the administrator reads in bed.
fn show_mail(number: u32, mails: &[String], stage: &Stage, ui: &Ui) -> Result<(), CliError> {
    for mail in mails {
        fs_err::write(stage.mail(number), mail).map_err(|error| CliError::failed("write the mail down", &error))?;
        let first: Vec<&str> = mail.split("\n\n").take(3).collect();
        ui.say(format!(
            "\n  The report, as it would be mailed, begins:\n{}\n",
            text::indented(&text::indented(&first.join("\n\n")))
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_set_far_enough_ahead_at_a_whole_second() {
        let now: DateTime<Utc> = "2026-11-21T23:59:58.700Z".parse().unwrap();
        let at = next_instant(now);
        assert_eq!(at.to_rfc3339(), "2026-11-22T00:00:01+00:00");
        assert!(at - now >= AHEAD);
    }
}
