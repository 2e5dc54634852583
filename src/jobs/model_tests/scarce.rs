//! The way back while the machine has too little of something.

use super::*;
use crate::jobs::scarce::WAITED_MAX;

const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

#[tokio::test(start_paused = true)]
async fn an_undo_waits_for_what_is_scarce_and_goes_on() {
    for number in [EMFILE, ENOSPC] {
        for step in [Step::Start, Step::MigrateData, Step::Swap, Step::Stop, Step::CloseGate] {
            let scarce = Mutex::new(Some((step, 20, number)));
            let fail = Some(At { step: Step::CheckHealth, build: 1 });
            let end = end_of(Model { fail, scarce, ..Model::default() }).await;
            assert_eq!(end.machine.state(), &RunState::Finished { outcome: Outcome::RolledBack }, "{step} {number}");
            assert_old(&end);
            let failed = |logged: &LoggedEvent| matches!(logged.event, RunEvent::UndoFailed { .. });
            assert!(!end.log.0.lock().unwrap().events.iter().any(failed));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_waits_in_vain_is_stuck_and_says_why() {
    let fail = Some(At { step: Step::CheckHealth, build: 0 });
    let begun = tokio::time::Instant::now();
    let end =
        end_of(Model { fail, scarce: Mutex::new(Some((Step::Swap, u32::MAX, ENOSPC))), ..Model::default() }).await;
    assert!(begun.elapsed() >= WAITED_MAX);
    let RunState::Stuck { at, .. } = end.machine.state() else { panic!("{:?}", end.machine.state()) };
    assert_eq!(at.step, Step::Swap);
    let events = end.log.0.lock().unwrap().events.clone();
    let why = events.iter().find_map(|logged| match &logged.event {
        RunEvent::UndoFailed { failure, .. } => Some(failure.to_string()),
        _ => None,
    });
    assert!(why.unwrap().contains("No space left on device"));
    // What does not come back by itself is not waited for.
    let begun = tokio::time::Instant::now();
    let scarce = Mutex::new(Some((Step::Swap, u32::MAX, EROFS)));
    let end = end_of(Model { fail, scarce, ..Model::default() }).await;
    assert!(matches!(end.machine.state(), RunState::Stuck { .. }));
    assert!(begun.elapsed() < WAITED_MAX);
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_waits_does_not_keep_the_daemon_from_stopping() {
    let fail = Some(At { step: Step::CheckHealth, build: 0 });
    let scarce = Mutex::new(Some((Step::Swap, u32::MAX, ENOSPC)));
    let (model, log) = (Arc::new(Model { fail, scarce, ..Model::default() }), Log::default());
    let clock = Arc::new(Hasty(ManualClock::at(dawn()), TimeStep::milliseconds(1500)));
    let live = broadcast::channel(8).0;
    let driver = Driver { log: log.clone(), steps: Arc::new(Arc::clone(&model)), clock, live };
    let (_sender, mut inbox) = mpsc::channel(1);
    let (order, stop) = (order(), CancellationToken::new());
    let seen = stop.clone();
    let stops = async {
        tokio::time::sleep(Duration::from_secs(120)).await;
        seen.cancel();
    };
    let (driven, ()) = tokio::join!(driver.drive(RUN, Fence(1), &order, &mut inbox, &stop), stops);
    assert_eq!(driven.unwrap(), Driven::Interrupted);
    *model.scarce.lock().unwrap() = None;
    let end = run_to_end(&model, &log).await;
    assert_eq!(end.machine.state(), &RunState::Finished { outcome: Outcome::RolledBack });
    assert_old(&end);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_finds_no_room_for_a_while_leaves_no_run_in_the_middle() {
    let fail = Some(At { step: Step::CheckHealth, build: 1 });
    let events = end_of(Model { fail, ..Model::default() }).await.log.0.lock().unwrap().events.len();
    for from in 0..events {
        let (model, log) = (Arc::new(Model { fail, ..Model::default() }), Log::default());
        log.0.lock().unwrap().full = Some((from, 20));
        let Ok(Driven::Halted(machine)) = run_once(&model, &log).await else { panic!("it goes on: {from}") };
        assert_eq!(machine.state(), &RunState::Finished { outcome: Outcome::RolledBack }, "{from}");
    }
    let (model, log) = (Arc::new(Model { fail, ..Model::default() }), Log::default());
    log.0.lock().unwrap().full = Some((30, u32::MAX));
    assert!(matches!(run_once(&model, &log).await, Err(DriveError::Store { .. })), "it is left as it stands");
}
