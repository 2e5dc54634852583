//! What other programs say, before it becomes part of a failure, a mail or a bundle: bounded, and with
//! whatever looks like a secret masked.
//!
//! A program that fails likes to repeat its command line, its environment or the address it could not reach. All of
//! that is read by more people than its log is. What is masked too much is still in the log; what is
//! masked too little cannot be called back.

use crate::domain::plain::one_line;

/// In place of what looked like a secret.
const MASK: &str = "***";
/// How many lines of a program's output are kept.
pub const LINES_MAX: usize = 40;
/// How many bytes of a program's output are kept, in all lines together.
pub const BYTES_MAX: usize = 4 * 1024;
/// Among how many first words of a line its gravity is looked for: a date, a time, a process.
const GRAVITY_WORDS_MAX: usize = 16;
/// How many lines of a log are kept.
pub const JOURNAL_LINES_MAX: usize = 50;
/// How many bytes of a log are kept.
pub const JOURNAL_BYTES_MAX: usize = 12 * 1024;
/// How many characters of one line fit into a message.
pub const LINE_CHARS_MAX: usize = 300;
/// How many characters of a name are shown.
pub const NAME_CHARS_MAX: usize = 64;
/// How many names are listed; the others are counted.
pub const NAMES_MAX: usize = 20;
/// A name that has one of these in it names a secret, whatever else it says.
const SECRET_NAMES: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "passwort",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "credential",
];
/// The same, where it is the last part of a name.
const SECRET_ENDS: [&str; 7] =
    ["access_key", "access-key", "private_key", "private-key", "signing_key", "_pass", "-pass"];
/// Headers of which nothing is told.
const SECRET_HEADERS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];
/// What stands before a secret without a sign between.
const SCHEMES: [&str; 1] = ["bearer"];

/// The last lines of a text that say something, masked: at most [`LINES_MAX`] lines and [`BYTES_MAX`] bytes.
pub fn last_lines(text: &str) -> Vec<String> {
    last_of(text, LINES_MAX, BYTES_MAX)
}

/// The last lines of a log that somebody looks into for a cause: more of them.
pub fn journal(text: &str) -> Vec<String> {
    last_of(text, JOURNAL_LINES_MAX, JOURNAL_BYTES_MAX)
}

fn last_of(text: &str, lines_max: usize, bytes_max: usize) -> Vec<String> {
    let masked = masked(text);
    let mut kept = Vec::new();
    let mut room = bytes_max;
    for line in masked.lines().rev().map(str::trim_end).filter(|line| !line.trim().is_empty()).take(lines_max) {
        let line = one_line(line);
        if line.len() > room {
            // Of one line that is too long by itself, its beginning says what it is about.
            if kept.is_empty() {
                kept.push(line[..line.floor_char_boundary(room)].to_owned());
            }
            break;
        }
        room -= line.len();
        kept.push(line);
    }
    kept.reverse();
    kept
}

/// The last line that says something, clipped: not the one that only points at a place in the line above.
pub fn telling_line(text: &str) -> Option<String> {
    let lines = last_lines(text);
    let tells = |line: &&String| line.chars().any(char::is_alphanumeric) && !quotes(line);
    lines.iter().rfind(tells).or(lines.last()).map(|line| clipped(line.trim()))
}

/// `LINE 1: select x from y`, as databases show where the error above is.
fn quotes(line: &str) -> bool {
    let rest = line.trim().strip_prefix("LINE ").map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    rest.is_some_and(|rest| rest.starts_with(':'))
}

/// The lines that warn. Where a text says of its lines how grave they are, as logs do, only those that say so and what
/// belongs to them; elsewhere all.
pub fn warnings(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let is_log = lines.clone().any(|line| gravity(line).is_some());
    let mut warns = !is_log;
    lines
        .filter(|line| {
            warns = gravity(line).unwrap_or(warns);
            warns
        })
        .collect()
}

/// Whether a line of a log warns; nothing where it does not say.
fn gravity(line: &str) -> Option<bool> {
    let mut words =
        line.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).take(GRAVITY_WORDS_MAX);
    let bracketed = |letters: &[char]| {
        line.trim_start().strip_prefix('[').is_some_and(|rest| rest.starts_with(letters) && rest[1..].starts_with(' '))
    };
    if bracketed(&['I', 'D']) {
        return Some(false);
    }
    if bracketed(&['W', 'E', 'C', 'F']) {
        return Some(true);
    }
    words.find_map(|word| match word {
        "TRACE" | "DEBUG" | "INFO" | "NOTICE" => Some(false),
        "WARN" | "WARNING" | "ERROR" | "CRITICAL" | "FATAL" => Some(true),
        _ => None,
    })
}

/// The first lines of what a program said, masked and bounded like [`last_lines`].
pub fn first_lines(text: &str) -> Vec<String> {
    let masked = masked(text);
    let mut kept = Vec::new();
    let mut room = BYTES_MAX;
    for line in masked.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()).take(LINES_MAX) {
        let line = short(line);
        if line.len() > room {
            break;
        }
        room -= line.len();
        kept.push(line);
    }
    kept
}

/// The last line of a text that says something, masked and short enough for a message.
pub fn last_line(text: &str) -> Option<String> {
    let line = last_lines(text).pop()?;
    Some(clipped(line.trim()))
}

/// A line that is short enough for a message, masked.
pub fn short(line: &str) -> String {
    clipped(&one_line(&masked(line)))
}

fn clipped(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// A name that somebody gives themself, as it is shown: in one line, bounded, and with nothing hidden in it. A second time
/// changes nothing.
pub fn name(said: &str) -> String {
    let shown = one_line(said);
    match shown.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) if shown[end..].chars().nth(1).is_some() => format!("{}…", &shown[..end]),
        _ => shown,
    }
}

/// Many names as one text: `anna, bert and 17,474 others`.
pub fn names(all: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let (mut shown, mut chars, mut others) = (Vec::new(), 0, 0);
    for one in all {
        // The number of the others must fit into a line of a mail, too.
        if shown.len() == NAMES_MAX || chars >= LINE_CHARS_MAX {
            others += 1;
        } else {
            let one = clipped(one.as_ref());
            chars += one.chars().count();
            shown.push(one);
        }
    }
    match others {
        0 => shown.join(", "),
        1 => format!("{} and 1 other", shown.join(", ")),
        others => format!("{} and {} others", shown.join(", "), grouped(others)),
    }
}

/// A number with a comma after every three digits.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A text without what looks like a secret: values of names such as `password` or `token`, what follows
/// `Authorization`, user and password within an address, and private keys.
pub fn masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut within_key = false;
    for line in text.split_inclusive('\n') {
        let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
        let begins = line.contains("-----BEGIN") && line.contains("PRIVATE KEY");
        if within_key || begins {
            if begins {
                out.push_str(MASK);
                out.push_str(end);
            }
            within_key = !line.contains("-----END");
            continue;
        }
        out.push_str(&without_named(&without_userinfo(line)));
        out.push_str(end);
    }
    out
}

/// Masks what stands between `://` and `@`.
fn without_userinfo(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let word = after.split(|c: char| c.is_whitespace() || "\"'<>`".contains(c)).next().unwrap_or_default();
        let authority = word.split(['/', '?', '#']).next().unwrap_or_default();
        // A password with a slash in it is written wrongly, and is a password all the same; a port is a number.
        let broken = || {
            let (_, after_user) = authority.split_once(':')?;
            after_user.chars().any(|c| !c.is_ascii_digit()).then(|| word.rfind('@')).flatten()
        };
        match authority.rfind('@').or_else(broken) {
            Some(at) => {
                out.push_str(MASK);
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

/// Masks the values of names that look like those of secrets: `NAME=value`, `NAME: value`, `"NAME": "value"`,
/// `--NAME value`.
fn without_named(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(is_of_name) {
        let (before, from) = rest.split_at(start);
        let (name, after) = from.split_at(from.find(|c| !is_of_name(c)).unwrap_or(from.len()));
        out.push_str(before);
        out.push_str(name);
        rest = after;
        let lower = name.to_lowercase();
        let bare = lower.trim_start_matches('-');
        let Some(sign) = sign(after, lower.starts_with("--") || SCHEMES.contains(&bare)) else { continue };
        let value = &after[sign..];
        let ends = if SECRET_HEADERS.contains(&bare) {
            value.len()
        } else if is_secret(bare) || SCHEMES.contains(&bare) {
            end_of_value(value)
        } else {
            continue;
        };
        if ends > 0 {
            out.push_str(&after[..sign]);
            out.push_str(MASK);
            rest = &value[ends..];
        }
    }
    out.push_str(rest);
    out
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

fn is_secret(name: &str) -> bool {
    name == "pass"
        || SECRET_NAMES.iter().any(|secret| name.contains(secret))
        || SECRET_ENDS.iter().any(|secret| name.ends_with(secret))
}

/// The length of what stands between a name and its value, `: ` or `=` or `": `; a blank only where `blank` is enough.
fn sign(after: &str, blank: bool) -> Option<usize> {
    let unquoted = after.trim_start_matches(['"', '\'', '\\', ']']);
    let trimmed = unquoted.trim_start();
    let value = match trimmed.strip_prefix([':', '=']) {
        Some(value) => value.trim_start_matches(['>', '=']).trim_start(),
        None if blank && trimmed.len() < unquoted.len() => trimmed,
        None => return None,
    };
    Some(after.len() - value.len())
}

/// Where a value ends: at its closing quote, else at a blank or at what separates it from the next one.
fn end_of_value(value: &str) -> usize {
    let inner = value.trim_start_matches('\\');
    let Some(quote) = inner.chars().next().filter(|c| ['"', '\''].contains(c)) else {
        return value.find(|c: char| c.is_whitespace() || ",;&\"')}]".contains(c)).unwrap_or(value.len());
    };
    let from = value.len() - inner.len() + 1;
    // Its own backslashes, if the whole text was quoted, are masked with it.
    let mut escaped = value.starts_with('\\');
    let nested = escaped;
    for (at, c) in value[from..].char_indices() {
        match c {
            c if c == quote && (!escaped || nested) => return from + at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    value.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("password=hunter2", "password=***")]
    #[case("PGPASSWORD=hunter2 psql", "PGPASSWORD=*** psql")]
    #[case("could not log in: Password: hunter2", "could not log in: Password: ***")]
    #[case("db.password = hunter2", "db.password = ***")]
    #[case("{\"password\": \"hunt er2\", \"user\": \"anna\"}", "{\"password\": ***, \"user\": \"anna\"}")]
    #[case("{\"password\": \"hunt\\\"er2\"}", "{\"password\": ***}")]
    #[case("said {\\\"token\\\":\\\"hunter2\\\"}", "said {\\\"token\\\":***}")]
    #[case("{'api_key': 'hunter2'}", "{'api_key': ***}")]
    #[case("config[\"secret\"]=hunter2", "config[\"secret\"]=***")]
    #[case("GET /x?access_token=hunter2&user=anna", "GET /x?access_token=***&user=anna")]
    #[case("restic --password hunter2 backup", "restic --password *** backup")]
    #[case("tool --api-key=hunter2", "tool --api-key=***")]
    #[case("Server=db;Uid=sa;Pwd=hunter2;Timeout=3", "Server=db;Uid=sa;Pwd=***;Timeout=3")]
    #[case("AWS_SECRET_ACCESS_KEY=hunter2", "AWS_SECRET_ACCESS_KEY=***")]
    #[case("smtp_pass: hunter2", "smtp_pass: ***")]
    #[case("Authorization: Basic YW5uYTpodW50ZXIy", "Authorization: ***")]
    #[case("curl -H 'Authorization: Bearer hunter2' http://x", "curl -H 'Authorization: ***")]
    #[case("sent Bearer hunter2, refused", "sent Bearer ***, refused")]
    #[case("Set-Cookie: sid=hunter2; Path=/", "Set-Cookie: ***")]
    #[case("postgres://anna:hunter2@db:5432/orders is down", "postgres://***@db:5432/orders is down")]
    #[case("https://hunter2@example.com/x", "https://***@example.com/x")]
    #[case("mysql://anna:hunt@er2@db/x and ftp://b:hunter2@c", "mysql://***@db/x and ftp://***@c")]
    #[case("postgres://anna:hunt/er2@db/x", "postgres://***@db/x")]
    #[case("-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\nafter", "***\nafter")]
    fn what_looks_like_a_secret_is_masked(#[case] said: &str, #[case] told: &str) {
        assert_eq!(masked(said), told);
        assert_eq!(masked(told), told, "a second time changes nothing");
    }

    #[rstest]
    #[case("FATAL: password authentication failed for user \"anna\"")]
    #[case("wrong password or no key found")]
    #[case("cannot reach http://127.0.0.1:8080/users/@anna")]
    #[case("see https://example.com/a@b")]
    #[case("mail to it@example.com was refused")]
    #[case("compass: north, passed: 3, bypass = yes, keyboard: de")]
    #[case("unexpected token '}' at line 3")]
    #[case("column \"orders.total\" does not exist\n\n")]
    fn what_does_not_is_left_alone(#[case] said: &str) {
        assert_eq!(masked(said), said);
    }

    #[test]
    fn the_last_lines_are_bounded() {
        let many: String = (1..=100).map(|n| format!("line {n}  \n\n")).collect();
        let kept = last_lines(&many);
        assert_eq!((kept.len(), kept[0].as_str(), kept[39].as_str()), (LINES_MAX, "line 61", "line 100"));
        let long: String = (1..=30).map(|n| format!("{n}{}\n", "x".repeat(1000))).collect();
        let kept = last_lines(&long);
        assert_eq!((kept.len(), &kept[3][..2]), (4, "30"));
        assert_eq!(last_lines(&"ä".repeat(BYTES_MAX))[0].len(), BYTES_MAX);
        assert_eq!(last_lines(" \n\n"), Vec::<String>::new());
        assert_eq!(
            last_line(&format!("first\n {} \n\n", "x".repeat(400))).unwrap().chars().count(),
            LINE_CHARS_MAX + 1
        );
        assert_eq!(last_line("no licence\n token: x\n").as_deref(), Some("token: ***"));
        assert_eq!(last_lines("a\u{1b}[31mb\tc\npassword=x"), ["a [31mb c", "password=***"]);
    }

    #[test]
    fn a_headline_says_something() {
        let psql = "ERROR:  column \"vat\" does not exist\nLINE 1: select vat from orders;\n               ^\n";
        assert_eq!(telling_line(psql).as_deref(), Some("ERROR:  column \"vat\" does not exist"));
        assert_eq!(telling_line("SyntaxError: bad\n    ^^^^\n---\n").as_deref(), Some("SyntaxError: bad"));
        assert_eq!(telling_line("^\n").as_deref(), Some("^"));
        assert_eq!(telling_line(""), None);
    }

    #[test]
    fn warnings_are_lines_that_warn() {
        let log = "2026-11-22 02:30:01,5 17 INFO orders odoo.modules: loading\n\
                   2026-11-22 02:30:02,5 17 WARNING orders odoo.models: no vat\n  of order 7\n\
                   2026-11-22 02:30:03,5 17 INFO orders odoo.modules: done";
        assert_eq!(warnings(log).len(), 2, "{:?}", warnings(log));
        assert_eq!(warnings("[I 2026-11-22 02:30 alembic] Running upgrade"), Vec::<&str>::new());
        assert_eq!(warnings("[W 2026-11-22 02:30 alembic] old style").len(), 1);
        assert_eq!(warnings("order 7 has no date\norder 9 has no date").len(), 2, "it is no log");
    }

    #[test]
    fn names_are_bounded_and_show_what_is_in_them() {
        assert_eq!(name("anna"), "anna");
        assert_eq!(name("Änne Özil"), "Änne Özil");
        assert_eq!(name("a\u{202e}toor\u{1b}[2J"), "a\\u{202e}toor [2J");
        let long = name(&"x".repeat(100));
        assert_eq!((long.chars().count(), name(&long)), (NAME_CHARS_MAX + 1, long.clone()));
        let many = |count: usize| names((1..=count).map(|n| format!("u{n}")));
        assert_eq!(many(0), "");
        assert_eq!(many(2), "u1, u2");
        assert!(many(21).ends_with(", u20 and 1 other"));
        assert!(many(17_494).ends_with(", u20 and 17,474 others"));
        assert!(names(vec!["x".repeat(100); 9]).ends_with("x and 6 others"));
        assert_eq!(names(["x".repeat(1000)]).chars().count(), LINE_CHARS_MAX + 1);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(?s).{0,200}") {
            let once = masked(&text);
            prop_assert!(last_lines(&text).iter().map(String::len).sum::<usize>() <= BYTES_MAX);
            prop_assert!(once.lines().count() <= text.lines().count());
        }

        #[test]
        fn no_value_comes_through(
            name in "(PASSWORD|db_token|X-Api-Key|secret)", sign in "(=|: |:)", value in "[a-z0-9/+]{4,20}",
        ) {
            let told = masked(&format!("before {name}{sign}{value} after"));
            prop_assert_eq!(told, format!("before {name}{sign}*** after"));
        }
    }
}
