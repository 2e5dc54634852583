//! What an idle process costs, read from `/proc`.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// What an idle process costs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    /// Resident memory.
    pub(crate) rss_mb: f64,
    /// Time on a core, in percent of one.
    pub(crate) cpu_percent: f64,
}

/// Starts a process that prints a line when it is ready and ends when its standard input does; lets it settle, and
/// watches it for `span`.
pub(crate) async fn measure(command: &mut Command, span: Duration) -> Idle {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the process starts");
    let stdout = child.stdout.take().expect("piped");
    let ready = tokio::task::spawn_blocking(move || BufReader::new(stdout).read_line(&mut String::new()));
    assert!(ready.await.expect("read").expect("read") > 0, "the process ended before it was ready");
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (started, before) = (Instant::now(), on_cpu(&child));
    tokio::time::sleep(span).await;
    let spent = on_cpu(&child).saturating_sub(before);
    let cpu_percent = spent.as_secs_f64() / started.elapsed().as_secs_f64() * 100.0;
    let idle = Idle { rss_mb: rss_mb(&child), cpu_percent };
    drop(child.stdin.take());
    child.wait().expect("it ends with its standard input");
    idle
}

/// The time all threads have had on a core; exact to the nanosecond, unlike the ticks in `stat`.
fn on_cpu(child: &Child) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", child.id())).expect("the process lives");
    let nanos = threads.filter_map(|thread| {
        let schedstat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn rss_mb(child: &Child) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("the process lives");
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.expect("a process has resident memory") / 1024.0
}
