//! Closes the sessions that are left, first politely, then by force. Goes on only when the census is
//! known and empty.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::domain::clock::Moment;
use crate::domain::event::Output;
use crate::domain::failure::Failure;
use crate::domain::foreign;
use crate::domain::session::Census;
use crate::domain::session::Session;
use crate::domain::session::SessionId;
use crate::domain::span::Span;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;
use crate::sessions::cut::Dropped;
use crate::sessions::cut::Which;
use crate::sessions::cut::Why;

/// How often the census is taken.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long sessions may take to go away after force was used.
const FORCE_WAIT: Span = Span::secs(30);
/// How long a client may take to use force; then it is used from here, and who has no program is dropped.
const PATIENCE: Span = Span::secs(10);
/// How long sessions have at least that are asked once more, after a restart.
const ASKED_AGAIN: Span = Span::secs(5);
/// How long a link that was lost a moment ago is waited for beyond `census_wait`.
const SETTLE_WAIT: Span = Span::secs(15);

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let clock = &context.night.clock;
    let app = &context.kit.app;
    let mut closed: BTreeMap<SessionId, Session> = BTreeMap::new();
    let mut asked: BTreeSet<SessionId> = BTreeSet::new();
    let mut dropped: Vec<Dropped> = Vec::new();
    let mut forced = false;
    let mut sealed = false;
    let mut unknown_since = None;
    // Over a crash it goes on; but whoever is asked only now has a moment to answer.
    let begun = clock.moment();
    let before = context.machine.known().log_out_since.map_or(Span::ZERO, |since| begun.since(since));
    let mut asked_since: Option<Moment> = None;
    let patience = Span::from(app.polite_end.duration() + PATIENCE.duration());
    loop {
        let now = clock.moment();
        match context.census().await {
            // Whoever came between this look and the seal is met by the next one.
            Census::Known(sessions) if sessions.is_empty() && !sealed => {
                context.kit.sessions.seal();
                sealed = true;
                continue;
            }
            Census::Known(sessions) if sessions.is_empty() => {
                let message = told(closed.len(), &dropped);
                return Ok(Done { output: Output::LoggedOut { closed: closed.into_values().collect() }, message });
            }
            Census::Known(sessions) => {
                unknown_since = None;
                let here = now.since(*asked_since.get_or_insert(now));
                let waited = waited(here, before, app.polite_end);
                let force = waited >= app.polite_end;
                if waited >= Span::from(app.polite_end.duration() + FORCE_WAIT.duration()) {
                    return Err(left_over(&sessions));
                }
                if waited >= patience {
                    dropped.extend(context.kit.sessions.cut_off(Which::Left).await);
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
                let waited = now.since(*unknown_since.get_or_insert(now));
                let settled_by = Span::from(app.census_wait.duration() + SETTLE_WAIT.duration());
                let is_settling = context.kit.sessions.is_settling();
                // Force was used long ago, and whoever is lost since then is so on purpose or by our own hand.
                let was_asked = asked_since.is_some_and(|since| now.since(since) >= patience);
                if is_settling && (was_asked || waited >= settled_by) {
                    dropped.extend(context.kit.sessions.cut_off(Which::Unsure).await);
                    unknown_since = None;
                } else if waited >= app.census_wait && !is_settling {
                    return Err(Failure::new("find out who is logged in").because(reason).hint(
                        "nobody was logged out by force; see `afterhours session list` and `afterhours doctor`",
                    ));
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How long the sessions have been asked to end: `here` by this process, and `before` by one that died meanwhile.
fn waited(here: Span, before: Span, polite_end: Span) -> Span {
    let before = before.duration().min(polite_end.duration().saturating_sub(ASKED_AGAIN.duration()));
    Span::from(here.duration() + before)
}

async fn end(context: &Context<'_>, session: &Session, force: bool) {
    if let Err(error) = context.kit.sessions.end(&session.id, force).await {
        // The census is what counts; it will show the session until it is gone.
        tracing::warn!(session = %session.id, force, error = &error as &dyn std::error::Error, "a session did not end");
    }
}

/// What came of it, with a line for each kind of session that did not end by itself.
fn told(closed: usize, dropped: &[Dropped]) -> String {
    let mut lines = vec![match closed {
        0 => "nobody had to be logged out".to_owned(),
        count => format!("{count} logged out"),
    }];
    for why in [Why::NoProgram, Why::Killed, Why::Held] {
        let whose: Vec<String> = dropped.iter().filter(|one| one.why == why).map(|one| whose(&one.session)).collect();
        let why = match why {
            Why::NoProgram => "its program is no process of theirs",
            Why::Killed => "its client ignored the end, and its program was killed",
            Why::Held => "its program was killed, and has not ended yet",
        };
        match whose.as_slice() {
            [] => {}
            [one] => lines.push(format!("the session of {one} was dropped: {why}")),
            many => lines.push(format!("the sessions of {} were dropped, of each: {why}", foreign::names(many))),
        }
    }
    lines.join("\n")
}

/// `1002/bert (says anna)`.
fn whose(session: &Session) -> String {
    let uid = session.uid.map(|uid| format!("{uid}/")).unwrap_or_default();
    format!("{uid}{}", session.who())
}

fn left_over(sessions: &[Session]) -> Failure {
    let names = foreign::names(sessions.iter().map(Session::who));
    Failure::new(format!("log everybody out: {names} would not go, even by force"))
        .hint("close these sessions in the application itself, then start the job again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_gives_no_second_polite_end_and_takes_nobody_by_surprise() {
        let end = Span::secs(30);
        assert_eq!(waited(Span::secs(7), Span::ZERO, end), Span::secs(7));
        assert_eq!(waited(Span::secs(7), Span::secs(10), end), Span::secs(17));
        assert_eq!(waited(Span::ZERO, Span::hours(3), end), Span::secs(25), "they are asked again first");
        assert_eq!(waited(Span::secs(1), Span::hours(3), Span::secs(2)), Span::secs(1));
    }
}
