//! Refused attempts in the history: commands and log-ins, and never so many that a stranger could fill the store.
//!
//! The first refusal of somebody within a minute is written at once; those that follow are counted, and stand in one entry
//! when the minute is over. Somebody with very many names counts as one after the first few. Once a day has had many
//! entries, its periods are hours.
//!
//! *Invariant:* what is written in a day is bounded by [`DAY_ENTRIES_MANY`] and 24 hours of [`NAMES_MAX`] names.

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
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// How many names have entries of their own in a period.
const NAMES_MAX: usize = 16;
/// Whoever comes after them.
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

    fn key(&self) -> Key {
        (self.action, self.who.clone())
    }
}

/// What is counted together: the action, and who was refused it.
type Key = (&'static str, String);

/// What is not written yet, of the period that runs.
#[derive(Debug, Default)]
struct Ledger {
    began_at: DateTime<Utc>,
    /// The last one of each, and how many have come after the one that is written.
    counted: BTreeMap<Key, (Refused, u64)>,
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
        let due = counted.into_values().filter(|(_, times)| *times > 0);
        let due: Vec<AuditEntry> = due.map(|(refused, times)| refused.entry(now, times)).collect();
        self.count(now, due.len());
        due
    }

    /// Takes one in, and says what is to be written now.
    fn note(&mut self, mut refused: Refused, now: DateTime<Utc>) -> Vec<AuditEntry> {
        let mut due = self.close(now, false);
        if self.counted.len() >= NAMES_MAX && !self.counted.contains_key(&refused.key()) {
            refused.who = OTHERS.to_owned();
        }
        if let Some((last, times)) = self.counted.get_mut(&refused.key()) {
            *last = refused;
            *times += 1;
            return due;
        }
        due.push(refused.entry(now, 1));
        self.counted.insert(refused.key(), (refused, 0));
        self.count(now, 1);
        due
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
