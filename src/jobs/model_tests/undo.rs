//! The way back: each undo fails now and then, for want of something, or for ever; and the log takes nothing.

use uuid::Uuid;

use super::*;
use crate::domain::clock::Moment;
use crate::domain::clock::Uptime;
use crate::jobs::decide::SCARCE_ATTEMPTS_MAX;

const EPERM: i32 = 1;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

fn undoable() -> impl Iterator<Item = Step> {
    TABLE.iter().map(|row| row.step).filter(|step| At::first(*step).has_undo())
}

/// Fails at the very last moment, so that everything is undone; one undo fails so many times.
fn failing(step: Step, times: u32, number: i32) -> Model {
    let fail = Some(At { step: Step::CheckHealth, build: 0 });
    Model { fail, scarce: Mutex::new(Some((step, times, number))), ..Model::default() }
}

/// The attempts at the undo of a step that failed, and whether each was followed by another.
fn failed_undos(log: &Log, step: Step) -> Vec<(u32, bool)> {
    let failed = |logged: &LoggedEvent| match &logged.event {
        RunEvent::UndoFailed { at, attempt, again_at, .. } if at.step == step => Some((*attempt, again_at.is_some())),
        _ => None,
    };
    log.0.lock().unwrap().events.iter().filter_map(failed).collect()
}

#[tokio::test(start_paused = true)]
async fn an_undo_is_tried_again_up_to_its_bound() {
    for step in undoable() {
        for (number, bound) in [
            (EPERM, step.row().undo_attempts_max()),
            (EROFS, SCARCE_ATTEMPTS_MAX),
            (EMFILE, SCARCE_ATTEMPTS_MAX),
            (ENOSPC, SCARCE_ATTEMPTS_MAX),
        ] {
            for times in [1, bound - 1] {
                let end = end_of(failing(step, times, number)).await;
                assert_eq!(end.machine.state(), &RunState::Finished { outcome: Outcome::RolledBack }, "{step} {times}");
                assert_old(&end);
                let expected: Vec<_> = (1..=times).map(|attempt| (attempt, true)).collect();
                assert_eq!(failed_undos(&end.log, step), expected, "{step} {number}");
            }
            let end = end_of(failing(step, bound, number)).await;
            let RunState::Stuck { at, failure } = end.machine.state() else { panic!("{:?}", end.machine.state()) };
            assert_eq!((at.step, failed_undos(&end.log, step).len()), (step, bound as usize));
            assert_eq!(failed_undos(&end.log, step).last(), Some(&(bound, false)));
            let system = std::io::Error::from_raw_os_error(number).to_string();
            assert!(failure.to_string().contains(&system), "{failure}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_of_an_undo_grow_and_end() {
    let end = end_of(failing(Step::Swap, u32::MAX, ENOSPC)).await;
    let events = end.log.0.lock().unwrap().events.clone();
    let pause = |logged: &LoggedEvent| match &logged.event {
        // Written a moment after it was decided.
        RunEvent::UndoFailed { again_at: Some(until), .. } => Some((*until - logged.at).num_seconds() + 1),
        _ => None,
    };
    let pauses: Vec<i64> = events.iter().filter_map(pause).collect();
    assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]), "{pauses:?}");
    let sum: i64 = pauses.iter().sum();
    assert!((500..=600).contains(&sum), "about ten minutes: {pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn dies_after_every_event_of_a_way_back_that_stumbles_and_ends_the_same() {
    for step in undoable() {
        let calm = end_of(failing(step, 2, EPERM)).await;
        let events = calm.log.0.lock().unwrap().events.len();
        for n in 0..events {
            for kept in [false, true] {
                let log = Log::default();
                log.0.lock().unwrap().dies_at = Some((n, kept));
                let end = run_to_end(&Arc::new(failing(step, 2, EPERM)), &log).await;
                assert_eq!(end.machine.state(), calm.machine.state(), "{step} died at {n}, kept: {kept}");
                assert_eq!(end.world, calm.world, "{step} died at {n}, kept: {kept}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_at_an_undo_count_over_crashes_and_end() {
    for step in undoable() {
        let (model, log) = (Arc::new(failing(step, 0, EPERM)), Log::default());
        let is_undoing =
            |logged: &LoggedEvent| matches!(logged.event, RunEvent::UndoStarted { at, .. } if at.step == step);
        let calm = end_of(failing(step, 0, EPERM)).await;
        let first = calm.log.0.lock().unwrap().events.iter().position(is_undoing).unwrap();
        log.0.lock().unwrap().dies_at = Some((first, true));
        let mut deaths = 0;
        let machine = loop {
            match run_once(&model, &log).await {
                Ok(Driven::Halted(machine)) => break machine,
                Ok(Driven::Interrupted) => panic!("nobody asked to shut down"),
                Err(_) => {
                    deaths += 1;
                    let mut log = log.0.lock().unwrap();
                    log.dies_at = Some((log.events.len(), true)).filter(|_| deaths < SCARCE_ATTEMPTS_MAX);
                }
            }
        };
        assert_eq!(deaths, SCARCE_ATTEMPTS_MAX);
        let RunState::Stuck { at, .. } = machine.state() else { panic!("{:?}", machine.state()) };
        assert_eq!(at.step, step);
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_waits_does_not_keep_the_daemon_from_stopping() {
    let (model, log) = (Arc::new(failing(Step::Swap, u32::MAX, ENOSPC)), Log::default());
    let driven = stopped_after(&model, &log, Duration::from_secs(120)).await;
    assert_eq!(driven.unwrap(), Driven::Interrupted);
    let tried = failed_undos(&log, Step::Swap).len();
    *model.scarce.lock().unwrap() = None;
    let end = run_to_end(&model, &log).await;
    assert_eq!(end.machine.state(), &RunState::Finished { outcome: Outcome::RolledBack });
    assert_eq!(failed_undos(&log, Step::Swap).len(), tried);
    assert_old(&end);
}

#[test]
fn a_clock_that_was_set_back_keeps_no_undo_waiting() {
    let at = At::first(Step::CloseGate);
    let failure = Failure::new("as the test wishes");
    let again_at = Some(dawn() + chrono::TimeDelta::seconds(8));
    let mut events = vec![RunEvent::Started];
    for at in sequence(0).into_iter().take_while(|before| *before != at) {
        let output = if at.step == Step::Select { selected() } else { Output::Nothing };
        events.push(RunEvent::StepStarted { at, attempt: 1, how: How::Act });
        events.push(RunEvent::StepSucceeded { at, output, message: String::new() });
    }
    events.extend([
        RunEvent::StepStarted { at, attempt: 1, how: How::Act },
        RunEvent::UnwindStarted { cause: Cause::Cancelled { by: "anna".to_owned() } },
        RunEvent::UndoStarted { at, attempt: 1 },
        RunEvent::UndoFailed { at, attempt: 1, failure, again_at },
    ]);
    let mut machine = Machine::queued(order());
    // What the wall clock shows, and so many seconds of the clock that does not jump.
    let moment = |at, secs: u64| Moment { at, up: Some(Uptime { boot: Uuid::from_u128(1), ms: secs * 1000 }) };
    events.iter().for_each(|event| machine.apply(event, moment(dawn(), 60)).unwrap());
    let waits = |now| matches!(decide(&machine, now), Decision::Wait { .. });
    let earlier = dawn() - chrono::TimeDelta::hours(3);
    assert!(waits(moment(dawn(), 60)) && waits(moment(earlier, 67)));
    assert!(!waits(moment(dawn() + chrono::TimeDelta::seconds(8), 68)) && !waits(moment(earlier, 68)));
}

#[test]
fn a_log_of_before_is_read_as_it_was_written() {
    let line = r#"{"event":"undo_failed","at":{"step":"swap"},"failure":{"message":"move"}}"#;
    let event: RunEvent = serde_json::from_str(line).unwrap();
    assert!(matches!(event, RunEvent::UndoFailed { attempt: 0, again_at: None, .. }), "stuck at once: {event:?}");
}

/// Drives a run and asks for the shutdown after a while.
async fn stopped_after(model: &Arc<Model>, log: &Log, after: Duration) -> Result<Driven, DriveError> {
    let clock = Arc::new(Hasty(ManualClock::at(dawn()), TimeStep::milliseconds(1500)));
    let live = broadcast::channel(8).0;
    let driver = Driver { log: log.clone(), steps: Arc::new(Arc::clone(model)), clock, live };
    let (_sender, mut inbox) = mpsc::channel(1);
    let (order, stop) = (order(), CancellationToken::new());
    let seen = stop.clone();
    let stops = async {
        tokio::time::sleep(after).await;
        seen.cancel();
    };
    tokio::join!(driver.drive(RUN, Fence(1), &order, &mut inbox, &stop), stops).0
}

#[tokio::test(start_paused = true)]
async fn a_log_that_finds_no_room_for_a_while_leaves_no_run_in_the_middle() {
    let fail = Some(At { step: Step::CheckHealth, build: 1 });
    let events = end_of(Model { fail, ..Model::default() }).await.log.0.lock().unwrap().events.len();
    for from in 0..events {
        for appends in [5, 20] {
            let (model, log) = (Arc::new(Model { fail, ..Model::default() }), Log::default());
            log.0.lock().unwrap().full = Some((from, appends));
            let Ok(Driven::Halted(machine)) = run_once(&model, &log).await else { panic!("it goes on: {from}") };
            assert_eq!(machine.state(), &RunState::Finished { outcome: Outcome::RolledBack }, "{from}");
            let events = log.0.lock().unwrap().events.clone();
            assert_eq!(Machine::fold(&events).unwrap().state(), machine.state(), "the log says what was done");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_away_comes_back_though_the_log_takes_nothing() {
    let events = end_of(Model::default()).await.log.0.lock().unwrap().events.clone();
    for (from, logged) in events.iter().enumerate().skip(1) {
        let before = Machine::fold(&events[..from]).unwrap();
        let (model, log) = (Arc::new(Model::default()), Log::default());
        log.0.lock().unwrap().full = Some((from, u32::MAX));
        let driven = stopped_after(&model, &log, Duration::from_secs(3600)).await;
        assert!(matches!(driven, Err(DriveError::Store { .. })), "it is left as it stands: {from}");
        let world = model.with(|world| world.clone());
        assert_eq!(world.program, world.data, "{from} {logged:?}");
        assert!(world.running, "{from} {logged:?}");
        if before.is_away() {
            assert_eq!((world.program, world.gate_open), (1, false), "{from} {logged:?}");
            // Taken up again where the log ends, it does no harm.
            log.0.lock().unwrap().full = None;
            let end = run_to_end(&model, &log).await;
            match end.machine.state() {
                RunState::Finished { outcome: Outcome::Succeeded } => assert_new(&end.world),
                state => {
                    assert_eq!(state, &RunState::Finished { outcome: Outcome::RolledBack }, "{from}");
                    assert_old(&end);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_run_is_tried_again_where_it_failed() {
    for step in undoable() {
        let bound = step.row().undo_attempts_max();
        // Stuck twice; then the cause is removed.
        let (model, log) = (Arc::new(failing(step, 2 * bound, EPERM)), Log::default());
        for reports in 1..=2 {
            let end = run_to_end(&model, &log).await;
            let RunState::Stuck { at, .. } = end.machine.state() else { panic!("{:?}", end.machine.state()) };
            assert_eq!((at.step, end.world.reports), (step, reports));
            log.say(&end.machine, RunEvent::Retried { by: "anna".to_owned() });
        }
        let end = run_to_end(&model, &log).await;
        assert_eq!(end.machine.state(), &RunState::Finished { outcome: Outcome::RolledBack }, "{step}");
        assert_eq!(end.world.reports, 3);
        assert_eq!(World { reports: 1, ..end.world }, World { snapshot: Some(1), ..old() });
        // What was put back before is not put back again.
        let events = log.0.lock().unwrap().events.clone();
        let others = events
            .iter()
            .filter(|logged| matches!(logged.event, RunEvent::UndoSucceeded { at, .. } if at.step != step));
        let all = undoable().filter(|other| *other != step).count();
        assert_eq!(others.count(), all, "{step}");
        let known = end.machine.known();
        assert!(known.back_at.is_some() && known.away_since.is_some(), "{known:?}");
    }
}

fn old() -> World {
    World { reports: 1, ..World::before() }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_stuck_after_the_commit_is_tried_again() {
    let (model, log) = (Arc::new(Model { fail: Some(At::first(Step::OpenGate)), ..Model::default() }), Log::default());
    let end = run_to_end(&model, &log).await;
    assert!(matches!(end.machine.state(), RunState::Stuck { .. }) && end.machine.is_committed());
    log.say(&end.machine, RunEvent::Retried { by: "anna".to_owned() });
    let mended = Arc::new(Model { world: Mutex::new(Some(end.world)), ..Model::default() });
    let end = run_to_end(&mended, &log).await;
    assert_eq!(end.machine.state(), &RunState::Finished { outcome: Outcome::Succeeded });
    assert_new(&World { reports: 1, ..end.world });
    assert_eq!(end.world.reports, 2);
}

#[tokio::test(start_paused = true)]
async fn a_log_in_which_a_resolved_run_reported_once_is_still_read() {
    let fail = Some(At { step: Step::CheckHealth, build: 0 });
    let (model, log) = (Arc::new(Model { fail, fail_undo: Some(Step::Swap), ..Model::default() }), Log::default());
    let end = run_to_end(&model, &log).await;
    let line = r#"{"event":"resolved","side":"old","by":"anna"}"#;
    log.say(&end.machine, serde_json::from_str(line).unwrap());
    let mended = Arc::new(Model { world: Mutex::new(Some(end.world)), ..Model::default() });
    let end = run_to_end(&mended, &log).await;
    assert_eq!(end.machine.state(), &RunState::Finished { outcome: Outcome::RolledBack });
    assert_eq!(end.world.reports, 1);
}
