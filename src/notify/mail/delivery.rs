//! One mail for several recipients: what comes of it for each.
//!
//! They are named in one transaction. Whom the server turns away stays out of it, and the others get the mail. Where it
//! takes the mail for nobody, and one of them may be the reason (it hangs or hangs up while they are named, or says no
//! to the content), each of the others is tried alone.
//!
//! *Invariant:* whoever may have the mail is not tried again here: after the content has gone out and no answer came
//! back, only another day's try sends it again, under the same `Message-ID`.

use std::collections::VecDeque;
use std::sync::Arc;

use lettre::message::Mailbox;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::Data;
use lettre::transport::smtp::commands::Mail as MailFrom;
use lettre::transport::smtp::commands::Rcpt;
use lettre::transport::smtp::commands::Rset;
use lettre::transport::smtp::extension::Extension;
use lettre::transport::smtp::extension::MailParameter;

use crate::notify::mail::Answer;
use crate::notify::mail::Mail;
use crate::notify::mail::MailError;
use crate::notify::mail::Mailer;
use crate::notify::mail::Phase;
use crate::notify::mail::mailbox;
use crate::notify::mail::one_line;

/// After so many lost connections the rest is left for another try.
const LOST_MAX: u32 = 3;

/// What came of a mail for one recipient: the server's answer when it took it, or why it did not.
pub type Outcome = Result<Answer, Arc<MailError>>;

/// Somebody to get the mail.
struct Recipient {
    /// As it is configured.
    text: String,
    mailbox: Mailbox,
}

/// A try whose outcome is the same for everybody who is left in it.
struct Joint {
    error: MailError,
    left: Vec<Recipient>,
}

impl Mailer {
    /// Hands `mail` over to the server for `to`, who are some or all of its recipients; what came of it for each.
    ///
    /// Whoever has an answer is the server's concern now. For the others see [`MailError::is_permanent`]. Dropping the
    /// future may leave the mail sent or not sent.
    pub async fn send(&self, mail: &Mail, to: &[String], message_id: &str) -> Vec<(String, Outcome)> {
        let mut outcomes = Vec::new();
        let mut all = Vec::new();
        for text in to {
            match mailbox(text) {
                Ok(mailbox) => all.push(Recipient { text: text.clone(), mailbox }),
                Err(error) => outcomes.push((text.clone(), Err(Arc::new(error)))),
            }
        }
        let mut parts = VecDeque::from([all]);
        let (mut connection, mut lost) = (None, 0);
        while let Some(part) = parts.pop_front().filter(|part| !part.is_empty()) {
            let tried = match connection.take() {
                Some(open) => Ok(open),
                None => self.connect().await,
            };
            let mut open = match tried {
                Ok(open) => open,
                Err(error) => {
                    let left = part.into_iter().chain(parts.drain(..).flatten());
                    outcomes.extend(failed(error, left));
                    break;
                }
            };
            let Err(Joint { error, left }) = self.hand_over(&mut open, mail, part, message_id, &mut outcomes).await
            else {
                connection = Some(open);
                continue;
            };
            if error.ends_connection() {
                lost += 1;
            } else if self.within(Phase::Sender, open.command(Rset)).await.is_ok() {
                connection = Some(open);
            }
            if left.len() > 1 && error.may_be_one_recipients() {
                parts.extend(left.into_iter().map(|recipient| vec![recipient]));
            } else if lost < LOST_MAX {
                outcomes.extend(failed(error, left));
            } else {
                outcomes.extend(failed(error, left.into_iter().chain(parts.drain(..).flatten())));
            }
        }
        // The mail's fate is decided and must be noted at once: dying before that sends it again.
        connection.into_iter().for_each(|connection| self.leave(connection));
        outcomes
    }

    /// Hands over a mail with one recipient.
    pub async fn send_to_one(&self, mail: &Mail, message_id: &str) -> Outcome {
        let tried = self.send(mail, &mail.to, message_id).await;
        let nobody = || Err(Arc::new(self.lost(Phase::Announce, "the mail has no recipient".to_owned())));
        tried.into_iter().next().map_or_else(nobody, |(_, outcome)| outcome)
    }

    /// One transaction. Whoever has an outcome of their own is in `outcomes` then.
    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        mail: &Mail,
        part: Vec<Recipient>,
        message_id: &str,
        outcomes: &mut Vec<(String, Outcome)>,
    ) -> Result<(), Joint> {
        let takes_all = connection.server_info().supports_feature(Extension::SmtpUtfEight);
        let (part, strange): (Vec<_>, Vec<_>) =
            part.into_iter().partition(|recipient| takes_all || is_ascii(&recipient.mailbox));
        for Recipient { text, mailbox } in strange {
            let error = MailError::AddressNotAscii { address: mailbox.email.to_string(), server: self.server() };
            outcomes.push((text, Err(Arc::new(error))));
        }
        if part.is_empty() {
            return Ok(());
        }
        // An address that the server cannot take must not stand in the mail of those whose addresses it can.
        let header = mail.to.iter().filter_map(|text| mailbox(text).ok()).filter(|to| takes_all || is_ascii(to));
        let content = match self.compose(mail, &header.collect::<Vec<_>>(), message_id) {
            Ok(content) => content,
            Err(error) => return Err(Joint { error, left: part }),
        };
        let named: Vec<&Mailbox> = part.iter().map(|recipient| &recipient.mailbox).collect();
        if let Err(error) = self.name_sender(connection, &named).await {
            return Err(Joint { error, left: part });
        }
        let taken = self.name_recipients(connection, part, outcomes).await?;
        if taken.is_empty() {
            // Nothing is under way that must be undone: the next transaction begins with its own sender.
            return match self.within(Phase::Announce, connection.command(Rset)).await {
                Ok(_) => Ok(()),
                Err(error) => Err(Joint { error, left: taken }),
            };
        }
        match self.content(connection, &content).await {
            Ok(answer) => {
                outcomes.extend(taken.into_iter().map(|recipient| (recipient.text, Ok(answer.clone()))));
                Ok(())
            }
            Err(error) => Err(Joint { error, left: taken }),
        }
    }

    /// MAIL, for a mail to these recipients.
    pub(super) async fn name_sender(
        &self,
        connection: &mut AsyncSmtpConnection,
        recipients: &[&Mailbox],
    ) -> Result<(), MailError> {
        let mut parameters = Vec::new();
        if recipients.iter().chain([&&self.from]).any(|mailbox| !is_ascii(mailbox)) {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(MailError::AddressNotAscii { address: self.from.email.to_string(), server: self.server() });
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        let from = MailFrom::new(Some(self.from.email.clone()), parameters);
        self.within(Phase::Sender, connection.command(from)).await.map(drop)
    }

    /// RCPT for each; who is left is taken. Where the connection ends, everybody without an outcome is left in the error.
    async fn name_recipients(
        &self,
        connection: &mut AsyncSmtpConnection,
        part: Vec<Recipient>,
        outcomes: &mut Vec<(String, Outcome)>,
    ) -> Result<Vec<Recipient>, Joint> {
        let mut taken = Vec::new();
        let mut part = part.into_iter();
        while let Some(recipient) = part.next() {
            let rcpt = Rcpt::new(recipient.mailbox.email.clone(), vec![]);
            match self.within(Phase::Announce, connection.command(rcpt)).await {
                Ok(_) => taken.push(recipient),
                Err(MailError::Refused { answer, server, phase }) => {
                    let closing = MailError::Refused { phase, server: server.clone(), answer: answer.clone() };
                    if closing.ends_connection() {
                        let left = taken.into_iter().chain([recipient]).chain(part).collect();
                        return Err(Joint { error: closing, left });
                    }
                    let error = MailError::Recipient { to: recipient.mailbox.email.to_string(), server, answer };
                    outcomes.push((recipient.text, Err(Arc::new(error))));
                }
                Err(error) => {
                    let left = taken.into_iter().chain([recipient]).chain(part).collect();
                    return Err(Joint { error, left });
                }
            }
        }
        Ok(taken)
    }

    /// DATA and the content; what the server answered to it.
    async fn content(&self, connection: &mut AsyncSmtpConnection, content: &[u8]) -> Result<Answer, MailError> {
        self.within(Phase::HandOver, connection.command(Data)).await?;
        let taken = self.within(Phase::HandOver, connection.message(content)).await?;
        let text = taken.message().collect::<Vec<_>>().join(" ");
        Ok(Answer { code: taken.code().into(), text: one_line(&text) })
    }
}

fn failed(error: MailError, left: impl IntoIterator<Item = Recipient>) -> impl Iterator<Item = (String, Outcome)> {
    let error = Arc::new(error);
    left.into_iter().map(move |recipient| (recipient.text, Err(Arc::clone(&error))))
}

fn is_ascii(mailbox: &Mailbox) -> bool {
    AsRef::<str>::as_ref(&mailbox.email).is_ascii()
}
