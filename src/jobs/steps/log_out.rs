//! Closes the sessions that are left, first politely, then by force. Goes on only when the census is
//! known and empty.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::domain::event::Output;
use crate::domain::failure::Failure;
use crate::domain::session::Census;
use crate::domain::session::Session;
use crate::domain::session::SessionId;
use crate::domain::span::Span;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;

/// How often the census is taken.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long sessions may take to go away after force was used.
const FORCE_WAIT: Span = Span::secs(30);

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let clock = &context.night.clock;
    let app = &context.kit.app;
    let mut closed: BTreeMap<SessionId, Session> = BTreeMap::new();
    let mut asked: BTreeSet<SessionId> = BTreeSet::new();
    let mut forced = false;
    let mut unknown_since = None;
    let mut asked_since = None;
    loop {
        let now = clock.now();
        match context.kit.sessions.census().await {
            Census::Known(sessions) if sessions.is_empty() => {
                let message = match closed.len() {
                    0 => "nobody had to be logged out".to_owned(),
                    count => format!("{count} logged out"),
                };
                return Ok(Done { output: Output::LoggedOut { closed: closed.into_values().collect() }, message });
            }
            Census::Known(sessions) => {
                unknown_since = None;
                let waited = Span::between(*asked_since.get_or_insert(now), now);
                let force = waited >= app.polite_end;
                if waited >= Span::from(app.polite_end.duration() + FORCE_WAIT.duration()) {
                    return Err(left_over(&sessions));
                }
                let again = force && !forced;
                forced |= force;
                for session in sessions {
                    if asked.insert(session.id.clone()) || again {
                        end(context, &session, force).await;
                        closed.entry(session.id.clone()).or_insert(session);
                    }
                }
            }
            Census::Unknown(reason) => {
                let since = *unknown_since.get_or_insert(now);
                if Span::between(since, now) >= app.census_wait {
                    return Err(Failure::new("find out who is logged in").because(reason).hint(
                        "nobody was logged out by force; see `afterhours session list` and `afterhours doctor`",
                    ));
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn end(context: &Context<'_>, session: &Session, force: bool) {
    if let Err(error) = context.kit.sessions.end(&session.id, force).await {
        // The census is what counts; it will show the session until it is gone.
        tracing::warn!(session = %session.id, force, error = &error as &dyn std::error::Error, "a session did not end");
    }
}

fn left_over(sessions: &[Session]) -> Failure {
    let names: Vec<String> = sessions.iter().map(|session| session.user.clone()).collect();
    Failure::new(format!("log everybody out: {} would not go, even by force", names.join(", ")))
        .hint("close these sessions in the application itself, then start the job again")
}
