//! Everything that can fail does, once: the old version runs with its own data, and one report says why.

use afterhours::domain::run::Outcome;

use super::releases::Edition;
use super::releases::SICK;
use super::releases::V1;
use super::releases::V2;
use super::site::Site;
use super::truth::Left;
use crate::install::mounted::Mounted;

/// Runs to a bad end; its cause must say `because`.
async fn ends_badly(mut site: Site, edition: Edition, outcome: Outcome, because: &[&str]) -> Site {
    edition.publish(&site.feed());
    site.open().await;
    let run = site.update().await;
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(outcome), "{run:#?}\n{}", site.read("log"));
    assert_eq!(site.must_be_whole(&run, &[edition], &["first", "second"]).await, Left::Old);
    let cause = run.cause.unwrap();
    for part in because {
        assert!(cause.to_string().contains(part), "{cause}");
    }
    site.reports(1).await;
    let mail = &site.mail.taken()[0];
    assert!(because.iter().all(|part| mail.content.contains(&part.replace('_', " "))), "{}", mail.content);
    site
}

#[tokio::test]
async fn the_migration_says_no() {
    let says_no = Edition { migrate: Some(&["sh", "-c", "echo 'no licence' >&2; exit 1"]), ..V2 };
    ends_badly(Site::new().await, says_no, Outcome::RolledBack, &["migrate_data", "no licence"]).await;
}

/// Everything in the bundle of a run, as one text.
async fn bundle(site: &Site) -> String {
    let file = site.path("bundle.tar.zst");
    let (code, _, said) = site.run(&["run", "bundle", "1", "-o", file.to_str().unwrap()]).await;
    assert_eq!(code, 0, "{said}");
    String::from_utf8_lossy(&zstd::decode_all(fs_err::File::open(&file).unwrap()).unwrap()).into_owned()
}

#[tokio::test]
async fn what_the_migration_said_is_told_without_its_secrets() {
    const SCRIPT: &str = "echo checking; echo connecting to db://desk:$(cat $NIGHT_SITE/secret)@db >&2; \
                          echo order 7 has no date >&2; echo PASSWORD=$(cat $NIGHT_SITE/secret) refused >&2; exit 1";
    let complains = Edition { migrate: Some(&["sh", "-c", SCRIPT]), ..V2 };
    let site = Site::new().await;
    fs_err::write(site.path("secret"), "hunter2").unwrap();
    let site = ends_badly(site, complains, Outcome::RolledBack, &["migrate_data", "PASSWORD=*** refused"]).await;
    let shown = site.run(&["run", "show", "1"]).await.1;
    let (bundle, mail) = (bundle(&site).await, site.mail.taken()[0].content.clone());
    for text in [&shown, &mail, &bundle] {
        for line in ["checking", "connecting to db://***@db", "order 7 has no date"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert!(!site.read("log").contains("hunter2"));
}

#[tokio::test]
async fn what_the_application_said_before_it_ended_is_told_without_its_secrets() {
    // It cannot start, and what it says has the secret of its environment in it.
    let run = "echo url=http://desk:$(cat DIR/secret)@db >&2; test -e dies && exit 1; exec python3 -I -S desk.py PORT";
    let service = format!("{{ run = [\"sh\", \"-c\", \"{run}\"], deadline = \"15s\", port = \"127.0.0.1:PORT\" }}");
    let quick = ("health", "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"2s\" }");
    let site = Site::with(&[quick, ("service", &service)]).await;
    fs_err::write(site.path("secret"), "hunter2").unwrap();
    let dies = Edition { flaw: Some("dies"), ..V2 };
    let site = ends_badly(site, dies, Outcome::RolledBack, &["url=http://***@db"]).await;
    for text in [bundle(&site).await, site.mail.taken()[0].content.clone(), site.run(&["run", "show", "1"]).await.1] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn the_migration_spoils_half_of_the_data() {
    const SCRIPT: &str =
        "echo spoilt > $NIGHT_SITE/data/orders; rm $NIGHT_SITE/data/schema; mkdir $NIGHT_SITE/data/schema; exit 1";
    let spoils = Edition { migrate: Some(&["sh", "-c", SCRIPT]), ..V2 };
    ends_badly(Site::new().await, spoils, Outcome::RolledBack, &["migrate_data"]).await;
}

#[tokio::test]
async fn the_migration_hangs() {
    let hangs = Edition { migrate: Some(&["sh", "-c", "sleep 1000 & wait"]), ..V2 };
    let site = Site::with(&[("hooks", "{ deadline = \"500ms\" }")]).await;
    ends_badly(site, hangs, Outcome::RolledBack, &["did not end within 500ms"]).await;
}

#[tokio::test]
async fn the_new_version_is_never_healthy() {
    let quick = ("health", "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"2s\" }");
    ends_badly(Site::with(&[quick]).await, SICK, Outcome::RolledBack, &["check_health"]).await;
}

#[tokio::test]
async fn the_new_version_dies_at_once() {
    let quick = ("health", "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"2s\" }");
    let dies = Edition { flaw: Some("dies"), ..V2 };
    ends_badly(Site::with(&[quick]).await, dies, Outcome::RolledBack, &[]).await;
}

#[tokio::test]
async fn the_hook_before_the_stop_says_no() {
    let site = Site::with(&[("hooks", "{ before_stop = [\"false\"] }")]).await;
    let site = ends_badly(site, V2, Outcome::RolledBack, &["stop", "false ended with exit status 1"]).await;
    assert_eq!(site.read("data/starts"), "1.0", "it was never stopped");
}

#[tokio::test]
async fn the_backup_is_too_old_and_none_can_be_made() {
    let backup = ("backup", "{ max_age = \"1d\", evidence = { files = \"DIR/backup/*.dump\" }, make = [\"false\"] }");
    let site = Site::with(&[backup]).await;
    fs_err::create_dir(site.path("backup")).unwrap();
    let site = ends_badly(site, V2, Outcome::Failed, &["false"]).await;
    assert_eq!(site.read("data/starts"), "1.0", "nobody was disturbed");
}

#[tokio::test]
async fn nobody_knows_who_is_logged_in() {
    let list = "test -e DIR/opt/.orders.afterhours/staged/2.0+2 && exit 1; echo '[]'";
    let end = "touch DIR/somebody-was-logged-out";
    let sessions = format!("[{{ list = [\"sh\", \"-c\", \"{list}\"], end = [\"sh\", \"-c\", \"{end}\"] }}]");
    let site = Site::with(&[("sessions", &sessions), ("grace", "\"1s\"")]).await;
    let site = ends_badly(site, V2, Outcome::Failed, &["find out who is logged in"]).await;
    assert!(!site.path("somebody-was-logged-out").exists());
    assert_eq!(site.read("data/starts"), "1.0", "nobody was disturbed");
}

#[tokio::test]
async fn the_stop_command_hangs() {
    let start = "cd DIR/opt/orders && setsid python3 -I -S desk.py PORT </dev/null >/dev/null 2>&1 &";
    let status = "kill -0 $(cat DIR/pid) || exit 3";
    let service = format!(
        "{{ start = [\"sh\", \"-c\", \"{start}\"], stop = [\"sleep\", \"1000\"], status = [\"sh\", \"-c\", \"{status}\"], deadline = \"2s\" }}"
    );
    let site = Site::with(&[("service", &service)]).await;
    site.start_desk_by_hand().await;
    ends_badly(site, V2, Outcome::RolledBack, &["stop", "sleep"]).await;
}

#[tokio::test]
async fn there_is_no_room_beside_the_installation() {
    let (site, _disk) = on_a_small_disk(256, &[]).await;
    // It does not even begin.
    let large = Edition { large: true, ..V2 };
    let site = ends_badly(site, large, Outcome::Failed, &["begin"]).await;
    assert_eq!(site.read("data/starts"), "1.0", "nobody was disturbed");
}

#[tokio::test]
async fn the_disk_fills_up_in_the_middle() {
    let fill = ("hooks", "{ before_stop = [\"sh\", \"-c\", \"cat /dev/zero > DIR/opt/filler; true\"] }");
    let (site, _disk) = on_a_small_disk(2048, &[fill]).await;
    let site = ends_badly(site, V2, Outcome::RolledBack, &["No space left on device"]).await;
    assert!(site.path("opt/filler").exists());
}

/// A site whose installation is on a disk of its own, of so many KiB.
async fn on_a_small_disk(kib: u32, settings: &[(&str, &str)]) -> (Site, Mounted) {
    let disk = Mounted::tmpfs(kib);
    let site = Site::with(settings).await;
    fs_err::remove_dir_all(site.path("opt")).unwrap();
    std::os::unix::fs::symlink(disk.at(), site.path("opt")).unwrap();
    V1.install(&site.installed());
    let place = format!("\"{}/orders\"", disk.at().display());
    let mut moved = settings.to_vec();
    moved.push(("install_dir", &place));
    site.configure(&moved);
    (site, disk)
}
