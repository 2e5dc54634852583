//! What every command needs: the configuration, the daemon, the clock, the terminal.

use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;

use crate::cli::exit::CliError;
use crate::cli::out::Ui;
use crate::cli::text::Times;
use crate::client::api::Client;
use crate::config;
use crate::config::ConfigError;
use crate::config::settings::Settings;
use crate::domain::clock::Clock;
use crate::domain::clock::SystemClock;
use crate::domain::name::AppName;
use crate::renewal::Origin;

/// The configuration of this machine.
pub(crate) const CONFIG_DEFAULT: &str = "/etc/afterhours/afterhours.toml";
/// The daemon's sockets where no configuration can be read: the operators' and the workstations'.
const SOCKETS_DEFAULT: [&str; 2] = ["/run/afterhours/afterhours.sock", "/run/afterhours/workstations.sock"];

/// What every command needs.
#[derive(Debug)]
pub(crate) struct Context<'u> {
    /// The terminal.
    pub(crate) ui: &'u Ui,
    config: Option<PathBuf>,
    socket: Option<PathBuf>,
}

impl<'u> Context<'u> {
    pub(crate) const fn new(ui: &'u Ui, config: Option<PathBuf>, socket: Option<PathBuf>) -> Self {
        Self { ui, config, socket }
    }

    /// The current instant.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        SystemClock.now()
    }

    /// How instants read here and now.
    pub(crate) fn times(&self) -> Times {
        Times::local(self.now())
    }

    /// Where the configuration is, or should be.
    pub(crate) fn config_path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(CONFIG_DEFAULT))
    }

    /// The whole configuration, without what of it cannot be used. `--socket` wins over what it says.
    pub(crate) fn settings(&self) -> Result<Settings, CliError> {
        Ok(self.with_socket(config::load_fit(self.config.as_deref())?))
    }

    /// The same; whatever cannot be used is an error.
    pub(crate) fn whole_settings(&self) -> Result<Settings, ConfigError> {
        Ok(self.with_socket(config::load(self.config.as_deref())?))
    }

    fn with_socket(&self, mut settings: Settings) -> Settings {
        if let Some(socket) = &self.socket {
            settings.daemon.socket.clone_from(socket);
        }
        settings
    }

    /// The hash of the configuration on disk; nothing where this user may not read it.
    pub(crate) fn config_digest(&self) -> Option<String> {
        config::digest_of(self.config.as_deref()).ok()
    }

    /// How this process was started.
    pub(crate) fn origin(&self) -> Result<Origin, CliError> {
        Origin::of_this_process(self.config.as_deref()).map_err(|error| CliError::renewal(&error))
    }

    /// The operators' socket. Somebody who may not read the configuration may still be an operator.
    pub(crate) fn socket(&self) -> Result<PathBuf, CliError> {
        Ok(self.sockets()?.0)
    }

    /// The workstations' socket. `--socket` is for both: at the operators', everything is served.
    pub(crate) fn workstation_socket(&self) -> Result<PathBuf, CliError> {
        Ok(self.sockets()?.1)
    }

    fn sockets(&self) -> Result<(PathBuf, PathBuf), CliError> {
        if let Some(socket) = &self.socket {
            return Ok((socket.clone(), socket.clone()));
        }
        let readable = self.config.is_some() || File::open(CONFIG_DEFAULT).is_ok();
        if readable {
            Ok(config::load_sockets(self.config.as_deref())?)
        } else {
            Ok(SOCKETS_DEFAULT.map(PathBuf::from).into())
        }
    }

    /// The daemon.
    pub(crate) fn client(&self) -> Result<Client, CliError> {
        Ok(Client::new(&self.socket()?)?)
    }
}

/// The applications that a command is for: the one that was named, or all.
pub(crate) fn named_or_all(named: Option<AppName>, all: impl IntoIterator<Item = AppName>) -> Vec<AppName> {
    match named {
        Some(app) => vec![app],
        None => all.into_iter().collect(),
    }
}

/// The application that a command is for: the one that was named, or the only one there is.
pub(crate) fn named_or_only(
    named: Option<AppName>,
    all: impl IntoIterator<Item = AppName>,
) -> Result<AppName, CliError> {
    if let Some(app) = named {
        return Ok(app);
    }
    let mut all: Vec<AppName> = all.into_iter().collect();
    match all.len() {
        1 => Ok(all.remove(0)),
        0 => Err(CliError::usage("no application is configured", "write one with `afterhours init --app NAME`")),
        _ => {
            let names: Vec<&str> = all.iter().map(AppName::as_str).collect();
            Err(CliError::usage("several applications are configured", format!("name one of: {}", names.join(", "))))
        }
    }
}

/// The names of all applications that the daemon knows.
pub(crate) async fn apps_of(client: &Client) -> Result<Vec<AppName>, CliError> {
    Ok(client.status().await?.apps.into_iter().map(|app| app.app).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_application_need_not_be_named() {
        let app = |name: &str| name.parse::<AppName>().unwrap();
        assert_eq!(named_or_only(None, [app("orders")]).unwrap(), app("orders"));
        assert_eq!(named_or_only(Some(app("crm")), []).unwrap(), app("crm"));
        let error = named_or_only(None, [app("crm"), app("orders")]).unwrap_err();
        assert_eq!(error.view().hint.as_deref(), Some("name one of: crm, orders"));
    }
}
