//! Checks everything the run will need; the same check is `doctor`.

use crate::domain::event::Output;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::finding::Severity;
use crate::jobs::driver::Done;
use crate::jobs::preflight::Found;
use crate::jobs::preflight::look;
use crate::jobs::select::Wish;
use crate::jobs::steps::Context;
use crate::probe::before::Asking;

/// What an application that is ill is found by. It keeps nobody from learning that there is nothing to install.
const HEALTH: [&str; 2] = ["health", "health_version"];

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let night = context.night;
    let wish = Wish::of_run(&night.store, context.run, context.machine.order()).await?;
    let look = || look(context.kit, &night.store, night.clock.now(), &wish, Asking::Patiently);
    let mut found = look().await;
    if found.findings.iter().any(lacks_room) {
        // What the run before has left waits for nobody, but it takes room.
        or_fail!(context.kit.installer.empty_trash().await);
        found = look().await;
    }
    let Found { findings: found, before, pending } = found;
    let counts = |finding: &&Finding| pending || !HEALTH.contains(&finding.check.as_str());
    let fatal: Vec<&Finding> =
        found.iter().filter(|finding| finding.severity == Severity::Fatal).filter(counts).collect();
    if let [first, rest @ ..] = fatal.as_slice() {
        let mut failure = Failure::new(format!("begin: {}", first.text));
        failure.because = rest.iter().map(|finding| finding.text.clone()).collect();
        failure.hint.clone_from(&first.remedy);
        return Err(failure);
    }
    let checked = found.len();
    let findings: Vec<Finding> = found.into_iter().filter(|finding| finding.severity != Severity::Good).collect();
    let message = match findings.len() {
        0 => format!("{checked} checks, all good"),
        warnings => format!("{checked} checks, {warnings} to look at"),
    };
    Ok(Done { output: Output::Checked { findings, before }, message })
}

fn lacks_room(finding: &Finding) -> bool {
    finding.severity == Severity::Fatal && ["space", "inodes", "quota", "trash"].contains(&finding.check.as_str())
}
