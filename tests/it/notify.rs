//! Mails over real SMTP: `aiosmtpd` on a loopback port, certificates by `openssl`.

use std::path::Path;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use afterhours::config::settings::MailSettings;
use afterhours::config::settings::MailTls;
use afterhours::domain::finding::Severity;
use afterhours::notify::mail::Mail;
use afterhours::notify::mail::MailError;
use afterhours::notify::mail::Mailer;
use afterhours::notify::mail::Outcome;
use afterhours::notify::mail::Phase;
use rstest::rstest;
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

    /// As a beginner makes it: an authority that stands for a server, with its name in the old way only.
    async fn self_signed() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"];
        openssl(dir.path(), &[&new[..], &["-keyout", "server.key", "-out", "server.pem"]].concat()).await;
        fs_err::copy(dir.path().join("server.pem"), dir.path().join("ca.pem")).unwrap();
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

/// What came of a mail for its recipients, the one or the other.
fn outcome<'a>(tried: &'a [(String, Outcome)], to: &str) -> &'a Outcome {
    let mut of = tried.iter().filter(|(whose, _)| whose == to);
    let (_, found) = of.next().unwrap_or_else(|| panic!("nothing is said of {to}: {tried:?}"));
    assert!(of.next().is_none(), "{to} has one outcome: {tried:?}");
    found
}

/// Sends a mail to one, and says what came of it.
async fn send(mailer: &Mailer, mail: &Mail) -> Outcome {
    let tried = mailer.send(mail, &mail.to, ID).await;
    outcome(&tried, &mail.to[0]).clone()
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
    let two = mail(&["IT <it@example.com>", "boss@example.com"]);
    let tried = mailer.send(&two, &two.to, ID).await;
    assert_eq!(outcome(&tried, "IT <it@example.com>").as_ref().unwrap().to_string(), "250 taken");
    assert!(outcome(&tried, "boss@example.com").is_ok());
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
    send(&mailer, &mail(&["it@example.com"])).await.unwrap();
    let got = server.end().await;
    assert_eq!(got.len(), 1);
    assert_eq!((&got[0]["encrypted"], &got[0]["authenticated"]), (&Value::Bool(true), &Value::Bool(true)));
}

#[tokio::test]
async fn a_wrong_password_is_said_and_loses_no_mail() {
    let certificates = Certificates::new().await;
    let server = Server::with_tls(&certificates, &["--login", "ah:secret"]).await;
    let mailer = mailer(&trusting(&certificates, server.settings(MailTls::StartTls), "guess"));
    let error = send(&mailer, &mail(&["it@example.com"])).await.unwrap_err();
    assert!(matches!(*error, MailError::Refused { phase: Phase::LogIn, .. }), "{error}");
    assert!(error.to_string().contains("535"), "{error}");
    assert!(!error.is_permanent(), "it can be mended, and the mail is sent then");
    assert!(error.hint().unwrap().contains("password_file"));
    assert!(server.end().await.is_empty());
}

#[tokio::test]
async fn a_login_that_is_demanded_but_not_set_is_said() {
    let certificates = Certificates::new().await;
    let server = Server::with_tls(&certificates, &["--login", "ah:secret"]).await;
    let settings = MailSettings { login: None, ..trusting(&certificates, server.settings(MailTls::StartTls), "") };
    let error = send(&mailer(&settings), &mail(&["it@example.com"])).await.unwrap_err();
    assert!(!error.is_permanent(), "{error}");
    assert!(error.hint().unwrap().contains("wants a login"), "{error}");
    assert!(server.end().await.is_empty());
}

#[tokio::test]
async fn not_now_is_worth_another_try_and_the_second_arrives_as_the_same_mail() {
    for phase in ["MAIL", "RCPT", "DATA"] {
        let server = Server::start(&["--answer", &format!("{phase}:451 4.7.1 greylisted, come back")]).await;
        let mailer = mailer(&server.settings(MailTls::None));
        let error = send(&mailer, &mail(&["it@example.com"])).await.unwrap_err();
        assert!(!error.is_permanent(), "{phase}: {error}");
        assert!(error.to_string().contains("451 4.7.1 greylisted, come back"), "{phase}: {error}");
        send(&mailer, &mail(&["it@example.com"])).await.unwrap();
        let got = server.end().await;
        assert_eq!(got.len(), 1, "{phase}");
        assert_eq!(header(got[0]["content"].as_str().unwrap(), "Message-ID"), ID);
    }
}

#[tokio::test]
async fn no_is_permanent() {
    for (phase, is_permanent) in [("MAIL", false), ("RCPT", true), ("DATA", true)] {
        let server = Server::start(&["--answer", &format!("{phase}:550 5.7.1 not here")]).await;
        let error = send(&mailer(&server.settings(MailTls::None)), &mail(&["it@example.com"])).await.unwrap_err();
        // The sender is the operator's to mend.
        assert_eq!(error.is_permanent(), is_permanent, "{phase}: {error}");
        assert!(error.to_string().contains("550 5.7.1 not here"), "{phase}: {error}");
        assert!(server.end().await.is_empty());
    }
}

#[rstest]
#[case::put_off("full@example.com:452 4.2.2 mailbox full", Some(false))]
#[case::full("full@example.com:552 5.2.2 mailbox full", Some(false))]
#[case::turned_away("full@example.com:550 5.1.1 no such user", Some(true))]
#[case::closed("full@example.com:421 4.3.2 not for you, and good night", Some(false))]
#[case::hung_up("full@example.com:drop", Some(false))]
#[case::content_refused("full@example.com:DATA 554 5.6.0 too much for full@example.com", Some(true))]
#[case::content_put_off("full@example.com:DATA 452 4.3.1 no room for full@example.com", Some(false))]
#[case::nobody("nobody:250 OK", None)]
#[tokio::test]
async fn a_recipient_holds_back_nobody_else(#[case] special: &str, #[case] is_permanent: Option<bool>) {
    let server = Server::start(&["--for", special]).await;
    let mailer = mailer(&server.settings(MailTls::None));
    let three = mail(&["boss@example.com", "full@example.com", "it@example.com"]);
    let tried = mailer.send(&three, &three.to, ID).await;
    let full = outcome(&tried, "full@example.com");
    assert_eq!(full.as_ref().err().map(|error| error.is_permanent()), is_permanent, "{full:?}");
    assert_eq!(outcome(&tried, "it@example.com").as_ref().unwrap().to_string(), "250 taken");
    assert!(outcome(&tried, "boss@example.com").is_ok());
    assert_eq!(tried.len(), 3);
    let mut got: Vec<String> = Vec::new();
    for taken in server.end().await {
        let content = taken["content"].as_str().unwrap();
        assert_eq!(header(content, "Message-ID"), ID);
        assert!(header(content, "To").contains("full@example.com"), "whom it is for is told all the same");
        got.extend(taken["to"].as_array().unwrap().iter().map(|to| to.as_str().unwrap().to_owned()));
    }
    got.sort();
    let expected: &[&str] = match is_permanent {
        Some(_) => &["boss@example.com", "it@example.com"],
        None => &["boss@example.com", "full@example.com", "it@example.com"],
    };
    assert_eq!(got, expected, "once each");
}

#[tokio::test]
async fn a_second_try_goes_to_those_who_wait_alone() {
    let server = Server::start(&["--answer", "RCPT:452 4.2.2 mailbox full"]).await;
    let mailer = mailer(&server.settings(MailTls::None));
    let two = mail(&["full@example.com", "it@example.com"]);
    let tried = mailer.send(&two, &two.to, ID).await;
    assert_eq!(
        outcome(&tried, "full@example.com").as_ref().unwrap_err().to_string(),
        format!("mail to full@example.com: the mail server {} answered 452 4.2.2 mailbox full", mailer.server())
    );
    let tried = mailer.send(&two, &two.to[..1], ID).await;
    assert!(outcome(&tried, "full@example.com").is_ok());
    assert_eq!(tried.len(), 1);
    let got: Vec<Value> = server.end().await.into_iter().map(|mail| mail["to"].clone()).collect();
    assert_eq!(got, [serde_json::json!(["it@example.com"]), serde_json::json!(["full@example.com"])]);
}

#[tokio::test]
async fn what_is_no_address_holds_back_nobody_else() {
    let server = Server::start(&[]).await;
    let mailer = mailer(&server.settings(MailTls::None));
    let three = mail(&["nobody", "jürgen@example.com", "it@example.com"]);
    let tried = mailer.send(&three, &three.to, ID).await;
    assert!(outcome(&tried, "nobody").as_ref().unwrap_err().is_permanent());
    let strange = outcome(&tried, "jürgen@example.com").as_ref().unwrap_err();
    assert!(matches!(**strange, MailError::AddressNotAscii { .. }) && strange.is_permanent(), "{strange}");
    assert!(outcome(&tried, "it@example.com").is_ok());
    assert_eq!(server.end().await.len(), 1);
}

#[tokio::test]
async fn what_a_mail_would_meet_is_found_without_sending_one() {
    let (certificates, others) = (Certificates::new().await, Certificates::new().await);
    let server = Server::with_tls(&certificates, &["--login", "ah:secret"]).await;
    let settings = |password| trusting(&certificates, server.settings(MailTls::StartTls), password);
    let good = mailer(&settings("secret")).check().await;
    assert_eq!(good.severity, Severity::Good, "{good:?}");
    assert!(good.text.ends_with("takes mail from afterhours@example.com, encrypted, logged in"), "{}", good.text);
    let remedy = async |settings: MailSettings| {
        let found = mailer(&settings).check().await;
        assert_eq!((found.check.as_str(), found.severity), ("mail", Severity::Warning), "{found:?}");
        (found.text, found.remedy.unwrap())
    };
    let (text, hint) = remedy(settings("guess")).await;
    assert!(text.contains("535") && hint.contains("password_file"), "{text}; {hint}");
    let (text, hint) = remedy(trusting(&others, server.settings(MailTls::StartTls), "secret")).await;
    assert!(text.contains("encrypt the connection") && hint.contains("ca_file"), "{text}; {hint}");
    assert!(server.end().await.is_empty());

    let server = Server::start(&["--answer", "MAIL:550 5.7.1 not your name"]).await;
    let (text, hint) = remedy(server.settings(MailTls::None)).await;
    assert!(text.contains("550 5.7.1 not your name") && hint.contains("`from`"), "{text}; {hint}");
    let nobody = server.settings(MailTls::None);
    server.end().await;
    let (text, hint) = remedy(nobody).await;
    assert!(text.contains("reach the mail server") && hint.contains("`smtp`"), "{text}; {hint}");
}

#[tokio::test]
async fn nothing_is_sent_in_the_clear_where_starttls_is_missing() {
    let server = Server::start(&[]).await;
    let error = send(&mailer(&server.settings(MailTls::StartTls)), &mail(&["it@example.com"])).await.unwrap_err();
    assert!(matches!(*error, MailError::NoStartTls { .. }), "{error}");
    assert!(!error.is_permanent());
    assert!(server.end().await.is_empty());
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_trusted_by_its_file() {
    let (certificates, others) = (Certificates::self_signed().await, Certificates::self_signed().await);
    for (tls, args) in [
        (MailTls::StartTls, &["--login", "ah:secret"][..]),
        (MailTls::Implicit, &["--implicit", "--login", "ah:secret"]),
    ] {
        let server = Server::with_tls(&certificates, args).await;
        let wrong = trusting(&others, server.settings(tls), "secret");
        let wrong = send(&mailer(&wrong), &mail(&["it@example.com"])).await.unwrap_err();
        assert!(matches!(*wrong, MailError::Connection { phase: Phase::Encrypt, .. }), "{tls:?}: {wrong:?}");
        let right = trusting(&certificates, server.settings(tls), "secret");
        send(&mailer(&right), &mail(&["it@example.com"])).await.unwrap();
        assert_eq!(server.end().await.len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_gets_nothing() {
    let (certificates, others) = (Certificates::new().await, Certificates::new().await);
    for (tls, args) in [(MailTls::StartTls, &[][..]), (MailTls::Implicit, &["--implicit"][..])] {
        let server = Server::with_tls(&certificates, args).await;
        let mailer = mailer(&trusting(&others, server.settings(tls), "secret"));
        let error = send(&mailer, &mail(&["it@example.com"])).await.unwrap_err();
        assert!(matches!(*error, MailError::Connection { phase: Phase::Encrypt, .. }), "{tls:?}: {error:?}");
        assert!(!error.is_permanent());
        assert!(error.hint().unwrap().contains("ca_file"));
        assert!(server.end().await.is_empty());
    }
}
