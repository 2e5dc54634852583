//! How runs read.

use crate::cli::text::NOTHING;
use crate::cli::text::Times;
use crate::cli::text::failure;
use crate::cli::text::indented;
use crate::cli::text::maybe;
use crate::cli::text::pairs;
use crate::cli::text::rough;
use crate::cli::text::table;
use crate::domain::run::Outcome;
use crate::domain::span::Span;
use crate::wire::run::RunStateName;
use crate::wire::run::RunView;
use crate::wire::run::StepView;

/// Where a run stands, or how it ended.
pub(crate) fn state(run: &RunView) -> String {
    match (run.outcome, run.at) {
        (Some(outcome), _) => outcome.to_string(),
        (None, Some(at)) => format!("{} at {at}", run.state.name()),
        (None, None) => run.state.name().to_owned(),
    }
}

fn versions(run: &RunView) -> String {
    match (&run.from_version, &run.to_version) {
        (None, None) => NOTHING.to_owned(),
        (Some(from), None) => from.to_string(),
        (None, Some(to)) => format!("to {to}"),
        (Some(from), Some(to)) => format!("{from} -> {to}"),
    }
}

fn took(run: &RunView) -> String {
    match (run.started_at, run.finished_at) {
        (Some(from), Some(to)) => rough(Span::between(from, to).duration().as_millis()),
        _ => NOTHING.to_owned(),
    }
}

fn downtime(run: &RunView, times: &Times) -> String {
    match (run.away_since, run.downtime_ms) {
        (Some(since), _) => format!("since {}", times.time(since)),
        (None, Some(millis)) => rough(u128::from(millis)),
        (None, None) => NOTHING.to_owned(),
    }
}

/// What becomes of a run that somebody wants to stop.
pub(crate) fn cancelled(run: &RunView) -> String {
    let id = run.id;
    match run.state {
        RunStateName::Unwinding => format!("Run {id} is going back; watch it with `afterhours run watch {id}`."),
        _ => format!("Run {id} will stop; watch it with `afterhours run watch {id}`."),
    }
}

/// Runs, one on each line.
pub(crate) fn list(runs: &[RunView], times: &Times) -> String {
    let rows = runs.iter().map(|run| {
        vec![
            run.id.to_string(),
            maybe(run.job.as_ref()),
            run.app.to_string(),
            state(run),
            versions(run),
            times.at(run.started_at.unwrap_or(run.queued_at)),
            took(run),
            downtime(run, times),
        ]
    });
    table(&["RUN", "JOB", "APP", "STATE", "VERSION", "STARTED", "TOOK", "DOWN"], rows.collect(), "There are no runs.")
}

/// All of one run, with its steps.
pub(crate) fn show(run: &RunView, times: &Times) -> String {
    let mut rows = vec![
        ("Run", run.id.to_string()),
        ("Job", maybe(run.job.as_ref())),
        ("Application", run.app.to_string()),
        ("Started by", format!("{} ({})", run.started_by, run.trigger.name())),
        ("State", state(run)),
        ("Version", versions(run)),
        ("Queued", times.at(run.queued_at)),
        ("Started", times.maybe(run.started_at)),
        ("Finished", times.maybe(run.finished_at)),
        ("Took", took(run)),
        ("Downtime", downtime(run, times)),
    ];
    if let Some(missed_at) = run.missed_at {
        rows.push(("Missed", times.at(missed_at)));
    }
    if let Some(until) = run.waiting_until {
        rows.push(("Waits until", times.at_and_away(until)));
    }
    let mut text = pairs(rows);
    if let Some(cause) = &run.cause {
        text.push_str("\n\nBecause\n");
        text.push_str(&indented(&failure(cause)));
    }
    if !run.steps.is_empty() {
        text.push_str("\n\n");
        text.push_str(&steps(&run.steps, times));
    }
    if let Some(next) = what_next(run) {
        text.push_str("\n\n");
        text.push_str(&next);
    }
    text
}

fn steps(steps: &[StepView], times: &Times) -> String {
    let rows = steps.iter().map(|step| {
        let took = match (step.started_at, step.finished_at) {
            (Some(from), Some(to)) => rough(Span::between(from, to).duration().as_millis()),
            _ => NOTHING.to_owned(),
        };
        vec![
            step.at().to_string(),
            step.state.name().to_owned(),
            step.started_at.map_or_else(|| NOTHING.to_owned(), |at| times.time(at)),
            took,
            if step.attempts > 1 { step.attempts.to_string() } else { String::new() },
            step.message.clone().unwrap_or_default().lines().next().unwrap_or_default().to_owned(),
        ]
    });
    let mut text = table(&["STEP", "STATE", "AT", "TOOK", "TRIES", "MESSAGE"], rows.collect(), "");
    for step in steps {
        // A message of several lines: the first has stood in the table.
        if let Some((_, more)) = step.message.as_ref().and_then(|message| message.split_once('\n')) {
            text.push_str(&format!("\n\n{} said\n{}", step.at(), indented(more)));
        }
    }
    text
}

/// What a person can do about a run that did not go well; one line to type.
pub(crate) fn what_next(run: &RunView) -> Option<String> {
    let id = run.id;
    match (run.state, run.outcome) {
        (RunStateName::Stuck, _) => Some(format!(
            "It cannot go forward or back by itself. Remove the cause, and let it try again:\n  \
             afterhours run retry {id}\n\
             Or look at the application, and say which version is the good one:\n  \
             afterhours run resolve {id} --as old\n  afterhours run resolve {id} --as new"
        )),
        (_, Some(Outcome::RolledBack | Outcome::Failed)) => {
            Some(format!("For support: afterhours run bundle {id} -o run-{id}.tar.zst"))
        }
        _ => None,
    }
}

/// The end of a run in one line, and what to do next.
pub(crate) fn ending(run: &RunView) -> String {
    let id = run.id;
    let down = run.downtime_ms.map(|millis| format!("; it was away for {}", rough(u128::from(millis))));
    let down = down.unwrap_or_default();
    let because = run.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    let to = run.to_version.as_ref().map_or_else(|| "the new version".to_owned(), |to| format!("version {to}"));
    let from = run.from_version.as_ref().map_or_else(|| "the old version".to_owned(), |from| format!("version {from}"));
    let app = &run.app;
    let first = match (run.state, run.outcome) {
        (RunStateName::Stuck, _) => format!("Run {id} is stuck{because}"),
        (_, Some(Outcome::Succeeded)) => format!("Run {id} succeeded: {app} runs {to}{down}."),
        (_, Some(Outcome::RolledBack)) => {
            format!("Run {id} was rolled back: {app} runs {from} with its own data{down}{because}")
        }
        (_, Some(Outcome::Failed)) => format!("Run {id} failed; {app} was not touched{because}"),
        (_, Some(Outcome::Cancelled)) => format!("Run {id} was cancelled; {app} was not touched{because}"),
        (_, Some(Outcome::Skipped)) => format!("Run {id} had nothing to do{because}"),
        (_, None) => format!("Run {id} is {}", state(run)),
    };
    match what_next(run) {
        Some(next) => format!("{first}\n{next}"),
        None => first,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use chrono::DateTime;
    use chrono::Utc;
    use chrono_tz::Tz;

    use super::*;
    use crate::domain::failure::Failure;
    use crate::domain::job::JobType;
    use crate::domain::run::RunId;
    use crate::domain::step::At;
    use crate::domain::step::Step;
    use crate::wire::run::StepState;
    use crate::wire::run::TriggerKind;

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_311_000 + secs, 0).unwrap()
    }

    fn run(state: RunStateName, outcome: Option<Outcome>, cause: Option<Failure>) -> RunView {
        let step = |step, state, from, to, message: &str| StepView {
            step,
            build: 0,
            state,
            started_at: Some(at(from)),
            finished_at: Some(at(to)),
            attempts: 1,
            message: Some(message.to_owned()),
        };
        RunView {
            id: RunId(8),
            job: Some("nightly".parse().unwrap()),
            kind: JobType::SoftwareUpdate,
            app: "orders".parse().unwrap(),
            trigger: TriggerKind::Schedule,
            trigger_run: None,
            missed_at: None,
            started_by: "root".to_owned(),
            state,
            at: (state != RunStateName::Finished).then_some(At::first(Step::Swap)),
            outcome,
            cause,
            waiting_until: None,
            from_version: Some("3.1".parse().unwrap()),
            to_version: Some("4.0".parse().unwrap()),
            queued_at: at(0),
            started_at: Some(at(0)),
            finished_at: (state == RunStateName::Finished).then_some(at(340)),
            downtime_ms: Some(4_300),
            away_since: None,
            steps: vec![
                step(Step::Backup, StepState::Succeeded, 1, 3, "orders-2026-11-21.dump, sha256 matches"),
                step(
                    Step::MigrateData,
                    StepState::Succeeded,
                    300,
                    310,
                    "7 orders; it warned:\norder 3 has no date\nnor has 4",
                ),
                step(Step::CheckHealth, StepState::Failed, 310, 330, "the new version did not answer"),
            ],
            mail: Vec::new(),
        }
    }

    fn cause() -> Option<Failure> {
        let mut failure = Failure::new("check_health failed").hint("see the service's own log");
        failure.because.push("http://127.0.0.1:8080/health answered 500".to_owned());
        failure.said = vec!["Traceback:".to_owned(), "  KeyError: 'vat'".to_owned()];
        Some(failure)
    }

    #[test]
    fn one_that_is_cancelled_says_which_way_it_goes() {
        let told = |state| cancelled(&run(state, None, None));
        assert_eq!(told(RunStateName::Running), "Run 8 will stop; watch it with `afterhours run watch 8`.");
        assert_eq!(told(RunStateName::Unwinding), "Run 8 is going back; watch it with `afterhours run watch 8`.");
    }

    #[test]
    fn a_rolled_back_run_is_shown() {
        let times = Times::in_zone(at(400), Tz::Europe__Berlin);
        let run = run(RunStateName::Finished, Some(Outcome::RolledBack), cause());
        insta::assert_snapshot!(show(&run, &times));
        insta::assert_snapshot!(list(&[run], &times));
    }

    #[test]
    fn every_end_says_what_is_and_what_to_do() {
        let mut ends: Vec<String> =
            Outcome::ALL.iter().map(|outcome| ending(&run(RunStateName::Finished, Some(*outcome), cause()))).collect();
        ends.push(ending(&run(RunStateName::Stuck, None, cause())));
        insta::assert_snapshot!(ends.join("\n\n"));
    }
}
