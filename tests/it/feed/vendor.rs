//! A vendor's feed, made with the program itself, read by python-tuf as a site, and killed at every write.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;

use rstest::rstest;
use serde_json::Value;

use crate::feed::opened_elsewhere;
use crate::feed::run;
use crate::feed::text;

const PASSPHRASE: &str = "correct horse battery";

/// A feed in a temporary directory, and a site that read it before.
pub(crate) struct Vendor {
    dir: tempfile::TempDir,
}

impl Vendor {
    pub(crate) fn new() -> Self {
        let vendor = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(vendor.path("tree/bin")).unwrap();
        fs::write(vendor.path("tree/bin/orders"), "#!/bin/sh\necho orders\n").unwrap();
        fs::write(vendor.path("tree/bin/migrate"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(vendor.path("tree/bin/migrate"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(vendor.path("pw"), format!("{PASSPHRASE}\n")).unwrap();
        fs::write(vendor.path("timer-pw"), "what the timer reads\n").unwrap();
        vendor
    }

    /// The same with a feed in it, made with these flags.
    pub(crate) fn with_feed(flags: &[&str]) -> Self {
        let vendor = Self::new();
        let place: &[&str] = if flags.contains(&"--keys") { &[] } else { &["--together"] };
        vendor.good(&[&["create", vendor.feed().as_str(), "--name", "orders"], place, flags].concat());
        fs::copy(vendor.path("orders/root.json"), vendor.path("first-root.json")).unwrap();
        vendor
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn feed(&self) -> String {
        text(&self.path("orders")).to_owned()
    }

    fn passphrase_of(&self, key: &Path) -> PathBuf {
        let is_online = ["timestamp-", "snapshot-"].iter().any(|role| text(key).contains(role));
        self.path(if is_online { "timer-pw" } else { "pw" })
    }

    /// The same with its keys sealed by openssl: for less, where they are opened again and again.
    fn sealed_anew(self, sealing: &[&str]) -> Self {
        let plain = self.path("plain.pem");
        for (key, _) in listing(&self.path("orders/keys")) {
            let pass = self.passphrase_of(&key);
            fs::write(&plain, opened_elsewhere(&key, &pass).unwrap()).unwrap();
            let pass = format!("file:{}", text(&pass));
            let seal = ["pkcs8", "-topk8", "-in", text(&plain), "-out", text(&key), "-passout", &pass];
            run("openssl", "openssl", &[&seal[..], sealing].concat());
        }
        self
    }

    fn command(&self, wrap: &[&str], args: &[&str]) -> Command {
        let program = [wrap, &[env!("CARGO_BIN_EXE_afterhours")]].concat();
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg("--json").arg("feed").args(args);
        let is_said = ["--passphrase-file", "--online-passphrase-file"].iter().any(|flag| args.contains(flag));
        if args[0] != "show" && !is_said {
            command.arg("--passphrase-file").arg(self.path("pw"));
            command.arg("--online-passphrase-file").arg(self.path("timer-pw"));
        }
        command
    }

    pub(crate) fn feed_command(&self, args: &[&str]) -> Output {
        self.command(&[], args).output().unwrap()
    }

    /// Has to go well; what it answers.
    #[track_caller]
    pub(crate) fn good(&self, args: &[&str]) -> Value {
        let output = self.feed_command(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Must not go well, and change nothing that is published; the exit code and what is said.
    #[track_caller]
    pub(crate) fn bad(&self, args: &[&str]) -> (i32, String) {
        let before = listing(&self.path("orders/published"));
        let output = self.feed_command(args);
        assert_eq!(listing(&self.path("orders/published")), before, "{args:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(answer["error"]["hint"].is_string(), "{args:?}: {answer}");
        (output.status.code().unwrap(), answer["error"]["message"].as_str().unwrap().to_owned())
    }

    pub(crate) fn publish(&self, version: &str, build: u64) -> Value {
        self.good(&self.publishing(version, &build.to_string(), &self.feed(), &text(&self.path("tree"))))
    }

    pub(crate) fn publishing<'a>(
        &self,
        version: &'a str,
        build: &'a str,
        feed: &'a str,
        tree: &'a &'a str,
    ) -> Vec<&'a str> {
        vec!["publish", feed, "--version", version, "--build", build, "--tree", tree]
    }

    pub(crate) fn show(&self) -> Value {
        self.good(&["show", &self.feed()])
    }

    /// What python-tuf, which has trusted the first root, reads; one line for each target it fetched.
    #[track_caller]
    pub(crate) fn site(&self, targets: &[&str]) -> String {
        let tuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign/python-tuf-7.0.1");
        assert!(tuf.exists(), "{} is missing; `make test` fetches it", tuf.display());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/feed/site.py");
        let output = Command::new("/usr/bin/python3")
            .arg(script)
            .args([self.path("orders/published"), self.path("site"), self.path("first-root.json")])
            .args(targets)
            .env("PYTHONPATH", tuf)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .output()
            .unwrap_or_else(|error| panic!("python3 cannot be run ({error}); install the package python3"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Every file below a folder with its bytes.
pub(crate) fn listing(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found: Vec<_> = walkdir::WalkDir::new(dir)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| (entry.path().to_owned(), fs::read(entry.path()).unwrap()))
        .collect();
    found.sort();
    found
}

fn versions(standing: &Value) -> Vec<&str> {
    standing["releases"].as_array().unwrap().iter().map(|release| release["version"].as_str().unwrap()).collect()
}

#[rstest]
#[case("ed25519")]
#[case("ecdsa-p256")]
fn another_client_reads_what_is_published_whatever_was_rotated(#[case] scheme: &str) {
    let vendor = Vendor::with_feed(&["--scheme", scheme]);
    fs::write(vendor.path("notes.md"), "Faster search.\n").unwrap();
    let (feed, notes, tree) = (vendor.feed(), vendor.path("notes.md"), vendor.path("tree"));
    let mut args = vendor
        .publishing("2.4.1", "24", &feed, &tree.to_str().unwrap())
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    args.extend(["--notes", text(&notes), "--min-version", "2.0", "--barrier", "--security"].map(str::to_owned));
    args.extend(["--migrate", "bin/migrate", "--migrate", "--yes", "--licence", "pro"].map(str::to_owned));
    args.extend(["--rollout-hours", "72", "--date", "2026-11-20"].map(str::to_owned));
    let published = vendor.good(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let archive = &published["archives"][0];
    let fetched = vendor.site(&["24/release.toml", "24/orders-2.4.1.tar.zst"]);
    assert!(fetched.contains(&format!("24/orders-2.4.1.tar.zst {}", archive["size_bytes"])), "{fetched}");

    for role in ["timestamp", "snapshot", "targets", "root"] {
        let before = vendor.show();
        let rotated = vendor.good(&["rotate", &feed, role]);
        assert_eq!(rotated["pending"], Value::Null);
        let old = rotated["old"][0].as_str().unwrap();
        let name = format!("orders/keys/retired/{role}-{}.pem", &old[..16]);
        assert!(vendor.path(&name).is_file(), "{name}");
        assert_ne!(vendor.show()["roles"], before["roles"]);
        assert_eq!(vendor.site(&["24/release.toml"]).lines().count(), 1, "{role}");
    }
    vendor.good(&["sign", &feed]);
    vendor.publish("2.4.2", 25);
    vendor.site(&["24/orders-2.4.1.tar.zst", "25/orders-2.4.2.tar.zst"]);

    // What was said of the release stands in its description.
    let description = listing(&vendor.path("orders/published/targets/24"))
        .into_iter()
        .find(|(path, _)| text(path).ends_with(".release.toml"))
        .map(|(_, bytes)| String::from_utf8(bytes).unwrap())
        .unwrap();
    for line in [
        "notes = \"\"\"\nFaster search.\n\"\"\"",
        "min_version = \"2.0\"",
        "barrier = true",
        "security = true",
        "migrate = [\"bin/migrate\", \"--yes\"]",
        "licences = [\"pro\"]",
        "date = \"2026-11-20\"",
        "hours = 72",
    ] {
        assert!(description.contains(line), "{line}: {description}");
    }
    // The same tree gave the same bytes.
    let archive = |build: &str| {
        let found = listing(&vendor.path(&format!("orders/published/targets/{build}")));
        found.into_iter().find(|(path, _)| text(path).ends_with(".tar.zst")).unwrap().1
    };
    assert_eq!(archive("24"), archive("25"));
}

#[test]
fn keys_are_private_and_open_with_other_programs() {
    let vendor = Vendor::with_feed(&[]);
    let mode = |name: &str| fs::metadata(vendor.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("orders/keys"), 0o700);
    let plain = vendor.path("plain.pem");
    for (key, _) in listing(&vendor.path("orders/keys")) {
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let pass = vendor.passphrase_of(&key);
        fs::write(&plain, opened_elsewhere(&key, &pass).unwrap()).unwrap();
        let shown = run("openssl", "openssl", &["pkey", "-in", text(&plain), "-noout", "-text"]);
        assert!(shown.contains("ED25519"), "{shown}");
        // What one try of a passphrase costs.
        let shown = run("openssl", "openssl", &["asn1parse", "-in", text(&key)]);
        let cost = ["INTEGER           :020000", "INTEGER           :08", "INTEGER           :01"];
        assert!(cost.iter().all(|number| shown.contains(number)), "{shown}");
    }
    // What others seal, and older versions did, opens as well.
    let vendor = vendor.sealed_anew(&["-v2", "aes-256-cbc"]);
    vendor.good(&["sign", &vendor.feed()]);
    let vendor = vendor.sealed_anew(&["-scrypt"]);
    vendor.publish("2.4.1", 24);
    vendor.good(&["rotate", &vendor.feed(), "targets"]);
    // No key and nothing private is uploaded.
    let all = listing(&vendor.path("orders/published"));
    assert!(all.iter().all(|(_, bytes)| !String::from_utf8_lossy(bytes).contains("PRIVATE KEY")));
}

#[test]
fn what_must_not_be_published_is_refused() {
    let vendor = Vendor::with_feed(&[]);
    vendor.publish("2.4.1", 24);
    let (feed, tree) = (vendor.feed(), vendor.path("tree"));
    let tree = text(&tree);
    let publish = |version, build| vendor.bad(&vendor.publishing(version, build, &feed, &tree));
    assert_eq!(publish("2.4.2", "24"), (4, "failed to publish build 24: the newest is 2.4.1 (build 24)".to_owned()));
    std::os::unix::fs::symlink("/etc/shadow", vendor.path("tree/leak")).unwrap();
    assert_eq!(publish("2.4.2", "25"), (4, "failed to make release 2.4.2 (build 25)".to_owned()));
    fs::remove_file(vendor.path("tree/leak")).unwrap();

    fs::write(vendor.path("wrong"), "wrong horse battery\n").unwrap();
    let wrong = vendor.path("wrong");
    let args = [vendor.publishing("2.4.2", "25", &feed, &tree), vec!["--passphrase-file", text(&wrong)]].concat();
    let (code, message) = vendor.bad(&args);
    assert_eq!(code, 8, "{message}");
    assert!(message.contains("the passphrase is wrong"), "{message}");

    fs::rename(vendor.path("orders/keys"), vendor.path("orders/elsewhere")).unwrap();
    let (code, message) = publish("2.4.2", "25");
    assert_eq!(code, 4, "{message}");
    assert!(message.contains("0 of the keys it needs 1 of"), "{message}");
    fs::rename(vendor.path("orders/elsewhere"), vendor.path("orders/keys")).unwrap();

    assert_eq!(vendor.bad(&["create", &feed, "--together"]).0, 4);
    assert_eq!(vendor.bad(&["sign", text(&vendor.path("tree"))]).0, 3);
    assert_eq!(vendor.bad(&["rotate", &feed, "targets", "--only", "zz"]).0, 3);
    vendor.publish("2.4.2", "25".parse().unwrap());
    vendor.site(&["25/release.toml"]);
}

#[rstest]
#[case::beyond_every_number(&["--build", "9007199254740992", "--tree", "TREE"], 2, "the highest is 9007199254740991")]
#[case::no_way(&["--build", "25", "--tree", "TREE", "--min-version", "2.4.2"], 4, "the release before it is 2.4.1 (build 24)")]
#[case::no_migration(&["--build", "25", "--tree", "TREE", "--migrate", "bin/convert"], 4, "find a program bin/convert")]
#[case::migration_elsewhere(&["--build", "25", "--tree", "TREE", "--migrate", "../pw"], 4, "find a program ../pw")]
#[case::migration_not_executable(&["--build", "25", "--tree", "TREE", "--migrate", "bin/orders"], 4, "find a program bin/orders")]
#[case::empty(&["--build", "25", "--tree", "EMPTY"], 4, "there is no file in it")]
#[case::around_the_feed(&["--build", "25", "--tree", "."], 4, "it is not apart from")]
#[case::inside_the_feed(&["--build", "25", "--tree", "orders/published"], 4, "it is not apart from")]
#[case::around_keys(&["--build", "25", "--tree", "stick", "--keys", "stick/keys"], 4, "stick/keys, which no site must get")]
#[case::no_tree(&["--build", "25", "--tree", "nosuch"], 3, "read the tree")]
#[case::file(&["--build", "25", "--tree", "pw"], 2, "it is no folder")]
#[case::no_notes(&["--build", "25", "--tree", "TREE", "--notes", "nosuch"], 1, "read the notes")]
fn a_dead_end_is_refused(#[case] flags: &[&str], #[case] expected: i32, #[case] because: &str) {
    let vendor = Vendor::with_feed(&[]);
    vendor.publish("2.4.1", 24);
    fs::create_dir_all(vendor.path("empty/nothing")).unwrap();
    fs::create_dir_all(vendor.path("stick/keys")).unwrap();
    fs::write(vendor.path("stick/orders"), "orders").unwrap();
    let in_place = |(index, flag): (usize, &&str)| match (flags.get(index.wrapping_sub(1)), *flag) {
        (Some(&("--tree" | "--keys" | "--notes")), "TREE") => text(&vendor.path("tree")).to_owned(),
        (Some(&("--tree" | "--keys" | "--notes")), "EMPTY") => text(&vendor.path("empty")).to_owned(),
        (Some(&("--tree" | "--keys" | "--notes")), path) => text(&vendor.path(path)).to_owned(),
        (_, flag) => flag.to_owned(),
    };
    let flags: Vec<String> = flags.iter().enumerate().map(in_place).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let feed = vendor.feed();
    let (code, message) = vendor.bad(&[&["publish", &feed, "--version", "2.4.3"], &flags[..]].concat());
    assert_eq!(code, expected, "{message}");
    assert!(message.contains(because), "{message}");
    assert!(!vendor.path("orders/drafts").exists());
    // What was refused has used up nothing.
    vendor.publish("2.4.3", 25);
    vendor.site(&["25/release.toml"]);
}

#[test]
fn a_release_is_taken_back_for_good() {
    let vendor = Vendor::with_feed(&[]);
    let (feed, tree) = (vendor.feed(), vendor.path("tree"));
    let tree = text(&tree);
    vendor.publish("2.4.1", 24);
    vendor.publish("3.0", 25);
    vendor.good(&[&vendor.publishing("3.1", "26", &feed, &tree)[..], &["--min-version", "3.0"]].concat());
    vendor.site(&["26/release.toml"]);

    assert_eq!(vendor.bad(&["withdraw", &feed, "7", "--yes"]), (3, "failed to find a build 7 in the feed".to_owned()));
    assert_eq!(vendor.bad(&["withdraw", &feed, "25", "--updater", "--yes"]).0, 3);
    let (code, message) = vendor.bad(&["withdraw", &feed, "26"]);
    assert_eq!(code, 4, "{message}");
    assert!(message.contains("Withdraw 3.1 (build 26)? Sites that have it keep it"), "{message}");
    // Sites on 2.4.1 could never come to 3.1.
    let (code, message) = vendor.bad(&["withdraw", &feed, "25", "--yes"]);
    assert_eq!((code, message.contains("no site could update to 3.1 (build 26)")), (4, true), "{message}");

    let withdrawn = vendor.good(&["withdraw", &feed, "26", "--yes"]);
    assert_eq!((&withdrawn["build"], &withdrawn["location"]), (&26.into(), &"26".into()));
    vendor.good(&["withdraw", &feed, "25", "--yes"]);
    assert!(!vendor.path("orders/published/targets/25").exists());
    assert!(vendor.path("orders/published/targets/24").exists());
    vendor.site(&["24/orders-2.4.1.tar.zst"]);
    let standing = vendor.show();
    assert_eq!(versions(&standing), ["2.4.1"]);
    assert_eq!(standing["withdrawn"].as_array().unwrap().len(), 2);

    // Nothing else ever has its number, not even after all that is signed was signed anew with another key.
    vendor.good(&["rotate", &feed, "targets"]);
    let publish = |version, build| vendor.bad(&vendor.publishing(version, build, &feed, &tree));
    assert_eq!(publish("3.2", "25"), (4, "failed to publish build 25: the newest is 3.1 (build 26)".to_owned()));
    vendor.publish("3.2", 27);
    vendor.site(&["27/release.toml"]);
}

#[test]
fn nothing_is_signed_on_top_of_what_others_wrote() {
    let vendor = Vendor::with_feed(&[]);
    vendor.publish("2.4.1", 24);
    let feed = vendor.feed();
    for (name, from, to) in [
        ("2.targets.json", "24/release.toml", "25/release.toml"),
        ("1.root.json", "\"threshold\": 1", "\"threshold\": 0"),
        ("timestamp.json", "\"version\": 2", "\"version\": 3"),
    ] {
        let path = vendor.path("orders/published/metadata").join(name);
        let good = fs::read_to_string(&path).unwrap();
        assert!(good.contains(from), "{name}");
        fs::write(&path, good.replace(from, to)).unwrap();
        let (code, message) = vendor.bad(&["sign", &feed]);
        assert_eq!(code, 1, "{name}");
        assert!(message.contains("failed to trust"), "{name}: {message}");
        fs::write(&path, good).unwrap();
    }
    let archive = listing(&vendor.path("orders/published/targets/24")).pop().unwrap().0;
    let bytes = fs::read(&archive).unwrap();
    fs::write(&archive, "short").unwrap();
    assert_eq!(vendor.bad(&["sign", &feed]).0, 1);
    fs::write(&archive, bytes).unwrap();
    vendor.good(&["sign", &feed]);
    vendor.site(&["24/release.toml"]);
}

#[test]
fn root_keys_that_are_elsewhere_sign_one_after_the_other() {
    let vendor = Vendor::new();
    let (feed, stick, one, two) = (vendor.feed(), vendor.path("stick"), vendor.path("one"), vendor.path("two"));
    fs::write(vendor.path("root-pw"), "the keys in the safe\n").unwrap();
    let root_pw = vendor.path("root-pw");
    let keys = ["--keys", text(&stick), "--root-passphrase-file", text(&root_pw)];
    vendor.good(&[&["create", feed.as_str(), "--root-keys", "3", "--root-threshold", "2"], &keys[..]].concat());
    fs::copy(vendor.path("orders/root.json"), vendor.path("first-root.json")).unwrap();
    assert_eq!(listing(&vendor.path("orders/keys")).len(), 3);
    let root_keys = listing(&stick);
    assert_eq!(root_keys.len(), 3);
    for (folder, (path, bytes)) in [&one, &two].into_iter().zip(&root_keys) {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join(path.file_name().unwrap()), bytes).unwrap();
    }

    // Every day without them.
    vendor.publish("2.4.1", 24);
    vendor.good(&["sign", &feed]);
    assert_eq!(vendor.bad(&["rotate", &feed, "targets"]).0, 4);
    // One of them is not enough.
    let root = ["--root-passphrase-file", text(&root_pw)];
    let before = listing(&vendor.path("orders/published"));
    let rotated = vendor.good(&[&["rotate", &feed, "targets", "--keys", text(&one)], &root[..]].concat());
    assert_eq!((&rotated["pending"]["missing_old"], &rotated["pending"]["version"]), (&1.into(), &2.into()));
    assert_eq!(listing(&vendor.path("orders/published")), before);
    assert_eq!(vendor.show()["pending"]["unsigned"].as_array().unwrap().len(), 2);
    // Meanwhile the feed stays fresh, and nobody begins another.
    vendor.good(&["sign", &feed]);
    vendor.site(&["24/release.toml"]);
    assert_eq!(vendor.bad(&[&["rotate", &feed, "root", "--yes", "--keys", text(&two)], &root[..]].concat()).0, 4);
    let (code, message) = vendor.bad(&[&["rotate", &feed, "root", "--keys", text(&two)], &root[..]].concat());
    assert_eq!((code, message.contains("Replace all 3 keys of the root")), (4, true), "{message}");
    // With the second one it is.
    let signed = vendor.good(&[&["sign", &feed, "--keys", text(&two)], &root[..]].concat());
    assert_eq!(signed["pending"], Value::Null);
    assert!(signed["roles"].as_array().unwrap().contains(&"targets".into()), "{signed}");
    vendor.site(&["24/release.toml"]);

    // One key of the root is replaced; two of the old ones and two of the new ones have signed.
    let only = text(root_keys[2].0.file_stem().unwrap().as_ref()).trim_start_matches("root-").to_owned();
    let rotated =
        vendor.good(&[&["rotate", &feed, "root", "--only", &only, "--new-keys", text(&stick)], &keys[..]].concat());
    assert_eq!((&rotated["pending"], &rotated["root"]), (&Value::Null, &3.into()));
    assert!(stick.join("retired").join(root_keys[2].0.file_name().unwrap()).is_file());
    vendor.site(&["24/release.toml"]);
}

#[test]
fn the_updater_has_a_feed_of_its_own() {
    let vendor = Vendor::with_feed(&["--updater"]);
    let (feed, program) = (vendor.feed(), vendor.path("tree/bin/orders"));
    let platforms = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];
    let binaries = platforms.map(|triple| ["--triple", triple, "--binary", text(&program)]).concat();
    let updater = ["publish", &feed, "--updater", "--version", "1.1.0", "--build", "3"];
    vendor.good(&[&updater[..], &binaries[..]].concat());
    // Whoever has these keys publishes no application.
    let tree = vendor.path("tree");
    assert_eq!(vendor.bad(&vendor.publishing("2.4.1", "1", &feed, &text(&tree))).0, 4);
    let archive = format!("updater/3/afterhours-{}.tar.zst", platforms[1]);
    vendor.site(&["updater/3/release.toml", &archive]);
    let packed = vendor.path("site/targets").join(archive.replace('/', "%2F"));
    assert_eq!(run("tar", "tar", &["--zstd", "-tf", text(&packed)]), "./\nafterhours\n");
    assert_eq!(vendor.show()["updater"][0]["build"], 3);
    assert_eq!(vendor.bad(&[&updater[..], &binaries[..]].concat()).0, 4);
    assert_eq!(vendor.bad(&[&updater[..], &binaries[..4], &["--triple", "other"]].concat()).0, 2);
    vendor.good(&["withdraw", &feed, "3", "--updater", "--yes"]);
    assert_eq!(vendor.bad(&[&updater[..], &binaries[..]].concat()).0, 4);
}

#[test]
fn the_keys_of_an_application_publish_no_afterhours() {
    let vendor = Vendor::with_feed(&[]);
    let (feed, program) = (vendor.feed(), vendor.path("tree/bin/orders"));
    let updater = ["publish", &feed, "--updater", "--version", "1.1.0", "--build", "3"];
    let binary = ["--triple", "x86_64-unknown-linux-gnu", "--binary", text(&program)];
    let (code, message) = vendor.bad(&[&updater[..], &binary[..]].concat());
    assert_eq!((code, message.as_str()), (4, "failed to publish Afterhours into this feed"));
    let nothing = vendor.bad(&["publish", &feed, "--updater", "--from", text(&vendor.path("tree"))]);
    assert_eq!(nothing.0, 3, "{}", nothing.1);
}

#[rstest]
#[case::climbing(&["--triple", "../../x-y-z", "--binary", "PROGRAM"], "no target triple")]
#[case::absolute(&["--triple", "/x-y-z", "--binary", "PROGRAM"], "no target triple")]
#[case::no_platform(&["--triple", "linux", "--binary", "PROGRAM"], "no target triple")]
#[case::twice(&["--triple", "a-b-c", "--binary", "PROGRAM", "--triple", "a-b-c", "--binary", "PROGRAM"], "named twice")]
#[case::folder(&["--triple", "a-b-c", "--binary", "FOLDER"], "it is no file")]
#[case::nothing_in_it(&["--triple", "a-b-c", "--binary", "EMPTY"], "an empty one")]
#[case::migration(&["--triple", "a-b-c", "--binary", "PROGRAM", "--migrate", "bin/migrate"], "cannot be used with")]
#[case::demand(&["--triple", "a-b-c", "--binary", "PROGRAM", "--min-afterhours", "1.0"], "cannot be used with")]
fn what_cannot_be_an_afterhours_is_refused(#[case] flags: &[&str], #[case] because: &str) {
    let vendor = Vendor::with_feed(&[]);
    fs::write(vendor.path("empty"), "").unwrap();
    let paths = [("PROGRAM", "tree/bin/orders"), ("FOLDER", "tree"), ("EMPTY", "empty")];
    let paths = paths.map(|(word, path)| (word, text(&vendor.path(path)).to_owned()));
    let in_place = |flag: &&str| match paths.iter().find(|(word, _)| word == flag) {
        Some((_, path)) => path.clone(),
        None => (*flag).to_owned(),
    };
    let flags: Vec<String> = flags.iter().map(in_place).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let feed = vendor.feed();
    let updater = ["publish", &feed, "--updater", "--version", "1.1.0", "--build", "3"];
    let (code, message) = vendor.bad(&[&updater[..], &flags[..]].concat());
    assert_eq!(code, 2, "{message}");
    assert!(message.contains(because), "{message}");
    assert!(!vendor.path("x-y-z").exists() && !vendor.path("orders/drafts").exists());
}

#[rstest]
#[case::renames(RENAMES)]
#[case::removals("unlink,unlinkat,rmdir")]
fn a_site_reads_the_feed_wherever_withdrawing_dies(#[case] calls: &str) {
    let vendor = Vendor::with_feed(&[]).sealed_anew(&["-scrypt"]);
    vendor.publish("2.4.1", 24);
    vendor.publish("2.4.2", 25);
    let feed = vendor.feed();
    let args = ["withdraw", &feed, "25", "--yes"];
    // Each try meets what the one before left.
    let kills = (1..100).take_while(|nth| {
        let whole = comes_through(&vendor, &args, calls, *nth);
        vendor.site(&["24/release.toml", "24/orders-2.4.1.tar.zst"]);
        !whole
    });
    assert!(kills.count() >= 3);
    assert_eq!(versions(&vendor.show()), ["2.4.1"]);
    assert!(!vendor.path("orders/published/targets/25").exists());
}

#[test]
fn a_release_may_demand_an_afterhours() {
    let vendor = Vendor::with_feed(&[]);
    let (feed, tree) = (vendor.feed(), vendor.path("tree"));
    let tree = text(&tree);
    let args = vendor.publishing("2.4.1", "24", &feed, &tree);
    vendor.good(&[&args[..], &["--min-afterhours", "1.4"]].concat());
    vendor.site(&["24/release.toml"]);
    let described = fs::read_to_string(vendor.path("site/targets/24%2Frelease.toml")).unwrap();
    assert!(described.contains("min_afterhours = \"1.4\""), "{described}");
}

const RENAMES: &str = "rename,renameat,renameat2";
/// A file is written by then, and perhaps not on disk.
const SYNCS: &str = "fsync,fdatasync";

/// Runs a command and kills it at the `nth` of these calls. Says whether it came through before.
fn comes_through(vendor: &Vendor, args: &[&str], calls: &str, nth: usize) -> bool {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:signal=SIGKILL:when={nth}"));
    let wrap = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let output = vendor.command(&wrap, args).output();
    let output = output.unwrap_or_else(|error| panic!("strace cannot be run ({error}); install the package strace"));
    // Whoever is killed says nothing.
    assert_eq!(output.status.success(), !output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    output.status.success()
}

#[rstest]
#[case::renames(RENAMES)]
#[case::syncs(SYNCS)]
fn a_site_reads_the_feed_wherever_publishing_dies(#[case] calls: &str) {
    let vendor = Vendor::with_feed(&[]).sealed_anew(&["-scrypt"]);
    vendor.publish("2.4.1", 24);
    let (feed, tree) = (vendor.feed(), vendor.path("tree"));
    let tree = text(&tree);
    let args = vendor.publishing("2.4.2", "25", &feed, &tree);
    // Each try meets what the one before left.
    let kills = (1..100).take_while(|nth| {
        let whole = comes_through(&vendor, &args, calls, *nth);
        vendor.site(&["24/release.toml", "24/orders-2.4.1.tar.zst"]);
        let is_there = versions(&vendor.show()).len() == 2;
        // The last sync is that of the rename that makes the release count.
        assert!(is_there == whole || is_there && calls == SYNCS, "{calls} {nth}");
        !is_there
    });
    assert!(kills.count() >= 5);
    vendor.site(&["25/release.toml", "25/orders-2.4.2.tar.zst"]);
}

#[rstest]
#[case::targets("targets", RENAMES)]
#[case::timestamp("timestamp", RENAMES)]
#[case::root("root", RENAMES)]
#[case::targets_syncs("targets", SYNCS)]
#[case::root_syncs("root", SYNCS)]
fn a_site_reads_the_feed_wherever_a_rotation_dies(#[case] role: &str, #[case] calls: &str) {
    let vendor = Vendor::with_feed(&[]).sealed_anew(&["-scrypt"]);
    vendor.publish("2.4.1", 24);
    let (feed, pristine) = (vendor.feed(), vendor.path("pristine"));
    run("coreutils", "cp", &["-a", &feed, text(&pristine)]);
    let kills = (1..100).take_while(|nth| {
        fs::remove_dir_all(&feed).unwrap();
        let _ = fs::remove_dir_all(vendor.path("site"));
        run("coreutils", "cp", &["-a", text(&pristine), &feed]);
        let whole = comes_through(&vendor, &["rotate", &feed, role], calls, *nth);
        vendor.site(&["24/release.toml"]);
        // What was begun is brought to its end.
        assert_eq!(vendor.good(&["sign", &feed])["pending"], Value::Null, "{calls} {nth}");
        vendor.site(&["24/release.toml"]);
        !whole
    });
    assert!(kills.count() >= 5);
    vendor.publish("2.4.2", 25);
    vendor.site(&["25/orders-2.4.2.tar.zst"]);
}

#[test]
fn two_commands_do_not_work_on_one_feed() {
    let vendor = Vendor::with_feed(&[]);
    let lock = fs::File::open(vendor.path("orders/lock")).unwrap();
    lock.lock().unwrap();
    let (code, message) = vendor.bad(&["sign", &vendor.feed()]);
    assert_eq!(code, 4, "{message}");
    drop(lock);
    vendor.good(&["sign", &vendor.feed()]);
}
