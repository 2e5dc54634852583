//! What root goes by, where others can change it: refused before anything is done, as `sudo` and `cron` do.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use afterhours::feed::FeedError;
use afterhours::feed::dir::DirFeed;

use crate::support::users::APP;
use crate::support::users::account;

/// A configuration of root's, with the application's password file beside it.
fn scene() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs_err::set_permissions(root, std::fs::Permissions::from_mode(0o755)).unwrap();
    fs_err::create_dir_all(root.join("feed")).unwrap();
    fs_err::create_dir_all(root.join("opt/orders")).unwrap();
    fs_err::write(root.join("password"), "sesame\n").unwrap();
    fs_err::set_permissions(root.join("password"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = "[daemon]\ndata_dir = \"DIR/state\"\nsocket = \"DIR/s\"\n\
        mail = { smtp = \"smtp://mail.example.com\", from = \"a@example.com\", user = \"a\", password_file = \"DIR/password\" }\n\
        [app.orders]\ninstall_dir = \"DIR/opt/orders\"\nservice = { none = true }\nfeed = { dir = \"DIR/feed\" }\n";
    fs_err::write(root.join("afterhours.toml"), text.replace("DIR", &root.display().to_string())).unwrap();
    dir
}

/// The exit code of a command, and what it said.
fn said(root: &Path, args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterhours"));
    let output = command.arg("--config").arg(root.join("afterhours.toml")).args(args).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_configuration_password_or_data_directory_that_others_can_write_is_refused() {
    for name in ["afterhours.toml", "password", "state"] {
        for mode in [None, Some(0o666)] {
            let dir = scene();
            let root = dir.path();
            fs_err::create_dir(root.join("state")).unwrap();
            match mode {
                None => chown(root.join(name), Some(account(APP).uid), None).unwrap(),
                Some(mode) => fs_err::set_permissions(root.join(name), std::fs::Permissions::from_mode(mode)).unwrap(),
            }
            for args in [&["serve"][..], &["update", "check", "orders"], &["doctor", "orders"]] {
                let (code, text) = said(root, args);
                assert_eq!(code, 2, "{name} {args:?}: {text}");
                assert!(text.contains("others than root"), "{name}: {text}");
                let remedy = if mode.is_some() { "chmod go-w " } else { "chown root " };
                assert!(text.contains(&format!("{remedy}{}", root.join(name).display())), "{name}: {text}");
            }
            assert_eq!(fs_err::read_dir(root.join("state")).unwrap().count(), 0, "nothing was made in it");
        }
    }
}

#[test]
fn a_directory_above_the_configuration_that_is_somebody_elses_is_refused() {
    let dir = scene();
    chown(dir.path(), Some(account(APP).uid), None).unwrap();
    let (code, text) = said(dir.path(), &["doctor", "orders"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains(&format!("belongs to {APP}")), "{text}");
}

#[test]
fn the_daemon_does_not_start_where_others_can_write_into_an_unsigned_feed() {
    let dir = scene();
    let feed = dir.path().join("feed");
    fs_err::set_permissions(&feed, std::fs::Permissions::from_mode(0o777)).unwrap();
    let (code, text) = said(dir.path(), &["serve"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("others than root") && text.contains(&format!("chmod go-w {}", feed.display())), "{text}");
    assert!(!dir.path().join("state").exists(), "nothing was made");
}

/// Every file with a secret is named, whatever it is for.
#[test]
fn secrets_that_others_can_read_are_named() {
    let dir = scene();
    let root = dir.path();
    let config = fs_err::read_to_string(root.join("afterhours.toml")).unwrap();
    let feed = "feed = { url = \"http://127.0.0.1:1/\", proxy = \"http://127.0.0.1:1\", proxy_user = \"a\", \
        proxy_password_file = \"DIR/proxy\", licence_file = \"DIR/licence\" }\n\
        backup = { evidence = { borg = \"DIR/borg\", passphrase_file = \"DIR/borg-pass\" } }"
        .replace("DIR", &root.display().to_string());
    let old = format!("feed = {{ dir = \"{}/feed\" }}", root.display());
    assert!(config.contains(&old));
    fs_err::write(root.join("afterhours.toml"), config.replace(&old, &feed)).unwrap();
    let secrets = ["password", "proxy", "licence", "borg-pass"];
    for secret in secrets {
        fs_err::write(root.join(secret), "sesame\n").unwrap();
        fs_err::set_permissions(root.join(secret), std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let told = |secret: &str| format!("chmod go-r {}", root.join(secret).display());
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterhours"));
    command.arg("--config").arg(root.join("afterhours.toml")).args(["doctor", "orders", "--json"]);
    let found = String::from_utf8(command.output().unwrap().stdout).unwrap();
    for secret in secrets {
        assert!(found.contains(&told(secret)), "{secret}: {found}");
        fs_err::set_permissions(root.join(secret), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let found = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(!found.contains("chmod go-r"), "{found}");
}

/// Puts lines into the configuration, and asks `doctor` for everything it finds.
fn doctor_with(root: &Path, of_daemon: &str, of_app: &str) -> (i32, String) {
    let config = root.join("afterhours.toml");
    let text = fs_err::read_to_string(&config).unwrap();
    let text = text.replacen("[daemon]\n", &format!("[daemon]\n{of_daemon}\n"), 1);
    fs_err::write(&config, format!("{text}{of_app}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterhours"));
    let output = command.arg("--config").arg(config).args(["doctor", "orders"]).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn without_its_root_of_trust_afterhours_stays_as_it_is_and_everything_else_goes_on() {
    let dir = scene();
    let absent = dir.path().join("root.json");
    let line = format!("self_update_root = {absent:?}");
    let text = doctor_with(dir.path(), &line, "").1;
    assert!(text.contains("Afterhours does not update itself: failed to rely on self_update_root"), "{text}");
    assert!(text.contains("correct self_update_root in [daemon], or take it out"), "{text}");
    // One that others can write is another matter.
    fs_err::write(&absent, "{}").unwrap();
    fs_err::set_permissions(&absent, std::fs::Permissions::from_mode(0o666)).unwrap();
    let (code, text) = doctor_with(dir.path(), "", "");
    assert!(code != 0 && text.contains("can be written by everybody"), "{text}");
    assert!(!text.contains("feed_reachable"), "nothing is looked at: {text}");
}

#[test]
fn a_hook_whose_program_is_absent_is_found_before_the_night() {
    for owner in [None, Some(account(APP).uid)] {
        let dir = scene();
        chown(dir.path().join("opt/orders"), owner, None).unwrap();
        let hooks = "hooks = { before_stop = [\"/nonexistent/hook\"], after_start = [\"true\"] }";
        let (code, text) = doctor_with(dir.path(), "", hooks);
        assert_ne!(code, 0, "{text}");
        assert!(text.contains("FATAL    commands: the command `hooks.before_stop` cannot be run"), "{text}");
        assert!(text.contains("there is no program /nonexistent/hook") && !text.contains("after_start"), "{text}");
    }
}

#[tokio::test]
async fn a_feed_directory_that_others_can_write_gives_no_release() {
    let dir = scene();
    let feed = dir.path().join("feed");
    assert!(DirFeed::new(&feed).releases().await.unwrap().is_empty());
    fs_err::set_permissions(&feed, std::fs::Permissions::from_mode(0o1777)).unwrap();
    let error = DirFeed::new(&feed).releases().await.unwrap_err();
    assert!(matches!(error, FeedError::Untrusted { .. }), "{error}");
    assert_eq!(error.hint().unwrap(), format!("chmod go-w {}", feed.display()));
}
