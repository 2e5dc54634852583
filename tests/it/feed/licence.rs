//! What a vendor's server says to a licence number, through the program: its words, its exit code, and the code in JSON.

use std::path::Path;
use std::process::Command;

use rstest::rstest;
use serde_json::Value;
use url::Url;

use crate::feed::transport_ways::authority;
use crate::feed::web::Answer;
use crate::feed::web::Web;
use crate::night::site::Site;

const NUMBER: &str = "AB-12345";

/// A root that a vendor has made; nothing is asked of a server without one.
fn make_root(dir: &Path) {
    fs_err::write(dir.join("pw"), "correct horse battery\n").unwrap();
    fs_err::write(dir.join("timer-pw"), "what the timer reads\n").unwrap();
    let mut create = Command::new(env!("CARGO_BIN_EXE_afterhours"));
    create.args(["feed", "create", "--together"]).arg(dir.join("orders")).arg("--passphrase-file").arg(dir.join("pw"));
    create.arg("--online-passphrase-file").arg(dir.join("timer-pw"));
    let made = create.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A site whose feed is at `url`, with a licence number or without.
async fn site(dir: &Path, url: &Url, has_number: bool) -> Site {
    make_root(dir);
    fs_err::write(dir.join("number"), format!("{NUMBER}\n")).unwrap();
    let number = if has_number { format!(", licence_file = {:?}", dir.join("number")) } else { String::new() };
    let (root, ca) = (dir.join("orders/root.json"), dir.join("ca.pem"));
    let feed = format!("{{ url = \"{url}\", root = {root:?}, ca_file = {ca:?}, proxy = \"none\"{number} }}");
    Site::with(&[("feed", &feed)]).await
}

/// What a command ends with in each of its two forms, both of which have to say the same.
async fn must_say(site: &Site, command: &[&str], (code, kind, exit): (&str, &str, i32), words: &str) {
    let json = [command, &["--json"]].concat();
    let ((exited, said, talk), (exited_too, _, told)) = tokio::join!(site.run(&json), site.run(command));
    assert_eq!((exited, exited_too), (exit, exit), "{command:?}: {said}{talk}{told}");
    let error = &serde_json::from_str::<Value>(&said).unwrap()["error"];
    assert_eq!((&error["code"], &error["kind"]), (&code.into(), &kind.into()), "{command:?}: {error}");
    assert!(error["hint"].is_string() && error["because"].to_string().contains(words), "{command:?}: {error}");
    assert!(told.contains(words) && told.contains(error["hint"].as_str().unwrap()), "{command:?}: {told}");
    assert!(!format!("{said}{talk}{told}").contains(NUMBER), "{said}{talk}{told}");
}

const REFRESH: &[&str] = &["feed", "refresh", "orders"];
const CHECK: &[&str] = &["update", "check", "orders"];

#[rstest]
#[case::unknown(401, "", "{\"error\": \"licence_unknown\"}", "licence_unknown", "does not know this licence number")]
#[case::expired(402, "", "{\"error\": \"licence_expired\"}", "licence_expired", "the licence has expired")]
#[case::expired_in_the_header(
    401,
    "www-authenticate: Bearer realm=\"orders\", error=\"licence_expired\"\r\n",
    "",
    "licence_expired",
    "the licence has expired"
)]
#[case::not_registered(
    403,
    "",
    "{\"error\": \"site_not_registered\"}",
    "site_not_registered",
    "is not registered for the licence"
)]
#[case::required(401, "", "{\"error\": \"licence_required\"}", "licence_required", "asks for a licence number")]
#[tokio::test]
async fn a_script_tells_a_vendors_refusals_apart(
    #[case] status: u16,
    #[case] headers: &'static str,
    #[case] body: &'static str,
    #[case] code: &str,
    #[case] words: &str,
) {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let web = Web::start_tls(dir.path(), move |_| Answer::new(status, headers, body));
    let has_number = code != "licence_required";
    let mut site = site(dir.path(), &web.url("/orders/"), has_number).await;
    let expected = (code, "refused", 4);
    must_say(&site, REFRESH, expected, words).await;
    must_say(&site, CHECK, expected, words).await;
    must_say(&site, &["update", "notes"], expected, words).await;
    site.serve().await;
    must_say(&site, CHECK, expected, words).await;
    for question in web.questions() {
        let sent = has_number.then(|| format!("Bearer {NUMBER}"));
        assert_eq!(question.header("authorization"), sent.as_deref());
        let names = question.header_names().join(" ");
        assert_eq!(names, if has_number { "accept authorization host user-agent" } else { "accept host user-agent" });
    }
}

#[tokio::test]
async fn a_script_knows_when_the_server_cannot_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("https://{nobody}/orders/").parse().unwrap();
    let mut site = site(dir.path(), &url, true).await;
    // Who asks at the same time asks one after the other, and each is patient: once for each way is enough.
    let must_say = async |site: &Site, command: &[&str]| {
        let (exit, said, talk) = site.run(&[command, &["--json"]].concat()).await;
        let error = &serde_json::from_str::<Value>(&said).unwrap()["error"];
        let expected = (7, &"server_unreachable".into(), &"unavailable".into());
        assert_eq!((exit, &error["code"], &error["kind"]), expected, "{command:?}: {said}{talk}");
        assert!(error["because"].to_string().contains("the server cannot be reached"), "{command:?}: {said}");
    };
    must_say(&site, REFRESH).await;
    must_say(&site, CHECK).await;
    site.serve().await;
    must_say(&site, CHECK).await;
}
