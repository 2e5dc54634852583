//! How the log of a run reads while it is written.

use chrono::DateTime;
use chrono::Utc;

use crate::cli::text::Times;
use crate::domain::event::How;
use crate::domain::event::RunEvent;
use crate::domain::run::Cause;

/// One line for one event.
pub(crate) fn line(logged_at: DateTime<Utc>, event: &RunEvent, times: &Times) -> String {
    format!("{}  {}", times.time(logged_at), what(event, times))
}

fn what(event: &RunEvent, times: &Times) -> String {
    match event {
        RunEvent::Queued { order } => format!("queued for {}, started by {}", order.app, order.started_by),
        RunEvent::Started => "started".to_owned(),
        RunEvent::StepStarted { at, attempt, how } => {
            let how = match how {
                How::Act => "",
                How::Probe => " (interrupted: looks whether it was done)",
                How::UndoFirst => " (interrupted: undoes it first)",
            };
            let again = if *attempt > 1 { format!(", try {attempt}") } else { String::new() };
            format!("{at}: {}{again}{how}", at.step.row().does)
        }
        RunEvent::StepSucceeded { at, message, .. } if message.is_empty() => format!("{at}: done"),
        // What it warned of stands below it.
        RunEvent::StepSucceeded { at, message, .. } => format!("{at}: done: {}", message.replace('\n', "\n          ")),
        RunEvent::StepFailed { at, failure } => format!("{at}: failed: {failure}"),
        RunEvent::Deferred { at, until, reason } => format!("{at}: waits until {}: {reason}", times.time(*until)),
        RunEvent::CancelRequested { by } => format!("{by} wants it to stop"),
        RunEvent::Committed => "the new version is accepted; from here it only goes forward".to_owned(),
        RunEvent::UnwindStarted { cause: Cause::NothingToDo { reason, .. } } => {
            format!("nothing is to be done: {reason}")
        }
        RunEvent::UnwindStarted { cause } => format!("everything is put back: {cause}"),
        RunEvent::UndoStarted { at, attempt } if *attempt > 1 => format!("{at}: is put back, try {attempt}"),
        RunEvent::UndoStarted { at, .. } => format!("{at}: is put back"),
        RunEvent::UndoSucceeded { at, message } if message.is_empty() => format!("{at}: put back"),
        RunEvent::UndoSucceeded { at, message } => format!("{at}: put back: {message}"),
        RunEvent::UndoFailed { at, failure, again_at: Some(until), .. } => {
            format!("{at}: could not be put back, tried again at {}: {failure}", times.time(*until))
        }
        RunEvent::UndoFailed { at, failure, .. } => format!("{at}: could not be put back: {failure}"),
        RunEvent::GaveUp { at, failure } => format!("{at}: cannot be done: {failure}"),
        RunEvent::PassedOver { at, failure } => format!("{at}: passed over: {failure}"),
        RunEvent::Resolved { side, by, open_gate, .. } => {
            let also = if *open_gate { ", and that users may come in whether it answers or not" } else { "" };
            format!("{by} says that the {} version is the good one{also}", side.name())
        }
        RunEvent::Retried { by } => format!("{by} has removed the cause; it tries again"),
        RunEvent::Finished { outcome } => outcome.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::*;
    use crate::domain::event::Output;
    use crate::domain::failure::Failure;
    use crate::domain::run::Cause;
    use crate::domain::run::Outcome;
    use crate::domain::step::At;
    use crate::domain::step::Step;

    const WARNED: &str = "migrated 12 orders; it warned:\norder 7 has no date\norder 9 has no date";

    #[test]
    fn a_log_reads_as_a_story() {
        let now = "2026-11-22T01:30:00Z".parse().unwrap();
        let times = Times::in_zone(now, Tz::Europe__Berlin);
        let backup = At::first(Step::Backup);
        let migrate = At { step: Step::MigrateData, build: 1 };
        let failure = Failure::new("run bin/migrate").because("exit status 3");
        let story = [
            RunEvent::Started,
            RunEvent::StepStarted { at: backup, attempt: 1, how: How::Act },
            RunEvent::StepSucceeded { at: backup, output: Output::Nothing, message: "sha256 matches".into() },
            RunEvent::StepSucceeded {
                at: At::first(Step::MigrateData),
                output: Output::Nothing,
                message: WARNED.into(),
            },
            RunEvent::StepStarted { at: migrate, attempt: 2, how: How::UndoFirst },
            RunEvent::StepFailed { at: migrate, failure: failure.clone() },
            RunEvent::UnwindStarted { cause: Cause::StepFailed { at: migrate, failure } },
            RunEvent::UndoSucceeded { at: At::first(Step::Swap), message: String::new() },
            RunEvent::Finished { outcome: Outcome::RolledBack },
        ];
        let lines: Vec<String> = story.iter().map(|event| line(now, event, &times)).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
