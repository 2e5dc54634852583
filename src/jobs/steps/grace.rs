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
    let ends_at = context.machine.known().grace_ends_at.unwrap_or_else(|| clock.now());
    let notice = notice(context, ends_at).await;
    let progress = context.progress();
    let whole = Span::between(clock.now(), ends_at).duration().as_secs();
    // Reminders that lie in the past, as after a restart, are not given late.
    let mut reminders = context.kit.app.reminders.clone();
    reminders.retain(|reminder| *reminder < Span::between(clock.now(), ends_at));
    loop {
        let left = Span::between(clock.now(), ends_at);
        if left == Span::ZERO {
            return Ok(Done::saying("grace is over"));
        }
        if context.kit.sessions.census().await.is_known_empty() {
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
