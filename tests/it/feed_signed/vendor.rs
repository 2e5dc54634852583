//! A vendor that works with our own commands.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes a feed in the folder `orders` of `dir`, with these flags.
pub(crate) fn create(dir: &Path, flags: &[&str]) {
    create_named(dir, "orders", flags);
}

/// The same, of another name.
pub(crate) fn create_named(dir: &Path, name: &str, flags: &[&str]) {
    fs::write(dir.join("pw"), "correct horse battery\n").unwrap();
    fs::write(dir.join("timer-pw"), "what the timer reads\n").unwrap();
    let place: &[&str] = if flags.contains(&"--keys") { &[] } else { &["--together"] };
    vendor(dir, &[&["create", dir.join(name).to_str().unwrap(), "--name", name], place, flags].concat());
}

/// One of the commands on a feed, which has to go well.
pub(crate) fn vendor(dir: &Path, args: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterhours"));
    command.arg("feed").args(args).arg("--passphrase-file").arg(dir.join("pw"));
    let made = command.arg("--online-passphrase-file").arg(dir.join("timer-pw")).output().unwrap();
    assert!(made.status.success(), "{args:?}: {}", String::from_utf8_lossy(&made.stderr));
}
