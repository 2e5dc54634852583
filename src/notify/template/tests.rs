//! The mails as they are read.

use chrono::TimeDelta;

use super::*;
use crate::domain::evidence::Evidence;
use crate::domain::failure::Exhibit;
use crate::domain::finding::Finding;
use crate::domain::history::Anchor;
use crate::domain::run::Outcome;
use crate::domain::run::RunId;

fn at(step: Step) -> At {
    At::first(step)
}

fn release(version: &str, build: u64) -> ReleaseId {
    ReleaseId { version: version.parse().unwrap(), build }
}

fn done(step: Step, millis: u64, message: &str) -> StepReport {
    let took = Some(Span::from(std::time::Duration::from_millis(millis)));
    StepReport { at: at(step), state: StepState::Done, took, message: message.to_owned() }
}

fn in_state(step: StepReport, state: StepState) -> StepReport {
    StepReport { state, ..step }
}

/// A night that went well.
fn night() -> RunReport {
    let started_at = "2026-11-22T01:30:00Z".parse().unwrap();
    RunReport {
        app: "orders".parse().unwrap(),
        app_title: "Order desk".to_owned(),
        host: "srv1.example.com".to_owned(),
        run: RunId(17),
        job: Some("nightly-orders".parse().unwrap()),
        started_by: "anna".to_owned(),
        verdict: Verdict::Finished(Outcome::Succeeded),
        from: Some(release("2.3.0", 41)),
        to: Some(release("2.4.1", 43)),
        zone: chrono_tz::Europe::Berlin,
        started_at,
        finished_at: started_at + TimeDelta::milliseconds(372_400),
        away_since: None,
        closed_since: None,
        downtime: Some(Span::from(std::time::Duration::from_millis(41_200))),
        cause: None,
        steps: vec![
            done(Step::Preflight, 812, "12 checks, 1 warning"),
            done(Step::Select, 3, "2.4.0, then 2.4.1"),
            done(Step::Backup, 4_210, "orders-20261121.dump is 3 hours old"),
            done(Step::Grace, 300_000, "2 people were reminded"),
            done(Step::Stop, 1_930, ""),
            done(Step::Swap, 12, "14 files kept"),
            done(Step::Start, 9_960, ""),
            StepReport { at: At { step: Step::Swap, build: 1 }, ..done(Step::Swap, 11, "14 files kept") },
            done(Step::CheckHealth, 3_050, "answered 2.4.1 three times in a row"),
        ],
        findings: vec![
            Finding::good("feed", "the feed answers"),
            Finding::warning("space", "only 9 GB are free in /opt", "make room before the next update"),
        ],
        evidence: Some(Evidence {
            source: "/srv/backup/orders-20261121.dump".to_owned(),
            made_at: "2026-11-21T22:30:00Z".parse().unwrap(),
            size_bytes: Some(1_234_000_000),
            tested: vec!["sha256 matches".to_owned(), "test command ended with 0".to_owned()],
        }),
        notes: vec![
            (release("2.4.0", 42), String::new()),
            (release("2.4.1", 43), "# VAT\n\n- 7 % for books\n- \u{202e}sdrawkcab\n".to_owned()),
        ],
        idle: Vec::new(),
        history: Some(Anchor { number: 1284, hash: "4f2a9c".repeat(10) + "0be1" }),
        logged_out: vec![
            LoggedOut { user: "bert".to_owned(), workstation: Some("pc-07".to_owned()) },
            LoggedOut { user: "clara".to_owned(), workstation: None },
        ],
        gate: GateRemark::Open,
        was_ill: false,
        held: None,
        blocked: None,
    }
}

fn unhealthy() -> Failure {
    Failure {
        message: "see version 2.4.1 at http://127.0.0.1:8080/version".to_owned(),
        because: vec!["it answered \"500 Internal Server Error\" for 60s".to_owned()],
        said: vec!["Traceback:".to_owned(), "  KeyError: 'vat'".to_owned()],
        hint: Some("read the application's own log in /var/log/orders".to_owned()),
        ..Failure::new("")
    }
}

fn rolled_back() -> RunReport {
    let cause = Cause::StepFailed { at: at(Step::CheckHealth), failure: unhealthy() };
    let mut steps = night().steps;
    steps.truncate(7);
    for step in &mut steps[4..] {
        step.state = StepState::Undone;
    }
    steps.push(in_state(done(Step::CheckHealth, 60_000, "no good answer in 60s"), StepState::Failed));
    let held = Some(release("2.4.1", 43));
    RunReport { verdict: Verdict::Finished(Outcome::RolledBack), cause: Some(cause), held, steps, ..night() }
}

fn failed() -> RunReport {
    let failure = Failure {
        message: "find a backup that is at most 2days old".to_owned(),
        because: vec!["/srv/backup/orders-20261117.dump was made 4 days ago".to_owned()],
        said: Vec::new(),
        hint: Some("run the backup, or set `make` so that one is made".to_owned()),
        ..Failure::new("")
    };
    let steps = vec![done(Step::Preflight, 812, "12 checks"), in_state(done(Step::Backup, 90, ""), StepState::Failed)];
    RunReport {
        verdict: Verdict::Finished(Outcome::Failed),
        cause: Some(Cause::StepFailed { at: at(Step::Backup), failure }),
        downtime: None,
        evidence: None,
        logged_out: Vec::new(),
        findings: Vec::new(),
        steps,
        ..night()
    }
}

fn stuck() -> RunReport {
    let failure = Failure::new("exchange /opt/orders with /opt/.orders.afterhours/old")
        .hint("mount /opt writable again, then decide for the old version");
    let failure = Failure { because: vec!["Read-only file system (os error 30)".to_owned()], ..failure };
    let mut report = rolled_back();
    report.steps[5].state = StepState::UndoFailed;
    RunReport {
        verdict: Verdict::Stuck { at: at(Step::Swap), failure },
        gate: GateRemark::Stuck,
        away_since: Some("2026-11-22T01:36:02Z".parse().unwrap()),
        closed_since: Some("2026-11-22T01:30:02Z".parse().unwrap()),
        downtime: None,
        ..report
    }
}

fn skipped() -> RunReport {
    RunReport {
        verdict: Verdict::Finished(Outcome::Skipped),
        to: None,
        cause: Some(Cause::NothingToDo {
            reason: "2.3.0 (build 41) is the newest release".to_owned(),
            why: Idle::NothingNewer,
        }),
        downtime: None,
        evidence: None,
        logged_out: Vec::new(),
        findings: Vec::new(),
        steps: vec![done(Step::Select, 4, "nothing newer")],
        ..night()
    }
}

fn idled(why: Idle) -> RunReport {
    let reason = "missed by 3h; missed starts of this job are skipped".to_owned();
    RunReport { cause: Some(Cause::NothingToDo { reason, why }), steps: Vec::new(), ..skipped() }
}

/// The mail about a start that is not made up for.
fn missed() -> RunReport {
    idled(Idle::Missed { missed_at: "2026-11-22T01:30:00Z".parse().unwrap() })
}

/// The mail about a start that waits for an answer.
fn asks() -> RunReport {
    idled(Idle::Asks { missed_at: "2026-11-22T01:30:00Z".parse().unwrap() })
}

fn read(report: &RunReport, language: Language) -> String {
    let mail = render(report, language);
    format!("Subject: {}\n\n{}", mail.subject, mail.text)
}

macro_rules! mails {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                insta::assert_snapshot!(concat!(stringify!($name), "_en"), read(&super::$name(), Language::English));
                insta::assert_snapshot!(concat!(stringify!($name), "_de"), read(&super::$name(), Language::German));
            }
        )+
    };
}

/// The mail of a good night.
fn succeeded() -> RunReport {
    night()
}

mod mails {
    use super::Language;
    use super::read;

    mails! { succeeded rolled_back failed stuck skipped missed asks }
}

#[test]
fn who_must_open_the_gate_is_told_how() {
    let report = RunReport { gate: GateRemark::ByHand, ..night() };
    let text = render(&report, Language::English).text;
    assert!(text.contains("CANNOT log in yet"), "{text}");
    assert!(text.contains("  afterhours gate open orders\n"), "{text}");
}

#[test]
fn what_is_held_back_is_named_and_how_to_let_it_go() {
    let held = RunReport { held: Some(release("2.4.0", 42)), ..rolled_back() };
    let mail = render(&held, Language::English);
    assert_eq!(mail.subject, "Order desk: update to 2.4.1 failed, 2.3.0 is back, 2.4.0 is held back");
    assert!(mail.text.contains("  afterhours update allow 2.4.0 --app orders\n"), "{}", mail.text);
    let free = render(&RunReport { held: None, ..rolled_back() }, Language::English);
    assert!(free.text.contains("tried again"), "{}", free.text);
    let waits = RunReport { blocked: Some(release("2.4.0", 42)), ..skipped() };
    for language in [Language::English, Language::German] {
        let mail = render(&waits, language);
        assert!(mail.subject.contains("2.4.0"), "{}", mail.subject);
        assert!(mail.text.contains("  afterhours update allow 2.4.0 --app orders\n"), "{}", mail.text);
    }
}

#[test]
fn what_others_said_of_the_failure_is_in_the_mail() {
    let lines = vec!["<title>KeyError at /</title>".to_owned()];
    let exhibits: Box<[Exhibit]> = Box::from([Exhibit { from: "http://127.0.0.1:8080/".to_owned(), lines }]);
    let cause = Cause::StepFailed { at: at(Step::CheckHealth), failure: Failure { exhibits, ..unhealthy() } };
    let text = render(&RunReport { cause: Some(cause), ..rolled_back() }, Language::German).text;
    assert!(text.contains("  http://127.0.0.1:8080/:\n    <title>KeyError at /</title>\n"), "{text}");
}

#[test]
fn a_cancelled_and_an_overlong_run_say_so() {
    let cancelled = RunReport {
        verdict: Verdict::Finished(Outcome::Cancelled),
        cause: Some(Cause::Cancelled { by: "bert".to_owned() }),
        ..failed()
    };
    assert!(read(&cancelled, Language::English).contains("It was cancelled by bert."));
    let overlong = RunReport { cause: Some(Cause::Overlong { max_runtime: Span::hours(2) }), ..rolled_back() };
    assert!(read(&overlong, Language::German).contains("länger als 2h"));
}

#[test]
fn languages_are_chosen_by_tag() {
    let of = ["de", "de-AT", "de_DE.UTF-8", "DE", "en-GB", "fr", "", "den"].map(Language::from_tag);
    use Language::English as E;
    use Language::German as G;
    assert_eq!(of, [G, G, G, G, E, E, E, E]);
}

#[test]
fn whatever_is_in_it_a_mail_ends() {
    let step = |number: u32| StepReport {
        at: At { step: Step::MigrateData, build: number },
        state: StepState::Done,
        took: None,
        message: "done\n".to_owned() + &"a long line of a program ".repeat(30) + &"\nmore".repeat(5000),
    };
    let finding = |number: u32| Finding::warning("space", format!("{number}: {}", "x".repeat(900)), "y".repeat(900));
    let user = |number: u32| LoggedOut { user: format!("user {number} {}", "z".repeat(90)), workstation: None };
    let failure = Failure {
        because: vec!["c".repeat(900); 900],
        said: vec!["s".repeat(900); 900],
        ..Failure::new("m".repeat(900))
    };
    let report = RunReport {
        steps: (0..300).map(step).collect(),
        findings: (0..900).map(finding).collect(),
        logged_out: (0..900).map(user).collect(),
        notes: (0..50).map(|build| (release("2.0", build), "n\n".repeat(9000))).collect(),
        cause: Some(Cause::StepFailed { at: at(Step::Stop), failure }),
        ..night()
    };
    for language in [Language::English, Language::German] {
        let mail = render(&report, language);
        assert!(mail.text.len() < 101_000, "{}", mail.text.len());
        assert!(mail.text.starts_with("Order desk w"), "what matters comes first");
    }
    let english = render(&RunReport { steps: Vec::new(), ..report }, Language::English).text;
    for part in ["… and 40 more", "… and 8960 more", "… and 870 more"] {
        assert!(english.contains(part), "{part}: {english}");
    }
}

#[test]
fn a_job_that_should_follow_but_is_disabled_is_named() {
    let report = RunReport { idle: vec!["recover".parse().unwrap()], ..failed() };
    let text = render(&report, Language::English).text;
    assert!(
        text.contains("recover should have followed, but is disabled.\n  afterhours job enable recover\n"),
        "{text}"
    );
    assert!(render(&report, Language::German).text.contains("recover hätte folgen sollen"));
}
