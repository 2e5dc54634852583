//! The settings with which a run began: an application that is renamed, moved or taken out of the configuration while
//! its run is in the middle is brought to the end of that run by them.
//!
//! They stand in a file of root's beside the mark of the run, and not in its log, which many may read: commands and
//! variables may hold what others must not know. An application has one run at a time, so one file for each is enough.
//!
//! Invariant: they are durable before anything is done to the application.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::Serialize;

use crate::config;
use crate::config::ConfigError;
use crate::config::settings::AppSettings;
use crate::domain::name::AppName;
use crate::domain::run::RunId;
use crate::files::small::read_small;
use crate::jobs::kit::Kit;
use crate::service::files::write_durably;

/// Its file in the directory with the state of an application.
const FILE: &str = "began-with.json";
/// What messages call its text.
const ORIGIN: &str = "the settings with which the run began";
/// No such file is longer: a configuration has at most a mebibyte, and a byte of it at most six characters.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What is known of how runs began.
#[derive(Debug, Default)]
pub struct Kept {
    /// What is written of each application now.
    pub texts: BTreeMap<AppName, String>,
    /// The adapters of runs that began with other settings than those of now, or with an application that is not there any more.
    pub kits: BTreeMap<RunId, Arc<Kit>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct BeganWith {
    run: RunId,
    config: String,
}

/// Keeps what is written of the application for a run that begins. One that began before keeps what it has.
pub(super) fn keep(state_dir: &Path, run: RunId, config: &str) -> io::Result<()> {
    if read(state_dir, run)?.is_some() {
        return Ok(());
    }
    let began = BeganWith { run, config: config.to_owned() };
    std::fs::create_dir_all(state_dir)?;
    write_durably(&state_dir.join(FILE), serde_json::json!(began).to_string().as_bytes(), 0o600)
}

/// The settings with which a run began, as this program understands them; nothing where none were kept.
///
/// # Errors
/// They cannot be read, or say something that cannot be used any more.
pub fn find(state_dir: &Path, app: &AppName, run: RunId) -> Result<Option<AppSettings>, ConfigError> {
    let began = read(state_dir, run).map_err(|source| ConfigError {
        origin: state_dir.join(FILE).display().to_string(),
        line: None,
        key: None,
        message: "cannot be read".to_owned(),
        hint: None,
        source: Some(source),
    })?;
    let Some(text) = began else { return Ok(None) };
    Ok(config::parse(&text, ORIGIN)?.apps.remove(app))
}

fn read(state_dir: &Path, run: RunId) -> io::Result<Option<String>> {
    let Some(text) = read_small(&state_dir.join(FILE), BYTES_MAX)? else { return Ok(None) };
    let began = serde_json::from_slice::<BeganWith>(&text).ok().filter(|began| began.run == run);
    Ok(began.map(|began| began.config))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ORDERS: &str = "[app.orders]\ninstall_dir = \"/opt/orders\"\nservice = { none = true }\n\
                          feed = { dir = \"/srv/orders\" }\nenv = { TOKEN = \"not for others\" }\n";

    #[test]
    fn a_run_keeps_what_it_began_with() {
        let dir = tempfile::tempdir().unwrap();
        let (state, app) = (dir.path().join("orders"), "orders".parse::<AppName>().unwrap());
        assert!(find(&state, &app, RunId(1)).unwrap().is_none());
        let text = config::parse(ORDERS, "test.toml").unwrap().texts.remove(&app).unwrap();
        keep(&state, RunId(1), &text).unwrap();
        keep(&state, RunId(1), &text.replace("/opt/orders", "/opt/elsewhere")).unwrap();
        let kept = find(&state, &app, RunId(1)).unwrap().unwrap();
        assert_eq!((kept.install_dir.to_str(), kept.env["TOKEN"].as_str()), (Some("/opt/orders"), "not for others"));
        assert!(find(&state, &app, RunId(2)).unwrap().is_none(), "it is another run's");
        let mode = fs_err::metadata(state.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
