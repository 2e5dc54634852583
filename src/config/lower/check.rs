//! Checks of single values, each naming the key it complains about.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use globset::Glob;
use globset::GlobBuilder;
use globset::GlobSetBuilder;
use lettre::message::Mailbox;
use url::Url;

use crate::config::error::OTHERS;
use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::input::Args;
use crate::config::settings::Patterns;
use crate::domain::command::Command;
use crate::domain::command::RunAs;
use crate::domain::command::Tree;
use crate::domain::span::Span;
use crate::files::trusted::required;

/// A program and its arguments, at least the program, and as whom it runs.
pub(super) fn command(place: &Place, args: Args, tree: &Tree) -> Result<Command, Problem> {
    let Args { argv, run_as, env } = args;
    match argv.first() {
        None => Err(place.wrong("is an empty list").hint("give a program and its arguments, or leave the key out")),
        Some(program) if program.trim().is_empty() => {
            Err(place.wrong("names no program").hint("the first element of the list is the program"))
        }
        Some(_) if argv.iter().any(|word| word.contains('\0')) => Err(place.wrong("contains a NUL character")),
        Some(_) => Ok(Command {
            argv,
            run_as: run_as.map_or(Ok(RunAs::Owner), |user| self::run_as(&place.key("as"), user))?,
            env: tree.env.clone().into_iter().chain(environment(&place.key("env"), env)?).collect(),
            tree: Arc::new(tree.clone()),
        }),
    }
}

/// The same, where it may be absent.
pub(super) fn maybe_command(place: &Place, args: Option<Args>, tree: &Tree) -> Result<Option<Command>, Problem> {
    args.map(|args| command(place, args, tree)).transpose()
}

/// The user a command runs as. Whether there is such a user is asked when it runs.
pub(super) fn run_as(place: &Place, user: String) -> Result<RunAs, Problem> {
    if user.is_empty() || user.contains(|c: char| c == ':' || c == '/' || c.is_whitespace() || c.is_control()) {
        return Err(place.wrong(format!("\"{user}\" is no user")).hint("write \"root\" or the name of another user"));
    }
    Ok(RunAs::User(user.into()))
}

/// Variables of a command.
pub(super) fn environment(place: &Place, env: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Problem> {
    match env.iter().find(|(key, value)| key.is_empty() || key.contains(['=', '\0']) || value.contains('\0')) {
        Some((key, _)) => Err(place.key(key).wrong("cannot be an environment variable")),
        None => Ok(env),
    }
}

/// A text that is not blank.
pub(super) fn text(place: &Place, text: String) -> Result<String, Problem> {
    if text.trim().is_empty() { Err(place.wrong("is empty")) } else { Ok(text) }
}

/// An absolute path without `..`.
pub(super) fn path(place: &Place, text: &str) -> Result<PathBuf, Problem> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(place.wrong(format!("\"{text}\" is not an absolute path")).hint("begin it with /"));
    }
    if text.contains('\0') || path.components().any(|part| matches!(part, Component::ParentDir)) {
        return Err(place.wrong(format!("\"{text}\" leads upwards")).hint("write the path without `..`"));
    }
    // Also without a closing slash and without `.`, so that two spellings of a path are one.
    Ok(path.components().collect())
}

/// The path of a file that Afterhours goes by. As root it must be root's alone, as `sudo` and `cron` ask of theirs.
pub(super) fn own_file(place: &Place, text: &str) -> Result<PathBuf, Problem> {
    let path = path(place, text)?;
    required(&path).map_err(|error| {
        let hint = error.remedy().unwrap_or_else(|| "let only root change it".to_owned());
        place.wrong(format!("\"{text}\" {OTHERS}: {error}")).hint(hint)
    })?;
    Ok(path)
}

/// A span that is longer than nothing.
pub(super) fn span(place: &Place, span: Option<Span>, default: Span) -> Result<Span, Problem> {
    match span {
        Some(Span::ZERO) => Err(place.wrong("must be longer than nothing")),
        Some(span) => Ok(span),
        None => Ok(default),
    }
}

/// A number that is at least 1.
pub(super) fn at_least_one(place: &Place, number: u32) -> Result<u32, Problem> {
    if number == 0 { Err(place.wrong("must be at least 1")) } else { Ok(number) }
}

/// An HTTP address.
pub(super) fn http_url(place: &Place, text: &str) -> Result<Url, Problem> {
    let example = "write it in full, such as http://127.0.0.1:8080/health";
    let url = Url::parse(text).map_err(|error| place.wrong(format!("\"{text}\" is no URL: {error}")).hint(example))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(place.wrong(format!("\"{scheme}\" is not a scheme that can be asked")).hint(example)),
    }
}

/// An IP address and a port.
pub(super) fn socket_addr(place: &Place, text: &str) -> Result<SocketAddr, Problem> {
    let addr: SocketAddr = text.parse().map_err(|_| {
        place
            .wrong(format!("\"{text}\" is not an IP address with a port"))
            .hint("write it as 127.0.0.1:8080 or [::1]:8080; names are not looked up here")
    })?;
    if addr.port() == 0 { Err(place.wrong("port 0 does not exist")) } else { Ok(addr) }
}

/// A mail address, as `it@example.com` or `IT <it@example.com>`.
pub(super) fn mail_address(place: &Place, text: &str) -> Result<String, Problem> {
    match text.parse::<Mailbox>() {
        Ok(_) => Ok(text.trim().to_owned()),
        Err(_) => Err(place.wrong(format!("\"{text}\" is no mail address"))),
    }
}

/// Glob patterns relative to a tree; `*` does not cross `/`, a closing `/` means everything below.
pub(super) fn patterns(place: &Place, texts: Vec<String>) -> Result<Patterns, Problem> {
    let mut set = GlobSetBuilder::new();
    for (index, text) in texts.iter().enumerate() {
        let place = place.index(index);
        let relative = "patterns are relative to the tree, such as config/** or *.conf";
        if text.trim().is_empty() {
            return Err(place.wrong("is empty").hint(relative));
        }
        if text.starts_with('/') || text.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(place.wrong(format!("\"{text}\" is not below the tree")).hint(relative));
        }
        set.add(glob(&place, text)?);
    }
    let set =
        set.build().map_err(|error| place.wrong(format!("the patterns are too much together: {}", error.kind())))?;
    Ok(Patterns { texts, set })
}

fn glob(place: &Place, text: &str) -> Result<Glob, Problem> {
    let below = if text.ends_with('/') { format!("{text}**") } else { text.to_owned() };
    GlobBuilder::new(&below)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| place.wrong(format!("\"{text}\" is no pattern: {}", error.kind())))
}

/// An absolute path with globs in its last part only.
pub(super) fn file_glob(place: &Place, text: &str) -> Result<String, Problem> {
    path(place, text)?;
    let (dir, name) = text.rsplit_once('/').unwrap_or_default();
    if name.is_empty() {
        return Err(place
            .wrong(format!("\"{text}\" names a directory"))
            .hint(format!("write \"{text}*\" to accept any file in it")));
    }
    if dir.contains(['*', '?', '[', '{']) {
        return Err(place
            .wrong(format!("\"{text}\" has a wildcard in a directory"))
            .hint("wildcards may stand in the file name only"));
    }
    glob(place, name)?;
    Ok(text.to_owned())
}

/// At most one of several ways to say something; `given` lists each with whether it is there.
pub(super) fn at_most_one(place: &Place, given: &[(&'static str, bool)]) -> Result<Option<&'static str>, Problem> {
    let mut there = given.iter().filter(|(_, is)| *is).map(|(name, _)| *name);
    match (there.next(), there.next()) {
        (Some(first), Some(second)) => Err(place
            .wrong(format!("both `{first}` and `{second}` are given"))
            .hint(format!("keep one of {}", list(given.iter().map(|(name, _)| *name))))),
        (one, _) => Ok(one),
    }
}

/// Exactly one of several ways to say something.
pub(super) fn exactly_one(place: &Place, given: &[(&'static str, bool)]) -> Result<&'static str, Problem> {
    at_most_one(place, given)?
        .ok_or_else(|| place.wrong(format!("one of {} is missing", list(given.iter().map(|(name, _)| *name)))))
}

/// Keys that have a meaning only beside `kind`.
pub(super) fn only_with(place: &Place, kind: &str, is: bool, given: &[(&'static str, bool)]) -> Result<(), Problem> {
    match given.iter().find(|(_, there)| *there && !is) {
        Some((key, _)) => Err(place.key(key).wrong(format!("has a meaning only beside `{kind}`")).hint("remove it")),
        None => Ok(()),
    }
}

fn list(names: impl Iterator<Item = &'static str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
