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
//! a mail whose acknowledgement got lost can be recognised as the same. Where the server puts one
//! recipient off, nobody gets the mail yet; where it refuses one for good, the others get it.
//!
//! Deliberately absent: a queue, retries, direct delivery to the recipients' servers.

mod error;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use lettre::Address;
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
use lettre::transport::smtp::client::Certificate;
use lettre::transport::smtp::client::CertificateStore;
use lettre::transport::smtp::client::TlsParameters;
use lettre::transport::smtp::commands::Data;
use lettre::transport::smtp::commands::Mail as MailFrom;
use lettre::transport::smtp::commands::Rcpt;
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::extension::Extension;
use lettre::transport::smtp::extension::MailParameter;
use secrecy::ExposeSecret;
use tokio::time::timeout;

use crate::config::settings::MailSettings;
use crate::config::settings::MailTls;
use crate::domain::plain;
use crate::domain::span::Span;
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
    /// The recipients, as `it@example.com` or `IT <it@example.com>`; at least one.
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

    fn of(&self, phase: Phase) -> Span {
        match phase {
            Phase::Reach => self.reach,
            Phase::Encrypt => self.encrypt,
            Phase::LogIn => self.log_in,
            Phase::Announce => self.announce,
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

    /// Hands `mail` over to the server.
    ///
    /// When this ends well, every recipient's mail is the server's concern. When it does not, see
    /// [`MailError::is_permanent`]. Dropping the future may leave the mail sent or not sent.
    ///
    /// # Errors
    /// The mail cannot be composed, or the server cannot be reached, trusted, or persuaded.
    pub async fn send(&self, mail: &Mail, message_id: &str) -> Result<(), MailError> {
        let recipients = mail.to.iter().map(|text| mailbox(text)).collect::<Result<Vec<_>, _>>()?;
        let content = self.compose(mail, &recipients, message_id)?;
        let mut connection = self.connect().await?;
        let outcome = self.hand_over(&mut connection, &recipients, &content).await;
        // The mail's fate is decided and must be noted at once: dying before that sends it again. The server may take
        // its time to say goodbye.
        tokio::spawn(async move { timeout(QUIT_WAIT, connection.abort()).await });
        outcome
    }

    fn compose(&self, mail: &Mail, recipients: &[Mailbox], message_id: &str) -> Result<Vec<u8>, MailError> {
        let mut message = Message::builder()
            .from(self.from.clone())
            .subject(one_line(&mail.subject))
            .message_id(Some(message_id.to_owned()))
            .header(AutoSubmitted)
            // Without it a reader need not undo the encoding of the text.
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN);
        for recipient in recipients {
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

    async fn hand_over(
        &self,
        connection: &mut AsyncSmtpConnection,
        recipients: &[Mailbox],
        content: &[u8],
    ) -> Result<(), MailError> {
        let mut parameters = Vec::new();
        let all = recipients.iter().chain([&self.from]).map(|mailbox| &mailbox.email);
        if let Some(address) = all.into_iter().find(|address| !AsRef::<str>::as_ref(address).is_ascii()) {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(MailError::AddressNotAscii { address: address.to_string(), server: self.server() });
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        let from = MailFrom::new(Some(self.from.email.clone()), parameters);
        self.within(Phase::Announce, connection.command(from)).await?;
        let refused = self.announce(connection, recipients.iter().map(|mailbox| &mailbox.email)).await?;
        let is_final = refused.iter().all(|(_, answer)| answer.code >= 500);
        if !is_final || refused.len() == recipients.len() {
            return Err(MailError::Recipients { refused, others_have_it: false });
        }
        self.within(Phase::HandOver, connection.command(Data)).await?;
        self.within(Phase::HandOver, connection.message(content)).await?;
        if refused.is_empty() { Ok(()) } else { Err(MailError::Recipients { refused, others_have_it: true }) }
    }

    /// Names the recipients; returns those that the server does not take.
    async fn announce(
        &self,
        connection: &mut AsyncSmtpConnection,
        recipients: impl Iterator<Item = &Address>,
    ) -> Result<Vec<(String, Answer)>, MailError> {
        let mut refused = Vec::new();
        for recipient in recipients {
            let answered = self.within(Phase::Announce, connection.command(Rcpt::new(recipient.clone(), vec![]))).await;
            match answered {
                Ok(_) => {}
                Err(MailError::Refused { answer, .. }) => refused.push((recipient.to_string(), answer)),
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
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

    fn server(&self) -> String {
        let host = &self.host;
        if host.contains(':') { format!("[{host}]:{}", self.port) } else { format!("{host}:{}", self.port) }
    }
}

fn tls_parameters(settings: &MailSettings) -> Result<TlsParameters, MailError> {
    let wrong = |error: lettre::transport::smtp::Error| MailError::PrepareTls {
        server: settings.host.clone(),
        source: Cause(innermost(&error)),
    };
    let mut parameters = TlsParameters::builder(settings.host.clone());
    if let Some(path) = &settings.ca_file {
        let pem = std::fs::read(path).map_err(|source| MailError::ReadAuthority { path: path.clone(), source })?;
        let authority = Certificate::from_pem(&pem).map_err(wrong)?;
        parameters = parameters.certificate_store(CertificateStore::None).add_root_certificate(authority);
    }
    parameters.build().map_err(wrong)
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
