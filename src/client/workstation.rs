//! Starts a program under the gate and keeps its session: the work behind `afterhours client run`.
//!
//! ```text
//!            Welcome            OK, restart, EndNow           Start
//!   asking ──────────▶ running ─────────────────────▶ waiting ─────▶ running …
//!      │ GateClosed       │ ends by itself               │ Ready
//!      ▼                  ▼                              ▼
//!   Refused             Exited                    Closed, or asking again
//! ```
//!
//! - Without a daemon nothing starts, unless the caller says otherwise: the gate fails closed.
//! - A link that is lost later changes nothing for the user; the session goes on with the next
//!   daemon. Only when the announced time has come and the daemon is still silent, the client ends
//!   the program by itself: the update may be going on, and nobody could tell.
//! - A client that has waited stays: where the gate is closed again when it asks, it goes on waiting, and asks again when
//!   it opens.
//! - "OK" asks the program to end (TERM) and leaves it the announced time to save; force is used
//!   only when the daemon says that the time is up.
//!
//! Deliberately absent: anything against `kill -9` of the client. The program lives on then, unless its terminal went
//! with the client, and the daemon, which knows its process, goes on counting it and can end it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use chrono::DateTime;
use chrono::Utc;
use tokio::time::Instant;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

pub use crate::client::error::WorkstationError;

use crate::client::link;
use crate::client::link::Daemon;
use crate::client::link::Event;
use crate::client::link::Link;
use crate::client::program::Running;
use crate::client::program::Status;
use crate::client::ui::Input;
use crate::client::ui::Scene;
use crate::client::ui::Ui;
use crate::domain::name::AppName;
use crate::domain::session::Answer;
use crate::domain::session::Notice;
use crate::domain::span::Span;
use crate::exec::process::start_ticks;
use crate::wire::workstation::Answered;
use crate::wire::workstation::ClientState;
use crate::wire::workstation::Process;
use crate::wire::workstation::Program;
use crate::wire::workstation::Register;
use crate::wire::workstation::ServerMessage;
use crate::wire::workstation::StationStatus;

/// How long the program is given when the client itself is told to stop.
const STOP_POLITE: Duration = Duration::from_secs(10);
/// How long after the announced time a silent daemon is waited for before the program is ended.
const ALONE_GRACE: Duration = Duration::from_secs(30);
/// How long the program is given then.
const ALONE_POLITE: Duration = Duration::from_secs(30);
/// How long is waited before a gate that has refused is asked again, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long the end of an update is waited for.
const AFTERWARDS_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is run, and how.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// The application.
    pub app: AppName,
    /// The program and its arguments.
    pub program: Vec<String>,
    /// The name of the user.
    pub user: String,
    /// The name of the workstation.
    pub workstation: String,
    /// Whether a person answers at the terminal; the program then gets a terminal of its own or no input, and the
    /// client stays after "OK" to offer a new start.
    pub interactive: bool,
    /// The answer that is given to every warning at once, where nobody answers.
    pub answer: Option<Answer>,
    /// Whether the program is started when no daemon can be reached.
    pub without_daemon: bool,
    /// Cancelled when the client is to stop; it ends the program first.
    pub stop: CancellationToken,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The program ended by itself, or because the client was told to stop.
    Exited {
        /// Its exit code, or 128 and the signal.
        code: u8,
    },
    /// It was closed for an update, or by an operator.
    Closed,
    /// It was not started: the gate is closed.
    Refused {
        /// Why.
        message: String,
        /// Until when.
        until: Option<DateTime<Utc>>,
    },
}

/// How it stands at an application.
///
/// # Errors
/// The daemon cannot be reached, or does not know the application.
pub async fn status(socket: &Path, app: &AppName) -> Result<StationStatus, WorkstationError> {
    Daemon::new(socket, app)?.status().await
}

/// How it stands wherever this user has a session.
///
/// # Errors
/// The daemon cannot be reached.
pub async fn statuses(socket: &Path) -> Result<BTreeMap<AppName, StationStatus>, WorkstationError> {
    link::statuses(socket).await
}

/// Runs a program under the gate until it ends.
///
/// # Errors
/// It cannot be started, or the daemon does not take it.
pub async fn run(options: &RunOptions, ui: &mut impl Ui) -> Result<Outcome, WorkstationError> {
    let daemon = Daemon::new(&options.socket, &options.app)?;
    let mut waits = None;
    loop {
        let link = Link::new(daemon.clone(), first_word(options, waits));
        let mut shift = Shift::new(options, link, waits);
        let left = shift.work(ui).await;
        match left {
            Err(error) => {
                // A program that may still run goes on being counted: its session is lost, not given up.
                if shift.program.is_none() {
                    shift.link.leave().await;
                }
                return Err(error);
            }
            Ok(End::With(outcome)) => {
                shift.link.leave().await;
                return Ok(outcome);
            }
            Ok(End::AskAgain) => {
                waits = Some(Wait { refused: false, ..shift.next_wait() });
                shift.link.leave().await;
            }
            Ok(End::WaitOn) => {
                let wait = shift.next_wait();
                waits = Some(Wait { refused: true, times: wait.times + 1, ..wait });
                shift.link.leave().await;
            }
        }
    }
}

fn first_word(options: &RunOptions, waits: Option<Wait>) -> Register {
    let pid = std::process::id();
    let program = if waits.is_some_and(|wait| wait.refused) { Program::Ended } else { Program::NotStarted };
    Register {
        user: options.user.clone(),
        workstation: options.workstation.clone(),
        program_name: options.program.first().cloned().unwrap_or_default(),
        client: Process { pid, start_ticks: start_ticks(pid).unwrap_or_default() },
        session: None,
        state: ClientState { program, unsaved: None, last_activity: None },
        answered: None,
    }
}

/// The wish to start the program again, over all registrations.
#[derive(Debug, Clone, Copy)]
struct Wait {
    /// Since when the end of the update is waited for.
    since: Instant,
    /// Whether the gate was closed when it was asked last.
    refused: bool,
    /// How often it was.
    times: u32,
}

impl Wait {
    /// How long is waited before the gate is asked again.
    fn pause(&self) -> Duration {
        (AGAIN.0 * 2_u32.saturating_pow(self.times.saturating_sub(1))).min(AGAIN.1)
    }
}

/// How a registration ends.
enum End {
    /// For good.
    With(Outcome),
    /// The person wants to start the program once more.
    AskAgain,
    /// It was closed again meanwhile; the wish holds.
    WaitOn,
}

/// Whatever comes next.
enum Next {
    Said(ServerMessage),
    Down(WorkstationError),
    Ended(io::Result<u8>),
    Typed(Input),
    Second,
    Stop,
}

/// One registration, from the first word to the last.
struct Shift<'a> {
    options: &'a RunOptions,
    link: Link,
    /// The program, while it runs.
    program: Option<Running>,
    /// Since when the end of the update is waited for.
    waiting: Option<Instant>,
    /// The wish that an earlier registration has left.
    wish: Option<Wait>,
    /// When the gate is asked again.
    ask_at: Option<Instant>,
    welcomed: bool,
    down: bool,
    stopping: bool,
    notice: Option<Notice>,
    deadline: Option<Instant>,
    answered: Option<Answer>,
    /// What the program said of itself last.
    status: (Option<bool>, Option<DateTime<Utc>>),
    /// Whether the program can be started by the person now.
    ready: bool,
}

impl<'a> Shift<'a> {
    fn new(options: &'a RunOptions, link: Link, wish: Option<Wait>) -> Self {
        Self {
            options,
            link,
            program: None,
            waiting: wish.filter(|wish| wish.refused).map(|wish| wish.since),
            wish,
            ask_at: None,
            welcomed: false,
            down: false,
            stopping: false,
            notice: None,
            deadline: None,
            answered: None,
            status: (None, None),
            ready: false,
        }
    }

    fn next_wait(&self) -> Wait {
        let since = self.waiting.unwrap_or_else(Instant::now);
        self.wish.unwrap_or(Wait { since, refused: false, times: 0 })
    }

    async fn work(&mut self, ui: &mut impl Ui) -> Result<End, WorkstationError> {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                ended = ended(&mut self.program) => Next::Ended(ended),
                () = self.options.stop.cancelled(), if !self.stopping => Next::Stop,
                Some(event) = self.link.next() => match event {
                    Event::Said(message) => Next::Said(message),
                    Event::Down(why) => Next::Down(why),
                },
                input = ui.input() => Next::Typed(input),
                _ = seconds.tick() => Next::Second,
            };
            let end = match next {
                Next::Said(message) => self.said(message, ui)?,
                Next::Down(why) => self.went_down(why, ui)?,
                Next::Ended(code) => self.program_ended(code, ui)?,
                Next::Typed(Input::Answer(answer)) => {
                    self.answer(answer, ui);
                    None
                }
                Next::Typed(Input::Start) => self.ready.then_some(End::AskAgain),
                Next::Typed(Input::Stop) => self.stop(),
                Next::Second => {
                    self.pass_status_on().await;
                    self.second_passed(ui)
                }
                Next::Stop => self.stop(),
            };
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    fn said(&mut self, message: ServerMessage, ui: &mut impl Ui) -> Result<Option<End>, WorkstationError> {
        if std::mem::take(&mut self.down) && self.welcomed {
            ui.show(&Scene::LinkBack);
        }
        match message {
            ServerMessage::Welcome { .. } => {
                self.welcomed = true;
                if self.program.is_none() && self.waiting.is_none() {
                    self.start(ui)?;
                    ui.show(&Scene::Started);
                }
            }
            ServerMessage::GateClosed { text, until } => {
                ui.show(&Scene::Refused { text: text.clone(), until });
                if self.wish.is_some() {
                    ui.show(&Scene::Waiting { restart: true });
                    return Ok(Some(End::WaitOn));
                }
                return Ok(Some(End::With(Outcome::Refused { message: text, until })));
            }
            ServerMessage::Announce { notice, left } => self.warned(notice, left, ui),
            ServerMessage::Remind { notice, left } => {
                self.deadline = Some(Instant::now() + left.duration());
                if self.program.as_ref().is_some_and(|program| !program.ending) {
                    ui.show(&Scene::Reminded { notice, left });
                }
            }
            ServerMessage::Message { text } => ui.show(&Scene::Message(text)),
            ServerMessage::Withdrawn => {
                self.notice = None;
                self.deadline = None;
                if self.program.as_ref().is_some_and(|program| !program.ending) {
                    self.forget_answer();
                }
                ui.show(&Scene::Withdrawn);
            }
            ServerMessage::EndNow { force_after } => {
                if let Some(program) = &mut self.program {
                    ui.show(&Scene::Ending { force_after });
                    program.end(Some(force_after.duration()));
                }
            }
            ServerMessage::Start { text, .. } => {
                if self.program.is_none() {
                    ui.show(&Scene::Restarted { text });
                    self.start(ui)?;
                }
            }
            ServerMessage::Ready { success, text, .. } => return Ok(self.is_ready(success, text, ui)),
            ServerMessage::Ping | ServerMessage::Unknown => {}
        }
        Ok(None)
    }

    fn is_ready(&mut self, success: bool, text: String, ui: &mut impl Ui) -> Option<End> {
        self.notice = None;
        self.deadline = None;
        let waits = self.waiting.is_some();
        if waits && self.answered == Some(Answer::RestartAfterwards) {
            // The daemon never heard of the wish: the answer crossed the end of the update.
            return Some(End::AskAgain);
        }
        if let Some(wish) = self.wish.filter(|wish| waits && wish.refused) {
            self.ask_at = Some(Instant::now() + wish.pause());
            ui.show(&Scene::Ready { success, text, can_start: false });
            return None;
        }
        if !waits && self.program.as_ref().is_some_and(|program| !program.ending) {
            self.forget_answer();
        }
        self.ready = waits && self.options.interactive;
        ui.show(&Scene::Ready { success, text, can_start: self.ready });
        (waits && !self.ready).then_some(End::With(Outcome::Closed))
    }

    fn start(&mut self, ui: &mut impl Ui) -> Result<(), WorkstationError> {
        let RunOptions { program, app, interactive, .. } = self.options;
        let started = ui.open_screen().and_then(|terminal| Running::start(program, app, terminal, *interactive));
        let program = started.map_err(|source| {
            ui.close_screen();
            WorkstationError::Start { program: self.name(), source }
        })?;
        if let Some(process) = program.process {
            self.link.tell(|told| told.state.program = Program::Running { process });
        }
        self.program = Some(program);
        self.waiting = None;
        self.wish = None;
        self.ready = false;
        self.forget_answer();
        Ok(())
    }

    fn name(&self) -> String {
        self.options.program.first().cloned().unwrap_or_default()
    }

    fn forget_answer(&mut self) {
        self.answered = None;
        self.link.tell(|told| told.answered = None);
    }

    fn warned(&mut self, notice: Notice, left: Span, ui: &mut impl Ui) {
        self.deadline = Some(Instant::now() + left.duration());
        if self.notice.as_ref() == Some(&notice) {
            return;
        }
        self.notice = Some(notice.clone());
        match (self.answered, self.program.as_ref().is_some_and(|program| program.ending)) {
            // It is closing already: what was said holds for the new warning too.
            (Some(answer), true) => self.link.tell(|told| told.answered = Some(Answered { notice, answer })),
            (_, true) => {}
            (_, false) => {
                self.forget_answer();
                ui.show(&Scene::Warned { notice, left });
                if let Some(answer) = self.options.answer {
                    self.answer(answer, ui);
                }
            }
        }
    }

    fn answer(&mut self, answer: Answer, ui: &mut impl Ui) {
        let Some(notice) = self.notice.clone() else { return };
        if self.program.is_none() && answer == Answer::NotNow {
            return;
        }
        self.answered = Some(answer);
        self.link.tell(|told| told.answered = Some(Answered { notice, answer }));
        ui.show(&Scene::Answered(answer));
        match (&mut self.program, answer) {
            (Some(program), Answer::Ok | Answer::RestartAfterwards) => program.end(None),
            (Some(_), Answer::NotNow) | (None, _) => {}
        }
    }

    fn went_down(&mut self, why: WorkstationError, ui: &mut impl Ui) -> Result<Option<End>, WorkstationError> {
        if self.welcomed || self.program.is_some() {
            if !std::mem::replace(&mut self.down, true) && self.welcomed {
                tracing::debug!(%why, "the link to the daemon is lost");
                ui.show(&Scene::LinkLost);
            }
            return Ok(None);
        }
        match why {
            // The update may be under way again, and nobody could tell.
            WorkstationError::Unreachable { .. } if self.wish.is_some() => {
                self.down = true;
                Ok(None)
            }
            WorkstationError::Unreachable { .. } if self.options.without_daemon => {
                self.start(ui)?;
                self.down = true;
                ui.show(&Scene::Unguarded);
                Ok(None)
            }
            why => Err(why),
        }
    }

    fn program_ended(&mut self, code: io::Result<u8>, ui: &mut impl Ui) -> Result<Option<End>, WorkstationError> {
        ui.close_screen();
        let code = code.map_err(|source| WorkstationError::Wait { program: self.name(), source })?;
        let by_order = self.program.take().is_some_and(|program| program.ending);
        if !by_order || self.stopping {
            return Ok(Some(End::With(Outcome::Exited { code })));
        }
        let restart = self.answered == Some(Answer::RestartAfterwards);
        if !restart && !self.options.interactive {
            return Ok(Some(End::With(Outcome::Closed)));
        }
        self.waiting = Some(Instant::now());
        self.link.tell(|told| told.state.program = Program::Ended);
        ui.show(&Scene::Waiting { restart });
        Ok(None)
    }

    /// Tells the daemon what the program says of itself, when that has changed.
    async fn pass_status_on(&mut self) {
        let Some(program) = &self.program else { return };
        let Some(Status { unsaved, last_activity }) = program.status().await else { return };
        if (unsaved, last_activity) != self.status {
            self.status = (unsaved, last_activity);
            self.link.tell(|told| {
                told.state.unsaved = unsaved;
                told.state.last_activity = last_activity;
            });
        }
    }

    fn second_passed(&mut self, ui: &mut impl Ui) -> Option<End> {
        if self.waiting.is_some_and(|since| since.elapsed() > AFTERWARDS_MAX) {
            return Some(End::With(Outcome::Closed));
        }
        if self.ask_at.is_some_and(|at| at <= Instant::now()) {
            return Some(End::AskAgain);
        }
        let (Some(deadline), Some(program)) = (self.deadline, &mut self.program) else { return None };
        let left = deadline.saturating_duration_since(Instant::now());
        if self.down && is_forsaken(deadline, Instant::now()) && !program.ending {
            program.end(Some(ALONE_POLITE));
            ui.show(&Scene::Ending { force_after: Span::from(ALONE_POLITE) });
        } else if !left.is_zero() && self.answered != Some(Answer::NotNow) {
            ui.show(&Scene::Countdown { left: Span::from(left) });
        }
        None
    }

    fn stop(&mut self) -> Option<End> {
        self.stopping = true;
        match &mut self.program {
            Some(program) => {
                program.end(Some(STOP_POLITE));
                None
            }
            None => Some(End::With(Outcome::Closed)),
        }
    }
}

/// Whether a silent daemon has been waited for long enough after the announced time.
fn is_forsaken(deadline: Instant, now: Instant) -> bool {
    now.saturating_duration_since(deadline) > ALONE_GRACE
}

/// The end of the program; for ever pending while none runs.
async fn ended(program: &mut Option<Running>) -> io::Result<u8> {
    match program {
        Some(program) => program.ended().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_daemon_is_waited_for_past_the_announced_time() {
        let deadline = Instant::now();
        assert!(!is_forsaken(deadline + ALONE_GRACE, deadline));
        assert!(!is_forsaken(deadline, deadline + ALONE_GRACE));
        assert!(is_forsaken(deadline, deadline + ALONE_GRACE + Duration::from_secs(1)));
    }
}
