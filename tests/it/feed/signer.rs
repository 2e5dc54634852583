//! Commands that sign in place of key files: `openssl` as the device, and devices that fail in every way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use afterhours::feed::vendor;
use afterhours::feed::vendor::Hold;
use afterhours::feed::vendor::NewFeed;
use afterhours::feed::vendor::Passphrases;
use afterhours::feed::vendor::Place;
use afterhours::feed::vendor::Quorum;
use afterhours::feed::vendor::Role;
use afterhours::feed::vendor::Scheme;
use afterhours::feed::vendor::Signed;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use rstest::rstest;
use secrecy::SecretString;
use serde_json::Value;

use crate::feed::opened_elsewhere;
use crate::feed::run;
use crate::feed::text;
use crate::feed::vendor::Vendor;
use crate::feed::vendor::listing;

/// Makes a key in a device, which is a folder, and a signer that asks it; the signer's file.
fn device(vendor: &Vendor, name: &str, scheme: &str) -> PathBuf {
    let (key, public) = (vendor.path(&format!("{name}.device")), vendor.path(&format!("{name}.pem")));
    let made: &[&str] = match scheme {
        "ed25519" => &["-algorithm", "ed25519"],
        "rsa" => &["-algorithm", "rsa"],
        _ => &["-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    };
    run("openssl", "openssl", &[&["genpkey", "-out", text(&key)], made].concat());
    run("openssl", "openssl", &["pkey", "-in", text(&key), "-pubout", "-out", text(&public)]);
    let mut command = vec!["openssl", "pkeyutl", "-sign", "-rawin", "-in", "/dev/stdin", "-inkey", text(&key)];
    if scheme != "ed25519" {
        command.extend(["-digest", "sha256"]);
    }
    describe(vendor, name, &command, "")
}

/// A signer with this command, and a line more.
fn describe(vendor: &Vendor, name: &str, command: &[&str], more: &str) -> PathBuf {
    let file = vendor.path(&format!("{name}.toml"));
    fs::write(&file, format!("command = {command:?}\npublic_key = \"{name}.pem\"\n{more}\n")).unwrap();
    file
}

/// Where a key of a role is described or sealed.
fn keys(vendor: &Vendor, begins: &str, ends: &str) -> Vec<PathBuf> {
    let files = listing(&vendor.path("orders/keys")).into_iter().map(|(path, _)| path);
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.filter(|path| name(path).starts_with(begins) && name(path).ends_with(ends)).collect()
}

#[rstest]
#[case("ed25519")]
#[case("ecdsa-p256")]
fn keys_that_never_leave_their_device_sign_for_root_and_targets(#[case] scheme: &str) {
    let vendor = Vendor::new();
    let (root, targets, timer) =
        (device(&vendor, "root", scheme), device(&vendor, "token", scheme), vendor.path("timer-pw"));
    let timer = ["--online-passphrase-file", text(&timer)];
    // Nothing else has to be said or typed: there is no other key of value.
    let signers = ["--name", "orders", "--root-signer", text(&root), "--targets-signer", text(&targets)];
    let feed = vendor.feed();
    vendor.good(&[&["create", &feed], &signers[..], &timer].concat());
    fs::copy(vendor.path("orders/root.json"), vendor.path("first-root.json")).unwrap();
    for role in ["root", "targets"] {
        assert!(keys(&vendor, role, ".pem").is_empty());
        let described = &keys(&vendor, role, ".signer.toml")[0];
        assert_eq!(fs::metadata(described).unwrap().permissions().mode() & 0o777, 0o600);
    }
    // What describes them is whole.
    for file in [&root, &targets, &vendor.path("root.pem"), &vendor.path("token.pem")] {
        fs::remove_file(file).unwrap();
    }
    let tree = vendor.path("tree");
    let publish = |version, build| {
        vendor.good(&[&vendor.publishing(version, build, &feed, &text(&tree))[..], &timer].concat());
    };
    publish("2.4.1", "24");
    vendor.site(&["24/release.toml", "24/orders-2.4.1.tar.zst"]);
    let shown = vendor.show();
    let file = shown["roles"][1]["keys"][0]["file"].as_str().unwrap();
    assert!(file.ends_with(".signer.toml"), "{file}");

    // Another device in place of one, and the timer's key, under the same root.
    let other = device(&vendor, "other", scheme);
    let rotated = vendor.good(&[&["rotate", &feed, "targets", "--signer", text(&other)], &timer[..]].concat());
    assert_eq!((&rotated["pending"], rotated["closed"].as_array().unwrap().len()), (&Value::Null, 0));
    vendor.good(&[&["rotate", &feed, "timestamp"], &timer[..]].concat());
    assert_eq!(keys(&vendor, "targets-", ".signer.toml").len(), 2, "one of them in retired");
    fs::remove_file(vendor.path("token.device")).unwrap();
    publish("2.4.2", "25");
    vendor.site(&["25/release.toml"]);
    // One key is one signature.
    let (code, message) = vendor.bad(&[&["rotate", &feed, "root", "--signer", text(&other)], &timer[..]].concat());
    assert_eq!((code, message.contains("it is one of targets already")), (2, true), "{message}");
}

#[test]
fn a_key_file_gives_way_to_a_command_and_comes_back() {
    let vendor = Vendor::with_feed(&[]);
    let feed = vendor.feed();
    let card = device(&vendor, "card", "ed25519");
    // Digits are as good as bytes.
    let script = format!(
        "openssl pkeyutl -sign -rawin -in /dev/stdin -inkey {}card.device | od -An -v -tx1 | tr -d ' \\n'",
        text(&vendor.path(""))
    );
    describe(&vendor, "card", &["sh", "-c", &script], "deadline = \"30s\"");
    let (code, message) = vendor.bad(&["rotate", &feed, "targets", "--signer", text(&card), "--signer", text(&card)]);
    assert_eq!((code, message.contains("have 2 signers for 1 keys of targets")), (2, true), "{message}");
    vendor.good(&["rotate", &feed, "targets", "--signer", text(&card)]);
    vendor.publish("2.4.1", 24);
    vendor.site(&["24/release.toml"]);
    vendor.good(&["rotate", &feed, "targets"]);
    fs::remove_file(vendor.path("card.device")).unwrap();
    vendor.publish("2.4.2", 25);
    vendor.site(&["25/release.toml"]);
    assert_eq!(keys(&vendor, "targets-", ".pem").len(), 2, "the first one in retired");
}

/// What a device does in place of signing, and what is then said.
#[rstest]
#[case::another_key(
    "exec openssl pkeyutl -sign -rawin -in /dev/stdin -inkey other.device",
    "is no signature by this key"
)]
#[case::something_else(
    "echo else >m; exec openssl pkeyutl -sign -rawin -in m -inkey card.device",
    "is no signature by this key"
)]
#[case::nothing("exit 0", "is no signature by this key")]
#[case::too_much("head -c 1000000 /dev/zero", "sh printed 262144 bytes")]
#[case::fails("echo 'no card in the reader' >&2; exit 1", "sh ended with exit status 1: no card in the reader")]
#[case::hangs("sleep 1000", "sh did not end within 1s")]
fn a_device_that_does_not_sign_changes_nothing(#[case] does: &str, #[case] said: &str) {
    let vendor = Vendor::with_feed(&[]);
    let (feed, script, folder) = (vendor.feed(), vendor.path("sign.sh"), vendor.path(""));
    for name in ["card", "other"] {
        device(&vendor, name, "ed25519");
    }
    let act = |does: &str| fs::write(&script, format!("cd {}\n{does}\n", text(&folder))).unwrap();
    let card = describe(&vendor, "card", &["sh", text(&script)], "deadline = \"1s\"");
    let fails = |args: &[&str], stays: &str| {
        let before = listing(&vendor.path(stays));
        let output = vendor.feed_command(args);
        assert_eq!(listing(&vendor.path(stays)), before, "{args:?}");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let because = answer["error"]["because"].to_string();
        assert_eq!((output.status.code(), because.contains(said)), (Some(1), true), "{args:?}: {answer}");
        assert!(answer["error"]["hint"].is_string(), "{answer}");
    };
    // No feed is made with it, and of the other keys and the passphrases nothing stays.
    act(does);
    let [made, stick, keys, root, timer] = ["made", "stick", "k", "r", "t"].map(|name| vendor.path(name));
    let create =
        ["create", text(&made), "--keys", text(&stick), "--targets-keys", "2", "--targets-signer", text(&card)];
    let files = ["--passphrase-file", text(&keys), "--root-passphrase-file", text(&root)];
    let online = ["--online-passphrase-file", text(&timer), "--generate-passphrases"];
    fails(&[&create[..], &files, &online].concat(), "orders");
    let left: Vec<_> = [&made, &stick, &keys, &root, &timer].into_iter().filter(|path| path.exists()).collect();
    assert!(left.is_empty() && !vendor.path(".made.partial").exists(), "{left:?}");
    // It is given to nothing, and publishes nothing.
    fails(&["rotate", &feed, "targets", "--signer", text(&card)], "orders");
    let works = "exec openssl pkeyutl -sign -rawin -in /dev/stdin -inkey card.device";
    act(works);
    vendor.good(&["rotate", &feed, "targets", "--signer", text(&card)]);
    act(does);
    let tree = vendor.path("tree");
    fails(&vendor.publishing("2.4.1", "24", &feed, &text(&tree)), "orders/published/metadata");
    act(works);
    vendor.publish("2.4.1", 24);
    vendor.site(&["24/release.toml"]);
}

#[test]
fn what_cannot_sign_is_named_with_its_remedy() {
    let vendor = Vendor::with_feed(&[]);
    let feed = vendor.feed();
    let card = device(&vendor, "card", "ed25519");
    let refused = |expected: i32, because: &str, hint: &str| {
        let output = vendor.feed_command(&["rotate", &feed, "targets", "--signer", text(&card)]);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let told = answer["error"]["because"].to_string();
        assert_eq!((output.status.code(), told.contains(because)), (Some(expected), true), "{answer}");
        assert!(answer["error"]["hint"].as_str().unwrap().contains(hint), "{answer}");
    };
    describe(&vendor, "card", &["/opt/no/such/pkcs11-sign"], "");
    refused(1, "run /opt/no/such/pkcs11-sign", "write the whole path");
    describe(&vendor, "card", &[], "");
    refused(2, "there is no command in it", "command = [");
    describe(&vendor, "card", &["openssl"], "dedline = \"2m\"");
    refused(2, "unknown field `dedline`", "as in the manual");
    describe(&vendor, "card", &["openssl"], "deadline = \"2d\"");
    refused(2, "its deadline is ", "one second to one hour");
    // A key whose signatures sites would not take.
    device(&vendor, "card", "rsa");
    refused(2, "neither Ed25519 nor ECDSA P-256", "BEGIN PUBLIC KEY");
    fs::remove_file(vendor.path("card.pem")).unwrap();
    refused(1, "card.pem", "looked for beside it");
    device(&vendor, "card", "ed25519");
    if rustix::process::geteuid().is_root() {
        // Whoever can write there would have root run what they like.
        fs::set_permissions(&card, fs::Permissions::from_mode(0o646)).unwrap();
        refused(8, "can be written by everybody", &format!("chmod go-w {}", text(&card)));
        fs::set_permissions(&card, fs::Permissions::from_mode(0o644)).unwrap();
        let script = vendor.path("sign.sh");
        fs::write(&script, "exit 0\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o646)).unwrap();
        describe(&vendor, "card", &["sh", text(&script)], "");
        refused(8, "others can change", "chmod go-w");
    }
    assert_eq!(listing(&vendor.path("orders/keys")).len(), 4);
}

/// What a timer signs after so many days, and whether a root waits then.
fn signed_after(dir: &Path, days: i64) -> (Signed, bool) {
    let online = Some(Passphrases::online(SecretString::from("what the timer reads")));
    let place = Place { dir: dir.to_owned(), keys: Vec::new(), passphrases: online };
    let signed = vendor::sign(place, begin() + TimeDelta::days(days)).unwrap();
    (signed, dir.join("pending.root.json").exists())
}

fn begin() -> DateTime<Utc> {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

#[test]
fn a_timer_goes_on_while_the_device_is_in_the_safe() {
    let vendor = Vendor::new();
    let orders = vendor.path("orders");
    let (card, token) = (device(&vendor, "card", "ed25519"), device(&vendor, "token", "ecdsa-p256"));
    let wish = NewFeed {
        updater: false,
        name: "orders".to_owned(),
        scheme: Scheme::default(),
        root: Quorum::ONE,
        targets: Quorum::ONE,
        hold: Hold::default(),
        root_folder: None,
        signers: vec![(Role::Root, card), (Role::Targets, token)],
    };
    let online = Passphrases::online(SecretString::from("what the timer reads"));
    vendor::create(&orders, &wish, &online, begin()).unwrap();
    let moved = |from: &str, to: &str| {
        for name in ["card", "token"] {
            fs::rename(vendor.path(&format!("{name}.{from}")), vendor.path(&format!("{name}.{to}"))).unwrap();
        }
    };
    moved("device", "safe");
    let (signed, waits) = signed_after(&orders, 61);
    assert_eq!((signed.roles.last(), signed.closed.len(), waits), (Some(&Role::Timestamp), 1, false));
    assert_eq!((signed.closed[0].role, signed.targets_expire_at.is_some()), (Role::Targets, true));
    moved("safe", "device");
    for day in [62, 123, 184] {
        assert!(signed_after(&orders, day).0.roles.contains(&Role::Targets), "day {day}");
    }
    // Nobody finds a root that waits, which a timer began and could not sign.
    moved("device", "safe");
    let (signed, waits) = signed_after(&orders, 244);
    assert_eq!((signed.roles.last(), waits), (Some(&Role::Timestamp), false));
    assert_eq!((signed.root_expires_at.is_some(), signed.closed[0].role), (true, Role::Root));
    assert!(signed.closed[0].problem.contains("openssl ended with exit status 1"), "{signed:?}");
    moved("safe", "device");
    let (signed, waits) = signed_after(&orders, 245);
    assert_eq!((signed.roles.first(), waits, signed.closed.len()), (Some(&Role::Root), false, 0));
}

#[test]
fn new_keys_are_sealed_with_enough_whoever_made_the_old_ones() {
    let vendor = Vendor::with_feed(&[]);
    let (feed, short, plain) = (vendor.feed(), vendor.path("short"), vendor.path("plain"));
    fs::write(&short, "secret\n").unwrap();
    // As somebody did before there was a rule.
    let key = keys(&vendor, "targets-", ".pem").remove(0);
    fs::write(&plain, opened_elsewhere(&key, &vendor.path("pw")).unwrap()).unwrap();
    let pass = format!("file:{}", text(&short));
    run("openssl", "openssl", &["pkcs8", "-topk8", "-in", text(&plain), "-out", text(&key), "-passout", &pass]);
    let (pw, timer) = (vendor.path("pw"), vendor.path("timer-pw"));
    let of_others = ["--root-passphrase-file", text(&pw), "--online-passphrase-file", text(&timer)];
    let rotate = [&["rotate", &feed, "targets", "--passphrase-file", text(&short)], &of_others[..]].concat();
    let before = listing(&vendor.path("orders"));
    let (code, message) = vendor.bad(&rotate);
    assert_eq!((code, message.contains("fewer than 12 characters")), (2, true), "{message}");
    // What the timer reads would open it.
    let (code, message) = vendor.bad(&[&rotate[..], &["--new-passphrase-file", text(&timer)]].concat());
    assert_eq!((code, message.contains("opens other keys as well")), (2, true), "{message}");
    assert!(listing(&vendor.path("orders")) == before, "nothing was made");
    vendor.good(&[&rotate[..], &["--new-passphrase-file", text(&pw)]].concat());
    vendor.publish("2.4.1", 24);
    vendor.site(&["24/release.toml"]);
}

#[test]
fn a_passphrase_that_was_made_for_nothing_does_not_stay() {
    let vendor = Vendor::with_feed(&[]);
    let (feed, made, other) = (vendor.feed(), vendor.path("made"), vendor.path("other"));
    let create = |dir: &str, online: &Path| {
        let flags = ["--together", "--generate-passphrases", "--passphrase-file", text(&made)];
        vendor.feed_command(&[&["create", dir], &flags[..], &["--online-passphrase-file", text(online)]].concat())
    };
    // The folder is no empty one; the second file is there already.
    assert_eq!(create(&feed, &vendor.path("new-timer-pw")).status.code(), Some(4));
    assert!(!made.exists() && !vendor.path("new-timer-pw").exists());
    let before = fs::read(vendor.path("timer-pw")).unwrap();
    assert_eq!(create(text(&other), &vendor.path("timer-pw")).status.code(), Some(1));
    assert!(!made.exists() && !other.exists());
    assert_eq!(fs::read(vendor.path("timer-pw")).unwrap(), before);
    assert!(create(text(&other), &vendor.path("new-timer-pw")).status.success());
    assert!(made.exists() && other.exists());
}
