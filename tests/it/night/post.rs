//! The reports and those who get them: who is put off, turned away, or not reached at all.

use std::time::Duration;
use std::time::Instant;

use afterhours::db::store::Store;
use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::job::Job;
use afterhours::domain::letter::Letter;
use afterhours::domain::letter::LetterState;
use afterhours::domain::run::Outcome;
use afterhours::domain::step::Step;
use chrono::TimeDelta;
use serde_json::Value;
use serde_json::json;

use super::mail::Sink;
use super::releases::Edition;
use super::releases::V2;
use super::releases::V3;
use super::site::Site;
use super::site::eventually;

const GROUP: (&str, &str) =
    ("report", r#"{ started_by = false, group = ["full@example.com", "gone@example.com", "it@example.com"] }"#);
const ALONE: (&str, &str) = ("report", r#"{ started_by = false, group = ["it@example.com"] }"#);
/// What a daemon may take to stop, and a bit for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(10);

impl Site {
    /// The same site with another mail server, which answers as it is told.
    async fn with_mail_server(mut self, report: (&str, &str), args: &[&str]) -> Self {
        self.mail = Sink::with(args).await;
        self.configure(&[report]);
        self
    }

    /// An update that ends well; its number.
    async fn updated(&self) -> String {
        V2.publish(&self.feed());
        let run = self.settled(self.update().await).await;
        assert_eq!(run.outcome, Some(Outcome::Succeeded), "{run:#?}");
        run.id.to_string()
    }

    /// Who does not have a mail, from `status --json`.
    async fn unsent(&self) -> Vec<Letter> {
        let (_, said, talk) = self.run(&["status", "--json"]).await;
        let status: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{talk}"));
        serde_json::from_value(status["mail"].clone()).unwrap()
    }

    /// What the step says that reports.
    async fn report(&self, run: &str) -> String {
        let view = self.client().show_run(run.parse().unwrap()).await.unwrap();
        let step = view.steps.into_iter().find(|step| step.step == Step::Report).unwrap();
        step.message.unwrap()
    }
}

#[tokio::test]
async fn who_is_put_off_holds_back_nobody_and_is_named() {
    let special =
        ["--for", "full@example.com:452 4.2.2 mailbox full", "--for", "gone@example.com:550 5.1.1 no such user"];
    let mut site = Site::new().await.with_mail_server(GROUP, &special).await;
    site.open().await;
    let run = site.updated().await;
    site.reports(1).await;
    assert_eq!(site.mail.taken()[0].to, ["it@example.com"]);
    eventually("it is noted", async || site.unsent().await.iter().all(Letter::is_in_trouble)).await;
    let unsent = site.unsent().await;
    let states: Vec<_> = unsent.iter().map(|letter| (letter.to.as_str(), letter.state, letter.attempts)).collect();
    let expected = [("full@example.com", LetterState::Pending, 1), ("gone@example.com", LetterState::Dead, 1)];
    assert_eq!(states, expected, "{unsent:?}");
    assert!(unsent[0].next_at.is_some() && unsent[0].said.as_ref().unwrap().contains("452 4.2.2 mailbox full"));
    let said = site.report(&run).await;
    assert!(
        said.starts_with("sent to it@example.com; queued, to be tried again, for full@example.com (mail to"),
        "{said}"
    );
    assert!(said.contains("given up for gone@example.com") && said.contains("550 5.1.1 no such user"), "{said}");
    let page = site.run(&["status"]).await.1;
    for part in ["UNSENT MAIL TO", "full@example.com", "452 4.2.2", "given up", "afterhours mail test full@example.com"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    // Nobody outside learns who is told.
    let bundle = site.path("run.tar.zst");
    assert_eq!(site.run(&["run", "bundle", &run, "-o", bundle.to_str().unwrap()]).await.0, 0);
    let bytes = zstd::decode_all(fs_err::File::open(&bundle).unwrap()).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("full@example.com"));

    // There is room again, and a daemon that is started tries at once: only who waits gets it, as the same mail.
    site.stop().await;
    let first = site.mail.taken();
    let mut site = site.with_mail_server(GROUP, &[]).await;
    site.serve().await;
    site.reports(1).await;
    assert_eq!(
        (&site.mail.taken()[0].to, &site.mail.taken()[0].id),
        (&vec!["full@example.com".to_owned()], &first[0].id)
    );
    assert_eq!(first.len(), 1);
    let left = async || site.unsent().await.iter().map(|letter| letter.to.clone()).collect::<Vec<_>>();
    eventually("that is noted, too", async || left().await == ["gone@example.com"]).await;
}

#[tokio::test]
async fn a_mail_is_queued_until_it_is_sent_and_a_hanging_server_keeps_nobody() {
    let mut site = Site::new().await.with_mail_server(ALONE, &["--for", "it@example.com:hang"]).await;
    site.open().await;
    let run = site.updated().await;
    assert_eq!(site.report(&run).await, "queued for it@example.com");
    let unsent = site.unsent().await;
    assert_eq!((unsent.len(), unsent[0].state, &unsent[0].said), (1, LetterState::Pending, &None), "{unsent:?}");
    let begun = Instant::now();
    site.stop().await;
    assert!(begun.elapsed() < STOP_MAX, "{:?}", begun.elapsed());

    let mut site = site.with_mail_server(ALONE, &[]).await;
    site.serve().await;
    site.reports(1).await;
    eventually("that is noted", async || site.report(&run).await == "sent to it@example.com").await;
    assert!(site.unsent().await.is_empty());
}

#[tokio::test]
async fn a_test_mail_says_what_the_server_answered() {
    let mut site =
        Site::new().await.with_mail_server(ALONE, &["--for", "gone@example.com:550 5.1.1 no such user"]).await;
    for daemon in [true, false] {
        if daemon {
            site.serve().await;
        } else {
            site.stop().await;
        }
        let before = site.mail.taken().len();
        let (code, said, talk) = site.run(&["mail", "test", "it@example.com", "--json"]).await;
        assert_eq!(code, 0, "{said}{talk}");
        let mailed: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&mailed["to"], &mailed["answer"]), (&"it@example.com".into(), &"250 taken".into()));
        eventually("it arrives", async || site.mail.taken().len() == before + 1).await;
        assert!(site.mail.taken()[before].subject.contains("test"), "{:?}", site.mail.taken());
        let (code, said, talk) = site.run(&["mail", "test", "gone@example.com"]).await;
        assert_eq!(code, 1, "{said}{talk}");
        assert!(talk.contains("550 5.1.1 no such user"), "{talk}");
        let (code, _, talk) = site.run(&["mail", "test", "nobody"]).await;
        assert_eq!(code, 2, "{talk}");
        let (code, said, talk) = site.run(&["doctor", "orders"]).await;
        assert!(said.contains("takes mail from afterhours@example.com, on this machine"), "{code}: {said}{talk}");
    }
    let port = site.mail.port.to_string();
    site.reconfigure(&port, "1");
    let (code, _, talk) = site.run(&["mail", "test", "it@example.com"]).await;
    assert_eq!(code, 7, "{talk}");
    assert!(
        site.run(&["doctor", "orders"]).await.1.contains("WARNING  mail: failed to reach the mail server 127.0.0.1:1")
    );
    site.reconfigure("mail = {", "#mail = {");
    let (code, _, talk) = site.run(&["mail", "test", "it@example.com"]).await;
    assert_eq!(code, 2, "{talk}");
    assert!(talk.contains("[daemon] mail"), "{talk}");
    assert!(site.run(&["doctor", "orders"]).await.1.contains("nobody gets the reports"));
}

#[tokio::test]
async fn mail_comes_when_somebody_wants_it() {
    let report = |mail: &str| format!("{{ started_by = false, group = [\"it@example.com\"]{mail} }}");
    let (usual, always, on_failure) = (report(""), report(", mail = \"always\""), report(", mail = \"on_failure\""));
    let mut site = Site::with(&[("report", usual.as_str())]).await;
    site.open().await;
    let over = async |site: &Site, outcome| {
        let run = site.settled(site.update().await).await;
        assert_eq!(run.outcome, Some(outcome), "{run:#?}");
        site.report(&run.id.to_string()).await
    };
    let nothing = "no mail: nothing happened that one is wanted for";
    assert_eq!(over(&site, Outcome::Skipped).await, nothing, "this is the default");
    V2.publish(&site.feed());
    over(&site, Outcome::Succeeded).await;
    site.reports(1).await;
    site.stop().await;

    site.configure(&[("report", always.as_str())]);
    site.serve().await;
    over(&site, Outcome::Skipped).await;
    site.reports(2).await;
    assert!(site.mail.taken()[1].subject.contains("nothing newer"), "{}", site.mail.taken()[1].subject);
    site.stop().await;

    site.configure(&[("report", on_failure.as_str())]);
    V3.publish(&site.feed());
    site.serve().await;
    assert_eq!(over(&site, Outcome::Succeeded).await, nothing);
    site.stop().await;
    site.configure(&[("report", on_failure.as_str()), ("backup", "{ evidence = { files = \"DIR/none-*.dump\" } }")]);
    site.serve().await;
    Edition { version: "4.0", build: 4, ..V3 }.publish(&site.feed());
    over(&site, Outcome::Failed).await;
    site.reports(3).await;
}

#[tokio::test]
async fn a_missed_start_is_told_with_what_to_type() {
    let mut site = Site::with(&[("report", "{ started_by = false, group = [\"it@example.com\"] }")]).await;
    site.serve().await;
    let jobs = [("skips", "start missed, not updated"), ("asks", "start missed, YOU decide whether to update now")];
    site.job("skips", json!({"misfire": "skip"})).await;
    site.job("asks", json!({"misfire": "ask"})).await;
    site.stop().await;
    let store = Store::open(&site.path("state/afterhours.db")).unwrap();
    let due_at = Some(SystemClock.now() - TimeDelta::hours(3));
    for (name, _) in jobs {
        let name = name.parse().unwrap();
        let job = Job { due_at, ..store.job(&name).await.unwrap() };
        store.replace_job(&name, job).await.unwrap();
    }
    drop(store);
    site.serve().await;
    site.reports(2).await;
    for (name, subject) in jobs {
        let mails = site.mail.taken();
        let mail = mails.iter().find(|mail| mail.subject == format!("Order desk: {subject}"));
        let mail = mail.unwrap_or_else(|| panic!("{subject}: {mails:#?}"));
        assert!(mail.content.contains(&format!("  afterhours job run {name}\n")), "{}", mail.content);
        let asks = mail.content.contains(&format!("  afterhours job disable {name}\n"));
        assert_eq!(asks, name == "asks", "{}", mail.content);
    }
}

#[tokio::test]
async fn a_follower_that_is_disabled_is_named_everywhere() {
    let mut site = Site::with(&[("backup", "{ evidence = { files = \"DIR/none-*.dump\" } }")]).await;
    V2.publish(&site.feed());
    site.open().await;
    site.job("recover", json!({"enabled": false})).await;
    let args = ["job", "create", "nightly", "--app", "orders", "--at", "2099-01-01 02:30", "--enabled", "--yes"];
    let (code, said, talk) = site.run(&[&args[..], &["--on-failure", "recover"]].concat()).await;
    assert_eq!(code, 0, "{said}{talk}");
    site.job("afterwards", json!({"enabled": false, "start": {"kind": "after", "job": "nightly"}})).await;
    let shown = site.run(&["job", "show", "nightly"]).await.1;
    for text in [said + &talk, shown.clone()] {
        assert!(text.contains("recover is to follow when a run of this job fails, but is disabled"), "{text}");
    }
    assert!(shown.contains("afterwards is to follow when a run of this job succeeds"), "{shown}");
    let (code, _, talk) = site.run(&["job", "run", "nightly", "--yes", "--wait"]).await;
    assert_eq!(code, 1, "{talk}");
    let run = site.client().job_history(&"nightly".parse().unwrap(), None).await.unwrap().remove(0);
    assert!(site.report(&run.id.to_string()).await.ends_with("\nrecover does not follow: it is disabled"), "{run:#?}");
    site.reports(1).await;
    let mail = &site.mail.taken()[0];
    assert!(mail.content.contains("recover should have followed, but is disabled"), "{}", mail.content);
    assert!(mail.content.contains("afterhours job enable recover"), "{}", mail.content);
}
