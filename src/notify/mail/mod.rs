//! Hands one mail over to the site's mail server.
//!
//! ```text
//! connect ─ EHLO ─ STARTTLS ─ EHLO ─ AUTH ─ MAIL ─ RCPT… ─ DATA ─ QUIT
//! ```
//!
//! One connection a mail: there is about one mail a night. Every phase has a deadline of its own.
//! The rustls provider is the one that the process has installed as its default.
//!
//! Invariants: neither the mail nor a password goes over a connection that is not encrypted,
//! unless it stays on this machine. A mail that is tried again has the same `Message-ID`, so that
//! a mail whose acknowledgement got lost can be recognised as the same. Each recipient has an outcome of
//! its own, and none holds back another (`delivery.rs`).
//!
//! Deliberately absent: a queue, retries, direct delivery to the recipients' servers.

mod delivery;
mod error;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::message::header::Header;
use lettre::message::header::HeaderName;
use lettre::message::header::HeaderValue;
use lettre::message::header::MIME_VERSION_1_0;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::authentication::Mechanism;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::client::CertificateStore;
use lettre::transport::smtp::client::TlsParameters;
use lettre::transport::smtp::commands::Rset;
use lettre::transport::smtp::extension::ClientId;
use secrecy::ExposeSecret;
use tokio::time::timeout;

use crate::config::settings::MailSettings;
use crate::config::settings::MailTls;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::plain;
use crate::domain::span::Span;
use crate::files::pinned::Pinned;
use crate::files::pinned::PinnedError;
pub use crate::notify::mail::delivery::Outcome;
pub use crate::notify::mail::error::Answer;
pub use crate::notify::mail::error::Cause;
pub use crate::notify::mail::error::MailError;
pub use crate::notify::mail::error::Phase;
use crate::notify::mail::error::innermost;
use crate::notify::mail::error::is_about_tls;

/// A longer subject is cut.
const SUBJECT_CHARS_MAX: usize = 200;
/// How long leaving politely may take.
const QUIT_WAIT: Duration = Duration::from_secs(5);

/// A mail to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// All recipients, as `it@example.com` or `IT <it@example.com>`, also those that have it already.
    pub to: Vec<String>,
    /// One line.
    pub subject: String,
    /// Plain text.
    pub text: String,
}

/// How long each phase may take.
#[derive(Debug, Clone, Copy)]
struct Patience {
    reach: Span,
    encrypt: Span,
    log_in: Span,
    announce: Span,
    hand_over: Span,
}

impl Patience {
    /// Servers that scan for spam think long before they answer to the content.
    const DEFAULT: Self = Self {
        reach: Span::secs(30),
        encrypt: Span::secs(30),
        log_in: Span::secs(30),
        announce: Span::mins(1),
        hand_over: Span::mins(3),
    };
    /// Where a person waits for it.
    const SHORT: Self = Self {
        reach: Span::secs(10),
        encrypt: Span::secs(10),
        log_in: Span::secs(10),
        announce: Span::secs(15),
        hand_over: Span::secs(30),
    };

    fn of(&self, phase: Phase) -> Span {
        match phase {
            Phase::Reach => self.reach,
            Phase::Encrypt => self.encrypt,
            Phase::LogIn => self.log_in,
            Phase::Sender | Phase::Announce => self.announce,
            Phase::HandOver => self.hand_over,
        }
    }
}

/// Sends mails by one configured server.
#[derive(Debug, Clone)]
pub struct Mailer {
    host: String,
    port: u16,
    security: Security,
    /// Whom the certificates of `ca_file` stand for.
    pinned: Option<Arc<Pinned>>,
    from: Mailbox,
    login: Option<Credentials>,
    patience: Patience,
}

#[derive(Clone)]
enum Security {
    Implicit(TlsParameters),
    StartTls(TlsParameters),
    LoopbackOnly,
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Implicit(_) => "Implicit",
            Self::StartTls(_) => "StartTls",
            Self::LoopbackOnly => "LoopbackOnly",
        })
    }
}

impl Mailer {
    /// Prepares to send; connects to nothing yet.
    ///
    /// # Errors
    /// The sender is no address, or the authority to trust cannot be used.
    pub fn new(settings: &MailSettings) -> Result<Self, MailError> {
        let security = match settings.tls {
            MailTls::Implicit => Security::Implicit(tls_parameters(settings)?),
            MailTls::StartTls => Security::StartTls(tls_parameters(settings)?),
            MailTls::None => Security::LoopbackOnly,
        };
        let login = settings.login.as_ref();
        Ok(Self {
            host: settings.host.clone(),
            port: settings.port,
            security,
            pinned: pinned(settings)?,
            from: mailbox(&settings.from)?,
            login: login.map(|(user, password)| Credentials::new(user.clone(), password.expose_secret().to_owned())),
            patience: Patience::DEFAULT,
        })
    }

    /// A `Message-ID` in the sender's domain. `unique` must belong to this mail alone, in all stores of the site, and be
    /// the same in every try.
    pub fn message_id(&self, unique: &str) -> String {
        let unique: String = unique.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        format!("<afterhours.{unique}@{}>", self.from.email.domain())
    }

    /// The same with less patience: somebody waits for the answer.
    #[must_use]
    pub fn hurried(&self) -> Self {
        Self { patience: Patience::SHORT, ..self.clone() }
    }

    /// What a mail would meet, up to the sender's name; none is sent.
    pub async fn check(&self) -> Finding {
        let (server, from) = (self.server(), &self.from.email);
        match self.hurried().greet().await {
            Ok(()) => {
                let secured = match self.security {
                    Security::LoopbackOnly => "on this machine",
                    Security::Implicit(_) | Security::StartTls(_) => "encrypted",
                };
                let logged_in = if self.login.is_some() { ", logged in" } else { "" };
                Finding::good("mail", format!("the mail server {server} takes mail from {from}, {secured}{logged_in}"))
            }
            Err(error) => {
                let hint = error.hint().unwrap_or_else(|| format!("ask whoever runs the mail server {server}"));
                Finding::warning("mail", format!("failed to {}", Failure::from_error(&error)), hint)
            }
        }
    }

    async fn greet(&self) -> Result<(), MailError> {
        let mut connection = self.connect().await?;
        let named = self.name_sender(&mut connection, &[]).await;
        if named.is_ok() {
            // Nothing was begun that a server must remember; it may take its time to say so.
            let _ = self.within(Phase::Sender, connection.command(Rset)).await;
        }
        self.leave(connection);
        named
    }

    /// Says goodbye; the server may take its time to answer.
    fn leave(&self, mut connection: AsyncSmtpConnection) {
        tokio::spawn(async move { timeout(QUIT_WAIT, connection.abort()).await });
    }

    fn compose(&self, mail: &Mail, header: &[Mailbox], message_id: &str) -> Result<Vec<u8>, MailError> {
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(one_line(&mail.subject))
            .message_id(Some(message_id.to_owned()))
            .header(AutoSubmitted)
            // Without it a reader need not undo the encoding of the text.
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN);
        for recipient in header {
            message = message.to(recipient.clone());
        }
        let message = message.body(mail.text.clone()).map_err(|source| MailError::Compose { source })?;
        Ok(message.formatted())
    }

    /// A connection over which a mail may go.
    async fn connect(&self) -> Result<AsyncSmtpConnection, MailError> {
        let hello = ClientId::default();
        let address = (self.host.as_str(), self.port);
        let mut connection = match &self.security {
            Security::LoopbackOnly => {
                let address = self.loopback().await?;
                let connecting = AsyncSmtpConnection::connect_tokio1(address, None, &hello, None, None);
                self.within(Phase::Reach, connecting).await?
            }
            Security::Implicit(tls) => {
                let connecting = AsyncSmtpConnection::connect_tokio1(address, None, &hello, Some(tls.clone()), None);
                self.within(Phase::Reach, connecting).await?
            }
            Security::StartTls(tls) => {
                let connecting = AsyncSmtpConnection::connect_tokio1(address, None, &hello, None, None);
                let mut connection = self.within(Phase::Reach, connecting).await?;
                if !connection.can_starttls() {
                    let _ = timeout(QUIT_WAIT, connection.abort()).await;
                    return Err(MailError::NoStartTls { server: self.server() });
                }
                self.within(Phase::Encrypt, connection.starttls(tls.clone(), &hello)).await?;
                connection
            }
        };
        if let (Some(pinned), false) = (&self.pinned, matches!(self.security, Security::LoopbackOnly)) {
            let shown = connection.certificate_chain().map_err(|error| self.lost(Phase::Encrypt, innermost(&error)))?;
            if let Err(error) = pinned.judge(&shown, &self.host) {
                let _ = timeout(QUIT_WAIT, connection.abort()).await;
                return Err(self.lost(Phase::Encrypt, error.to_string()));
            }
        }
        if let Some(login) = &self.login {
            self.log_in(&mut connection, login).await?;
        }
        Ok(connection)
    }

    async fn log_in(&self, connection: &mut AsyncSmtpConnection, login: &Credentials) -> Result<(), MailError> {
        const KNOWN: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];
        if connection.server_info().get_auth_mechanism(&KNOWN).is_none() {
            let _ = timeout(QUIT_WAIT, connection.abort()).await;
            return Err(MailError::NoLogin { server: self.server() });
        }
        let answered = self.within(Phase::LogIn, connection.auth(&KNOWN, login)).await;
        if answered.is_err() {
            let _ = timeout(QUIT_WAIT, connection.abort()).await;
        }
        answered.map(drop)
    }

    /// An address of the server that cannot leave this machine.
    async fn loopback(&self) -> Result<SocketAddr, MailError> {
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        let found = match timeout(self.patience.reach.duration(), lookup).await {
            Ok(Ok(found)) => found,
            Ok(Err(source)) => return Err(self.lost(Phase::Reach, source.to_string())),
            Err(_) => return Err(self.overdue(Phase::Reach)),
        };
        let mut found = found.filter(|address| address.ip().is_loopback());
        found.next().ok_or_else(|| MailError::InTheClear { server: self.server() })
    }

    async fn within<T>(
        &self,
        phase: Phase,
        work: impl Future<Output = Result<T, lettre::transport::smtp::Error>>,
    ) -> Result<T, MailError> {
        match timeout(self.patience.of(phase).duration(), work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(self.failed(phase, &error)),
            Err(_) => Err(self.overdue(phase)),
        }
    }

    fn failed(&self, phase: Phase, error: &lettre::transport::smtp::Error) -> MailError {
        let text = innermost(error);
        match error.status().map(|code| code.to_string().parse()) {
            Some(Ok(code)) => {
                MailError::Refused { phase, server: self.server(), answer: Answer { code, text: one_line(&text) } }
            }
            // A connection that is encrypted from the start fails at its certificate while it is made.
            _ if is_about_tls(error) => self.lost(Phase::Encrypt, text),
            _ => self.lost(phase, text),
        }
    }

    fn lost(&self, phase: Phase, text: String) -> MailError {
        MailError::Connection { phase, server: self.server(), source: Cause(text) }
    }

    fn overdue(&self, phase: Phase) -> MailError {
        MailError::Overdue { phase, server: self.server(), deadline: self.patience.of(phase) }
    }

    /// The server, for people.
    pub fn server(&self) -> String {
        let host = &self.host;
        if host.contains(':') { format!("[{host}]:{}", self.port) } else { format!("{host}:{}", self.port) }
    }
}

fn tls_parameters(settings: &MailSettings) -> Result<TlsParameters, MailError> {
    let wrong = |error: lettre::transport::smtp::Error| MailError::PrepareTls {
        server: settings.host.clone(),
        source: Cause(innermost(&error)),
    };
    let parameters = TlsParameters::builder(settings.host.clone());
    // Whom the certificates of a file stand for, `pinned` judges: before a word is said over the connection.
    let parameters = match &settings.ca_file {
        Some(_) => parameters
            .certificate_store(CertificateStore::None)
            .dangerous_accept_invalid_certs(true)
            .dangerous_accept_invalid_hostnames(true),
        None => parameters,
    };
    parameters.build().map_err(wrong)
}

fn pinned(settings: &MailSettings) -> Result<Option<Arc<Pinned>>, MailError> {
    let Some(path) = &settings.ca_file else { return Ok(None) };
    let bad = |source| match source {
        PinnedError::Read { source, .. } => MailError::ReadAuthority { path: path.clone(), source },
        PinnedError::Parse { problem, .. } => {
            MailError::PrepareTls { server: settings.host.clone(), source: Cause(problem) }
        }
    };
    Pinned::read(path).map(Arc::new).map(Some).map_err(bad)
}

/// Whether a text can be used as a mail address.
pub fn is_address(text: &str) -> bool {
    mailbox(text).is_ok()
}

fn mailbox(text: &str) -> Result<Mailbox, MailError> {
    text.parse().map_err(|source| MailError::Address { text: text.to_owned(), source })
}

/// The text in one line without hidden characters, and not too long.
fn one_line(text: &str) -> String {
    let text = plain::one_line(text);
    let words: Vec<_> = text.split(' ').filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(SUBJECT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// `Auto-Submitted: auto-generated`: nobody's "I am on holiday" answers it (RFC 3834).
#[derive(Debug, Clone, Copy)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}
