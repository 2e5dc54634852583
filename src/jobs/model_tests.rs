//! The engine against a small model of the world: die after every event, fail every step, fail every
//! undo, and compare the end.

mod undo;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use chrono::DateTime;
use chrono::Utc;
use tokio::sync::broadcast;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::db::events::RunHead;
use crate::db::store::StoreError;
use crate::domain::clock::Clock;
use crate::domain::clock::ManualClock;
use crate::domain::event::How;
use crate::domain::event::LoggedEvent;
use crate::domain::event::Output;
use crate::domain::event::RunEvent;
use crate::domain::failure::Failure;
use crate::domain::job::JobType;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::run::Cause;
use crate::domain::run::Fence;
use crate::domain::run::Idle;
use crate::domain::run::Order;
use crate::domain::run::Outcome;
use crate::domain::run::RunId;
use crate::domain::run::RunState;
use crate::domain::run::Side;
use crate::domain::run::Trigger;
use crate::domain::span::Span;
use crate::domain::step::At;
use crate::domain::step::Step;
use crate::domain::step::TABLE;
use crate::domain::step::sequence;
use crate::jobs::decide::Decision;
use crate::jobs::decide::decide;
use crate::jobs::driver::Done;
use crate::jobs::driver::DriveError;
use crate::jobs::driver::Driven;
use crate::jobs::driver::Driver;
use crate::jobs::driver::Request;
use crate::jobs::driver::RunLog;
use crate::jobs::driver::Steps;
use crate::jobs::machine::IllegalEvent;
use crate::jobs::machine::Machine;

const RUN: RunId = RunId(1);
const BUILDS: u64 = 2;

pub(crate) fn order() -> Order {
    Order {
        job: None,
        kind: JobType::SoftwareUpdate,
        app: "orders".parse().unwrap(),
        trigger: Trigger::Manual,
        started_by: "anna".to_owned(),
        grace: None,
        max_runtime: Span::hours(2),
        to: None,
        mail: vec![],
        on_failure: None,
        repair: false,
    }
}

fn release(build: u64) -> Release {
    let id = ReleaseId { version: format!("{build}.0").parse().unwrap(), build };
    Release::new(id, vec![], "/nowhere")
}

fn selected() -> Output {
    let path = (0..BUILDS).map(|i| release(i + 2)).collect();
    Output::Selected { from: Some(release(1).id), path, blocked: None }
}

fn dawn() -> DateTime<Utc> {
    "2026-11-22T02:30:00Z".parse().unwrap()
}

/// What an application is, as far as a run can harm it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct World {
    program: u64,
    data: u64,
    snapshot: Option<u64>,
    running: bool,
    gate_open: bool,
    announced: bool,
    reports: u32,
}

impl World {
    fn before() -> Self {
        Self { program: 1, data: 1, snapshot: None, running: true, gate_open: true, announced: false, reports: 0 }
    }
}

/// Steps upon a [`World`]; `fail` says which acts fail for good, `fail_undo` which undos.
#[derive(Default)]
struct Model {
    world: Mutex<Option<World>>,
    fail: Option<At>,
    fail_undo: Option<Step>,
    /// Which undo fails how many times more, and the system's reason.
    scarce: Mutex<Option<(Step, u32, i32)>>,
    calls: Mutex<BTreeMap<At, u32>>,
}

impl Model {
    fn with<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        f(self.world.lock().unwrap().get_or_insert_with(World::before))
    }
}

impl Steps for Arc<Model> {
    async fn act(&self, _run: RunId, at: At, how: How, machine: Arc<Machine>) -> Result<Done, Failure> {
        *self.calls.lock().unwrap().entry(at).or_default() += 1;
        let target = 2 + u64::from(at.build);
        let output = self.with(|world| {
            match at.step {
                Step::Select => return selected(),
                Step::CloseGate => world.gate_open = false,
                Step::Announce => world.announced = true,
                Step::Stop => {
                    assert!(!world.gate_open, "nothing is stopped while users may log in");
                    world.running = false;
                }
                Step::Snapshot => {
                    assert!(!world.running, "the snapshot is taken of a resting application");
                    world.snapshot = Some(world.data);
                }
                Step::Swap => {
                    assert!(!world.running && world.snapshot.is_some());
                    if !(how == How::Probe && world.program == target) {
                        assert_eq!(world.program, target - 1, "never skips a build");
                        world.program = target;
                    }
                }
                Step::MigrateData => {
                    assert!(!world.running, "nothing is migrated below a running application");
                    assert_eq!(world.program, target, "never migrates with another program");
                    if how == How::UndoFirst {
                        world.data = world.snapshot.unwrap();
                    }
                    assert_eq!(world.data, target - 1, "never migrates twice");
                    world.data = target;
                }
                Step::Start => {
                    assert_eq!(world.program, world.data, "never starts a program on data of another version");
                    world.running = true;
                }
                Step::CheckHealth => assert!(world.running),
                Step::OpenGate => {
                    assert!(machine.is_committed());
                    world.gate_open = true;
                }
                Step::Report => world.reports = machine.known().reports + 1,
                _ => {}
            }
            Output::Nothing
        });
        if self.fail == Some(at) {
            return Err(Failure::new("as the test wishes"));
        }
        Ok(Done { output, message: String::new() })
    }

    async fn undo(&self, _run: RunId, at: At, _machine: Arc<Machine>) -> Result<String, Failure> {
        if self.fail_undo == Some(at.step) {
            return Err(Failure::new("as the test wishes"));
        }
        if let Some((step, times @ 1.., number)) = &mut *self.scarce.lock().unwrap()
            && *step == at.step
        {
            *times -= 1;
            return Err(Failure::from_error(&StoreError::PutBack {
                path: "/opt/orders".into(),
                source: std::io::Error::from_raw_os_error(*number),
            }));
        }
        let target = 2 + u64::from(at.build);
        self.with(|world| match at.step {
            Step::CloseGate => world.gate_open = true,
            Step::Announce => world.announced = false,
            Step::Start => world.running = false,
            Step::MigrateData => {
                world.running = false;
                world.data = world.snapshot.unwrap_or(world.data);
            }
            Step::Swap if world.program == target => world.program = target - 1,
            Step::Stop => {
                assert_eq!(world.program, world.data, "never starts a program on data of another version");
                world.running = true;
            }
            _ => {}
        });
        Ok(String::new())
    }

    async fn clear_up(&self, _run: RunId, at: At, machine: Arc<Machine>) -> Result<(), Failure> {
        let forward = matches!(machine.state(), RunState::Running { .. }) && machine.is_away();
        self.with(|world| {
            let (Some(release), true) = (machine.in_place(), forward) else {
                world.running &= !(forward && at.step.needs_rest());
                return Ok(());
            };
            let swapped = at.step == Step::Swap && world.program == 2 + u64::from(at.build);
            if world.program != release.id.build && !swapped {
                return Err(Failure::new("find the new version in place"));
            }
            world.running &= !at.step.needs_rest();
            Ok(())
        })
    }
}

/// A log in memory that dies after a number of appends, before or after the event is kept.
#[derive(Default, Clone)]
struct Log(Arc<Mutex<LogState>>);

#[derive(Default)]
struct LogState {
    events: Vec<LoggedEvent>,
    dies_at: Option<(usize, bool)>,
    /// How many appends more find no room, from which event on.
    full: Option<(usize, u32)>,
}

impl Log {
    /// Appends what a person says of a run that rests.
    fn say(&self, machine: &Machine, event: RunEvent) {
        machine.clone().apply(&event, dawn()).unwrap();
        let mut state = self.0.lock().unwrap();
        let seq = state.events.len() as i64 + 1;
        state.events.push(LoggedEvent { run: RUN, seq, at: dawn(), up: None, event });
    }
}

impl RunLog for Log {
    async fn load(&self, _run: RunId) -> Result<Vec<LoggedEvent>, StoreError> {
        Ok(self.0.lock().unwrap().events.clone())
    }

    async fn append(&self, _fence: Fence, logged: LoggedEvent, _head: RunHead) -> Result<(), StoreError> {
        let mut state = self.0.lock().unwrap();
        let place = state.events.len();
        if let Some((from, times @ 1..)) = &mut state.full
            && *from <= place
        {
            *times -= 1;
            return Err(StoreError::PutBack {
                path: "/opt/orders".into(),
                source: std::io::ErrorKind::StorageFull.into(),
            });
        }
        match state.dies_at {
            Some((n, kept)) if n == place => {
                state.dies_at = None;
                if kept {
                    state.events.push(logged);
                }
                Err(StoreError::Closed)
            }
            _ => {
                state.events.push(logged);
                Ok(())
            }
        }
    }
}

/// A clock that moves on a minute whenever it is asked, so that no test waits.
#[derive(Debug)]
struct Hasty(ManualClock, TimeStep);
type TimeStep = chrono::TimeDelta;

impl Clock for Hasty {
    fn now(&self) -> DateTime<Utc> {
        let now = self.0.now();
        self.0.set(now + self.1);
        now
    }
}

struct End {
    world: World,
    machine: Machine,
    log: Log,
}

async fn run_once(model: &Arc<Model>, log: &Log) -> Result<Driven, DriveError> {
    let clock = Arc::new(Hasty(ManualClock::at(dawn()), TimeStep::milliseconds(1500)));
    let driver = Driver { log: log.clone(), steps: Arc::new(Arc::clone(model)), clock, live: broadcast::channel(8).0 };
    let (_sender, mut inbox) = mpsc::channel(1);
    driver.drive(RUN, Fence(1), &order(), &mut inbox, &CancellationToken::new()).await
}

/// Runs to the end, taking the run up again after every death.
async fn run_to_end(model: &Arc<Model>, log: &Log) -> End {
    for _ in 0..4 {
        match run_once(model, log).await {
            Ok(Driven::Halted(machine)) => {
                return End { world: model.with(|world| world.clone()), machine: *machine, log: log.clone() };
            }
            Ok(Driven::Interrupted) => panic!("nobody asked to shut down"),
            Err(DriveError::Store { source: StoreError::Closed, .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    panic!("the run does not end");
}

async fn end_of(model: Model) -> End {
    run_to_end(&Arc::new(model), &Log::default()).await
}

fn assert_old(end: &End) {
    let expected = World { snapshot: end.world.snapshot, reports: 1, ..World::before() };
    assert_eq!(end.world, expected, "the old version runs with its own data, the gate is open, one report");
}

fn assert_new(world: &World) {
    assert_eq!((world.program, world.data, world.running, world.gate_open, world.reports), (3, 3, true, true, 1));
}

#[tokio::test(start_paused = true)]
async fn installs_every_pending_build_in_order() {
    let end = end_of(Model::default()).await;
    assert_eq!(end.machine.state(), &RunState::Finished { outcome: Outcome::Succeeded });
    assert_new(&end.world);
}

#[tokio::test(start_paused = true)]
async fn dies_after_every_event_and_ends_the_same() {
    let fails = sequence(2).into_iter().map(Some).chain([None]);
    for fail in fails {
        let calm = end_of(Model { fail, ..Model::default() }).await;
        let events = calm.log.0.lock().unwrap().events.len();
        for n in 0..events {
            for kept in [false, true] {
                let log = Log::default();
                log.0.lock().unwrap().dies_at = Some((n, kept));
                let model = Arc::new(Model { fail, ..Model::default() });
                let end = run_to_end(&model, &log).await;
                // An interrupted migration of a later build is a failure of its own: nothing else may differ.
                let interrupted = end.machine.cause().is_some_and(|cause| {
                    matches!(cause, Cause::StepFailed { at: At { step: Step::MigrateData, build: 1 }, .. })
                });
                if !interrupted {
                    assert_eq!(end.machine.state(), calm.machine.state(), "{fail:?} died at {n}, kept: {kept}");
                    assert_eq!(end.world, calm.world, "{fail:?} died at {n}, kept: {kept}");
                }
                match end.machine.state() {
                    RunState::Finished { outcome: Outcome::Succeeded } => assert_new(&end.world),
                    RunState::Finished { .. } => assert_old(&end),
                    RunState::Stuck { at, .. } => assert_eq!(at.step, Step::OpenGate),
                    state => panic!("{state:?}"),
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_step_that_fails_puts_the_old_version_back() {
    for at in sequence(2) {
        let end = end_of(Model { fail: Some(at), ..Model::default() }).await;
        let tried = *end.log.0.lock().unwrap().events.iter().map(|logged| &logged.event).fold(&mut 0, |n, event| {
            *n += u32::from(matches!(event, RunEvent::StepStarted { at: started, .. } if *started == at));
            n
        });
        assert_eq!(tried, at.step.row().attempts_max, "{at}");
        match end.machine.state() {
            RunState::Finished { outcome: Outcome::Succeeded } => {
                assert!(at.step.row().always, "{at}");
                assert_new(&end.world);
            }
            RunState::Finished { outcome } => {
                assert_old(&end);
                let past_stop =
                    sequence(2).iter().position(|a| a.step == Step::Stop) <= sequence(2).iter().position(|a| *a == at);
                assert_eq!(*outcome, if past_stop { Outcome::RolledBack } else { Outcome::Failed }, "{at}");
            }
            RunState::Stuck { at: stuck, .. } => {
                assert_eq!((*stuck, at.step), (at, Step::OpenGate));
                assert_eq!(end.world.reports, 1, "a stuck run reports");
            }
            state => panic!("{at}: {state:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_undo_that_fails_is_stuck_and_is_resolved_by_a_person() {
    for row in TABLE.iter().filter(|row| At::first(row.step).has_undo()) {
        for side in [Side::Old, Side::New] {
            let fail = Some(At { step: Step::CheckHealth, build: 1 });
            let model = Arc::new(Model { fail, fail_undo: Some(row.step), ..Model::default() });
            let log = Log::default();
            let end = run_to_end(&model, &log).await;
            let RunState::Stuck { at, .. } = end.machine.state() else { panic!("{:?}", end.machine.state()) };
            assert_eq!(at.step, row.step);
            assert_eq!(end.world.reports, 1, "a stuck run reports");

            let event = RunEvent::Resolved { side, by: "anna".to_owned(), open_gate: false, reports: true };
            log.say(&end.machine, event);
            let mended = Arc::new(Model { world: Mutex::new(Some(end.world)), ..Model::default() });
            let end = run_to_end(&mended, &log).await;
            let outcome = if side == Side::New { Outcome::Succeeded } else { Outcome::RolledBack };
            assert_eq!(end.machine.state(), &RunState::Finished { outcome }, "{} {side:?}", row.step);
            assert!(end.world.gate_open);
            assert_eq!(end.world.reports, 2, "one when it was stuck, one when it was over");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_step_is_done_twice_without_a_crash() {
    let model = Arc::new(Model::default());
    run_to_end(&model, &Log::default()).await;
    assert!(model.calls.lock().unwrap().values().all(|calls| *calls == 1));
}

/// Every event there is, for every step it can speak of.
fn every_event() -> Vec<RunEvent> {
    let failure = Failure::new("x");
    let by = "anna".to_owned();
    let mut events = vec![
        RunEvent::Queued { order: order() },
        RunEvent::Started,
        RunEvent::CancelRequested { by: by.clone() },
        RunEvent::Committed,
        RunEvent::UnwindStarted { cause: Cause::Cancelled { by: by.clone() } },
        RunEvent::UnwindStarted { cause: Cause::Overlong { max_runtime: Span::hours(2) } },
        RunEvent::UnwindStarted { cause: Cause::NothingToDo { reason: String::new(), why: Idle::NothingNewer } },
        RunEvent::Resolved { side: Side::Old, by: by.clone(), open_gate: false, reports: true },
        RunEvent::Resolved { side: Side::New, by: by.clone(), open_gate: false, reports: true },
        RunEvent::Retried { by },
    ];
    events.extend(Outcome::ALL.map(|outcome| RunEvent::Finished { outcome }));
    for at in sequence(2) {
        let failure = failure.clone();
        let output = if at.step == Step::Select { selected() } else { Output::Nothing };
        events.extend([
            RunEvent::StepStarted { at, attempt: 1, how: How::Act },
            RunEvent::StepSucceeded { at, output, message: String::new() },
            RunEvent::StepFailed { at, failure: failure.clone() },
            RunEvent::Deferred { at, until: dawn(), reason: String::new() },
            RunEvent::UndoStarted { at, attempt: 1 },
            RunEvent::UndoSucceeded { at, message: String::new() },
            RunEvent::UndoFailed { at, attempt: 1, failure: failure.clone(), again_at: None },
            RunEvent::UndoFailed { at, attempt: 1, failure: failure.clone(), again_at: Some(dawn()) },
            RunEvent::GaveUp { at, failure: failure.clone() },
            RunEvent::PassedOver { at, failure },
        ]);
    }
    events
}

/// Walks through every state that can be reached with two builds, tries every event on it, and tells what came of it.
pub(crate) fn walk(mut met: impl FnMut(&Machine, &RunEvent, Result<&Machine, &IllegalEvent>)) -> Vec<Machine> {
    let events = every_event();
    let mut open = vec![Machine::queued(order())];
    let mut seen: Vec<Machine> = Vec::new();
    let mut keys = std::collections::HashSet::new();
    while let Some(machine) = open.pop() {
        // Attempts and times do not decide what may follow; without them the states are few.
        let key = format!(
            "{:?} {:?} {:?} {} {:?} {:?} {:?}",
            machine.state(),
            machine.outcome_of_unwinding(),
            machine.cursor(),
            machine.is_committed(),
            machine.next_step(),
            machine.next_undo(),
            (machine.next_always(), machine.cancelled_by(), machine.is_past_stop(), machine.builds())
        );
        if !keys.insert(key) {
            continue;
        }
        let mut after = machine.clone();
        for event in &events {
            let result = after.apply(event, dawn());
            met(&machine, event, result.as_ref().map(|()| &after));
            match result {
                Ok(()) => open.push(std::mem::replace(&mut after, machine.clone())),
                Err(_) => assert_eq!(after, machine, "an illegal event changes nothing"),
            }
        }
        seen.push(machine);
    }
    seen
}

#[test]
fn every_reachable_state_meets_every_event() {
    let seen = walk(|machine, event, result| match result {
        Ok(after) => {
            assert!(machine.state().outcome().is_none(), "a finished run never changes: {event:?}");
            assert!(after.is_committed() || !machine.is_committed(), "a commit is for ever");
            assert!(!(after.is_committed() && after.next_undo().is_some_and(|at| at.step == Step::Swap)));
        }
        Err(error) => assert_eq!(error.event, event.name()),
    });
    assert!(seen.len() > 200, "{}", seen.len());
    for machine in &seen {
        // Whatever is decided can follow: the engine never meets an event of its own that is refused.
        let now = dawn() + chrono::TimeDelta::days(1);
        let decided = match decide(machine, now) {
            Decision::Append(event) => event,
            Decision::Act { at, attempt, how } => RunEvent::StepStarted { at, attempt, how },
            Decision::Undo { at, attempt } => RunEvent::UndoStarted { at, attempt },
            Decision::Wait { .. } => continue,
            Decision::Halt => {
                let halts = matches!(machine.state(), RunState::Finished { .. } | RunState::Stuck { .. });
                assert!(halts, "{:?} {:?}", machine.state(), machine.cursor());
                continue;
            }
        };
        let mut after = machine.clone();
        after.apply(&decided, now).unwrap_or_else(|error| panic!("{error}: {machine:?}"));
    }
}

/// Undoes nothing before it is allowed to, and says when it would.
struct Patient {
    model: Arc<Model>,
    undoing: CancellationToken,
    go_on: CancellationToken,
}

impl Steps for Patient {
    async fn act(&self, run: RunId, at: At, how: How, machine: Arc<Machine>) -> Result<Done, Failure> {
        self.model.act(run, at, how, machine).await
    }

    async fn undo(&self, run: RunId, at: At, machine: Arc<Machine>) -> Result<String, Failure> {
        self.undoing.cancel();
        self.go_on.cancelled().await;
        self.model.undo(run, at, machine).await
    }

    async fn clear_up(&self, _run: RunId, _at: At, _machine: Arc<Machine>) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_goes_back_says_so_at_once() {
    let model = Arc::new(Model { fail: Some(At { step: Step::CheckHealth, build: 0 }), ..Model::default() });
    let (undoing, go_on) = (CancellationToken::new(), CancellationToken::new());
    let steps = Arc::new(Patient { model: Arc::clone(&model), undoing: undoing.clone(), go_on: go_on.clone() });
    let clock = Arc::new(Hasty(ManualClock::at(dawn()), TimeStep::milliseconds(1500)));
    let driver = Driver { log: Log::default(), steps, clock, live: broadcast::channel(8).0 };
    let (sender, mut inbox) = mpsc::channel(1);
    let (order, stop) = (order(), CancellationToken::new());
    let driven = driver.drive(RUN, Fence(1), &order, &mut inbox, &stop);
    let asked = async {
        undoing.cancelled().await;
        let (reply, answer) = oneshot::channel();
        let event = RunEvent::CancelRequested { by: "anna".to_owned() };
        sender.send(Request { event, reply }).await.unwrap();
        // Only then is anything undone.
        let answer = answer.await.unwrap();
        go_on.cancel();
        answer
    };
    let both = async { tokio::join!(driven, asked) };
    let (driven, answer) = tokio::time::timeout(Duration::from_secs(3600), both).await.expect("it answers");
    assert_eq!(answer.unwrap_err().state, "unwinding");
    let Driven::Halted(machine) = driven.unwrap() else { panic!() };
    assert_eq!(machine.state(), &RunState::Finished { outcome: Outcome::RolledBack });
    assert_eq!(model.with(|world| world.clone()).data, World::before().data);
}
