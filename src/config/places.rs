//! Where an application stands, and why one that is described wrong is left out.

use std::path::Path;

use crate::config::error::ConfigError;
use crate::config::settings::AppSettings;
use crate::config::settings::DataSettings;
use crate::config::settings::ServiceControl;
use crate::config::settings::Settings;
use crate::domain::name::AppName;

/// Why a part of the configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// File, line, key, and what is wrong there.
    pub why: String,
    /// What a person can do about it.
    pub hint: Option<String>,
}

impl Unfit {
    pub(super) fn of(error: &ConfigError) -> Self {
        let because = error.source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
        Self { why: format!("{error}{because}"), hint: error.hint() }
    }
}

impl Settings {
    /// The names of all applications, also of those that are described wrong.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.apps.keys().map(AppName::as_str).collect();
        names.extend(self.unfit.keys().map(String::as_str));
        names.sort_unstable();
        names
    }
}

impl AppSettings {
    /// Whether a run that began with `self` finds with `other` everything where it was: what was copied and exchanged, and
    /// what was stopped. What else differs may be what lets the run succeed.
    pub fn is_placed_as(&self, other: &Self) -> bool {
        let service = |app: &Self| match &app.service.control {
            ServiceControl::Systemd { units } => (1, units.clone()),
            ServiceControl::Commands { .. } => (2, Vec::new()),
            ServiceControl::Supervised { .. } => (3, Vec::new()),
            ServiceControl::None => (4, Vec::new()),
        };
        let dumps = |app: &Self| matches!(app.data, DataSettings::Dump { .. });
        self.places() == other.places() && dumps(self) == dumps(other) && service(self) == service(other)
    }

    /// The directories that are its own, which a run moves, copies and restores; each with its key.
    pub fn places(&self) -> Vec<(&Path, &'static str)> {
        let mut ours = vec![(self.install_dir.as_path(), "install_dir"), (self.staging_dir.as_path(), "staging_dir")];
        ours.extend(self.snapshot_dir.as_deref().map(|path| (path, "snapshot_dir")));
        if let DataSettings::Paths { paths, .. } = &self.data {
            ours.extend(paths.iter().map(|path| (path.as_path(), "data")));
        }
        ours
    }
}
