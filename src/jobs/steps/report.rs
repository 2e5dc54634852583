//! Writes the one mail, brings the workstations back, queues what follows, and holds a release back
//! that failed by itself. A stuck run reports here, too.
//!
//! Everything is put into the store under a key that makes the second time a no-op.

use chrono_tz::Tz;
use uuid::Uuid;

use crate::config::settings::ReportMail;
use crate::db::outbox::OwedMail;
use crate::domain::answers::Before;
use crate::domain::failure::Failure;
use crate::domain::gate::ClosedBy;
use crate::domain::gate::Position;
use crate::domain::name::JobName;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::domain::run::Cause;
use crate::domain::run::Idle;
use crate::domain::run::Order;
use crate::domain::run::Outcome;
use crate::domain::run::RunState;
use crate::domain::run::Side;
use crate::domain::run::Trigger;
use crate::domain::span::Span;
use crate::domain::step::At;
use crate::domain::step::Step;
use crate::jobs::driver::Done;
use crate::jobs::history::downtime_ms;
use crate::jobs::history::steps;
use crate::jobs::steps::Context;
use crate::jobs::steps::closed_message;
use crate::jobs::steps::counted;
use crate::notify::template::GateRemark;
use crate::notify::template::Language;
use crate::notify::template::LoggedOut;
use crate::notify::template::RunReport;
use crate::notify::template::StepReport;
use crate::notify::template::StepState;
use crate::notify::template::Verdict;
use crate::notify::template::render;
use crate::sessions::Finished;
use crate::wire::run::StepState as ShownState;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let verdict = verdict(context);
    let held = hold_back(context).await?;
    let idle = queue_followers(context, &verdict).await?;
    if let Verdict::Stuck { .. } = verdict {
        tell_users(context).await;
    }
    let gate = gate_remark(context, &verdict).await?;
    let mut said = match recipients(context) {
        to if to.is_empty() => "nobody is configured to get a mail".to_owned(),
        _ if !is_wanted(context, &verdict) => "no mail: nothing happened that one is wanted for".to_owned(),
        to => {
            // Whom it is for, and what became of it, is shown from the outbox.
            let queued = format!("queued for {}", counted(to.len() as u64, "recipient"));
            owe_mail(context, verdict.clone(), gate, to, idle.clone(), held).await?;
            queued
        }
    };
    for job in idle {
        said.push_str(&format!("\n{job} does not follow: it is disabled"));
    }
    if let Verdict::Finished(outcome) = verdict {
        bring_back(context, outcome).await;
    }
    Ok(Done::saying(said))
}

/// Whether there is a mail about a run that ended so.
fn is_wanted(context: &Context<'_>, verdict: &Verdict) -> bool {
    let cause = context.machine.cause();
    let is_idle = matches!(cause, Some(Cause::NothingToDo { why: Idle::NothingNewer, .. }));
    match (context.kit.app.report.mail, verdict) {
        (ReportMail::Always, _) => true,
        (ReportMail::WhenSomethingHappened, verdict) => !(is_idle && *verdict == Verdict::Finished(Outcome::Skipped)),
        (ReportMail::OnFailure, Verdict::Stuck { .. }) => true,
        (ReportMail::OnFailure, Verdict::Finished(outcome)) => {
            matches!(outcome, Outcome::Failed | Outcome::RolledBack)
        }
    }
}

fn verdict(context: &Context<'_>) -> Verdict {
    match context.machine.state() {
        RunState::Stuck { at, failure } => Verdict::Stuck { at: *at, failure: failure.clone() },
        RunState::Unwinding { .. } => Verdict::Finished(context.machine.outcome_of_unwinding()),
        _ => Verdict::Finished(Outcome::Succeeded),
    }
}

/// A release that failed by itself is not tried again by itself. After a crash in the middle nobody knows whose fault it was.
async fn hold_back(context: &Context<'_>) -> Result<Option<ReleaseId>, Failure> {
    let Some(Cause::StepFailed { at, failure }) = context.machine.cause() else { return Ok(None) };
    let is_to_blame = failure.of_release && !context.machine.known().interrupted;
    let Some(release) = context.path().get(at.build as usize).filter(|_| is_to_blame) else { return Ok(None) };
    let (store, now) = (&context.night.store, context.night.clock.now());
    let known = context.machine.known();
    if known.resolved.as_ref().is_some_and(|resolved| resolved.side == Side::New) {
        store.allow_build(&context.kit.app.name, release.id.build, context.run).await?;
        return Ok(None);
    }
    if known.reports > 0 {
        // It was held back when the run got stuck; a person may have let it go since.
        let held = store.quarantined(&context.kit.app.name).await?;
        let still = held.iter().any(|it| it.build == release.id.build && it.run == context.run);
        return Ok(still.then(|| release.id.clone()));
    }
    store.quarantine(&context.kit.app.name, &release.id, context.run, now, failure.to_string()).await?;
    Ok(Some(release.id.clone()))
}

/// Queues what follows; names the jobs that would, but are disabled.
async fn queue_followers(context: &Context<'_>, verdict: &Verdict) -> Result<Vec<JobName>, Failure> {
    let store = &context.night.store;
    let order = context.machine.order();
    let Some(job) = &order.job else { return Ok(Vec::new()) };
    let run = context.run;
    let (followers, idle, trigger) = match verdict {
        Verdict::Finished(Outcome::Succeeded) => {
            (store.jobs_after(job).await?, store.disabled_after(job).await?, Trigger::After { run })
        }
        Verdict::Finished(Outcome::Skipped | Outcome::Cancelled) => return Ok(Vec::new()),
        Verdict::Finished(_) | Verdict::Stuck { .. } => {
            let Some(name) = &order.on_failure else { return Ok(Vec::new()) };
            match store.job(name).await {
                Ok(job) if job.enabled => (vec![job], Vec::new(), Trigger::OnFailure { run }),
                Ok(job) => {
                    tracing::warn!(job = %job.spec.name, "the job to follow a failure is disabled");
                    return Ok(vec![job.spec.name]);
                }
                Err(error) => {
                    tracing::warn!(job = %name, error = &error as &dyn std::error::Error, "cannot start the job to follow");
                    return Ok(Vec::new());
                }
            }
        }
    };
    for follower in followers {
        let order = Order::of_job(&follower.spec, trigger.clone(), &follower.created_by);
        store.queue_follower(order, run, context.night.clock.now()).await?;
    }
    Ok(idle)
}

/// No time at which it opens is true any more.
async fn tell_users(context: &Context<'_>) {
    let message = closed_message(&context.kit.app.title);
    if let Err(error) = context.night.gatekeeper.say(context.kit, context.run, &message).await {
        tracing::warn!(run.id = context.run.0, error = &error as &dyn std::error::Error, "users are not told");
    }
}

async fn gate_remark(context: &Context<'_>, verdict: &Verdict) -> Result<GateRemark, Failure> {
    let gate = context.night.store.gate(&context.kit.app.name).await?;
    Ok(match (gate.position, verdict) {
        (Position::Open, _) => GateRemark::Open,
        (Position::Closed { by: ClosedBy::Run(_), .. }, _) => GateRemark::Stuck,
        (Position::Closed { .. }, Verdict::Finished(Outcome::Succeeded))
            if context.kit.app.open_gate == crate::config::settings::OpenGate::ByHand =>
        {
            GateRemark::ByHand
        }
        // A person has spoken, and the application did not answer.
        (Position::Closed { .. }, Verdict::Finished(_)) if context.machine.known().resolved.is_some() => {
            GateRemark::ByHand
        }
        (Position::Closed { .. }, _) => GateRemark::ByOperator,
    })
}

async fn owe_mail(
    context: &Context<'_>,
    verdict: Verdict,
    gate: GateRemark,
    to: Vec<String>,
    idle: Vec<JobName>,
    held: Option<ReleaseId>,
) -> Result<(), Failure> {
    let (night, run, machine, known) = (context.night, context.run, context.machine, context.machine.known());
    let order = machine.order();
    let now = night.clock.now();
    let events = night.store.events(run, 0).await?;
    let report = RunReport {
        app: order.app.clone(),
        app_title: context.kit.app.title.clone(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        run,
        job: order.job.clone(),
        started_by: order.started_by.clone(),
        verdict,
        from: known.from.clone(),
        to: context.path().last().map(|release| release.id.clone()),
        zone: iana_time_zone::get_timezone().ok().and_then(|name| name.parse().ok()).unwrap_or(Tz::UTC),
        started_at: known.started.map_or(now, |started| started.at),
        finished_at: now,
        away_since: known.away_since.filter(|_| known.back_at.is_none()),
        closed_since: night.store.gate(&order.app).await?.closed_since(),
        downtime: downtime_ms(known).map(|ms| Span::from(std::time::Duration::from_millis(ms))),
        cause: machine.cause().cloned(),
        steps: steps(machine, &events).into_iter().filter_map(step_report).collect(),
        findings: known.findings.clone(),
        evidence: known.evidence.clone(),
        logged_out: known
            .closed
            .iter()
            .map(|session| LoggedOut { user: session.who(), workstation: session.workstation.clone() })
            .collect(),
        gate,
        was_ill: matches!(known.before, Some(Before::Ill | Before::Down)),
        held,
        blocked: known.blocked.clone(),
        history: Some(night.store.chain_head().await?).filter(|head| head.number > 0),
        notes: context.path().iter().map(|release| (release.id.clone(), release.notes.clone())).collect(),
        idle,
    };
    let rendered = render(&report, Language::from_tag(&context.kit.app.report.language));
    let mail = OwedMail {
        message_id: match known.reports {
            0 => format!("run-{run}.report"),
            before => format!("run-{run}.report-{}", before + 1),
        },
        unique: Uuid::now_v7(),
        run: Some(run),
        to,
        subject: rendered.subject,
        text: rendered.text,
    };
    night.store.owe_mail(mail, now).await?;
    Ok(())
}

fn recipients(context: &Context<'_>) -> Vec<String> {
    let (order, report) = (context.machine.order(), &context.kit.app.report);
    let starter = Some(&order.started_by).filter(|who| report.started_by && who.contains('@'));
    let mut to: Vec<String> = report.group.iter().chain(&order.mail).chain(starter).cloned().collect();
    to.sort();
    to.dedup();
    to
}

fn step_report(step: crate::wire::run::StepView) -> Option<StepReport> {
    let state = match step.state {
        ShownState::Pending | ShownState::Running | ShownState::Undoing => return None,
        ShownState::Succeeded => StepState::Done,
        ShownState::Failed => StepState::Failed,
        ShownState::Undone => StepState::Undone,
        ShownState::UndoFailed => StepState::UndoFailed,
        ShownState::PassedOver => StepState::PassedOver,
    };
    let took = step.started_at.zip(step.finished_at).map(|(from, to)| Span::between(from, to));
    Some(StepReport { at: step.at(), state, took, message: step.message.unwrap_or_default() })
}

/// Whoever asked for it is started again; the others are told that they may.
async fn bring_back(context: &Context<'_>, outcome: Outcome) {
    if !context.machine.is_done(At::first(Step::Announce)) {
        return;
    }
    // Where the announcement was undone, this was said then, and is not said again.
    if let Err(error) = context.kit.sessions.finish(&news(context, outcome)).await {
        tracing::warn!(run.id = context.run.0, error = &error as &dyn std::error::Error, "somebody could not be told");
    }
}

/// What users are told about the end: one sentence.
pub(super) fn news(context: &Context<'_>, outcome: Outcome) -> Finished {
    let success = outcome == Outcome::Succeeded;
    let to = context.path().last().map(|release| &release.id.version);
    let from = context.machine.known().from.as_ref().map(|from| &from.version);
    let version = if success { to } else { from }.cloned();
    let cancelled = matches!(context.machine.cause(), Some(Cause::Cancelled { .. }));
    let message = ending(&context.kit.app.title, outcome, cancelled, version.as_ref());
    Finished { success, version, message }
}

fn ending(title: &str, outcome: Outcome, cancelled: bool, version: Option<&Version>) -> String {
    let to = version.map(|version| format!(" to version {version}")).unwrap_or_default();
    let back =
        version.map_or("everything is as before".to_owned(), |version| format!("it is version {version} as before"));
    match outcome {
        Outcome::Succeeded => format!("{title} is updated{to}."),
        Outcome::RolledBack if cancelled => format!("The update of {title} was cancelled and undone; {back}."),
        Outcome::RolledBack => format!("The update of {title} failed and was undone; {back}."),
        Outcome::Cancelled => format!("The update of {title} was cancelled; nothing has changed."),
        Outcome::Failed => format!("The update of {title} did not take place; nothing has changed."),
        Outcome::Skipped => format!("There was no update of {title}; nothing has changed."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_told_each_end_in_one_sentence_of_its_own() {
        let version: Version = "5.4".parse().unwrap();
        let told: Vec<String> = [
            (Outcome::Succeeded, false),
            (Outcome::RolledBack, false),
            (Outcome::RolledBack, true),
            (Outcome::Cancelled, true),
            (Outcome::Failed, false),
        ]
        .into_iter()
        .map(|(outcome, cancelled)| ending("Order desk", outcome, cancelled, Some(&version)))
        .collect();
        assert_eq!(
            told,
            [
                "Order desk is updated to version 5.4.",
                "The update of Order desk failed and was undone; it is version 5.4 as before.",
                "The update of Order desk was cancelled and undone; it is version 5.4 as before.",
                "The update of Order desk was cancelled; nothing has changed.",
                "The update of Order desk did not take place; nothing has changed.",
            ]
        );
    }
}
