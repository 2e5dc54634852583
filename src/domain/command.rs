//! A command of the administrator's or the vendor's: what is run, as whom, and with which variables.
//!
//! It carries all that decides about the user it runs as, so that nobody who runs it can forget to ask.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The name of the superuser, as `as = "root"` writes it.
pub const ROOT: &str = "root";

/// A program with its arguments, never a shell line, and whose rights it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// At least one element.
    pub argv: Vec<String>,
    /// As whom it runs.
    pub run_as: RunAs,
    /// Variables beyond those that every command sees.
    pub env: BTreeMap<String, String>,
    /// The application it is for.
    pub tree: Arc<Tree>,
}

/// As whom a command runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RunAs {
    /// The user whom the application's tree belongs to.
    #[default]
    Owner,
    /// A user that was named; the superuser only in this way.
    User(Box<str>),
}

/// What says whom an application belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    /// Where it stands.
    pub install_dir: PathBuf,
    /// The user that was configured; the one who owns `install_dir` when absent.
    pub owner: Option<String>,
    /// Variables of all its commands, the vendor's migration among them.
    pub env: BTreeMap<String, String>,
}

impl Command {
    /// Runs `argv` as the owner of `tree`.
    pub fn of_owner(argv: Vec<String>, tree: impl Into<Arc<Tree>>) -> Self {
        let tree = tree.into();
        Self { argv, run_as: RunAs::Owner, env: tree.env.clone(), tree }
    }

    /// The program, for messages.
    pub fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }
}

impl Tree {
    /// The tree in `install_dir`, whose owner is found there unless `USER:GROUP` says otherwise.
    pub fn new(install_dir: impl Into<PathBuf>, owner: Option<&str>) -> Self {
        let user = |pair: &str| pair.split(':').next().unwrap_or_default().to_owned();
        Self { install_dir: install_dir.into(), owner: owner.map(user), env: BTreeMap::new() }
    }
}
