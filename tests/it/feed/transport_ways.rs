//! Ways to a server: TLS with its authorities, and proxies that ask for a password.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use afterhours::config::settings::HealthProbe;
use afterhours::config::settings::HealthSettings;
use afterhours::config::settings::ProxySettings;
use afterhours::config::settings::TransportSettings;
use afterhours::domain::failure::FailureCode;
use afterhours::domain::span::Span;
use afterhours::feed::transport::TransportError;
use afterhours::probe::Probe;
use afterhours::wire::error::ErrorKind;
use url::Url;

use crate::feed::run;
use crate::feed::text;
use crate::feed::transport::Errand;
use crate::feed::transport::direct;
use crate::feed::transport::fetch_elsewhere;
use crate::feed::transport::noise;
use crate::feed::transport::told;
use crate::feed::transport::transport;
use crate::feed::web::Answer;
use crate::feed::web::Web;

/// An authority, and a server's certificate by it, in a directory.
pub(super) fn authority(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let new = |out: &[&str]| run("openssl", "openssl", &[&["req"], &key[..], out].concat());
    new(&["-x509", "-days", "2", "-subj", "/CN=Authority", "-keyout", &path("ca.key"), "-out", &path("ca.pem")]);
    new(&["-subj", "/CN=Server", "-keyout", &path("server.key"), "-out", &path("server.csr")]);
    fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let by = ["-CA", &path("ca.pem"), "-CAkey", &path("ca.key"), "-CAcreateserial", "-extfile", &path("names")];
    let sign = ["x509", "-req", "-days", "2", "-in", &path("server.csr"), "-out", &path("server.pem")];
    run("openssl", "openssl", &[&sign[..], &by].concat());
}

/// As a beginner makes it: an authority that stands for a server, with its name in the old way only.
fn self_signed(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"];
    run("openssl", "openssl", &[&new[..], &["-keyout", &path("server.key"), "-out", &path("server.pem")]].concat());
}

fn pinned(file: PathBuf) -> TransportSettings {
    TransportSettings { ca_file: Some(file), ..direct() }
}

#[tokio::test]
async fn only_the_pinned_authority_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (dir.path().join("right"), dir.path().join("wrong"));
    authority(&right);
    authority(&wrong);
    let web = Web::start_tls(&right, |_| Answer::new(200, "", "x"));
    assert_eq!(transport(&pinned(right.join("ca.pem"))).get(&web.url("/"), 1).await.unwrap().unwrap(), b"x");
    for settings in [pinned(wrong.join("ca.pem")), direct()] {
        let error = transport(&settings).get(&web.url("/"), 1).await.unwrap_err();
        assert!(matches!(error, TransportError::Untrusted { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Failed);
        let said = told(&error);
        assert!(said.contains("certificate is not trusted") && said.contains("feed.ca_file"), "{said}");
    }
    assert_eq!(web.questions().len(), 1, "the question itself is not told to strangers");
    let named = web.url("/").as_str().replace("127.0.0.1", "localhost").parse().unwrap();
    let error = transport(&pinned(right.join("ca.pem"))).get(&named, 1).await.unwrap_err();
    assert!(matches!(error, TransportError::Untrusted { .. }), "a certificate for another name: {error:?}");
}

#[tokio::test]
async fn a_certificate_of_ones_own_is_trusted_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (right, wrong) = (dir.path().join("right"), dir.path().join("wrong"));
    self_signed(&right);
    self_signed(&wrong);
    let web = Web::start_tls(&right, |_| Answer::new(200, "", "x"));
    assert_eq!(transport(&pinned(right.join("server.pem"))).get(&web.url("/"), 1).await.unwrap().unwrap(), b"x");
    let error = transport(&pinned(wrong.join("server.pem"))).get(&web.url("/"), 1).await.unwrap_err();
    assert!(matches!(error, TransportError::Untrusted { .. }), "{error:?}");
    let named = web.url("/").as_str().replace("127.0.0.1", "localhost").parse().unwrap();
    let error = transport(&pinned(right.join("server.pem"))).get(&named, 1).await.unwrap_err();
    assert!(matches!(error, TransportError::Untrusted { .. }), "a certificate for another name: {error:?}");
}

#[tokio::test]
async fn a_health_page_has_a_certificate_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    self_signed(dir.path());
    // Once a process; a second time it is there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let web = Web::start_tls(dir.path(), |_| Answer::new(200, "", "1.2"));
    let settings = |ca_file| HealthSettings {
        probe: HealthProbe::Http(web.url("/")),
        version: None,
        ca_file,
        deep: None,
        times: 1,
        every: Span::secs(1),
        deadline: Span::secs(10),
    };
    let ask = async |ca_file| Probe::new(&settings(ca_file)).unwrap().ask(None, &BTreeMap::new()).await;
    let answer = ask(Some(dir.path().join("server.pem"))).await.unwrap();
    assert_eq!(answer.version.as_deref(), Some("1.2"));
    let error = ask(None).await.unwrap_err();
    assert!(error.hint().unwrap().contains("health.ca_file"), "{error:?}: {:?}", error.hint());
}

#[test]
fn a_file_without_an_authority_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let refused = || afterhours::feed::transport::Transport::new(&pinned(file.clone())).unwrap_err();
    assert!(matches!(refused(), TransportError::ReadAuthority { .. }));
    fs::write(&file, "nothing of the kind").unwrap();
    assert!(matches!(refused(), TransportError::BadAuthority { .. }));
    fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let error = refused();
    assert!(told(&error).contains("as PEM, or correct feed.ca_file"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_does_not_shake_hands_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let error = transport(&direct()).get(&url, 1).await.unwrap_err();
    assert!(matches!(error, TransportError::Silent { stage: "connect", .. }), "{error:?}");
    assert_eq!(error.code(), Some(FailureCode::ServerUnreachable));
}

#[test]
fn the_hosts_authorities_are_trusted_unless_one_is_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("tls");
    authority(&tls);
    let data = noise(100_000);
    let served = data.clone();
    let web = Web::start_tls(&tls, move |question| Answer::file(question, &served));
    let (url, empty, ca) = (web.url("/file"), dir.path().join("empty"), tls.join("ca.pem"));
    fs::create_dir(&empty).unwrap();
    let fetch = |into: &str, ca_file: Option<&Path>, hosts: Option<&Path>| {
        let into = dir.path().join(into);
        let mut command = fetch_elsewhere(&Errand { url: &url, data: &data, into: &into, ca_file });
        command.env("SSL_CERT_DIR", &empty);
        if let Some(hosts) = hosts {
            command.env("SSL_CERT_FILE", hosts);
        }
        let output = command.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read(&into).is_ok_and(|bytes| bytes == data), output.status.success(), "{said}");
        (output.status.success(), said)
    };
    assert!(fetch("by-host", None, Some(&ca)).0, "an authority of the host");
    assert!(fetch("by-pin", Some(&ca), None).0, "a host without authorities, and a pinned one");
    let (done, said) = fetch("by-none", None, None);
    assert!(!done && said.contains("this host has none installed") && said.contains("feed.ca_file"), "{said}");
}

/// The real tinyproxy, which asks for a password.
struct Proxy {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Proxy {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nBasicAuth anna s3cret\n\
             LogFile \"{log}\"\nLogLevel Connect\n",
            log = dir.path().join("log").display()
        );
        fs::write(dir.path().join("conf"), config).unwrap();
        let mut command = Command::new("tinyproxy");
        command.args(["-d", "-c", text(&dir.path().join("conf"))]).stdout(Stdio::null()).stderr(Stdio::null());
        let child =
            command.spawn().unwrap_or_else(|error| panic!("tinyproxy cannot be run ({error}); install tinyproxy"));
        let proxy = Self { child, dir, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "tinyproxy does not listen");
            std::thread::yield_now();
        }
        proxy
    }

    fn url(&self, login: &str) -> Url {
        format!("http://{login}127.0.0.1:{}", self.port).parse().unwrap()
    }

    fn settings(&self, password: Option<&str>, except: &[&str]) -> ProxySettings {
        ProxySettings::Through {
            url: self.url(""),
            login: password.map(|password| ("anna".to_owned(), password.into())),
            except: except.iter().map(|&host| host.to_owned()).collect(),
        }
    }

    /// What it says of the requests it has served.
    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_proxy_is_asked_with_its_password() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let proxy = Proxy::start();
    let plain = Web::start(|_| Answer::new(200, "", "x"));
    let secure = Web::start_tls(dir.path(), |_| Answer::new(200, "", "x"));
    let with = |proxy| transport(&TransportSettings { proxy, ..pinned(dir.path().join("ca.pem")) });
    let through = with(proxy.settings(Some("s3cret"), &[]));
    for web in [&plain, &secure] {
        assert_eq!(through.get(&web.url("/file"), 1).await.unwrap().unwrap(), b"x");
    }
    let log = proxy.log();
    let tunnel = format!("CONNECT {}", secure.url("/").authority());
    assert!(log.contains(&format!("GET {}", plain.url("/file"))) && log.contains(&tunnel), "{log}");
    let names = |web: &Web| web.questions()[0].header_names().join(" ");
    assert_eq!(names(&secure), "accept host user-agent", "the proxy's password is the proxy's");
    assert!(!names(&plain).contains("authorization"), "{}", names(&plain));

    for settings in [proxy.settings(Some("wrong"), &[]), proxy.settings(None, &[])] {
        let refused = with(settings);
        for web in [&plain, &secure] {
            let error = refused.get(&web.url("/file"), 1).await.unwrap_err();
            let said = told(&error);
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            // Asked for a tunnel, this proxy says no more than no to a wrong password.
            let is_named = said.contains("a user and a password that it knows");
            assert!(is_named || said.contains("the proxy does not connect"), "{said}");
            assert!(said.contains("feed.proxy_password_file"), "{said}");
            assert!(!said.contains("wrong"), "{said}");
        }
    }
    for direct in [proxy.settings(Some("wrong"), &["example.com", "127.0.0.0/8"]), ProxySettings::Direct] {
        assert_eq!(with(direct).get(&secure.url("/file"), 1).await.unwrap().unwrap(), b"x");
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for scheme in ["http", "https"] {
        let error = through.get(&format!("{scheme}://{closed}/").parse().unwrap(), 1).await;
        // A listener that is gone by now.
        assert_eq!(error.unwrap_err().code(), Some(FailureCode::ServerUnreachable));
    }
}

#[tokio::test]
async fn on_this_host_the_licence_number_goes_around_a_proxy_elsewhere() {
    let web = Web::start(|_| Answer::new(200, "", "x"));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("licence"), "AB-12345").unwrap();
    // A proxy elsewhere, that nobody could reach.
    let proxy =
        ProxySettings::Through { url: "http://proxy.invalid:3128".parse().unwrap(), login: None, except: Vec::new() };
    let licence_file = Some(dir.path().join("licence"));
    let settings = TransportSettings { proxy, licence_file, ..TransportSettings::default() };
    assert_eq!(transport(&settings).get(&web.url("/"), 1).await.unwrap().unwrap(), b"x");
    assert_eq!(web.questions()[0].header("authorization"), Some("Bearer AB-12345"));
}

#[test]
fn the_environment_names_the_proxy_where_the_configuration_does_not() {
    let proxy = Proxy::start();
    let dir = tempfile::tempdir().unwrap();
    let data = noise(1000);
    let served = data.clone();
    let web = Web::start(move |question| Answer::file(question, &served));
    let url = web.url("/file");
    let fetch = |into: &str, env: &[(&str, &str)]| {
        let into = dir.path().join(into);
        let mut command = fetch_elsewhere(&Errand { url: &url, data: &data, into: &into, ca_file: None });
        let output = command.envs(env.iter().copied()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (right, wrong) = (proxy.url("anna:s3cret@"), proxy.url("anna:wrong@"));
    assert!(fetch("through", &[("HTTP_PROXY", right.as_str())]).0);
    assert!(proxy.log().contains(&format!("GET {url}")), "{}", proxy.log());
    let (done, said) = fetch("refused", &[("http_proxy", wrong.as_str())]);
    assert!(!done && said.contains("a user and a password that it knows") && !said.contains("wrong"), "{said}");
    assert!(fetch("around", &[("HTTP_PROXY", wrong.as_str()), ("NO_PROXY", "example.com, 127.0.0.1")]).0);
}
