//! Mails to operators, on the wire.

use serde::Deserialize;
use serde::Serialize;

/// Asks for a mail that says nothing but that it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestMail {
    /// Whom to send it to.
    pub to: String,
}

/// A mail that a server has taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailedView {
    /// Who gets it.
    pub to: String,
    /// The mail server.
    pub server: String,
    /// What it said when it took the mail.
    pub answer: String,
}
