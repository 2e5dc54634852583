//! Sends what the outbox owes.
//!
//! A mail is sent, then noted as sent: dying in between sends it twice under the same message id, which
//! mail programs show once. Never sending it is not an option.
//!
//! Invariant: within one process a mail is in one pair of hands at a time.

use std::sync::Arc;

use chrono::TimeDelta;

use crate::db::outbox::DueMail;
use crate::db::outbox::SendResult;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::clock::Clock;
use crate::notify::mail::Mail;
use crate::notify::mail::Mailer;

/// How often a mail is tried before it is given up: with doubling pauses about two days.
const ATTEMPTS_MAX: u32 = 16;
/// The pause after the first failure; it doubles up to [`PAUSE_MAX`].
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(15);
/// The longest pause between two tries.
const PAUSE_MAX: TimeDelta = TimeDelta::hours(4);

/// Sends mails.
pub struct PostOffice {
    /// Where they are owed.
    pub store: Store,
    /// Who sends them; nobody when mail is not configured.
    pub mailer: Option<Mailer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Held while mails are sent: whoever else comes meanwhile must not send them again.
    pub counter: tokio::sync::Mutex<()>,
}

impl PostOffice {
    /// Tries every mail that is due, once.
    ///
    /// # Errors
    /// The store fails; a mail that cannot be sent is not an error here, it is noted.
    pub async fn deliver(&self) -> Result<(), StoreError> {
        let _alone = self.counter.lock().await;
        while let Some(due) = self.store.next_due_mail(self.clock.now()).await? {
            let result = self.try_one(&due).await;
            match &result {
                SendResult::Dead { .. } if self.mailer.is_none() || due.mail.to.is_empty() => {
                    tracing::info!(mail = due.mail.message_id, "nobody is configured to get a mail");
                }
                SendResult::Sent => tracing::info!(mail = due.mail.message_id, "a mail was sent"),
                SendResult::Later { next_at, error } => {
                    tracing::warn!(mail = due.mail.message_id, %next_at, error, "a mail could not be sent yet");
                }
                SendResult::Dead { error } => {
                    tracing::error!(mail = due.mail.message_id, error, "a mail is given up");
                }
            }
            self.store.note_mail(due.id, result).await?;
        }
        Ok(())
    }

    async fn try_one(&self, due: &DueMail) -> SendResult {
        let mail = &due.mail;
        let Some(mailer) = &self.mailer else {
            return SendResult::Dead { error: "mail is not configured: [daemon] mail".to_owned() };
        };
        if mail.to.is_empty() {
            return SendResult::Dead { error: "nobody is configured to get it: report = { group = [..] }".to_owned() };
        }
        let message = Mail { to: mail.to.clone(), subject: mail.subject.clone(), text: mail.text.clone() };
        let id = mailer.message_id(&mail.unique.to_string());
        match mailer.send(&message, &id).await {
            Ok(()) => SendResult::Sent,
            Err(error) => {
                let text = crate::domain::failure::Failure::from_error(&error).to_string();
                if error.is_permanent() || due.attempts + 1 >= ATTEMPTS_MAX {
                    return SendResult::Dead { error: text };
                }
                let pause = FIRST_PAUSE * 2_i32.saturating_pow(due.attempts.min(20));
                SendResult::Later { next_at: self.clock.now() + pause.min(PAUSE_MAX), error: text }
            }
        }
    }
}
