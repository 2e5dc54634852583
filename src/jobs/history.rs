//! A run as people and scripts see it, folded from its log.

use std::collections::BTreeMap;

use chrono::DateTime;
use chrono::Utc;

use crate::db::runs::RunRow;
use crate::domain::event::LoggedEvent;
use crate::domain::event::RunEvent;
use crate::domain::failure::Failure;
use crate::domain::run::Cause;
use crate::domain::run::RunId;
use crate::domain::run::RunState;
use crate::domain::run::Trigger;
use crate::domain::step::At;
use crate::domain::step::sequence;
use crate::jobs::machine::Cursor;
use crate::jobs::machine::IllegalEvent;
use crate::jobs::machine::Known;
use crate::jobs::machine::Machine;
use crate::wire::run::RunStateName;
use crate::wire::run::RunView;
use crate::wire::run::StepState;
use crate::wire::run::StepView;
use crate::wire::run::TriggerKind;

/// Shows a run with all its steps, those to come included.
///
/// # Errors
/// The log holds an event that cannot follow.
pub fn view(row: &RunRow, events: &[LoggedEvent]) -> Result<RunView, IllegalEvent> {
    let machine = if events.is_empty() { Machine::queued(row.order.clone()) } else { Machine::fold(events)? };
    let (trigger_run, missed_at) = match &row.order.trigger {
        Trigger::After { run } | Trigger::OnFailure { run } => (Some(*run), None),
        Trigger::Misfire { missed_at } => (None, Some(*missed_at)),
        Trigger::Schedule | Trigger::Manual | Trigger::UpdateNow => (None, None),
    };
    let (at, waiting_until) = match (machine.state(), machine.cursor()) {
        (RunState::Running { at } | RunState::Stuck { at, .. }, _) => (Some(*at), None),
        (RunState::Waiting { at, until, .. }, _) => (Some(*at), Some(*until)),
        (_, Cursor::Undoing { at, .. }) => (Some(*at), None),
        (_, Cursor::Pausing { at, until, .. }) => (Some(*at), Some(*until)),
        _ => (None, None),
    };
    let known = machine.known();
    Ok(RunView {
        id: row.id,
        job: row.order.job.clone(),
        kind: row.order.kind,
        app: row.order.app.clone(),
        trigger: TriggerKind::from(&row.order.trigger),
        trigger_run,
        missed_at,
        started_by: row.order.started_by.clone(),
        state: RunStateName::from(machine.state()),
        at,
        outcome: machine.state().outcome(),
        cause: cause_of(&machine, row.id),
        waiting_until,
        from_version: known.from.as_ref().map(|from| from.version.clone()),
        to_version: known.path.as_ref().and_then(|path| path.last()).map(|release| release.id.version.clone()),
        queued_at: row.queued_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
        downtime_ms: downtime_ms(known),
        away_since: known.away_since.filter(|_| known.back_at.is_none()),
        steps: steps(&machine, events),
        mail: Vec::new(),
    })
}

/// Why a run did not do what it was to do: the stuck step first, then what turned it round.
pub fn cause_of(machine: &Machine, run: RunId) -> Option<Failure> {
    if let RunState::Stuck { at, failure } = machine.state() {
        let mut failure = failure.clone();
        failure.message = format!("{at}: {}", failure.message);
        // Whatever the step advises, the run goes on by a person's word only.
        let look = failure.hint.take().unwrap_or_else(|| "look at the application and its data".to_owned());
        let retry = format!("let it try again with `afterhours run retry {run}`");
        let say = format!("say which version is the good one: `afterhours run resolve {run} --as old|new`");
        failure.hint = Some(format!("{look}; then {retry}, or {say}"));
        return Some(failure);
    }
    machine.cause().map(|cause| match cause {
        Cause::StepFailed { at, failure } => {
            Failure { message: format!("{at}: {}", failure.message), ..failure.clone() }
        }
        cause => Failure::new(cause.to_string()),
    })
}

/// How long the application was away, in milliseconds; absent when it was not, or is still.
pub fn downtime_ms(known: &Known) -> Option<u64> {
    let (since, back) = (known.away_since?, known.back_at?);
    u64::try_from((back - since).num_milliseconds()).ok()
}

/// Every step that was begun, and in a run that goes forward those that are to come.
pub fn steps(machine: &Machine, events: &[LoggedEvent]) -> Vec<StepView> {
    let mut begun: BTreeMap<At, StepView> = BTreeMap::new();
    for logged in events {
        note(&mut begun, logged.at, &logged.event);
    }
    let forward = matches!(machine.state(), RunState::Queued | RunState::Running { .. } | RunState::Waiting { .. });
    let mut steps: Vec<StepView> = Vec::new();
    for at in sequence(machine.builds().max(1)) {
        match begun.remove(&at) {
            Some(step) => steps.push(step),
            None if forward => steps.push(pending(at)),
            None => {}
        }
    }
    steps
}

fn pending(at: At) -> StepView {
    StepView {
        step: at.step,
        build: at.build,
        state: StepState::Pending,
        started_at: None,
        finished_at: None,
        attempts: 0,
        message: None,
    }
}

fn note(begun: &mut BTreeMap<At, StepView>, now: DateTime<Utc>, event: &RunEvent) {
    let mut change = |at: At, state: StepState, message: Option<String>| {
        let step = begun.entry(at).or_insert_with(|| pending(at));
        step.state = state;
        step.message = message.filter(|message| !message.is_empty()).or(step.message.take());
        match state {
            StepState::Running | StepState::Undoing => step.finished_at = None,
            _ => step.finished_at = Some(now),
        }
        if state == StepState::Running {
            step.started_at.get_or_insert(now);
            step.attempts += 1;
        }
    };
    match event {
        RunEvent::StepStarted { at, .. } => change(*at, StepState::Running, None),
        RunEvent::StepSucceeded { at, message, .. } => change(*at, StepState::Succeeded, Some(message.clone())),
        RunEvent::StepFailed { at, failure } => change(*at, StepState::Failed, Some(failure.to_string())),
        RunEvent::UndoStarted { at, .. } => change(*at, StepState::Undoing, None),
        RunEvent::UndoSucceeded { at, message } => change(*at, StepState::Undone, Some(message.clone())),
        RunEvent::UndoFailed { at, failure, .. } => change(*at, StepState::UndoFailed, Some(failure.to_string())),
        RunEvent::PassedOver { at, failure } => change(*at, StepState::PassedOver, Some(failure.to_string())),
        _ => {}
    }
}
