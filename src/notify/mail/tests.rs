//! What needs no mail server: refusals, deadlines, and what is written into a mail.

use super::*;

fn plain(host: &str, port: u16) -> Mailer {
    let settings = MailSettings {
        host: host.to_owned(),
        port,
        tls: MailTls::None,
        from: "Afterhours <afterhours@example.com>".to_owned(),
        login: None,
        ca_file: None,
    };
    Mailer::new(&settings).unwrap()
}

async fn send(mailer: &Mailer, mail: &Mail) -> std::sync::Arc<MailError> {
    let mut tried = mailer.send(mail, &mail.to, "<a@b>").await;
    assert_eq!(tried.len(), 1, "{tried:?}");
    tried.remove(0).1.unwrap_err()
}

fn mail() -> Mail {
    Mail { to: vec!["it@example.com".to_owned()], subject: "s".to_owned(), text: "t".to_owned() }
}

#[tokio::test]
async fn never_leaves_the_machine_in_the_clear() {
    // A documentation address: nothing is there, and nothing is even tried.
    let error = send(&plain("192.0.2.1", 25), &mail()).await;
    assert!(matches!(*error, MailError::InTheClear { .. }), "{error}");
    assert!(!error.is_permanent(), "the configuration can be mended");
}

#[tokio::test]
async fn a_silent_server_is_not_waited_for_forever() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut mailer = plain("127.0.0.1", listener.local_addr().unwrap().port());
    mailer.patience.reach = Span::from(Duration::from_millis(50));
    let error = send(&mailer, &mail()).await;
    assert!(matches!(*error, MailError::Overdue { phase: Phase::Reach, .. }), "{error}");
    assert!(!error.is_permanent());
}

#[tokio::test]
async fn nobody_listening_is_worth_another_try() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = send(&plain("127.0.0.1", port), &mail()).await;
    assert_eq!(error.to_string(), format!("reach the mail server 127.0.0.1:{port}"));
    assert!(!error.is_permanent());
}

#[tokio::test]
async fn a_bad_address_is_permanent() {
    let mail = Mail { to: vec!["nobody".to_owned()], ..mail() };
    let error = send(&plain("127.0.0.1", 1), &mail).await;
    assert!(error.is_permanent(), "{error}");
}

#[test]
fn a_subject_cannot_smuggle_headers() {
    let mail = Mail { subject: "a\r\nBcc: x@example.com\r\n\r\nb".to_owned(), ..mail() };
    let to = [mailbox("it@example.com").unwrap()];
    let content = plain("127.0.0.1", 1).compose(&mail, &to, "<a@b>").unwrap();
    let content = String::from_utf8(content).unwrap();
    assert!(content.contains("Subject: a Bcc: x@example.com b\r\n"), "{content}");
}

#[test]
fn message_ids_are_stable_and_safe() {
    let mailer = plain("127.0.0.1", 1);
    assert_eq!(mailer.message_id("run 17>"), "<afterhours.run-17-@example.com>");
}

#[test]
fn passwords_are_not_in_the_debug_output() {
    let settings = MailSettings {
        host: "localhost".to_owned(),
        port: 25,
        tls: MailTls::None,
        from: "a@example.com".to_owned(),
        login: Some(("u".to_owned(), "top-secret".to_owned().into())),
        ca_file: None,
    };
    let mailer = Mailer::new(&settings).unwrap();
    assert!(!format!("{mailer:?} {settings:?}").contains("top-secret"));
}
