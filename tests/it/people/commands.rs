//! Sessions that commands know about, together with workstations.

use std::sync::Arc;
use std::time::Duration;

use afterhours::config::settings::SessionsSettings;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::finding::Severity;
use afterhours::domain::session::Census;
use afterhours::domain::session::SessionId;
use afterhours::domain::span::Span;
use afterhours::sessions::Finished;
use afterhours::sessions::Sessions;
use afterhours::sessions::SessionsError;
use afterhours::sessions::hub::Hub;

use super::bench::notice;
use super::links::sit;
use crate::settings::app_settings;
use crate::support::command;
use crate::support::sh;

fn commands(list: &str) -> SessionsSettings {
    SessionsSettings::Commands {
        list: sh(list),
        message: None,
        end: None,
        deadline: Span::secs(10),
        ignore_users: Vec::new(),
    }
}

fn hub() -> Arc<Hub> {
    Hub::new(Vec::new(), Arc::new(SystemClock), None)
}

fn sessions(providers: Vec<SessionsSettings>, hub: &Arc<Hub>) -> Sessions {
    let mut app = app_settings();
    app.sessions = providers;
    Sessions::new(&app, Arc::clone(hub))
}

const LIST: &str = r#"echo '[{"id": 7, "user": "anna", "since": "2026-11-21T20:00:00Z", "unsaved": true}]'"#;

#[tokio::test]
async fn everybody_is_counted_together() {
    let hub = hub();
    assert_eq!(sessions(Vec::new(), &hub).census().await, Census::Known(Vec::new()));
    let both = sessions(vec![SessionsSettings::Workstations, commands(LIST)], &hub);
    let _seat = sit(&hub, None).await;
    let Census::Known(all) = both.census().await else { panic!("unknown") };
    assert_eq!(all.len(), 2);
    assert_eq!((all[1].id.0.as_str(), all[1].unsaved), ("7", Some(true)));
}

#[tokio::test]
async fn a_list_that_fails_in_any_way_is_unknown() {
    let hub = hub();
    for (list, reason) in [
        ("echo '[{'", "did not print a JSON array"),
        ("true", "did not print a JSON array"),
        ("echo '[]'; echo cannot reach the database >&2; exit 1", "cannot reach the database"),
        ("yes '[]' | head -c 400000", "printed more than"),
    ] {
        let sessions = sessions(vec![SessionsSettings::Workstations, commands(list)], &hub);
        let Census::Unknown(why) = sessions.census().await else { panic!("{list} is known") };
        assert!(why.contains(reason), "{list}: {why}");
        assert!(sessions.check(false).await.iter().any(|finding| finding.severity == Severity::Fatal), "{list}");
    }
    let slow = SessionsSettings::Commands {
        list: sh("exec sleep 100"),
        message: None,
        end: None,
        deadline: Span::from(Duration::from_millis(200)),
        ignore_users: Vec::new(),
    };
    let missing = SessionsSettings::Commands {
        list: command(&["/no/such/list"]),
        message: None,
        end: None,
        deadline: Span::secs(1),
        ignore_users: Vec::new(),
    };
    for provider in [slow, missing] {
        assert!(matches!(sessions(vec![provider], &hub).census().await, Census::Unknown(_)));
    }
}

#[tokio::test]
async fn sessions_of_a_probe_are_nobodys() {
    let list = r#"echo '[{"id": 7, "user": "probe"}, {"id": 8, "user": "anna"}, {"id": 9, "user": "probe"}]'"#;
    let SessionsSettings::Commands { list, message, end, deadline, .. } = commands(list) else { panic!() };
    let ignore_users = vec!["probe".to_owned()];
    let provider = SessionsSettings::Commands { list, message, end, deadline, ignore_users };
    let sessions = sessions(vec![provider], &hub());
    let Census::Known(people) = sessions.census().await else { panic!("unknown") };
    assert_eq!(people.iter().map(|session| session.id.0.as_str()).collect::<Vec<_>>(), ["8"]);
    assert_eq!(sessions.ignored().await.len(), 2);
    assert!(sessions.check(false).await.iter().any(|finding| finding.text.contains("lists 1 sessions")));
}

#[tokio::test]
async fn commands_are_told_what_to_show_and_whom_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let provider = SessionsSettings::Commands {
        list: sh(LIST),
        message: Some(sh(&format!(
            r#"echo "$AFTERHOURS_APP/$AFTERHOURS_SESSION: $AFTERHOURS_MESSAGE" >> {}"#,
            log.display()
        ))),
        end: Some(sh(&format!(r#"echo "end $AFTERHOURS_SESSION $AFTERHOURS_FORCE" >> {}"#, log.display()))),
        deadline: Span::secs(10),
        ignore_users: Vec::new(),
    };
    let hub = hub();
    let sessions = sessions(vec![SessionsSettings::Workstations, provider], &hub);
    let notice = notice(300);
    sessions.announce(&notice).await.unwrap();
    sessions.announce(&notice).await.unwrap();
    sessions.remind(&notice, Span::mins(2)).await.unwrap();
    let anna = SessionId("7".into());
    sessions.message("Hello; rm -rf \"$HOME\"", Some(&anna)).await.unwrap();
    sessions.end(&anna, false).await.unwrap();
    sessions.end(&anna, true).await.unwrap();
    let off = Finished { success: false, version: None, message: "The update was cancelled.".into() };
    sessions.finish(&off).await.unwrap();
    sessions.finish(&off).await.unwrap();
    sessions.finish(&Finished { success: true, version: None, message: "Done.".into() }).await.unwrap();
    let text = fs_err::read_to_string(&log).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("orders/: Order desk: Version 2 is installed tonight. Please save"), "{text}");
    assert!(lines[1].contains("open in 2m"), "the same notice is shown once: {text}");
    assert_eq!(
        lines[2..],
        [
            "orders/7: Hello; rm -rf \"$HOME\"",
            "end 7 0",
            "end 7 1",
            "orders/: The update was cancelled.",
            "orders/: Done.",
        ]
    );
    // A session of a workstation is the hub's business alone.
    let seat = sit(&hub, None).await;
    sessions.end(seat.session(), false).await.unwrap();
    assert_eq!(fs_err::read_to_string(&log).unwrap(), text);
}

#[tokio::test]
async fn a_failing_command_does_not_keep_the_others_from_being_told() {
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    let message = |script: String| SessionsSettings::Commands {
        list: sh("echo '[]'"),
        message: Some(sh(&script)),
        end: None,
        deadline: Span::secs(10),
        ignore_users: Vec::new(),
    };
    let bad = || message("echo no bell >&2; exit 1".to_owned());
    let good = message(format!("touch {}", told.display()));
    let sessions = sessions(vec![bad(), good, bad()], &hub());
    let error = sessions.message("Hello", None).await.unwrap_err();
    assert!(told.exists());
    assert!(matches!(error, SessionsError::Several { .. }), "{error}");
    let error = sessions.end(&SessionId("1".into()), true).await.unwrap_err();
    assert!(matches!(error, SessionsError::CannotEnd { .. }) && error.hint().is_some(), "{error}");
    assert!(sessions.check(false).await.iter().any(|finding| finding.check == "sessions_end"));
    let mute = self::sessions(vec![SessionsSettings::Workstations, commands("echo '[]'")], &hub());
    let error = mute.message("Hello", Some(&SessionId("1".into()))).await.unwrap_err();
    assert!(matches!(error, SessionsError::CannotTell { .. }), "{error}");
    mute.message("Hello", None).await.unwrap();
}
