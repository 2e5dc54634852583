//! The report of a run as a mail: what a tired administrator reads at six in the morning.
//!
//! The order is that of the questions: how did it end, must I do something, why, and only then
//! the details. Lines that have nothing to say are left out.
//!
//! [`render`] is pure. What differs between languages stands in one `Phrases` for each language,
//! so that a new language is one more file and nothing can be forgotten in it. Messages of
//! failures and findings come from the program and stay English.

mod english;
mod german;
mod layout;
mod report;
#[cfg(test)]
mod tests;

use crate::domain::failure::Failure;
use crate::domain::finding::Severity;
use crate::domain::name::JobName;
use crate::domain::release::ReleaseId;
use crate::domain::run::Cause;
use crate::domain::run::Idle;
use crate::domain::run::Outcome;
use crate::domain::span::Span;
use crate::domain::step::At;
use crate::domain::step::Step;
use crate::notify::template::layout::Page;
pub use crate::notify::template::report::GateRemark;
pub use crate::notify::template::report::LoggedOut;
pub use crate::notify::template::report::RunReport;
pub use crate::notify::template::report::StepReport;
pub use crate::notify::template::report::StepState;
pub use crate::notify::template::report::Verdict;

/// How many findings are shown, the worst first.
const FINDINGS_MAX: usize = 30;
/// How many lines of a program's words are shown.
const LINES_MAX: usize = 40;
/// The last lines of what was seen of a program, such as its journal.
const EXHIBIT_LINES_MAX: usize = 50;
/// How many causes of a failure are shown.
const CAUSES_MAX: usize = 20;
/// How many releases are told of, and how many lines of each.
const RELEASES_MAX: usize = 10;
const NOTES_LINES_MAX: usize = 40;

/// A language that mails are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// German.
    German,
}

impl Language {
    /// By tag: `de`, `de-AT`, `de_DE.UTF-8`; English for every language there is no template for.
    pub fn from_tag(tag: &str) -> Self {
        let primary = tag.split(['-', '_', '.']).next().unwrap_or_default();
        if primary.eq_ignore_ascii_case("de") { Self::German } else { Self::English }
    }

    const fn phrases(self) -> &'static Phrases {
        match self {
            Self::English => &english::PHRASES,
            Self::German => &german::PHRASES,
        }
    }
}

/// A mail without its recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// One line.
    pub subject: String,
    /// Plain text.
    pub text: String,
}

/// Everything that one language says.
struct Phrases {
    /// After the title of the application, in the subject.
    subject: fn(&RunReport) -> String,
    /// How it ended; one or two sentences.
    headline: fn(&RunReport) -> String,
    /// What to do next, and the commands for it.
    next: fn(&RunReport) -> (String, Vec<String>),
    /// Whether people can log in.
    gate: fn(GateRemark) -> &'static str,
    /// The name of a step.
    step: fn(Step) -> &'static str,
    /// What became of a step.
    state: fn(StepState) -> &'static str,
    /// Whether a finding is a warning or worse.
    severity: fn(Severity) -> &'static str,
    /// "build 2 of the path", for the second build on.
    build: fn(u32) -> String,
    /// A start that nobody was there to make, at this instant.
    missed: fn(&str) -> String,
    /// A job that should have followed, but is disabled.
    idle: fn(&JobName) -> String,
    /// So many more are not shown.
    left_out: fn(usize) -> String,
    /// The title over what is new in the releases.
    notes: &'static str,
    /// A cause that is no step's failure.
    cancelled: fn(&str) -> String,
    /// The same.
    overlong: fn(Span) -> String,
    /// What stands between the whole and the tenth.
    decimal: char,
    why: &'static str,
    /// The title over what made a stuck run turn round.
    began_with: &'static str,
    because: &'static str,
    /// Before the last lines of a program.
    said: &'static str,
    hint: &'static str,
    at_step: &'static str,
    run: &'static str,
    run_label: &'static str,
    job_label: &'static str,
    by_hand: &'static str,
    host_label: &'static str,
    started_by_label: &'static str,
    from_label: &'static str,
    to_label: &'static str,
    began_label: &'static str,
    ended_label: &'static str,
    took_label: &'static str,
    away_label: &'static str,
    history_label: &'static str,
    /// An entry of the history and the beginning of its hash.
    entry: fn(i64, &str) -> String,
    not_away: &'static str,
    closed_label: &'static str,
    since: &'static str,
    steps: &'static str,
    people: &'static str,
    backup: &'static str,
    made_at: &'static str,
    size: &'static str,
    tested: &'static str,
    findings: &'static str,
    more: &'static str,
    signature: &'static str,
}

/// Writes the report of a run.
pub fn render(report: &RunReport, language: Language) -> Rendered {
    let words = language.phrases();
    let mut page = Page::new(words.left_out);
    page.line(&(words.headline)(report));
    page.line((words.gate)(report.gate));
    next(&mut page, report, words);
    why(&mut page, report, words);
    notes(&mut page, report, words);
    run(&mut page, report, words);
    steps(&mut page, report, words);
    people(&mut page, report, words);
    backup(&mut page, report, words);
    findings(&mut page, report, words);
    page.heading(words.more);
    page.item(&format!("afterhours run show {}", report.run));
    page.item(&format!("afterhours run bundle {} -o run-{}.tar.zst", report.run, report.run));
    if let Some(head) = &report.history {
        page.item(&format!("afterhours audit verify --number {} --head {}", head.number, head.hash));
    }
    page.signature(&format!("{} {}", words.signature, report.host));
    Rendered { subject: format!("{}: {}", report.app_title, (words.subject)(report)), text: page.text() }
}

fn next(page: &mut Page, report: &RunReport, words: &Phrases) {
    let (usual, mut commands) = (words.next)(report);
    let is_stuck = matches!(report.verdict, Verdict::Stuck { .. });
    let held = report.held.as_ref().or(report.blocked.as_ref()).filter(|_| !is_stuck);
    commands.extend(held.map(|id| format!("afterhours update allow {} --app {}", id.version, report.app)));
    page.gap();
    page.line(&usual);
    for command in &commands {
        page.item(command);
    }
    for job in &report.idle {
        page.line(&(words.idle)(job));
        page.item(&format!("afterhours job enable {job}"));
    }
}

/// What is new for the users, where there is something.
fn notes(page: &mut Page, report: &RunReport, words: &Phrases) {
    if report.verdict != Verdict::Finished(Outcome::Succeeded) {
        return;
    }
    let told: Vec<_> = report.notes.iter().filter(|(_, notes)| !notes.trim().is_empty()).collect();
    if told.is_empty() {
        return;
    }
    page.heading(words.notes);
    // The newest are read, whatever else is left out.
    page.list(&told.into_iter().rev().collect::<Vec<_>>(), RELEASES_MAX, |page, (release, notes)| {
        page.item(&format!("{release}:"));
        let lines: Vec<&str> = notes.trim().lines().collect();
        page.list(&lines, NOTES_LINES_MAX, |page, line| page.item(&format!("  {line}")));
    });
}

fn why(page: &mut Page, report: &RunReport, words: &Phrases) {
    if let Verdict::Stuck { at, failure } = &report.verdict {
        page.heading(words.why);
        failed(page, *at, failure, words);
        if let Some(Cause::StepFailed { at: first, failure: original }) = &report.cause
            && (first, original) != (at, failure)
        {
            page.heading(words.began_with);
            failed(page, *first, original, words);
        }
        return;
    }
    match &report.cause {
        None => {}
        Some(Cause::StepFailed { at, failure }) => {
            page.heading(words.why);
            failed(page, *at, failure, words);
        }
        Some(Cause::Cancelled { by }) => {
            page.heading(words.why);
            page.item(&(words.cancelled)(by));
        }
        Some(Cause::Overlong { max_runtime }) => {
            page.heading(words.why);
            page.item(&(words.overlong)(*max_runtime));
        }
        Some(Cause::NothingToDo { reason, why }) => {
            page.heading(words.why);
            match why {
                Idle::NothingNewer => page.item(reason),
                Idle::Missed { missed_at } | Idle::Asks { missed_at } => {
                    page.item(&(words.missed)(&layout::instant(*missed_at, report.zone)));
                }
            }
        }
    }
}

fn failed(page: &mut Page, at: At, failure: &Failure, words: &Phrases) {
    page.item(&format!("{}: {}", words.at_step, step_name(at, words)));
    // Messages are fragments that fit after these two words; they are not translated.
    page.item(&format!("failed to {}", failure.message));
    page.list(&failure.because, CAUSES_MAX, |page, cause| page.item(&format!("{}: {cause}", words.because)));
    if !failure.said.is_empty() {
        page.item(&format!("{}:", words.said));
    }
    page.list(&failure.said, LINES_MAX, |page, line| page.item(&format!("  {line}")));
    for exhibit in &failure.exhibits {
        page.item(&format!("{}:", exhibit.from));
        page.list(&exhibit.lines, EXHIBIT_LINES_MAX, |page, line| page.item(&format!("  {line}")));
    }
    if let Some(hint) = &failure.hint {
        page.item(&format!("{}: {hint}", words.hint));
    }
}

fn run(page: &mut Page, report: &RunReport, words: &Phrases) {
    page.heading(words.run);
    let job = report.job.as_ref().map_or_else(|| words.by_hand.to_owned(), ToString::to_string);
    let release = |id: &Option<ReleaseId>| id.as_ref().map(ToString::to_string);
    let since = |at| format!("{} {}", words.since, layout::instant(at, report.zone));
    let away = match (report.downtime, report.away_since) {
        (_, Some(at)) => since(at),
        (Some(span), None) => layout::span(span, words.decimal),
        (None, None) => words.not_away.to_owned(),
    };
    let took = layout::span(Span::between(report.started_at, report.finished_at), words.decimal);
    let rows = [
        (words.run_label, Some(report.run.to_string())),
        (words.job_label, Some(job)),
        (words.started_by_label, Some(report.started_by.clone())),
        (words.host_label, Some(report.host.clone())),
        (words.from_label, release(&report.from)),
        (words.to_label, release(&report.to)),
        (words.began_label, Some(layout::instant(report.started_at, report.zone))),
        (words.ended_label, Some(layout::instant(report.finished_at, report.zone))),
        (words.took_label, Some(took)),
        (words.away_label, Some(away)),
        (words.closed_label, report.closed_since.map(since)),
        (words.history_label, report.history.as_ref().map(|head| (words.entry)(head.number, head.short()))),
    ];
    let rows = rows.into_iter().filter_map(|(label, value)| Some(vec![label.to_owned(), value?]));
    page.table(&rows.collect::<Vec<_>>());
}

fn steps(page: &mut Page, report: &RunReport, words: &Phrases) {
    if report.steps.is_empty() {
        return;
    }
    page.heading(words.steps);
    let row = |step: &StepReport| {
        let took = step.took.map(|span| layout::span(span, words.decimal)).unwrap_or_default();
        let first = step.message.lines().next().unwrap_or_default().to_owned();
        vec![(words.state)(step.state).to_owned(), step_name(step.at, words), took, first]
    };
    page.table(&report.steps.iter().map(row).collect::<Vec<_>>());
    for step in &report.steps {
        // A message of several lines: the first has stood in the table.
        if let Some((_, more)) = step.message.split_once('\n') {
            page.gap();
            page.item(&format!("{}: {}:", step_name(step.at, words), words.said));
            let lines: Vec<&str> = more.lines().collect();
            page.list(&lines, LINES_MAX, |page, line| page.item(&format!("  {line}")));
        }
    }
}

fn people(page: &mut Page, report: &RunReport, words: &Phrases) {
    if report.logged_out.is_empty() {
        return;
    }
    page.heading(words.people);
    let row = |who: &LoggedOut| vec![who.user.clone(), who.workstation.clone().unwrap_or_default()];
    page.table(&report.logged_out.iter().map(row).collect::<Vec<_>>());
}

fn backup(page: &mut Page, report: &RunReport, words: &Phrases) {
    let Some(evidence) = &report.evidence else { return };
    page.heading(words.backup);
    page.item(&evidence.source);
    page.item(&format!("{} {}", words.made_at, layout::instant(evidence.made_at, report.zone)));
    if let Some(size) = evidence.size_bytes {
        page.item(&format!("{} {}", words.size, layout::bytes(size, words.decimal)));
    }
    if !evidence.tested.is_empty() {
        page.item(&format!("{} {}", words.tested, evidence.tested.join(", ")));
    }
}

fn findings(page: &mut Page, report: &RunReport, words: &Phrases) {
    let mut shown: Vec<_> = report.findings.iter().filter(|finding| finding.severity > Severity::Good).collect();
    if shown.is_empty() {
        return;
    }
    // The worst first; otherwise as they were found.
    shown.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    page.heading(words.findings);
    page.list(&shown, FINDINGS_MAX, |page, finding| {
        page.item(&format!("{}: {}", (words.severity)(finding.severity), finding.text));
        if let Some(remedy) = &finding.remedy {
            page.item(&format!("  {}: {remedy}", words.hint));
        }
    });
}

fn step_name(at: At, words: &Phrases) -> String {
    match at.build {
        0 => (words.step)(at.step).to_owned(),
        build => format!("{} ({})", (words.step)(at.step), (words.build)(build + 1)),
    }
}

/// Why a run did nothing, where it did nothing.
fn idle(report: &RunReport) -> Idle {
    match &report.cause {
        Some(Cause::NothingToDo { why, .. }) => *why,
        _ => Idle::NothingNewer,
    }
}

/// The version for a sentence, where it is known.
fn version(id: &Option<ReleaseId>, unknown: &str) -> String {
    id.as_ref().map_or_else(|| unknown.to_owned(), |id| id.version.to_string())
}
