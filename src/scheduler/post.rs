//! Sends what the outbox owes.
//!
//! A mail is sent, then noted as sent: dying in between sends it twice under the same message id, which
//! mail programs show once. Never sending it is not an option. Each recipient has an outcome of their own, and only
//! those who do not have it yet are tried again.
//!
//! Invariants: within one process a mail is in one pair of hands at a time. Whoever stops the process does not wait for
//! a mail server: what it has not answered to is tried by the next one.

use std::sync::Arc;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::db::outbox::DueMail;
use crate::db::outbox::SendResult;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::clock::Clock;
use crate::domain::failure::Failure;
use crate::domain::span::Span;
use crate::notify::mail::Mail;
use crate::notify::mail::Mailer;
use crate::notify::mail::Outcome;

/// How often a mail is tried before it is given up: with doubling pauses about two days.
const ATTEMPTS_MAX: u32 = 16;
/// The pause after the first failure; it doubles up to [`PAUSE_MAX`].
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(15);
/// The longest pause between two tries.
const PAUSE_MAX: TimeDelta = TimeDelta::hours(4);
/// How long a server may still take for its answer when the process stops.
const STOP_WAIT: Span = Span::secs(3);

/// Sends mails.
pub struct PostOffice {
    /// Where they are owed.
    pub store: Store,
    /// Who sends them; nobody when mail is not configured.
    pub mailer: Option<Mailer>,
    /// Why nobody sends them although mail is configured: they wait.
    pub unfit: Option<String>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Held while mails are sent: whoever else comes meanwhile must not send them again.
    pub counter: tokio::sync::Mutex<()>,
    /// Tells that the process stops.
    pub stop: CancellationToken,
}

impl PostOffice {
    /// Tries every mail that is due, once.
    ///
    /// # Errors
    /// The store fails; a mail that cannot be sent is not an error here, it is noted.
    pub async fn deliver(&self) -> Result<(), StoreError> {
        let _alone = tokio::select! {
            alone = self.counter.lock() => alone,
            () = self.stop.cancelled() => return Ok(()),
        };
        while !self.stop.is_cancelled()
            && let Some(due) = self.store.next_due_mail(self.clock.now()).await?
        {
            let Some(tried) = self.unless_stopped(self.try_one(&due)).await else { return Ok(()) };
            let now = self.clock.now();
            let next_at = next_try(due.attempts, now);
            for (to, result) in &tried {
                tell(&due, to, result, next_at);
            }
            self.store.note_mail(due.id, tried, now, next_at).await?;
        }
        Ok(())
    }

    /// The result of work that waits for a mail server; nothing when the process stops before there is one.
    pub async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = self.stop.cancelled() => {}
        }
        tokio::time::timeout(STOP_WAIT.duration(), work).await.ok()
    }

    async fn try_one(&self, due: &DueMail) -> Vec<(String, SendResult)> {
        let mail = &due.mail;
        let Some(mailer) = &self.mailer else {
            if let Some(why) = &self.unfit {
                let later = |to: &String| (to.clone(), SendResult::Later { error: why.clone() });
                return due.pending.iter().map(later).collect();
            }
            let error = "mail is not configured: [daemon] mail";
            return due.pending.iter().map(|to| (to.clone(), SendResult::Dead { error: error.to_owned() })).collect();
        };
        let message = Mail { to: mail.to.clone(), subject: mail.subject.clone(), text: mail.text.clone() };
        let id = mailer.message_id(&mail.unique.to_string());
        let outcomes = mailer.send(&message, &due.pending, &id).await;
        outcomes.into_iter().map(|(to, outcome)| (to, result(outcome, due.attempts + 1))).collect()
    }
}

/// Sends a mail that says nothing but that it came, asked for by `who`.
pub async fn send_test(mailer: &Mailer, to: &str, who: &str) -> Outcome {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mail = Mail {
        to: vec![to.to_owned()],
        subject: format!("Afterhours on {host}: a test mail"),
        text: format!("If you read this, the reports of Afterhours on {host} reach you.\n{who} asked for this mail.\n"),
    };
    mailer.hurried().send_to_one(&mail, &mailer.message_id(&Uuid::now_v7().to_string())).await
}

/// What is noted of a try, the `attempt`th.
fn result(outcome: Outcome, attempt: u32) -> SendResult {
    match outcome {
        Ok(answer) => SendResult::Sent { said: answer.to_string() },
        Err(error) => {
            let text = Failure::from_error(&*error).to_string();
            if error.is_permanent() {
                SendResult::Dead { error: text }
            } else if attempt >= ATTEMPTS_MAX {
                SendResult::Dead { error: format!("given up after {attempt} tries; the last failed to {text}") }
            } else {
                SendResult::Later { error: text }
            }
        }
    }
}

/// When a mail is tried again that was tried so often before.
fn next_try(before: u32, now: DateTime<Utc>) -> DateTime<Utc> {
    now + (FIRST_PAUSE * 2_i32.saturating_pow(before.min(20))).min(PAUSE_MAX)
}

/// One line in the log for each recipient.
fn tell(due: &DueMail, to: &str, result: &SendResult, next_at: DateTime<Utc>) {
    let mail = &due.mail.message_id;
    match result {
        SendResult::Sent { said } => tracing::info!(mail, said, "a mail was sent"),
        SendResult::Later { error } => tracing::warn!(mail, to, %next_at, error, "a mail could not be sent yet"),
        SendResult::Dead { error } => tracing::error!(mail, to, error, "a mail is given up"),
    }
}
