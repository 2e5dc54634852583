//! Accepts the evidence of a fresh backup, or makes one and demands the evidence of that.

use crate::backup::Made;
use crate::domain::event::Output;
use crate::domain::failure::Failure;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let Some(gate) = &context.kit.backup else {
        return Ok(Done::saying("no backup is demanded for this application"));
    };
    let clock = context.night.clock.as_ref();
    let (evidence, made) = or_fail!(gate.satisfy(clock, &context.marked_env().await?, context.progress()).await);
    let how = if matches!(made, Made::No) { "found" } else { "made" };
    let message = format!("{how} {} of {}", evidence.source, evidence.made_at.format("%Y-%m-%d %H:%M UTC"));
    Ok(Done { output: Output::BackedUp { evidence }, message })
}
