//! The same work done by `tokio-cron-scheduler` with its own storage, which is in memory.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use chrono::TimeDelta;
use tokio_cron_scheduler::Job;
use tokio_cron_scheduler::JobScheduler;

use crate::LOST_AFTER;
use crate::Starts;

/// The room between its parts when it is made with `JobScheduler::new()`.
pub(crate) const CHANNEL_DEFAULT: usize = 200;
/// Room for more jobs than there are.
pub(crate) const CHANNEL_LARGE: usize = 100_000;
/// Time to add the jobs before the first is due.
const LEAD: Duration = Duration::from_secs(10);

/// Lets it fire one-shots that are due so many microseconds after a common instant.
pub(crate) async fn fire(due_micros: Vec<u64>, channel: usize) -> Starts {
    let mut scheduler = JobScheduler::new_with_channel_size(channel).await.expect("a scheduler");
    let first = Instant::now() + LEAD;
    let starts = Arc::new(Mutex::new(Starts::default()));
    let mut last = first;
    for (job, micros) in (0_i64..).zip(due_micros) {
        let due = first + Duration::from_micros(micros);
        last = last.max(due);
        let starts = starts.clone();
        let one_shot = Job::new_one_shot_at_instant_async(due, move |_, _| {
            let late = since(due);
            let mut starts = starts.lock().expect("no panic");
            starts.late.push(late);
            *starts.of_job.entry(job.to_string()).or_default() += 1;
            Box::pin(async {})
        });
        scheduler.add(one_shot.expect("a job")).await.expect("a job is added");
    }
    scheduler.start().await.expect("it starts");
    let begun = || starts.lock().expect("no panic").late.len();
    let mut seen = 0;
    let mut still = Instant::now();
    while Instant::now() < last || still.elapsed() < LOST_AFTER {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = begun();
        if now > seen {
            (seen, still) = (now, Instant::now());
        }
    }
    scheduler.shutdown().await.expect("it stops");
    std::mem::take(&mut *starts.lock().expect("no panic"))
}

/// How long ago an instant was; less than nothing when it is still to come.
fn since(due: Instant) -> TimeDelta {
    let now = Instant::now();
    let delta = |span: Duration| TimeDelta::from_std(span).expect("less than a century");
    if now >= due { delta(now - due) } else { -delta(due - now) }
}

/// Holds jobs that are due tomorrow, until standard input ends.
pub(crate) async fn idle(jobs: usize) {
    let scheduler = JobScheduler::new_with_channel_size(CHANNEL_DEFAULT).await.expect("a scheduler");
    scheduler.start().await.expect("it starts");
    for _ in 0..jobs {
        let one_shot = Job::new_one_shot_async(Duration::from_secs(86_400), |_, _| Box::pin(async {}));
        scheduler.add(one_shot.expect("a job")).await.expect("a job is added");
    }
    println!("ready");
    let end = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    drop(end.await);
}
