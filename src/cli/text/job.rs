//! How jobs read.

use chrono::DateTime;
use chrono::Utc;
use chrono_tz::Tz;

use crate::cli::text::NOTHING;
use crate::cli::text::Times;
use crate::cli::text::maybe;
use crate::cli::text::maybe_span;
use crate::cli::text::pairs;
use crate::cli::text::table;
use crate::cli::text::yes_no;
use crate::wire::job::JobChanged;
use crate::wire::job::JobView;
use crate::wire::job::LastRun;
use crate::wire::job::ResolvedKind;
use crate::wire::job::ResolvedView;
use crate::wire::job::StartKind;
use crate::wire::job::StartView;

/// When a job starts, as it was said.
pub(crate) fn start(start: &StartView) -> String {
    match start.kind {
        StartKind::Immediate => "immediately".to_owned(),
        StartKind::Time => format!("{} {}", maybe(start.local), maybe(start.zone)),
        StartKind::Series => format!("{} {}", maybe(start.calendar.as_ref()), maybe(start.zone)),
        StartKind::After => format!("after {}", maybe(start.job.as_ref())),
    }
}

/// A run in three words.
pub(crate) fn last_run(run: Option<&LastRun>, times: &Times) -> String {
    match run {
        None => NOTHING.to_owned(),
        Some(LastRun { id, outcome: None, .. }) => format!("run {id} is under way"),
        Some(LastRun { id, outcome: Some(outcome), finished_at }) => match finished_at {
            Some(at) => format!("run {id} {outcome} {}", times.away(*at)),
            None => format!("run {id} {outcome}"),
        },
    }
}

/// All jobs, one on each line.
pub(crate) fn list(jobs: &[JobView], times: &Times) -> String {
    let rows = jobs.iter().map(|job| {
        vec![
            job.name.to_string(),
            job.app.to_string(),
            yes_no(job.enabled).to_owned(),
            start(&job.start),
            next(job, times),
            last_run(job.last_run.as_ref(), times),
        ]
    });
    let empty = "There are no jobs. Create one with `afterhours job create`.";
    table(&["NAME", "APP", "ENABLED", "START", "NEXT", "LAST"], rows.collect(), empty)
}

fn next(job: &JobView, times: &Times) -> String {
    match (job.missed_at, job.due_at) {
        (Some(_), _) => "missed: waits for you".to_owned(),
        (None, Some(at)) => times.at(at),
        (None, None) => NOTHING.to_owned(),
    }
}

/// All of one job.
pub(crate) fn show(job: &JobView, times: &Times) -> String {
    let mut rows = vec![
        ("Name", job.name.to_string()),
        ("Title", job.title.clone()),
        ("Type", job.kind.name().to_owned()),
        ("Application", job.app.to_string()),
        ("Enabled", yes_no(job.enabled).to_owned()),
        ("Start", start(&job.start)),
        ("Next start", job.due_at.map_or_else(|| NOTHING.to_owned(), |at| times.at_and_away(at))),
    ];
    if let Some(missed_at) = job.missed_at {
        let what = format!(
            "{}; say `afterhours job run {name}` or `afterhours job disable {name}`",
            times.at(missed_at),
            name = job.name
        );
        rows.push(("Missed", what));
    }
    rows.extend([
        ("Last run", last_run(job.last_run.as_ref(), times)),
        ("Grace", maybe_span(job.grace, "as the application says")),
        ("Longest run", job.max_runtime.to_string()),
        ("Missed start", format!("{}, up to {} late", job.misfire.name(), job.misfire_tolerance)),
        ("Up to version", job.to.as_ref().map_or_else(|| "the newest".to_owned(), ToString::to_string)),
        ("On failure", maybe(job.on_failure.as_ref())),
        ("Mail", if job.mail.is_empty() { NOTHING.to_owned() } else { job.mail.join(", ") }),
    ]);
    if job.repair {
        rows.push(("Repair", "goes on where the application is down or does not pass its health check".to_owned()));
    }
    if !job.remarks.is_empty() {
        rows.push(("Remarks", job.remarks.clone()));
    }
    rows.push(("Created", format!("{} by {}", times.at(job.created_at), job.created_by)));
    if job.updated_at != job.created_at {
        rows.push(("Changed", times.at(job.updated_at)));
    }
    let notices = job.notices.iter().map(|notice| format!("! {notice}"));
    std::iter::once(pairs(rows)).chain(notices).collect::<Vec<_>>().join("\n")
}

/// What a change has come to: whether the job is enabled, and when it starts.
pub(crate) fn changed(verb: &str, changed: &JobChanged, times: &Times) -> String {
    let job = &changed.job;
    let state = if job.enabled { "enabled" } else { "disabled" };
    let mut lines = vec![match verb.eq_ignore_ascii_case(state) {
        true => format!("{verb} job {} for {}.", job.name, job.app),
        false => format!("{verb} job {} for {}; it is {state}.", job.name, job.app),
    }];
    match &changed.resolved {
        Some(resolved) => lines.push(resolution(&job.start, resolved)),
        None => lines.push(format!("Starts: {}", start(&job.start))),
    }
    match job.due_at {
        Some(at) => lines.push(format!("Next start: {}", times.at_and_away(at))),
        None if !job.enabled => lines.push(format!("It will not start before `afterhours job enable {}`.", job.name)),
        None => {}
    }
    lines.join("\n")
}

/// What a local time means; both candidates where it exists twice.
fn resolution(start: &StartView, resolved: &ResolvedView) -> String {
    let zoned = |at: DateTime<Utc>| match start.zone {
        Some(zone) => at.with_timezone(&zone).format("%a %Y-%m-%d %H:%M:%S %Z").to_string(),
        None => at.format("%a %Y-%m-%d %H:%M:%S UTC").to_string(),
    };
    let is_utc = start.zone.is_none_or(|zone| zone == Tz::UTC);
    let both = |at: DateTime<Utc>| match is_utc {
        true => zoned(at),
        false => format!("{} ({})", zoned(at), at.format("%Y-%m-%d %H:%M:%S UTC")),
    };
    let what = self::start(start);
    match (resolved.kind, resolved.first, resolved.second) {
        (ResolvedKind::Gap, _, _) => format!(
            "Starts: {what}\nThe clocks are set forward over that time; it starts at the first instant after: {}",
            both(resolved.at)
        ),
        (ResolvedKind::Overlap, Some(first), Some(second)) => format!(
            "Starts: {what}\nThe clocks are set back over that time, so it exists twice:\n  first   {}  <- it starts here\n  second  {}",
            both(first),
            both(second)
        ),
        (ResolvedKind::Exact | ResolvedKind::Overlap, _, _) if is_utc => format!("Starts: {}", both(resolved.at)),
        (ResolvedKind::Exact | ResolvedKind::Overlap, _, _) => format!("Starts: {what} = {}", both(resolved.at)),
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDateTime;

    use super::*;
    use crate::domain::job::Job;
    use crate::domain::job::JobSpec;
    use crate::domain::job::JobType;
    use crate::domain::job::MisfirePolicy;
    use crate::domain::job::StartCondition;
    use crate::domain::run::Outcome;
    use crate::domain::run::RunId;
    use crate::domain::span::Span;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn times() -> Times {
        Times::in_zone(at("2026-10-24T20:00:00Z"), Tz::Europe__Berlin)
    }

    fn job(local: &str, due_at: Option<DateTime<Utc>>) -> JobView {
        let local = NaiveDateTime::parse_from_str(local, "%Y-%m-%d %H:%M").unwrap();
        let job = Job {
            spec: JobSpec {
                name: "nightly".parse().unwrap(),
                title: "Order desk, at night".to_owned(),
                kind: JobType::SoftwareUpdate,
                app: "orders".parse().unwrap(),
                remarks: String::new(),
                start: StartCondition::Time { local, zone: Tz::Europe__Berlin },
                grace: Some(Span::mins(5)),
                max_runtime: Span::hours(2),
                misfire: MisfirePolicy::Ask,
                misfire_tolerance: Span::hours(4),
                to: None,
                to_named_at: None,
                on_failure: None,
                repair: false,
                mail: vec!["it@example.com".to_owned()],
            },
            enabled: due_at.is_some(),
            due_at,
            missed_at: None,
            created_by: "root".to_owned(),
            created_at: at("2026-10-24T19:00:00Z"),
            updated_at: at("2026-10-24T19:00:00Z"),
        };
        let finished_at = Some(at("2026-10-24T01:04:00Z"));
        JobView::new(job, due_at, Some(LastRun { id: RunId(7), outcome: Some(Outcome::RolledBack), finished_at }))
    }

    #[test]
    fn a_job_is_shown() {
        insta::assert_snapshot!(show(&job("2026-10-25 02:30", Some(at("2026-10-25T00:30:00Z"))), &times()));
    }

    #[test]
    fn jobs_are_listed() {
        let jobs = [job("2026-10-25 02:30", Some(at("2026-10-25T00:30:00Z"))), job("2026-10-26 02:30", None)];
        insta::assert_snapshot!(list(&jobs, &times()));
        insta::assert_snapshot!(list(&[], &times()));
    }

    #[test]
    fn a_doubled_time_names_both_instants() {
        let (first, second) = (at("2026-10-25T00:30:00Z"), at("2026-10-25T01:30:00Z"));
        let resolved =
            ResolvedView { at: first, kind: ResolvedKind::Overlap, first: Some(first), second: Some(second) };
        let created =
            JobChanged { job: job("2026-10-25 02:30", Some(first)), resolved: Some(resolved), warnings: Vec::new() };
        insta::assert_snapshot!(changed("Created", &created, &times()));
    }

    #[test]
    fn a_time_in_utc_is_said_once() {
        let due_at = at("2026-10-25T02:30:00Z");
        let mut job = job("2026-10-25 02:30", Some(due_at));
        job.start.zone = Some(Tz::UTC);
        let resolved = ResolvedView { at: due_at, kind: ResolvedKind::Exact, first: None, second: None };
        let text = changed("Created", &JobChanged { job, resolved: Some(resolved), warnings: Vec::new() }, &times());
        assert!(text.contains("\nStarts: Sun 2026-10-25 02:30:00 UTC\n"), "{text}");
    }

    #[test]
    fn a_missing_time_is_explained() {
        let resolved =
            ResolvedView { at: at("2027-03-28T01:00:00Z"), kind: ResolvedKind::Gap, first: None, second: None };
        let created = JobChanged { job: job("2027-03-28 02:30", None), resolved: Some(resolved), warnings: Vec::new() };
        insta::assert_snapshot!(changed("Created", &created, &times()));
    }
}
