//! Commands of an application whose files belong to the application's user: none of them lends root's rights.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use afterhours::domain::release::ReleaseId;
use afterhours::domain::run::Outcome;
use afterhours::exec::leftover;
use afterhours::feed::pack::PackMeta;
use afterhours::feed::pack::pack;

use crate::night::releases::Edition;
use crate::night::releases::V2;
use crate::night::site::Site;
use crate::support::users::APP;
use crate::support::users::STRANGER;
use crate::support::users::account;
use crate::support::users::as_user;

/// What the application's user has put into a file of its own tree: it tells who runs it, whether it could gain rights,
/// and what it can see; and it tries to write where only root may.
const CTL: &str = r#"#!/bin/sh
secrets=$(env | grep -c -E 'hunter2|NOTIFY_SOCKET|CREDENTIALS_DIRECTORY')
echo "$1 $(id -u) $(id -G | tr ' ' ,) $(DIR/set-uid -u) secrets:$secrets" >> DIR/said/log
echo owned >> DIR/roots-own
echo "it said $1" > /dev/stderr
case $1 in
make) echo orders > DIR/backup/orders.dump ;;
test) cat "$2" > /dev/null ;;
dump) cat DIR/data/orders > "$AFTERHOURS_SNAPSHOT" ;;
verify) test -s "$AFTERHOURS_SNAPSHOT" ;;
restore) cat "$AFTERHOURS_SNAPSHOT" > DIR/data/orders ;;
list) test -e DIR/said/anna && echo '[{"id": 7, "user": "anna"}]' || echo '[]' ;;
kick) rm -f DIR/said/anna ;;
start) cd DIR/opt/orders && setsid python3 -I -S desk.py "$2" < /dev/null > /dev/null 2>&1 & ;;
stop) kill "$(cat DIR/pid)" ;;
status) kill -0 "$(cat DIR/pid)" || exit 3 ;;
migrate) echo spoilt > DIR/data/orders ;;
deep) test "$(cat DIR/opt/orders/version)" = 1.0 ;;
run) exec python3 -I -S desk.py "$2" ;;
esac
"#;

/// Every command there is, in the tree.
const SETTINGS: [(&str, &str); 9] = [
    ("keep", r#"["ctl"]"#),
    ("service", r#"{ run = ["DIR/opt/orders/ctl", "run", "PORT"], deadline = "15s", port = "127.0.0.1:PORT" }"#),
    (
        "health",
        r#"{ command = ["DIR/opt/orders/ctl", "health"], deep = ["DIR/opt/orders/ctl", "deep"], times = 1, every = "30ms", deadline = "5s" }"#,
    ),
    (
        "data",
        r#"{ dump = ["DIR/opt/orders/ctl", "dump"], restore = ["DIR/opt/orders/ctl", "restore"], verify = ["DIR/opt/orders/ctl", "verify"] }"#,
    ),
    (
        "backup",
        r#"{ make = ["DIR/opt/orders/ctl", "make"], evidence = { files = "DIR/backup/*.dump", test = ["DIR/opt/orders/ctl", "test", "{}"] } }"#,
    ),
    ("sessions", r#"[{ list = ["DIR/opt/orders/ctl", "list"] }]"#),
    ("gate", r#"[{ close = ["DIR/opt/orders/ctl", "close"], open = ["DIR/opt/orders/ctl", "open"] }]"#),
    (
        "hooks",
        r#"{ before_stop = ["DIR/opt/orders/ctl", "before_stop"], after_start = ["DIR/opt/orders/ctl", "after_start"] }"#,
    ),
    ("grace", r#""0s""#),
];
const COMMANDS: [&str; 14] = [
    "run",
    "health",
    "deep",
    "dump",
    "verify",
    "restore",
    "make",
    "test",
    "list",
    "close",
    "open",
    "before_stop",
    "after_start",
    "migrate",
];

fn chmod(path: &Path, mode: u32) {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn give(path: &Path) {
    let user = account(APP);
    for entry in walkdir::WalkDir::new(path) {
        std::os::unix::fs::lchown(entry.unwrap().path(), Some(user.uid), Some(user.gid)).unwrap();
    }
}

fn script(path: &Path, text: &str, site: &Site) {
    fs_err::write(path, text.replace("DIR", &site.path("").display().to_string())).unwrap();
    chmod(path, 0o755);
}

/// A site whose tree and data are the application's user's; only root may write to `roots-own`.
async fn site(settings: &[(&str, &str)]) -> Site {
    let mut site = Site::with(settings).await;
    site.let_go_of_the_port();
    chmod(&site.path(""), 0o711);
    for folder in ["said", "backup"] {
        fs_err::create_dir(site.path(folder)).unwrap();
    }
    fs_err::write(site.path("roots-own"), "").unwrap();
    fs_err::copy("/usr/bin/id", site.path("set-uid")).unwrap();
    chmod(&site.path("set-uid"), 0o4755);
    script(&site.installed().join("ctl"), CTL, &site);
    // The desk writes these beside its data.
    for file in ["alone", "pid"] {
        fs_err::write(site.path(file), "").unwrap();
    }
    for owned in ["opt/orders", "data", "said", "backup", "alone", "pid"] {
        give(&site.path(owned));
    }
    site
}

/// What was said by a command that was not the application's user's, or saw what is root's.
fn strangers(site: &Site) -> Vec<String> {
    let user = account(APP);
    let (uid, groups) = (user.uid, user.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
    let good = |line: &str| line.ends_with(&format!(" {uid} {groups} {uid} secrets:0"));
    site.read("said/log").lines().filter(|line| !good(line)).map(str::to_owned).collect()
}

/// A night in which every command is run once at least: the new version is not well, so that the data are put back.
#[tokio::test]
async fn a_line_in_a_file_of_the_application_does_not_run_as_root() {
    let mut site = site(&SETTINGS).await;
    site.env.extend([
        ("HTTPS_PROXY", "http://proxy:hunter2@127.0.0.1:1"),
        ("NOTIFY_SOCKET", "/nowhere/notify"),
        ("CREDENTIALS_DIRECTORY", "/nowhere/credentials"),
    ]);
    Edition { migrate: Some(&["./ctl", "migrate"]), ..V2 }.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(view.outcome, Some(Outcome::RolledBack), "{view:#?}");
    assert_eq!(site.orders(), ["first", "second"]);
    let said = site.read("said/log");
    let silent = COMMANDS.iter().find(|name| !said.lines().any(|line| line.starts_with(&format!("{name} "))));
    assert_eq!(silent, None, "{said}");
    assert_eq!(strangers(&site), Vec::<String>::new());
    assert_eq!(site.read("roots-own"), "");
}

/// A night in which somebody is told and logged out, by a service that is started and stopped by commands.
#[tokio::test]
async fn who_logs_people_out_and_starts_and_stops_is_not_root() {
    const SETTINGS: [(&str, &str); 4] = [
        ("keep", r#"["ctl"]"#),
        (
            "service",
            r#"{ start = ["DIR/opt/orders/ctl", "start", "PORT"], stop = ["DIR/opt/orders/ctl", "stop"], status = ["DIR/opt/orders/ctl", "status"], deadline = "15s", port = "127.0.0.1:PORT" }"#,
        ),
        (
            "sessions",
            r#"[{ list = ["DIR/opt/orders/ctl", "list"], message = ["DIR/opt/orders/ctl", "tell"], end = ["DIR/opt/orders/ctl", "kick"] }]"#,
        ),
        ("grace", r#""1s""#),
    ];
    let mut site = site(&SETTINGS).await;
    let settings = site.read("afterhours.toml");
    let port = settings.split("http://127.0.0.1:").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
    let mut start = as_user(APP, site.installed().join("ctl"));
    assert!(start.args(["start", port]).env("NIGHT_SITE", site.path("")).status().unwrap().success());
    fs_err::write(site.path("said/anna"), "").unwrap();
    give(&site.path("said"));
    V2.publish(&site.feed());
    site.open().await;
    // What was said so far was said by us.
    fs_err::write(site.path("said/log"), "").unwrap();
    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded), "{view:#?}");
    site.desk_answers("2.0").await;
    let said = site.read("said/log");
    for name in ["list", "tell", "kick", "stop", "status", "start"] {
        assert!(said.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}: {said}");
    }
    assert_eq!(strangers(&site), Vec::<String>::new());
    assert_eq!(site.read("roots-own"), "");
}

/// `doctor` is what an administrator types first, as root.
#[tokio::test]
async fn doctor_runs_nothing_of_the_application_as_root() {
    let site = site(&SETTINGS).await;
    let (_, shown, said) = site.run(&["doctor"]).await;
    assert!(site.read("said/log").contains("health "), "{shown}{said}");
    assert_eq!(strangers(&site), Vec::<String>::new());
    assert_eq!(site.read("roots-own"), "");
}

#[tokio::test]
async fn root_does_not_run_what_the_application_can_write() {
    const HOOK: (&str, &str) = ("hooks", r#"{ before_stop = { argv = ["sh", "DIR/opt/orders/ctl"], as = "root" } }"#);
    let mut site = site(&[HOOK]).await;
    let (code, shown, said) = site.run(&["doctor"]).await;
    assert_ne!(code, 0, "{shown}{said}");
    for part in ["hooks.before_stop", "belongs to afterhours-app", "chown root", "leave `as` away"] {
        assert!(shown.contains(part), "{part}: {shown}{said}");
    }
    V2.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    assert_eq!(site.settled(run).await.outcome, Some(Outcome::Failed));
    assert_eq!((site.read("said/log").as_str(), site.read("roots-own").as_str()), ("", ""));
    site.desk_answers("1.0").await;
}

#[tokio::test]
async fn a_supervised_program_that_the_application_can_write_is_not_started_as_root() {
    const RUN: (&str, &str) =
        ("service", r#"{ run = ["DIR/opt/orders/ctl", "run", "PORT"], user = "root", deadline = "5s" }"#);
    let site = site(&[RUN]).await;
    let (code, shown, said) = site.run(&["doctor"]).await;
    assert_ne!(code, 0, "{shown}{said}");
    assert!(shown.contains("service.run") && shown.contains("chown root"), "{shown}{said}");
    assert_eq!(site.read("roots-own"), "");
}

const AS_ROOT: &str = "#!/bin/sh\nid -u > DIR/migrated-by\necho 2 > DIR/data/schema\n";

/// A release whose migration says that it must be root; `mine.sh` is in its tree, and what else is said.
fn publish_for_root(site: &Site, migration: &str, more: &[(&str, &str)]) {
    let tree = tempfile::tempdir().unwrap();
    V2.tree(tree.path());
    for (name, text) in [&[("mine.sh", migration)], more].concat() {
        fs_err::create_dir_all(tree.path().join(name).parent().unwrap()).unwrap();
        script(&tree.path().join(name), text, site);
    }
    let meta = PackMeta {
        migrate: Some(vec!["./mine.sh".to_owned()]),
        migrate_as_root: true,
        ..PackMeta::new(ReleaseId { version: "2.0".parse().unwrap(), build: 2 })
    };
    pack(tree.path(), &meta, &site.feed()).unwrap();
}

/// A vendor's migration may read the settings beside it as a program; what it finds there is its own.
#[tokio::test]
async fn a_line_in_a_kept_file_does_not_run_as_root() {
    const SETTINGS: [(&str, &str); 3] = [
        ("allow_migrate_as_root", "true"),
        ("keep", r#"["config/**", "plugins/*.on", "extra"]"#),
        ("data", r#"{ paths = ["DIR/data", "DIR/opt/orders/var"] }"#),
    ];
    const MIGRATION: &str = "#!/bin/sh\ncd \"$(dirname \"$0\")\" || exit 1\nfor part in config/*.sh plugins/* extra/* var/*; do \
                             . \"./$part\"; done >> DIR/sourced\nid -u > DIR/migrated-by\necho 2 > DIR/data/schema\n";
    const OWNED: &str = "echo kept; echo owned >> DIR/roots-own\n";
    let mut site = site(&SETTINGS).await;
    let installed = site.installed();
    // What is kept is longer, of the same length, without a model, a link in place of a directory, and data.
    for (name, text) in [
        ("config/settings.sh", OWNED),
        ("config/same.sh", "echo kept #\n"),
        ("config/mine.sh", OWNED),
        ("extra", OWNED),
    ] {
        script(&installed.join(name), text, &site);
    }
    for folder in ["opt/orders/var", "said/plugins"] {
        fs_err::create_dir_all(site.path(folder)).unwrap();
        script(&site.path(folder).join("run.sh"), OWNED, &site);
    }
    script(&site.path("said/plugins/a.on"), OWNED, &site);
    std::os::unix::fs::symlink(site.path("said/plugins"), installed.join("plugins")).unwrap();
    give(&installed);
    give(&site.path("said"));
    let vendors = [
        ("config/settings.sh", "echo settings\n"),
        ("config/same.sh", "echo same #\n"),
        ("plugins/a.on", "echo a\n"),
        ("plugins/run.sh", "echo run\n"),
        ("extra/part.sh", "echo part\n"),
        ("var/seed.sh", "echo seed\n"),
    ];
    publish_for_root(&site, MIGRATION, &vendors);
    site.open().await;
    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded), "{view:#?}");
    let words: Vec<String> = site.read("sourced").lines().map(str::to_owned).collect();
    assert_eq!(words, ["same", "settings", "a", "run", "part", "seed"]);
    assert_eq!((site.read("roots-own").as_str(), site.read("migrated-by").as_str()), ("", "0"));
    // In place is what was kept.
    assert!(site.read("opt/orders/config/settings.sh").contains("kept"));
    assert!(installed.join("plugins").is_symlink() && installed.join("var/run.sh").exists());
}

#[tokio::test]
async fn a_migration_is_root_only_where_the_site_allows_it() {
    let mut site = site(&[]).await;
    publish_for_root(&site, AS_ROOT, &[]);
    site.open().await;
    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(view.outcome, Some(Outcome::Failed), "{view:#?}");
    assert!(format!("{view:?}").contains("allow_migrate_as_root"), "{view:#?}");
    site.desk_answers("1.0").await;
    site.stop().await;

    site.reconfigure("[app.orders]\n", "[app.orders]\nallow_migrate_as_root = true\n");
    site.open().await;
    let run = site.update().await;
    let view = site.settled(run).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded), "{view:#?}");
    assert_eq!(site.read("migrated-by"), "0");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs_err::metadata(site.installed()).unwrap()), account(APP).uid);
}

/// What outlives us is found by a mark in its environment. Somebody else's processes are not claimed by it, nor root's by
/// the application's.
#[tokio::test]
async fn a_mark_claims_only_processes_of_the_user_it_was_given_to() {
    let secret = uuid::Uuid::new_v4().to_string();
    let mark = |uid: u32| leftover::mark_of(&secret, uid);
    let app = account(APP).uid;
    let start = |user: &str, mark: String| {
        let mut command = as_user(user, "sleep");
        command.arg("1000").env(leftover::MARK, mark).process_group(0).spawn().unwrap()
    };
    let mut ours = start(APP, mark(app));
    // The stranger has read it somewhere; the application's user has what it was given, and a process of root's has it, too.
    let mut theirs = [start(STRANGER, mark(app)), start("root", mark(app)), start(STRANGER, secret.clone())];
    let wanted = secret.clone();
    let is_mark = move |uid: u32, variable: &[u8]| {
        variable == format!("{}={}", leftover::MARK, leftover::mark_of(&wanted, uid)).as_bytes()
    };
    assert_eq!(leftover::end(is_mark).await, Ok(vec![ours.id()]));
    ours.wait().unwrap();
    for process in &mut theirs {
        assert!(process.try_wait().unwrap().is_none(), "it lives");
        process.kill().unwrap();
        process.wait().unwrap();
    }
}
