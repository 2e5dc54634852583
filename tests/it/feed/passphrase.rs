//! Who types the passphrase of a feed's keys: somebody at a terminal, a file, or nobody.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use crate::feed::opened_elsewhere;
use crate::support::at_a_terminal;

const PASSPHRASE: &str = "correct horse battery";
const TIMER: &str = "what the timer reads";
const QUESTION: &str = "Passphrase of the feed's keys";
const TIMER_QUESTION: &str = "Passphrase of the timer";

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
        &program(&["create", feed, "--together"]),
        &[
            (QUESTION, PASSPHRASE),
            ("Once more", "correct horse"),
            (QUESTION, PASSPHRASE),
            ("Once more", PASSPHRASE),
            (TIMER_QUESTION, TIMER),
            ("Once more", TIMER),
        ],
    );
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("They differ.") && !shown.contains("correct"), "{shown}");

    let (code, shown) = at_a_terminal(&program(&["sign", feed]), &[(QUESTION, PASSPHRASE), (TIMER_QUESTION, TIMER)]);
    assert_eq!((code, shown.contains("Signed timestamp.")), (0, true), "{shown}");
    let signed = fs::read(dir.path().join("orders/published/metadata/timestamp.json")).unwrap();
    let (code, shown) = at_a_terminal(
        &program(&["sign", feed]),
        &[(QUESTION, PASSPHRASE), (TIMER_QUESTION, "incorrect horse battery")],
    );
    assert_eq!(code, 8, "{shown}");
    assert!(shown.contains("type the right one") && !shown.contains("incorrect"), "{shown}");
    assert_eq!(fs::read(dir.path().join("orders/published/metadata/timestamp.json")).unwrap(), signed);

    // One that is too short is refused before anything is made.
    let other = dir.path().join("other");
    let (code, shown) = at_a_terminal(
        &program(&["create", other.to_str().unwrap(), "--together"]),
        &[(QUESTION, "short"), ("Once more", "short"), (TIMER_QUESTION, TIMER), ("Once more", TIMER)],
    );
    assert_eq!((code, other.exists()), (2, false), "{shown}");
    assert!(shown.contains("take a longer one"), "{shown}");

    // The same keys open with a file, and without either nobody is waited for.
    fs::write(dir.path().join("pw"), format!("{PASSPHRASE}\nand another line\n")).unwrap();
    let sign = |more: &[&str]| program(&["sign", feed]).args(more).stdin(Stdio::null()).output().unwrap();
    // What opens the keys for releases does not open those of the timer.
    assert_eq!(sign(&["--passphrase-file", dir.path().join("pw").to_str().unwrap()]).status.code(), Some(8));
    fs::write(dir.path().join("timer-pw"), TIMER).unwrap();
    assert!(sign(&["--online-passphrase-file", dir.path().join("timer-pw").to_str().unwrap()]).status.success());
    let nobody = sign(&[]);
    let said = String::from_utf8(nobody.stderr).unwrap();
    assert_eq!(nobody.status.code(), Some(4), "{said}");
    assert!(
        said.contains("nobody is here to type the passphrase") && said.contains("--passphrase-file FILE"),
        "{said}"
    );
}

/// The exit code of a command that asks nobody, and what it said.
fn done(args: &[&str]) -> (i32, String) {
    let output = program(args).stdin(Stdio::null()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_the_timer_reads_renews_the_feed_and_opens_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (feed, pw, timer, tree) = (path("orders"), path("pw"), path("timer-pw"), path("tree"));
    fs::write(&pw, PASSPHRASE).unwrap();
    fs::write(&timer, TIMER).unwrap();
    fs::create_dir(&tree).unwrap();
    fs::write(path("tree/orders"), "orders").unwrap();

    // A new feed has both, and they are not the same.
    let (code, said) = done(&["create", &feed, "--together", "--passphrase-file", &pw]);
    assert_eq!((code, said.contains("--online-passphrase-file FILE")), (2, true), "{said}");
    let (code, said) =
        done(&["create", &feed, "--together", "--passphrase-file", &pw, "--online-passphrase-file", &pw]);
    assert_eq!((code, said.contains("opens other keys as well")), (2, true), "{said}");
    assert!(!dir.path().join("orders").exists());
    let (code, said) =
        done(&["create", &feed, "--together", "--passphrase-file", &pw, "--online-passphrase-file", &timer]);
    assert_eq!(code, 0, "{said}");

    let (code, said) = done(&["sign", &feed, "--online-passphrase-file", &timer]);
    assert_eq!(code, 0, "{said}");
    for entry in fs::read_dir(path("orders/keys")).unwrap() {
        let key = entry.unwrap().path();
        let is_online =
            ["timestamp-", "snapshot-"].iter().any(|role| key.file_name().unwrap().to_str().unwrap().starts_with(role));
        assert_eq!(opened_elsewhere(&key, Path::new(&timer)).is_some(), is_online, "{}", key.display());
    }
    let publish = ["publish", &feed, "--version", "1.0", "--build", "1", "--tree", &tree];
    for flags in [["--passphrase-file", &timer], ["--online-passphrase-file", &timer]] {
        let (code, said) = done(&[&publish[..], &flags].concat());
        assert!(matches!(code, 4 | 8), "{code}: {said}");
    }
    let both = ["--passphrase-file", &pw, "--online-passphrase-file", &timer];
    let (code, said) = done(&[&publish[..], &both].concat());
    assert_eq!(code, 0, "{said}");

    // A key in place of the timer's is sealed with what opens the timer's, or nothing is made.
    let before = fs::read_dir(path("orders/keys")).unwrap().count();
    let (code, said) = done(&["rotate", &feed, "timestamp", "--passphrase-file", &pw]);
    assert_eq!((code, said.contains("--online-passphrase-file")), (8, true), "{said}");
    assert_eq!(fs::read_dir(path("orders/keys")).unwrap().count(), before);
    let (code, said) = done(&[&["rotate", &feed, "timestamp"], &both[..]].concat());
    assert_eq!(code, 0, "{said}");
    let (code, said) = done(&["sign", &feed, "--online-passphrase-file", &timer]);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn where_the_keys_of_the_root_go_is_said_by_somebody() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (feed, pw, timer, stick) = (path("orders"), path("pw"), path("timer-pw"), path("stick"));
    fs::write(&pw, PASSPHRASE).unwrap();
    fs::write(&timer, TIMER).unwrap();
    let create = ["create", &feed, "--passphrase-file", &pw, "--online-passphrase-file", &timer];
    let (code, said) = done(&create);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("--keys DIR puts them apart") && said.contains("--together puts them"), "{said}");
    assert_eq!(done(&[&create[..], &["--together", "--keys", &stick]].concat()).0, 2);
    assert!(!dir.path().join("orders").exists() && !dir.path().join("stick").exists());

    let (code, said) = done(&[&create[..], &["--keys", &stick]].concat());
    assert_eq!(code, 0, "{said}");
    let roots = |folder: &str| {
        let files = fs::read_dir(path(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        files.filter(|name| name.to_str().unwrap().starts_with("root-")).count()
    };
    assert_eq!((roots("stick"), roots("orders/keys")), (1, 0));
}

#[test]
fn passphrases_are_long_enough_or_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (feed, short, timer) = (path("orders"), path("short"), path("timer-pw"));
    fs::write(&short, "eleven char").unwrap();
    fs::write(&timer, TIMER).unwrap();
    let flags = ["--passphrase-file", &short, "--online-passphrase-file", &timer];
    let (code, said) = done(&[&["create", &feed, "--together"], &flags[..]].concat());
    assert_eq!((code, said.contains("fewer than 12 characters")), (2, true), "{said}");
    assert!(said.contains("--generate-passphrases"), "{said}");

    // What is there is not overwritten.
    let make = ["create", &feed, "--together", "--generate-passphrases", "--json", "--online-passphrase-file"];
    assert_eq!(done(&[&make[..], &[&timer]].concat()).0, 1);
    assert_eq!(fs::read_to_string(&timer).unwrap(), TIMER);
    assert!(!dir.path().join("orders").exists());
    let made = path("made");
    let output = program(&[&make[..], &[&made]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let shown = &answer["passphrases"];
    assert_eq!((shown["keys"].as_str().unwrap().len(), shown.get("online")), (29, None), "{shown}");
    assert_ne!(shown["keys"], shown["root"]);
    let (code, said) = done(&["sign", &feed, "--online-passphrase-file", &made]);
    assert_eq!(code, 0, "{said}");
    let (keys, root) = (path("keys-pw"), path("root-pw"));
    fs::write(&keys, shown["keys"].as_str().unwrap()).unwrap();
    fs::write(&root, shown["root"].as_str().unwrap()).unwrap();
    let all = ["--passphrase-file", &keys, "--root-passphrase-file", &root, "--online-passphrase-file", &made];
    let (code, said) = done(&[&["rotate", &feed, "targets"], &all[..]].concat());
    assert_eq!(code, 0, "{said}");
}
