//! The processes of the demo: the daemon, the workstations, and the application that the daemon runs.
//!
//! All of them carry a mark in their environment, and so does whatever they start. They are ended in
//! order, workstations first; what is still there then is found by its mark and ended by force.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fs_err as fs;
use rustix::process::Pid;
use rustix::process::PidfdFlags;
use rustix::process::Signal;
use tokio::process::Child;
use tokio::process::Command;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::cli::demo::stage::PROBE;
use crate::cli::demo::stage::Stage;
use crate::cli::exit::CliError;
use crate::client::api::Client;
use crate::daemon::alone;
use crate::domain::session::Answer;
use crate::sample::Login;
use crate::sample::desk::Entered;
use crate::sample::desk::Till;
use crate::sample::desk::read_ledger;

/// In the environment of every process of a demo.
const MARK: &str = "AFTERHOURS_DEMO";
/// What of our own environment must not reach them.
const NOT_INHERITED: [&str; 3] = ["AFTERHOURS_CONFIG", "AFTERHOURS_SOCKET", "AFTERHOURS_LOG"];
/// How often something is looked at that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a workstation may take to end; its program has ten seconds of that.
const STATION_END_MAX: Duration = Duration::from_secs(15);
/// How long the daemon may take to end.
const DAEMON_END_MAX: Duration = Duration::from_secs(45);

/// Everybody.
#[derive(Debug)]
pub(super) struct Crew {
    mark: String,
    binary: PathBuf,
    dir: PathBuf,
    socket: PathBuf,
    program: PathBuf,
    daemon: Option<Child>,
    stations: Vec<Station>,
}

#[derive(Debug)]
struct Station {
    who: String,
    child: Child,
}

/// How the processes ended.
#[derive(Debug, Default)]
pub(super) struct Dismissed {
    /// What had to be ended by force, or could not be ended.
    pub(super) trouble: Vec<String>,
}

impl Crew {
    pub(super) fn new(stage: &Stage) -> Result<Self, CliError> {
        Ok(Self {
            mark: format!("{MARK}={}", uuid::Uuid::now_v7()),
            binary: stage.binary().to_owned(),
            dir: stage.dir().to_owned(),
            socket: stage.socket(),
            program: stage.program(),
            daemon: None,
            stations: Vec::new(),
        })
    }

    /// One of us, with a log of its own and in a process group of its own: Ctrl-C is for us to pass on.
    fn start(&self, args: Vec<String>, log: PathBuf) -> Result<Child, CliError> {
        let open = || -> std::io::Result<(Stdio, Stdio)> {
            let file = fs::OpenOptions::new().create(true).append(true).open(log)?;
            let other = file.try_clone()?;
            Ok((Stdio::from(file.into_file()), Stdio::from(other.into_file())))
        };
        let (stdout, stderr) = open().map_err(|error| CliError::failed("open a log of the demo", &error))?;
        let mut command = Command::new(&self.binary);
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        let (name, value) = self.mark.split_once('=').unwrap_or((MARK, ""));
        command
            .args(args)
            .env(name, value)
            .env("TMPDIR", self.dir.join("tmp"))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true);
        command.spawn().map_err(|error| CliError::failed("start this program once more", &error))
    }

    /// Starts the daemon and waits until it answers.
    pub(super) async fn start_daemon(
        &mut self,
        stage: &Stage,
        client: &Client,
        within: Duration,
    ) -> Result<(), CliError> {
        let args = vec!["serve".to_owned(), "--config".to_owned(), text(stage.config())];
        let mut daemon = self.start(args, stage.daemon_log())?;
        let until = Instant::now() + within;
        let answers = loop {
            match client.status().await {
                Ok(_) => break Ok(()),
                Err(error) if Instant::now() >= until => break Err(error.into()),
                Err(_) => {}
            }
            if let Ok(Some(status)) = daemon.try_wait() {
                break Err(late(format!("start the daemon: it ended with {status}")));
            }
            sleep(LOOK_EVERY).await;
        };
        self.daemon = Some(daemon);
        answers
    }

    fn station_args(&self, who: &str, answer: Answer) -> Vec<String> {
        let answer = match answer {
            Answer::Ok => "ok",
            Answer::NotNow => "not-now",
            Answer::RestartAfterwards => "restart",
        };
        let files = self.dir.join("workstations");
        let client = ["client", "run", "--app", "orders", "--user", who, "--answer", answer, "--socket"];
        let desk = ["desk", "--user", who, "--password-file"];
        let mut args: Vec<String> = client.map(str::to_owned).to_vec();
        args.extend([text(self.socket.clone()), "--".to_owned(), text(self.program.clone())]);
        args.extend(desk.map(str::to_owned));
        args.extend([text(files.join(format!("{who}.password"))), "--ledger".to_owned()]);
        args.push(text(files.join(format!("{who}.ledger"))));
        args
    }

    /// Somebody sits down at a workstation.
    pub(super) fn start_station(&mut self, who: &str, answer: Answer) -> Result<(), CliError> {
        self.stations.retain(|station| station.who != who);
        let log = self.dir.join("log").join(format!("{who}.log"));
        let child = self.start(self.station_args(who, answer), log)?;
        self.stations.push(Station { who: who.to_owned(), child });
        Ok(())
    }

    /// Somebody tries to sit down while nobody may; the child's exit code tells how that went.
    pub(super) fn try_station(&self, who: &str, stage: &Stage) -> Result<Child, CliError> {
        self.start(self.station_args(who, Answer::Ok), stage.log_of(who))
    }

    /// Whether somebody's workstation has ended, and with which code.
    pub(super) fn ended(&mut self, who: &str) -> Option<i32> {
        let station = self.stations.iter_mut().find(|station| station.who == who)?;
        station.child.try_wait().ok()??.code()
    }

    /// Waits until the application answers as `version`.
    pub(super) async fn wait_for_version(
        &self,
        stage: &Stage,
        version: &str,
        within: Duration,
    ) -> Result<(), CliError> {
        let till = probe_till(stage)?;
        let until = Instant::now() + within;
        while till.about().await.map_or(true, |about| about.version != version) {
            if Instant::now() >= until {
                return Err(late(format!("see Order desk {version} answer")));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until everybody whose workstation runs has entered `more` orders from now.
    pub(super) async fn wait_for_orders(&self, stage: &Stage, more: usize, within: Duration) -> Result<(), CliError> {
        let until = Instant::now() + within;
        for Station { who, .. } in &self.stations {
            tokio::time::timeout_at(until, self.wait_for_orders_of(who, stage, more)).await.map_err(|_| {
                let log = fs::read_to_string(stage.log_of(who)).unwrap_or_default();
                late(format!("see {who} enter orders")).hint(log)
            })??;
        }
        Ok(())
    }

    /// Waits until somebody has entered `more` orders from now.
    pub(super) async fn wait_for_orders_of(&self, who: &str, stage: &Stage, more: usize) -> Result<(), CliError> {
        let goal = entered(stage, who)?.len() + more;
        while entered(stage, who)?.len() < goal {
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Ends the workstations politely: each finishes the order it is at.
    pub(super) async fn end_stations(&mut self) -> Vec<String> {
        let mut trouble = Vec::new();
        for station in &self.stations {
            ask_to_end(&station.child);
        }
        for mut station in std::mem::take(&mut self.stations) {
            if !end(&mut station.child, STATION_END_MAX).await {
                trouble.push(format!("the workstation of {} did not end", station.who));
            }
        }
        trouble
    }

    /// Ends everybody in order.
    pub(super) async fn dismiss(mut self, stage: &Stage) -> Dismissed {
        let mut trouble = self.end_stations().await;
        if let Some(mut daemon) = self.daemon.take() {
            ask_to_end(&daemon);
            if !end(&mut daemon, DAEMON_END_MAX).await {
                trouble.push("the daemon did not end".to_owned());
            }
            let stopped = match stage.settings() {
                Ok(settings) => alone::stop_services(settings).await.map_err(|error| format!("{error:#}")),
                Err(error) => Err(error.view().message.clone()),
            };
            trouble.extend(stopped.err());
        }
        trouble.extend(self.sweep().into_iter().map(|left| format!("{left} had to be ended by force")));
        // The last of them may still be on its way out of its directory.
        let until = Instant::now() + STATION_END_MAX;
        while !self.marked().is_empty() && Instant::now() < until {
            sleep(LOOK_EVERY).await;
        }
        Dismissed { trouble }
    }

    /// Ends by force what still carries the mark; tells what that was.
    fn sweep(&self) -> Vec<String> {
        let mut ended = Vec::new();
        for pid in self.marked() {
            // Through the descriptor it is one and the same process that is looked at and ended.
            let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
            if !self.has_mark(pid) {
                continue;
            }
            let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if rustix::process::pidfd_send_signal(&process, Signal::KILL).is_ok() {
                ended.push(line.trim().to_owned());
            }
        }
        ended
    }

    fn marked(&self) -> Vec<Pid> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(Pid::from_raw).filter(|pid| self.has_mark(*pid)).collect()
    }

    /// Processes that have ended, and those of others, have no environment to be read.
    fn has_mark(&self, pid: Pid) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == self.mark.as_bytes())
    }
}

impl Drop for Crew {
    /// Also when something of ours panics, nobody is left.
    fn drop(&mut self) {
        self.sweep();
    }
}

/// Whoever is gone already need not be asked.
fn ask_to_end(child: &Child) {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let _ = pid.map(|pid| rustix::process::kill_process(pid, Signal::TERM));
}

/// Waits for its end, and ends it by force in the end; whether it went by itself.
async fn end(child: &mut Child, within: Duration) -> bool {
    let by_itself = matches!(timeout(within, child.wait()).await, Ok(Ok(_)));
    if !by_itself {
        // Whatever can be done about it is done by the sweep.
        let _ = child.kill().await;
    }
    by_itself
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

/// Something did not happen in time.
fn late(what: String) -> CliError {
    CliError::failed(what, &Late)
}

#[derive(Debug, thiserror::Error)]
#[error("it took too long, or will never be")]
struct Late;

/// Looks at the application as somebody who may.
pub(super) fn probe_till(stage: &Stage) -> Result<Till, CliError> {
    let login = Login { name: PROBE.to_owned(), password: PROBE.to_owned() };
    Till::new(stage.server(), login).map_err(|error| CliError::failed("look at Order desk", &error))
}

/// What somebody's workstation says was confirmed.
pub(super) fn entered(stage: &Stage, who: &str) -> Result<Vec<Entered>, CliError> {
    read_ledger(&stage.ledger(who)).map_err(|error| CliError::failed(format!("read the ledger of {who}"), &error))
}
