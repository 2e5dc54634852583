//! What a user of the machine says of themself, of their program and of others, at the socket that is open to everybody.

use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use afterhours::domain::run::Outcome;
use afterhours::domain::step::Step;
use afterhours::wire::run::RunView;
use rstest::rstest;
use serde_json::Value;

use crate::night::releases::V2;
use crate::night::site::Site;
use crate::night::site::app;
use crate::night::site::eventually;
use crate::support::users::APP;
use crate::support::users::STRANGER;
use crate::support::users::account;
use crate::support::users::as_user;

/// A client of our own, as another user; gone when dropped.
struct Station {
    child: Child,
    said: String,
}

impl Drop for Station {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everybody of the machine comes to the socket of this site.
async fn open(settings: &[(&str, &str)]) -> Site {
    let mut site = Site::with(settings).await;
    fs_err::set_permissions(site.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    V2.publish(&site.feed());
    site.open().await;
    site
}

/// `user` begins to do what `station.py` knows by the name `way`, and calls themself `more[0]`.
fn station(site: &Site, user: &str, way: &str, more: &[&str]) -> Station {
    let said = format!("{user}-{way}");
    let out = fs_err::File::create(site.path(&said)).unwrap();
    let mut command = as_user(user, "/usr/bin/python3");
    command
        .args(["-c", include_str!("station.py")])
        .arg(site.path("workstations.sock"))
        .args(["orders", way])
        .args(more);
    command.stdin(Stdio::null()).stdout(out.into_parts().0);
    Station { child: command.spawn().unwrap(), said }
}

impl Station {
    async fn is_told(&self, site: &Site, what: &str) {
        eventually(what, async || site.read(&self.said).contains(what)).await;
    }
}

async fn sessions(site: &Site) -> Vec<Value> {
    let sessions = serde_json::to_value(site.client().list_sessions(&app()).await.unwrap()).unwrap();
    sessions["sessions"].as_array().unwrap().clone()
}

/// What the audit holds of this action: who, and the body.
fn audited(site: &Site, action: &str) -> Vec<(String, Value)> {
    let query = "import json, sqlite3, sys; \
        print(json.dumps(sqlite3.connect(sys.argv[1]).execute(\
        'SELECT who, body FROM audit WHERE action = ? ORDER BY link', [sys.argv[2]]).fetchall()))";
    let mut python = Command::new("/usr/bin/python3");
    let output = python.args(["-c", query]).arg(site.path("state/afterhours.db")).arg(action).output().unwrap();
    let rows: Vec<(String, String)> = serde_json::from_slice(&output.stdout).unwrap();
    rows.into_iter().map(|(who, body)| (who, serde_json::from_str(&body).unwrap())).collect()
}

fn log_out(run: &RunView) -> String {
    let step = run.steps.iter().find(|step| step.step == Step::LogOut).unwrap();
    step.message.clone().unwrap_or_default()
}

const QUICK: [(&str, &str); 3] =
    [("sessions", "[{ workstations = true }]"), ("grace", "\"1s\""), ("polite_end", "\"1s\"")];

#[rstest]
#[case::without_a_program("has-no-program", "its program is no process of theirs")]
#[case::with_roots_first_process("claims-the-first-process", "its program is no process of theirs")]
#[case::with_a_program("has-a-program", "its client ignored the end, and its program was killed")]
#[case::with_one_program_after_the_other("has-a-new-program-each-time", "was dropped")]
#[tokio::test]
async fn whoever_ignores_the_end_keeps_nobody_from_being_updated(#[case] way: &str, #[case] why: &str) {
    let site = open(&QUICK).await;
    let station = station(&site, STRANGER, way, &["anna"]);
    station.is_told(&site, "welcome").await;
    let known = sessions(&site).await.remove(0);
    let run = site.update().await;
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}");
    assert_eq!((&known["user"], &known["said"]), (&STRANGER.into(), &"anna".into()), "{known}");
    assert_eq!(known["uid"], account(STRANGER).uid, "{known}");
    assert_eq!(known["pid"].is_u64(), way.ends_with("a-program") || way.contains("each"), "{known}");
    let line = format!("the session of {}/{STRANGER} (says anna) was dropped: ", account(STRANGER).uid);
    assert!(log_out(&run).contains(&line) && log_out(&run).contains(why), "{}", log_out(&run));
    site.reports(1).await;
    let mail = &site.mail.taken()[0].content;
    assert!(mail.contains(&line) && mail.contains(&format!("{STRANGER} (says anna)")), "{mail}");
}

#[tokio::test]
async fn who_comes_and_goes_all_the_time_does_not_keep_it_unknown_who_is_there() {
    let site = open(&[QUICK[0], QUICK[1], QUICK[2], ("census_wait", "\"1s\"")]).await;
    let station = station(&site, STRANGER, "flaps", &[]);
    station.is_told(&site, "welcome").await;
    let run = site.update().await;
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}");
}

#[tokio::test]
async fn a_pass_is_for_one_user_whatever_others_call_themselves() {
    let site = open(&QUICK).await;
    assert_eq!(site.run(&["gate", "close", "orders"]).await.0, 0);
    let (code, _, said) = site.run(&["gate", "pass", "orders", "--user", "nobody-of-that-name"]).await;
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("getent passwd nobody-of-that-name"), "{said}");
    assert_eq!(site.run(&["gate", "pass", "orders", "--user", APP]).await.0, 0);

    let thief = station(&site, STRANGER, "asks", &[APP]);
    thief.is_told(&site, "gate_closed").await;
    let refused = audited(&site, "gate.refused");
    assert_eq!(refused.len(), 1, "{refused:?}");
    let (who, body) = &refused[0];
    assert_eq!((who.as_str(), &body["uid"], &body["said"]), (STRANGER, &account(STRANGER).uid.into(), &APP.into()));
    let flood = station(&site, STRANGER, "asks-often", &["x"]);
    eventually("all are refused", async || site.read(&flood.said).lines().count() == 200).await;
    assert_eq!(audited(&site, "gate.refused").len(), 1, "a flood fills nothing");

    let owner = station(&site, APP, "has-no-program", &["root"]);
    owner.is_told(&site, "welcome").await;
    let used = audited(&site, "gate.pass_used");
    assert_eq!(used.len(), 1, "{used:?}");
    let (who, body) = &used[0];
    assert_eq!((who.as_str(), &body["said"], &body["pass"]["given_by"]), (APP, &"root".into(), &"root".into()));
    let (_, listed, _) = site.run(&["session", "list", "orders"]).await;
    assert!(listed.contains(&format!("{APP}  root  {}", account(APP).uid)), "{listed}");
}

#[tokio::test]
async fn nobody_takes_the_session_of_another_provider() {
    let commands = "{ list = [\"sh\", \"-c\", \"test -e DIR/anna && echo '[{\\\"id\\\":7,\\\"user\\\":\\\"anna\\\"}]' || echo '[]'\"], \
        end = [\"sh\", \"-c\", \"echo $AFTERHOURS_SESSION >> DIR/asked; rm -f DIR/$AFTERHOURS_SESSION; \
        test $AFTERHOURS_SESSION != 7 || rm -f DIR/anna\"] }";
    let sessions = format!("[{{ workstations = true }}, {commands}]");
    let site = open(&[("sessions", &sessions), QUICK[1], QUICK[2]]).await;
    fs_err::write(site.path("anna"), "").unwrap();
    let station = station(&site, STRANGER, "has-no-program", &["anna", "7"]);
    station.is_told(&site, "welcome").await;
    let run = site.update().await;
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}");
    assert_eq!(site.read("asked"), "7", "whom the command has listed, the command has ended");
}

#[tokio::test]
async fn only_whom_the_application_is_for_is_counted() {
    let site = open(&[QUICK[0], ("users", "[\"root\"]"), ("group", &format!("{APP:?}"))]).await;
    let stranger = station(&site, STRANGER, "has-a-program", &[APP]);
    stranger.is_told(&site, "403 Forbidden").await;
    stranger.is_told(&site, "used by other users of this machine").await;
    let member = station(&site, APP, "has-a-program", &["x"]);
    member.is_told(&site, "welcome").await;
    let known = sessions(&site).await;
    assert_eq!(known.len(), 1, "{known:?}");
    assert_eq!(known[0]["user"], APP);
    let refused = audited(&site, "session.refused");
    assert_eq!((refused.len(), refused[0].0.as_str()), (1, STRANGER), "{refused:?}");
}

#[tokio::test]
async fn names_turn_nothing_round_and_fill_nothing() {
    let list =
        "import json; print(json.dumps([{'id': n, 'user': 'x' * 100 if n else 'b\\u202eanna'} for n in range(1000)]))";
    let sessions = format!("[{{ workstations = true }}, {{ list = [\"/usr/bin/python3\", \"-c\", {list:?}] }}]");
    let site = open(&[("sessions", &sessions), QUICK[1], QUICK[2]]).await;
    let station = station(&site, STRANGER, "has-no-program", &["\u{202e}toor"]);
    station.is_told(&site, "characters that are not seen").await;
    let (_, listed, _) = site.run(&["session", "list", "orders"]).await;
    assert!(listed.contains("b\\u{202e}anna"), "{listed}");
    assert!(!listed.contains('\u{202e}') && !listed.contains(&"x".repeat(65)));

    // They cannot be ended, so that all of them are named.
    let run = site.update().await;
    let run = site.settled(run).await;
    assert_eq!(run.outcome, Some(Outcome::Failed), "{run:#?}");
    let why = run.cause.as_ref().unwrap().message.clone();
    assert!(why.contains("and 994 others would not go") && why.len() < 2000, "{why}");
    site.reports(1).await;
    let mail = &site.mail.taken()[0].content;
    assert!(mail.contains("994 others") && mail.len() < 16_000, "{}", mail.len());
}

/// Whatever the hub refuses to somebody stands in the history: whose it was, what they called themself, and why.
#[tokio::test]
async fn what_the_hub_refuses_stands_in_the_history() {
    let site = open(&QUICK).await;
    let owner = station(&site, APP, "has-a-program", &["anna"]);
    owner.is_told(&site, "welcome").await;
    let known = sessions(&site).await.remove(0);
    let thief = station(&site, STRANGER, "speaks-for", &["anna", known["id"].as_str().unwrap()]);
    thief.is_told(&site, "belongs to another user").await;
    let refused = audited(&site, "session.refused");
    let told =
        |(who, body): &(String, Value)| (who.clone(), body["uid"].clone(), body["why"].as_str().unwrap().to_owned());
    let (who, uid, why) = told(&refused[0]);
    assert_eq!((refused.len(), who.as_str(), uid), (1, STRANGER, account(STRANGER).uid.into()), "{refused:?}");
    assert!(why.contains("belongs to another user"), "{why}");

    let eager = station(&site, STRANGER, "asks-often", &["anna"]);
    eager.is_told(&site, "too often").await;
    let refused = audited(&site, "session.refused");
    let often = refused.iter().find(|entry| told(entry).2.contains("too often")).expect("it has an entry of its own");
    assert_eq!((&often.0, &often.1["said"]), (&STRANGER.to_owned(), &"anna".into()), "{refused:?}");
    assert!(refused.len() < 10, "{}", refused.len());
}
