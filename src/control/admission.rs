//! Who may log in, asked for each workstation that registers; and what is written down of it.
//!
//! The user is the one whom the kernel names. A pass that is used is noted with its use; whoever is refused is noted too,
//! but an application that knocks every second, or somebody who wants to fill the disk, is noted once in a while, with a
//! count.

use std::collections::BTreeMap;
use std::sync::Mutex;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde_json::Value;
use serde_json::json;

use crate::control::Control;
use crate::control::error::ControlError;
use crate::db::audit::AuditEntry;
use crate::db::gates::Holder;
use crate::domain::foreign;
use crate::domain::gate::Gate;
use crate::domain::gate::Pass;
use crate::domain::gate::Position;
use crate::domain::name::AppName;
use crate::files::account::Account;
use crate::files::account::user_name;
use crate::sessions::hub::Verdict;
use crate::sessions::named::Named;
use crate::sessions::station::Peer;

/// From where workstations come, as the audit calls it.
const VIA: &str = "socket";
/// How long refusals of one user are counted before they are noted once more.
const COUNT_FOR: TimeDelta = TimeDelta::minutes(10);
/// Of how many users refusals are counted one by one; those of all others are counted together.
const USERS_MAX: usize = 64;

/// What somebody was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Refused {
    /// To log in through a closed gate.
    Login,
    /// To be counted at all.
    Session,
}

impl Refused {
    const fn action(self) -> &'static str {
        match self {
            Self::Login => "gate.refused",
            Self::Session => "session.refused",
        }
    }
}

/// Refusals that were not noted yet.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<Key, Counted>>);

/// What, of which application, to whom; to all others where no user is named.
type Key = (Refused, AppName, Option<u32>);

#[derive(Debug, Clone, Copy)]
struct Counted {
    /// Since when it is counted: then it was noted.
    noted: DateTime<Utc>,
    /// How often it happened since.
    since: u64,
}

impl Refusals {
    /// Counts one. Answers with what is to be noted now, and how often it happened since it was noted last.
    fn count(&self, what: Refused, app: &AppName, uid: u32, now: DateTime<Utc>) -> Vec<(Key, u64)> {
        let mut all = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut over = BTreeMap::new();
        all.retain(|key, counted| {
            // A clock that was set back must not silence it for long.
            let counts = (TimeDelta::zero()..COUNT_FOR).contains(&(now - counted.noted));
            if !counts && counted.since > 0 {
                over.insert(key.clone(), counted.since);
            }
            counts
        });
        let known = all.contains_key(&(what, app.clone(), Some(uid)));
        let key = (what, app.clone(), Some(uid).filter(|_| known || all.len() < USERS_MAX));
        match all.get_mut(&key) {
            Some(counted) => counted.since += 1,
            None => {
                all.insert(key.clone(), Counted { noted: now, since: 0 });
                *over.entry(key).or_default() += 1;
            }
        }
        over.into_iter().collect()
    }
}

impl Control {
    /// Whether sessions of this peer's user count at all. Root's and this daemon's own always do.
    pub async fn counts(&self, app: &AppName, peer: Option<Peer>) -> bool {
        let Ok(kit) = self.kit(app) else { return false };
        let people = kit.app.people.clone();
        let Some(peer) = peer else { return people.is_everybody() };
        if peer.vouches() || people.is_everybody() {
            return true;
        }
        let found = tokio::task::spawn_blocking(move || people.are_of(&Account::of_uid(peer.uid)));
        let counts = found.await.unwrap_or(false);
        if !counts {
            self.note_refusal(Refused::Session, app, peer, None).await;
        }
        counts
    }

    /// Whether the user of `peer` may start the application now; uses up a pass where it takes one.
    pub async fn admit(&self, app: &AppName, peer: Option<Peer>, said: &str) -> Verdict {
        let now = self.now();
        let (message, until) = match self.store.gate(app).await {
            Ok(gate) if gate.admits(now) => return Verdict::Admitted,
            Ok(Gate { position: Position::Closed { message, until, .. }, .. }) => (message, until),
            Ok(Gate { position: Position::Open, .. }) => return Verdict::Admitted,
            // What cannot be known is not admitted.
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the gate cannot be read");
                ("it cannot be found out whether you may log in".to_owned(), None)
            }
        };
        // While the application is away there is nothing to log in to, pass or not.
        let may_pass = matches!(self.is_away(app).await, Ok(false));
        if may_pass && self.has_pass(app, peer, said).await {
            return Verdict::AdmittedByPass;
        }
        if let Some(peer) = peer {
            self.note_refusal(Refused::Login, app, peer, Some(said)).await;
        }
        Verdict::Refused { message, until }
    }

    async fn is_away(&self, app: &AppName) -> Result<bool, ControlError> {
        Ok(self.store.active_run(app).await?.is_some_and(|run| run.away))
    }

    /// Whether there was a pass for them; it is used up, and that is noted.
    async fn has_pass(&self, app: &AppName, peer: Option<Peer>, said: &str) -> bool {
        let now = self.now();
        // Most are refused, and a look costs less than a transaction.
        if !matches!(self.store.passes(app, now).await, Ok(passes) if !passes.is_empty()) {
            return false;
        }
        let named = Named::of(peer, said).await;
        let vouched = peer.is_some_and(Peer::vouches);
        let holder = Holder { uid: peer.map(|peer| peer.uid), user: named.user.clone(), vouched };
        let noted = app.clone();
        let note = move |pass: &Pass| {
            let body = json!({ "uid": peer.map(|peer| peer.uid), "said": named.said, "pass": pass });
            entry(now, named.user, "gate.pass_used", &noted, body)
        };
        match self.store.use_pass(app, holder, now, note).await {
            Ok(used) => used,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a pass cannot be used");
                false
            }
        }
    }

    async fn note_refusal(&self, what: Refused, app: &AppName, peer: Peer, said: Option<&str>) {
        let now = self.now();
        for ((what, app, uid), times) in self.refusals.count(what, app, peer.uid, now) {
            let who = match uid {
                Some(uid) => tokio::task::spawn_blocking(move || user_name(uid)).await.unwrap_or_default(),
                None => "other users".to_owned(),
            };
            let said = said.filter(|_| uid == Some(peer.uid)).map(foreign::name);
            let body = json!({ "uid": uid, "said": said, "times": times });
            if let Err(error) = self.store.audit(entry(now, who, what.action(), &app, body)).await {
                tracing::error!(error = &error as &dyn std::error::Error, "a refusal is not noted");
            }
        }
    }
}

fn entry(at: DateTime<Utc>, who: String, action: &str, app: &AppName, body: Value) -> AuditEntry {
    AuditEntry { at, who, via: VIA.to_owned(), action: action.to_owned(), object: app.to_string(), body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_noted_once_in_a_while() {
        let refusals = Refusals::default();
        let app: AppName = "orders".parse().unwrap();
        let at = |minutes| DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes);
        let count = |what, uid, minutes| refusals.count(what, &app, uid, at(minutes));
        let note = |what, uid, times| ((what, app.clone(), uid), times);
        assert_eq!(count(Refused::Login, 1, 0), [note(Refused::Login, Some(1), 1)]);
        assert!((0..1000).all(|_| count(Refused::Login, 1, 9).is_empty()));
        assert_eq!(count(Refused::Session, 1, 9), [note(Refused::Session, Some(1), 1)], "another thing");
        assert_eq!(count(Refused::Login, 1, 10), [note(Refused::Login, Some(1), 1001)]);
        assert!(count(Refused::Login, 1, 11).is_empty());
        // However many users there are, they are noted a bounded number of times.
        let noted: Vec<_> = (2..10_000).flat_map(|uid| count(Refused::Login, uid, 12)).collect();
        assert_eq!(noted.len(), USERS_MAX - 2 + 1);
        assert_eq!(noted.last(), Some(&note(Refused::Login, None, 1)));
        let others = 10_000 - 2 - (USERS_MAX as u64 - 2) - 1;
        let later = count(Refused::Session, 7, 22);
        assert!(later.contains(&note(Refused::Login, None, others)), "{later:?}");
        assert!(later.contains(&note(Refused::Login, Some(1), 1)), "{later:?}");
        assert_eq!(count(Refused::Session, 7, -30), [note(Refused::Session, Some(7), 1)], "the clock was set back");
    }
}
