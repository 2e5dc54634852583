//! How exactly jobs are fired, whether any is lost or doubled, and what an idle daemon costs; beside it the same work
//! done by `tokio-cron-scheduler`.
//!
//! `cargo bench --bench firing`. The last line is one JSON object. Lateness is measured where the engine would receive
//! the run, after the store has validated it. A bare thread that sleeps until the same instants beside it shows how
//! late this machine is by itself, which on a busy one is most of it.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

mod peer;
mod support;

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use afterhours::db::store::Store;
use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::name::JobName;
use afterhours::domain::run::RunId;
use afterhours::scheduler::dispatcher::Dispatcher;
use afterhours::scheduler::timekeeper::Timekeeper;
use chrono::DateTime;
use chrono::SubsecRound;
use chrono::TimeDelta;
use chrono::Utc;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::support::dice::Dice;
use crate::support::figures::Lateness;
use crate::support::process;
use crate::support::process::Idle;
use crate::support::store::add_jobs;

/// Jobs at random instants.
const SPREAD: usize = 1_000;
/// Those instants lie in so many milliseconds.
const SPREAD_MS: u64 = 20_000;
/// Jobs that are only stored.
const OTHERS: usize = 100_000;
/// Jobs at one instant.
const CROWD: usize = 20_000;
/// From the beginning of a measurement to the first instant: the jobs are stored by then.
const LEAD: TimeDelta = TimeDelta::seconds(4);
/// Runs that wait for the engine.
const CHANNEL: usize = 256;
/// After so long without a start, what has not started is lost.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// How long an idle process is watched: more than one look of the dispatcher.
const IDLE_SPAN: Duration = Duration::from_secs(65);
/// How long an idle peer is watched, which looks twice a second.
const PEER_IDLE_SPAN: Duration = Duration::from_secs(15);

#[tokio::main]
async fn main() {
    let complaints = EnvFilter::new("afterhours=warn");
    tracing_subscriber::fmt().with_env_filter(complaints).with_writer(std::io::stderr).init();
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_, "idle", dir] => idle(Path::new(dir)).await,
        [_, "idle-peer"] => peer::idle(OTHERS).await,
        _ => bench().await,
    }
}

async fn bench() {
    println!("                            early     p50 ms     p99 ms     max ms    lost  doubled");
    let bare = std::thread::spawn(|| bare_thread(spread()));
    let (alone, ..) = row("1,000 in 20 s", ours(spread(), 0).await, SPREAD);
    let (bare, ..) = row("  a bare thread beside it", bare.join().expect("it sleeps"), SPREAD);
    let bare_again = std::thread::spawn(|| bare_thread(spread()));
    let (with_others, ..) = row("1,000 beside 100,000 others", ours(spread(), OTHERS).await, SPREAD);
    let (bare_again, ..) = row("  a bare thread beside it", bare_again.join().expect("it sleeps"), SPREAD);
    let (_, lost, doubled) = row("20,000 at one instant", ours(vec![0; CROWD], 0).await, CROWD);
    let (peer, ..) = row("peer: 1,000 in 20 s", peer::fire(spread(), peer::CHANNEL_DEFAULT).await, SPREAD);
    let crowd = peer::fire(vec![0; CROWD], peer::CHANNEL_DEFAULT).await;
    let (_, peer_lost, peer_doubled) = row("peer: 20,000 at one instant", crowd, CROWD);
    let crowd = peer::fire(vec![0; CROWD], peer::CHANNEL_LARGE).await;
    let (_, peer_lost_large, _) = row("  with a channel for 100,000", crowd, CROWD);

    let dir = TempDir::new().expect("a directory");
    let store = Store::open(&dir.path().join("afterhours.db")).expect("a store");
    add_jobs(&store, "other", tomorrow(OTHERS)).await;
    drop(store);
    let this = std::env::current_exe().expect("this program has a path");
    let idle = process::measure(Command::new(&this).arg("idle").arg(dir.path()), IDLE_SPAN).await;
    show("idle, 100,000 jobs", idle);
    let peer_idle = process::measure(Command::new(&this).arg("idle-peer"), PEER_IDLE_SPAN).await;
    show("peer: idle, 100,000 jobs", peer_idle);

    let figures = json!({
        "early": alone.early + with_others.early,
        "p50_ms": alone.p50_ms,
        "p99_ms": alone.p99_ms,
        "max_ms": alone.max_ms,
        "bare_thread_p99_ms": bare.p99_ms,
        "p99_ms_with_100k": with_others.p99_ms,
        "bare_thread_p99_ms_with_100k": bare_again.p99_ms,
        "lost": lost,
        "doubled": doubled,
        "rss_mb_with_100k": round(idle.rss_mb),
        "idle_cpu_percent": round(idle.cpu_percent),
        "peer_early": peer.early,
        "peer_p50_ms": peer.p50_ms,
        "peer_p99_ms": peer.p99_ms,
        "peer_max_ms": peer.max_ms,
        "peer_lost": peer_lost,
        "peer_lost_large_channel": peer_lost_large,
        "peer_doubled": peer_doubled,
        "peer_rss_mb_with_100k": round(peer_idle.rss_mb),
        "peer_idle_cpu_percent": round(peer_idle.cpu_percent),
    });
    println!("{figures}");
}

/// Prints one measurement and returns its lateness, and how many starts were lost and doubled.
fn row(name: &str, starts: Starts, expected: usize) -> (Lateness, usize, usize) {
    let lost = expected - starts.of_job.len();
    let doubled = starts.of_job.values().map(|times| times - 1).sum();
    let late = Lateness::of(starts.late);
    let Lateness { early, p50_ms, p99_ms, max_ms } = late;
    println!("{name:<28}{early:>5} {p50_ms:>10.3} {p99_ms:>10.3} {max_ms:>10.3} {lost:>7} {doubled:>8}");
    (late, lost, doubled)
}

fn show(name: &str, idle: Idle) {
    println!("{name:<28}{:.1} MB resident, {:.4} % of a core", idle.rss_mb, idle.cpu_percent);
}

fn round(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

/// What was started.
#[derive(Debug, Default)]
struct Starts {
    /// How late each start was.
    late: Vec<TimeDelta>,
    /// How often each job was started.
    of_job: HashMap<String, usize>,
}

/// Random instants, in microseconds after the first.
fn spread() -> Vec<u64> {
    let mut dice = Dice(20_261_121);
    (0..SPREAD).map(|_| dice.roll(SPREAD_MS * 1_000)).collect()
}

fn tomorrow(count: usize) -> Vec<DateTime<Utc>> {
    let tomorrow = SystemClock.now().trunc_subsecs(6) + TimeDelta::days(1);
    (0..count as i64).map(|i| tomorrow + TimeDelta::milliseconds(i * 500)).collect()
}

/// Lets the dispatcher fire jobs that are due so many microseconds after a common instant.
async fn ours(due_micros: Vec<u64>, others: usize) -> Starts {
    let dir = TempDir::new().expect("a directory");
    let store = Store::open(&dir.path().join("afterhours.db")).expect("a store");
    add_jobs(&store, "other", tomorrow(others)).await;
    let first = SystemClock.now().trunc_subsecs(6) + LEAD;
    let due = due_micros.iter().map(|micros| first + TimeDelta::microseconds(*micros as i64)).collect();
    add_jobs(&store, "update", due).await;

    let (started, mut runs) = mpsc::channel(CHANNEL);
    let (dispatcher, _poke) = Dispatcher::new(Arc::new(store.clone()), Timekeeper::wall(), started);
    let shutdown = CancellationToken::new();
    let dispatcher = tokio::spawn(dispatcher.run(shutdown.clone()));
    let engine = tokio::spawn(async move {
        let mut seen: Vec<(RunId, DateTime<Utc>)> = Vec::new();
        let mut patience = LOST_AFTER * 2;
        while let Ok(Some(run)) = timeout(patience, runs.recv()).await {
            seen.push((run, SystemClock.now()));
            patience = LOST_AFTER;
        }
        seen
    });
    let seen = engine.await.expect("it counts");
    shutdown.cancel();
    dispatcher.await.expect("it stops");

    let runs = store.unfinished_runs().await.expect("runs are stored");
    let runs: HashMap<RunId, (JobName, DateTime<Utc>)> =
        runs.into_iter().filter_map(|run| Some((run.id, (run.order.job?, run.due_at?)))).collect();
    let mut starts = Starts::default();
    for (run, at) in seen {
        let (job, due_at) = &runs[&run];
        starts.late.push(at - due_at);
        *starts.of_job.entry(job.to_string()).or_default() += 1;
    }
    starts
}

/// Sleeps until the same instants as the jobs, and does nothing else.
#[expect(clippy::disallowed_methods, reason = "what a sleeping thread can do is what is measured")]
fn bare_thread(mut due_micros: Vec<u64>) -> Starts {
    due_micros.sort_unstable();
    let first = SystemClock.now() + LEAD;
    let mut starts = Starts::default();
    for (job, micros) in (0..).zip(due_micros) {
        let due_at = first + TimeDelta::microseconds(micros as i64);
        while let Ok(rest) = (due_at - SystemClock.now()).to_std()
            && !rest.is_zero()
        {
            std::thread::sleep(rest);
        }
        starts.late.push(SystemClock.now() - due_at);
        starts.of_job.insert(job.to_string(), 1);
    }
    starts
}

/// The whole daemon, until standard input ends.
async fn idle(dir: &Path) {
    let socket = dir.join("afterhours.sock");
    let text = format!("[daemon]\ndata_dir = {dir:?}\nsocket = {socket:?}\n");
    let settings = afterhours::config::parse(&text, "the bench").expect("settings");
    let origin = afterhours::renewal::Origin::of_this_process(None).expect("this process");
    let reread = || afterhours::config::parse(&text, "the bench");
    let ready = async {
        while UnixStream::connect(&socket).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("ready");
        let end = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        drop(end.await);
    };
    tokio::select! {
        ended = afterhours::daemon::serve(settings, &reread, origin) => panic!("the daemon ended: {ended:?}"),
        () = ready => {}
    }
}
