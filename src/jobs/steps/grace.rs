//! Counts down and reminds; ends early when it is known that nobody is left.

use std::time::Duration;

use crate::domain::failure::Failure;
use crate::domain::span::Span;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;
use crate::jobs::steps::announce::notice;

/// How often it is looked whether anybody is left.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let clock = &context.night.clock;
    let Some(grace) = context.machine.known().grace else { return Ok(Done::saying("nobody was given time")) };
    let begun = clock.moment();
    let notice = notice(context, grace.ends_at(begun)).await;
    let progress = context.progress();
    let whole = grace.left(begun).duration().as_secs();
    // Reminders that lie in the past, as after a restart, are not given late.
    let mut reminders = context.kit.app.reminders.clone();
    reminders.retain(|reminder| *reminder < grace.left(begun));
    loop {
        let now = clock.moment();
        let left = grace.left(now);
        if left == Span::ZERO {
            return Ok(Done::saying(if grace.ended_over_a_boot(now) {
                "grace is over: the machine was off meanwhile, and its clock says for how long"
            } else {
                "grace is over"
            }));
        }
        if context.census().await.is_known_empty() {
            return Ok(Done::saying("nobody is left"));
        }
        progress.advance(whole.saturating_sub(left.duration().as_secs()), Some(whole), "seconds of grace");
        if let Some(due) = reminders.iter().position(|reminder| left <= *reminder) {
            reminders.remove(due);
            if let Err(error) = context.kit.sessions.remind(&notice, left).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "somebody could not be reminded");
            }
        }
        tokio::time::sleep(LOOK_EVERY.min(left.duration())).await;
    }
}
