//! The report in English.

use crate::domain::finding::Severity;
use crate::domain::run::Idle;
use crate::domain::run::Outcome;
use crate::domain::step::Step;
use crate::notify::template::GateRemark;
use crate::notify::template::Phrases;
use crate::notify::template::RunReport;
use crate::notify::template::StepState;
use crate::notify::template::Verdict;
use crate::notify::template::idle;
use crate::notify::template::version;

pub(super) const PHRASES: Phrases = Phrases {
    subject,
    headline,
    next,
    gate,
    step,
    state,
    severity,
    build: |build| format!("build {build}"),
    missed: |at| format!("nobody was there to start it at {at}"),
    idle: |job| format!("{job} should have followed, but is disabled."),
    left_out: |more| format!("… and {more} more"),
    notes: "What is new",
    cancelled: |by| format!("It was cancelled by {by}."),
    overlong: |limit| format!("It took longer than {limit}, the most this job allows."),
    decimal: '.',
    why: "Why",
    began_with: "It began with",
    because: "because",
    said: "it said",
    hint: "what helps",
    at_step: "step",
    run: "The run",
    run_label: "Run",
    job_label: "Job",
    by_hand: "none (update now)",
    host_label: "Machine",
    started_by_label: "Started by",
    from_label: "Before",
    to_label: "New version",
    began_label: "Began",
    ended_label: "Ended",
    took_label: "Took",
    away_label: "Unavailable",
    history_label: "History",
    entry: |number, hash| format!("entry {number}, {hash}"),
    not_away: "not at all",
    closed_label: "Gate closed",
    since: "since",
    steps: "Step by step",
    people: "Logged out",
    backup: "Backup",
    made_at: "made",
    size: "size",
    tested: "tested:",
    findings: "Worth a look",
    more: "More",
    signature: "Afterhours on",
};

fn subject(report: &RunReport) -> String {
    let to = version(&report.to, "the new version");
    let from = version(&report.from, "the old version");
    match &report.verdict {
        Verdict::Stuck { .. } => "update is stuck, YOU must decide".to_owned(),
        Verdict::Finished(Outcome::Succeeded) => format!("updated to {to}"),
        Verdict::Finished(Outcome::RolledBack) => format!("update to {to} failed, {from} is back{}", held(report)),
        Verdict::Finished(Outcome::Failed) => "not updated, nothing was changed".to_owned(),
        Verdict::Finished(Outcome::Cancelled) => "update cancelled, nothing was changed".to_owned(),
        Verdict::Finished(Outcome::Skipped) => match (idle(report), &report.blocked) {
            (Idle::NothingNewer, Some(id)) => format!("not updated, {} failed before and is held back", id.version),
            (Idle::NothingNewer, None) => "nothing newer, left as it is".to_owned(),
            (Idle::Missed { .. }, _) => "start missed, not updated".to_owned(),
            (Idle::Asks { .. }, _) => "start missed, YOU decide whether to update now".to_owned(),
        },
    }
}

fn held(report: &RunReport) -> String {
    report.held.as_ref().map(|id| format!(", {} is held back", id.version)).unwrap_or_default()
}

fn headline(report: &RunReport) -> String {
    let title = &report.app_title;
    let to = version(&report.to, "the new version");
    let from = version(&report.from, "the old version");
    match &report.verdict {
        Verdict::Stuck { .. } => format!(
            "The update of {title} from {from} to {to} can go neither forward nor back. Nothing more happens until you decide."
        ),
        Verdict::Finished(Outcome::Succeeded) => format!("{title} was updated from {from} to {to} and works."),
        Verdict::Finished(Outcome::RolledBack) if report.was_ill => format!(
            "The update of {title} to {to} failed. Program and data were put back as they were: {from}, which did not pass its health check before, either."
        ),
        Verdict::Finished(Outcome::RolledBack) => format!(
            "The update of {title} to {to} failed. Program and data were put back as they were: {from} runs again and works."
        ),
        Verdict::Finished(Outcome::Failed) => {
            format!("{title} was not updated. It was not stopped, and nothing was changed.")
        }
        Verdict::Finished(Outcome::Cancelled) => {
            format!("The update of {title} was cancelled. It was not stopped, and nothing was changed.")
        }
        Verdict::Finished(Outcome::Skipped) => match idle(report) {
            Idle::NothingNewer => format!("{title} was left as it is."),
            Idle::Missed { .. } => format!("{title} was not updated: its start was missed and is not made up for."),
            Idle::Asks { .. } => {
                format!("{title} was not updated: its start was missed, and the job wants you to decide what now.")
            }
        },
    }
}

fn next(report: &RunReport) -> (String, Vec<String>) {
    let (run, app) = (report.run, &report.app);
    let (mut text, mut commands) = match &report.verdict {
        Verdict::Stuck { .. } => (
            "What to do: remove the cause (see below) and let it try again. Or look at the application and say which version is the good one.",
            vec![
                format!("afterhours run show {run}"),
                format!("afterhours run retry {run}"),
                format!("afterhours run resolve {run} --as old"),
                format!("afterhours run resolve {run} --as new"),
            ],
        ),
        Verdict::Finished(Outcome::Skipped) if report.blocked.is_some() => (
            "What to do: ask the vendor for a mended version. To try the one that is held back again, allow it.",
            vec![],
        ),
        Verdict::Finished(Outcome::Succeeded | Outcome::Skipped) if report.gate == GateRemark::Open => {
            ("What to do: nothing.", vec![])
        }
        Verdict::Finished(Outcome::Succeeded) => ("What to do: have a look, then let people in.", vec![]),
        Verdict::Finished(Outcome::RolledBack) if report.held.is_some() => (
            "What to do: see below why it failed, and ask the vendor. This version is not tried again by itself, and \
             newer ones wait behind it, until you allow it.",
            vec![],
        ),
        Verdict::Finished(Outcome::RolledBack) => {
            ("What to do: see below why it failed. It was not the fault of the version, so it is tried again.", vec![])
        }
        Verdict::Finished(Outcome::Failed) => (
            "What to do: see below why, mend it, check it, and start the job again.",
            vec![format!("afterhours doctor {app}")],
        ),
        Verdict::Finished(Outcome::Cancelled) => ("What to do: start the job again when it suits.", vec![]),
        Verdict::Finished(Outcome::Skipped) => ("What to do: let people in when you are ready.", vec![]),
    };
    if let (Verdict::Finished(Outcome::Skipped), Some(job)) = (&report.verdict, &report.job) {
        let now = format!("afterhours job run {job}");
        (text, commands) = match idle(report) {
            Idle::NothingNewer => (text, commands),
            Idle::Missed { .. } => ("What to do: nothing, or start it now.", vec![now]),
            Idle::Asks { .. } => (
                "What to do: start it now with the first line, or say no with the second, which also keeps it from starting by itself.",
                vec![now, format!("afterhours job disable {job}")],
            ),
        };
    }
    if let GateRemark::ByHand | GateRemark::ByOperator = report.gate {
        commands.push(format!("afterhours gate open {app}"));
    }
    (text.to_owned(), commands)
}

fn gate(remark: GateRemark) -> &'static str {
    match remark {
        GateRemark::Open => "People can log in.",
        GateRemark::ByHand => "People CANNOT log in yet: the gate waits to be opened by hand.",
        GateRemark::Stuck => "People CANNOT log in until then.",
        GateRemark::ByOperator => "People CANNOT log in: an operator had closed the gate before the run.",
    }
}

fn state(state: StepState) -> &'static str {
    match state {
        StepState::Done => "done",
        StepState::Failed => "FAILED",
        StepState::Undone => "put back",
        StepState::UndoFailed => "NOT PUT BACK",
        StepState::PassedOver => "left out",
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Good => "good",
        Severity::Warning => "warning",
        Severity::Fatal => "in the way",
    }
}

fn step(step: Step) -> &'static str {
    match step {
        Step::Preflight => "check beforehand",
        Step::SelfUpdate => "update Afterhours",
        Step::Select => "choose versions",
        Step::Download => "download",
        Step::Backup => "backup",
        Step::SnapshotAhead => "snapshot, first pass",
        Step::CloseGate => "close gate",
        Step::Announce => "announce",
        Step::Grace => "grace",
        Step::LogOut => "log out",
        Step::Stop => "stop",
        Step::Snapshot => "snapshot",
        Step::Swap => "swap",
        Step::MigrateData => "migrate data",
        Step::Start => "start",
        Step::CheckHealth => "check health",
        Step::OpenGate => "open gate",
        Step::Report => "report",
        Step::CleanUp => "clean up",
    }
}
