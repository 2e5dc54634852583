//! Lengths while the clock of the machine is set: by three hours forward or back, by five, and with a restart between.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use rstest::rstest;
use tokio::time::Instant;

use super::*;
use crate::domain::clock::Term;
use crate::domain::clock::Uptime;
use crate::domain::doubt::Seen;
use crate::domain::event::How;
use crate::domain::event::Output;
use crate::domain::job::Job;
use crate::domain::job::JobSpec;
use crate::domain::job::MisfirePolicy;
use crate::domain::job::StartCondition;
use crate::domain::name::JobName;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::jobs::decide::Decision;
use crate::jobs::decide::decide;
use crate::jobs::decide::interruption;
use crate::jobs::driver::Steps;
use crate::jobs::gatekeeper::LEASE;
use crate::jobs::machine::Machine;
use crate::scheduler::dispatcher::DueStore;
use crate::scheduler::guard;
use crate::scheduler::guard::Look;
use crate::scheduler::launcher::Launcher;

/// The clocks of a machine that runs on the time of the test; the one on the wall can be set.
#[derive(Debug)]
struct RunningClock {
    begun: Instant,
    set_by_secs: AtomicI64,
}

impl RunningClock {
    fn begin() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), set_by_secs: AtomicI64::new(0) })
    }

    fn set_by(&self, hours: i64) {
        self.set_by_secs.fetch_add(hours * 3_600, Ordering::SeqCst);
    }
}

impl Clock for RunningClock {
    fn now(&self) -> DateTime<Utc> {
        self.moment().at
    }

    fn moment(&self) -> Moment {
        let ran = self.begun.elapsed();
        let set = TimeDelta::seconds(self.set_by_secs.load(Ordering::SeqCst));
        let at = night() + TimeDelta::from_std(ran).unwrap() + set;
        Moment { at, up: Some(Uptime { boot: uuid::Uuid::from_u128(1), ms: ran.as_millis() as u64 }) }
    }
}

fn release() -> Release {
    Release::new(ReleaseId { version: "2.0".parse().unwrap(), build: 2 }, vec![], "/nowhere")
}

/// A run just before `step`, with what it was told of the times before; each event is read back as a restart reads it.
fn machine_before(step: Step, clock: &dyn Clock, grace: Span) -> Machine {
    let mut log = vec![RunEvent::Queued { order: order() }];
    let (run, noted) = (RunId(1), clock.moment());
    let fold = |log: &[RunEvent]| {
        let logged = |(seq, event): (usize, &RunEvent)| {
            let Moment { at, up } = noted;
            let written = LoggedEvent { run, seq: seq as i64 + 1, at, up, event: event.clone() };
            serde_json::from_value::<LoggedEvent>(serde_json::to_value(written).unwrap()).unwrap()
        };
        Machine::fold(&log.iter().enumerate().map(logged).collect::<Vec<_>>()).unwrap()
    };
    loop {
        let machine = fold(&log);
        match decide(&machine, noted) {
            Decision::Append(event) => log.push(event),
            Decision::Act { at, .. } if at.step == step => return machine,
            Decision::Act { at, attempt, how } => {
                let grace = Term { from: noted, length: grace };
                let output = match at.step {
                    Step::Select => Output::Selected { from: None, path: vec![release()], blocked: None },
                    Step::Announce => Output::Announced {
                        grace_ends_at: grace.ends_at(noted),
                        grace: Some(grace),
                        sessions: Vec::new(),
                    },
                    _ => Output::Nothing,
                };
                log.push(RunEvent::StepStarted { at, attempt, how });
                log.push(RunEvent::StepSucceeded { at, output, message: String::new() });
            }
            other => panic!("{other:?}"),
        }
    }
}

#[rstest]
#[tokio::test(start_paused = true)]
async fn grace_lasts_as_long_as_was_said(#[values(3, -3, 5, -5)] hours: i64, #[values(false, true)] restarts: bool) {
    let clock = RunningClock::begin();
    // Who is logged in is not known, so it does not end early.
    let house = House::on(&format!("{DIR_FEED}sessions = [{{ list = [\"/nowhere/list\"] }}]\n"), clock.clone());
    let machine = Arc::new(machine_before(Step::Grace, clock.as_ref(), Span::mins(5)));
    let act = || house.household.night.act(RunId(1), At::first(Step::Grace), How::Act, Arc::clone(&machine));
    let set = async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        clock.set_by(hours);
    };
    if restarts {
        // The process that began it is no more.
        drop(tokio::time::timeout(Duration::from_secs(50), act()).await);
    }
    let (done, ()) = tokio::join!(act(), set);
    assert_eq!(done.unwrap().message, "grace is over");
    let lasted = clock.begun.elapsed().as_secs();
    assert!((300..=302).contains(&lasted), "it lasted {lasted} s");
}

#[rstest]
fn a_run_is_overlong_when_it_has_taken_too_long_and_not_before(
    #[values(3, -3, 5, -5)] hours: i64,
    #[values(false, true)] reboots: bool,
) {
    let clock = ManualClock::at(night());
    let machine = machine_before(Step::Download, &clock, Span::mins(5));
    clock.set(night() + TimeDelta::hours(1));
    if reboots && hours < 0 {
        // Nobody knows how long the machine was off; but not for longer than it has run since.
        clock.reboot(Span::ZERO);
        clock.jump(TimeDelta::hours(hours));
        assert_eq!(interruption(&machine, clock.moment()), None);
        clock.set(clock.now() + TimeDelta::hours(4));
    } else {
        clock.jump(TimeDelta::hours(hours));
        assert_eq!(interruption(&machine, clock.moment()), None);
        clock.set(clock.now() + TimeDelta::minutes(179));
        assert_eq!(interruption(&machine, clock.moment()), None, "a healthy run is not turned round");
        clock.set(clock.now() + TimeDelta::minutes(1));
    }
    assert!(interruption(&machine, clock.moment()).is_some(), "nor held for longer");
}

#[rstest]
#[tokio::test]
async fn the_lease_of_a_gate_lasts_as_long_as_it_is(
    #[values(3, -3, 5, -5)] hours: i64,
    #[values(false, true)] restarts: bool,
) {
    let mut house = House::build();
    fs_err::create_dir_all(house.nologin().parent().unwrap()).unwrap();
    let keeper = &house.household.night.gatekeeper;
    keeper.close_for_run(house.kit(), RunId(1), "closed", None).await.unwrap();
    house.clock.jump(TimeDelta::hours(hours));
    if restarts {
        house = house.again();
    }
    house.pass_secs(60);
    let admits = async |house: &House| house.store().gate(&desk()).await.unwrap().admits(house.clock.moment());
    house.household.renew_leases().await.unwrap();
    assert!(!admits(&house).await && house.nologin().exists(), "nobody comes in early");
    house.pass_secs(LEASE.duration().as_secs() as i64 - 60);
    assert!(admits(&house).await, "nobody is kept out for longer");
    house.household.renew_leases().await.unwrap();
    assert!(!house.nologin().exists());
}

#[tokio::test]
async fn a_time_of_day_that_an_operator_said_is_one() {
    let house = House::build();
    fs_err::create_dir_all(house.nologin().parent().unwrap()).unwrap();
    let until = night() + TimeDelta::hours(2);
    house.household.night.gatekeeper.close_by_hand(house.kit(), "anna", "closed", Some(until)).await.unwrap();
    house.clock.jump(TimeDelta::hours(3));
    house.household.renew_leases().await.unwrap();
    assert!(!house.nologin().exists());
}

#[rstest]
fn a_step_that_failed_is_tried_again_after_its_pause(#[values(3, -3, 5, -5)] hours: i64) {
    let clock = ManualClock::at(night());
    let mut machine = machine_before(Step::Download, &clock, Span::mins(5));
    let at = At::first(Step::Download);
    let failure = Failure::new("x");
    machine.apply(&RunEvent::StepStarted { at, attempt: 1, how: How::Act }, clock.moment()).unwrap();
    machine.apply(&RunEvent::StepFailed { at, failure }, clock.moment()).unwrap();
    let Decision::Append(deferred) = decide(&machine, clock.moment()) else { panic!("it is tried again") };
    machine.apply(&deferred, clock.moment()).unwrap();
    clock.jump(TimeDelta::hours(hours));
    assert_eq!(decide(&machine, clock.moment()), Decision::Wait { left: Span::secs(1) });
    clock.set(clock.now() + TimeDelta::seconds(1));
    assert_eq!(decide(&machine, clock.moment()), Decision::Act { at, attempt: 2, how: How::Act });
}

/// A job for one night, and one for every night.
async fn with_jobs(house: &House) -> [JobName; 2] {
    let zone = chrono_tz::Europe::Berlin;
    let once = StartCondition::Time { local: "2026-11-23T02:30:00".parse().unwrap(), zone };
    let nightly = StartCondition::Series { calendar: "02:30".to_owned(), zone };
    let names = ["once", "nightly"].map(|name| name.parse().unwrap());
    for (name, start) in names.iter().zip([once, nightly]) {
        let spec = JobSpec {
            name: JobName::clone(name),
            title: String::new(),
            kind: JobType::SoftwareUpdate,
            app: desk(),
            remarks: String::new(),
            start,
            grace: None,
            max_runtime: Span::hours(4),
            misfire: MisfirePolicy::Run,
            misfire_tolerance: Span::hours(4),
            to: None,
            to_named_at: None,
            on_failure: None,
            mail: Vec::new(),
            repair: false,
        };
        let (created_by, now) = ("anna".to_owned(), house.clock.now());
        let due_at = Some(tonight());
        let job = Job { spec, enabled: true, due_at, missed_at: None, created_by, created_at: now, updated_at: now };
        house.store().create_job(job).await.unwrap();
    }
    names
}

/// When both start: 02:30 in Berlin.
fn tonight() -> DateTime<Utc> {
    "2026-11-23T01:30:00Z".parse().unwrap()
}

async fn starts(house: &House, names: &[JobName; 2]) -> [Option<DateTime<Utc>>; 2] {
    let [once, nightly] = names;
    [house.store().job(once).await.unwrap().due_at, house.store().job(nightly).await.unwrap().due_at]
}

async fn look(house: &House) -> Look {
    guard::look(house.store(), house.clock.moment(), false).await.unwrap()
}

/// What the dispatcher and the launcher do of what is due.
async fn start_what_is_due(house: &House) {
    let (now, store) = (house.clock.now(), house.store());
    DueStore::arm_due(store, now, now, 9).await.unwrap();
    let (engine, clock) = (house.household.engine.clone(), Arc::clone(&house.household.clock));
    Launcher { store: store.clone(), engine, clock }.recover().await.unwrap();
    while store.unfinished_runs().await.unwrap().iter().any(|run| run.outcome.is_none()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_boot_years_ahead_moves_no_start_and_uses_up_none() {
    let mut house = House::build();
    let names = with_jobs(&house).await;
    house.run().await;
    assert_eq!(look(&house).await, Look::Believed);
    house.clock.reboot(Span::mins(1));
    house.clock.jump(TimeDelta::days(4_400));
    house = house.again();
    assert_eq!(look(&house).await, Look::Doubted);
    assert!(guard::is_doubted(house.store()).await.unwrap());
    // Whoever looks reads the same; what is old by this clock stays.
    house.household.prune().await.unwrap();
    assert_eq!(house.runs().await.len(), 1);
    house.clock.jump(TimeDelta::days(-4_400));
    assert_eq!(look(&house).await, Look::Believed);
    assert_eq!(starts(&house, &names).await, [Some(tonight()); 2]);
}

#[tokio::test]
async fn an_operator_may_say_that_the_machine_was_off_for_so_long() {
    let house = House::build();
    house.run().await;
    assert_eq!(look(&house).await, Look::Believed);
    house.clock.reboot(Span::days(700));
    assert_eq!(look(&house).await, Look::Doubted);
    house.store().note_clock(Seen::at(house.clock.moment())).await.unwrap();
    assert_eq!(look(&house).await, Look::Believed);
    assert!(guard::look(house.store(), house.clock.moment(), true).await.is_ok());
}

#[rstest]
#[tokio::test]
async fn starts_that_a_wrong_clock_has_moved_or_used_up_are_computed_again(#[values(20, 4_400)] days: i64) {
    let house = House::build();
    let names = with_jobs(&house).await;
    // It was believed, because it was not far, or because a time service vouched for it.
    house.clock.jump(TimeDelta::days(days));
    guard::look(house.store(), house.clock.moment(), true).await.unwrap();
    start_what_is_due(&house).await;
    let [once, nightly] = starts(&house, &names).await;
    assert!(once.is_none() && nightly > Some(tonight() + TimeDelta::days(days - 2)), "{once:?} {nightly:?}");

    house.clock.jump(TimeDelta::days(-days));
    if days > 30 {
        assert_eq!(look(&house).await, Look::Doubted, "nobody knows which was right, and an operator says so");
        house.store().note_clock(Seen::at(house.clock.moment())).await.unwrap();
    }
    assert_eq!(look(&house).await, Look::Mended);
    assert_eq!(starts(&house, &names).await, [Some(tonight()); 2]);
    let entry = house.store().audit_entries(1).await.unwrap().remove(0);
    assert_eq!((entry.action.as_str(), &entry.body["moved"]), ("clock.mended", &serde_json::json!(2)));
    let seen = house.store().clock_seen().await.unwrap().unwrap();
    assert!(seen.mended.unwrap().1.contains("the next starts of 2 jobs were computed again"));
    assert_eq!(look(&house).await, Look::Believed, "once");

    // Both start, though a run of that start was given up; and what has started is not started a second time.
    let before = house.runs().await.len();
    house.clock.set(tonight());
    start_what_is_due(&house).await;
    assert_eq!(house.runs().await.len(), before + 2);
    house.clock.jump(TimeDelta::hours(-3));
    assert_eq!(look(&house).await, Look::Mended);
    assert_eq!(starts(&house, &names).await, [None, Some(tonight() + TimeDelta::days(1))]);
}
