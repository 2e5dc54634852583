//! As whom a command runs, and with which variables; and what must not run as root.
//!
//! A command runs as the user whom the application's tree belongs to, or as the one that was named for it. What runs as
//! root is looked at first: the program, its interpreter, and every file among its arguments must be such that root alone
//! can change or replace them, else whoever can would be root.
//!
//! Nothing of this process's own environment is inherited but the language and the time zone: it holds passwords of
//! proxies, the way to credentials, and the socket of the init system.
//!
//! Deliberately absent: what a program reads later, and directories among its arguments. A script that runs another is the
//! administrator's to look at.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Access;
use rustix::fs::OFlags;
use rustix::io::Errno;
use thiserror::Error;

use crate::domain::command::Command;
use crate::domain::command::ROOT;
use crate::domain::command::RunAs;
use crate::domain::command::Tree;
use crate::files::account::Account;
use crate::files::trusted::Untrusted;
use crate::files::trusted::trusted_dir;
use crate::files::trusted::trusted_file;
use crate::files::trusted::trusted_way;

/// Where programs are looked for; directories of root's.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is handed on of the environment of this process.
const INHERITED: [&str; 3] = ["LANG", "LC_ALL", "TZ"];
/// More of a script is not read to find its interpreter; the kernel reads less.
const SHEBANG_BYTES_MAX: u64 = 512;
/// How many interpreters may stand behind each other.
const INTERPRETERS_MAX: u32 = 5;

/// A command may not be run.
#[derive(Debug, Error)]
pub enum Refusal {
    /// There is no such user.
    #[error("there is no user {user}")]
    NoUser {
        /// As it is configured.
        user: String,
    },
    /// This process cannot become that user.
    #[error("only root can run it as {user}, and Afterhours runs as {own}")]
    NotRoot {
        /// The user it should run as.
        user: String,
        /// The user of this process.
        own: String,
    },
    /// Whom the application belongs to cannot be found out.
    #[error("it cannot be told whom {} belongs to", .path.display())]
    NoTree {
        /// The directory of the application.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The application belongs to root, but others can change it.
    #[error("it would run as root, whom {} belongs to, but others can change that", .path.display())]
    Tree {
        /// The directory of the application.
        path: PathBuf,
        /// Who can.
        #[source]
        source: Untrusted,
    },
    /// Others can change what would run as root.
    #[error("it would run as root, but others can change {}", .path.display())]
    Untrusted {
        /// The program, its interpreter, or an argument.
        path: PathBuf,
        /// Who can.
        #[source]
        source: Untrusted,
    },
    /// It is not there, or cannot be executed.
    #[error("find it")]
    Absent {
        /// Which of the two.
        #[source]
        source: io::Error,
    },
    /// A script's interpreter is a script whose interpreter is a script, and so on.
    #[error("it would run as root, but {} leads through too many interpreters", .path.display())]
    Interpreters {
        /// The script.
        path: PathBuf,
    },
}

impl Refusal {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        let leave = "or leave `as` away, so that it runs as the owner of the application";
        match self {
            Self::NoUser { user } => format!("create the user {user}, or correct `as` or `owner` in the configuration"),
            Self::NotRoot { .. } => "run Afterhours as root, or leave `as` away".to_owned(),
            Self::NoTree { path, .. } => {
                format!("see to it that {} is a directory, or set `owner` to USER:GROUP", path.display())
            }
            Self::Tree { source, .. } => {
                let other = "or set `owner` to the user that the application runs as";
                source.remedy().map_or_else(|| other.to_owned(), |remedy| format!("{remedy}, {other}"))
            }
            Self::Untrusted { source, .. } => {
                source.remedy().map_or_else(|| leave.to_owned(), |remedy| format!("{remedy}, {leave}"))
            }
            Self::Absent { .. } => "install it, or correct the command in the configuration".to_owned(),
            Self::Interpreters { .. } => format!("let the script name a program in its first line, {leave}"),
        }
    }
}

/// What a command that may run is run as.
#[derive(Debug, Clone)]
pub struct Permit {
    /// The user.
    pub account: Account,
    /// The program as it was found, where it runs as root; else nothing.
    pub program: Option<PathBuf>,
    /// Where it is started: where it was asked for, but for root only where root alone can put something; else `/`.
    pub dir: PathBuf,
    /// All variables.
    pub env: BTreeMap<String, OsString>,
}

/// Whether and how `command` may be run in `dir`.
///
/// # Errors
/// It may not.
pub fn permit(command: &Command, dir: &Path) -> Result<Permit, Refusal> {
    let account = account_of(command)?;
    let mut dir = dir.to_owned();
    let mut program = None;
    if account.is_root() {
        // Many a program takes code from where it is started.
        if trusted_dir(&dir).is_err() {
            dir = PathBuf::from("/");
        }
        program = Some(check_for_root(command, &dir)?);
        check_env(&command.env)?;
    }
    let mut env = base_env(&account);
    env.extend(command.env.iter().map(|(key, value)| (key.clone(), value.into())));
    Ok(Permit { account, program, dir, env })
}

/// As whom `command` runs.
///
/// # Errors
/// There is no such user, or this process cannot become that user.
pub fn account_of(command: &Command) -> Result<Account, Refusal> {
    let own = Account::own();
    let wanted = match &command.run_as {
        RunAs::Owner if !own.is_root() => return Ok(own),
        RunAs::Owner => owner_of(&command.tree)?,
        RunAs::User(user) => find(user)?,
    };
    if own.is_root() || wanted.uid == own.uid {
        Ok(wanted)
    } else {
        Err(Refusal::NotRoot { user: wanted.name, own: own.name })
    }
}

fn find(user: &str) -> Result<Account, Refusal> {
    Account::find(user).ok_or_else(|| Refusal::NoUser { user: user.to_owned() })
}

/// Whom the tree belongs to. Root only where nobody else can put another tree in its place.
fn owner_of(tree: &Tree) -> Result<Account, Refusal> {
    let path = &tree.install_dir;
    let owner = match &tree.owner {
        Some(user) => find(user)?,
        None => {
            let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
            let opened = File::options().read(true).custom_flags(flags).open(path);
            let stat = opened.and_then(|dir| dir.metadata());
            Account::of_uid(stat.map_err(|source| Refusal::NoTree { path: path.clone(), source })?.uid())
        }
    };
    if owner.is_root() {
        trusted_dir(path).map_err(|source| Refusal::Tree { path: path.clone(), source })?;
    }
    Ok(owner)
}

/// The variables that every command of `account` sees.
pub(crate) fn base_env(account: &Account) -> BTreeMap<String, OsString> {
    let mut env: BTreeMap<String, OsString> =
        INHERITED.iter().filter_map(|key| std::env::var_os(key).map(|value| ((*key).to_owned(), value))).collect();
    env.insert("PATH".to_owned(), PATH.into());
    env.insert("HOME".to_owned(), account.home.clone().into());
    env.insert("USER".to_owned(), account.name.clone().into());
    env.insert("LOGNAME".to_owned(), account.name.clone().into());
    env
}

/// Where `command` would look for programs.
fn path_of(command: &Command) -> &str {
    command.env.get("PATH").map_or(PATH, String::as_str)
}

/// Where the program of `command` is when it is run in `dir`; nothing where it is absent or cannot be executed.
pub fn find_program(command: &Command, dir: &Path) -> Option<PathBuf> {
    find_in(command.program(), dir, path_of(command))
}

/// The same look-up that the kernel's exec functions do.
pub(crate) fn find_in(program: &str, dir: &Path, path: &str) -> Option<PathBuf> {
    let executable = |path: &PathBuf| path.is_file() && rustix::fs::access(path, Access::EXEC_OK).is_ok();
    if program.is_empty() {
        return None;
    }
    if program.contains('/') {
        return Some(dir.join(program)).filter(executable);
    }
    std::env::split_paths(path).map(|folder| dir.join(folder).join(program)).find(executable)
}

/// The program, once nobody but root can change what it will be.
fn check_for_root(command: &Command, dir: &Path) -> Result<PathBuf, Refusal> {
    let Some(program) = find_program(command, dir) else {
        let path = dir.join(command.program());
        if command.program().contains('/') {
            // Who can make it, or make it executable, could do so a moment later.
            trusted_way(&path).map_err(|source| Refusal::Untrusted { path: path.clone(), source })?;
        }
        let errno = if command.program().contains('/') && path.exists() { Errno::ACCESS } else { Errno::NOENT };
        return Err(Refusal::Absent { source: errno.into() });
    };
    check_program(&program, dir, path_of(command), INTERPRETERS_MAX)?;
    for arg in command.argv.iter().skip(1) {
        check_argument(arg, dir)?;
    }
    Ok(program)
}

/// Files and directories among the variables, where a program or its loader may take code from.
fn check_env(env: &BTreeMap<String, String>) -> Result<(), Refusal> {
    for (key, value) in env {
        let holds_code = key.starts_with("LD_") || ["PATH", "LIB", "ENV", "OPT"].iter().any(|word| key.contains(word));
        for path in value.split(':').map(Path::new).filter(|path| path.is_absolute()) {
            let refused = |source| Refusal::Untrusted { path: path.to_owned(), source };
            match std::fs::metadata(path) {
                Ok(about) if about.is_file() => drop(trusted_file(path).map_err(refused)?),
                _ if holds_code => trusted_way(path).map_err(refused)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn check_program(program: &Path, dir: &Path, path: &str, left: u32) -> Result<(), Refusal> {
    let refused = |source| Refusal::Untrusted { path: program.to_owned(), source };
    let left = left.checked_sub(1).ok_or_else(|| Refusal::Interpreters { path: program.to_owned() })?;
    let found = match trusted_file(program) {
        // An interpreter that is absent is said to be when the script is started, unless somebody else could make it.
        Err(absent) if absent.is_absent() => return trusted_way(program).map_err(refused),
        found => found.map_err(refused)?,
    };
    let Some(line) = shebang(found.path()) else { return Ok(()) };
    let mut words = line.split_whitespace();
    let Some(interpreter) = words.next() else { return Ok(()) };
    check_program(&dir.join(interpreter), dir, path, left)?;
    let is_env = Path::new(interpreter).file_name().is_some_and(|name| name == "env");
    let named = words.clone().find(|word| !word.starts_with('-') && !word.contains('='));
    if let Some(named) = named.filter(|_| is_env).and_then(|named| find_in(named, dir, path)) {
        check_program(&named, dir, path, left)?;
    }
    words.filter(|_| !is_env).try_for_each(|word| check_argument(word, dir))
}

/// What a script's first line says; nothing where it is no script.
fn shebang(program: &Path) -> Option<String> {
    let mut head = Vec::new();
    // Whoever may not read it cannot be told; the kernel then runs no script either.
    File::open(program).ok()?.take(SHEBANG_BYTES_MAX).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).into_owned())
}

/// A file among the arguments may be a script or what it reads.
fn check_argument(arg: &str, dir: &Path) -> Result<(), Refusal> {
    let value = arg.split_once('=').map(|(_, value)| value).filter(|value| value.starts_with('/'));
    for path in [Some(arg), value].into_iter().flatten().filter(|path| !path.is_empty()).map(|path| dir.join(path)) {
        let refused = |source| Refusal::Untrusted { path: path.clone(), source };
        match std::fs::metadata(&path) {
            Ok(about) if about.is_file() => drop(trusted_file(&path).map_err(refused)?),
            Ok(_) => {}
            // Who can make it could make it a script a moment later.
            Err(_) if arg.contains('/') => trusted_way(&path).map_err(refused)?,
            Err(_) => {}
        }
    }
    Ok(())
}

/// `as = "root"` for a command that nobody configured: the vendor's, where the site allows it.
pub fn as_root(command: Command) -> Command {
    Command { run_as: RunAs::User(ROOT.into()), ..command }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(dir: &Path, name: &str, text: &str, mode: u32) -> String {
        let path = dir.join(name);
        fs_err::write(&path, text).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    fn command(argv: &[&str], dir: &Path) -> Command {
        Command::of_owner(argv.iter().map(|&word| word.to_owned()).collect(), Tree::new(dir, None))
    }

    #[test]
    fn what_others_can_change_does_not_run_as_root() {
        if !Account::own().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (good, bad) = (script(dir, "good", "#!/bin/sh\n", 0o755), script(dir, "bad", "#!/bin/sh\n", 0o777));
        let by_env = script(dir, "by-env", "#!/usr/bin/env -S bad -x\n", 0o755);
        let by_bad = script(dir, "by-bad", &format!("#!{bad}\n"), 0o755);
        let option = format!("--file={bad}");
        std::os::unix::fs::symlink(&bad, dir.join("link")).unwrap();
        let by_env_of = |key: &str, value: &Path| {
            let mut command = as_root(command(&["true"], dir));
            command.env.insert(key.to_owned(), format!("/usr/lib:{}", value.display()));
            permit(&command, dir).map(|_| ()).map_err(|refusal| refusal.remedy())
        };
        let open = dir.join("open");
        fs_err::create_dir(&open).unwrap();
        fs_err::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        for (key, value) in
            [("PYTHONPATH", open.as_path()), ("LD_PRELOAD", Path::new(&bad)), ("BASH_ENV", Path::new(&bad))]
        {
            assert!(by_env_of(key, value).unwrap_err().contains("chmod go-w"), "{key}");
        }
        by_env_of("APP_HOME", &open).unwrap();
        assert_eq!(permit(&as_root(command(&["true"], dir)), &open).unwrap().dir, Path::new("/"));
        assert_eq!(permit(&as_root(command(&["true"], dir)), dir).unwrap().dir, dir);
        let refused = |argv: &[&str]| {
            let mut command = as_root(command(argv, dir));
            command.env.insert("PATH".to_owned(), format!("{PATH}:{}", dir.display()));
            permit(&command, dir).map(|permit| permit.program).map_err(|refusal| refusal.remedy())
        };
        assert_eq!(refused(&[&good]).unwrap().unwrap(), dir.join("good"));
        assert_eq!(refused(&["good", "start", "s/a/b/", "--x=1", "/dev/null"]).unwrap().unwrap(), dir.join("good"));
        assert!(refused(&["absent"]).unwrap_err().contains("install it"));
        let switched_off = script(dir, "off", "#!/bin/sh\n", 0o666);
        assert!(refused(&[&switched_off]).unwrap_err().contains("chmod go-w"), "it can be switched on a moment later");
        for argv in [
            &[bad.as_str()][..],
            &["bad"],
            &["./link"],
            &["sh", "bad"],
            &["sh", &bad],
            &["sh", &option],
            &[&by_env],
            &[&by_bad],
            &["sh", "/tmp/afterhours-not-made-yet"],
        ] {
            let remedy = refused(argv).unwrap_err();
            assert!(remedy.contains("chmod go-w") && remedy.contains("leave `as` away"), "{argv:?}: {remedy}");
        }
    }

    #[test]
    fn the_owner_of_the_tree_is_who_a_command_runs_as() {
        if !Account::own().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs_err::create_dir(&tree).unwrap();
        let whose = || account_of(&command(&["true"], &tree)).map(|account| account.name);
        assert_eq!(whose().unwrap(), "root");
        std::os::unix::fs::chown(&tree, Some(Account::find("daemon").unwrap().uid), None).unwrap();
        assert_eq!(whose().unwrap(), "daemon");
        let named = Command { tree: Tree::new(&tree, Some("bin:daemon")).into(), ..command(&["true"], &tree) };
        assert_eq!(account_of(&named).unwrap().name, "bin");

        std::os::unix::fs::chown(&tree, Some(0), None).unwrap();
        fs_err::set_permissions(&tree, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(whose(), Err(Refusal::Tree { .. })), "a tree of root's that all can change");
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        for absent in ["absent", "link"] {
            let command = command(&["true"], &dir.path().join(absent));
            assert!(matches!(account_of(&command), Err(Refusal::NoTree { .. })), "{absent}");
        }
        let nobody = Command { run_as: RunAs::User("nobody-of-that-name".into()), ..command(&["true"], &tree) };
        assert!(matches!(account_of(&nobody), Err(Refusal::NoUser { .. })));
    }

    #[test]
    fn programs_are_looked_up_as_they_will_be_run() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("plain"), "").unwrap();
        let found = |program: &str| find_program(&command(&[program], dir.path()), dir.path());
        assert!(found("sh").is_some());
        assert_eq!(found("./plain"), None, "not executable");
        assert_eq!(found("plain"), None, "not in PATH");
        assert_eq!(found(""), None);
        let mut elsewhere = command(&["sh"], dir.path());
        elsewhere.env.insert("PATH".to_owned(), "/nowhere".to_owned());
        assert_eq!(find_program(&elsewhere, dir.path()), None);
    }
}
