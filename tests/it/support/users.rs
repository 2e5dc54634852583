//! Real users of the machine that the tests attack as; `.ci/packages` adds them.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use afterhours::exec::system::become_user;
use afterhours::files::account::Account;

/// The user whom the application belongs to.
pub(crate) const APP: &str = "afterhours-app";
/// A user who has nothing to do with the application.
pub(crate) const STRANGER: &str = "afterhours-stranger";

/// The account of a user that `.ci/packages` has added.
pub(crate) fn account(name: &str) -> Account {
    Account::find(name).unwrap_or_else(|| panic!("there is no user {name}; run .ci/packages as root"))
}

/// A copy of a program in `dir`: what was built may lie where only its builder gets to.
pub(crate) fn within_reach(program: impl AsRef<Path>, dir: &Path) -> PathBuf {
    let copy = dir.join("within-reach");
    fs_err::copy(program.as_ref(), &copy).unwrap();
    copy
}

/// A command that `name` runs, with a way to what the tests built.
pub(crate) fn as_user(name: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    become_user(&mut command, &account(name));
    command
}
