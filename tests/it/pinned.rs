//! Certificates as `openssl req -x509` makes them, judged by their own file.

use std::process::Command;
use std::time::Duration;

use afterhours::files::pinned::Pinned;
use rstest::rstest;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;

/// The certificate that is made when this is said, too, and who trusts it.
fn made(more: &[&str]) -> (Vec<u8>, Pinned) {
    let dir = tempfile::tempdir().unwrap();
    let usual = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert"];
    let made = Command::new("openssl").args(usual).args(more).current_dir(dir.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = dir.path().join("cert");
    (CertificateDer::from_pem_file(&file).unwrap().to_vec(), Pinned::read(&file).unwrap())
}

#[rstest]
#[case::plain(&["-subj", "/CN=localhost"])]
#[case::with_names(&["-subj", "/CN=desk", "-addext", "subjectAltName=DNS:localhost"])]
#[case::no_authority(&["-subj", "/CN=localhost", "-addext", "basicConstraints=critical,CA:FALSE"])]
fn a_certificate_of_openssl_is_its_own_authority(#[case] more: &[&str]) {
    let (shown, pinned) = made(more);
    let shown = [shown];
    pinned.judge(&shown, "localhost").unwrap();
    pinned.judge(&shown, "example.com").unwrap_err();
    pinned.judge(&[], "localhost").unwrap_err();
    let (_, other) = made(&["-subj", "/CN=localhost"]);
    other.judge(&shown, "localhost").expect_err("another certificate of the same name");
}

#[test]
fn its_dates_count() {
    let (shown, pinned) = made(&["-subj", "/CN=localhost"]);
    let (shown, name) = (CertificateDer::from(shown), ServerName::try_from("localhost").unwrap());
    let in_2096 = UnixTime::since_unix_epoch(Duration::from_secs(4_000_000_000));
    let error = pinned.verify_server_cert(&shown, &[], &name, &[], in_2096).unwrap_err();
    assert!(format!("{error:?}").contains("Expired"), "{error:?}");
}
