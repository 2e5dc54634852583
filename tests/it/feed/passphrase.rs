//! Who types the passphrase of a feed's keys: somebody at a terminal, a file, or nobody.

use std::fs;
use std::process::Command;
use std::process::Stdio;

use crate::support::at_a_terminal;

const PASSPHRASE: &str = "correct horse battery";
const QUESTION: &str = "Passphrase of the feed's keys";

/// The vendor's program with these arguments.
fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterhours"));
    command.arg("feed").args(args);
    command
}

#[test]
fn somebody_at_the_terminal_types_it_and_nobody_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    let feed = dir.path().join("orders");
    let feed = feed.to_str().unwrap();
    // New keys are asked for twice, until both times are the same.
    let (code, shown) = at_a_terminal(
        &program(&["create", feed]),
        &[(QUESTION, PASSPHRASE), ("Once more", "correct horse"), (QUESTION, PASSPHRASE), ("Once more", PASSPHRASE)],
    );
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("They differ.") && !shown.contains("correct"), "{shown}");

    let (code, shown) = at_a_terminal(&program(&["sign", feed]), &[(QUESTION, PASSPHRASE)]);
    assert_eq!((code, shown.contains("Signed timestamp.")), (0, true), "{shown}");
    let signed = fs::read(dir.path().join("orders/published/metadata/timestamp.json")).unwrap();
    let (code, shown) = at_a_terminal(&program(&["sign", feed]), &[(QUESTION, "incorrect horse battery")]);
    assert_eq!(code, 8, "{shown}");
    assert!(shown.contains("type the right one") && !shown.contains("incorrect"), "{shown}");
    assert_eq!(fs::read(dir.path().join("orders/published/metadata/timestamp.json")).unwrap(), signed);

    // One that is too short is refused before anything is made.
    let other = dir.path().join("other");
    let (code, shown) =
        at_a_terminal(&program(&["create", other.to_str().unwrap()]), &[(QUESTION, "short"), ("Once more", "short")]);
    assert_eq!((code, other.exists()), (2, false), "{shown}");
    assert!(shown.contains("take a longer one"), "{shown}");

    // The same keys open with a file, and without either nobody is waited for.
    fs::write(dir.path().join("pw"), format!("{PASSPHRASE}\nand another line\n")).unwrap();
    let sign = |more: &[&str]| program(&["sign", feed]).args(more).stdin(Stdio::null()).output().unwrap();
    assert!(sign(&["--passphrase-file", dir.path().join("pw").to_str().unwrap()]).status.success());
    let nobody = sign(&[]);
    let said = String::from_utf8(nobody.stderr).unwrap();
    assert_eq!(nobody.status.code(), Some(4), "{said}");
    assert!(
        said.contains("nobody is here to type the passphrase") && said.contains("--passphrase-file FILE"),
        "{said}"
    );
}
