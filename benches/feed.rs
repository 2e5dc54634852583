//! What a release costs to bring in: the bytes of a small change, and the time to verify and unpack a large bundle.
//!
//! `cargo bench --bench feed [-- --quick]`
//!
//! Two peers in the same run, on the same files. For bytes: the full archive, and `zstd --patch-from` over the plain tar
//! archives at the same level. For time: `sha256sum`, then `zstd -d | tar x`, then `sync` of the file system, because we
//! answer only when everything is on disk. (Debian packages coreutils, zstd, tar.) Memory is the most that the whole
//! process had while it staged.
//!
//! A table, and as the last line one JSON object. Medians; ratios are made round by round.

#[path = "support/dice.rs"]
mod dice;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use afterhours::domain::progress::Silent;
use afterhours::domain::release::Release;
use afterhours::domain::release::ReleaseId;
use afterhours::feed::Feed;
use afterhours::feed::delta;
use afterhours::feed::dir::DirFeed;
use afterhours::feed::pack::PackMeta;
use afterhours::feed::pack::pack;

use crate::dice::Dice;

/// The size of one file of a program tree: as in a virtual environment or a node_modules folder.
const FILE_BYTES: usize = 50 * 1024;
/// One in so many files differs between two builds, in a few bytes.
const CHANGED_ONE_IN: usize = 200;

fn main() -> anyhow::Result<()> {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let (bundle_files, change_files, rounds) = if quick { (2_000, 1_000, 3) } else { (22_000, 4_000, 5) };
    fs::create_dir_all(env!("CARGO_TARGET_TMPDIR"))?;
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut out = std::io::stdout().lock();

    let sizes = small_change(&root.path().join("change"), change_files)?;
    writeln!(
        out,
        "a small change:      full {} bytes, ours {}, zstd --patch-from {}",
        sizes.full, sizes.ours, sizes.peer
    )?;
    let delta_ratio = sizes.ours as f64 / sizes.peer as f64;
    writeln!(out, "                     ours / patch-from = {delta_ratio:.2} (target: at most 1.2)")?;

    // What making the delta took is not what staging takes.
    fs::write("/proc/self/clear_refs", "5")?;
    let speed = large_bundle(&root.path().join("bundle"), bundle_files, rounds)?;
    writeln!(out, "a bundle of {} MB:", speed.bundle_bytes / 1_000_000)?;
    writeln!(out, "  ours: verify, unpack, to disk        {:>8.0} ms, memory {:.0} MB", speed.ours_ms, speed.rss_mb)?;
    writeln!(out, "  sha256sum; zstd -d | tar x; sync -f  {:>8.0} ms", speed.peer_ms)?;
    writeln!(out, "  throughput ours / theirs = {:.2} (target: at least 0.9)", speed.ratio)?;

    let round = |figure: f64| (figure * 100.0).round() / 100.0;
    let figures = serde_json::json!({
        "delta_bytes": sizes.ours, "patch_from_bytes": sizes.peer, "full_bytes": sizes.full,
        "delta_ratio": round(delta_ratio), "bundle_bytes": speed.bundle_bytes, "unpack_ms": speed.ours_ms.round(),
        "peer_ms": speed.peer_ms.round(), "throughput_ratio": round(speed.ratio), "rss_mb": round(speed.rss_mb),
    });
    writeln!(out, "{figures}")?;
    Ok(())
}

struct Sizes {
    full: u64,
    ours: u64,
    peer: u64,
}

/// Two builds that differ a little, and what leads from one to the other.
fn small_change(dir: &Path, files: usize) -> anyhow::Result<Sizes> {
    let (feed, before, after) = (dir.join("feed"), dir.join("before"), dir.join("after"));
    fs::create_dir_all(&feed)?;
    grow(&before, files, 0)?;
    grow(&after, files, CHANGED_ONE_IN)?;
    let archives = [publish(&before, 1, &feed)?, publish(&after, 2, &feed)?].map(|release| archive(&release));
    let ours = dir.join("ours.delta");
    delta::make(&archives[0], &archives[1], &ours)?;
    let tars = [dir.join("1.tar"), dir.join("2.tar")];
    for (archive, tar) in archives.iter().zip(&tars) {
        run(Command::new("zstd").args(["-q", "-d"]).arg(archive).arg("-o").arg(tar))?;
    }
    let peer = dir.join("peer.zst");
    let level = format!("-{}", delta::LEVEL);
    let patch = format!("--patch-from={}", tars[0].display());
    run(Command::new("zstd").args(["-q", &level, "--long=31", &patch]).arg(&tars[1]).arg("-o").arg(&peer))?;
    let size = |path: &Path| fs::metadata(path).map(|meta| meta.len());
    let sizes = Sizes { full: size(&archives[1])?, ours: size(&ours)?, peer: size(&peer)? };
    fs::remove_dir_all(dir)?;
    Ok(sizes)
}

struct Speed {
    bundle_bytes: u64,
    ours_ms: f64,
    peer_ms: f64,
    ratio: f64,
    rss_mb: f64,
}

/// The same bundle brought in by us and by three programs, in turn.
fn large_bundle(dir: &Path, files: usize, rounds: usize) -> anyhow::Result<Speed> {
    let (feed, tree) = (dir.join("feed"), dir.join("tree"));
    fs::create_dir_all(&feed)?;
    grow(&tree, files, 0)?;
    let release = publish(&tree, 1, &feed)?;
    fs::remove_dir_all(&tree)?;
    let bundle = archive(&release);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    let feed = Feed::Dir(DirFeed::new(feed));
    let (mut ours, mut peers, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let into = dir.join(format!("ours-{round}"));
        run(Command::new("sync").arg("-f").arg(dir))?;
        let begun = Instant::now();
        runtime.block_on(feed.stage(&release, &into, Arc::new(Silent)))?;
        ours.push(begun.elapsed().as_secs_f64() * 1e3);
        fs::remove_dir_all(&into)?;

        let into = dir.join(format!("peer-{round}"));
        fs::create_dir(&into)?;
        run(Command::new("sync").arg("-f").arg(dir))?;
        let begun = Instant::now();
        run(Command::new("sha256sum").arg(&bundle).stdout(std::process::Stdio::null()))?;
        let pipe = "zstd -q -d -c \"$0\" | tar -x -C \"$1\"";
        run(Command::new("sh").args(["-c", pipe]).arg(&bundle).arg(&into))?;
        run(Command::new("sync").arg("-f").arg(dir))?;
        peers.push(begun.elapsed().as_secs_f64() * 1e3);
        fs::remove_dir_all(&into)?;
        ratios.push(peers[round] / ours[round]);
    }
    let bundle_bytes = fs::metadata(&bundle)?.len();
    let (ours_ms, peer_ms, ratio) = (median(ours), median(peers), median(ratios));
    Ok(Speed { bundle_bytes, ours_ms, peer_ms, ratio, rss_mb: peak_rss_mb()? })
}

/// A tree of many files that compress a little, the same every time; `changed_one_in` of them with a few other bytes.
fn grow(tree: &Path, files: usize, changed_one_in: usize) -> anyhow::Result<()> {
    let mut dice = Dice(7);
    for number in 0..files {
        let dir = tree.join(format!("lib/{:03}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        // Seven bytes of chance, one that repeats: as incompressible as a tree of images and packed libraries.
        let mut bytes: Vec<u8> = (0..FILE_BYTES / 8)
            .flat_map(|_| {
                let word = dice.roll(1 << 31) << 31 | dice.roll(1 << 31);
                let mut bytes = word.to_le_bytes();
                bytes[7] = 7;
                bytes
            })
            .collect();
        if changed_one_in > 0 && number % changed_one_in == 0 {
            bytes.splice(1_000..1_016, *b"a changed line of the program");
        }
        fs::write(dir.join(format!("{number}.so")), bytes)?;
    }
    Ok(())
}

fn publish(tree: &Path, build: u64, feed: &Path) -> anyhow::Result<Release> {
    let id = ReleaseId { version: format!("{build}.0").parse()?, build };
    Ok(pack(tree, &PackMeta::new(id), feed)?)
}

fn archive(release: &Release) -> PathBuf {
    release.location.join(&release.archives[0].file)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().map_err(|error| anyhow::anyhow!("{command:?} cannot be run: {error}"))?;
    anyhow::ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The most memory this process had since that was forgotten last.
fn peak_rss_mb() -> anyhow::Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.ok_or_else(|| anyhow::anyhow!("/proc/self/status names no VmHWM"))? / 1024.0)
}
