//! Mails over real SMTP: `aiosmtpd` on a loopback port, certificates by `openssl`.

use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use afterhours::config::settings::MailSettings;
use afterhours::config::settings::MailTls;
use afterhours::notify::mail::Mail;
use afterhours::notify::mail::MailError;
use afterhours::notify::mail::Mailer;
use afterhours::notify::mail::Phase;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;
use tokio::io::BufReader;
use tokio::io::Lines;
use tokio::process::Child;
use tokio::process::ChildStdout;
use tokio::process::Command;
use tokio::time::timeout;

const WAIT: Duration = Duration::from_secs(20);
const ID: &str = "<afterhours.run-17@example.com>";

/// An authority, and a certificate for 127.0.0.1 that it signed.
struct Certificates {
    dir: TempDir,
}

impl Certificates {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        let authority = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test authority"];
        let server = ["-keyout", "server.key", "-out", "server.pem", "-subj", "/CN=127.0.0.1"];
        let signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"];
        openssl(dir.path(), &[&new[..], &authority].concat()).await;
        let leaf = ["-addext", "basicConstraints=critical,CA:FALSE"];
        openssl(dir.path(), &[&new[..], &server, &signed, &leaf].concat()).await;
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

async fn openssl(dir: &Path, args: &[&str]) {
    let made = Command::new("openssl").args(args).current_dir(dir).output().await;
    let made = made.expect("openssl (Debian package: openssl)");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A running mail server.
struct Server {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Server {
    async fn start(args: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/smtp.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("python3 (Debian package: python3)");
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut server = Self { child, said, port: 0 };
        let hello = server.next().await.expect("aiosmtpd (Debian package: python3-aiosmtpd)");
        server.port = hello["port"].as_u64().unwrap().try_into().unwrap();
        server
    }

    async fn with_tls(certificates: &Certificates, args: &[&str]) -> Self {
        let (cert, key) = (certificates.path("server.pem"), certificates.path("server.key"));
        let tls = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
        Self::start(&[&tls[..], args].concat()).await
    }

    /// The next line it says; `None` when it has ended.
    async fn next(&mut self) -> Option<Value> {
        let line = timeout(WAIT, self.said.next_line()).await.expect("the mail server says something in time");
        line.unwrap().map(|line| serde_json::from_str(&line).unwrap())
    }

    /// Ends it; the mails that nobody has asked for yet.
    async fn end(mut self) -> Vec<Value> {
        drop(self.child.stdin.take());
        let mut rest = Vec::new();
        while let Some(mail) = self.next().await {
            rest.push(mail);
        }
        timeout(WAIT, self.child.wait()).await.expect("the mail server ends in time").unwrap();
        rest
    }

    fn settings(&self, tls: MailTls) -> MailSettings {
        MailSettings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            tls,
            from: "Afterhours <afterhours@example.com>".to_owned(),
            login: None,
            ca_file: None,
        }
    }
}

fn mailer(settings: &MailSettings) -> Mailer {
    // Another test of this process may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Mailer::new(settings).unwrap()
}

fn mail(to: &[&str]) -> Mail {
    Mail {
        to: to.iter().map(|to| (*to).to_owned()).collect(),
        subject: "Orders: über Nacht aktualisiert".to_owned(),
        text: "Alles ist in Ordnung – wirklich.\n.\nEine Zeile nach dem Punkt.\n".to_owned(),
    }
}

fn trusting(certificates: &Certificates, settings: MailSettings, password: &str) -> MailSettings {
    let login = Some(("ah".to_owned(), password.to_owned().into()));
    MailSettings { login, ca_file: Some(certificates.path("ca.pem")), ..settings }
}

/// A header of a received mail, with continuation lines.
fn header(content: &str, name: &str) -> String {
    let head = content.split("\r\n\r\n").next().unwrap().replace("\r\n ", " ");
    let line = head.split("\r\n").find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {name} in {head}"))
}

#[tokio::test]
async fn a_mail_arrives_by_starttls_after_a_login() {
    let certificates = Certificates::new().await;
    let mut server = Server::with_tls(&certificates, &["--login", "ah:secret"]).await;
    let mailer = mailer(&trusting(&certificates, server.settings(MailTls::StartTls), "secret"));
    mailer.send(&mail(&["IT <it@example.com>", "boss@example.com"]), ID).await.unwrap();
    let got = server.next().await.unwrap();
    assert_eq!((&got["encrypted"], &got["authenticated"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(got["from"], "afterhours@example.com");
    assert_eq!(got["to"], serde_json::json!(["it@example.com", "boss@example.com"]));
    let content = got["content"].as_str().unwrap();
    assert_eq!(header(content, "Message-ID"), ID);
    assert_eq!(header(content, "Auto-Submitted"), "auto-generated");
    assert_eq!(header(content, "From"), "Afterhours <afterhours@example.com>");
    assert!(header(content, "To").contains("boss@example.com"));
    assert!(header(content, "Subject").starts_with("Orders: =?utf-8?"));
    assert!(!header(content, "Date").is_empty());
    let encoding = header(content, "Content-Transfer-Encoding");
    assert_eq!(encoding, "quoted-printable");
    assert!(content.contains("Alles ist in Ordnung =E2=80=93 wirklich."), "{content}");
    assert!(content.contains("\r\n.\r\nEine Zeile nach dem Punkt."), "{content}");
    assert!(server.end().await.is_empty());
}

#[tokio::test]
async fn a_mail_arrives_by_implicit_tls() {
    let certificates = Certificates::new().await;
    let server = Server::with_tls(&certificates, &["--implicit", "--login", "ah:secret"]).await;
    let mailer = mailer(&trusting(&certificates, server.settings(MailTls::Implicit), "secret"));
    mailer.send(&mail(&["it@example.com"]), ID).await.unwrap();
    let got = server.end().await;
    assert_eq!(got.len(), 1);
    assert_eq!((&got[0]["encrypted"], &got[0]["authenticated"]), (&Value::Bool(true), &Value::Bool(true)));
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_tried_again() {
    let certificates = Certificates::new().await;
    let server = Server::with_tls(&certificates, &["--login", "ah:secret"]).await;
    let mailer = mailer(&trusting(&certificates, server.settings(MailTls::StartTls), "guess"));
    let error = mailer.send(&mail(&["it@example.com"]), ID).await.unwrap_err();
    assert!(matches!(error, MailError::Refused { phase: Phase::LogIn, .. }), "{error}");
    assert!(error.to_string().contains("535"), "{error}");
    assert!(error.is_permanent());
    assert!(error.hint().unwrap().contains("password_file"));
    assert!(server.end().await.is_empty());
}

#[tokio::test]
async fn a_login_that_is_demanded_but_not_set_is_said() {
    let certificates = Certificates::new().await;
    let server = Server::with_tls(&certificates, &["--login", "ah:secret"]).await;
    let settings = MailSettings { login: None, ..trusting(&certificates, server.settings(MailTls::StartTls), "") };
    let error = mailer(&settings).send(&mail(&["it@example.com"]), ID).await.unwrap_err();
    assert!(error.is_permanent(), "{error}");
    assert!(error.hint().unwrap().contains("wants a login"), "{error}");
    assert!(server.end().await.is_empty());
}

#[tokio::test]
async fn not_now_is_worth_another_try_and_the_second_arrives_as_the_same_mail() {
    for phase in ["MAIL", "RCPT", "DATA"] {
        let server = Server::start(&["--answer", &format!("{phase}:451 4.7.1 greylisted, come back")]).await;
        let mailer = mailer(&server.settings(MailTls::None));
        let error = mailer.send(&mail(&["it@example.com"]), ID).await.unwrap_err();
        assert!(!error.is_permanent(), "{phase}: {error}");
        assert!(error.to_string().contains("451 4.7.1 greylisted, come back"), "{phase}: {error}");
        mailer.send(&mail(&["it@example.com"]), ID).await.unwrap();
        let got = server.end().await;
        assert_eq!(got.len(), 1, "{phase}");
        assert_eq!(header(got[0]["content"].as_str().unwrap(), "Message-ID"), ID);
    }
}

#[tokio::test]
async fn no_is_permanent() {
    for phase in ["MAIL", "RCPT", "DATA"] {
        let server = Server::start(&["--answer", &format!("{phase}:550 5.7.1 not here")]).await;
        let error = mailer(&server.settings(MailTls::None)).send(&mail(&["it@example.com"]), ID).await.unwrap_err();
        assert!(error.is_permanent(), "{phase}: {error}");
        assert!(error.to_string().contains("550 5.7.1 not here"), "{phase}: {error}");
        assert!(server.end().await.is_empty());
    }
}

#[tokio::test]
async fn one_bad_address_does_not_keep_the_mail_from_the_others() {
    let server = Server::start(&["--answer", "RCPT:550 5.1.1 no such user"]).await;
    let mailer = mailer(&server.settings(MailTls::None));
    let error = mailer.send(&mail(&["gone@example.com", "it@example.com"]), ID).await.unwrap_err();
    assert_eq!(error.to_string(), "mail to gone@example.com (550 5.1.1 no such user); the other recipients have it");
    assert!(error.is_permanent());
    let got = server.end().await;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0]["to"], serde_json::json!(["it@example.com"]));
}

#[tokio::test]
async fn nobody_gets_a_mail_that_somebody_gets_later() {
    let server = Server::start(&["--answer", "RCPT:452 4.2.2 mailbox full"]).await;
    let mailer = mailer(&server.settings(MailTls::None));
    let two = mail(&["full@example.com", "it@example.com"]);
    assert!(!mailer.send(&two, ID).await.unwrap_err().is_permanent());
    mailer.send(&two, ID).await.unwrap();
    let got = server.end().await;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0]["to"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn nothing_is_sent_in_the_clear_where_starttls_is_missing() {
    let server = Server::start(&[]).await;
    let error = mailer(&server.settings(MailTls::StartTls)).send(&mail(&["it@example.com"]), ID).await.unwrap_err();
    assert!(matches!(error, MailError::NoStartTls { .. }), "{error}");
    assert!(!error.is_permanent());
    assert!(server.end().await.is_empty());
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_nothing() {
    let (certificates, others) = (Certificates::new().await, Certificates::new().await);
    for (tls, args) in [(MailTls::StartTls, &[][..]), (MailTls::Implicit, &["--implicit"][..])] {
        let server = Server::with_tls(&certificates, args).await;
        let error =
            mailer(&trusting(&others, server.settings(tls), "secret")).send(&mail(&["it@example.com"]), ID).await;
        let error = error.unwrap_err();
        assert!(matches!(error, MailError::Connection { phase: Phase::Encrypt, .. }), "{tls:?}: {error:?}");
        assert!(!error.is_permanent());
        assert!(error.hint().unwrap().contains("ca_file"));
        assert!(server.end().await.is_empty());
    }
}
