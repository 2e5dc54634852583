//! Tells everybody who is logged in, and fixes the instant at which grace ends.

use crate::domain::event::Output;
use crate::domain::failure::Failure;
use crate::domain::session::Census;
use crate::domain::session::Notice;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;

/// How many sessions are noted in the log; the message counts all.
const SESSIONS_MAX: usize = 100;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let census = context.kit.sessions.census().await;
    let grace = context.machine.order().grace.unwrap_or(context.kit.app.grace);
    let grace_ends_at = context.night.clock.now() + grace.delta();
    or_fail!(context.kit.sessions.announce(&notice(context, grace_ends_at).await).await);
    let until = grace_ends_at.format("%H:%M:%S UTC");
    let (sessions, message) = match census {
        Census::Known(sessions) if sessions.is_empty() => (sessions, "nobody is logged in".to_owned()),
        Census::Known(sessions) => {
            let message = format!("{} logged in, until {until}", sessions.len());
            (sessions, message)
        }
        // Whoever can be reached is told; the log-out waits until everybody is known.
        Census::Unknown(reason) => (Vec::new(), format!("until {until}; who is logged in is not known: {reason}")),
    };
    let sessions = sessions.into_iter().take(SESSIONS_MAX).map(|session| session.id).collect();
    Ok(Done { output: Output::Announced { grace_ends_at, sessions }, message })
}

pub(super) async fn undo(context: &Context<'_>) -> Result<String, Failure> {
    or_fail!(context.kit.sessions.withdraw().await);
    Ok("the announcement is withdrawn".to_owned())
}

/// What users read.
pub(super) async fn notice(context: &Context<'_>, ends_at: chrono::DateTime<chrono::Utc>) -> Notice {
    let version = context.path().last().map(|release| release.id.version.to_string()).unwrap_or_default();
    Notice {
        title: context.kit.app.title.clone(),
        reason: format!("{} is updated to version {version}", context.kit.app.title),
        ends_at,
        back_at: Some(context.back_at(ends_at).await),
    }
}
