//! What opens the keys of a feed: a file or somebody at the terminal, never the command line.

use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use dialoguer::Password;
use fs_err::os::unix::fs::OpenOptionsExt;
use secrecy::ExposeSecret;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use serde::Serialize;

use crate::cli::exit::CliError;
use crate::cli::out::Ui;
use crate::feed::vendor;
use crate::feed::vendor::Passphrases;
use crate::feed::vendor::Place;

/// What somebody is asked for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// A new one, twice.
    New,
    /// One that there is.
    Known,
    /// One that there is, or nothing.
    OrEmpty,
}

/// Of which roles key files are made, besides timestamp and snapshot. Where commands sign, nothing has to be sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealed {
    /// Some of the root.
    pub(crate) root: bool,
    /// Some of targets.
    pub(crate) targets: bool,
}

/// Where the keys are, and what opens them.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// A further folder with keys, such as a stick with those of the root
    #[arg(long, value_name = "DIR")]
    keys: Vec<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// What opens the keys.
#[derive(Debug, Args)]
pub(crate) struct PassphraseArgs {
    /// A file whose first line opens the keys [default: ask]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// A file whose first line opens the keys of the root [default: the same passphrase]
    #[arg(long, value_name = "FILE")]
    root_passphrase_file: Option<PathBuf>,
    /// A file whose first line opens the keys of timestamp and snapshot, and no other [default: the same passphrase]
    #[arg(long, value_name = "FILE")]
    online_passphrase_file: Option<PathBuf>,
}

/// How the passphrases are asked for.
const KEYS: &str = "Passphrase of the feed's keys";
const ONLINE: &str = "Passphrase of the timer, for timestamp and snapshot";

impl KeyArgs {
    /// The feed in `dir` with these keys.
    pub(crate) fn place(self, dir: PathBuf, ui: &Ui) -> Result<Place, CliError> {
        let is_sealed = vendor::are_keys_sealed(&dir, &self.keys);
        let passphrases = Some(self.passphrase.passphrases(is_sealed, ui)?);
        Ok(Place { dir, keys: self.keys, passphrases })
    }

    /// The same where that of timestamp and snapshot alone is enough: nobody is asked for another one.
    pub(crate) fn place_for_timer(self, dir: PathBuf, ui: &Ui) -> Result<Place, CliError> {
        let PassphraseArgs { passphrase_file, root_passphrase_file, online_passphrase_file } = &self.passphrase;
        let asks =
            passphrase_file.is_some() || (!self.keys.is_empty() && root_passphrase_file.is_none() && ui.can_ask());
        match online_passphrase_file {
            Some(online) if !asks => {
                let root = root_passphrase_file.as_deref().map(read).transpose()?;
                let passphrases = Some(Passphrases::online(read(online)?).with_root(root));
                Ok(Place { dir, keys: self.keys, passphrases })
            }
            _ => self.place(dir, ui),
        }
    }
}

impl PassphraseArgs {
    /// Reads the files, or asks. Where no key of root or targets `is_sealed`, what opens timestamp and snapshot is all.
    fn passphrases(&self, is_sealed: bool, ui: &Ui) -> Result<Passphrases, CliError> {
        let root = self.root_passphrase_file.as_deref().map(read).transpose()?;
        let online = self.online_passphrase_file.as_deref().map(read).transpose()?;
        let (keys, online) = match &self.passphrase_file {
            Some(file) => (read(file)?, online),
            None if !is_sealed => {
                let online = online.map_or_else(|| ask(ui, ONLINE, Asked::Known), Ok)?;
                return Ok(Passphrases::online(online).with_root(root));
            }
            None => {
                let keys = ask(ui, KEYS, Asked::Known)?;
                let asked =
                    online.map_or_else(|| ask(ui, &format!("{ONLINE} (empty: the same)"), Asked::OrEmpty), Ok)?;
                (keys, Some(asked).filter(|asked| !asked.expose_secret().is_empty()))
            }
        };
        Ok(Passphrases::new(keys, root).with_online(online))
    }

    /// Those for new keys: reads the files, or asks, twice for each. Timestamp and snapshot have one of their own.
    pub(crate) fn new_passphrases(&self, sealed: Sealed, ui: &Ui) -> Result<Passphrases, CliError> {
        if self.online_passphrase_file.is_none() && !ui.can_ask() {
            return Err(CliError::usage(
                "there is no passphrase for timestamp and snapshot: a timer signs them every night, and what it reads must not \
                 open the keys that vouch for releases",
                "name a file with another one: --online-passphrase-file FILE; or have all made: --generate-passphrases",
            ));
        }
        let root = self.root_passphrase_file.as_deref().map(read).transpose()?;
        let of = |file: &Option<PathBuf>, question: &str| {
            file.as_deref().map_or_else(|| ask(ui, question, Asked::New), read)
        };
        let is_needed = sealed.targets || sealed.root && root.is_none();
        let keys = is_needed.then(|| of(&self.passphrase_file, KEYS)).transpose()?;
        let online = of(&self.online_passphrase_file, ONLINE)?;
        Ok(Passphrases::online(online).with_keys(keys).with_root(root))
    }
}

/// Passphrases that were made, and not written into a file: shown once.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Shown {
    /// Opens the keys of targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keys: Option<String>,
    /// Opens the keys of the root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<String>,
    /// Opens the keys of timestamp and snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) online: Option<String>,
}

impl PassphraseArgs {
    /// Makes those that are needed. Where a file is named, it is written into that; the others have to be shown.
    pub(crate) fn make(&self, sealed: Sealed) -> Result<(Passphrases, Shown, Written), CliError> {
        let mut written = Written::default();
        let mut made = |file: &Option<PathBuf>, is_needed: bool| -> Result<_, CliError> {
            if !is_needed {
                return Ok((None, None));
            }
            let secret = vendor::make_passphrase()?;
            let shown = match file {
                Some(file) => written.add(file, &secret).map(|()| None)?,
                None => Some(secret.expose_secret().to_owned()),
            };
            Ok((Some(secret), shown))
        };
        let (keys, keys_shown) = made(&self.passphrase_file, sealed.targets)?;
        let (root, root_shown) = made(&self.root_passphrase_file, sealed.root)?;
        let (online, online_shown) = made(&self.online_passphrase_file, true)?;
        let passphrases = Passphrases::default().with_keys(keys).with_root(root).with_online(online);
        Ok((passphrases, Shown { keys: keys_shown, root: root_shown, online: online_shown }, written))
    }
}

/// Files into which passphrases were written. They go again, unless what they are for came to be.
#[derive(Debug, Default)]
pub(crate) struct Written(Vec<PathBuf>);

impl Written {
    /// Writes a passphrase into a file that was not there.
    fn add(&mut self, file: &Path, secret: &SecretString) -> Result<(), CliError> {
        let failed = |error: std::io::Error| {
            CliError::failed("write the passphrase that was made", &error)
                .hint("name a file that is not there yet, or leave the flag out and it is shown")
        };
        let mut options = fs_err::OpenOptions::new();
        let mut made = options.write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
        self.0.push(file.to_owned());
        // Keys that outlive a power cut need a passphrase that does, too.
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let durable = writeln!(made, "{}", secret.expose_secret())
            .and_then(|()| made.sync_all())
            .and_then(|()| fs_err::File::open(folder)?.sync_all());
        durable.map_err(failed)
    }

    /// Lets them stay.
    pub(crate) fn stay(mut self) {
        self.0.clear();
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        for file in &self.0 {
            // Why there is no feed is said already; a passphrase that opens nothing does no harm.
            let _ = fs_err::remove_file(file);
        }
    }
}

/// The first line of a file.
pub(crate) fn read(file: &Path) -> Result<SecretString, CliError> {
    let text = fs_err::read_to_string(file).map(Zeroizing::new).map_err(|error| {
        CliError::failed("read the passphrase", &error).hint("name a file whose first line is the passphrase")
    })?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        let message = format!("the first line of {} is empty", file.display());
        return Err(CliError::usage(message, "write the passphrase into it"));
    }
    Ok(SecretString::from(line))
}

fn ask(ui: &Ui, what: &str, asked: Asked) -> Result<SecretString, CliError> {
    if !ui.can_ask() {
        return Err(CliError::refused(
            "nobody is here to type the passphrase",
            "name a file with it: --passphrase-file FILE",
        ));
    }
    let question = Password::new().with_prompt(what);
    let question = match asked {
        Asked::New => question.with_confirmation("Once more", "They differ."),
        Asked::Known => question,
        Asked::OrEmpty => question.allow_empty_password(true),
    };
    question.interact().map(SecretString::from).map_err(|error| CliError::failed("ask for the passphrase", &error))
}
