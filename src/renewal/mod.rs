//! Afterhours replaces itself, before it updates anything else.
//!
//! ```text
//! step self_update   choose ─► stage beside the program ─► rehearse on a copy of the store ─► ask
//! the process        stop in order ─► record ─► copy the store ─► keep the program ─► caretaker ─► put ─► exec
//! the new one        record: begun ─► store opened and upgraded, API answers ─► confirmed ─► the run goes on
//!    or not          record: going back ─► put the old one ─► exec ─► put the store back ─► the run goes on
//! ```
//!
//! The process keeps its number, so that an init system sees no restart. Whoever begins reads the record first
//! ([`Renewal::begin`]) and does what the pure part (`decide`) says; so a crash at any point is gone on from by the next process, of the
//! old version or the new one. A new program that cannot even read the record is seen to by the [`caretaker`]: a process
//! of the old program that watches the new one come up and puts the old one back when it dies or takes too long.
//!
//! Only its makers vouch for an Afterhours ([`Renewal::root`]); feeds carry it. It rehearses as `nobody` ([`rehearsal`]).
//! Build numbers of Afterhours are those of its makers: the same in every feed that carries it.
//!
//! Invariants: no run is taken up, and no request answered, before the new program is confirmed; so a store that is put
//! back never loses anything. The program's file is a whole program at every moment. Everything here that changes
//! something happens under the record's lock.
//!
//! Deliberately absent: policy about *when* (a run's step asks), the store (its owner copies it and puts it back), and the
//! order in which a process stops (the composition root's).

pub mod caretaker;
mod decide;
mod error;
mod place;
mod record;
mod rehearsal;
mod trust;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;

use serde::Deserialize;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use crate::renewal::decide::Offer;
pub use crate::renewal::decide::Own;
pub use crate::renewal::decide::awaited;
pub use crate::renewal::decide::choose;
pub use crate::renewal::decide::next_anywhere;
pub use crate::renewal::decide::offered;
pub use crate::renewal::error::RenewalError;
pub use crate::renewal::record::Ended;
pub use crate::renewal::record::Ending;

use crate::config::settings::DaemonSettings;
use crate::domain::finding::Finding;
use crate::domain::name::AppName;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::domain::run::RunId;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::ExecError;
use crate::exec::process;
use crate::exec::system;
use crate::files::account::Account;
use crate::files::staged::state_dir;
use crate::files::trusted::required;
use crate::renewal::decide::InPlace;
use crate::renewal::decide::Next;
use crate::renewal::decide::next;
use crate::renewal::error::At;
use crate::renewal::record::Build;
use crate::renewal::record::Lock;
use crate::renewal::record::Pending;
use crate::renewal::record::Prover;
use crate::renewal::record::Record;
use crate::renewal::record::RecordDir;

/// The name under which builds of Afterhours that failed here are kept in the store; no application may have it.
pub const UPDATER: &str = "afterhours";
/// How much of what a stranger said is told.
const SAID_CHARS_MAX: usize = 80;

/// How this process was started, and so how another one is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file of the program.
    pub program: PathBuf,
    /// What it was started with, without its name; absent when it is no text.
    pub args: Option<Vec<String>>,
    /// The configuration, where one was named.
    pub config: Option<PathBuf>,
}

impl Origin {
    /// Of this process, which reads `config`.
    ///
    /// # Errors
    /// The system does not say which file this process runs.
    pub fn of_this_process(config: Option<&Path>) -> Result<Self, RenewalError> {
        let running = Path::new("/proc/self/exe");
        let program = std::fs::read_link(running).at("read", running)?;
        // It may have been replaced since it was started; what counts is its name.
        let program = match program.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
            Some(name) => PathBuf::from(name),
            None => program,
        };
        let args = std::env::args_os().skip(1).map(|arg| arg.into_string().ok()).collect();
        Ok(Self { program, args, config: config.map(Path::to_owned) })
    }
}

/// A program that is to run in the place of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relaunch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// It is no daemon: nobody else will start it again.
    pub alone: bool,
}

impl Relaunch {
    /// Runs it in the place of this process, which keeps its number. Returns only when that is not possible.
    pub fn in_our_place(self) -> RenewalError {
        let mut command = std::process::Command::new(&self.program);
        system::with_first_limit(&mut command);
        let source = command.args(&self.args).exec();
        RenewalError::Io { op: "run", path: self.program, source }
    }
}

/// A step's wish to go on under another program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The run that goes on afterwards.
    pub run: RunId,
    /// What is there now.
    pub from: Own,
    /// What is to come.
    pub to: ReleaseId,
    /// The new program, rehearsed.
    pub program: PathBuf,
}

/// What a process that begins finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// Nothing is under way.
    Plain,
    /// This is the new program: confirm it when it is up, or let it go back.
    Prove,
    /// The old program is back: put its store back from `copy`, then call [`Renewal::is_back`].
    PutStoreBack {
        /// The store as it was.
        copy: PathBuf,
    },
    /// Another program stands in the place of this one: run that.
    Relaunch(Relaunch),
}

/// What a program says at the end of a good rehearsal, as one JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// Its version.
    pub afterhours: Version,
    /// How many applications it found in the configuration.
    pub apps: usize,
}

/// The way from one Afterhours to the next.
#[derive(Debug)]
pub struct Renewal {
    origin: Origin,
    dir: RecordDir,
    on: bool,
    root: Option<PathBuf>,
    deadline: Span,
    turn: tokio::sync::Mutex<()>,
    wish: Mutex<Option<Wish>>,
    wished: CancellationToken,
}

impl Renewal {
    /// Of a daemon with these settings, started like this. Nothing is looked at yet.
    pub fn new(settings: &DaemonSettings, origin: Origin) -> Self {
        Self {
            origin,
            dir: RecordDir::from(settings.data_dir.as_path()),
            on: settings.self_update,
            root: settings.self_update_root.clone(),
            deadline: settings.self_update_deadline,
            turn: tokio::sync::Mutex::default(),
            wish: Mutex::new(None),
            wished: CancellationToken::new(),
        }
    }

    /// What this process was started with.
    pub fn args(&self) -> Vec<String> {
        self.origin.args.clone().unwrap_or_default()
    }

    /// Whether the administrator lets it.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Under which name the store keeps the builds that failed here.
    ///
    /// # Errors
    /// Never: the name is a good one.
    pub fn name() -> Result<AppName, crate::domain::name::BadName> {
        UPDATER.parse()
    }

    /// The kind of machine this program was built for, as in the names of archives.
    pub fn machine() -> String {
        let abi = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
        format!("{}-unknown-{}-{abi}", std::env::consts::ARCH, std::env::consts::OS)
    }

    /// What runs.
    ///
    /// # Errors
    /// The record or the program cannot be read.
    pub async fn own(&self) -> Result<Own, RenewalError> {
        let plain = env!("CARGO_PKG_VERSION")
            .parse()
            .map_err(|_| RenewalError::NoProgram { path: self.origin.program.clone() })?;
        match self.dir.load()?.installed {
            Some(Build { id, sha256 }) if sha256 == self.hash(self.origin.program.clone()).await? => {
                Ok(Own { version: id.version, build: Some(id.build) })
            }
            _ => Ok(Own { version: plain, build: None }),
        }
    }

    /// Why the program cannot be replaced by us, as a finding of the check of this name.
    pub async fn obstacle(&self, check: &str) -> Option<Finding> {
        if self.origin.args.is_none() {
            let text = "Afterhours cannot update itself: its command line is no text".to_owned();
            return Some(Finding::warning(check, text, "start it with names in UTF-8"));
        }
        place::obstacle(check, &self.origin.program).await
    }

    /// How the last renewal ended.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn last(&self) -> Result<Option<Ended>, RenewalError> {
        Ok(self.dir.load()?.last)
    }

    /// It is in the store how the last renewal ended.
    ///
    /// # Errors
    /// The record cannot be written.
    pub async fn is_noted(&self) -> Result<(), RenewalError> {
        let _lock = self.dir.lock().await?;
        let mut record = self.dir.load()?;
        if let Some(last) = &mut record.last {
            last.noted = true;
        }
        self.dir.save(&record)
    }

    /// Where the tree of a build is unpacked; builds other than this are removed.
    ///
    /// # Errors
    /// The folder beside the program cannot be made or cleaned.
    pub fn make_room(&self, build: u64) -> Result<PathBuf, RenewalError> {
        let tree = place::staged(&self.origin.program, build);
        let staged = tree.parent().unwrap_or(&tree);
        // Who can write beside the program can have root run another one.
        let beside = self.origin.program.parent().unwrap_or(staged);
        required(beside).map_err(std::io::Error::other).at("trust", beside)?;
        place::create_dir(staged)?;
        for entry in std::fs::read_dir(staged).at("read", staged)? {
            let path = entry.at("read", staged)?.path();
            if path != tree && path != state_dir(&tree) {
                place::remove_tree(&path)?;
            }
        }
        Ok(tree)
    }

    /// An empty directory for a rehearsal.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn stage_of_rehearsal(&self) -> Result<PathBuf, RenewalError> {
        rehearsal::stage(self.dir.data_dir(), &rehearsal::user())
    }

    /// Lets the program in `tree` do on the store in `dir` what it will have to do, as somebody who may do nothing else. The
    /// program. Nothing of `dir` is left.
    ///
    /// # Errors
    /// It does not, and why.
    pub async fn rehearse(
        &self,
        to: &ReleaseId,
        tree: &Path,
        dir: &Path,
        mark: (&str, String),
    ) -> Result<PathBuf, RenewalError> {
        let program = place::program_in(tree)?;
        let ran = self.rehearse_as(&rehearsal::user(), &program, dir, mark).await;
        // It may hold copies of everything.
        place::remove_tree(dir)?;
        let said = ran?.map_err(|source| RenewalError::Rehearsal { to: to.clone(), source })?;
        let Ok(rehearsed) = serde_json::from_str::<Rehearsed>(&said) else {
            let said = said.trim().chars().take(SAID_CHARS_MAX).collect();
            return Err(RenewalError::Stranger { to: to.clone(), said });
        };
        // What a release demands is compared with what this one is called.
        if rehearsed.afterhours != to.version {
            return Err(RenewalError::OtherVersion { to: to.clone(), is: rehearsed.afterhours });
        }
        Ok(program)
    }

    async fn rehearse_as(
        &self,
        account: &Account,
        program: &Path,
        dir: &Path,
        mark: (&str, String),
    ) -> Result<Result<String, ExecError>, RenewalError> {
        let (copy, config) = rehearsal::dress(dir, program, self.origin.config.as_deref(), account)?;
        let mut args = Vec::new();
        if let Some(config) = config {
            args.extend(["--config".to_owned(), config.display().to_string()]);
        }
        args.extend(["serve".to_owned(), "--rehearse".to_owned(), dir.display().to_string()]);
        let candidate = Exec::candidate(&copy, args, account, self.deadline);
        let ran = candidate.env("HOME", dir.display().to_string()).env(mark.0, mark.1).run().await;
        Ok(ran.map(|output| output.stdout))
    }

    /// Held by whoever brings a new program here; the steps of several runs may want to.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Asks this process to go on under another program. It will stop in order; the step only waits.
    pub fn wish_for(&self, wish: Wish) {
        *self.wish.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(wish);
        self.wished.cancel();
    }

    /// Waits until a step asks.
    pub async fn wished(&self) {
        self.wished.cancelled().await;
    }

    /// What a step asked for, if one did.
    pub fn wish(&self) -> Option<Wish> {
        self.wish.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Writes down what is about to be done.
    ///
    /// # Errors
    /// The record cannot be written, or a program cannot be read.
    pub async fn intend(&self, wish: &Wish, args: Vec<String>, alone: bool) -> Result<(), RenewalError> {
        let sha256 = self.hash(wish.program.clone()).await?;
        let _lock = self.dir.lock().await?;
        let mut record = self.dir.load()?;
        let pid = std::process::id();
        record.pending = Some(Pending {
            run: wish.run,
            from: wish.from.to_string(),
            to: Build { id: wish.to.clone(), sha256 },
            program: self.origin.program.clone(),
            kept: place::kept(&self.origin.program),
            args,
            alone,
            deadline: self.deadline,
            starts: 0,
            prover: process::start_ticks(pid).map(|start_ticks| Prover { pid, start_ticks }),
            unwatched: false,
            going_back: None,
        });
        self.dir.save(&record)
    }

    /// Where the store is copied to before the new program opens it.
    pub fn store_copy(&self) -> PathBuf {
        self.dir.store_copy()
    }

    /// Keeps a copy of the program; it is what the caretaker runs.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn keep(&self) -> Result<PathBuf, RenewalError> {
        place::keep(&self.origin.program)?;
        Ok(place::kept(&self.origin.program))
    }

    /// Puts the new program in its place; what to run now.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub async fn put(&self, wish: &Wish) -> Result<Relaunch, RenewalError> {
        let lock = self.dir.lock().await?;
        let (program, source) = (self.origin.program.clone(), wish.program.clone());
        let put = blocking(move || place::put(&source, &program)).await;
        drop(lock);
        put.map(|()| self.relaunch(&self.dir.load().unwrap_or_default()))
    }

    /// The new program could not be put in its place: where it is not there, it was not tried, else the old one is put back.
    /// What to run now.
    ///
    /// # Errors
    /// The record cannot be read or written, or the old program not be put back.
    pub async fn give_up(&self, reason: String) -> Result<Relaunch, RenewalError> {
        match place::was_replaced(&self.origin.program)? {
            true => self.go_back(&reason).await,
            false => self.leave(reason).await,
        }
    }

    /// The new program is not tried, for a reason that says nothing about it. What to run now.
    ///
    /// # Errors
    /// The record cannot be written.
    pub async fn leave(&self, reason: String) -> Result<Relaunch, RenewalError> {
        let _lock = self.dir.lock().await?;
        let mut record = self.dir.load()?;
        let relaunch = self.relaunch(&record);
        record.end(Ending::NotTried { reason });
        self.dir.save(&record)?;
        Ok(relaunch)
    }

    /// This process was told to stop meanwhile: that it is gone is no failure.
    ///
    /// # Errors
    /// The record cannot be written.
    pub async fn stop_watching(&self) -> Result<(), RenewalError> {
        let _lock = self.dir.lock().await?;
        let mut record = self.dir.load()?;
        if let Some(pending) = &mut record.pending {
            pending.unwatched = true;
        }
        self.dir.save(&record)
    }

    /// What a process that begins has to do, before it opens the store.
    ///
    /// # Errors
    /// The record cannot be read or written, or the old program cannot be put back.
    pub async fn begin(&self) -> Result<Begin, RenewalError> {
        if self.dir.load()? == Record::default() {
            return Ok(Begin::Plain);
        }
        let lock = self.dir.lock().await?;
        let mut record = self.dir.load()?;
        if place::was_replaced(&self.origin.program)? {
            return Ok(Begin::Relaunch(self.relaunch(&record)));
        }
        let Some(pending) = &mut record.pending else { return Ok(Begin::Plain) };
        match next(pending, in_place(pending).await?) {
            Next::Forget => {
                record.end(Ending::NotTried { reason: "Afterhours ended before it came to it".to_owned() });
                self.dir.save(&record)?;
                Ok(Begin::Plain)
            }
            Next::Prove => {
                let pid = std::process::id();
                pending.starts += 1;
                pending.unwatched = false;
                pending.prover = process::start_ticks(pid).map(|start_ticks| Prover { pid, start_ticks });
                self.dir.save(&record)?;
                Ok(Begin::Prove)
            }
            Next::GoBack(reason) => go_back(&self.dir, &lock, &mut record, &reason).await.map(Begin::Relaunch),
            Next::PutStoreBack(_) => Ok(Begin::PutStoreBack { copy: self.dir.store_copy() }),
        }
    }

    /// Refuses while a renewal is under way: for commands that open the store beside whoever ends it.
    ///
    /// # Errors
    /// One is under way, or the record cannot be read.
    pub fn must_be_over(&self) -> Result<(), RenewalError> {
        match self.dir.load()?.pending {
            Some(pending) => Err(RenewalError::UnderWay { to: pending.to.id }),
            None => Ok(()),
        }
    }

    /// The new program is up.
    ///
    /// # Errors
    /// The record cannot be written.
    pub async fn confirm(&self) -> Result<(), RenewalError> {
        self.end(|_| Ending::Confirmed).await
    }

    /// The old program is back, and its store.
    ///
    /// # Errors
    /// The record cannot be written.
    pub async fn is_back(&self) -> Result<(), RenewalError> {
        self.end(|pending| Ending::PutBack { reason: pending.going_back.clone().unwrap_or_default() }).await
    }

    /// The new program cannot come up: the old one is put back. What to run now.
    ///
    /// # Errors
    /// The record cannot be written, or the old program not be put back.
    pub async fn go_back(&self, reason: &str) -> Result<Relaunch, RenewalError> {
        let lock = self.dir.lock().await?;
        let mut record = self.dir.load()?;
        go_back(&self.dir, &lock, &mut record, reason).await
    }

    async fn end(&self, ending: impl FnOnce(&Pending) -> Ending) -> Result<(), RenewalError> {
        let _lock = self.dir.lock().await?;
        let mut record = self.dir.load()?;
        let Some(ending) = record.pending.as_ref().map(ending) else { return Ok(()) };
        record.end(ending);
        self.dir.save(&record)
    }

    /// The program in this one's place, as the record says it was started, else as this process was.
    fn relaunch(&self, record: &Record) -> Relaunch {
        let program = self.origin.program.clone();
        match &record.pending {
            Some(pending) => Relaunch { program, args: pending.args.clone(), alone: pending.alone },
            None => Relaunch { program, args: self.origin.args.clone().unwrap_or_default(), alone: false },
        }
    }

    async fn hash(&self, program: PathBuf) -> Result<String, RenewalError> {
        blocking(move || place::sha256(&program)).await
    }
}

/// Puts the old program back; first it is written down that this is what happens.
async fn go_back(dir: &RecordDir, _lock: &Lock, record: &mut Record, reason: &str) -> Result<Relaunch, RenewalError> {
    let Some(pending) = &mut record.pending else { return Err(RenewalError::NoProgram { path: dir.0.clone() }) };
    pending.going_back.get_or_insert_with(|| reason.to_owned());
    let (kept, program) = (pending.kept.clone(), pending.program.clone());
    let relaunch = Relaunch { program: program.clone(), args: pending.args.clone(), alone: pending.alone };
    dir.save(record)?;
    blocking(move || place::put(&kept, &program)).await?;
    Ok(relaunch)
}

async fn in_place(pending: &Pending) -> Result<InPlace, RenewalError> {
    let program = pending.program.clone();
    let found = blocking(move || place::sha256(&program)).await?;
    Ok(if found == pending.to.sha256 { InPlace::New } else { InPlace::Old })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RenewalError> + Send + 'static,
) -> Result<T, RenewalError> {
    tokio::task::spawn_blocking(work).await.map_err(RenewalError::Broken)?
}
