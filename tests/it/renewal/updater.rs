//! A site whose program is a file of its own, and releases of Afterhours in its feed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use afterhours::domain::event::Output;
use afterhours::domain::event::RunEvent;
use afterhours::domain::finding::Finding;
use afterhours::domain::run::RunId;
use afterhours::domain::step::Step;
use afterhours::renewal::Renewal;
use afterhours::wire::run::EventsQuery;
use afterhours::wire::run::RunEventView;

use crate::feed_signed::vendor::create_named;
use crate::feed_signed::vendor::vendor;
use crate::night::site::Site;
use crate::night::site::program;

/// What a bad program does instead of coming up.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flaw {
    /// It ends.
    Dies,
    /// It does nothing at all.
    Hangs,
    /// It takes the record's lock and does nothing more.
    HangsWithTheLock,
    /// It changes the store in its own way, and ends.
    RuinsTheStore,
}

impl Flaw {
    fn script(self, store: &Path) -> String {
        match self {
            Self::Dies => "exit 1".to_owned(),
            Self::Hangs => "exec sleep 1000".to_owned(),
            Self::HangsWithTheLock => format!(
                "exec python3 -I -c 'import fcntl, time\n\
                 lock = open(\"{}\", \"w\")\n\
                 fcntl.flock(lock, fcntl.LOCK_EX)\n\
                 time.sleep(1000)'",
                store.with_file_name("renewal/lock").display()
            ),
            Self::RuinsTheStore => format!(
                "exec python3 -I -c 'import sqlite3, os\n\
                 store = sqlite3.connect(\"{}\")\n\
                 store.executescript(\"PRAGMA user_version = 99; DROP TABLE run_events; CREATE TABLE new (x)\")\n\
                 os.abort()'",
                store.display()
            ),
        }
    }
}

/// A site that runs a copy of the program, and gives a new one little time.
pub(crate) async fn site() -> Site {
    let mut site = Site::new().await;
    own_program(&mut site);
    site
}

/// Gives a site a program of its own.
pub(crate) fn own_program(site: &mut Site) {
    fs_err::create_dir(site.path("bin")).unwrap();
    let own = site.path("bin/afterhours");
    // Without what a debugger needs it is a fifth of the size.
    let stripped = Command::new("strip").arg("-o").arg(&own).arg(program()).status().unwrap();
    assert!(stripped.success());
    site.use_program(own);
    // The new program rehearses as somebody else, and has to come here.
    fs_err::set_permissions(site.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    site.reconfigure("[daemon]\n", "[daemon]\nself_update_deadline = \"4s\"\n");
    fs_err::create_dir(site.path("makers")).unwrap();
    create_named(&site.path("makers"), "afterhours", &["--updater"]);
    trust_makers(site, &site.path("makers"));
}

/// From now on, whoever has the keys below `makers` vouches for an Afterhours at a site.
pub(crate) fn trust_makers(site: &Site, makers: &Path) {
    let root = makers.join("afterhours/root.json");
    let others: Vec<String> = site
        .read("afterhours.toml")
        .lines()
        .filter(|line| !line.starts_with("self_update_root"))
        .map(str::to_owned)
        .collect();
    let text = others.join("\n").replacen("[daemon]", &format!("[daemon]\nself_update_root = {root:?}"), 1);
    fs_err::write(site.path("afterhours.toml"), text + "\n").unwrap();
}

/// Publishes a file as Afterhours for this kind of machine, with the keys below `makers`.
pub(crate) fn publish_by(makers: &Path, version: &str, build: u64, file: &[u8]) {
    let (program, feed) = (makers.join("program"), makers.join("afterhours"));
    fs_err::write(&program, file).unwrap();
    let (machine, build) = (Renewal::machine(), build.to_string());
    let what = ["--updater", "--triple", &machine, "--binary", program.to_str().unwrap()];
    let id = ["publish", feed.to_str().unwrap(), "--version", version, "--build", &build];
    vendor(makers, &[&id[..], &what[..]].concat());
}

/// The program as it stands in its place.
pub(crate) fn in_place(site: &Site) -> Vec<u8> {
    fs_err::read(site.path("bin/afterhours")).unwrap()
}

/// Publishes a good Afterhours; its file.
pub(crate) fn publish_good(site: &Site, version: &str, build: u64) -> Vec<u8> {
    let file = good_program(site, version, build);
    publish(site, version, build, &file);
    file
}

/// The program of a good build: the one under test, with another version in the place of its own and a byte more at its
/// end.
pub(crate) fn good_program(site: &Site, version: &str, build: u64) -> Vec<u8> {
    let (own, mut file) = (env!("CARGO_PKG_VERSION").as_bytes(), in_place(site));
    assert_eq!(version.len(), own.len(), "nothing in the file may move");
    let places: Vec<usize> = (0..file.len() - own.len()).filter(|place| file[*place..].starts_with(own)).collect();
    for place in places {
        file[place..place + own.len()].copy_from_slice(version.as_bytes());
    }
    file.push(u8::try_from(build).unwrap());
    file
}

/// Publishes one that rehearses well and then fails.
pub(crate) fn publish_bad(site: &Site, version: &str, build: u64, flaw: Flaw) {
    publish(site, version, build, &bad_program(site, version, flaw));
}

/// The program of a bad build.
pub(crate) fn bad_program(site: &Site, version: &str, flaw: Flaw) -> Vec<u8> {
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--rehearse*) {} \"$@\" | sed s/{}/{version}/; exit;; esac\n{}\n",
        site.path("bin/afterhours").display(),
        env!("CARGO_PKG_VERSION"),
        flaw.script(&site.path("state/afterhours.db"))
    );
    script.into_bytes()
}

/// Publishes any file as Afterhours, and has the application's directory carry it.
pub(crate) fn publish(site: &Site, version: &str, build: u64, file: &[u8]) {
    publish_by(&site.path("makers"), version, build, file);
    let (from, to) = (site.path("makers/afterhours/published"), site.path("feed/afterhours"));
    assert!(Command::new("cp").args(["-a", "-T"]).args([from, to]).status().unwrap().success());
}

/// What the step said, and what it found.
pub(crate) async fn said(site: &Site, run: RunId) -> (String, Vec<Finding>) {
    let mut events = site.client().run_events(run, EventsQuery { follow: false, after: 0 }).await.unwrap();
    while let Some(line) = events.next().await.unwrap() {
        if let RunEventView::Event { event: RunEvent::StepSucceeded { at, output, message }, .. } = line
            && at.step == Step::SelfUpdate
        {
            let findings = match output {
                Output::Checked { findings, .. } => findings,
                _ => Vec::new(),
            };
            return (message, findings);
        }
    }
    panic!("the step was not done");
}

/// The record that outlives both programs.
pub(crate) fn record(site: &Site) -> serde_json::Value {
    serde_json::from_str(&site.read("state/renewal/record.json")).unwrap_or_default()
}

pub(crate) fn folder(site: &Site) -> PathBuf {
    site.path("bin/.afterhours.renewal")
}
