//! What opens the keys of a feed: a file or somebody at the terminal, never the command line.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use dialoguer::Password;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use crate::cli::exit::CliError;
use crate::cli::out::Ui;
use crate::feed::vendor::Passphrases;
use crate::feed::vendor::Place;

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
}

impl KeyArgs {
    /// The feed in `dir` with these keys.
    pub(crate) fn place(self, dir: PathBuf, ui: &Ui) -> Result<Place, CliError> {
        let passphrases = Some(self.passphrase.passphrases(ui, false)?);
        Ok(Place { dir, keys: self.keys, passphrases })
    }
}

impl PassphraseArgs {
    /// Reads the files, or asks; twice for keys that are `new`.
    pub(crate) fn passphrases(&self, ui: &Ui, new: bool) -> Result<Passphrases, CliError> {
        let root = self.root_passphrase_file.as_deref().map(read).transpose()?;
        let keys = match &self.passphrase_file {
            Some(file) => read(file)?,
            None => ask(ui, new)?,
        };
        Ok(Passphrases::new(keys, root))
    }
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

fn ask(ui: &Ui, new: bool) -> Result<SecretString, CliError> {
    if !ui.can_ask() {
        return Err(CliError::refused(
            "nobody is here to type the passphrase",
            "name a file with it: --passphrase-file FILE",
        ));
    }
    let mut question = Password::new().with_prompt("Passphrase of the feed's keys");
    if new {
        question = question.with_confirmation("Once more", "They differ.");
    }
    question.interact().map(SecretString::from).map_err(|error| CliError::failed("ask for the passphrase", &error))
}
