//! The tables `outbox` and `outbox_recipients`: mails that are owed, and to whom still.
//!
//! A mail is put here in one transaction and sent by a chore; its message id makes a second put of the
//! same mail a no-op, and lets a receiver recognise one that was sent twice because we died between
//! sending it and noting so. Each recipient has an outcome of their own; a mail is pending as long as one of them is.

use chrono::DateTime;
use chrono::Utc;
use rusqlite::OptionalExtension;
use rusqlite::Row;
use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::from_json;
use crate::db::store::to_json;
use crate::domain::letter::Letter;
use crate::domain::letter::LetterState;
use crate::domain::run::RunId;

/// A mail that is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedMail {
    /// Makes it one of a kind, as `run-12.report`.
    pub message_id: String,
    /// One of a kind over all stores of a site; the same in every try.
    pub unique: Uuid,
    /// The run it reports.
    pub run: Option<RunId>,
    /// The addresses.
    pub to: Vec<String>,
    /// The subject.
    pub subject: String,
    /// The text.
    pub text: String,
}

/// A mail that is due to be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueMail {
    /// Its place in the outbox.
    pub id: i64,
    /// How often it was tried.
    pub attempts: u32,
    /// The mail.
    pub mail: OwedMail,
    /// Who does not have it yet, and has not been given up.
    pub pending: Vec<String>,
}

/// What came of trying to send a mail to one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendResult {
    /// The server has it.
    Sent {
        /// What it said.
        said: String,
    },
    /// Not yet; again when the mail is due again.
    Later {
        /// Why.
        error: String,
    },
    /// Never; it is kept for a person to see.
    Dead {
        /// Why.
        error: String,
    },
}

impl SendResult {
    const fn state(&self) -> LetterState {
        match self {
            Self::Sent { .. } => LetterState::Sent,
            Self::Later { .. } => LetterState::Pending,
            Self::Dead { .. } => LetterState::Dead,
        }
    }

    fn said(&self) -> &str {
        match self {
            Self::Sent { said } => said,
            Self::Later { error } | Self::Dead { error } => error,
        }
    }
}

/// A row of a mail and one of its recipients.
fn letter(row: &Row<'_>) -> rusqlite::Result<Letter> {
    let name: String = row.get("state")?;
    // The table admits nothing else.
    let state = LetterState::ALL.into_iter().find(|state| state.name() == name).unwrap_or(LetterState::Dead);
    Ok(Letter {
        run: row.get::<_, Option<i64>>("run")?.map(RunId),
        subject: row.get::<_, Option<String>>("subject")?.unwrap_or_default(),
        to: row.get("address")?,
        state,
        attempts: row.get("attempts")?,
        tried_at: row.get("at")?,
        next_at: row.get::<_, Option<_>>("next_at")?.filter(|_| state == LetterState::Pending),
        said: row.get("said")?,
    })
}

/// How many mails are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutboxCounts {
    /// To be sent, to somebody at least.
    pub pending: u32,
    /// The server has them for everybody.
    pub sent: u32,
    /// Given up for somebody, or for nobody in the first place.
    pub dead: u32,
}

impl Store {
    /// Owes a mail; nothing happens when the same one was put before.
    ///
    /// # Errors
    /// The store fails.
    pub async fn owe_mail(&self, mail: OwedMail, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.write(move |tx| {
            let put = tx.execute(
                "INSERT INTO outbox (message_id, run, body, state, next_at) VALUES (?1, ?2, ?3, 'pending', ?4)
                 ON CONFLICT (message_id) DO NOTHING",
                (&mail.message_id, mail.run.map(|run| run.0), to_json("a mail", &mail)?, now),
            )?;
            let id = tx.last_insert_rowid();
            for to in mail.to.iter().filter(|_| put > 0) {
                tx.prepare_cached(
                    "INSERT INTO outbox_recipients (mail, address, state) VALUES (?1, ?2, 'pending')
                     ON CONFLICT (mail, address) DO NOTHING",
                )?
                .execute((id, to))?;
            }
            Ok(())
        })
        .await
    }

    /// The next mail to try, if one is due.
    ///
    /// # Errors
    /// The store fails.
    pub async fn next_due_mail(&self, now: DateTime<Utc>) -> Result<Option<DueMail>, StoreError> {
        self.read(move |tx| {
            let row: Option<(i64, u32, String)> = tx
                .prepare_cached(
                    "SELECT id, attempts, body FROM outbox WHERE state = 'pending' AND next_at <= ?1 ORDER BY next_at LIMIT 1",
                )?
                .query_row([now], |row| Ok((row.get("id")?, row.get("attempts")?, row.get("body")?)))
                .optional()?;
            let Some((id, attempts, body)) = row else { return Ok(None) };
            let mut pending = tx.prepare_cached(
                "SELECT address FROM outbox_recipients WHERE mail = ?1 AND state = 'pending' ORDER BY address",
            )?;
            let pending = pending.query_map([id], |row| row.get("address"))?.collect::<Result<_, _>>()?;
            Ok(Some(DueMail { id, attempts, mail: from_json(|| format!("mail {id}"), &body)?, pending }))
        })
        .await
    }

    /// Notes what came of trying at `now`, for each who was tried. Whoever is left is tried again at `next_at`.
    ///
    /// # Errors
    /// The store fails.
    pub async fn note_mail(
        &self,
        id: i64,
        tried: Vec<(String, SendResult)>,
        now: DateTime<Utc>,
        next_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        self.write(move |tx| {
            for (to, result) in &tried {
                tx.prepare_cached(
                    "UPDATE outbox_recipients SET state = ?3, at = ?4, said = ?5 WHERE mail = ?1 AND address = ?2",
                )?
                .execute((id, to, result.state().name(), now, result.said()))?;
            }
            let count = |state: LetterState| {
                tx.prepare_cached("SELECT count(*) FROM outbox_recipients WHERE mail = ?1 AND state = ?2")?
                    .query_row((id, state.name()), |row| row.get::<_, u32>(0))
            };
            let (pending, sent, dead) =
                (count(LetterState::Pending)?, count(LetterState::Sent)?, count(LetterState::Dead)?);
            let state = match (pending, sent, dead) {
                (1.., ..) => LetterState::Pending,
                (0, 1.., 0) => LetterState::Sent,
                _ => LetterState::Dead,
            };
            let next_at = Some(next_at).filter(|_| state == LetterState::Pending);
            let error = tried.iter().rev().find(|(_, result)| result.state() != LetterState::Sent);
            tx.execute(
                "UPDATE outbox SET state = ?2, next_at = ?3, last_error = ?4, attempts = attempts + 1 WHERE id = ?1",
                (id, state.name(), next_at, error.map(|(_, result)| result.said())),
            )?;
            Ok(())
        })
        .await
    }

    /// Whatever is still to be sent is due now: what kept it may have been mended.
    ///
    /// # Errors
    /// The store fails.
    pub async fn hurry_mails(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute("UPDATE outbox SET next_at = ?1 WHERE state = 'pending' AND next_at > ?1", [now])?;
            Ok(())
        })
        .await
    }

    /// Who does not have a mail: those that are tried again, and those that were given up after `given_up_since`; the
    /// newest mails first, at most `max`.
    ///
    /// # Errors
    /// The store fails.
    pub async fn unsent_letters(&self, given_up_since: DateTime<Utc>, max: u32) -> Result<Vec<Letter>, StoreError> {
        self.read(move |tx| {
            let mut rows = tx.prepare_cached(
                "SELECT run, body ->> '$.subject' AS subject, address, letter.state, attempts, letter.at, next_at, said
                 FROM outbox_recipients AS letter JOIN outbox ON outbox.id = letter.mail
                 WHERE letter.state <> 'sent' AND (letter.state = 'pending' OR letter.at >= ?1)
                 ORDER BY letter.mail DESC, address LIMIT ?2",
            )?;
            Ok(rows.query_map((given_up_since, max), letter)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// How the report of a run stands with each of its recipients.
    ///
    /// # Errors
    /// The store fails.
    pub async fn letters_of_run(&self, run: RunId) -> Result<Vec<Letter>, StoreError> {
        self.read(move |tx| {
            let mut rows = tx.prepare_cached(
                "SELECT run, body ->> '$.subject' AS subject, address, letter.state, attempts, letter.at, next_at, said
                 FROM outbox_recipients AS letter JOIN outbox ON outbox.id = letter.mail
                 WHERE run = ?1 ORDER BY letter.mail, address",
            )?;
            Ok(rows.query_map([run.0], letter)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The mails that report a run, whatever became of them.
    ///
    /// # Errors
    /// The store fails.
    pub async fn mails_of_run(&self, run: RunId) -> Result<Vec<OwedMail>, StoreError> {
        self.read(move |tx| {
            let mut rows = tx.prepare_cached("SELECT id, body FROM outbox WHERE run = ?1 ORDER BY id")?;
            let rows = rows.query_map([run.0], |row| Ok((row.get::<_, i64>("id")?, row.get::<_, String>("body")?)))?;
            rows.map(|row| {
                row.map_err(StoreError::from).and_then(|(id, body)| from_json(|| format!("mail {id}"), &body))
            })
            .collect()
        })
        .await
    }

    /// How many mails are in which state, of one run or of all.
    ///
    /// # Errors
    /// The store fails.
    pub async fn outbox_counts(&self, run: Option<RunId>) -> Result<OutboxCounts, StoreError> {
        self.read(move |tx| {
            let count = |state: &str| {
                tx.prepare_cached("SELECT count(*) FROM outbox WHERE state = ?1 AND (?2 IS NULL OR run = ?2)")?
                    .query_row((state, run.map(|run| run.0)), |row| row.get::<_, u32>(0))
            };
            Ok(OutboxCounts { pending: count("pending")?, sent: count("sent")?, dead: count("dead")? })
        })
        .await
    }
}
