//! Fetching from a server that misbehaves: breaks off, is silent, drips, never ends, lies, redirects.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use afterhours::config::settings::ProxySettings;
use afterhours::config::settings::TransportSettings;
use afterhours::domain::failure::Failure;
use afterhours::domain::failure::FailureCode;
use afterhours::domain::progress::Silent;
use afterhours::feed::transport::Limits;
use afterhours::feed::transport::Patience;
use afterhours::feed::transport::Refusal;
use afterhours::feed::transport::Transport;
use afterhours::feed::transport::TransportError;
use afterhours::feed::transport::Wanted;
use afterhours::wire::error::ErrorKind;
use rstest::rstest;
use sha2::Digest;
use sha2::Sha256;
use url::Url;

use crate::feed::web::Answer;
use crate::feed::web::Then;
use crate::feed::web::Web;

/// Patience for servers on this host.
pub(super) const SHORT: Limits = Limits {
    connect: Duration::from_millis(500),
    answer: Duration::from_secs(1),
    read: Duration::from_millis(500),
    bytes_per_second_min: 10_000,
    window: Duration::from_millis(300),
    patience: Patience {
        tries_max: 3,
        span_max: Duration::from_secs(20),
        pause_first: Duration::from_millis(1),
        pause_max: Duration::from_millis(20),
    },
};

pub(super) fn transport(settings: &TransportSettings) -> Transport {
    Transport::with_limits(settings, SHORT).unwrap()
}

/// No proxy, whatever the environment of the tests says.
pub(super) fn direct() -> TransportSettings {
    TransportSettings { proxy: ProxySettings::Direct, ..TransportSettings::default() }
}

fn plain() -> Transport {
    transport(&direct())
}

/// Bytes that are different everywhere.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(next).collect()
}

pub(super) fn want(data: &[u8]) -> Wanted {
    let sha256 = Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    Wanted { sha256, size_bytes: data.len() as u64 }
}

/// Where files are fetched to.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("downloads/file")
    }

    fn part(&self) -> PathBuf {
        self.0.path().join("downloads/file.part")
    }

    /// What an interrupted try left.
    fn leave(&self, bytes: &[u8]) {
        fs::create_dir_all(self.0.path().join("downloads")).unwrap();
        fs::write(self.part(), bytes).unwrap();
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

async fn fetch(transport: &Transport, url: &Url, data: &[u8], place: &Place) -> Result<(), TransportError> {
    transport.fetch(url, &want(data), &place.file(), &Silent).await
}

/// As a person reads it.
pub(super) fn told(error: &TransportError) -> String {
    format!("failed to {}; {}", Failure::from_error(error), error.hint().unwrap_or_default())
}

#[tokio::test]
async fn a_small_body_is_there_or_is_not() {
    let web = Web::start(|question| match question.path.as_str() {
        "/there" => Answer::new(200, "", "four"),
        "/gone" => Answer::new(410, "", "no"),
        _ => Answer::new(404, "", "no"),
    });
    let transport = plain();
    assert_eq!(transport.get(&web.url("/there"), 4).await.unwrap().unwrap(), b"four");
    assert_eq!(transport.get(&web.url("/gone"), 4).await.unwrap(), None);
    assert_eq!(transport.get(&web.url("/missing"), 4).await.unwrap(), None);
    assert_eq!(web.questions().len(), 3, "none was asked twice");
}

#[rstest]
#[case::announced(|| Answer::new(200, "", "fives"))]
#[case::endless(|| Answer::open(200, "", vec![Then::Endless]))]
#[tokio::test]
async fn a_body_is_cut_off_at_its_limit(#[case] answer: fn() -> Answer) {
    let web = Web::start(move |_| answer());
    let error = plain().get(&web.url("/"), 4).await.unwrap_err();
    assert!(matches!(error, TransportError::TooLarge { bytes_max: 4, .. }), "{error:?}");
    assert_eq!(web.questions().len(), 1);
}

#[tokio::test]
async fn a_packed_body_is_not_unpacked() {
    let web = Web::start(|_| Answer::new(200, "content-encoding: gzip\r\n", vec![0x1f, 0x8b]));
    let error = plain().get(&web.url("/"), 1000).await.unwrap_err();
    assert!(matches!(&error, TransportError::Encoded { encoding, .. } if encoding == "gzip"), "{error:?}");
    // What was signed is what lies on the server, whatever the server calls it.
    let data = [0x1f, 0x8b, 8, 0];
    let place = Place::new();
    fetch(&plain(), &web.url("/"), &data[..2], &place).await.unwrap();
    assert_eq!(fs::read(place.file()).unwrap(), &data[..2]);
}

#[tokio::test]
async fn the_server_learns_nothing_but_the_licence_number() {
    let data = noise(1000);
    let served = data.clone();
    let web = Web::start(move |question| Answer::file(question, &served));
    let place = Place::new();
    let licence_file = Some(place.write("licence", "AB-12345\n"));
    let transport = transport(&TransportSettings { licence_file, ..direct() });
    place.leave(&data[..400]);
    fetch(&transport, &web.url("/file"), &data, &place).await.unwrap();
    transport.get(&web.url("/file"), 1000).await.unwrap();
    plain().get(&web.url("/file"), 1000).await.unwrap();
    let questions = web.questions();
    assert_eq!(questions[0].header_names(), ["accept", "authorization", "host", "range", "user-agent"]);
    assert_eq!(questions[1].header_names(), ["accept", "authorization", "host", "user-agent"]);
    assert_eq!(questions[2].header_names(), ["accept", "host", "user-agent"]);
    assert_eq!(questions[0].header("authorization"), Some("Bearer AB-12345"));
    assert_eq!(questions[0].header("accept"), Some("*/*"));
    assert_eq!(questions[0].header("user-agent"), Some(concat!("afterhours/", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn a_renewed_licence_needs_no_restart_and_a_bad_one_is_not_sent() {
    let web = Web::start(|_| Answer::new(200, "", "x"));
    let place = Place::new();
    let file = place.write("licence", "old");
    let transport = transport(&TransportSettings { licence_file: Some(file.clone()), ..direct() });
    transport.get(&web.url("/"), 1).await.unwrap();
    fs::write(&file, "new").unwrap();
    transport.get(&web.url("/"), 1).await.unwrap();
    for bad in ["", "\n", "two words", "two\nlines", "not-äscii"] {
        fs::write(&file, bad).unwrap();
        let error = transport.get(&web.url("/"), 1).await.unwrap_err();
        assert!(matches!(error, TransportError::BadLicence { .. }), "{bad:?}: {error:?}");
    }
    fs::remove_file(&file).unwrap();
    let error = transport.get(&web.url("/"), 1).await.unwrap_err();
    assert!(matches!(error, TransportError::ReadLicence { .. }), "{error:?}");
    let sent: Vec<_> =
        web.questions().iter().map(|question| question.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(sent, ["Bearer old", "Bearer new"]);
}

#[tokio::test]
async fn the_licence_number_is_not_sent_in_clear() {
    let place = Place::new();
    let licence_file = Some(place.write("licence", "AB-12345"));
    let transport = transport(&TransportSettings { licence_file, ..direct() });
    let error = transport.get(&"http://vendor.invalid/orders/".parse().unwrap(), 1).await.unwrap_err();
    assert!(matches!(error, TransportError::LicenceInClear { .. }), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(told(&error).contains("https://") && !told(&error).contains("AB-12345"), "{}", told(&error));
}

#[tokio::test]
async fn a_redirect_gets_the_licence_number_only_where_it_belongs() {
    let cdn = Web::start(|_| Answer::new(200, "", "x"));
    let elsewhere = cdn.url("/file");
    let web = Web::start(move |question| match question.path.as_str() {
        "/away" => Answer::new(302, &format!("location: {elsewhere}\r\n"), ""),
        "/here" => Answer::new(307, "location: there\r\n", ""),
        "/round" => Answer::new(301, "location: /round\r\n", ""),
        "/file" => Answer::new(302, "location: file:///etc/passwd\r\n", ""),
        _ => Answer::new(200, "", "y"),
    });
    let place = Place::new();
    let licence_file = Some(place.write("licence", "AB-12345"));
    let transport = transport(&TransportSettings { licence_file, ..direct() });
    assert_eq!(transport.get(&web.url("/away"), 1).await.unwrap().unwrap(), b"x");
    assert_eq!(cdn.questions()[0].header_names(), ["accept", "host", "user-agent"]);
    assert_eq!(transport.get(&web.url("/here"), 1).await.unwrap().unwrap(), b"y");
    assert!(web.questions().iter().all(|question| question.header("authorization").is_some()));
    let before = web.questions().len();
    let error = transport.get(&web.url("/round"), 1).await.unwrap_err();
    assert!(matches!(error, TransportError::TooManyRedirects { max: 5, .. }), "{error:?}");
    assert_eq!(web.questions().len() - before, 6);
    let error = transport.get(&web.url("/file"), 1).await.unwrap_err();
    assert!(matches!(error, TransportError::BadRedirect { .. }), "{error:?}");
}

#[rstest]
#[case(401, "licence_unknown", Refusal::Unknown)]
#[case(402, "licence_expired", Refusal::Expired)]
#[case(403, "site_not_registered", Refusal::NotRegistered)]
#[tokio::test]
async fn a_refused_licence_has_its_own_words(
    #[case] status: u16,
    #[case] code: &'static str,
    #[case] expected: Refusal,
) {
    let web = Web::start(move |_| Answer::new(status, "", format!(r#"{{"error": "{code}"}}"#)));
    let place = Place::new();
    let licence_file = Some(place.write("licence", "AB-12345"));
    let transport = transport(&TransportSettings { licence_file, ..direct() });
    let error = transport.get(&web.url("/"), 1).await.unwrap_err();
    assert!(matches!(error, TransportError::Licence { refusal, .. } if refusal == expected), "{error:?}");
    assert_eq!((error.code().map(FailureCode::name), error.kind()), (Some(code), ErrorKind::Refused));
    assert!(told(&error).contains(expected.text()) && !told(&error).contains("AB-12345"), "{}", told(&error));
    assert!(!format!("{error:?} {transport:?}").contains("AB-12345"));
    assert_eq!(web.questions().len(), 1, "no is no");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://anna:secret@{free}/x?key=secret").parse().unwrap();
    let error = plain().get(&url, 1).await.unwrap_err();
    assert_eq!(
        (error.code(), error.kind()),
        (Some(FailureCode::ServerUnreachable), ErrorKind::Unavailable),
        "{error:?}"
    );
    let said = told(&error);
    assert!(said.contains("refused") && said.contains(&free.to_string()) && !said.contains("secret"), "{said}");
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_does_not_is_not() {
    let web = Web::start(|question| match (question.path.as_str(), question.number) {
        ("/busy", 0 | 1) => Answer::new(503, "retry-after: 3600\r\n", ""),
        ("/busy", _) => Answer::new(200, "", "x"),
        _ => Answer::new(question.path[1..].parse().unwrap(), "", ""),
    });
    let transport = plain();
    assert_eq!(transport.get(&web.url("/busy"), 1).await.unwrap().unwrap(), b"x");
    assert_eq!(web.questions().len(), 3, "an hour was not waited for");
    for (status, tries) in [(400, 1), (403, 1), (418, 1), (501, 1), (408, 3), (429, 3), (500, 3), (503, 3)] {
        let before = web.questions().len();
        let error = transport.get(&web.url(&format!("/{status}")), 1).await.unwrap_err();
        assert!(matches!(error, TransportError::Status { status: found, .. } if found == status), "{error:?}");
        assert_eq!(web.questions().len() - before, tries, "{status}");
    }
}

#[rstest]
#[case::no_answer(Answer::none, "silent")]
#[case::no_body(|| Answer::open(200, "content-length: 9\r\n", vec![Then::Hang]), "silent")]
#[case::drip(|| Answer::open(200, "content-length: 9000\r\n", vec![Then::Drip]), "bytes a second")]
#[case::broken(|| Answer::open(200, "content-length: 9\r\n", vec![]), "broke off")]
#[tokio::test]
async fn a_server_that_does_not_go_on_is_given_up(#[case] answer: fn() -> Answer, #[case] words: &str) {
    let web = Web::start(move |_| answer());
    let error = plain().get(&web.url("/"), 10_000).await.unwrap_err();
    assert!(told(&error).contains(words), "{}", told(&error));
    assert_eq!((error.code(), web.questions().len()), (Some(FailureCode::ServerUnreachable), 3));
}

#[tokio::test]
async fn an_interrupted_download_goes_on_where_it_ended() {
    let data = noise(1_500_000);
    let served = data.clone();
    let web = Web::start(move |question| match question.number {
        0 => Answer::stuck_file(question, &served, 900_000),
        _ => Answer::file(question, &served),
    });
    let place = Place::new();
    let transport = Transport::new(&direct()).unwrap();
    let url = web.url("/file");
    {
        let dropped = fetch(&transport, &url, &data, &place);
        let there = async {
            let deadline = Instant::now() + Duration::from_secs(20);
            while fs::metadata(place.part()).map_or(0, |meta| meta.len()) < 500_000 {
                assert!(Instant::now() < deadline, "nothing comes");
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            done = dropped => panic!("it ended: {done:?}"),
            () = there => {}
        }
    }
    assert!(!place.file().exists());
    fetch(&transport, &url, &data, &place).await.unwrap();
    assert!(fs::read(place.file()).unwrap() == data && !place.part().exists());
    let questions = web.questions();
    assert_eq!(questions.len(), 2);
    assert!(questions[1].from() >= 500_000, "{:?}", questions[1]);
    fetch(&transport, &url, &data, &place).await.unwrap();
    assert_eq!(web.questions().len(), 2, "what is whole is not fetched again");
}

#[tokio::test]
async fn a_connection_that_breaks_is_taken_up_as_long_as_it_gets_further() {
    let data = noise(12_000_000);
    let served = data.clone();
    let web = Web::start(move |question| Answer::broken_file(question, &served, 2_000_000));
    let place = Place::new();
    fetch(&plain(), &web.url("/file"), &data, &place).await.unwrap();
    assert!(fs::read(place.file()).unwrap() == data);
    let questions = web.questions();
    assert!((6..10).contains(&questions.len()), "{questions:?}");
    assert!(questions.windows(2).all(|pair| pair[0].from() < pair[1].from()), "{questions:?}");
}

#[rstest]
#[case::without_ranges(|data: &[u8]| Answer::new(200, "", data))]
#[case::with_another_range(|data: &[u8]| Answer::new(206, "content-range: bytes 5-9/1000\r\n", &data[5..10]))]
#[case::with_no_range(|data: &[u8]| Answer::new(206, "", &data[5..10]))]
#[case::satisfying_none(|_: &[u8]| Answer::new(416, "", ""))]
#[tokio::test]
async fn a_server_that_cannot_go_on_is_asked_from_the_start(#[case] answer: fn(&[u8]) -> Answer) {
    let data = noise(1000);
    let served = data.clone();
    let web = Web::start(move |question| match question.from() {
        0 => Answer::file(question, &served),
        _ => answer(&served),
    });
    let place = Place::new();
    place.leave(&data[..400]);
    fetch(&plain(), &web.url("/file"), &data, &place).await.unwrap();
    assert!(fs::read(place.file()).unwrap() == data);
}

#[rstest]
#[case::damaged(400, 1)]
#[case::whole_but_damaged(1000, 1)]
#[case::longer_than_declared(1500, 1)]
#[tokio::test]
async fn a_part_that_is_not_the_beginning_is_dropped(#[case] left: usize, #[case] whole_answers: usize) {
    let data = noise(1000);
    let served = data.clone();
    let web = Web::start(move |question| Answer::file(question, &served));
    let place = Place::new();
    place.leave(&vec![7; left]);
    fetch(&plain(), &web.url("/file"), &data, &place).await.unwrap();
    assert!(fs::read(place.file()).unwrap() == data);
    assert_eq!(web.questions().iter().filter(|question| question.from() == 0).count(), whole_answers);
}

#[rstest]
#[case::other_bytes(|| Answer::new(200, "", vec![7; 1000]), "sha256")]
#[case::shorter(|| Answer::new(200, "", vec![7; 999]), "999 bytes instead of 1000")]
#[case::longer(|| Answer::new(200, "", vec![7; 1001]), "1001 bytes instead of 1000")]
#[case::endless(|| Answer::open(200, "", vec![Then::Endless]), "more than 1000 bytes")]
#[case::absent(|| Answer::new(404, "", ""), "not there")]
#[tokio::test]
async fn what_is_not_the_file_is_not_kept(#[case] answer: fn() -> Answer, #[case] words: &str) {
    let web = Web::start(move |_| answer());
    let place = Place::new();
    let error = fetch(&plain(), &web.url("/file"), &noise(1000), &place).await.unwrap_err();
    assert!(told(&error).contains(words), "{}", told(&error));
    assert_eq!(web.questions().len(), 1);
    assert!(!place.file().exists());
    let left = fs::metadata(place.part()).map_or(0, |meta| meta.len());
    assert_eq!(left, 0, "nothing of it is taken up");
}

#[tokio::test]
async fn two_who_want_the_same_file_fetch_it_once() {
    let data = noise(800_000);
    let served = data.clone();
    let web = Web::start(move |question| Answer::file(question, &served));
    let place = Place::new();
    let (one, two) = (plain(), plain());
    let url = web.url("/file");
    let (one, two) = tokio::join!(fetch(&one, &url, &data, &place), fetch(&two, &url, &data, &place));
    one.unwrap();
    two.unwrap();
    assert!(fs::read(place.file()).unwrap() == data && !place.part().exists());
    assert_eq!(web.questions().len(), 1);
}

/// What another process is told to fetch.
pub(super) struct Errand<'a> {
    pub(super) url: &'a Url,
    pub(super) data: &'a [u8],
    pub(super) into: &'a Path,
    pub(super) ca_file: Option<&'a Path>,
}

/// The same in a process of its own, which can be killed and has an environment of its own.
pub(super) fn fetch_elsewhere(errand: &Errand<'_>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "feed::transport::fetching_in_a_process_of_its_own", "--nocapture"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    let Wanted { sha256, size_bytes } = want(errand.data);
    command.env("AFTERHOURS_TEST_URL", errand.url.as_str()).env("AFTERHOURS_TEST_INTO", errand.into);
    command.env("AFTERHOURS_TEST_SHA256", sha256).env("AFTERHOURS_TEST_SIZE", size_bytes.to_string());
    if let Some(file) = errand.ca_file {
        command.env("AFTERHOURS_TEST_CA", file);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[tokio::test]
async fn fetching_in_a_process_of_its_own() {
    let told_us = |name: &str| std::env::var_os(name).map(|value| value.into_string().unwrap());
    let Some(url) = told_us("AFTERHOURS_TEST_URL") else {
        // Nobody told: an errand of our own.
        let data = noise(1000);
        let served = data.clone();
        let web = Web::start(move |question| Answer::file(question, &served));
        let place = Place::new();
        let errand = Errand { url: &web.url("/file"), data: &data, into: &place.file(), ca_file: None };
        let output = fetch_elsewhere(&errand).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(fs::read(place.file()).unwrap() == data);
        return;
    };
    let ca_file = told_us("AFTERHOURS_TEST_CA").map(PathBuf::from);
    let want = Wanted {
        sha256: told_us("AFTERHOURS_TEST_SHA256").unwrap(),
        size_bytes: told_us("AFTERHOURS_TEST_SIZE").unwrap().parse().unwrap(),
    };
    let into = PathBuf::from(told_us("AFTERHOURS_TEST_INTO").unwrap());
    let transport = transport(&TransportSettings { ca_file, ..TransportSettings::default() });
    let fetched = transport.fetch(&url.parse().unwrap(), &want, &into, &Silent).await;
    fetched.unwrap_or_else(|error| panic!("{}", told(&error)));
}

#[test]
fn killed_in_the_middle_leaves_a_beginning_that_is_taken_up() {
    let data = noise(3_000_000);
    let served = data.clone();
    static STUCK_AT: AtomicUsize = AtomicUsize::new(0);
    let web = Web::start(move |question| match STUCK_AT.load(Ordering::SeqCst) {
        0 => Answer::file(question, &served),
        at => Answer::stuck_file(question, &served, at - question.from()),
    });
    let place = Place::new();
    let (url, into) = (web.url("/file"), place.file());
    let errand = Errand { url: &url, data: &data, into: &into, ca_file: None };
    let len = || fs::metadata(place.part()).map_or(0, |meta| meta.len() as usize);
    for at in [700_000, 1_400_000, 2_900_000] {
        STUCK_AT.store(at, Ordering::SeqCst);
        let before = len();
        let mut child = fetch_elsewhere(&errand).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while len() < before + 300_000 {
            assert!(Instant::now() < deadline, "nothing comes");
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!place.file().exists());
    }
    STUCK_AT.store(0, Ordering::SeqCst);
    let kept = len();
    let output = fetch_elsewhere(&errand).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read(place.file()).unwrap() == data);
    let froms: Vec<usize> = web.questions().iter().map(|question| question.from()).collect();
    assert!(froms.windows(2).all(|pair| pair[0] <= pair[1]) && froms[1] > 0, "{froms:?}");
    assert_eq!(froms.last(), Some(&kept), "only the rest was fetched");
}
