//! Refused attempts in the history: commands and log-ins, and never so many that a stranger could fill the store.
//!
//! The first refusal of something to somebody within a minute is written at once; those that follow are counted, and stand
//! in one entry when the minute is over. Very many names count as one after the first few, and so do very many things
//! that one of them asks for. Once a day has had many entries, its periods are hours.
//!
//! *Invariant:* what is written in a day is bounded by [`DAY_ENTRIES_MANY`] and 24 hours of [`NAMES_MAX`] names with
//! [`THINGS_MAX`] things each.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::control::Caller;
use crate::control::Control;
use crate::db::audit::AuditEntry;
use crate::domain::plain::one_line;
use crate::files::account::user_name;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// How many names have entries of their own in a period.
const NAMES_MAX: usize = 16;
/// How many things that one of them asks for have entries of their own in a period.
const THINGS_MAX: usize = 4;
/// Whoever, and whatever, comes after them.
const OTHERS: &str = "(others)";
/// After so many entries of a day, its periods are hours.
const DAY_ENTRIES_MANY: u32 = 500;
/// How much of a text of somebody else's goes into an entry.
const CHARS_MAX: usize = 200;
/// What such an entry is called.
const ACTION: &str = "refused";

/// What was asked and refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) who: String,
    pub(super) via: &'static str,
    /// What such an entry is called.
    pub(super) action: &'static str,
    /// What was asked for: method and path, or an application.
    pub(super) object: String,
    /// What else is known; how often it happened is added.
    pub(super) body: Map<String, Value>,
}

impl Refused {
    fn entry(&self, at: DateTime<Utc>, times: u64) -> AuditEntry {
        let mut body = self.body.clone();
        body.insert("times".to_owned(), times.into());
        AuditEntry {
            at,
            who: self.who.clone(),
            via: self.via.to_owned(),
            action: self.action.to_owned(),
            object: self.object.clone(),
            body: Value::Object(body),
        }
    }

    fn name(&self) -> Name {
        (self.action, self.who.clone())
    }

    fn thing(&self) -> Thing {
        let why = self.body.get("why").and_then(Value::as_str).unwrap_or_default();
        (self.object.clone(), why.to_owned())
    }
}

/// Who was refused which action.
type Name = (&'static str, String);
/// What was refused, and why.
type Thing = (String, String);
/// What of one of them is counted together: the last one for each thing, and how many have come after the one that is written.
type Things = BTreeMap<Thing, (Refused, u64)>;

/// What is not written yet, of the period that runs.
#[derive(Debug, Default)]
struct Ledger {
    began_at: DateTime<Utc>,
    counted: BTreeMap<Name, Things>,
    /// How many entries this day has had.
    day: (i64, u32),
}

impl Ledger {
    fn period(&self) -> TimeDelta {
        if self.day.1 < DAY_ENTRIES_MANY { TimeDelta::minutes(1) } else { TimeDelta::hours(1) }
    }

    /// What is to be written of a period that is over.
    fn close(&mut self, now: DateTime<Utc>, is_last: bool) -> Vec<AuditEntry> {
        // A clock that was set back must not make a period endless.
        let runs = now >= self.began_at && now - self.began_at < self.period();
        if runs && !is_last {
            return Vec::new();
        }
        self.began_at = now;
        let counted = std::mem::take(&mut self.counted);
        let due = counted.into_values().flat_map(Things::into_values).filter(|(_, times)| *times > 0);
        let due: Vec<AuditEntry> = due.map(|(refused, times)| refused.entry(now, times)).collect();
        self.count(now, due.len());
        due
    }

    /// Takes one in, and says what is to be written now.
    fn note(&mut self, mut refused: Refused, now: DateTime<Utc>) -> Vec<AuditEntry> {
        let mut due = self.close(now, false);
        if self.counted.len() >= NAMES_MAX && !self.counted.contains_key(&refused.name()) {
            refused.who = OTHERS.to_owned();
        }
        let things = self.counted.entry(refused.name()).or_default();
        let mut thing = refused.thing();
        if things.len() >= THINGS_MAX && !things.contains_key(&thing) {
            refused.object = OTHERS.to_owned();
            thing = (OTHERS.to_owned(), String::new());
        }
        if let Some((last, times)) = things.get_mut(&thing) {
            *last = refused;
            *times += 1;
            return due;
        }
        due.push(refused.entry(now, 1));
        things.insert(thing, (refused, 0));
        self.count(now, 1);
        due
    }

    /// What this user is called in the period that runs, where that needs no look-up.
    fn name_of(&self, uid: u32) -> Option<String> {
        let of = |refused: &&Refused| refused.body.get("uid") == Some(&json!(uid));
        let known = self.counted.values().flat_map(Things::values).map(|(last, _)| last).find(of);
        let is_full = self.counted.len() >= NAMES_MAX;
        known.map(|known| known.who.clone()).or_else(|| is_full.then(|| OTHERS.to_owned()))
    }

    fn count(&mut self, now: DateTime<Utc>, entries: usize) {
        let today = now.timestamp().div_euclid(24 * 60 * 60);
        if self.day.0 != today {
            self.day = (today, 0);
        }
        self.day.1 = self.day.1.saturating_add(u32::try_from(entries).unwrap_or(u32::MAX));
    }
}

/// Those who were refused, and how often.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Ledger>);

impl Refusals {
    fn with<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Control {
    /// Notes that somebody was refused what they `asked`: for lack of rights, or because the state of things forbids it.
    /// An error of any other kind is no refusal, and is not noted.
    pub async fn note_refusal(&self, caller: &Caller, asked: &str, error: &ErrorView) {
        if !matches!(error.kind, ErrorKind::NotPermitted | ErrorKind::Refused) {
            return;
        }
        let body = [("kind", json!(error.kind)), ("why", json!(bounded(&error.message)))];
        let body = body.map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
        let (who, object) = (bounded(&caller.who), bounded(asked));
        self.note_refused(Refused { who, via: caller.via, action: ACTION, object, body }).await;
    }

    /// Notes what was refused elsewhere than to an operator's command.
    pub(super) async fn note_refused(&self, refused: Refused) {
        let due = self.refusals.with(|ledger| ledger.note(refused, self.now()));
        self.write_refusals(due).await;
    }

    /// What a user is called in an entry. Asks the system's databases once in a period, however often somebody is refused.
    pub(super) async fn refused_name(&self, uid: u32) -> String {
        match self.refusals.with(|ledger| ledger.name_of(uid)) {
            Some(name) => name,
            None => tokio::task::spawn_blocking(move || user_name(uid)).await.unwrap_or_else(|_| uid.to_string()),
        }
    }

    /// Writes what was counted in a period that is over; with `is_last` also of one that runs.
    pub async fn close_refusals(&self, is_last: bool) {
        let due = self.refusals.with(|ledger| ledger.close(self.now(), is_last));
        self.write_refusals(due).await;
    }

    async fn write_refusals(&self, due: Vec<AuditEntry>) {
        for entry in due {
            // It stays refused, whether or not that can be written down.
            if let Err(error) = self.store.audit(entry).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a refusal cannot be written into the history"
                );
            }
        }
    }
}

fn bounded(text: &str) -> String {
    one_line(text).chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(who: &str) -> Refused {
        let object = "GET /v1/status".to_owned();
        Refused { who: who.to_owned(), via: "socket", action: ACTION, object, body: Map::new() }
    }

    fn at(secs: i64) -> DateTime<Utc> {
        "2026-12-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(secs)
    }

    fn said(entries: &[AuditEntry]) -> Vec<(String, u64)> {
        entries.iter().map(|entry| (entry.who.clone(), entry.body["times"].as_u64().unwrap())).collect()
    }

    #[test]
    fn the_first_is_written_at_once_and_the_rest_of_its_minute_once() {
        let mut ledger = Ledger::default();
        assert_eq!(said(&ledger.note(refused("bert"), at(0))), [("bert".to_owned(), 1)]);
        for _ in 0..1000 {
            assert_eq!(ledger.note(refused("bert"), at(59)), []);
        }
        assert_eq!(said(&ledger.note(refused("carl"), at(59))), [("carl".to_owned(), 1)]);
        assert_eq!(ledger.close(at(59), false), []);
        assert_eq!(said(&ledger.close(at(60), false)), [("bert".to_owned(), 1000)], "carl's stands there already");
        assert_eq!(said(&ledger.note(refused("bert"), at(61))), [("bert".to_owned(), 1)]);
        assert_eq!(ledger.note(refused("bert"), at(62)), []);
        assert_eq!(said(&ledger.close(at(62), true)), [("bert".to_owned(), 1)], "the daemon stops");
        assert_eq!(said(&ledger.note(refused("bert"), at(-500))), [("bert".to_owned(), 1)], "the clock was set back");
    }

    #[test]
    fn each_thing_that_is_refused_has_its_own_entry_up_to_a_bound() {
        let mut ledger = Ledger::default();
        let of = |object: &str| Refused { object: object.to_owned(), ..refused("bert") };
        for object in ["open", "close", "open"] {
            ledger.note(of(object), at(0));
        }
        for number in 0..1000 {
            ledger.note(of(&number.to_string()), at(1));
        }
        let due = ledger.close(at(60), false);
        let told: Vec<_> = due.iter().map(|entry| (entry.object.as_str(), &entry.body["times"])).collect();
        assert_eq!(told, [(OTHERS, &json!(997)), ("open", &json!(1))]);
        assert_eq!(ledger.note(refused("carl"), at(61)).len(), 1, "others are not crowded out");
    }

    #[test]
    fn nobody_who_is_refused_again_is_looked_up_again() {
        let mut ledger = Ledger::default();
        let of = |uid: u32| {
            let body = [("uid".to_owned(), json!(uid))].into_iter().collect();
            Refused { body, ..refused(&format!("user-{uid}")) }
        };
        assert_eq!(ledger.name_of(7), None);
        ledger.note(of(7), at(0));
        assert_eq!(ledger.name_of(7).as_deref(), Some("user-7"));
        for uid in 100..200 {
            ledger.note(of(uid), at(0));
        }
        assert_eq!(ledger.name_of(1000).as_deref(), Some(OTHERS));
    }

    #[test]
    fn a_day_of_refusals_by_everybody_stays_bounded() {
        let mut ledger = Ledger::default();
        let mut written = 0;
        for secs in 0..24 * 60 * 60 {
            for who in 0..40 {
                written += ledger.note(refused(&format!("user-{who}-{secs}")), at(secs)).len();
            }
        }
        assert!((500..2000).contains(&written), "{written}");
    }
}
