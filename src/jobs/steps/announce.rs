//! Tells everybody who is logged in, and fixes the instant at which grace ends.

use chrono::Local;

use crate::domain::clock::Term;
use crate::domain::event::Output;
use crate::domain::failure::Failure;
use crate::domain::session::Census;
use crate::domain::session::Notice;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;
use crate::jobs::steps::report::news;

/// How many sessions are noted in the log; the message counts all.
const SESSIONS_MAX: usize = 100;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let census = context.census().await;
    let length = context.machine.order().grace.unwrap_or(context.kit.app.grace);
    let grace = Term { from: context.night.clock.moment(), length };
    let grace_ends_at = grace.ends_at(grace.from);
    let told = context.kit.sessions.announce(&notice(context, grace_ends_at).await).await;
    // Of an application that is verified down the interface tells nobody; there is nobody.
    if !context.is_down().await {
        or_fail!(told);
    }
    let until = grace_ends_at.with_timezone(&Local).format("%H:%M:%S %:z");
    let (sessions, message) = match census {
        Census::Known(sessions) if sessions.is_empty() => (sessions, "nobody is logged in".to_owned()),
        Census::Known(sessions) => {
            let told = sessions.iter().filter(|session| context.kit.sessions.can_tell(&session.id)).count();
            let message = announced(told, sessions.len(), &until.to_string());
            (sessions, message)
        }
        // Whoever can be reached is told; the log-out waits until everybody is known.
        Census::Unknown(reason) => (
            Vec::new(),
            format!("announced to whom it reaches, until {until}; who is logged in is not known: {reason}"),
        ),
    };
    let sessions = sessions.into_iter().take(SESSIONS_MAX).map(|session| session.id).collect();
    Ok(Done { output: Output::Announced { grace_ends_at, grace: Some(grace), sessions }, message })
}

/// What of `all` sessions could be told something.
fn announced(told: usize, all: usize, until: &str) -> String {
    match all - told.min(all) {
        0 => format!("announced to {all}, until {until}"),
        left if left == all => format!("announced to 0 of {all}: nobody can be told; grace ends at {until}"),
        left => format!("announced to {told} of {all}, until {until}: {left} cannot be told"),
    }
}

pub(super) async fn undo(context: &Context<'_>) -> Result<String, Failure> {
    let news = news(context, context.machine.outcome_of_unwinding());
    or_fail!(context.kit.sessions.finish(&news).await);
    Ok("the announcement is withdrawn".to_owned())
}

/// What users read.
pub(super) async fn notice(context: &Context<'_>, ends_at: chrono::DateTime<chrono::Utc>) -> Notice {
    let version = context.path().last().map(|release| release.id.version.to_string()).unwrap_or_default();
    Notice {
        title: context.kit.app.title.clone(),
        reason: format!("version {version} will be installed."),
        ends_at,
        back_at: Some(context.back_at(ends_at).await),
    }
}

#[cfg(test)]
mod tests {
    use super::announced;

    #[test]
    fn only_who_can_be_told_was_told() {
        let until = "02:35:00 +01:00";
        assert_eq!(announced(2, 2, until), "announced to 2, until 02:35:00 +01:00");
        assert_eq!(announced(1, 3, until), "announced to 1 of 3, until 02:35:00 +01:00: 2 cannot be told");
        let nobody = "announced to 0 of 3: nobody can be told; grace ends at 02:35:00 +01:00";
        assert_eq!(announced(0, 3, until), nobody);
    }
}
