//! The messages, the reference, and what cannot be.

use std::collections::BTreeSet;
use std::path::Path;

use toml::Value;

use super::*;
use crate::config::schema::Schema;
use crate::config::settings::AppSettings;
use crate::config::settings::OpenGate;
use crate::config::settings::SessionsSettings;
use crate::domain::name::AppName;
use crate::domain::span::Span;

/// The least that can be said of an application.
const LEAST: &str = r#"
[app.orders]
install_dir = "/opt/orders"
service = { systemd = "orders" }
feed = { dir = "/srv/releases/orders" }
"#;

fn orders(text: &str) -> AppSettings {
    let name: AppName = "orders".parse().unwrap();
    parse(text, "test.toml").unwrap_or_else(|error| panic!("{error}")).apps.remove(&name).unwrap()
}

/// A message with its causes and its hint, as a person sees it.
fn told(error: &ConfigError) -> String {
    let source = error.source.as_ref().map(|source| format!("\n  because: {source}")).unwrap_or_default();
    let hint = error.hint().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
    format!("{error}{source}{hint}\n")
}

/// The example of the reference, made active; `alternatives` are the lines that begin with `#or `.
fn example() -> (String, Vec<String>) {
    let mut alternatives = Vec::new();
    let mut text = String::new();
    for line in DEFAULT.lines() {
        let commented =
            line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '['));
        match (line.strip_prefix("#or "), commented) {
            (Some(alternative), _) => alternatives.push(alternative.to_owned()),
            (None, Some(active)) => text += &format!("{active}\n"),
            (None, None) => text += &format!("{line}\n"),
        }
    }
    (text, alternatives)
}

/// Replaces the line of the same key.
fn with(text: &str, line: &str) -> String {
    let key = line.split_once(" = ").unwrap().0;
    let is_it = |old: &&str| old.split_once(" = ").is_some_and(|(name, _)| name == key);
    assert_eq!(text.lines().filter(is_it).count(), 1, "{key}");
    text.lines().map(|old| if is_it(&old) { line } else { old }.to_owned() + "\n").collect()
}

/// The secrets that the reference names, made in `dir`.
fn with_secrets(text: &str, dir: &Path) -> String {
    fs_err::write(dir.join("mail.password"), "secret\n").unwrap();
    fs_err::write(dir.join("mail-ca.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    fs_err::write(dir.join("proxy.password"), "secret\n").unwrap();
    fs_err::write(dir.join("feed-ca.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    fs_err::write(dir.join("orders-ca.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let dir = dir.display().to_string();
    let names = [
        "/etc/afterhours/mail.password",
        "/etc/afterhours/mail-ca.pem",
        "/etc/afterhours/proxy.password",
        "/etc/afterhours/feed-ca.pem",
        "/etc/afterhours/orders-ca.pem",
    ];
    names.iter().fold(text.to_owned(), |text, name| text.replace(name, &name.replace("/etc/afterhours", &dir)))
}

#[test]
fn the_reference_is_the_default() {
    let bare = |text: &str| Settings { digest: String::new(), ..parse(text, "test.toml").unwrap() };
    let (reference, nothing) = (bare(DEFAULT), bare(""));
    assert_eq!(format!("{reference:?}"), format!("{nothing:?}"));
    assert!(reference.apps.is_empty());
}

#[test]
fn the_example_and_each_of_its_alternatives_can_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let (text, alternatives) = example();
    let read = |text: &str| parse(&with_secrets(text, dir.path()), "example").map_err(|error| told(&error));
    assert_eq!(read(&text).unwrap().apps.len(), 1);
    assert!(alternatives.len() > 10);
    for alternative in &alternatives {
        read(&with(&text, alternative)).unwrap_or_else(|error| panic!("{alternative}\n{error}"));
    }
}

/// Whatever key names a file of ours that is no authority is a secret of the application, or the daemon's.
#[test]
fn every_secret_that_the_example_names_is_known_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let (text, alternatives) = example();
    let texts = alternatives.iter().map(|alternative| with(&text, alternative)).chain([text.clone()]);
    let mut known = BTreeSet::new();
    for text in texts {
        let other = "\n[app.other]\ninstall_dir = \"/opt/other\"\nservice = { none = true }\nfeed = { dir = \"/f\" }\n";
        let settings = parse(&with_secrets(&(text + other), dir.path()), "example").unwrap();
        let keys = |app: &str| -> Vec<String> {
            let secrets = &settings.apps[&app.parse().unwrap()].secrets;
            secrets.iter().map(|secret| secret.key.clone()).collect()
        };
        assert!(keys("other").iter().all(|key| key.starts_with("daemon.")), "{:?}", keys("other"));
        known.extend(keys("orders"));
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    assert_eq!(
        known,
        [
            "app.orders.backup.evidence.passphrase_file",
            "app.orders.backup.evidence.password_file",
            "app.orders.feed.licence_file",
            "app.orders.feed.proxy_password_file",
            "daemon.mail.password_file",
        ]
    );
}

#[test]
fn the_example_states_the_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let (example, least) = (orders(&with_secrets(&example().0, dir.path())), orders(LEAST));
    assert_eq!(example.keep_old, least.keep_old);
    assert_eq!(example.service.deadline, least.service.deadline);
    let health = |app: &AppSettings| (app.health.times, app.health.every, app.health.deadline);
    assert_eq!(health(&example), health(&least));
    assert_eq!((example.grace, example.reminders), (least.grace, least.reminders));
    assert_eq!((example.polite_end, example.census_wait), (least.polite_end, least.census_wait));
    assert_eq!((example.open_gate, example.sessions), (least.open_gate, least.sessions));
    assert_eq!(example.report, least.report);
    assert_eq!(settings::UpdateSettings { licence_class: None, ..example.updates }, least.updates);
    assert_eq!(example.hooks.deadline, least.hooks.deadline);
    let bare =
        with(&(LEAST.to_owned() + "backup = 1\n"), "backup = { evidence = { files = \"/srv/backup/orders-*.dump\" } }");
    let (example, bare) = (example.backup.unwrap(), orders(&bare).backup.unwrap());
    assert_eq!((example.max_age, example.deadline), (bare.max_age, bare.deadline));
    let sizes = |backup: &settings::BackupSettings| match backup.evidence {
        settings::EvidenceSettings::Files { min_size_bytes, max_shrink_percent, .. } => {
            (min_size_bytes, max_shrink_percent)
        }
        _ => panic!("files"),
    };
    assert_eq!(sizes(&example), sizes(&bare));
}

/// Every key of `schema` that no value of `documented` shows.
fn undocumented(schema: &Schema, documented: &[&Value], place: &str, missing: &mut Vec<String>) {
    match schema {
        // The table that a command may be is documented once for all.
        Schema::Value | Schema::Command(_) => {}
        Schema::Map(below) => {
            let values: Vec<_> =
                documented.iter().filter_map(|value| value.as_table()).flat_map(|t| t.values()).collect();
            if values.is_empty() {
                missing.push(format!("{place}.*"));
            }
            undocumented(below, &values, &format!("{place}.*"), missing);
        }
        Schema::List(below) => {
            let values: Vec<_> = documented.iter().filter_map(|value| value.as_array()).flatten().collect();
            undocumented(below, &values, &format!("{place}[]"), missing);
        }
        Schema::Table(keys) => {
            for (key, below) in keys {
                let values: Vec<_> = documented.iter().filter_map(|value| value.get(key)).collect();
                // A variant without content is written as a word.
                if values.is_empty() && !documented.iter().any(|value| value.as_str() == Some(key)) {
                    missing.push(format!("{place}.{key}"));
                }
                undocumented(below, &values, &format!("{place}.{key}"), missing);
            }
        }
    }
}

#[test]
fn every_key_is_documented_in_the_reference() {
    let (text, alternatives) = example();
    let variants = alternatives.iter().map(|alternative| with(&text, alternative)).chain([text.clone()]);
    let documents: Vec<Value> = variants.map(|text| toml::from_str(&text).unwrap()).collect();
    let mut missing = Vec::new();
    undocumented(&Schema::of::<Input>(), &documents.iter().collect::<Vec<_>>(), "", &mut missing);
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn the_least_gets_the_defaults() {
    let app = orders(LEAST);
    assert_eq!(app.title, "orders");
    assert_eq!(app.staging_dir, Path::new("/opt/.orders.afterhours"));
    assert_eq!(app.reminders, [Span::mins(5), Span::mins(2), Span::secs(30)]);
    assert_eq!(app.sessions, [SessionsSettings::Workstations]);
    assert_eq!(app.open_gate, OpenGate::Automatic);
    assert_eq!(orders(&format!("{LEAST}grace = \"2m\"")).reminders, [Span::mins(2), Span::secs(30)]);
    assert_eq!(orders(&format!("{LEAST}grace = \"0s\"")).reminders, []);
    insta::assert_debug_snapshot!(app);
}

#[test]
fn newer_releases_are_looked_for_as_often_as_wished() {
    let updates = |text: &str| orders(&format!("{LEAST}updates = {{ {text} }}")).updates;
    let every = |text: &str| updates(&format!("check_every = {text:?}")).check_every;
    assert_eq!([every("never"), every("1m"), every("7d")], [None, Some(Span::mins(1)), Some(Span::days(7))]);
    let at_start = updates("check_at_start = false");
    assert_eq!((at_start.check_at_start, at_start.check_every), (false, Some(Span::hours(1))));
}

#[test]
fn keep_patterns_do_not_cross_directories_unless_told() {
    let app = orders(&format!("{LEAST}keep = [\"config/**\", \"*.key\", \"certs/\"]"));
    let kept = ["config/a/b.conf", "licence.key", "certs/x.pem"].map(|path| app.keep.set.is_match(path));
    let lost = ["bin/orders", "lib/other.key", "certs"].map(|path| app.keep.set.is_match(path));
    assert_eq!((kept, lost), ([true; 3], [false; 3]));
}

/// Wrong applications: a name, and what stands in `[app.orders]` instead of or beside the least.
const WRONG_APPS: &[(&str, &str)] = &[
    ("a misspelt key", "graze = \"5m\""),
    ("a misspelt key deep down", "health = { http = \"http://127.0.0.1/\", tiems = 3 }"),
    ("a misspelt key in a list", "sessions = [{ workstations = true }, { lst = [\"who\"] }]"),
    ("a key at the wrong place", "max_age = \"2d\""),
    ("a key of nobody", "colour = \"red\""),
    ("two probes", "health = { http = \"http://127.0.0.1/\", tcp = \"127.0.0.1:80\" }"),
    ("a name for a port", "health = { tcp = \"localhost:80\" }"),
    ("no URL", "health = { http = \"127.0.0.1/health\" }"),
    ("a file URL", "health = { http = \"file:///health\" }"),
    ("zero times", "health = { http = \"http://127.0.0.1/\", times = 0 }"),
    ("less than zero times", "health = { http = \"http://127.0.0.1/\", times = -1 }"),
    ("a word for a number", "health = { http = \"http://127.0.0.1/\", times = \"three\" }"),
    ("too little time", "health = { http = \"http://127.0.0.1/\", times = 61, every = \"1s\" }"),
    ("a relative directory", "install_dir = \"opt/orders\""),
    ("a directory upwards", "install_dir = \"/opt/../orders\""),
    ("a directory too high up", "install_dir = \"/opt\""),
    ("a shell line", "hooks = { before_stop = \"systemctl stop orders-worker\" }"),
    ("an empty command", "hooks = { before_stop = [] }"),
    ("a command without a program", "hooks = { before_stop = [\"\", \"x\"] }"),
    ("a number in a command", "hooks = { before_stop = [\"sleep\", 5] }"),
    ("two services", "service = { systemd = \"orders.service\", run = [\"orders\"] }"),
    ("no unit", "service = { systemd = [] }"),
    ("a unit twice", "service = { systemd = [\"orders\", \"orders.service\"] }"),
    ("a template", "service = { systemd = \"orders@.service\" }"),
    ("half a service", "service = { start = [\"a\"], stop = [\"b\"] }"),
    ("no service", "service = { deadline = \"1m\" }"),
    ("an environment for systemd", "service = { systemd = \"orders.service\", env = { A = \"1\" } }"),
    ("a service that is not none", "service = { none = false }"),
    ("a bad pattern", "keep = [\"config/**\", \"certs/[a\"]"),
    ("an absolute pattern", "keep = [\"/etc/orders/**\"]"),
    ("a reminder before grace", "grace = \"1m\"\nreminders = [\"30s\", \"2m\"]"),
    ("a span without a unit", "grace = 5"),
    ("a span in words", "grace = \"soon\""),
    ("a gate that opens by magic", "open_gate = \"magic\""),
    ("a gate after nothing", "open_gate = { after = [] }"),
    ("half a gate", "gate = [{ file = \"/run/nologin\" }, { close = [\"a\"] }]"),
    ("paths and a dump", "data = { paths = [\"/var/lib/orders\"], dump = [\"a\"], restore = [\"b\"] }"),
    ("a dump without a way back", "data = { dump = [\"a\"] }"),
    ("data that hold the program", "data = { paths = [\"/var/lib/orders\", \"/opt\"] }"),
    ("data that hold our own", "data = { paths = [\"/var/lib\"] }"),
    ("data within data", "data = { paths = [\"/var/lib/orders\", \"/var/lib/orders/db\"] }"),
    ("patterns for a dump", "data = { dump = [\"a\"], restore = [\"b\"], exclude = [\"c\"] }"),
    ("a backup without evidence", "backup = { max_age = \"2d\" }"),
    ("two kinds of evidence", "backup = { evidence = { files = \"/b/*\", restic = \"/r\" } }"),
    ("evidence with a foreign key", "backup = { evidence = { files = \"/b/*\", tag = \"orders\" } }"),
    ("evidence in any directory", "backup = { evidence = { files = \"/srv/*/orders.dump\" } }"),
    ("evidence that is a directory", "backup = { evidence = { files = \"/srv/backup/\" } }"),
    ("restic without a password", "backup = { evidence = { restic = \"/r\" } }"),
    ("retention for restic", "backup = { evidence = { restic = \"/r\", password_file = \"/p\" }, keep_last = 3 }"),
    ("a shrink beyond all", "backup = { evidence = { files = \"/b/*\", max_shrink_percent = 101 } }"),
    ("no feed directory", "feed = {}"),
    ("two feeds", "feed = { dir = \"/srv/releases\", url = \"https://example.com/\" }"),
    ("a root for a directory", "feed = { dir = \"/srv/releases\", root = \"/etc/root.json\" }"),
    ("a feed by ftp", "feed = { url = \"ftp://example.com/orders/\" }"),
    ("a feed without a scheme", "feed = { url = \"example.com/orders\" }"),
    ("a feed with a password", "feed = { url = \"https://me:pw@example.com/\" }"),
    ("a feed that is a question", "feed = { url = \"https://example.com/?app=orders\" }"),
    ("a root somewhere", "feed = { url = \"https://example.com/\", root = \"root.json\" }"),
    ("an authority that is not there", "feed = { url = \"https://example.com/\", ca_file = \"/nonexistent/ca\" }"),
    ("a proxy by socks", "feed = { url = \"https://example.com/\", proxy = \"socks5://proxy:1080\" }"),
    ("a proxy with a password", "feed = { url = \"https://example.com/\", proxy = \"http://me:pw@proxy:3128\" }"),
    ("a login for no proxy", "feed = { url = \"https://example.com/\", proxy = \"none\", proxy_user = \"u\" }"),
    ("half a login", "feed = { url = \"https://example.com/\", proxy = \"http://proxy\", proxy_user = \"u\" }"),
    ("a trickle", "feed = { url = \"https://example.com/\", bandwidth = 10 }"),
    ("a cool-down without a unit", "updates = { cool_down = 3 }"),
    ("a blank class of licences", "updates = { licence_class = \"\" }"),
    ("a feed looked at all the time", "updates = { check_every = \"5s\" }"),
    ("a feed looked at without a pause", "updates = { check_every = \"0s\" }"),
    ("a feed looked at in words", "updates = { check_every = \"daily\" }"),
    ("a feed looked at so many times", "updates = { check_every = 24 }"),
    ("a start in words", "updates = { check_at_start = \"yes\" }"),
    ("a misspelt key of updates", "updates = { cooldown = \"3d\" }"),
    ("no mail address", "report = { group = [\"it@example.com\", \"the it people\"] }"),
    ("no owner", "owner = \"orders\""),
    ("no version", "installed_version = \"two point three\""),
    ("a blank title", "title = \" \""),
];

#[test]
fn what_is_wrong_with_an_application_is_said_with_line_and_key() {
    let mut all = String::new();
    for (name, lines) in WRONG_APPS {
        let key = lines.split_once(" = ").unwrap().0;
        let rest = LEAST.lines().filter(|line| !line.starts_with(&format!("{key} = ")));
        let text = rest.collect::<Vec<_>>().join("\n") + "\n" + lines + "\n";
        let error = parse(&text, "test.toml").err().unwrap_or_else(|| panic!("{name} is accepted"));
        assert!(error.line.is_some() && error.key.is_some(), "{name}: {error}");
        all += &format!("# {name}\n{}\n", told(&error));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn what_is_wrong_with_the_rest_is_said_with_line_and_key() {
    let mail = |rest: &str| format!("[daemon]\nmail = {{ {rest} }}\n");
    let wrong = [
        ("no TOML", "[daemon\n".to_owned()),
        ("a key twice", "[daemon]\nsocket = \"/a\"\nsocket = \"/b\"\n".to_owned()),
        ("a table nobody knows", "[deamon]\nsocket = \"/a\"\n".to_owned()),
        ("a value for a table", "daemon = 3\n".to_owned()),
        ("a bad name", "[app.\"a b\"]\n".to_owned()),
        ("an application without anything", "[daemon]\n\n[app.orders]\ntitle = \"x\"\n".to_owned()),
        ("a history that is no history", "[daemon]\nkeep_history = \"1h\"\n".to_owned()),
        ("an audit that is forgotten first", "[daemon]\nkeep_history = \"2d\"\nkeep_audit = \"1d\"\n".to_owned()),
        ("mail without a server", mail("from = \"a@example.com\"")),
        ("mail without a sender", mail("smtp = \"smtp://mail.example.com\"")),
        ("mail by http", mail("smtp = \"http://mail.example.com\", from = \"a@example.com\"")),
        ("mail in the clear", mail("smtp = \"smtp+plain://mail.example.com\", from = \"a@example.com\"")),
        ("a password in the URL", mail("smtp = \"smtp://me:pw@mail.example.com\", from = \"a@example.com\"")),
        (
            "a user without a password",
            mail("smtp = \"smtp://mail.example.com\", from = \"a@example.com\", user = \"u\""),
        ),
        (
            "a password that is not there",
            mail(
                "smtp = \"smtp://m.example.com\", from = \"a@example.com\", user = \"u\", password_file = \"/nonexistent/pw\"",
            ),
        ),
        (
            "two applications in each other",
            format!(
                "{LEAST}{}",
                LEAST.replace("[app.orders]", "[app.crm]").replace("\"/opt/orders\"", "\"/opt/orders/crm\"")
            ),
        ),
    ];
    let mut all = String::new();
    for (name, text) in wrong {
        let error = parse(&text, "test.toml").err().unwrap_or_else(|| panic!("{name} is accepted"));
        assert!(error.line.is_some(), "{name}: {error}");
        all += &format!("# {name}\n{}\n", told(&error));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_password_is_read_without_its_line_break_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pw");
    fs_err::write(&file, "p w\r\n").unwrap();
    let text = format!(
        "[daemon]\nmail = {{ smtp = \"smtps://[::1]\", from = \"IT <a@example.com>\", user = \"u\", password_file = {file:?} }}"
    );
    let settings = parse(&text, "test.toml").unwrap();
    let mail = settings.daemon.mail.as_ref().unwrap();
    assert_eq!((mail.host.as_str(), mail.port, mail.tls), ("::1", 465, settings::MailTls::Implicit));
    let (_, password) = mail.login.as_ref().unwrap();
    assert_eq!(secrecy::ExposeSecret::expose_secret(password), "p w");
    assert!(!format!("{settings:?}").contains("p w"));
    fs_err::write(&file, "\n").unwrap();
    assert!(parse(&text, "test.toml").unwrap_err().message.ends_with("is empty"));
}

#[test]
fn a_named_file_must_exist_and_the_standard_one_need_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.toml");
    let error = load(Some(&file)).unwrap_err();
    assert_eq!((error.message.as_str(), error.line), ("cannot be read", None));
    assert_eq!(error.hint().as_deref(), Some("write one with `afterhours init`"));
    assert_eq!(read_or(None, &file).unwrap(), (DEFAULT.to_owned(), DEFAULT_ORIGIN.to_owned()));
    fs_err::write(&file, [0xff]).unwrap();
    assert_eq!(read_or(None, &file).unwrap_err().message, "is not UTF-8");
    fs_err::write(&file, "[daemon]\nsocket = \"/run/other.sock\"\n").unwrap();
    let daemon = load(Some(&file)).unwrap().daemon;
    assert_eq!(daemon.socket, Path::new("/run/other.sock"));
    assert_eq!(daemon.workstation_socket, Path::new("/run/workstations.sock"), "beside it");
    let same = "[daemon]\nsocket = \"/run/a.sock\"\nworkstation_socket = \"/run/./a.sock\"\n";
    let error = parse(same, "a.toml").unwrap_err();
    assert_eq!(error.key.as_deref(), Some("daemon.workstation_socket"));
}

#[test]
fn the_sockets_are_found_without_access_to_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.toml");
    let text = "[daemon]\nmail = { smtp = \"smtp://m\", from = \"a@b.c\", user = \"u\", password_file = \"/nonexistent/pw\" }\n";
    fs_err::write(&file, text).unwrap();
    assert!(load(Some(&file)).is_err());
    let (operators, workstations) = load_sockets(Some(&file)).unwrap();
    assert_eq!(operators, Path::new("/run/afterhours/afterhours.sock"));
    assert_eq!(workstations, Path::new("/run/afterhours/workstations.sock"));
}

#[test]
fn a_line_is_the_line_an_editor_shows() {
    let error = parse("# ä\r\n\r\n[daemon]\r\ndata_dir = \"x\"\r\n", "a.toml").unwrap_err();
    assert_eq!(error.to_string(), "a.toml:4: daemon.data_dir: \"x\" is not an absolute path");
    let error = parse("app.orders.install_dir = 3", "a.toml").unwrap_err();
    assert_eq!((error.line, error.key.as_deref()), (Some(1), Some("app.orders.install_dir")));
}

#[test]
fn what_is_wrong_takes_out_its_part_only() {
    let wrong = [
        ("[app.crm]\ninstall_dir = 3\n", "crm"),
        ("[app.crm]\ninstal_dir = \"/opt/crm\"\n", "crm"),
        ("[app.crm]\ninstall_dir = \"/opt/crm\"\n", "crm"),
        // The same directory, by another name.
        (
            "[app.zoo]\ninstall_dir = \"/opt/orders/inner\"\nservice = { none = true }\nfeed = { dir = \"/srv/f\" }\n",
            "zoo",
        ),
        ("[app.\"no name\"]\ninstall_dir = \"/opt/crm\"\n", "no name"),
    ];
    for (text, out) in wrong {
        let text = format!("{LEAST}\n{text}");
        let (settings, first) = parse_fit(&text, "test.toml").unwrap();
        assert_eq!(settings.apps.len(), 1, "{text}");
        assert_eq!(settings.unfit.keys().collect::<Vec<_>>(), [out], "{text}");
        assert!(settings.unfit[out].why.starts_with("test.toml:"), "{:?}", settings.unfit);
        assert!(first.is_some() && parse(&text, "test.toml").is_err());
    }
    let mail =
        "[daemon]\nmail = { smtp = \"smtp://mail\", from = \"a@b.c\", user = \"a\", password_file = \"/no/such\" }\n";
    let (settings, _) = parse_fit(&format!("{mail}{LEAST}"), "test.toml").unwrap();
    assert!(settings.daemon.mail.is_none() && settings.mail_unfit.is_some() && settings.apps.len() == 1);
    for hopeless in ["[app", "nonsense = 1", "app = 3", "[daemon]\nsocket = 3"] {
        assert!(parse_fit(&format!("{hopeless}\n{LEAST}"), "test.toml").is_err(), "{hopeless}");
    }
}
