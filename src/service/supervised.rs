//! An application that this daemon runs itself.
//!
//! ```text
//! start   lock · intent {wanted, token} · run in a session of its own · record {main process}
//! stop    lock · intent {not wanted} · TERM all · wait · KILL all · seen gone
//! daemon  every POLL: wanted and gone? end what is left of it, wait 1 s, 2 s, … 1 min, start
//! ```
//!
//! The application outlives us: it has its own session, its output goes to a file, and whoever
//! comes after us adopts it by what is written in `supervised.json` (see `state.rs`). Which
//! processes are its own is told in `tree.rs`.
//!
//! Invariants: nothing is started or ended without the lock; what is not wanted is never started;
//! a process is signalled only after it was identified.
//!
//! Deliberately absent: becoming the reaper of its orphans (they are found without that), and ending
//! the application when the daemon stops.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use rustix::fs::Access;
use rustix::process::Signal;
use tokio::process::Child;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::command::Command;
use crate::domain::failure::Exhibit;
use crate::domain::finding::Finding;
use crate::domain::name::AppName;
use crate::exec;
use crate::exec::permit;
use crate::exec::permit::Refusal;
use crate::exec::permit::find_program;
use crate::exec::system;
use crate::service::ServiceStatus;
use crate::service::app_log::AppLog;
use crate::service::error::ServiceError;
use crate::service::limits::Limits;
use crate::service::limits::Pace;
use crate::service::restarts::Restarts;
use crate::service::state::Lock;
use crate::service::state::State;
use crate::service::state::StateDir;
use crate::service::state::blocking;
use crate::service::tree;
use crate::service::tree::Identity;
use crate::service::tree::MARK;

/// How often the daemon looks whether it still runs.
const POLL: Duration = Duration::from_millis(500);
/// How often the process table is read while processes end.
const TABLE_EVERY: Duration = Duration::from_millis(50);
/// The most that is kept of the deadline for the time after KILL.
const KILL_WAIT_MAX: Duration = Duration::from_secs(5);
/// How many lines of its log are told when the new version does not work.
const LAST_LINES: usize = 3;
/// Gives a program its own session without changing its process number; part of util-linux.
const SETSID: &str = "/usr/bin/setsid";

/// An application that this daemon runs itself.
#[derive(Debug)]
pub struct Supervised {
    app: AppName,
    run: Command,
    install_dir: PathBuf,
    state_dir: StateDir,
    log: AppLog,
    limits: Limits,
    /// The main process while it is our own child; an adopted one is nobody's.
    child: Mutex<Option<Child>>,
}

/// What the daemon's look found.
enum Look {
    Fine(Identity),
    NotWanted,
    Gone,
}

impl Supervised {
    pub(crate) fn new(app: &AppName, run: &Command, install_dir: &Path, state_dir: &Path, limits: Limits) -> Self {
        Self {
            app: app.clone(),
            run: run.clone(),
            install_dir: install_dir.to_owned(),
            state_dir: StateDir::new(state_dir),
            log: AppLog::new(state_dir),
            limits,
            child: Mutex::new(None),
        }
    }

    pub(crate) async fn start(&self, env: &BTreeMap<String, String>) -> Result<(), ServiceError> {
        let until = self.limits.until();
        let _lock = self.lock(until).await?;
        let mut state = self.state_dir.load().await?;
        // One that is not wanted was being stopped when somebody died: what is left of it is on its way down.
        if let Some(main) = self.running(&state).await?.filter(|_| state.wanted) {
            if state.main == Some(main) {
                return Ok(());
            }
            state.main = Some(main);
            return self.state_dir.record(&state).await;
        }
        self.must_exist()?;
        state.env = env.clone();
        let started = self.bring_up(&mut state, until).await;
        if matches!(
            started,
            Err(ServiceError::EndedAtOnce { .. } | ServiceError::Spawn { .. } | ServiceError::Refused { .. })
        ) {
            // It cannot be run; trying on is for the caller to decide.
            state.wanted = false;
            self.state_dir.save(&state).await?;
        }
        started
    }

    pub(crate) async fn stop(&self) -> Result<(), ServiceError> {
        let until = self.limits.until();
        let _lock = self.lock(until).await?;
        let mut state = self.state_dir.load().await?;
        if state.wanted {
            state.wanted = false;
            self.state_dir.save(&state).await?;
        }
        // Who is gone needs no record: a process is known by more than its number.
        self.end(&state, until).await?;
        self.limits.port_closed(until).await
    }

    pub(crate) async fn status(&self) -> Result<ServiceStatus, ServiceError> {
        let state = self.state_dir.load().await?;
        if let Some(main) = self.running(&state).await? {
            return Ok(ServiceStatus::Running { pid: Some(main.pid.cast_unsigned()) });
        }
        let left = self.members(&state, Vec::new()).await?;
        Ok(match (state.wanted, left.as_slice()) {
            (true, _) => ServiceStatus::Failed("it ended by itself and is about to be restarted".to_owned()),
            (false, []) => ServiceStatus::Stopped,
            (false, left) => ServiceStatus::Failed(format!("it is stopped, but {}", names(left))),
        })
    }

    pub(crate) async fn is_down(&self) -> Result<bool, ServiceError> {
        let stopped = self.status().await? == ServiceStatus::Stopped;
        Ok(stopped && self.limits.port_closed(Instant::now()).await.is_ok())
    }

    pub(crate) async fn exhibits(&self) -> Vec<Exhibit> {
        self.log.exhibit().await.into_iter().collect()
    }

    pub(crate) async fn last_words(&self) -> Option<String> {
        self.log.last_lines(LAST_LINES).await
    }

    pub(crate) async fn check(&self) -> Vec<Finding> {
        let mut findings = vec![match self.must_exist() {
            Ok(()) => Finding::good("service_program", "the program exists and is executable"),
            Err(error) => error.finding("service_program"),
        }];
        let log = self.log.path().to_owned();
        // What is not there yet is made by the first start, in the folder that is.
        let writable = blocking({
            let log = log.clone();
            move || match log.ancestors().find(|folder| folder.is_dir()) {
                Some(folder) => rustix::fs::access(folder, Access::WRITE_OK).map_err(io::Error::from),
                None => Err(io::ErrorKind::NotFound.into()),
            }
        });
        findings.push(match writable.await {
            Ok(()) => Finding::good("service_state", "its state and log can be written"),
            Err(source) => ServiceError::File { call: "write", path: log, source }.finding("service_state"),
        });
        findings.push(match self.status().await {
            Ok(ServiceStatus::Running { .. }) => Finding::good("service_status", "the application runs"),
            Ok(ServiceStatus::Stopped) => Finding::good("service_status", "the application is stopped"),
            Ok(ServiceStatus::Failed(text)) => {
                Finding::warning("service_status", text, format!("see why: tail {}", self.log.path().display()))
            }
            Err(error) => error.finding("service_status"),
        });
        findings
    }

    /// While the file exists, the application is not restarted by itself.
    pub(crate) async fn set_hold(&self, hold: Option<&Path>) -> Result<(), ServiceError> {
        let _lock = self.lock(self.limits.until()).await?;
        let mut state = self.state_dir.load().await?;
        if state.hold.as_deref() == hold {
            return Ok(());
        }
        state.hold = hold.map(Path::to_owned);
        self.state_dir.save(&state).await
    }

    /// Brings it back whenever it ended by itself, until `shutdown`.
    pub(crate) async fn supervise(&self, shutdown: CancellationToken) {
        self.start_for_the_first_time().await;
        let mut restarts = Restarts::default();
        while shutdown.run_until_cancelled(self.watch(&mut restarts)).await.is_some() {
            if shutdown.run_until_cancelled(tokio::time::sleep(POLL)).await.is_none() {
                return;
            }
        }
    }

    /// We are its supervisor: one that was never started nor stopped by us is started.
    async fn start_for_the_first_time(&self) {
        if self.state_dir.is_new().await
            && let Err(error) = self.start(&BTreeMap::new()).await
        {
            tracing::error!(app = %self.app, error = &error as &dyn std::error::Error, "cannot start the application");
        }
    }

    /// One look of the daemon, and a restart if it is time for one. Errors end here: the next look comes.
    async fn watch(&self, restarts: &mut Restarts) {
        if let Err(error) = self.log.trim().await {
            tracing::warn!(app = %self.app, error = &error as &dyn std::error::Error, "cannot move the log aside");
        }
        let now = Instant::now();
        match self.look().await {
            Ok(Look::Fine(main)) => restarts.runs(main, now),
            Ok(Look::NotWanted) => restarts.rests(),
            Ok(Look::Gone) if restarts.due(now) => match self.revive().await {
                Ok(true) => tracing::info!(app = %self.app, "restarted the application, which had ended by itself"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(app = %self.app, error = &error as &dyn std::error::Error, "cannot restart the application");
                }
            },
            Ok(Look::Gone) => {}
            Err(error) => {
                tracing::error!(app = %self.app, error = &error as &dyn std::error::Error, "cannot look after the application");
            }
        }
    }

    async fn look(&self) -> Result<Look, ServiceError> {
        let state = self.state_dir.load().await?;
        self.reap();
        if !state.wanted || state.hold.as_deref().is_some_and(Path::exists) {
            return Ok(Look::NotWanted);
        }
        Ok(self.running(&state).await?.map_or(Look::Gone, Look::Fine))
    }

    /// Starts it once more, unless somebody is at it or decided otherwise meanwhile.
    async fn revive(&self) -> Result<bool, ServiceError> {
        let Some(_lock) = self.state_dir.try_lock().await? else { return Ok(false) };
        if !matches!(self.look().await?, Look::Gone) {
            return Ok(false);
        }
        let mut state = self.state_dir.load().await?;
        self.bring_up(&mut state, self.limits.until()).await.map(|()| true)
    }

    /// From whatever is left of it to a recorded main process. Needs the lock.
    async fn bring_up(&self, state: &mut State, until: Instant) -> Result<(), ServiceError> {
        self.end(state, until).await?;
        state.wanted = true;
        state.main = None;
        self.state_dir.save(state).await?;
        let main = self.launch(state, until).await?;
        state.main = Some(main);
        self.state_dir.record(state).await
    }

    /// Runs the program in a session of its own and waits until it is that program.
    async fn launch(&self, state: &State, until: Instant) -> Result<Identity, ServiceError> {
        let program = self.run.program().to_owned();
        let (run, dir) = (self.run.clone(), self.install_dir.clone());
        let permitted = blocking(move || Ok(permit::permit(&run, &dir))).await;
        let permit = permitted.map_err(|source| ServiceError::Spawn { program: program.clone(), source })?.map_err(
            |refusal| match refusal {
                Refusal::Absent { source } => ServiceError::Spawn { program: program.clone(), source },
                source => ServiceError::Refused { program: program.clone(), source },
            },
        )?;
        let (log, from) = self.log.open().await?;
        let bad = |source| ServiceError::Spawn { program: program.clone(), source };
        let found = permit.program.as_ref().map(|program| program.to_string_lossy().into_owned());
        let argv: Vec<String> = [found.unwrap_or_else(|| program.clone())]
            .into_iter()
            .chain(self.run.argv.iter().skip(1).cloned())
            .collect();
        let mut command = tokio::process::Command::new(SETSID);
        command
            .args(&argv)
            .current_dir(&permit.dir)
            .env_clear()
            .envs(&state.env)
            .envs(&permit.env)
            .env(MARK, &state.token)
            .stdin(Stdio::null())
            .stdout(Stdio::from(log.try_clone().map_err(bad)?))
            .stderr(Stdio::from(log));
        system::hand_over_outputs(command.as_std_mut(), &permit.account);
        system::become_user(command.as_std_mut(), &permit.account);
        system::with_first_limit(command.as_std_mut());
        let mut child = command.spawn().map_err(bad)?;
        let pid = child.id().unwrap_or_default();
        let before = [SETSID].into_iter().chain(argv.iter().map(String::as_str));
        let before: Vec<u8> = before.flat_map(|arg| arg.bytes().chain([0])).collect();
        let mut pace = Pace::default();
        loop {
            if child.try_wait().map_err(bad)?.is_some() {
                return Err(ServiceError::EndedAtOnce { what: program, last: self.log.last_line(from).await });
            }
            let is_it = tree::command_line(pid).is_ok_and(|line| !line.is_empty() && line != before);
            if let Some(main) = Identity::of(pid).filter(|main| is_it && main.leads_session()) {
                *self.child() = Some(child);
                return Ok(main);
            }
            if Instant::now() >= until {
                let _ = child.kill().await;
                return Err(self.limits.overdue(format!("start {program}"), "it never became that program"));
            }
            pace.pause().await;
        }
    }

    /// Ends every process of it: TERM, wait, KILL, seen gone. Needs the lock.
    async fn end(&self, state: &State, until: Instant) -> Result<(), ServiceError> {
        let kill_at = until - KILL_WAIT_MAX.min(self.limits.deadline.duration() / 4);
        let mut asked = Vec::new();
        let mut left = Vec::new();
        let mut pace = Pace::default();
        loop {
            left = self.members(state, left).await?;
            self.reap();
            if left.is_empty() {
                return Ok(());
            }
            let now = Instant::now();
            if now >= until {
                return Err(self.limits.overdue(format!("stop {}", self.app), names(&left)));
            }
            // One that may not be signalled is still there at the deadline, and is named then.
            for process in &left {
                if now >= kill_at {
                    let _ = process.signal(Signal::KILL);
                } else if !asked.contains(process) {
                    let _ = process.signal(Signal::TERM);
                    // A stopped process sees the TERM only when it goes on.
                    let _ = process.signal(Signal::CONT);
                    asked.push(*process);
                }
            }
            // Looking at those that are known is cheap; the whole process table is read less often.
            let next = Instant::now() + TABLE_EVERY;
            while left.iter().any(|process| process.lives()) && Instant::now() < next {
                pace.pause().await;
                self.reap();
            }
        }
    }

    /// The main process if it lives; one that was started by us just before we died is found by its mark.
    async fn running(&self, state: &State) -> Result<Option<Identity>, ServiceError> {
        if let Some(main) = state.main {
            return Ok(Some(main).filter(|main| main.lives()));
        }
        if !state.wanted {
            return Ok(None);
        }
        Ok(self.members(state, Vec::new()).await?.into_iter().find(|process| process.leads_session()))
    }

    async fn members(&self, state: &State, known: Vec<Identity>) -> Result<Vec<Identity>, ServiceError> {
        let sought = state.sought();
        let found = blocking(move || tree::members(&sought, &known)).await;
        found.map_err(|source| ServiceError::File { call: "read", path: PathBuf::from("/proc"), source })
    }

    async fn lock(&self, until: Instant) -> Result<Lock, ServiceError> {
        let mut pace = Pace::default();
        loop {
            if let Some(lock) = self.state_dir.try_lock().await? {
                return Ok(lock);
            }
            if Instant::now() >= until {
                let left = "it is being started or stopped by somebody else";
                return Err(self.limits.overdue(format!("get hold of {}", self.app), left));
            }
            pace.pause().await;
        }
    }

    fn must_exist(&self) -> Result<(), ServiceError> {
        if !exec::is_there(SETSID) {
            return Err(ServiceError::NoProgram { program: SETSID.to_owned() });
        }
        if find_program(&self.run, &self.install_dir).is_none() {
            return Err(ServiceError::NoProgram { program: self.run.program().to_owned() });
        }
        Ok(())
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Takes note of our own child's end, so that it does not stay in the process table.
    fn reap(&self) {
        let mut child = self.child();
        if child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_some())) {
            *child = None;
        }
    }
}

/// For messages: which processes are left, at most five of them.
fn names(processes: &[Identity]) -> String {
    let pids: Vec<_> = processes.iter().take(5).map(|process| process.pid.to_string()).collect();
    let more = if processes.len() > pids.len() { ", …" } else { "" };
    match processes.len() {
        1 => format!("process {} is left", pids[0]),
        count => format!("{count} processes are left: {}{more}", pids.join(", ")),
    }
}
