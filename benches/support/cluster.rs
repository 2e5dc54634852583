//! A PostgreSQL cluster of its own, as an application that has to be stopped and started (Debian package postgresql).
//!
//! With the settings that it has by default, durable, with a hundred thousand rows, and written to until the stop: what a real
//! site stops at night is a server of this kind, and in most cases a slower one in front of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use tempfile::TempDir;

/// A running cluster; stopped when dropped.
pub(crate) struct Cluster {
    dir: TempDir,
    programs: PathBuf,
}

impl Cluster {
    /// Makes one and fills it.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let installed =
            fs::read_dir("/usr/lib/postgresql").context("PostgreSQL; install the Debian package postgresql")?;
        let newest =
            installed.flatten().map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max();
        let programs = newest.context("initdb; install the Debian package postgresql")?;
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let cluster = Self { dir, programs };
        let root = cluster.dir.path();
        if rustix::process::geteuid().is_root() {
            fs::set_permissions(root, fs::Permissions::from_mode(0o755))?;
            run(Command::new("chown").arg("postgres").arg(root))?;
        }
        run(cluster.program("initdb").args(["-A", "trust", "--no-locale", "-E", "UTF8", "-D"]).arg(cluster.data()))?;
        cluster.up()?;
        run(cluster.program("pgbench").args(["-i", "-q", "-s", "1"]).arg("-h").arg(root).arg("postgres"))?;
        Ok(cluster)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("main")
    }

    /// One of its programs, as somebody who is not root.
    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.dir.path());
        command
    }

    fn up(&self) -> anyhow::Result<()> {
        let options = format!("-c listen_addresses= -c unix_socket_directories={}", self.dir.path().display());
        let log = self.dir.path().join("log");
        run(self
            .program("pg_ctl")
            .args(["start", "-w", "-s", "-o", &options, "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(log))
    }

    fn down(&self) -> anyhow::Result<()> {
        run(self.program("pg_ctl").args(["stop", "-w", "-s", "-m", "fast", "-D"]).arg(self.data()))
    }

    /// Somebody works; then how long a stop and a start take, until it accepts connections again.
    pub(crate) fn stop_and_start(&self) -> anyhow::Result<Duration> {
        let host: &Path = self.dir.path();
        run(self.program("pgbench").args(["-n", "-t", "200", "-h"]).arg(host).arg("postgres"))?;
        let begin = Instant::now();
        self.down()?;
        self.up()?;
        Ok(begin.elapsed())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may be down already, where a start has failed.
        let _ = self.down();
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().with_context(|| format!("{command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
