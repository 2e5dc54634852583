//! The table `outbox`: mails that are owed.
//!
//! A mail is put here in one transaction and sent by a chore; its message id makes a second put of the
//! same mail a no-op, and lets a receiver recognise one that was sent twice because we died between
//! sending it and noting so.

use chrono::DateTime;
use chrono::Utc;
use rusqlite::OptionalExtension;
use serde::Deserialize;
use serde::Serialize;
use uuid::Uuid;

use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::db::store::from_json;
use crate::db::store::to_json;
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
}

/// What came of trying to send a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendResult {
    /// The server has it.
    Sent,
    /// Not yet; again at this instant.
    Later {
        /// When.
        next_at: DateTime<Utc>,
        /// Why.
        error: String,
    },
    /// Never; it is kept for a person to see.
    Dead {
        /// Why.
        error: String,
    },
}

/// How many mails are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutboxCounts {
    /// To be sent.
    pub pending: u32,
    /// The server has them.
    pub sent: u32,
    /// Given up.
    pub dead: u32,
}

impl Store {
    /// Owes a mail; nothing happens when the same one was put before.
    ///
    /// # Errors
    /// The store fails.
    pub async fn owe_mail(&self, mail: OwedMail, now: DateTime<Utc>) -> Result<(), StoreError> {
        self.write(move |tx| {
            tx.execute(
                "INSERT INTO outbox (message_id, run, body, state, next_at) VALUES (?1, ?2, ?3, 'pending', ?4)
                 ON CONFLICT (message_id) DO NOTHING",
                (&mail.message_id, mail.run.map(|run| run.0), to_json("a mail", &mail)?, now),
            )?;
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
            row.map(|(id, attempts, body)| {
                Ok(DueMail { id, attempts, mail: from_json(|| format!("mail {id}"), &body)? })
            })
            .transpose()
        })
        .await
    }

    /// Notes what came of trying.
    ///
    /// # Errors
    /// The store fails.
    pub async fn note_mail(&self, id: i64, result: SendResult) -> Result<(), StoreError> {
        self.write(move |tx| {
            let (state, next_at, error) = match result {
                SendResult::Sent => ("sent", None, None),
                SendResult::Later { next_at, error } => ("pending", Some(next_at), Some(error)),
                SendResult::Dead { error } => ("dead", None, Some(error)),
            };
            tx.execute(
                "UPDATE outbox SET state = ?2, next_at = ?3, last_error = ?4, attempts = attempts + 1 WHERE id = ?1",
                (id, state, next_at, error),
            )?;
            Ok(())
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
