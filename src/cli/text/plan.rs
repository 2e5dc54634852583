//! How a plan reads.

use crate::cli::text::NOTHING;
use crate::cli::text::Times;
use crate::cli::text::app;
use crate::cli::text::bytes;
use crate::cli::text::count;
use crate::cli::text::indented;
use crate::cli::text::maybe;
use crate::cli::text::pairs;
use crate::cli::text::rough;
use crate::cli::text::table;
use crate::wire::plan::FilesView;
use crate::wire::plan::PlanView;
use crate::wire::plan::PlannedStep;

/// What a run would do, in order.
pub(crate) fn show(plan: &PlanView, times: &Times) -> String {
    let path: Vec<String> = plan.path.iter().map(|release| release.version.to_string()).collect();
    let versions = match path.is_empty() {
        true if plan.held.is_empty() => format!("{} (nothing newer)", maybe(plan.from.as_ref())),
        true => format!("{} (nothing newer is taken now)", maybe(plan.from.as_ref())),
        false => match &plan.from {
            Some(from) => format!("{} -> {}", from.version, path.join(" -> ")),
            None => format!("to {}", path.join(" -> ")),
        },
    };
    let away = plan.downtime_ms.map_or_else(
        || "not known before the first run".to_owned(),
        |millis| format!("about {}", rough(u128::from(millis))),
    );
    let people = match (plan.sessions.known, plan.sessions.reason.as_ref()) {
        (true, _) => count(plan.sessions.sessions.len(), "session"),
        (false, reason) => format!("unknown: {}", maybe(reason)),
    };
    let mut rows = vec![
        ("Application", plan.app.to_string()),
        ("Starts", plan.due_at.map_or_else(|| NOTHING.to_owned(), |at| times.at_and_away(at))),
        ("Version", versions),
        ("Logged in now", people),
        ("Grace", plan.grace.to_string()),
        ("Downtime", away),
    ];
    if plan.repair {
        rows.push(("Repair", "goes on where the application is down or does not pass its health check".to_owned()));
    }
    if let Some(update) = &plan.self_update {
        rows.insert(
            3,
            ("Before that", format!("first Afterhours updates itself from {} to {}", update.from, update.to)),
        );
    }
    // What is behind the first one waits for it.
    rows.extend(plan.held.first().map(|held| ("Held back", held.sentence(|at| times.at(at)))));
    rows.extend(plan.early.iter().map(|early| ("Early", early.passed_over())));
    if let Some(space) = &plan.space {
        rows.push(("Space", format!("{} needed, {} free", bytes(space.needed_bytes), bytes(space.free_bytes))));
    }
    rows.push(("Mail to", if plan.mail.is_empty() { NOTHING.to_owned() } else { plan.mail.join(", ") }));
    let mut parts = vec![pairs(rows)];
    if !plan.path.is_empty() {
        parts.push(format!("Steps\n{}", indented(&steps(&plan.steps))));
    }
    parts.extend(plan.files.as_ref().map(|it| format!("Files\n{}", indented(&files(it)))));
    if !plan.findings.is_empty() {
        parts.push(format!("Findings\n{}", indented(&app::findings(&plan.findings))));
    }
    parts.push("Nothing was changed.".to_owned());
    parts.join("\n\n")
}

fn steps(steps: &[PlannedStep]) -> String {
    let rows = steps.iter().enumerate().map(|(place, step)| {
        let version = step.version.as_ref().map(|version| format!(" ({version})")).unwrap_or_default();
        vec![
            (place + 1).to_string(),
            step.step.to_string(),
            format!("{}{}{version}", step.does, if step.as_root { ", as root" } else { "" }),
            step.undo.clone().unwrap_or_default(),
        ]
    });
    table(&["", "STEP", "DOES", "IF A LATER STEP FAILS"], rows.collect(), "")
}

fn files(files: &FilesView) -> String {
    let FilesView { added, changed, removed, kept, conflicts } = files;
    let mut lines = vec![format!("{added} new, {changed} changed, {removed} removed")];
    lines.extend(kept.iter().map(|path| format!("kept: {path}")));
    lines.extend(conflicts.iter().map(|path| format!("kept: {path} (the vendor's new one stands beside it as .new)")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::*;
    use crate::domain::finding::Finding;
    use crate::domain::held::HeldBack;
    use crate::domain::held::HeldBy;
    use crate::domain::release::ReleaseId;
    use crate::domain::session::Census;
    use crate::domain::span::Span;
    use crate::domain::step::Step;
    use crate::wire::app::ReleaseView;
    use crate::wire::people::SessionsView;
    use crate::wire::plan::SelfUpdateView;
    use crate::wire::plan::SpaceView;

    #[test]
    fn a_plan_is_shown() {
        let release = |version: &str, build| ReleaseView {
            version: version.parse().unwrap(),
            build,
            date: None,
            size_bytes: 1 << 20,
            unpacked_bytes: 4 << 20,
            notes: String::new(),
            min_version: None,
            barrier: false,
            migrates: true,
            migrates_as_root: build == 3,
            failed_before: false,
            held: None,
            early: None,
            security: false,
        };
        let step = |step: Step, version: Option<&str>, undo: Option<&str>| PlannedStep {
            step,
            build: 0,
            version: version.map(|version| version.parse().unwrap()),
            does: step.row().does.to_owned(),
            as_root: false,
            undo: undo.map(str::to_owned),
        };
        let plan = PlanView {
            job: Some("nightly".parse().unwrap()),
            app: "orders".parse().unwrap(),
            due_at: Some("2026-11-22T01:30:00Z".parse().unwrap()),
            from: Some(ReleaseId { version: "1.0".parse().unwrap(), build: 1 }),
            path: vec![release("2.0", 2), release("3.0", 3)],
            self_update: Some(SelfUpdateView {
                from: "0.1.0".to_owned(),
                to: ReleaseId { version: "0.2.0".parse().unwrap(), build: 2 },
            }),
            held: vec![HeldBack {
                release: ReleaseId { version: "4.0".parse().unwrap(), build: 4 },
                why: HeldBy::Rollout { until: "2026-12-01T02:12:00Z".parse().unwrap() },
            }],
            early: Vec::new(),
            repair: false,
            grace: Span::mins(5),
            steps: vec![
                step(Step::Preflight, None, None),
                step(Step::Swap, Some("2.0"), Some("exchange the directories back")),
                PlannedStep {
                    as_root: true,
                    ..step(Step::MigrateData, Some("3.0"), Some("restore the data from the snapshot"))
                },
            ],
            files: Some(FilesView {
                added: 3,
                changed: 12,
                removed: 0,
                kept: vec!["licence.key".to_owned()],
                conflicts: vec!["config/app.toml".to_owned()],
            }),
            space: Some(SpaceView { needed_bytes: 12 << 20, free_bytes: 3 << 30 }),
            downtime_ms: None,
            sessions: SessionsView::new("orders".parse().unwrap(), Census::Known(Vec::new())),
            mail: vec!["it@example.com".to_owned()],
            findings: vec![Finding::warning("owner", "files belong to root", "set `owner`")],
        };
        let times = Times::in_zone("2026-11-21T20:00:00Z".parse().unwrap(), Tz::Europe__Berlin);
        insta::assert_snapshot!(show(&plan, &times));
    }
}
