//! A run, watched live until it is finished or stuck.
//!
//! Watching outlives the daemon: when the connection breaks, the log is taken up again after the
//! last line that was shown, for as long as a restart may take.

use std::time::Duration;

use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::sleep;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::out::Ui;
use crate::cli::text;
use crate::cli::text::Times;
use crate::client::api::ApiError;
use crate::client::api::Client;
use crate::domain::event::RunEvent;
use crate::domain::run::RunId;
use crate::wire::error::ErrorKind;
use crate::wire::run::EventsQuery;
use crate::wire::run::RunEventView;
use crate::wire::run::RunView;

/// How long a daemon may be away while one of its runs is watched.
const AWAY_MAX: Duration = Duration::from_secs(120);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is said how long work goes, where nothing is drawn.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// How often a drawn progress moves.
const TICK: Duration = Duration::from_millis(120);

/// How many lines of the log of a run in this process may wait to be shown.
const EVENTS_WAITING_MAX: usize = 256;

/// What the lines of a log are to whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// The answer itself: stdout.
    AsData,
    /// Company while waiting: stderr.
    AsTalk,
}

/// Shows a run until it is finished or stuck, then what came of it.
pub(crate) async fn to_the_end(
    client: &Client,
    id: RunId,
    lines: Lines,
    context: &Context<'_>,
) -> Result<Ending, CliError> {
    let mut screen = Screen::new(context.ui, lines, context.times());
    let followed = follow(client, id, &mut screen).await;
    drop(screen);
    let run = followed?;
    context.ui.answer(&run, text::run::ending)?;
    Ok(Ending::of_run(&run))
}

/// Drives a run in this process and shows it as it goes; what came of it.
pub(crate) async fn here<Driven, Came>(
    drive: impl FnOnce(mpsc::Sender<RunEventView>) -> Driven,
    context: &Context<'_>,
) -> Result<Came, CliError>
where
    Driven: Future<Output = anyhow::Result<Came>>,
{
    let (events, mut shown) = mpsc::channel(EVENTS_WAITING_MAX);
    let mut screen = Screen::new(context.ui, Lines::AsTalk, context.times());
    let show = async {
        while let Some(event) = shown.recv().await {
            // Whoever does not want to see it any more must not stop the run.
            let _ = screen.show(&event);
        }
    };
    let (came, ()) = tokio::join!(drive(events), show);
    drop(screen);
    Ok(came?)
}

async fn follow(client: &Client, id: RunId, screen: &mut Screen<'_>) -> Result<RunView, CliError> {
    // A daemon or a run that was never there is no reason to wait.
    client.show_run(id).await?;
    let mut seen = 0;
    let mut away_since: Option<Instant> = None;
    loop {
        let before = seen;
        match read_on(client, id, &mut seen, screen).await {
            Ok(Some(run)) => return Ok(run),
            // The log ended, the run has not: the daemon is about to go.
            Ok(None) => away_since = None,
            Err(Lost::ForGood(error)) => return Err(error),
            Err(Lost::ForNow(error)) => {
                let since = *away_since.filter(|_| seen == before).get_or_insert_with(Instant::now);
                if since.elapsed() >= AWAY_MAX {
                    return Err(
                        CliError::from(error).hint(format!("the run may go on; see `afterhours run show {id}`"))
                    );
                }
                if away_since.replace(since).is_none() {
                    screen.waits_for_daemon();
                }
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

enum Lost {
    ForNow(ApiError),
    ForGood(CliError),
}

impl From<ApiError> for Lost {
    fn from(error: ApiError) -> Self {
        if error.kind() == ErrorKind::Unavailable { Self::ForNow(error) } else { Self::ForGood(error.into()) }
    }
}

/// Reads on until the log ends; the run where it is over.
async fn read_on(client: &Client, id: RunId, seen: &mut i64, screen: &mut Screen<'_>) -> Result<Option<RunView>, Lost> {
    let mut events = client.run_events(id, EventsQuery { follow: true, after: *seen }).await?;
    while let Some(event) = events.next().await? {
        if let RunEventView::Event { seq, .. } = &event {
            *seen = (*seen).max(*seq);
        }
        screen.show(&event).map_err(Lost::ForGood)?;
    }
    let run = client.show_run(id).await?;
    Ok(run.state.is_settled().then_some(run))
}

/// Where a run is shown: lines, and below them, on a terminal, what is going on right now.
struct Screen<'u> {
    ui: &'u Ui,
    lines: Lines,
    times: Times,
    bar: Option<ProgressBar>,
    /// When something was said last, where nothing is drawn.
    said_at: Instant,
}

impl<'u> Screen<'u> {
    fn new(ui: &'u Ui, lines: Lines, times: Times) -> Self {
        let bar = ui.can_draw().then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(TICK);
        }
        Self { ui, lines, times, bar, said_at: Instant::now() }
    }

    /// Shows one line of a log.
    fn show(&mut self, event: &RunEventView) -> Result<(), CliError> {
        match event {
            RunEventView::Event { logged_at, event, .. } => {
                self.said_at = Instant::now();
                if let (Some(bar), RunEvent::StepStarted { at, .. }) = (&self.bar, event) {
                    bar.set_style(ProgressStyle::default_spinner());
                    bar.set_message(format!("{at}: {}", at.step.row().does));
                }
                self.line(&text::event::line(*logged_at, event, &self.times))
            }
            RunEventView::Progress { at, done, total, what } => {
                if let Some(bar) = &self.bar {
                    draw(bar, *done, *total, format!("{at}: {what}"));
                } else if self.said_at.elapsed() >= SAY_EVERY {
                    self.said_at = Instant::now();
                    self.ui.say(format_args!("{at}: {what}"));
                }
                Ok(())
            }
            RunEventView::Alive => Ok(()),
        }
    }

    /// Says that nothing can be shown for now.
    fn waits_for_daemon(&self) {
        let what = "the daemon does not answer; waiting for it to come back";
        match &self.bar {
            Some(bar) => {
                bar.set_style(ProgressStyle::default_spinner());
                bar.set_message(what);
            }
            None => self.ui.say(what),
        }
    }

    fn line(&self, line: &str) -> Result<(), CliError> {
        let write = || match self.lines {
            Lines::AsData if !self.ui.is_json() => self.ui.data(line),
            Lines::AsData | Lines::AsTalk => {
                self.ui.say(line);
                Ok(())
            }
        };
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn draw(bar: &ProgressBar, done: u64, total: Option<u64>, message: String) {
    let template = if total.is_some() { "{spinner} {bar:24} {percent:>3} %  {msg}" } else { "{spinner} {msg}" };
    // A template of ours that cannot be read is drawn as a spinner.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_length(total.unwrap_or(done));
    bar.set_position(done);
    bar.set_message(message);
}
