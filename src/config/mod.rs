//! From a TOML file to [`settings`]: file → input → settings. Only settings reach the rest.
//!
//! ```text
//! text ── source (lines, unknown keys) ── input (as written) ── lower (checked, complete) ── settings
//!              └── schema (which keys exist, learnt from input)
//! ```
//!
//! Invariants: a key that nobody understands is an error, never silence; every error names file,
//! line and key; `config/default.toml` documents every key and states the defaults (tests hold
//! both).
//!
//! Deliberately absent: environment variables inside the file, includes, merging of several files.

mod bare;
pub mod error;
mod input;
mod lower;
pub mod places;
#[cfg(test)]
mod remedy_tests;
mod schema;
pub mod settings;
mod source;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use sha2::Digest;
use sha2::Sha256;

pub use crate::config::error::ConfigError;
use crate::config::error::OTHERS;
use crate::config::input::Input;
use crate::config::places::Unfit;
use crate::config::settings::Settings;
use crate::config::source::Part;
use crate::config::source::Source;
pub use crate::config::template::template;
use crate::domain::name::AppName;
use crate::files::trusted::required;

/// Where the configuration is when nothing else is said.
pub const PATH: &str = "/etc/afterhours/afterhours.toml";
/// The configuration when there is no file: the embedded reference.
pub const DEFAULT: &str = include_str!("../../config/default.toml");
/// What messages call the embedded reference.
const DEFAULT_ORIGIN: &str = "embedded default";
/// A longer file is no configuration.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Reads the configuration: `path`, which must exist; without one [`PATH`] where it exists, else [`DEFAULT`].
///
/// # Errors
/// The file cannot be read, or says something that cannot be used.
pub fn load(path: Option<&Path>) -> Result<Settings, ConfigError> {
    let (text, origin) = read(path)?;
    parse(&text, &origin)
}

/// The same for the daemon: an application, or the mail, of which something is written that cannot be used is left out,
/// and stands in [`Settings::unfit`] or [`Settings::mail_unfit`].
///
/// # Errors
/// The file cannot be read, or says something that cannot be used and stands in no such part.
pub fn load_fit(path: Option<&Path>) -> Result<Settings, ConfigError> {
    let (text, origin) = read(path)?;
    parse_fit(&text, &origin).map(|(settings, _)| settings)
}

/// Reads only where the daemon's sockets are, the operators' and the workstations', and no secret: enough to talk to the daemon, and possible for everybody
/// who may read the file.
///
/// # Errors
/// The file cannot be read, or says something that cannot be used.
pub fn load_sockets(path: Option<&Path>) -> Result<(PathBuf, PathBuf), ConfigError> {
    let (text, origin) = read(path)?;
    let mut source = Source::new(&text, &origin)?;
    let input: Input = loop {
        match source.read() {
            Ok(input) => break input,
            Err(error) => drop(source.leave_out(&error).ok_or(error)?),
        }
    };
    lower::sockets(&input.daemon).map_err(|problem| source.locate(problem))
}

/// Reads a configuration from a text; `origin` is what messages call it.
///
/// # Errors
/// It says something that cannot be used.
pub fn parse(text: &str, origin: &str) -> Result<Settings, ConfigError> {
    match parse_fit(text, origin)? {
        (_, Some(first)) => Err(first),
        (settings, None) => Ok(settings),
    }
}

/// The same, where a part that cannot be used is left out; and what was wrong first.
fn parse_fit(text: &str, origin: &str) -> Result<(Settings, Option<ConfigError>), ConfigError> {
    let mut source = Source::new(text, origin)?;
    let (mut unfit, mut mail_unfit, mut first) = (BTreeMap::new(), None, None);
    let settings = loop {
        let lowered = source.read().and_then(|input: Input| {
            let secrets = source.secrets();
            lower::settings(input, secrets).map_err(|problem| source.locate(problem))
        });
        let error = match lowered {
            Ok(settings) => break settings,
            Err(error) => error,
        };
        match source.leave_out(&error) {
            Some(Part::App(name)) => drop(unfit.insert(name, Unfit::of(&error))),
            Some(Part::Mail) => mail_unfit = Some(Unfit::of(&error)),
            None => return Err(error),
        }
        first.get_or_insert(error);
    };
    let texts = settings.apps.keys().map(|app| (app.clone(), text_of(text, app))).collect();
    Ok((Settings { texts, unfit, mail_unfit, digest: digest(text), ..settings }, first))
}

/// What is written of one application, as a configuration of its own.
fn text_of(text: &str, app: &AppName) -> String {
    let whole: toml::Table = text.parse().unwrap_or_default();
    let table = whole.get("app").and_then(|apps| apps.get(app.as_str())).cloned();
    let apps: toml::Table = table.map(|table| (app.to_string(), table)).into_iter().collect();
    toml::Table::from_iter([("app".to_owned(), toml::Value::Table(apps))]).to_string()
}

/// The hash of the text of a configuration: whether two are the same.
pub fn digest(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hash of the configuration on disk.
///
/// # Errors
/// The file cannot be read.
pub fn digest_of(path: Option<&Path>) -> Result<String, ConfigError> {
    Ok(digest(&read(path)?.0))
}

/// Puts `hidden` in the place of every secret in the text of a configuration: variables, arguments, passwords in addresses. The
/// files that it names are left.
pub fn hide_secrets(table: &mut toml::Table, hidden: &str) {
    bare::hide(table, hidden);
}

/// Whether the key of a configuration names a file with a secret in it.
pub fn names_a_secret(key: &str) -> bool {
    source::names_a_secret(key)
}

/// The text and what messages call it.
fn read(path: Option<&Path>) -> Result<(String, String), ConfigError> {
    read_or(path, Path::new(PATH))
}

fn read_or(path: Option<&Path>, standard: &Path) -> Result<(String, String), ConfigError> {
    let file = path.unwrap_or(standard);
    let origin = file.display().to_string();
    let wrong = |message: &str, hint: Option<&str>, source| ConfigError {
        origin: origin.clone(),
        line: None,
        key: None,
        message: message.to_owned(),
        hint: hint.map(str::to_owned),
        source,
    };
    if let Err(error) = required(file) {
        let hint = error.remedy();
        return Err(wrong(&format!("{OTHERS}: {error}"), hint.as_deref(), None));
    }
    // The system's own words without the path, which the message has already.
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => {
            return Ok((DEFAULT.to_owned(), DEFAULT_ORIGIN.to_owned()));
        }
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => Some("write one with `afterhours init`"),
                io::ErrorKind::PermissionDenied => Some("run this as root, or as a user who may read it"),
                _ => None,
            };
            return Err(wrong("cannot be read", hint, Some(error)));
        }
    };
    if bytes.len() > FILE_BYTES_MAX {
        return Err(wrong("is too large for a configuration", None, None));
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8", Some("save it as UTF-8"), None))?;
    Ok((text, origin))
}
