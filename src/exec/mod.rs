//! Runs a command of the administrator's or the vendor's: an argument list, a user, a deadline, a bounded
//! log, and the variables every hook sees.
//!
//! Such a command is a [`Command`], which says for which application it is; [`permit`] makes a user of that and refuses
//! what root must not run. There is no other way to run one: [`Exec::ours`] takes only names that stand in our code.
//!
//! The command leads a process group of its own. When its deadline passes or its future is
//! dropped, the whole group is ended: TERM, two seconds, KILL. A command that ends in time may
//! leave children behind, as a start script does; they are not touched. What outlives us because
//! we were killed is ended by [`leftover`].
//!
//! A command that leaves a server behind must not write into a pipe of ours: the server would be
//! killed by its first line after we have gone. [`Exec::log_to`] gives it a file instead.
//!
//! Invariant: no shell is ever involved, and no output is held beyond [`OUTPUT_BYTES_MAX`].

pub mod leftover;
pub mod openers;
mod output;
pub mod permit;
pub mod process;
pub mod system;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::domain::command::Command;
use crate::domain::foreign;
use crate::domain::span::Span;
use crate::exec::output::Log;
use crate::exec::output::Tail;
use crate::exec::permit::Permit;
use crate::exec::permit::Refusal;
use crate::files::account::Account;

/// How much of each of a command's two outputs is kept: its last bytes, where the error stands.
pub const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// A log of [`Exec::log_to`] that is larger than this before a command starts is emptied.
pub const LOG_BYTES_MAX: u64 = 1024 * 1024;
/// How long a command is given between TERM and KILL.
const TERM_WAIT: Duration = Duration::from_secs(2);

/// A command could not be run to a good end.
#[derive(Debug, Error)]
pub enum ExecError {
    /// It may not be run, because of the user it would run as.
    #[error("run {program}")]
    Refused {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: Box<Refusal>,
    },
    /// The program could not be started at all.
    #[error("run {program}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file that takes its output cannot be used.
    #[error("open {} for the output of {program}", .path.display())]
    Log {
        /// The program.
        program: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Waiting for it failed.
    #[error("wait for {program}")]
    Wait {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long and was ended.
    #[error("{program} did not end within {deadline}; it was ended")]
    Overdue {
        /// The program.
        program: String,
        /// The limit.
        deadline: Span,
        /// The last lines of both outputs, masked and bounded as in [`foreign`].
        said: Vec<String>,
    },
    /// It ended with an error.
    #[error("{program} ended with {status}{}", last(.said))]
    Failed {
        /// The program.
        program: String,
        /// How it ended, in words.
        status: String,
        /// The last lines of both outputs, masked and bounded as in [`foreign`].
        said: Vec<String>,
    },
}

impl ExecError {
    /// The last lines that the command wrote before it failed.
    pub fn said(&self) -> &[String] {
        match self {
            Self::Overdue { said, .. } | Self::Failed { said, .. } => said,
            Self::Refused { .. } | Self::Spawn { .. } | Self::Log { .. } | Self::Wait { .. } => &[],
        }
    }
}

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// The last [`OUTPUT_BYTES_MAX`] bytes of its output.
    pub stdout: String,
    /// The same as it came, where it is no text; nothing where a log takes it.
    pub stdout_bytes: Vec<u8>,
    /// The last [`OUTPUT_BYTES_MAX`] bytes of its error output.
    pub stderr: String,
}

/// A command that is about to be run.
#[derive(Debug, Clone)]
pub struct Exec {
    what: What,
    /// What stands for `{}` among the arguments.
    filling: Option<String>,
    env: BTreeMap<String, String>,
    /// Which of our variables it sees, by how their names begin.
    inherited: &'static [&'static str],
    dir: Option<PathBuf>,
    input: Option<Vec<u8>>,
    log: Option<PathBuf>,
    listener: Option<watch::Sender<String>>,
    deadline: Span,
}

impl Exec {
    /// Runs a command of the administrator's or the vendor's for at most `deadline`, as the user it is for. An empty
    /// list is a program that does not exist.
    pub fn of(command: &Command, deadline: Span) -> Self {
        Self::new(What::Theirs(command.clone()), deadline)
    }

    /// Runs a program of our own choosing, as the user of this process, for at most `deadline`.
    pub fn ours(program: &'static str, args: impl IntoIterator<Item: Into<String>>, deadline: Span) -> Self {
        let argv = [program.to_owned()].into_iter().chain(args.into_iter().map(Into::into)).collect();
        Self::new(What::Ours { argv }, deadline)
    }

    /// Runs another Afterhours, which has not run here yet, as `account`. Nothing that it starts outlives it.
    pub fn candidate(
        program: &Path,
        args: impl IntoIterator<Item: Into<String>>,
        account: &Account,
        deadline: Span,
    ) -> Self {
        let program = program.display().to_string();
        let argv = [program].into_iter().chain(args.into_iter().map(Into::into)).collect();
        Self::new(What::Candidate { argv, account: account.clone() }, deadline)
    }

    fn new(what: What, deadline: Span) -> Self {
        let env = BTreeMap::new();
        Self { what, filling: None, env, inherited: &[], dir: None, input: None, log: None, listener: None, deadline }
    }

    /// Lets it see those of our variables whose names begin so.
    #[must_use]
    pub fn inherit(mut self, prefixes: &'static [&'static str]) -> Self {
        self.inherited = prefixes;
        self
    }

    /// Gives it `bytes` as its standard input, which is a regular file; it is empty otherwise.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Puts `text` in the place of every `{}` among the arguments.
    #[must_use]
    pub fn fill(mut self, text: &str) -> Self {
        self.filling = Some(text.to_owned());
        self
    }

    /// Sets one variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl Into<String>) -> Self {
        self.env.insert(key.to_owned(), value.into());
        self
    }

    /// Sets several variables.
    #[must_use]
    pub fn envs(mut self, more: &BTreeMap<String, String>) -> Self {
        self.env.extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
        self
    }

    /// Sets the working directory; it is `/` otherwise.
    #[must_use]
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Appends both outputs to a file, which what the command leaves behind may go on writing to.
    /// [`Output::stdout`] is then what was appended, and [`Output::stderr`] is empty.
    #[must_use]
    pub fn log_to(mut self, file: impl AsRef<Path>) -> Self {
        self.log = Some(file.as_ref().to_owned());
        self
    }

    /// Tells a listener the newest line that it writes, masked and bounded as in [`foreign`].
    #[must_use]
    pub fn tell(mut self, listener: watch::Sender<String>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// The program's name, for messages.
    fn program(&self) -> String {
        self.what.argv().first().cloned().unwrap_or_default()
    }

    /// What is run, by whom it is allowed. Looking for users may take its time.
    async fn command(&self) -> Result<tokio::process::Command, ExecError> {
        let program = self.program();
        let dir = self.dir.clone().unwrap_or_else(|| PathBuf::from("/"));
        let (what, at) = (self.what.clone(), dir.clone());
        let permitted = tokio::task::spawn_blocking(move || what.permit(&at)).await;
        let permit = permitted
            .map_err(|source| ExecError::Spawn { program: program.clone(), source: source.into() })?
            .map_err(|refusal| match refusal {
                Refusal::Absent { source } => ExecError::Spawn { program: program.clone(), source },
                other => ExecError::Refused { program: program.clone(), source: Box::new(other) },
            })?;
        let path: OsString = permit.program.map_or_else(|| program.clone().into(), PathBuf::into_os_string);
        let mut command = tokio::process::Command::new(path);
        let filled = |arg: &String| self.filling.as_ref().map_or_else(|| arg.clone(), |text| arg.replace("{}", text));
        command
            .arg0(&program)
            .args(self.what.argv().iter().skip(1).map(filled))
            .current_dir(permit.dir)
            .env_clear()
            .envs(permit.env)
            .envs(self.handed_on())
            .envs(&self.env);
        if let Some(secret) = self.env.get(leftover::MARK) {
            command.env(leftover::MARK, leftover::mark_of(secret, permit.account.uid));
        }
        if let What::Ours { .. } = self.what {
            command.process_group(0);
        } else {
            system::leave_the_terminal(command.as_std_mut());
            system::hand_over_outputs(command.as_std_mut(), &permit.account);
            system::become_user(command.as_std_mut(), &permit.account);
        }
        Ok(command)
    }

    /// What it sees of our own variables.
    fn handed_on(&self) -> impl Iterator<Item = (OsString, OsString)> {
        let is_inherited = |key: &str| self.inherited.iter().any(|prefix| key.starts_with(prefix));
        std::env::vars_os().filter(move |(key, _)| key.to_str().is_some_and(is_inherited))
    }

    /// Runs it; any exit status is an answer.
    ///
    /// # Errors
    /// It cannot be started, or does not end in time.
    pub async fn output(self) -> Result<Output, ExecError> {
        let program = self.program();
        let mut command = self.command().await?;
        let input = self.input.as_deref().map_or_else(|| Ok(Stdio::null()), |bytes| fed(bytes).map(Stdio::from));
        let input = input.map_err(|source| ExecError::Spawn { program: program.clone(), source })?;
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let log = match &self.log {
            None => None,
            Some(path) => {
                let bad = |source| ExecError::Log { program: program.clone(), path: path.clone(), source };
                let log = Log::open(path).map_err(bad)?;
                command.stdout(log.writer().map_err(bad)?).stderr(log.writer().map_err(bad)?);
                Some(log)
            }
        };
        system::with_first_limit(command.as_std_mut());
        let mut child = command.spawn().map_err(|source| ExecError::Spawn { program: program.clone(), source })?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let (mut out, mut err) = (Tail::default(), Tail::default());
        let ended = timeout(self.deadline.duration(), async {
            // A grandchild that keeps the pipe open must not keep us: the outputs are read until the child ends.
            let status = {
                let reading = async {
                    tokio::join!(out.fill(stdout, self.listener.as_ref()), err.fill(stderr, self.listener.as_ref()));
                };
                tokio::pin!(reading);
                tokio::select! {
                    status = child.wait() => {
                        // What was written before the end is in the pipe already.
                        let _ = timeout(Duration::from_millis(100), &mut reading).await;
                        status
                    }
                    () = &mut reading => child.wait().await,
                }
            };
            let stdout = log.as_ref().map_or_else(|| out.text(), Log::appended);
            status.map(|status| Output { status, stdout, stdout_bytes: out.last().to_owned(), stderr: err.text() })
        })
        .await;
        match ended {
            Ok(Ok(output)) => {
                // Whoever is dropped is ended.
                if !matches!(self.what, What::Candidate { .. }) {
                    group.release();
                }
                Ok(output)
            }
            Ok(Err(source)) => Err(ExecError::Wait { program, source }),
            Err(_) => {
                group.signal(Signal::TERM);
                let _ = timeout(TERM_WAIT, child.wait()).await;
                drop(group);
                let stdout = log.as_ref().map_or_else(|| out.text(), Log::appended);
                Err(ExecError::Overdue { program, deadline: self.deadline, said: said(&stdout, &err.text()) })
            }
        }
    }

    /// Runs it; only exit status 0 is good.
    ///
    /// # Errors
    /// It cannot be started, does not end in time, or ends with another status.
    pub async fn run(self) -> Result<Output, ExecError> {
        let program = self.program();
        let output = self.output().await?;
        if output.status.success() { Ok(output) } else { Err(failed(program, &output)) }
    }
}

/// What is run.
#[derive(Debug, Clone)]
enum What {
    /// A command of the administrator's or the vendor's.
    Theirs(Command),
    /// A program of our own choosing.
    Ours { argv: Vec<String> },
    /// Another Afterhours, and whom it runs as.
    Candidate { argv: Vec<String>, account: Account },
}

impl What {
    fn argv(&self) -> &[String] {
        match self {
            Self::Theirs(command) => &command.argv,
            Self::Ours { argv } | Self::Candidate { argv, .. } => argv,
        }
    }

    fn permit(&self, dir: &Path) -> Result<Permit, Refusal> {
        match self {
            Self::Theirs(command) => permit::permit(command, dir),
            Self::Candidate { account, .. } => {
                let env = permit::base_env(account);
                Ok(Permit { account: account.clone(), program: None, dir: dir.to_owned(), env })
            }
            Self::Ours { .. } => {
                let account = Account::own();
                let env = permit::base_env(&account);
                Ok(Permit { account, program: None, dir: dir.to_owned(), env })
            }
        }
    }
}

/// The program of `command`, where it is absent or cannot be executed.
pub fn missing_program(command: &Command) -> Option<&str> {
    permit::find_program(command, Path::new("/")).is_none().then(|| command.program())
}

/// Whether a program of our own choosing is there.
pub fn is_there(program: &'static str) -> bool {
    permit::find_in(program, Path::new("/"), permit::PATH).is_some()
}

fn failed(program: String, output: &Output) -> ExecError {
    let status = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    };
    ExecError::Failed { program, status, said: said(&output.stdout, &output.stderr) }
}

/// The error output stands last: its last line is the one that explains most.
fn said(stdout: &str, stderr: &str) -> Vec<String> {
    foreign::last_lines(&format!("{stdout}\n{stderr}"))
}

fn last(said: &[String]) -> String {
    foreign::telling_line(&said.join("\n")).map(|line| format!(": {line}")).unwrap_or_default()
}

/// A file without a name that holds `bytes`, open at its beginning. A pipe would have to be filled while others are read, and
/// many a program wants to know how much there is.
fn fed(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("input", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// A process group that is ended when it goes out of scope.
struct Group(Option<Pid>);

impl Group {
    /// Lets what is left of the group live.
    fn release(mut self) {
        self.0 = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // It may have ended already; then there is nobody to signal.
            let _ = rustix::process::kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, deadline: Span) -> Exec {
        Exec::ours("sh", ["-c", script], deadline)
    }

    #[tokio::test]
    async fn tells_what_a_command_said_last() {
        let error = sh("echo first >&2; echo 'disk is on fire' >&2; exit 3", Span::secs(10)).run().await.unwrap_err();
        assert_eq!(error.to_string(), "sh ended with exit status 3: disk is on fire");
        assert_eq!(error.said(), ["first", "disk is on fire"]);
    }

    #[tokio::test]
    async fn tells_what_an_overdue_command_said_and_no_secret() {
        let script = "echo connecting to db://anna:hunter2@db; echo PASSWORD=hunter2 >&2; sleep 1000";
        let error = sh(script, Span::from(Duration::from_millis(500))).run().await.unwrap_err();
        assert_eq!(error.said(), ["connecting to db://***@db", "PASSWORD=***"]);
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[tokio::test]
    async fn a_hanging_command_is_ended_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
        let error = sh(&script, Span::from(Duration::from_millis(300))).run().await.unwrap_err();
        assert!(matches!(error, ExecError::Overdue { .. }), "{error}");
        let pid: i32 = fs_err::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let gone = || fs_err::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z"));
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while !gone() && std::time::Instant::now() < deadline {
            tokio::task::yield_now().await;
        }
        assert!(gone());
    }

    #[tokio::test]
    async fn a_daemonised_grandchild_does_not_keep_us_waiting() {
        let output = sh("sleep 1000 & echo $!", Span::secs(20)).run().await.unwrap();
        let pid = Pid::from_raw(output.stdout.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn what_is_left_behind_writes_on_into_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (log, go) = (dir.path().join("log"), dir.path().join("go"));
        let script =
            format!("echo started; (until test -e {}; do sleep 0.02; done; echo alive; echo again) &", go.display());
        let output = sh(&script, Span::secs(20)).log_to(&log).run().await.unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("started\n", ""));
        fs_err::write(&go, "").unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !fs_err::read_to_string(&log).unwrap().ends_with("alive\nagain\n") {
            assert!(std::time::Instant::now() < deadline, "the child of the command was ended by its own output");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_log_that_grew_too_large_is_emptied_and_an_error_quotes_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs_err::write(&log, vec![b'x'; usize::try_from(LOG_BYTES_MAX).unwrap() + 1]).unwrap();
        let error = sh("echo 'no licence' >&2; exit 4", Span::secs(20)).log_to(&log).run().await.unwrap_err();
        assert_eq!(error.to_string(), "sh ended with exit status 4: no licence");
        assert_eq!(fs_err::read_to_string(&log).unwrap(), "no licence\n");
    }

    #[tokio::test]
    async fn its_input_is_a_file_and_its_output_may_be_no_text() {
        let output = sh("stat -Lc %F,%s /dev/stdin; cat", Span::secs(20)).input(*b"\xff\x00\n").run().await.unwrap();
        assert_eq!(output.stdout_bytes, b"regular file,3\n\xff\x00\n");
        // More than a pipe holds, and nobody who reads it.
        let output = sh("echo done", Span::secs(20)).input(vec![0; 1_000_000]).run().await.unwrap();
        assert_eq!(output.stdout, "done\n");
    }

    #[tokio::test]
    async fn output_is_bounded() {
        let output = sh("yes | head -c 3000000", Span::secs(20)).run().await.unwrap();
        assert_eq!(output.stdout.len(), OUTPUT_BYTES_MAX);
    }
}
