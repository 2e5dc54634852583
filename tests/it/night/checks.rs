//! Newer releases are looked for: when the daemon starts, in a period, by hand; and `status` says what came of it.

use afterhours::db::store::Store;
use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::release::ReleaseId;
use afterhours::domain::update_check::Offer;
use afterhours::domain::update_check::UpdateCheck;
use afterhours::wire::status::LastCheck;
use chrono::TimeDelta;
use serde_json::Value;

use super::releases::V2;
use super::releases::V3;
use super::site::NO_LOOKS;
use super::site::Site;
use super::site::eventually;

const AT_START: &str = "{ check_every = \"never\" }";
/// Nobody has to ask the desk which version it is.
const KNOWN: (&str, &str) = ("installed_version", "\"1.0\"");

impl Site {
    /// Another application, of which only its releases are of interest; nobody is there yet.
    fn add_crm(&self, updates: &str) {
        fs_err::create_dir_all(self.path("opt/crm")).unwrap();
        let dir = self.path("").display().to_string();
        let crm = format!(
            "\n[app.crm]\ninstall_dir = \"{dir}opt/crm\"\ninstalled_version = \"1.0\"\nservice = {{ none = true }}\n\
             feed = {{ dir = \"{dir}feed\" }}\nupdates = {updates}\n"
        );
        fs_err::write(self.path("afterhours.toml"), self.read("afterhours.toml") + &crm).unwrap();
    }

    /// What the daemon says of the last look.
    async fn last_check(&self, app: &str) -> Option<LastCheck> {
        let status = self.client().status().await.unwrap();
        status.apps.into_iter().find(|view| view.app.as_str() == app).unwrap().last_check
    }

    /// Waits until the daemon has looked.
    async fn looked(&self, app: &str) -> LastCheck {
        eventually("newer releases are looked for", async || self.last_check(app).await.is_some()).await;
        self.last_check(app).await.unwrap()
    }

    /// What `status` says of the last look, with its exit code and its text.
    async fn status(&self) -> (i32, Value, String) {
        let (code, said, _) = self.run(&["status", "--json"]).await;
        let page: Value = serde_json::from_str(&said).unwrap();
        (code, page["apps"][0]["last_check"].clone(), self.run(&["status"]).await.1)
    }

    /// Notes a look that found nothing, so long ago.
    async fn was_looked(&self, apps: &[&str], ago: TimeDelta) {
        fs_err::create_dir_all(self.path("state")).unwrap();
        let store = Store::open(&self.path("state/afterhours.db")).unwrap();
        let at = SystemClock.now() - ago;
        for app in apps {
            let check = UpdateCheck { at, offer: Some(Offer::new(at, Vec::new(), 0)), failure: None };
            store.note_update_check(&app.parse().unwrap(), check).await.unwrap();
        }
    }
}

fn builds(check: &LastCheck) -> Vec<u64> {
    check.pending.iter().map(|release: &ReleaseId| release.build).collect()
}

#[tokio::test]
async fn at_the_start_and_everybody_can_see_what_came_of_it() {
    let mut site = Site::with(&[KNOWN, ("updates", AT_START)]).await;
    V2.publish(&site.feed());
    V3.publish(&site.feed());
    let begun = SystemClock.now();
    site.serve().await;
    let check = site.looked("orders").await;
    assert_eq!((builds(&check), check.held, check.failure.as_ref()), (vec![2, 3], 0, None));
    assert!(check.at >= begun && check.seen_at == Some(check.at), "{check:?}");
    let (code, seen, page) = site.status().await;
    assert_eq!(code, 0);
    assert!(page.contains("LAST CHECK") && page.contains("3.0 (build 3) and 1 before it"), "{page}");

    // The same without a daemon, from its store alone.
    site.stop().await;
    let (code, alone, page) = site.status().await;
    assert_eq!((code, &alone), (7, &seen), "{page}");
    assert!(page.contains("3.0 (build 3) and 1 before it"), "{page}");

    // What is installed meanwhile is not new any more, also where nobody has looked again.
    assert_eq!(site.run(&["update", "now", "orders", "--to", "2.0", "--yes"]).await.0, 0);
    let (_, alone, page) = site.status().await;
    assert_eq!(
        (&alone["at"], &alone["pending"][0]["build"], alone["pending"].as_array().unwrap().len()),
        (&seen["at"], &3.into(), 1)
    );
    assert!(page.contains("3.0 (build 3)\n"), "{page}");
}

#[tokio::test]
async fn not_where_nobody_wants_that_until_somebody_asks() {
    let mut site = Site::with(&[KNOWN, ("updates", NO_LOOKS)]).await;
    site.add_crm(AT_START);
    V2.publish(&site.feed());
    site.serve().await;
    // Both had their turn together.
    assert_eq!(builds(&site.looked("crm").await), [2]);
    assert_eq!(site.last_check("orders").await, None);
    assert!(site.run(&["status"]).await.1.contains("nobody has looked yet"));
    let (code, said, talk) = site.run(&["update", "check", "orders"]).await;
    assert_eq!(code, 0, "{said}{talk}");
    assert_eq!(builds(&site.last_check("orders").await.unwrap()), [2]);
}

#[tokio::test]
async fn when_its_time_has_come() {
    let mut site = Site::with(&[KNOWN, ("updates", "{ check_at_start = false, check_every = \"1h\" }")]).await;
    site.add_crm(NO_LOOKS);
    site.was_looked(&["orders", "crm"], TimeDelta::hours(2)).await;
    V2.publish(&site.feed());
    site.serve().await;
    let due = async || site.last_check("orders").await.is_some_and(|check| builds(&check) == [2]);
    eventually("it is looked when it is time", due).await;
    assert_eq!(builds(&site.last_check("crm").await.unwrap()), Vec::<u64>::new(), "here it never is");
}

#[tokio::test]
async fn a_look_that_fails_says_why_and_is_told_once() {
    let mut site = Site::with(&[KNOWN, ("updates", AT_START)]).await;
    V2.publish(&site.feed());
    site.serve().await;
    let good = site.looked("orders").await;
    fs_err::rename(site.feed(), site.path("elsewhere")).unwrap();
    for _ in 0..2 {
        let before = site.last_check("orders").await.unwrap().at;
        site.restart().await;
        let looked = async || site.last_check("orders").await.is_some_and(|check| check.at > before);
        eventually("it is looked when the daemon starts", looked).await;
    }
    let bad = site.last_check("orders").await.unwrap();
    assert_eq!((bad.seen_at, builds(&bad)), (Some(good.at), vec![2]), "what was seen before is still known");
    let remedy = "create the directory, mount it, or correct feed.dir";
    assert_eq!(bad.failure.as_ref().unwrap().hint.as_deref(), Some(remedy));
    let told = site.read("log").matches("newer releases cannot be looked for").count();
    assert_eq!(told, 1, "{}", site.read("log"));
    site.stop().await;
    let (code, alone, page) = site.status().await;
    assert_eq!((code, &alone), (7, &serde_json::to_value(&bad).unwrap()));
    for part in ["failed to list the releases in", "No such file or directory", remedy, "2.0 (build 2)"] {
        assert!(page.contains(part), "{part}: {page}");
    }

    fs_err::rename(site.path("elsewhere"), site.feed()).unwrap();
    site.serve().await;
    eventually("it goes well again", async || site.last_check("orders").await.unwrap().failure.is_none()).await;
    assert!(site.read("log").contains("newer releases can be looked for again"), "{}", site.read("log"));
}
