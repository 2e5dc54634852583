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
        let passphrases = Some(self.passphrase.passphrases(ui)?);
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
    /// Reads the files, or asks.
    fn passphrases(&self, ui: &Ui) -> Result<Passphrases, CliError> {
        let root = self.root_passphrase_file.as_deref().map(read).transpose()?;
        let online = self.online_passphrase_file.as_deref().map(read).transpose()?;
        let (keys, online) = match &self.passphrase_file {
            Some(file) => (read(file)?, online),
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
    pub(crate) fn new_passphrases(&self, ui: &Ui) -> Result<Passphrases, CliError> {
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
        let keys = of(&self.passphrase_file, KEYS)?;
        let online = of(&self.online_passphrase_file, ONLINE)?;
        Ok(Passphrases::new(keys, root).with_online(Some(online)))
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
    /// Makes all three. Those whose file is named are written into it, the others have to be shown.
    pub(crate) fn make(&self) -> Result<(Passphrases, Shown), CliError> {
        let made = |file: &Option<PathBuf>| {
            let secret = vendor::make_passphrase()?;
            match file {
                Some(file) => write(file, &secret).map(|()| (secret, None)),
                None => Ok((secret.clone(), Some(secret.expose_secret().to_owned()))),
            }
        };
        let (keys, keys_shown) = made(&self.passphrase_file)?;
        let (root, root_shown) = made(&self.root_passphrase_file)?;
        let (online, online_shown) = made(&self.online_passphrase_file)?;
        let passphrases = Passphrases::new(keys, Some(root)).with_online(Some(online));
        Ok((passphrases, Shown { keys: keys_shown, root: root_shown, online: online_shown }))
    }
}

/// Writes a passphrase into a file that was not there.
fn write(file: &Path, secret: &SecretString) -> Result<(), CliError> {
    let mut options = fs_err::OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(file).and_then(|mut made| {
        writeln!(made, "{}", secret.expose_secret())?;
        made.sync_all()
    });
    made.map_err(|error| {
        CliError::failed("write the passphrase that was made", &error)
            .hint("name a file that is not there yet, or leave the flag out and it is shown")
    })
}

fn read(file: &Path) -> Result<SecretString, CliError> {
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
