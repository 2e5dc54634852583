//! The dispatcher on this machine's clock with a store in memory, which outlives it as the real one does.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use chrono::TimeDelta;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::domain::clock::Clock;
use crate::domain::clock::SystemClock;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

type Job = i64;

#[derive(Debug, Default)]
struct State {
    jobs: BTreeSet<(DateTime<Utc>, Job)>,
    every: BTreeMap<Job, TimeDelta>,
    queued: BTreeMap<RunId, Armed>,
    job_of: BTreeMap<RunId, Job>,
    /// Runs that the engine has begun, with the time it did, and when they were due.
    begun: Vec<(Job, DateTime<Utc>, DateTime<Utc>)>,
    /// Jobs whose armed run an edit withdraws at once.
    withdraw: BTreeSet<Job>,
    arm_fails: u32,
    validate_fails: u32,
    doubted: bool,
    looks: u32,
}

#[derive(Debug, Default)]
struct MemoryStore(Mutex<State>);

#[derive(Debug, Error)]
#[error("reach the store")]
struct Unreachable;

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn with_jobs(jobs: impl IntoIterator<Item = (DateTime<Utc>, Job)>) -> Arc<Self> {
        let store = Self::default();
        store.state().jobs.extend(jobs);
        Arc::new(store)
    }

    /// What the engine does first: claims the run. False when it has been claimed before.
    fn begin(&self, run: RunId, now: DateTime<Utc>) -> bool {
        let mut state = self.state();
        let Some(armed) = state.queued.remove(&run) else { return false };
        let job = state.job_of[&run];
        state.begun.push((job, armed.due_at, now));
        true
    }

    fn begun(&self) -> Vec<Job> {
        let mut jobs: Vec<Job> = self.state().begun.iter().map(|(job, ..)| *job).collect();
        jobs.sort_unstable();
        jobs
    }
}

impl DueStore for MemoryStore {
    type Error = Unreachable;

    async fn arm_due(&self, horizon: DateTime<Utc>, _: DateTime<Utc>, max: usize) -> Result<Vec<Armed>, Unreachable> {
        let mut state = self.state();
        if state.arm_fails > 0 {
            state.arm_fails -= 1;
            return Err(Unreachable);
        }
        let due: Vec<_> = state.jobs.iter().copied().take_while(|(due_at, _)| *due_at <= horizon).take(max).collect();
        let mut armed = Vec::new();
        for (due_at, job) in due {
            let run = RunId(state.job_of.len() as i64 + 1);
            let one = Armed { run, due_at, fence: Fence(1) };
            state.jobs.remove(&(due_at, job));
            if let Some(every) = state.every.get(&job).copied() {
                state.jobs.insert((due_at + every, job));
            }
            state.job_of.insert(run, job);
            if !state.withdraw.contains(&job) {
                state.queued.insert(run, one);
            }
            armed.push(one);
        }
        Ok(armed)
    }

    async fn look(&self, _: Moment) -> Result<Look, Unreachable> {
        let mut state = self.state();
        state.looks += 1;
        Ok(if state.doubted { Look::Doubted } else { Look::Believed })
    }

    async fn next_due_at(&self) -> Result<Option<DateTime<Utc>>, Unreachable> {
        Ok(self.state().jobs.first().map(|(due_at, _)| *due_at))
    }

    async fn still_armed(&self, runs: &[RunId]) -> Result<Vec<RunId>, Unreachable> {
        let mut state = self.state();
        if state.validate_fails > 0 {
            state.validate_fails -= 1;
            return Err(Unreachable);
        }
        Ok(runs.iter().copied().filter(|run| state.queued.contains_key(run)).collect())
    }
}

/// A dispatcher at work, with an engine that begins every run it is handed.
struct Night {
    poke: Poke,
    shutdown: CancellationToken,
    dispatcher: JoinHandle<()>,
    engine: JoinHandle<u32>,
}

impl Night {
    fn begins(store: &Arc<MemoryStore>, time: Timekeeper, room: usize) -> Self {
        let (started, mut runs) = mpsc::channel(room);
        let left: Vec<Armed> = store.state().queued.values().copied().collect();
        let (dispatcher, poke) = Dispatcher::new(store.clone(), time.clone(), started);
        let shutdown = CancellationToken::new();
        let dispatcher = tokio::spawn(dispatcher.adopt(left).run(shutdown.clone()));
        let store = store.clone();
        let engine = tokio::spawn(async move {
            let mut twice = 0;
            while let Some(run) = runs.recv().await {
                twice += u32::from(!store.begin(run, time.now()));
            }
            twice
        });
        Self { poke, shutdown, dispatcher, engine }
    }

    /// Ends in good order; returns how many runs were handed over twice.
    async fn ends(self) -> u32 {
        self.shutdown.cancel();
        timeout(PATIENCE, self.dispatcher).await.expect("it stops when told").unwrap();
        self.engine.await.unwrap()
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} took longer than {PATIENCE:?}"));
}

/// Instants that look random, in `span` after `from`.
fn instants(count: i64, from: DateTime<Utc>, span: TimeDelta) -> impl Iterator<Item = (DateTime<Utc>, Job)> {
    let span = span.num_nanoseconds().unwrap();
    (0..count).map(move |job| (from + TimeDelta::nanoseconds(job * 7_368_787 % span), job))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_starts_are_each_made_once_and_none_is_early() {
    let now = SystemClock.now();
    let store =
        MemoryStore::with_jobs(instants(5_000, now + TimeDelta::milliseconds(50), TimeDelta::milliseconds(900)));
    let night = Night::begins(&store, Timekeeper::wall(), 8);
    until("5,000 starts", || store.state().begun.len() == 5_000).await;
    assert_eq!(night.ends().await, 0);
    assert_eq!(store.begun(), (0..5_000).collect::<Vec<_>>());
    let early = store.state().begun.iter().filter(|(_, due_at, at)| at < due_at).count();
    assert_eq!(early, 0);
}

#[tokio::test]
async fn thousands_at_one_instant_go_through_a_channel_of_one() {
    let due_at = SystemClock.now() + TimeDelta::milliseconds(30);
    let store = MemoryStore::with_jobs((0..7_000).map(|job| (due_at, job)));
    let night = Night::begins(&store, Timekeeper::wall(), 1);
    until("7,000 starts", || store.state().begun.len() == 7_000).await;
    assert_eq!(night.ends().await, 0);
    assert_eq!(store.begun(), (0..7_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_run_that_an_edit_withdrew_is_not_started() {
    let store = MemoryStore::with_jobs(instants(500, SystemClock.now(), TimeDelta::milliseconds(200)));
    store.state().withdraw = (0..500).filter(|job| job % 7 == 0).collect();
    let night = Night::begins(&store, Timekeeper::wall(), 8);
    let kept: Vec<Job> = (0..500).filter(|job| job % 7 != 0).collect();
    until("the others", || store.state().begun.len() == kept.len()).await;
    assert_eq!(night.ends().await, 0);
    assert_eq!(store.begun(), kept);
}

/// Dies again and again, with runs armed and not fired, and with runs in the channel; what is left is adopted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_it_dies() {
    const JOBS: i64 = 4_000;
    let store = MemoryStore::with_jobs(instants(JOBS, SystemClock.now(), TimeDelta::milliseconds(1_000)));
    let mut deaths_with_armed_runs = 0;
    for death in 1..=25 {
        let night = Night::begins(&store, Timekeeper::wall(), 64);
        let enough = (JOBS as usize) * death / 26;
        until("the next death", || store.state().begun.len() >= enough).await;
        night.dispatcher.abort();
        night.engine.abort();
        let _ = tokio::join!(night.dispatcher, night.engine);
        deaths_with_armed_runs += usize::from(!store.state().queued.is_empty());
    }
    assert!(deaths_with_armed_runs > 5, "died with armed runs only {deaths_with_armed_runs} times");
    let night = Night::begins(&store, Timekeeper::wall(), 64);
    until("the rest", || store.state().begun.len() as i64 == JOBS).await;
    night.ends().await;
    assert_eq!(store.begun(), (0..JOBS).collect::<Vec<_>>());
    assert!(store.state().begun.iter().all(|(_, due_at, at)| at >= due_at), "an adopted run is not early either");
}

#[tokio::test]
async fn a_series_goes_on() {
    let first = SystemClock.now() + TimeDelta::milliseconds(10);
    let store = MemoryStore::with_jobs([(first, 1)]);
    store.state().every.insert(1, TimeDelta::milliseconds(200));
    let night = Night::begins(&store, Timekeeper::wall(), 8);
    until("three starts", || store.state().begun.len() == 3).await;
    night.ends().await;
    let due: Vec<_> = store.state().begun.iter().map(|(_, due_at, _)| (*due_at - first).num_milliseconds()).collect();
    assert_eq!(due, [0, 200, 400]);
}

#[tokio::test]
async fn a_new_job_is_seen_when_somebody_pokes() {
    let store = MemoryStore::with_jobs([(SystemClock.now(), 1)]);
    let night = Night::begins(&store, Timekeeper::wall(), 8);
    until("the first start", || store.state().begun.len() == 1).await;
    store.state().jobs.insert((SystemClock.now(), 2));
    night.poke.poke();
    until("the second start, long before the next look", || store.state().begun.len() == 2).await;
    assert_eq!(night.ends().await, 0);
}

#[tokio::test]
async fn a_store_that_fails_for_a_while_loses_nothing() {
    let store = MemoryStore::with_jobs(instants(20, SystemClock.now(), TimeDelta::milliseconds(20)));
    {
        let mut state = store.state();
        (state.arm_fails, state.validate_fails) = (1, 1);
    }
    let night = Night::begins(&store, Timekeeper::wall(), 8);
    until("20 starts", || store.state().begun.len() == 20).await;
    assert_eq!(night.ends().await, 0);
    assert_eq!(store.begun(), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn it_ends_when_told_and_leaves_what_is_armed_in_the_store() {
    let store = MemoryStore::with_jobs([(SystemClock.now() + TimeDelta::milliseconds(2_500), 1)]);
    let night = Night::begins(&store, Timekeeper::wall(), 8);
    until("it is armed", || store.state().queued.len() == 1).await;
    night.ends().await;
    assert_eq!(store.state().queued.len(), 1);
    assert!(store.begun().is_empty());
}

#[tokio::test]
async fn it_ends_when_nobody_receives() {
    let store = MemoryStore::with_jobs([(SystemClock.now(), 1)]);
    let (started, runs) = mpsc::channel(1);
    drop(runs);
    let (dispatcher, _poke) = Dispatcher::new(store.clone(), Timekeeper::wall(), started);
    timeout(PATIENCE, dispatcher.run(CancellationToken::new())).await.expect("it ends by itself");
    assert_eq!(store.state().queued.len(), 1, "the run is still there for the next one");
}

/// The clock is doubted when the dispatcher begins, and a start is due by it; then it is believed.
#[tokio::test]
async fn nothing_is_armed_or_started_by_a_clock_that_is_doubted() {
    let store = MemoryStore::with_jobs([(SystemClock.now(), 1)]);
    let armed = Armed { run: RunId(7), due_at: SystemClock.now(), fence: Fence(1) };
    {
        let mut state = store.state();
        state.doubted = true;
        state.queued.insert(armed.run, armed);
        state.job_of.insert(armed.run, 7);
    }
    let night = Night::begins(&store, Timekeeper::wall(), 8);
    until("both loops have asked", || store.state().looks >= 2).await;
    {
        let mut state = store.state();
        assert!(state.begun.is_empty() && state.jobs.len() == 1);
        state.doubted = false;
    }
    night.poke.poke();
    until("what was held", || store.state().begun.len() == 2).await;
    assert_eq!(night.ends().await, 0);
}
