//! Who may log in, asked for each workstation that registers; and what is written down of it.
//!
//! The user is the one whom the kernel names. A pass that is used is noted with its use; whoever is refused is noted too.

use chrono::DateTime;
use chrono::Utc;
use serde_json::Value;
use serde_json::json;

use crate::control::Control;
use crate::control::error::ControlError;
use crate::control::refusals::Refused;
use crate::db::audit::AuditEntry;
use crate::db::gates::Holder;
use crate::domain::foreign;
use crate::domain::gate::Gate;
use crate::domain::gate::Pass;
use crate::domain::gate::Position;
use crate::domain::name::AppName;
use crate::files::account::Account;
use crate::sessions::hub::HubError;
use crate::sessions::hub::Verdict;
use crate::sessions::named::Named;
use crate::sessions::station::Peer;

/// From where workstations come, as the audit calls it.
const VIA: &str = "socket";
/// Somebody was not let in through a closed gate.
const LOGIN_REFUSED: &str = "gate.refused";
/// Somebody's sessions do not count.
const SESSION_REFUSED: &str = "session.refused";

impl Control {
    /// Whether sessions of this peer's user count at all. Root's and this daemon's own always do.
    pub async fn counts(&self, app: &AppName, peer: Option<Peer>, said: &str) -> bool {
        let kit = match self.kit(app) {
            Ok(kit) => kit,
            // Nothing is done with it, so nobody waits for anybody: whoever works there may go on.
            Err(error) => return matches!(error, ControlError::Unfit { .. }),
        };
        let people = kit.app.people.clone();
        let Some(peer) = peer else { return people.is_everybody() };
        if peer.vouches() || people.is_everybody() {
            return true;
        }
        let found = tokio::task::spawn_blocking(move || people.are_of(&Account::of_uid(peer.uid)));
        let counts = found.await.unwrap_or(false);
        if !counts {
            let why = format!("{app} is used by other users of this machine");
            self.note_unseated(
                SESSION_REFUSED,
                app.to_string(),
                peer,
                &[("said", &foreign::name(said)), ("why", &why)],
            )
            .await;
        }
        counts
    }

    /// Whether the user of `peer` may start the application now; uses up a pass where it takes one.
    pub async fn admit(&self, app: &AppName, peer: Option<Peer>, said: &str) -> Verdict {
        let now = self.clock.moment();
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
            self.note_unseated(LOGIN_REFUSED, app.to_string(), peer, &[("said", &foreign::name(said))]).await;
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

    /// Notes that the hub has refused something to a user of this machine: a session that is somebody else's, or too many.
    /// `object` is an application or a session. What fails for another reason is no refusal.
    pub async fn note_hub_refusal(&self, object: String, peer: Option<Peer>, said: Option<&str>, error: &HubError) {
        let is_refusal = match error {
            HubError::NotYours { .. } | HubError::NotNow | HubError::TooMany { .. } | HubError::TooOften => true,
            HubError::NoSession { .. }
            | HubError::StaleAnswer
            | HubError::Full
            | HubError::NotRemembered { .. }
            | HubError::Unreachable { .. }
            | HubError::Signal { .. } => false,
        };
        if let Some(peer) = peer.filter(|_| is_refusal) {
            let (said, why) = (said.map(foreign::name), error.to_string());
            let known = said.as_deref().map(|said| ("said", said)).into_iter().chain([("why", why.as_str())]);
            self.note_unseated(SESSION_REFUSED, object, peer, &known.collect::<Vec<_>>()).await;
        }
    }

    async fn note_unseated(&self, action: &'static str, object: String, peer: Peer, known: &[(&str, &str)]) {
        let who = self.refused_name(peer.uid).await;
        let known = known.iter().map(|(key, value)| ((*key).to_owned(), json!(value)));
        let body = known.chain([("uid".to_owned(), json!(peer.uid))]).collect();
        self.note_refused(Refused { who, via: VIA, action, object, body }).await;
    }
}

fn entry(at: DateTime<Utc>, who: String, action: &str, app: &AppName, body: Value) -> AuditEntry {
    AuditEntry { at, who, via: VIA.to_owned(), action: action.to_owned(), object: app.to_string(), body }
}
