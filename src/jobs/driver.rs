//! Drives one run from where its log stands to where nothing more happens by itself.
//!
//! ```text
//! ┌─► decide(machine, now) ─► append intent (durable) ─► act or undo ─► append result (durable) ─┐
//! └──────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! It owns no policy: what happens next is [`decide`]'s word, what may follow is
//! [`Machine::apply`]'s. It knows two seams: the log ([`RunLog`]) and the steps ([`Steps`]).
//!
//! Invariants: nothing is done before its intent is durable; an event that cannot follow is never
//! written; a step between stop and commit is never dropped half-way, only a step before may be.
//!
//! One exception: while the application is away, the way back is gone also where the log cannot be written. People get
//! their application back first, and the log its lines when it takes them, in order, before anything else is done. Should
//! we die in between, the log says less than was done; the way back can be gone twice.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::broadcast;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::db::events::RunHead;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::clock::Clock;
use crate::domain::clock::Moment;
use crate::domain::event::How;
use crate::domain::event::LoggedEvent;
use crate::domain::event::Output;
use crate::domain::event::RunEvent;
use crate::domain::failure::Failure;
use crate::domain::name::AppName;
use crate::domain::run::Cause;
use crate::domain::run::Fence;
use crate::domain::run::Order;
use crate::domain::run::RunId;
use crate::domain::run::RunState;
use crate::domain::span::Span;
use crate::domain::step::At;
use crate::domain::step::Leg;
use crate::domain::step::Step;
use crate::jobs::decide::Decision;
use crate::jobs::decide::decide;
use crate::jobs::decide::interruption;
use crate::jobs::decide::runtime;
use crate::jobs::decide::undo_failed;
use crate::jobs::machine::Cursor;
use crate::jobs::machine::IllegalEvent;
use crate::jobs::machine::Machine;

/// How often the clock is looked at while waiting: a timer stands still while the machine is suspended.
const CLOCK_LOOK: std::time::Duration = Duration::from_secs(30);
/// The first and the longest pause before a line that could not be written is written again.
const LOG_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long that is tried before the run is left as it stands.
const LOG_WAIT: Duration = Duration::from_secs(10 * 60);
/// The same while the application is away: then everything is put back.
const LOG_WAIT_AWAY: Duration = Duration::from_secs(60);

/// Where a run's log is kept.
pub trait RunLog: Send + Sync + 'static {
    /// The whole log of a run.
    fn load(&self, run: RunId) -> impl Future<Output = Result<Vec<LoggedEvent>, StoreError>> + Send;
    /// Appends one event; durable when it returns.
    fn append(
        &self,
        fence: Fence,
        logged: LoggedEvent,
        head: RunHead,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl RunLog for Store {
    async fn load(&self, run: RunId) -> Result<Vec<LoggedEvent>, StoreError> {
        self.events(run, 0).await
    }

    async fn append(&self, fence: Fence, logged: LoggedEvent, head: RunHead) -> Result<(), StoreError> {
        self.append_event(fence, logged, head).await
    }
}

/// What a step says when it is done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Done {
    /// For later steps.
    pub output: Output,
    /// For people: one sentence.
    pub message: String,
}

impl Done {
    /// Done, with nothing for later steps.
    pub fn saying(message: impl Into<String>) -> Self {
        Self { output: Output::Nothing, message: message.into() }
    }
}

/// The effects of a run. Every act and every undo can be done twice.
pub trait Steps: Send + Sync + 'static {
    /// Does a step.
    fn act(
        &self,
        run: RunId,
        at: At,
        how: How,
        machine: Arc<Machine>,
    ) -> impl Future<Output = Result<Done, Failure>> + Send;
    /// Undoes a step, whatever of it was done.
    fn undo(&self, run: RunId, at: At, machine: Arc<Machine>) -> impl Future<Output = Result<String, Failure>> + Send;
    /// Makes ready for going on with a step, or its undo, after a crash: ends what was left running. While the application
    /// is away, more may have been done than the log says: the application rests for a step that needs it, and it is an
    /// error when everything went back.
    fn clear_up(&self, run: RunId, at: At, machine: Arc<Machine>) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Why nothing can be done with an application.
    fn unfit(&self, _app: &AppName) -> Option<&str> {
        None
    }
}

/// What somebody watching a run sees.
#[derive(Debug, Clone)]
pub enum Live {
    /// A line was written to its log.
    Event(LoggedEvent),
    /// A long piece of work is so far.
    Progress {
        /// The run.
        run: RunId,
        /// The step.
        at: At,
        /// How much is done.
        done: u64,
        /// Of how much.
        total: Option<u64>,
        /// Of what.
        what: String,
    },
}

/// Something a person asks of a run that is being driven.
#[derive(Debug)]
pub struct Request {
    /// The event to append.
    pub event: RunEvent,
    /// Whether it could follow.
    pub reply: oneshot::Sender<Result<(), IllegalEvent>>,
}

/// A run could not be driven on. Its log is intact; it goes on when it is taken up again.
#[derive(Debug, Error)]
pub enum DriveError {
    /// The store failed, or somebody else has claimed the run.
    #[error("drive run {run}")]
    Store {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The log holds something that cannot follow.
    #[error("understand the log of run {run}")]
    Log {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: IllegalEvent,
    },
}

/// How driving ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driven {
    /// Nothing more happens by itself.
    Halted(Box<Machine>),
    /// We are shutting down; the run goes on at the next start.
    Interrupted,
}

/// Drives one run.
pub struct Driver<L, S> {
    /// Where the log is.
    pub log: L,
    /// The effects.
    pub steps: Arc<S>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who watches.
    pub live: broadcast::Sender<Live>,
}

/// The run as this process holds it.
struct Held<'a, L, S> {
    driver: &'a Driver<L, S>,
    run: RunId,
    fence: Fence,
    machine: Machine,
    seq: i64,
    /// What happened and could not be written yet, in order; empty but on the way back.
    owed: VecDeque<(LoggedEvent, RunHead)>,
    shutdown: CancellationToken,
}

impl<L: RunLog, S: Steps> Driver<L, S> {
    /// Drives `run` until it halts or `shutdown` is asked for.
    ///
    /// `order` begins the log of a run that has none.
    ///
    /// # Errors
    /// The log cannot be read or written.
    pub async fn drive(
        &self,
        run: RunId,
        fence: Fence,
        order: &Order,
        inbox: &mut mpsc::Receiver<Request>,
        shutdown: &CancellationToken,
    ) -> Result<Driven, DriveError> {
        let mut held = self.take_up(run, fence, order, shutdown).await?;
        held.clear_up().await?;
        loop {
            while let Ok(request) = inbox.try_recv() {
                held.take_in(request).await?;
            }
            if shutdown.is_cancelled() {
                return Ok(Driven::Interrupted);
            }
            let decision = decide(&held.machine, self.clock.moment());
            if decision == Decision::Halt {
                return Ok(Driven::Halted(Box::new(held.machine)));
            }
            match held.follow(decision, inbox, shutdown).await {
                Err(DriveError::Store { source, .. }) if held.must_go_back(&source) => held.turn_round(&source).await?,
                followed => followed?,
            }
        }
    }

    /// Writes the beginning of a run's log, if it has none.
    ///
    /// # Errors
    /// The log cannot be read or written.
    pub async fn begin(
        &self,
        run: RunId,
        fence: Fence,
        order: &Order,
        shutdown: &CancellationToken,
    ) -> Result<(), DriveError> {
        self.take_up(run, fence, order, shutdown).await.map(drop)
    }

    /// Appends one event to a run that nobody drives (a person resolves a stuck one). Waits for nothing that is scarce.
    ///
    /// # Errors
    /// The event cannot follow, or the store fails.
    pub async fn append_once(
        &self,
        run: RunId,
        fence: Fence,
        order: &Order,
        event: RunEvent,
    ) -> Result<(), DriveError> {
        let at_once = CancellationToken::new();
        at_once.cancel();
        let mut held = self.take_up(run, fence, order, &at_once).await?;
        held.append(event).await
    }

    async fn take_up(
        &self,
        run: RunId,
        fence: Fence,
        order: &Order,
        shutdown: &CancellationToken,
    ) -> Result<Held<'_, L, S>, DriveError> {
        let events = self.log.load(run).await.map_err(|source| DriveError::Store { run, source })?;
        let seq = events.last().map_or(0, |last| last.seq);
        if events.is_empty() {
            let mut held = self.hold(run, fence, Machine::queued(order.clone()), seq, shutdown);
            held.write(RunEvent::Queued { order: order.clone() }, held.machine.clone()).await?;
            return Ok(held);
        }
        let machine = Machine::fold(&events).map_err(|source| DriveError::Log { run, source })?;
        Ok(self.hold(run, fence, machine, seq, shutdown))
    }

    fn hold(
        &self,
        run: RunId,
        fence: Fence,
        machine: Machine,
        seq: i64,
        shutdown: &CancellationToken,
    ) -> Held<'_, L, S> {
        Held { driver: self, run, fence, machine, seq, owed: VecDeque::new(), shutdown: shutdown.clone() }
    }
}

impl<L: RunLog, S: Steps> Held<'_, L, S> {
    /// Does what is decided, and writes down what came of it.
    async fn follow(
        &mut self,
        decision: Decision,
        inbox: &mut mpsc::Receiver<Request>,
        shutdown: &CancellationToken,
    ) -> Result<(), DriveError> {
        match decision {
            Decision::Halt => Ok(()),
            Decision::Append(event) => self.append(event).await,
            Decision::Wait { left } => self.wait(left, inbox, shutdown).await,
            Decision::Act { at, attempt, how } => {
                self.append(RunEvent::StepStarted { at, attempt, how }).await?;
                match self.act(at, how, inbox, shutdown).await? {
                    Some(event) => self.append(event).await,
                    None => Ok(()),
                }
            }
            Decision::Undo { at, attempt } => {
                self.append(RunEvent::UndoStarted { at, attempt }).await?;
                let event = self.undo(at, attempt, inbox).await?;
                self.append(event).await
            }
        }
    }

    /// Whether the application waits for a run that cannot go forward, because its log takes nothing any more.
    fn must_go_back(&self, source: &StoreError) -> bool {
        self.is_forward() && self.machine.is_away() && source.scarce().is_some() && !self.shutdown.is_cancelled()
    }

    fn is_forward(&self) -> bool {
        matches!(self.machine.state(), RunState::Running { .. })
    }

    /// What cannot be written down is not gone on with: everything is put back.
    async fn turn_round(&mut self, source: &StoreError) -> Result<(), DriveError> {
        let hint = "make room where the store is (`data_dir`), then start the job again";
        let failure = Failure { scarce: source.scarce(), ..Failure::from_error(source) };
        let failure = Failure { message: "write the log of the run".to_owned(), ..failure.hint(hint) };
        let at = match *self.machine.cursor() {
            Cursor::Acting { at, .. } => {
                self.append(RunEvent::StepFailed { at, failure: failure.clone() }).await?;
                at
            }
            Cursor::Failed { at, .. } => at,
            _ => self.machine.next_step().unwrap_or(At::first(Step::Stop)),
        };
        self.append(RunEvent::UnwindStarted { cause: Cause::StepFailed { at, failure } }).await
    }

    /// Appends an event that must be able to follow.
    async fn append(&mut self, event: RunEvent) -> Result<(), DriveError> {
        let now = self.driver.clock.moment();
        let mut after = self.machine.clone();
        after.apply(&event, now).map_err(|source| DriveError::Log { run: self.run, source })?;
        self.write(event, after).await
    }

    async fn write(&mut self, event: RunEvent, after: Machine) -> Result<(), DriveError> {
        let Moment { at, up } = self.driver.clock.moment();
        let logged = LoggedEvent { run: self.run, seq: self.seq + 1, at, up, event };
        tell(&logged);
        let head = RunHead { state: after.state().clone(), away: after.is_away() };
        let may_owe = self.machine.is_away() && is_on_the_way_back(&logged.event);
        self.owed.push_back((logged, head));
        if let Err(error) = self.write_owed(may_owe).await {
            // It has not happened.
            self.owed.pop_back();
            return Err(error);
        }
        self.seq += 1;
        self.machine = after;
        Ok(())
    }

    /// Writes what is owed. An event that could not be written was not: it is written again, after a pause, or, where the
    /// application must come back first, with the next one.
    async fn write_owed(&mut self, may_owe: bool) -> Result<(), DriveError> {
        let (mut pause, mut waited) = (LOG_PAUSE.0, Duration::ZERO);
        let longest = if self.machine.is_away() { LOG_WAIT_AWAY } else { LOG_WAIT };
        while let Some((logged, head)) = self.owed.front().cloned() {
            let Err(source) = self.driver.log.append(self.fence, logged.clone(), head).await else {
                self.owed.pop_front();
                // Nobody may be watching.
                let _ = self.driver.live.send(Live::Event(logged));
                continue;
            };
            let (run, event) = (self.run.0, logged.event.name());
            match source.scarce() {
                Some(scarce) if may_owe && !self.shutdown.is_cancelled() => {
                    tracing::error!(run.id = run, error = %source, "{event} is written later: {scarce}");
                    return Ok(());
                }
                // Who owes more than this line has put the application back, and forgets it only with the process.
                Some(scarce) if waited < longest || (self.owed.len() > 1 && !self.is_forward()) => {
                    let secs = pause.as_secs();
                    tracing::warn!(run.id = run, error = %source, "the log waits {secs} s and is written again: {scarce}");
                }
                _ => return Err(DriveError::Store { run: self.run, source }),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shutdown.cancelled() => return Err(DriveError::Store { run: self.run, source }),
            }
            waited += pause;
            pause = (pause * 2).min(LOG_PAUSE.1);
        }
        Ok(())
    }

    /// After a crash: what it interrupted may still be at work, and must not be while it is repeated or undone.
    async fn clear_up(&mut self) -> Result<(), DriveError> {
        let next = self.machine.next_step().filter(|_| self.is_forward() && self.machine.is_away());
        let at = match (self.machine.cursor(), next) {
            (Cursor::Acting { at, .. } | Cursor::Undoing { at, .. }, _) => *at,
            (Cursor::Idle, Some(next)) => next,
            _ => return Ok(()),
        };
        let cleared = self.driver.steps.clear_up(self.run, at, Arc::new(self.machine.clone())).await;
        match (cleared, self.machine.cursor()) {
            (Ok(()), _) => Ok(()),
            (Err(failure), Cursor::Undoing { attempt, .. }) => {
                self.append(undo_failed(at, *attempt, failure, self.driver.clock.now())).await
            }
            (Err(failure), Cursor::Acting { .. }) => self.append(RunEvent::StepFailed { at, failure }).await,
            (Err(failure), _) => {
                self.append(RunEvent::UnwindStarted { cause: Cause::StepFailed { at, failure } }).await
            }
        }
    }

    /// Takes in what a person asks; says no when it cannot follow.
    async fn take_in(&mut self, request: Request) -> Result<(), DriveError> {
        let answer = match self.append(request.event).await {
            Ok(()) => Ok(()),
            Err(DriveError::Log { source, .. }) => Err(source),
            Err(error) => return Err(error),
        };
        // Whoever asked may have gone.
        let _ = request.reply.send(answer);
        Ok(())
    }

    async fn wait(
        &mut self,
        left: Span,
        inbox: &mut mpsc::Receiver<Request>,
        shutdown: &CancellationToken,
    ) -> Result<(), DriveError> {
        tokio::select! {
            Some(request) = inbox.recv() => self.take_in(request).await?,
            () = shutdown.cancelled() => {}
            () = pause(left) => {}
        }
        Ok(())
    }

    /// Undoes a step; whoever asks something meanwhile is answered at once.
    async fn undo(
        &mut self,
        at: At,
        attempt: u32,
        inbox: &mut mpsc::Receiver<Request>,
    ) -> Result<RunEvent, DriveError> {
        let driver = self.driver;
        let span = tracing::info_span!("undo", step = %at, attempt);
        let work = driver.steps.undo(self.run, at, Arc::new(self.machine.clone())).instrument(span);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return Ok(match result {
                    Ok(message) => RunEvent::UndoSucceeded { at, message },
                    Err(failure) => undo_failed(at, attempt, failure, driver.clock.now()),
                }),
                Some(request) = inbox.recv() => self.take_in(request).await?,
            }
        }
    }

    /// Does a step; no event when it was broken off and the run turns round, or we are shutting down.
    async fn act(
        &mut self,
        at: At,
        how: How,
        inbox: &mut mpsc::Receiver<Request>,
        shutdown: &CancellationToken,
    ) -> Result<Option<RunEvent>, DriveError> {
        let driver = self.driver;
        let droppable = at.step.row().leg == Leg::Before;
        let runtime = runtime(&self.machine).filter(|_| droppable);
        let span = tracing::info_span!("step", step = %at);
        let work = driver.steps.act(self.run, at, how, Arc::new(self.machine.clone())).instrument(span);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return Ok(Some(match result {
                    Ok(done) => RunEvent::StepSucceeded { at, output: done.output, message: done.message },
                    // Where the machine goes down, it is not the release that ended.
                    Err(failure) => {
                        let of_release = failure.of_release && !shutdown.is_cancelled();
                        RunEvent::StepFailed { at, failure: failure.of_release(of_release) }
                    }
                })),
                Some(request) = inbox.recv() => self.take_in(request).await?,
                () = shutdown.cancelled(), if droppable => return Ok(None),
                () = pause(runtime.map_or(Span::MAX, |runtime| runtime.left(driver.clock.moment()))), if droppable => {}
            }
            if droppable && interruption(&self.machine, driver.clock.moment()).is_some() {
                return Ok(None);
            }
        }
    }
}

/// What may be written later while the application is away: a failure, and what puts everything back.
fn is_on_the_way_back(event: &RunEvent) -> bool {
    matches!(
        event,
        RunEvent::StepFailed { .. }
            | RunEvent::CancelRequested { .. }
            | RunEvent::UnwindStarted { .. }
            | RunEvent::UndoStarted { .. }
            | RunEvent::UndoSucceeded { .. }
            | RunEvent::UndoFailed { .. }
    )
}

/// Sleeps so long, or a short while: the machine may be suspended meanwhile.
async fn pause(left: Span) {
    tokio::time::sleep(left.duration().min(CLOCK_LOOK)).await;
}

/// One log line an event, which reads alone.
fn tell(logged: &LoggedEvent) {
    let run = logged.run.0;
    match &logged.event {
        RunEvent::StepFailed { at, failure } | RunEvent::PassedOver { at, failure } => {
            tracing::warn!(run.id = run, step = %at, %failure, "{}", logged.event.name());
        }
        RunEvent::UndoFailed { at, attempt, failure, again_at: Some(until) } => {
            tracing::warn!(run.id = run, step = %at, attempt, %failure, "could not be undone, tried again at {until}");
        }
        RunEvent::UndoFailed { at, failure, .. } | RunEvent::GaveUp { at, failure } => {
            tracing::error!(run.id = run, step = %at, %failure, "{}: the run is stuck", logged.event.name());
        }
        RunEvent::UnwindStarted { cause } => {
            tracing::warn!(run.id = run, %cause, "the run turns round");
        }
        RunEvent::StepStarted { at, attempt, how } => {
            tracing::info!(run.id = run, step = %at, attempt, ?how, "step started");
        }
        RunEvent::StepSucceeded { at, message, .. } => {
            let message = message.lines().next().unwrap_or_default();
            tracing::info!(run.id = run, step = %at, message, "step succeeded");
        }
        RunEvent::UndoSucceeded { at, message } => tracing::info!(run.id = run, step = %at, message, "undone"),
        RunEvent::Finished { outcome } => tracing::info!(run.id = run, %outcome, "the run is over"),
        event => tracing::info!(run.id = run, "{}", event.name()),
    }
}
