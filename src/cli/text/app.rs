//! How an application reads: its people, its gate, its backups, its findings, its releases.

use crate::cli::text::NOTHING;
use crate::cli::text::Times;
use crate::cli::text::bytes;
use crate::cli::text::count;
use crate::cli::text::failure;
use crate::cli::text::harmless;
use crate::cli::text::indented;
use crate::cli::text::job;
use crate::cli::text::maybe;
use crate::cli::text::pairs;
use crate::cli::text::run;
use crate::cli::text::table;
use crate::cli::text::yes_no;
use crate::domain::finding::Severity;
use crate::domain::gate::ClosedBy;
use crate::domain::gate::Position;
use crate::domain::held::HeldBack;
use crate::domain::letter::Letter;
use crate::domain::letter::LetterState;
use crate::domain::release::ReleaseId;
use crate::domain::session::Answer;
use crate::wire::app::BackupView;
use crate::wire::app::DoctorView;
use crate::wire::app::EvidenceView;
use crate::wire::app::FindingView;
use crate::wire::app::NotReachedView;
use crate::wire::app::QuarantinedView;
use crate::wire::app::ReleaseView;
use crate::wire::app::SnapshotView;
use crate::wire::app::UpdatesView;
use crate::wire::people::GateView;
use crate::wire::people::SessionView;
use crate::wire::plan::SelfUpdateView;
use crate::wire::status::AppView;
use crate::wire::status::LastCheck;
use crate::wire::status::StatusView;

/// How many lines of its notes stand with a release in a list; `update notes` has all of them.
const NOTES_LINES: usize = 5;

/// Everybody who is logged in.
pub(crate) fn sessions(sessions: &[SessionView], times: &Times) -> String {
    let away = |at: Option<_>| at.map_or_else(|| NOTHING.to_owned(), |at| times.away(at));
    let rows = sessions.iter().map(|session| {
        let answer = session.answer.map(|answer| match answer {
            Answer::Ok => "ok",
            Answer::NotNow => "not now",
            Answer::RestartAfterwards => "restart afterwards",
        });
        vec![
            session.app.to_string(),
            session.id.to_string(),
            session.user.clone(),
            maybe(session.said.as_ref()),
            maybe(session.uid),
            maybe(session.pid),
            maybe(session.workstation.as_ref()),
            away(session.since),
            away(session.last_activity),
            maybe(session.unsaved.map(yes_no)),
            maybe(answer),
        ]
    });
    let header =
        ["APP", "SESSION", "USER", "SAYS", "UID", "PID", "WORKSTATION", "SINCE", "ACTIVE", "UNSAVED", "ANSWER"];
    table(&header, rows.collect(), "Nobody is logged in.")
}

/// A gate in one or a few lines.
pub(crate) fn gate(view: &GateView, times: &Times) -> String {
    let app = &view.gate.app;
    let mut lines = match &view.gate.position {
        Position::Open => vec![format!("{app}: open")],
        Position::Closed { by, message, until, lease_until, since, .. } => {
            let by = match by {
                ClosedBy::Run(run) => format!("run {run}"),
                ClosedBy::Operator(name) => name.clone(),
            };
            let over = if view.admits { ", but nobody keeps it closed any more: users may log in" } else { "" };
            let mut lines = vec![format!("{app}: closed by {by} since {}{over}", times.at(*since))];
            lines.extend(until.map(|at| format!("  until:   {}", times.at_and_away(at))));
            lines.extend(
                lease_until
                    .map(|at| format!("  opens:   {} by itself, unless the run renews it", times.at_and_away(at))),
            );
            lines.push(format!("  message: {message}"));
            lines
        }
    };
    if let Some(opening) = &view.opening
        && let Some(failure) = &opening.failure
    {
        lines.push(format!("  closed:  failed to {failure}"));
        lines.extend(failure.hint.as_ref().map(|hint| format!("  remedy:  {hint}")));
        let next = times.at_and_away(opening.next_at);
        lines.push(format!("  again:   {next}, or at once with `afterhours gate open {app}`"));
    }
    lines.extend(view.passes.iter().map(|pass| {
        let whom = pass.user.as_deref().unwrap_or("anybody");
        format!("  pass:    {whom}, until {}, given by {}", times.at(pass.valid_until), pass.given_by)
    }));
    lines.join("\n")
}

/// What was found, worst things with their remedy.
pub(crate) fn findings(findings: &[FindingView]) -> String {
    let lines = findings.iter().map(|finding| {
        let mark = match finding.severity {
            Severity::Good => "ok     ",
            Severity::Warning => "WARNING",
            Severity::Fatal => "FATAL  ",
        };
        let remedy = finding.remedy.as_ref().map(|remedy| format!("\n         remedy: {remedy}"));
        format!("{mark}  {}: {}{}", finding.check, finding.text, remedy.unwrap_or_default())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Everything that was checked.
pub(crate) fn doctor(view: &DoctorView) -> String {
    let of = |severity| view.findings.iter().filter(|finding| finding.severity == severity).count();
    let verdict = match view.worst() {
        Severity::Good => "all is well".to_owned(),
        Severity::Warning => format!("a run would go on; {}", count(of(Severity::Warning), "warning")),
        Severity::Fatal => format!("a run would not begin; {} to remedy", count(of(Severity::Fatal), "thing")),
    };
    format!("{}\n{}\n{}: {verdict}", view.app, indented(&findings(&view.findings)), view.app)
}

/// The newest backup.
pub(crate) fn backup(view: &BackupView, times: &Times) -> String {
    let mut rows = vec![("Application", view.app.to_string()), ("Accepted", yes_no(view.accepted).to_owned())];
    if let Some(evidence) = &view.evidence {
        rows.push(("Backup", evidence.source.clone()));
        rows.push(("Made", times.at_and_away(evidence.made_at)));
        rows.push(("Size", maybe(evidence.size_bytes.map(bytes))));
        rows.push(("Tested", if evidence.tested.is_empty() { NOTHING.to_owned() } else { evidence.tested.join(", ") }));
    }
    rows.push(("Oldest accepted", view.max_age.map_or_else(|| "any".to_owned(), |age| age.to_string())));
    let mut text = pairs(rows);
    if let Some(problem) = &view.problem {
        text.push_str("\nBecause\n");
        text.push_str(&indented(&format!("failed to {}", failure(problem))));
    }
    text
}

/// All backups that were found.
pub(crate) fn backups(backups: &[EvidenceView], times: &Times) -> String {
    let rows = backups.iter().map(|it| {
        vec![times.at(it.made_at), times.away(it.made_at), maybe(it.size_bytes.map(bytes)), it.source.clone()]
    });
    table(&["MADE", "AGE", "SIZE", "BACKUP"], rows.collect(), "There are no backups.")
}

/// Copies kept for rollback.
pub(crate) fn snapshots(snapshots: &[SnapshotView], times: &Times) -> String {
    let rows = snapshots.iter().map(|it| {
        vec![
            it.app.to_string(),
            times.at(it.taken_at),
            maybe(it.run),
            maybe(it.version.as_ref()),
            maybe(it.size_bytes.map(bytes)),
            it.path.display().to_string(),
        ]
    });
    table(&["APP", "TAKEN", "RUN", "VERSION", "SIZE", "PATH"], rows.collect(), "There are no snapshots.")
}

/// What failed here and is not tried again by itself.
pub(crate) fn quarantined(held: &[QuarantinedView], times: &Times) -> String {
    let rows = held.iter().map(|it| {
        let version = format!("{} (build {})", it.version, it.build);
        let why = harmless(&it.reason).lines().collect::<Vec<_>>().join(" ");
        vec![it.app.to_string(), version, times.at(it.failed_at), it.run.to_string(), why]
    });
    table(&["APP", "VERSION", "FAILED", "RUN", "WHY"], rows.collect(), "Nothing is held back because it failed here.")
}

/// Newer releases, with their notes.
pub(crate) fn updates(view: &UpdatesView, times: &Times) -> String {
    let installed = match &view.installed {
        Some(installed) if view.unverified => format!("{installed} is installed (unverified)"),
        Some(installed) => format!("{installed} is installed"),
        None => "which version is installed is not known".to_owned(),
    };
    let mut parts: Vec<String> = not_reached(view, times).into_iter().collect();
    parts.push(match view.pending.is_empty() {
        true => format!("{}: {installed}, nothing newer", view.app),
        false => pending(view, &installed),
    });
    parts.extend(view.doubt.iter().map(|doubt| indented(&findings(std::slice::from_ref(doubt)))));
    let first =
        |update: &SelfUpdateView| format!("first, Afterhours updates itself from {} to {}", update.from, update.to);
    parts.extend(view.self_update.as_ref().map(|update| indented(&first(update))));
    parts.extend(view.pending.iter().map(|release| indented(&self::release(release, times))));
    parts.join("\n")
}

/// What is new in each release, in order, in full.
pub(crate) fn notes(view: &UpdatesView, times: &Times) -> String {
    let shown = |release: &ReleaseView| {
        let notes = match harmless(&release.notes) {
            notes if notes.is_empty() => "no notes".to_owned(),
            notes => notes,
        };
        format!("{}\n{}", headline(release, times), indented(&notes))
    };
    match view.pending.as_slice() {
        [] => updates(view, times),
        pending => {
            not_reached(view, times).into_iter().chain(pending.iter().map(shown)).collect::<Vec<_>>().join("\n\n")
        }
    }
}

/// That what follows is old, and why.
fn not_reached(view: &UpdatesView, times: &Times) -> Option<String> {
    let NotReachedView { failure: failed, seen_at } = view.not_reached.as_ref()?;
    let since = match seen_at {
        Some(at) => format!("as of {}", times.at(*at)),
        None => "what was verified before is shown".to_owned(),
    };
    let why = harmless(&format!("failed to {}", failure(failed)));
    Some(format!("{}: the server was not reached; {since}\n{}", view.app, indented(&why)))
}

/// How many releases are newer.
fn pending(view: &UpdatesView, installed: &str) -> String {
    let held = view.pending.iter().filter(|release| release.held.is_some()).count();
    let mut head = format!("{}: {installed}, {} pending", view.app, view.pending.len());
    if held > 0 {
        head.push_str(&format!(", of which {held} not taken now"));
    }
    head
}

/// A release, and the beginning of its notes.
fn release(release: &ReleaseView, times: &Times) -> String {
    let line = headline(release, times);
    let notes = harmless(&release.notes);
    let mut lines = notes.lines();
    let mut said: Vec<&str> = lines.by_ref().take(NOTES_LINES).collect();
    if lines.next().is_some() {
        said.push("…");
    }
    if said.is_empty() { line } else { format!("{line}\n{}", indented(&said.join("\n"))) }
}

/// Which release, when, how large, and what is special about it.
fn headline(release: &ReleaseView, times: &Times) -> String {
    let mut line = format!("{} (build {}", release.version, release.build);
    if let Some(date) = release.date {
        line.push_str(&format!(", {date}"));
    }
    line.push_str(&format!(", {})", bytes(release.size_bytes)));
    if release.migrates {
        line.push_str(if release.migrates_as_root { ", changes the data AS ROOT" } else { ", changes the data" });
    }
    if release.security {
        line.push_str(", SECURITY");
    }
    if release.barrier {
        line.push_str(", never left out");
    }
    if let Some(needs) = &release.min_version {
        line.push_str(&format!(", needs {needs}"));
    }
    if let Some(held) = release.held_back() {
        line.push_str(&format!("\n{}", held.sentence(|at| times.at(at))));
    }
    if let Some(why) = release.early.clone() {
        let release = ReleaseId { version: release.version.clone(), build: release.build };
        line.push_str(&format!("\n{}", HeldBack { release, why }.passed_over()));
    }
    line
}

/// When newer releases of an application were looked for, and what came of it.
fn last_check(app: &AppView, times: &Times) -> Vec<String> {
    let name = app.app.to_string();
    let Some(check) = &app.last_check else {
        return vec![name, NOTHING.to_owned(), String::new(), "not known: nobody has looked yet".to_owned()];
    };
    let found = match (&check.failure, check.seen_at) {
        (None, _) => newer(check),
        (Some(failed), seen_at) => {
            let mut text = harmless(&format!("failed to {}", failure(failed)));
            if let Some(at) = seen_at {
                text.push_str(&format!("\nbefore, {}: {}", times.at(at), newer(check)));
            }
            text
        }
    };
    vec![name, times.at(check.at), times.away(check.at), found]
}

/// `nothing`, `3.0 (build 3)`, `3.0 (build 3) and 1 before it, 1 held back`.
fn newer(check: &LastCheck) -> String {
    let Some((newest, before)) = check.pending.split_last() else { return "nothing".to_owned() };
    let mut text = newest.to_string();
    if !before.is_empty() {
        text.push_str(&format!(" and {} before it", before.len()));
    }
    match check.held {
        0 => {}
        _ if before.is_empty() => text.push_str(", held back"),
        held => text.push_str(&format!(", {held} held back")),
    }
    text
}

/// Mails that somebody does not have.
fn unsent(letters: &[Letter], times: &Times) -> String {
    let rows = letters.iter().map(|letter| {
        let next = match letter.state {
            LetterState::Dead => "given up".to_owned(),
            LetterState::Pending | LetterState::Sent => letter.next_at.map_or_else(String::new, |at| times.away(at)),
        };
        let why = letter.said.as_deref().map(harmless).unwrap_or_default();
        vec![letter.to.clone(), maybe(letter.run), letter.attempts.to_string(), next, why]
    });
    table(&["UNSENT MAIL TO", "RUN", "TRIES", "NEXT", "WHY"], rows.collect(), "")
}

/// Everything on one page.
pub(crate) fn status(view: &StatusView, times: &Times) -> String {
    let mut parts = vec![match &view.daemon {
        Some(daemon) => format!(
            "afterhours {}, process {}, up since {}, {}",
            daemon.version,
            daemon.pid,
            times.at(daemon.started_at),
            count(usize::try_from(daemon.jobs).unwrap_or(usize::MAX), "job")
        ),
        None => "No daemon runs, so no job starts by itself. This is what its store says.".to_owned(),
    }];
    if !view.runs.is_empty() {
        parts.push(run::list(&view.runs, times));
        parts.extend(view.runs.iter().filter_map(run::what_next));
    }
    parts.extend(view.notices.iter().map(|notice| format!("! {notice}")));
    let apps = view.apps.iter().map(|app| {
        let gate = match (&app.gate.gate.position, app.gate.admits) {
            (Position::Open, _) if app.gate.opening.is_some() => "open in part",
            (Position::Open, _) => "open",
            (Position::Closed { .. }, false) => "closed",
            (Position::Closed { .. }, true) => "open (lease over)",
        };
        vec![
            app.app.to_string(),
            app.title.clone(),
            match (&app.installed, app.unverified) {
                (Some(installed), true) => format!("{installed}, unverified"),
                (installed, _) => maybe(installed.as_ref()),
            },
            gate.to_owned(),
            app.sessions.map_or_else(|| "unknown".to_owned(), |number| number.to_string()),
            job::last_run(app.last_run.as_ref(), times),
        ]
    });
    let header = ["APP", "TITLE", "INSTALLED", "GATE", "SESSIONS", "LAST RUN"];
    parts.push(table(&header, apps.collect(), "No application is configured."));
    if !view.apps.is_empty() {
        let checks = view.apps.iter().map(|app| last_check(app, times));
        parts.push(table(&["APP", "LAST CHECK", "", "NEWER"], checks.collect(), ""));
    }
    let next = view
        .next
        .iter()
        .map(|it| vec![it.job.to_string(), it.app.to_string(), times.at(it.due_at), times.away(it.due_at)]);
    parts.push(table(&["NEXT JOB", "APP", "DUE", ""], next.collect(), "No job is due."));
    if !view.mail.is_empty() {
        parts.push(unsent(&view.mail, times));
    }
    if let Some(head) = view.history.as_ref().filter(|head| head.number > 0) {
        parts.push(format!("History: entry {}, {}", head.number, head.short()));
    }
    parts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use chrono::Utc;
    use chrono_tz::Tz;
    use serde::de::DeserializeOwned;
    use serde_json::Value;
    use serde_json::json;

    use super::*;
    use crate::domain::failure::Failure;

    fn times() -> Times {
        Times::in_zone("2026-11-22T01:30:00Z".parse::<DateTime<Utc>>().unwrap(), Tz::Europe__Berlin)
    }

    /// Through JSON, as it comes from the daemon.
    fn view<T: DeserializeOwned>(json: Value) -> T {
        serde_json::from_value(json).unwrap()
    }

    fn closed() -> Value {
        json!({
            "app": "orders", "position": "closed", "by": {"run": 7}, "message": "Back at three.",
            "until": "2026-11-22T02:00:00Z", "lease_until": "2026-11-22T01:31:00Z", "since": "2026-11-22T01:25:00Z",
            "admits": false, "passes": [{"app": "orders", "user": "anna", "valid_until": "2026-11-22T01:40:00Z", "given_by": "root"}]
        })
    }

    #[test]
    fn people_are_listed() {
        let all: Vec<SessionView> = view(json!([
            {"id": "41", "app": "orders", "user": "anna", "workstation": "till-2", "since": "2026-11-21T17:00:00Z",
             "last_activity": "2026-11-22T01:29:20Z", "unsaved": true, "answer": "restart_afterwards"},
            {"id": "sid-9", "app": "orders", "user": "ben"}
        ]));
        insta::assert_snapshot!(sessions(&all, &times()));
        assert_eq!(sessions(&[], &times()), "Nobody is logged in.");
    }

    #[test]
    fn gates_say_who_closed_them_and_until_when() {
        let mut over = closed();
        over["admits"] = json!(true);
        over["by"] = json!({"operator": "root"});
        let open = json!({"app": "crm", "position": "open", "admits": true});
        let mut half = open.clone();
        half["opening"] = json!({
            "since": "2026-11-22T01:28:00Z", "attempts": 2, "next_at": "2026-11-22T01:30:30Z",
            "failure": {"message": "open the gate by removing the file /run/nologin", "because": ["Permission denied"],
                        "hint": "remove /run/nologin by hand"}
        });
        let all: Vec<String> =
            [closed(), over, open, half].into_iter().map(|json| gate(&view(json), &times())).collect();
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn findings_come_with_their_remedy() {
        let found = json!({"app": "orders", "findings": [
            {"check": "space", "severity": "good", "text": "12 GiB are free"},
            {"check": "owner", "severity": "warning", "text": "files belong to root", "remedy": "set `owner`"},
            {"check": "same_fs", "severity": "fatal", "text": "/opt/orders is a mount point", "remedy": "move it"}
        ]});
        insta::assert_snapshot!(doctor(&view(found)));
    }

    #[test]
    fn backups_say_why_they_are_not_accepted() {
        let found = json!({"app": "orders", "accepted": false, "max_age": "2d",
            "evidence": {"source": "/srv/backup/orders-1.dump", "made_at": "2026-11-18T01:30:00Z", "size_bytes": 5_000_000,
                         "tested": ["sha256 matches"]},
            "problem": {"message": "accept the backup", "because": ["it is 4 days old"], "hint": "make one"}});
        insta::assert_snapshot!(backup(&view(found), &times()));
    }

    #[test]
    fn updates_show_their_notes() {
        let found = json!({"app": "orders", "installed": {"version": "1.0", "build": 1}, "pending": [
            {"version": "2.0", "build": 2, "date": "2026-11-20", "size_bytes": 1_048_576, "unpacked_bytes": 1, "notes": "- faster\n- safer\n",
             "min_version": null, "barrier": false, "migrates": true, "failed_before": false},
            {"version": "3.0", "build": 3, "date": null, "size_bytes": 512, "unpacked_bytes": 1, "notes": "",
             "min_version": null, "barrier": false, "migrates": false, "failed_before": true, "held": {"held_by": "failed_here"}},
            {"version": "4.0", "build": 4, "date": null, "size_bytes": 512, "unpacked_bytes": 1, "notes": "",
             "min_version": "2.0", "barrier": true, "migrates": false, "failed_before": false, "security": true,
             "held": {"held_by": "rollout", "until": "2026-12-01T02:12:00Z"}}
        ]});
        let mut found: UpdatesView = view(found);
        insta::assert_snapshot!(updates(&found, &times()));
        insta::assert_snapshot!(notes(&found, &times()));
        let failure = Failure::new("ask the feed https://releases.example.com/").because("the server is \u{1b} silent");
        found.not_reached = Some(NotReachedView { failure, seen_at: Some("2026-11-21T01:07:00Z".parse().unwrap()) });
        insta::assert_snapshot!(notes(&found, &times()));
        found.pending.clear();
        insta::assert_snapshot!(updates(&found, &times()));
    }

    #[test]
    fn a_list_shows_the_beginning_of_notes_and_nothing_wild() {
        let found: UpdatesView =
            view(json!({"app": "orders", "installed": {"version": "1.0", "build": 1}, "pending": [
                {"version": "2.0", "build": 2, "date": null, "size_bytes": 1, "unpacked_bytes": 1,
                 "notes": "one\n\u{1b}[2Jtwo\nthree\nfour\nfive\nsix\n",
                 "min_version": null, "barrier": false, "migrates": false, "failed_before": false}
            ]}));
        let (list, all) = (updates(&found, &times()), notes(&found, &times()));
        assert!(list.contains("[2Jtwo") && list.contains("five\n    …") && !list.contains("six"), "{list}");
        assert!(all.contains("six") && !all.contains('\u{1b}') && !list.contains('\u{1b}'), "{all}");
    }

    #[test]
    fn a_page_shows_everything() {
        let mut open = closed();
        open["position"] = json!("open");
        let page = json!({
            "daemon": {"version": "0.1.0", "pid": 812, "started_at": "2026-11-20T08:00:00Z", "now_at": "2026-11-22T01:30:00Z",
                       "zone": "Europe/Berlin", "jobs": 1},
            "apps": [
                {"app": "orders", "title": "Order desk", "installed": {"version": "3.1", "build": 31}, "gate": closed(),
                 "sessions": 3, "last_run": {"id": 7, "outcome": null, "finished_at": null},
                 "last_check": {"at": "2026-11-22T01:07:00Z", "failure": null, "seen_at": "2026-11-22T01:07:00Z",
                                "pending": [{"version": "3.2", "build": 32}, {"version": "4.0", "build": 40}], "held": 1}},
                {"app": "crm", "title": "Customers", "installed": null, "gate": open, "sessions": null, "last_run": null}
            ],
            "next": [{"job": "nightly", "app": "orders", "due_at": "2026-11-23T01:30:00Z"}],
            "runs": [], "notices": ["the clock was set back by 2 h; new runs are held"]
        });
        insta::assert_snapshot!(status(&view(page), &times()));
    }

    #[test]
    fn what_is_newer_is_said_in_a_few_words() {
        let check = |builds: &[u64], held: u64, failure: Value| -> Vec<String> {
            let pending: Vec<Value> =
                builds.iter().map(|it| json!({"version": format!("{it}.0"), "build": it})).collect();
            let check = json!({"at": "2026-11-22T01:07:00Z", "failure": failure, "pending": pending, "held": held,
                               "seen_at": (held < 9).then_some("2026-11-21T01:07:00Z")});
            let app = json!({"app": "orders", "title": "Order desk", "installed": null, "gate": closed(),
                             "sessions": null, "last_run": null, "last_check": check});
            last_check(&view(app), &times())
        };
        let good = |builds: &[u64], held| check(builds, held, Value::Null).pop().unwrap();
        assert_eq!(good(&[], 0), "nothing");
        assert_eq!(good(&[2], 0), "2.0 (build 2)");
        assert_eq!(good(&[2], 1), "2.0 (build 2), held back");
        assert_eq!(good(&[2, 3], 0), "3.0 (build 3) and 1 before it");
        assert_eq!(good(&[2, 3, 4], 2), "4.0 (build 4) and 2 before it, 2 held back");
        let failure = json!({"message": "ask the feed https://releases.example.com/", "because": ["the licence has\u{1b} expired"],
                             "hint": "renew the licence with the vendor"});
        let rows = vec![check(&[2], 1, failure.clone()), check(&[], 9, failure)];
        insta::assert_snapshot!(table(&["APP", "LAST CHECK", "", "NEWER"], rows, ""));
    }

    #[test]
    fn what_failed_here_is_listed() {
        let held: Vec<QuarantinedView> = view(json!([
            {"app": "orders", "version": "4.0", "build": 4, "run": 7, "failed_at": "2026-11-22T01:44:00Z",
             "reason": "see version 4.0 at http://127.0.0.1:8080/: it answered 500\nfor 60s"},
            {"app": "afterhours", "version": "1.4", "build": 9, "run": 12, "failed_at": "2026-11-23T01:44:00Z",
             "reason": "start afterhours: it ended at once"}
        ]));
        insta::assert_snapshot!(quarantined(&held, &times()));
        insta::assert_snapshot!(quarantined(&[], &times()), @"Nothing is held back because it failed here.");
    }

    #[test]
    fn snapshots_and_backups_are_listed() {
        let kept: Vec<SnapshotView> = view(json!([
            {"app": "orders", "run": 7, "taken_at": "2026-11-22T01:29:00Z", "version": "3.1", "size_bytes": 2048, "path": "/opt/.orders.afterhours/7"}
        ]));
        insta::assert_snapshot!(snapshots(&kept, &times()));
        let found: Vec<EvidenceView> =
            view(json!([{"source": "restic:41af", "made_at": "2026-11-21T22:00:00Z", "tested": []}]));
        insta::assert_snapshot!(backups(&found, &times()));
    }
}
