//! A version's program on disk.
//!
//! ```text
//! app.toml           the vendor's: version, schema, how it behaves
//! config/desk.toml   the administrator's: where to listen, where the data are, a greeting
//! bin/order-desk     runs this binary as that version
//! ```

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use fs_err as fs;
use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sample::error::SampleError;

/// The administrator's file within the tree.
pub const SETTINGS: &str = "config/desk.toml";
/// The program within the tree.
pub const PROGRAM: &str = "bin/order-desk";
const APP: &str = "app.toml";

/// What the vendor says of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// The version.
    pub version: String,
    /// The schema it works with.
    pub schema: u32,
    /// Never becomes healthy: for showing what happens then.
    #[serde(default)]
    pub broken: bool,
}

/// What the administrator says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A word to the users.
    pub greeting: String,
    /// Where the server listens.
    pub listen: SocketAddr,
    /// Where the data are.
    pub data: PathBuf,
}

impl Settings {
    /// As the vendor ships them.
    pub fn shipped(version: &str) -> Self {
        Self {
            greeting: format!("Welcome to Order desk {version}"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data: PathBuf::from("/var/lib/order-desk"),
        }
    }
}

/// A version's program.
#[derive(Debug, Clone)]
pub struct Program {
    /// What the vendor says.
    pub app: App,
    /// What the administrator says.
    pub settings: Settings,
}

impl Program {
    /// Reads the tree at `root`.
    ///
    /// # Errors
    /// Something is missing there, or says something else.
    pub fn load(root: &Path) -> Result<Self, SampleError> {
        Ok(Self { app: read(&root.join(APP))?, settings: read(&root.join(SETTINGS))? })
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, SampleError> {
    let text = fs::read_to_string(path).map_err(SampleError::file("read", path))?;
    toml::from_str(&text).map_err(SampleError::text(path))
}

/// Writes the settings of the tree at `root`.
///
/// # Errors
/// They cannot be written.
pub fn write_settings(root: &Path, settings: &Settings) -> Result<(), SampleError> {
    let path = root.join(SETTINGS);
    let text = toml::to_string(settings).map_err(SampleError::text(&path))?;
    write(&path, &text, 0o644)
}

/// Writes a version's tree, as the vendor ships it; its program is this version of `binary`.
///
/// # Errors
/// It cannot be written.
pub fn plant(root: &Path, app: &App, binary: &Path) -> Result<(), SampleError> {
    let path = root.join(APP);
    let text = toml::to_string(app).map_err(SampleError::text(&path))?;
    write(&path, &text, 0o644)?;
    write_settings(root, &Settings::shipped(&app.version))?;
    write(&root.join(PROGRAM), &launcher(binary), 0o755)
}

/// A script, so that a version is not another copy of the whole binary.
fn launcher(binary: &Path) -> String {
    let quoted = binary.to_string_lossy().replace('\'', r"'\''");
    format!(
        "#!/bin/sh\n# Order desk, started from the tree that this file is in.\n\
         root=$(dirname \"$(dirname \"$(realpath \"$0\")\")\")\ncommand=$1\nshift\n\
         exec '{quoted}' sample-desk \"$command\" --root \"$root\" \"$@\"\n"
    )
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), SampleError> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    written
        .and_then(|()| fs::set_permissions(path, PermissionsExt::from_mode(mode)))
        .map_err(SampleError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_read_as_it_was_planted() {
        let dir = tempfile::tempdir().unwrap();
        let app = App { version: "2.0".to_owned(), schema: 2, broken: false };
        plant(dir.path(), &app, Path::new("/opt/it's/afterhours")).unwrap();
        let program = Program::load(dir.path()).unwrap();
        assert_eq!((program.app, program.settings), (app, Settings::shipped("2.0")));
        let script = fs::read_to_string(dir.path().join(PROGRAM)).unwrap();
        assert!(script.contains(r"exec '/opt/it'\''s/afterhours' sample-desk"), "{script}");
    }
}
