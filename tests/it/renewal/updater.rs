//! A site whose program is a file of its own, and releases of Afterhours in its feed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use afterhours::domain::event::Output;
use afterhours::domain::event::RunEvent;
use afterhours::domain::finding::Finding;
use afterhours::domain::release::ReleaseId;
use afterhours::domain::run::RunId;
use afterhours::domain::step::Step;
use afterhours::feed::pack::PackMeta;
use afterhours::feed::pack::pack;
use afterhours::renewal::Renewal;
use afterhours::wire::run::EventsQuery;
use afterhours::wire::run::RunEventView;

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
    site.reconfigure("[daemon]\n", "[daemon]\nself_update_deadline = \"4s\"\n");
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

/// Publishes any file as Afterhours.
pub(crate) fn publish(site: &Site, version: &str, build: u64, file: &[u8]) {
    let tree = tempfile::tempdir().unwrap();
    let program = tree.path().join("afterhours");
    fs_err::write(&program, file).unwrap();
    fs_err::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let id = ReleaseId { version: version.parse().unwrap(), build };
    let packed = pack(tree.path(), &PackMeta::new(id), &site.path("feed/.new")).unwrap();
    // One archive for each kind of machine; the description is the last to be right.
    let (was, is) = (format!("{version}.tar.zst"), format!("afterhours-{}.tar.zst", Renewal::machine()));
    fs_err::rename(packed.location.join(&was), packed.location.join(&is)).unwrap();
    let description = packed.location.join("release.toml");
    let text = fs_err::read_to_string(&description).unwrap().replace(&was, &is);
    fs_err::write(&description, text).unwrap();
    let folder = site.path("feed/updater");
    fs_err::create_dir_all(&folder).unwrap();
    fs_err::rename(&packed.location, folder.join(build.to_string())).unwrap();
}

/// What the step said, and what it found.
pub(crate) async fn said(site: &Site, run: RunId) -> (String, Vec<Finding>) {
    let mut events = site.client().run_events(run, EventsQuery { follow: false, after: 0 }).await.unwrap();
    while let Some(line) = events.next().await.unwrap() {
        if let RunEventView::Event { event: RunEvent::StepSucceeded { at, output, message }, .. } = line
            && at.step == Step::SelfUpdate
        {
            let findings = match output {
                Output::Checked { findings } => findings,
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
