//! Whole nights from a signed feed, through the program alone: without a network, and with a release that is no good.

use std::path::PathBuf;

use afterhours::domain::finding::Severity;
use afterhours::domain::run::RunId;
use serde_json::Value;

use crate::feed_signed::server::Server;
use crate::feed_signed::vendor::create;
use crate::feed_signed::vendor::vendor;
use crate::night::releases::Edition;
use crate::night::releases::SICK;
use crate::night::releases::V1;
use crate::night::releases::V2;
use crate::night::releases::V3;
use crate::night::site::Site;
use crate::night::truth::Left;
use crate::support::at_a_terminal;

/// A vendor of the order desk, and its web server.
struct Vendor {
    dir: tempfile::TempDir,
    server: Server,
}

impl Vendor {
    /// One that has published these.
    async fn of(editions: &[Edition]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &[]);
        let server = Server::start(&dir.path().join("orders/published")).await;
        let vendor = Self { dir, server };
        for edition in editions {
            vendor.publishes(edition, &[]);
        }
        vendor
    }

    fn publishes(&self, edition: &Edition, more: &[&str]) {
        let (orders, tree, build) = (self.text("orders"), self.text(edition.version), edition.build.to_string());
        edition.tree(&self.path(edition.version));
        let args = ["publish", &orders, "--version", edition.version, "--build", &build, "--tree", &tree];
        let migration = edition.migration().unwrap_or_default();
        let migration = migration.iter().flat_map(|arg| ["--migrate", arg]).collect::<Vec<_>>();
        vendor(self.dir.path(), &[&args[..], &migration, more].concat());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A site's `feed`.
    fn setting(&self) -> String {
        format!("{{ url = \"{}\", root = {:?}, proxy = \"none\" }}", self.server.url(), self.path("orders/root.json"))
    }
}

fn json(said: &str) -> Value {
    serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn builds(releases: &Value) -> Vec<u64> {
    releases.as_array().unwrap().iter().map(|release| release["build"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_site_without_a_network_spends_its_night_with_a_bundle() {
    let mut vendor = Vendor::of(&[V1, V2, V3]).await;
    let feed = vendor.setting();
    let bundle = vendor.text("orders.bundle");

    // A machine that reaches the vendor, and nothing else of the site.
    let outside = Site::with(&[("feed", &feed)]).await;
    for (args, expected, remedy) in [
        (["9.0", "--from", "1"], 4, "name a version that the feed has"),
        (["9.0", "--from", "9"], 3, "afterhours feed refresh orders"),
        (["1.0", "--from", "2"], 4, "cannot be installed over"),
    ] {
        let args = [&["feed", "bundle", "orders"], &args[..], &["-o", bundle.as_str()]].concat();
        let (code, said, talk) = outside.run(&args).await;
        assert_eq!(code, expected, "{said}{talk}");
        assert!(talk.contains(remedy), "{talk}");
    }
    let nowhere = vendor.text("nowhere/orders.bundle");
    let (code, said, talk) = outside.run(&["feed", "bundle", "orders", "3.0", "-o", &nowhere]).await;
    assert_eq!((code, vendor.path("nowhere").exists()), (1, false), "{said}{talk}");
    assert!(talk.contains("make the folder that it is to be in"), "{talk}");
    let (code, said, talk) =
        outside.run(&["feed", "bundle", "orders", "3.0", "--from", "1", "-o", &bundle, "--json"]).await;
    assert_eq!(code, 0, "{said}{talk}");
    let written = json(&said);
    assert_eq!(builds(&written["releases"]), [2, 3]);
    assert_eq!(written["size_bytes"].as_u64().unwrap(), vendor.path("orders.bundle").metadata().unwrap().len());
    drop(outside);
    vendor.server.stop().await;

    // The site never reaches it.
    let mut site = Site::with(&[("feed", &feed)]).await;
    let (code, said, talk) = site.run(&["feed", "refresh", "orders", "--json"]).await;
    assert_eq!((code, &json(&said)["error"]["code"]), (7, &"server_unreachable".into()), "{talk}");
    site.open().await;
    for (name, bytes, expected) in [("missing", None, 1), ("other", Some("no bundle"), 4)] {
        if let Some(bytes) = bytes {
            fs_err::write(vendor.path(name), bytes).unwrap();
        }
        let (code, said, talk) =
            site.run(&["feed", "refresh", "orders", "--bundle", &vendor.text(name), "--json"]).await;
        assert_eq!(code, expected, "{said}{talk}");
        assert!(json(&said)["error"]["hint"].as_str().unwrap().contains("copy it again"), "{said}");
    }
    let (code, said, talk) = site.run(&["feed", "refresh", "orders", "--bundle", &bundle, "--json"]).await;
    assert_eq!(code, 0, "{said}{talk}");
    let taken = json(&said);
    assert_eq!((builds(&taken["releases"]), builds(&taken["downloaded"])), (vec![1, 2, 3], vec![2, 3]));
    assert_eq!(taken["good_until"], written["good_until"]);

    // The daemon has run all the while, and finds it.
    site.job("nightly", serde_json::json!({})).await;
    let (code, said, talk) = site.run(&["job", "run", "nightly", "--yes", "--wait"]).await;
    assert_eq!(code, 0, "{said}{talk}");
    site.desk_answers("3.0").await;
    let run = site.settled(RunId(1)).await;
    assert_eq!(site.must_be_whole(&run, &[V2, V3], &["first", "second"]).await, Left::New);
    let doctor = site.client().doctor(&run.app).await.unwrap();
    let reached = doctor.findings.iter().find(|finding| finding.check == "feed_reachable").unwrap();
    assert_eq!(reached.severity, Severity::Warning);
    assert!(reached.text.contains("cannot be reached; what was verified before is used"), "{reached:?}");
}

#[tokio::test]
async fn a_signed_release_that_failed_waits_for_a_person() {
    let vendor = Vendor::of(&[V1, SICK]).await;
    let feed = vendor.setting();
    let health = "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"2s\" }";
    let mut site = Site::with(&[("feed", &feed), ("installed_version", "\"1.0\""), ("health", health)]).await;
    let list = async |site: &Site| {
        let (code, said, talk) = site.run(&["update", "allow", "--list", "--json"]).await;
        assert_eq!(code, 0, "{said}{talk}");
        json(&said)
    };
    let now =
        async |site: &Site, more: &[&str]| site.run(&[&["update", "now", "orders", "--yes"], more].concat()).await;
    // Before there is a store there is nothing to look at.
    assert_eq!(site.run(&["update", "allow", "--list"]).await.0, 7);
    let (code, said, talk) = now(&site, &[]).await;
    assert_eq!(code, 5, "{said}{talk}");
    assert_eq!(site.read("state/site-id").len(), 36, "the site has its number");

    // Nothing tries it again by itself, and both the list and the check say why.
    let (code, said, talk) = now(&site, &["--json"]).await;
    assert_eq!((code, &json(&said)["outcome"]), (0, &"skipped".into()), "{talk}");
    let held = list(&site).await;
    let one = &held[0];
    assert_eq!((held.as_array().unwrap().len(), &one["app"], &one["version"]), (1, &"orders".into(), &"2.0".into()));
    assert_eq!((&one["build"], &one["run"]), (&2.into(), &1.into()));
    assert!(one["reason"].as_str().unwrap().contains("good answers in a row") && one["failed_at"].is_string(), "{one}");
    let (_, said, _) = site.run(&["update", "check", "orders"]).await;
    assert!(said.contains("afterhours update allow 2.0"), "{said}");

    // What nobody could carry out becomes no run.
    let hopeless = async |site: &Site, command: &[&str]| {
        let (code, said, talk) = site.run(&[command, &["--yes", "--json"]].concat()).await;
        let error = &json(&said)["error"];
        assert_eq!((code, &error["kind"]), (4, &"refused".into()), "{said}{talk}");
        assert_eq!(error["message"], "failed to find a release 9.0 in the feed; the newest is 2.0 (build 2)");
        assert_eq!(error["hint"], "name a version that the feed has, or none for the newest");
        let (_, said, _) = site.run(&["run", "list", "--json"]).await;
        json(&said).as_array().unwrap().len()
    };
    assert_eq!(hopeless(&site, &["update", "now", "orders", "--to", "9.0"]).await, 2);

    // An order is carried out, once.
    let (code, said, talk) = now(&site, &["--to", "2.0"]).await;
    assert_eq!(code, 5, "{said}{talk}");
    assert_eq!(list(&site).await[0]["run"], 3);

    // A job's order is as old as the word that gave it; the daemon says the same of what is held back.
    site.open().await;
    site.job("nightly", serde_json::json!({ "to": "2.0" })).await;
    let path = async |site: &Site| {
        let (code, said, talk) = site.run(&["job", "plan", "nightly", "--json"]).await;
        assert_eq!(code, 0, "{said}{talk}");
        builds(&json(&said)["path"])
    };
    assert_eq!(path(&site).await, [2]);
    site.job("hopeless", serde_json::json!({ "to": "9.0" })).await;
    assert_eq!(hopeless(&site, &["job", "run", "hopeless"]).await, 3);
    assert_eq!(hopeless(&site, &["update", "now", "orders", "--to", "9.0"]).await, 3);
    assert_eq!(site.run(&["job", "run", "nightly", "--yes", "--wait"]).await.0, 5);
    assert_eq!(list(&site).await[0]["run"], 4);
    assert_eq!(path(&site).await, [0; 0]);
    assert_eq!(site.run(&["job", "edit", "nightly", "--remarks", "still", "--yes"]).await.0, 0);
    assert_eq!(path(&site).await, [0; 0], "a remark is no order");
    assert_eq!(site.run(&["job", "edit", "nightly", "--to", "2.0", "--yes"]).await.0, 0);
    assert_eq!(path(&site).await, [2]);

    let (code, said, _) = site.run(&["update", "allow", "2.0"]).await;
    assert_eq!((code, said.as_str()), (0, "orders 2.0 is tried again.\n"));
    assert_eq!(list(&site).await, Value::Array(Vec::new()));
    let (_, said, _) = site.run(&["update", "allow", "--list", "--app", "orders"]).await;
    assert_eq!(said, "Nothing is held back because it failed here.\n");
    assert_eq!(site.run(&["update", "allow", "--list", "--app", "crm"]).await.0, 3);
    site.desk_answers("1.0").await;
}

#[tokio::test]
async fn whoever_sits_at_a_terminal_can_name_a_version_before_one_that_cannot_be_reached() {
    let vendor = Vendor::of(&[V1, V2]).await;
    vendor.publishes(&V3, &["--min-version", "2.5", "--yes"]);
    let site = Site::with(&[("feed", &vendor.setting()), ("installed_version", "\"1.0\"")]).await;
    let (code, _, talk) = site.run(&["update", "check", "orders"]).await;
    assert_eq!(code, 1, "{talk}");
    assert!(
        talk.contains("it needs at least version 2.5") && talk.contains("name an earlier version with --to"),
        "{talk}"
    );
    let update = site.command(&["update", "now", "orders", "--to", "2.0"]).into_std();
    let typed = move || at_a_terminal(&update, &[("Update orders now?", "y")]);
    let (code, shown) = tokio::task::spawn_blocking(typed).await.unwrap();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("it needs at least version 2.5"), "{shown}");
    site.desk_answers("2.0").await;
}
