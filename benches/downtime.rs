//! How long an application is away for an update, beyond its own stop and start.
//!
//! `cargo bench --bench downtime [-- --quick]`
//!
//! Measured is all that happens to files between the stop and the start: the hold file, the second pass of the snapshot, the
//! swap with its kept files, everything durable when it ends. What is done before while people work (staging, owners, the first pass) is
//! not in it. Beside it stand two scripts that many sites use on the same trees, neither of which takes a snapshot,
//! keeps a file or makes anything durable: `rm -r; cp -a`, and `rsync -a --delete` (Debian package rsync).
//!
//! `own` is what an application's own stop and start take, measured in the same run before each size: a PostgreSQL server with its
//! defaults that was written to until the stop (Debian package postgresql). `extra %` is our time as a share of that.
//! A database server alone stops and starts faster than the business applications in front of it, so the share that
//! those see is smaller; `enough` is the own stop and start from which on it is at most 2 %.
//!
//! A table, and as the last line one JSON object. Medians.

#[path = "../tests/it/install/app.rs"]
mod app;
#[path = "support/cluster.rs"]
mod cluster;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use afterhours::domain::progress::Silent;
use afterhours::domain::release::MARKER;
use afterhours::domain::release::Marker;
use afterhours::domain::run::RunId;
use afterhours::install::Exchange;

use crate::cluster::Cluster;

/// The size of one file of a program tree: as in a virtual environment or a node_modules folder.
const FILE_BYTES: usize = 50 * 1024;
const TARGET_MS: f64 = 50.0;
const TARGET_PERCENT: f64 = 2.0;
/// How often the other application is stopped and started for each size.
const OWN_ROUNDS: usize = 7;
/// How often we are measured at each size: a round takes milliseconds, and one of three may fall on a busy disk.
const OUR_ROUNDS: usize = 9;

#[derive(Debug, Clone, Copy)]
struct Size {
    name: &'static str,
    bytes: usize,
    /// How often each script runs.
    script_rounds: usize,
}

const SIZES: [Size; 3] = [
    Size { name: "10mb", bytes: 10 << 20, script_rounds: 9 },
    Size { name: "200mb", bytes: 200 << 20, script_rounds: 5 },
    Size { name: "2gb", bytes: 2 << 30, script_rounds: 3 },
];

#[derive(Debug)]
struct Row {
    size: Size,
    extra_ms: f64,
    script_ms: f64,
    rsync_ms: f64,
    own_ms: f64,
}

impl Row {
    /// Our time as a share of the application's own.
    fn extra_percent(&self) -> f64 {
        100.0 * self.extra_ms / self.own_ms
    }

    /// The own stop and start from which on our share is within the target.
    fn enough_own_ms(&self) -> f64 {
        100.0 * self.extra_ms / TARGET_PERCENT
    }
}

fn main() -> anyhow::Result<()> {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let sizes = SIZES.iter().filter(|size| !quick || size.bytes < 1 << 30);
    let mut out = std::io::stdout().lock();
    let other = Cluster::start()?;
    writeln!(
        out,
        "{:>8} {:>16} {:>16} {:>22} {:>10} {:>8} {:>12}",
        "size", "afterhours (ms)", "rm, cp -a (ms)", "rsync --delete (ms)", "own (ms)", "extra %", "enough (ms)"
    )?;
    let mut figures = serde_json::Map::new();
    for size in sizes {
        let row = measure(*size, &other)?;
        let Row { extra_ms, script_ms, rsync_ms, own_ms, .. } = row;
        let (name, percent, enough) = (row.size.name, row.extra_percent(), row.enough_own_ms());
        writeln!(
            out,
            "{name:>8} {extra_ms:>16.1} {script_ms:>16.1} {rsync_ms:>22.1} {own_ms:>10.1} {percent:>8.1} {enough:>12.0}"
        )?;
        let in_ms =
            [("extra", extra_ms), ("script", script_ms), ("rsync", rsync_ms), ("own", own_ms), ("enough_own", enough)];
        for (what, figure) in in_ms {
            figures.insert(format!("{what}_ms_{name}"), ((figure * 10.0).round() / 10.0).into());
        }
        figures.insert(format!("extra_percent_{name}"), ((percent * 100.0).round() / 100.0).into());
    }
    figures.insert("own_is".to_owned(), "postgresql".into());
    writeln!(
        out,
        "target: at most {TARGET_MS} ms, whatever the size, and {TARGET_PERCENT} % of the application's own"
    )?;
    writeln!(out, "{}", serde_json::Value::Object(figures))?;
    Ok(())
}

fn measure(size: Size, other: &Cluster) -> anyhow::Result<Row> {
    let own = (0..OWN_ROUNDS).map(|_| other.stop_and_start()).collect::<anyhow::Result<Vec<_>>>()?;
    fs::create_dir_all(env!("CARGO_TARGET_TMPDIR"))?;
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let root = root.path();
    app::install(root);
    fill(&root.join("app"), size, 1)?;
    let staged = app::stage(root, 2);
    fill(&staged, size, 2)?;
    app::seal(&staged, 2);
    for n in 0..8 {
        app::put(root.join(format!("data/ledger-{n}")), vec![n; 100 * 1024]);
    }
    sync()?;
    let extra_ms = ours(root)?;
    sync()?;
    let (one, two) = (root.join("app"), root.join(".app.afterhours/staged/2.0+2"));
    let live = root.join("live");
    run("cp", &["-a", text(&one)?, text(&live)?])?;
    let script_ms = theirs(size.script_rounds, &one, &two, |from| {
        run("rm", &["-r", text(&live)?])?;
        run("cp", &["-a", text(from)?, text(&live)?])
    })?;
    let rsync_ms = theirs(size.script_rounds, &one, &two, |from| {
        run("rsync", &["-a", "--delete", &format!("{}/", text(from)?), &format!("{}/", text(&live)?)])
    })?;
    Ok(Row { size, extra_ms, script_ms, rsync_ms, own_ms: median_ms(own) })
}

/// Our own way, there; the way back is not measured.
fn ours(root: &Path) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let installer = app::installer(root, Exchange::Atomic);
    let id = app::release(2);
    let mut times = Vec::new();
    for round in 0..OUR_ROUNDS {
        let run = RunId(i64::try_from(round)? + 1);
        runtime.block_on(installer.prepare(&id))?;
        runtime.block_on(installer.snapshot_ahead(run, Arc::new(Silent)))?;
        // Somebody works until the stop.
        app::put(root.join("data/ledger-3"), vec![u8::try_from(round % 256)?; 100 * 1024]);
        let begin = Instant::now();
        runtime.block_on(async {
            installer.hold().await?;
            installer.snapshot(run, Arc::new(Silent)).await?;
            installer.swap(&id).await?;
            installer.lift_hold().await
        })?;
        times.push(begin.elapsed());
        anyhow::ensure!(
            Marker::from_text(&fs::read_to_string(root.join("app").join(MARKER))?)?.id == id,
            "the swap did not happen"
        );
        runtime.block_on(installer.swap_back(&id))?;
        // What was in place is no release any more; staging it anew is not what is measured.
        app::seal(&installer.staged_path(&id), 2);
    }
    Ok(median_ms(times))
}

/// A script's way, in turn to the one tree and the other.
fn theirs(rounds: usize, one: &Path, two: &Path, script: impl Fn(&Path) -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for round in 0..rounds {
        sync()?;
        let begin = Instant::now();
        script(if round % 2 == 0 { two } else { one })?;
        times.push(begin.elapsed());
    }
    Ok(median_ms(times))
}

/// Fills a program tree to its size; every file is another in every release.
fn fill(tree: &Path, size: Size, release: u8) -> anyhow::Result<()> {
    for n in 0..size.bytes / FILE_BYTES {
        let mut content = vec![release; FILE_BYTES];
        content[..8].copy_from_slice(&(n as u64).to_le_bytes());
        app::put(tree.join(format!("lib/{}/{}/module-{n}", n % 40, n % 7)), content);
    }
    Ok(())
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().ok_or_else(|| anyhow::anyhow!("{} is not UTF-8", path.display()))
}

fn sync() -> anyhow::Result<()> {
    run("sync", &[])
}

fn run(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let status = Command::new(program).args(args).status().map_err(|error| {
        anyhow::anyhow!(
            "{program}: {error}; install the Debian package {}",
            if program == "rsync" { "rsync" } else { "coreutils" }
        )
    })?;
    anyhow::ensure!(status.success(), "{program} {args:?}: {status}");
    Ok(())
}
