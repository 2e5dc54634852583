//! What can go wrong on the way to a mail server, and whether trying again can help.

use std::io;
use std::path::PathBuf;

use lettre::address::AddressError;
use thiserror::Error;

use crate::domain::span::Span;

/// The answer of a server that is about to close the connection.
const CLOSING: u16 = 421;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{code} {text}")]
pub struct Answer {
    /// The three digits: 4xx is "not now", 5xx is "no".
    pub code: u16,
    /// What it said.
    pub text: String,
}

/// What went wrong below SMTP, in one line.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Cause(pub(super) String);

/// A mail could not be handed over.
#[derive(Debug, Error)]
pub enum MailError {
    /// The authority to trust cannot be read.
    #[error("read the mail server's authority {}", path.display())]
    ReadAuthority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No encryption can be set up.
    #[error("prepare encryption for the mail server {server}")]
    PrepareTls {
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// A text is no mail address.
    #[error("use \"{text}\" as a mail address")]
    Address {
        /// The text.
        text: String,
        /// Why.
        #[source]
        source: AddressError,
    },
    /// An address has letters that the server cannot take.
    #[error("use the address {address}: the mail server {server} takes ASCII addresses only")]
    AddressNotAscii {
        /// The address.
        address: String,
        /// The server.
        server: String,
    },
    /// The mail cannot be put together.
    #[error("compose the mail")]
    Compose {
        /// Why.
        #[source]
        source: lettre::error::Error,
    },
    /// A server without encryption is not on this machine.
    #[error("send mail in the clear: {server} is not on this machine")]
    InTheClear {
        /// The server.
        server: String,
    },
    /// No connection, or it was lost.
    #[error("{phase} the mail server {server}")]
    Connection {
        /// What was being done.
        phase: Phase,
        /// The server.
        server: String,
        /// Why.
        #[source]
        source: Cause,
    },
    /// The server did not answer in time.
    #[error("{phase} the mail server {server} within {deadline}")]
    Overdue {
        /// What was being done.
        phase: Phase,
        /// The server.
        server: String,
        /// The limit.
        deadline: Span,
    },
    /// The server does not offer STARTTLS; nothing was sent.
    #[error("encrypt the connection: the mail server {server} does not offer STARTTLS")]
    NoStartTls {
        /// The server.
        server: String,
    },
    /// The server does not offer a login that we know.
    #[error("log in to the mail server {server}: it offers neither PLAIN nor LOGIN")]
    NoLogin {
        /// The server.
        server: String,
    },
    /// The server said no.
    #[error("{phase} the mail server {server}: it answered {answer}")]
    Refused {
        /// What was being done.
        phase: Phase,
        /// The server.
        server: String,
        /// What it said.
        answer: Answer,
    },
    /// The server does not take the mail for one recipient.
    #[error("mail to {to}: the mail server {server} answered {answer}")]
    Recipient {
        /// Who.
        to: String,
        /// The server.
        server: String,
        /// What it said.
        answer: Answer,
    },
}

impl MailError {
    /// Whether no other try can help: the server takes this mail for nobody or not for this recipient (5xx), or the mail
    /// itself cannot be. Everything about connections, "not now" (4xx), and whatever an operator can mend meanwhile (a
    /// password, the sender, the way) is worth another try.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Address { .. } | Self::AddressNotAscii { .. } | Self::Compose { .. } => true,
            Self::Refused { phase, answer, .. } => *phase == Phase::HandOver && answer.code >= 500,
            // 552 is a mailbox that is full for now, or a mail with too many recipients (RFC 5321, 4.5.3.1.10).
            Self::Recipient { answer, .. } => answer.code >= 500 && answer.code != 552,
            Self::InTheClear { .. }
            | Self::ReadAuthority { .. }
            | Self::PrepareTls { .. }
            | Self::Connection { .. }
            | Self::Overdue { .. }
            | Self::NoStartTls { .. }
            | Self::NoLogin { .. } => false,
        }
    }

    /// Whether the connection cannot be used any more.
    pub(super) fn ends_connection(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Overdue { .. } => true,
            Self::Refused { answer, .. } | Self::Recipient { answer, .. } => answer.code == CLOSING,
            _ => false,
        }
    }

    /// Whether it says that the mail was taken for nobody, for a reason that may lie in one recipient alone.
    pub(super) fn may_be_one_recipients(&self) -> bool {
        match self {
            Self::Refused { phase: Phase::HandOver, .. } => true,
            Self::Connection { phase, .. } | Self::Overdue { phase, .. } => *phase == Phase::Announce,
            Self::Refused { phase: Phase::Announce, .. } => true,
            _ => false,
        }
    }

    /// The server's own words, where it said something.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Refused { answer, .. } | Self::Recipient { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// Whether the server could not be asked at all.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connection { phase: Phase::Reach, .. } | Self::Overdue { .. })
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::ReadAuthority { .. } | Self::PrepareTls { .. } => "check `ca_file` of `daemon.mail`",
            Self::Address { .. } => "correct the address in the configuration or in the job",
            Self::AddressNotAscii { .. } => "use an address without special letters",
            Self::InTheClear { .. } | Self::NoStartTls { .. } => {
                "use a mail server with STARTTLS (smtp://) or TLS (smtps://), or one on this machine (smtp+plain://127.0.0.1)"
            }
            Self::Connection { phase: Phase::Encrypt, .. } => {
                "check the name of the server and its certificate; for a certificate or an authority of your own, set `ca_file` of `daemon.mail`"
            }
            Self::Connection { .. } | Self::Overdue { .. } => {
                "check `smtp` of `daemon.mail`, the mail server, and the firewall between"
            }
            Self::Refused { phase: Phase::LogIn, .. } | Self::NoLogin { .. } => {
                "check `user` and `password_file` of `daemon.mail`"
            }
            Self::Refused { answer: Answer { code: 530, .. }, .. } => {
                "the server wants a login: set `user` and `password_file` of `daemon.mail`"
            }
            Self::Refused { phase: Phase::Sender, .. } => {
                "set `from` of `daemon.mail` to a sender that this mail server takes"
            }
            Self::Recipient { .. } => "check the address, and ask whoever runs the mail server",
            Self::Compose { .. } | Self::Refused { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// What is being done when something goes wrong; reads before "the mail server".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Phase {
    /// TCP, and the greeting.
    #[error("reach")]
    Reach,
    /// TLS, at once or by STARTTLS.
    #[error("encrypt the connection to")]
    Encrypt,
    /// AUTH.
    #[error("log in to")]
    LogIn,
    /// MAIL.
    #[error("name the sender to")]
    Sender,
    /// RCPT.
    #[error("name the recipients to")]
    Announce,
    /// DATA and the content.
    #[error("hand the mail over to")]
    HandOver,
}

/// The last of an error's causes: those above it repeat it.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

/// Whether the encryption failed, at whatever depth that is said.
pub(super) fn is_about_tls(error: &lettre::transport::smtp::Error) -> bool {
    let hidden = |error: &(dyn std::error::Error + 'static)| {
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        inside.is_some_and(|inside| inside.is::<rustls::Error>())
    };
    error.is_tls() || chain(error).any(|error| error.is::<rustls::Error>() || hidden(error))
}

fn chain<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}
