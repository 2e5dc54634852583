//! The program at a workstation, as a process group of its own; at a terminal as a session with a terminal of its own
//! (see `screen.rs`), and then its group is all groups of that session.
//!
//! Ending it means TERM to the whole group, and KILL when the time is up. A shell takes no notice of TERM: where its
//! terminal is its own, it gets HUP as well, as from a terminal that is closed. It counts as ended by
//! order only when its group is empty, since a wrapper script often ends before the program
//! that it started. A program that ends by itself takes nobody with it.
//!
//! A program that wants to can say how it stands: it writes `{"unsaved": true, "last_activity":
//! "2026-11-21T20:00:00Z"}`, both optional, to the file named by `AFTERHOURS_STATUS_FILE`. It also
//! sees `AFTERHOURS_APP`.

use std::future::pending;
use std::io;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use chrono::DateTime;
use chrono::Utc;
use rustix::process::Pid;
use rustix::process::Signal;
use serde::Deserialize;
use tempfile::TempPath;
use tokio::io::AsyncReadExt;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::sleep_until;

use crate::domain::name::AppName;
use crate::exec::process::group_lives;
use crate::exec::process::groups_of_session;
use crate::exec::process::ignores;
use crate::exec::process::start_ticks;
use crate::exec::system::own_the_terminal;
use crate::wire::workstation::Process;

/// How long the rest of the group is given once its leader has ended.
const GROUP_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const GROUP_LOOK: Duration = Duration::from_millis(20);

/// How much of a program's status is read, in bytes.
const STATUS_BYTES_MAX: u64 = 4096;

/// What a program says of itself.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Status {
    /// Whether there is unsaved work.
    #[serde(default)]
    pub(super) unsaved: Option<bool>,
    /// Last sign of life from the user.
    #[serde(default)]
    pub(super) last_activity: Option<DateTime<Utc>>,
}

/// A program that was started.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    group: Option<Pid>,
    /// Whether its group leads a session of its own.
    leads: bool,
    /// Absent when it ended at once.
    pub(super) process: Option<Process>,
    /// Whether it was told to end.
    pub(super) ending: bool,
    force_at: Option<Instant>,
    /// Where it says how it stands; absent when there was no place for it.
    status_file: Option<TempPath>,
    /// Its exit code, once its leader has ended.
    code: Option<u8>,
    group_until: Option<Instant>,
}

impl Running {
    /// Starts it: at `terminal`, where there is one for it. Otherwise it gets what we have, but no input when a person
    /// answers us there.
    pub(super) fn start(
        argv: &[String],
        app: &AppName,
        terminal: Option<OwnedFd>,
        interactive: bool,
    ) -> io::Result<Self> {
        let (program, args) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(args).env("AFTERHOURS_APP", app.as_str());
        // What it would say is a courtesy; a full disk must not keep the program from starting.
        let status_file = tempfile::Builder::new().prefix("afterhours-").suffix(".json").tempfile().ok();
        let status_file = status_file.map(tempfile::NamedTempFile::into_temp_path);
        if let Some(path) = &status_file {
            command.env("AFTERHOURS_STATUS_FILE", path);
        }
        let leads = terminal.is_some();
        match terminal {
            Some(terminal) => {
                // An output that goes elsewhere goes on going there.
                if io::stdout().is_terminal() {
                    command.stdout(terminal.try_clone()?);
                }
                if io::stderr().is_terminal() {
                    command.stderr(terminal.try_clone()?);
                }
                command.stdin(terminal);
                own_the_terminal(command.as_std_mut());
            }
            None => {
                command.process_group(0);
                if interactive {
                    command.stdin(Stdio::null());
                }
            }
        }
        let child = command.spawn()?;
        let pid = child.id();
        Ok(Self {
            group: pid.and_then(|pid| Pid::from_raw(pid.cast_signed())),
            leads,
            process: pid.and_then(|pid| start_ticks(pid).map(|start_ticks| Process { pid, start_ticks })),
            child,
            status_file,
            ending: false,
            force_at: None,
            code: None,
            group_until: None,
        })
    }

    /// What it says of itself; `None` where it says nothing that can be read, or is just writing.
    pub(super) async fn status(&self) -> Option<Status> {
        let file = fs_err::tokio::File::open(self.status_file.as_ref()?).await.ok()?;
        let mut text = Vec::new();
        file.take(STATUS_BYTES_MAX).read_to_end(&mut text).await.ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Tells it to end; by force after `force_after`, where given.
    pub(super) fn end(&mut self, force_after: Option<Duration>) {
        if !std::mem::replace(&mut self.ending, true) && force_after != Some(Duration::ZERO) {
            self.signal(Signal::TERM);
        }
        if let Some(after) = force_after {
            let at = Instant::now() + after;
            self.force_at = Some(self.force_at.map_or(at, |before| before.min(at)));
        }
    }

    fn signal(&self, signal: Signal) {
        let Some(leader) = self.group else { return };
        let shell = self.leads && signal == Signal::TERM && ignores(leader, signal);
        for group in if self.leads { groups_of_session(leader) } else { vec![leader] } {
            // Nobody may be left; then there is nobody to signal.
            let _ = rustix::process::kill_process_group(group, signal);
        }
        if shell {
            let _ = rustix::process::kill_process_group(leader, Signal::HUP);
        }
    }

    fn group_is_empty(&self) -> bool {
        self.group
            .is_none_or(|leader| if self.leads { groups_of_session(leader).is_empty() } else { !group_lives(leader) })
    }

    /// Waits for its end; its exit code, or 128 and the signal. Cancel-safe.
    pub(super) async fn ended(&mut self) -> io::Result<u8> {
        loop {
            if let Some(code) = self.code {
                self.empty_group().await;
                return Ok(code);
            }
            let force_at = self.force_at;
            tokio::select! {
                status = self.child.wait() => {
                    self.code = Some(exit_code(status?));
                    self.group_until = Some(Instant::now() + GROUP_WAIT);
                }
                () = at(force_at) => {
                    self.force_at = None;
                    self.signal(Signal::KILL);
                }
            }
        }
    }

    /// Waits for the rest of the group, when it was told to end.
    async fn empty_group(&mut self) {
        while self.ending && !self.group_is_empty() {
            let now = Instant::now();
            if self.group_until.is_none_or(|until| until <= now) || self.force_at.is_some_and(|at| at <= now) {
                self.signal(Signal::KILL);
                return;
            }
            sleep(GROUP_LOOK).await;
        }
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

/// As a shell says it.
fn exit_code(status: std::process::ExitStatus) -> u8 {
    let signal = || std::os::unix::process::ExitStatusExt::signal(&status).map_or(1, |signal| 128 + signal);
    u8::try_from(status.code().unwrap_or_else(signal)).unwrap_or(u8::MAX)
}
