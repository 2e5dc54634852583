//! Files that stand beside the configuration: passwords and authorities. Read here, so that a missing one is
//! found at start and not at night.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use secrecy::SecretString;

use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::lower::check;
use crate::files::small::read_small;

/// A longer file is no password.
const PASSWORD_BYTES_MAX: usize = 4096;

/// A longer file is neither a password nor a certificate.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let real = std::fs::canonicalize(path)?;
    read_small(&real, FILE_BYTES_MAX)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

/// The password in a file.
pub(super) fn password(place: &Place, text: &str) -> Result<SecretString, Problem> {
    let path = check::own_file(place, text)?;
    let hint = "the file holds the password and nothing else, and is readable for the user the daemon runs as";
    let unreadable = |source| place.wrong(format!("cannot read \"{text}\"")).hint(hint).because(source);
    let content = bounded(&path).and_then(text_of).map_err(unreadable)?;
    // Editors end a file with a line break; it is not part of the password.
    let password = content.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(place.wrong(format!("\"{text}\" is empty")).hint(hint));
    }
    if password.len() > PASSWORD_BYTES_MAX || password.contains(['\n', '\0']) {
        return Err(place.wrong(format!("\"{text}\" holds more than a password")).hint(hint));
    }
    Ok(SecretString::from(password))
}

/// A PEM file with the authority behind the certificate of `server`.
pub(super) fn ca_file(place: &Place, text: &str, server: &str) -> Result<PathBuf, Problem> {
    let path = check::own_file(place, text)?;
    let hint = format!("give a PEM file with the {server}'s own certificate, or that of the authority that signed it");
    let unreadable = |source| place.wrong(format!("cannot read \"{text}\"")).hint(hint.clone()).because(source);
    let pem = bounded(&path).map_err(unreadable)?;
    if String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        Ok(path)
    } else {
        Err(place.wrong(format!("\"{text}\" holds no certificate")).hint(hint))
    }
}
