//! A directory of its own with everything that a site has: a program, data, a configuration; and the site's vendor.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use fs_err as fs;
use tempfile::TempDir;

use crate::cli::demo::vendor::Edition;
use crate::cli::demo::vendor::Vendor;
use crate::cli::exit::CliError;
use crate::config;
use crate::config::settings::Settings;
use crate::sample::data::Orders;
use crate::sample::data::People;
use crate::sample::tree;
use crate::sample::tree::App;
use crate::sample::tree::PROGRAM;

/// The word of the administrator, which no update may take away.
pub(super) const GREETING: &str = "Good morning. Ask Rosa about discounts.";
/// Who looks after the application; the password is the name, as for everybody here.
pub(super) const PROBE: &str = "probe";
/// Everybody who works with it.
pub(super) const PEOPLE: [&str; 4] = ["anna", "ben", "rosa", "eva"];
/// The releases of the first night, and the one of the second.
const SECOND: Edition =
    Edition { version: "2.0", schema: 2, build: 200, notes: "Quantities are numbers.", broken: false };
const THIRD: Edition = Edition { version: "3.0", schema: 3, build: 300, notes: "Orders have lines.", broken: false };
pub(super) const FOURTH: Edition = Edition {
    version: "4.0",
    schema: 4,
    build: 400,
    notes: "Orders have a state. (And it does not work.)",
    broken: true,
};
/// Ports of servers: the system does not give them to clients, and few listen there.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// A longer path cannot be the address of a Unix socket.
const SOCKET_BYTES_MAX: usize = 107;

/// The directory.
#[derive(Debug)]
pub(super) struct Stage {
    dir: PathBuf,
    /// Removes it; absent where it is kept.
    temp: Option<TempDir>,
    binary: PathBuf,
    server: SocketAddr,
    vendor: Vendor,
}

impl Stage {
    /// Sets everything up, in `dir`, which must be new or empty, or in one that is removed in the end. Needs the runtime:
    /// the vendor's web server is open from here on.
    pub(super) fn set(dir: Option<PathBuf>, now: DateTime<Utc>) -> Result<Self, CliError> {
        let (dir, temp) = match dir {
            Some(dir) => (empty(dir)?, None),
            None => {
                let made = tempfile::Builder::new().prefix("afterhours-demo-").tempdir();
                let temp = made.map_err(|error| CliError::failed("make a directory for the demo", &error))?;
                (temp.path().to_owned(), Some(temp))
            }
        };
        let dir = fs::canonicalize(dir).map_err(failed("find the demo's directory"))?;
        let binary = std::env::current_exe().map_err(failed("find this program"))?;
        let vendor = Vendor::found(dir.join("vendor"), &binary, now)?;
        let stage = Self { dir, temp, binary, server: free_address()?, vendor };
        // The workstations' socket stands beside it, under a longer name.
        if stage.socket().with_file_name("workstations.sock").as_os_str().len() > SOCKET_BYTES_MAX {
            let message = format!("{} is too long a name for a socket to be in", stage.dir.display());
            return Err(CliError::usage(message, "choose a shorter --dir, or a shorter TMPDIR"));
        }
        stage.build()?;
        stage.vendor.publish(&SECOND, now)?;
        stage.vendor.publish(&THIRD, now)?;
        Ok(stage)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(super) const fn server(&self) -> SocketAddr {
        self.server
    }

    pub(super) fn install(&self) -> PathBuf {
        self.dir.join("opt/order-desk")
    }

    pub(super) fn program(&self) -> PathBuf {
        self.install().join(PROGRAM)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("daemon.sock")
    }

    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("afterhours.toml")
    }

    pub(super) fn daemon_log(&self) -> PathBuf {
        self.dir.join("log/daemon.log")
    }

    pub(super) fn log_of(&self, who: &str) -> PathBuf {
        self.dir.join("log").join(format!("{who}.log"))
    }

    /// Where a workstation notes which orders were confirmed.
    pub(super) fn ledger(&self, who: &str) -> PathBuf {
        self.dir.join("workstations").join(format!("{who}.ledger"))
    }

    pub(super) fn password(&self, who: &str) -> PathBuf {
        self.dir.join("workstations").join(format!("{who}.password"))
    }

    /// The fingerprint of the data just before the service was stopped.
    pub(super) fn print_before(&self) -> PathBuf {
        self.dir.join("data-before-stop.sha256")
    }

    /// Where the mail of a night is put to be read.
    pub(super) fn mail(&self, night: u32) -> PathBuf {
        self.dir.join(format!("mail-of-night-{night}.txt"))
    }

    pub(super) const fn vendor(&self) -> &Vendor {
        &self.vendor
    }

    /// The configuration, as the daemon reads it.
    pub(super) fn settings(&self) -> Result<Settings, CliError> {
        Ok(config::load(Some(&self.config()))?)
    }

    /// Removes the directory, where it is not kept.
    pub(super) fn strike(self) -> Result<Option<PathBuf>, std::io::Error> {
        match self.temp {
            Some(temp) => temp.close().map(|()| None),
            None => Ok(Some(self.dir)),
        }
    }

    fn build(&self) -> Result<(), CliError> {
        for part in ["log", "workstations", "backups", "data"] {
            fs::create_dir_all(self.dir.join(part)).map_err(failed("make the demo's directories"))?;
        }
        let cannot_install = "install Order desk 1.0";
        let first = App { version: "1.0".to_owned(), schema: 1, broken: false };
        tree::plant(&self.install(), &first, &self.binary).map_err(failed(cannot_install))?;
        let settings = tree::Settings { greeting: GREETING.to_owned(), listen: self.server, data: self.data() };
        tree::write_settings(&self.install(), &settings).map_err(failed(cannot_install))?;
        let mut people = People::default();
        for name in PEOPLE.into_iter().chain([PROBE]) {
            people.add(name, name);
            fs::write(self.password(name), name).map_err(failed("write a password"))?;
        }
        people.save(&self.data()).map_err(failed(cannot_install))?;
        Orders::open(&self.data(), 1).map_err(failed(cannot_install))?;
        fs::write(self.config(), self.configuration()).map_err(failed("write the demo's configuration"))
    }

    /// As an administrator would write it, but for the lengths of time.
    fn configuration(&self) -> String {
        let text = |path: &Path| toml::Value::from(path.to_string_lossy().into_owned()).to_string();
        let at = |name: &str| text(&self.dir.join(name));
        let (data_dir, socket, install_dir, program) =
            (at("afterhours"), text(&self.socket()), text(&self.install()), text(&self.program()));
        let (data, backups) = (text(&self.data()), at("backups"));
        let (url, root) = (self.vendor.url(), text(&self.vendor.root()));
        let (evidence, password) = (at("backups/orders-*.tar"), text(&self.password(PROBE)));
        let (before, server) = (text(&self.print_before()), self.server);
        format!(
            r#"# The configuration of the demo.
[daemon]
data_dir = {data_dir}
socket = {socket}

[app.orders]
title = "Order desk"
install_dir = {install_dir}
keep = ["config/**"]
service = {{ run = ["bin/order-desk", "serve"], deadline = "20s", port = "{server}" }}
data = {{ paths = [{data}] }}
# What the vendor gave by hand is trusted, and nothing else: neither the server nor the way to it.
feed = {{ url = "{url}", root = {root}, proxy = "none" }}
sessions = [{{ workstations = true }}]
polite_end = "5s"
reminders = ["3s"]
report = {{ group = ["it@example.com"] }}
# The demo keeps what the data are at this moment, to compare.
hooks = {{ before_stop = [{program}, "fingerprint", "--into", {before}] }}

[app.orders.health]
http = "http://{server}/health"
version = "http://{server}/version"
deep = [{program}, "probe", "--user", "{PROBE}", "--password-file", {password}]
times = 2
every = "300ms"
deadline = "6s"

[app.orders.backup]
max_age = "2d"
make = [{program}, "backup", "--into", {backups}]
evidence = {{ files = {evidence}, test = ["tar", "-tf", "{{}}"] }}
"#
        )
    }
}

fn failed<E: std::error::Error>(what: &str) -> impl FnOnce(E) -> CliError {
    move |error| CliError::failed(what, &error)
}

fn empty(dir: PathBuf) -> Result<PathBuf, CliError> {
    fs::create_dir_all(&dir).map_err(failed("make the demo's directory"))?;
    let mut entries = fs::read_dir(&dir).map_err(failed("look into the demo's directory"))?;
    match entries.next() {
        None => Ok(dir),
        Some(_) => Err(CliError::usage(format!("{} is not empty", dir.display()), "name a new directory")),
    }
}

/// An address of this machine that nobody listens at.
fn free_address() -> Result<SocketAddr, CliError> {
    let (count, from) = (PORTS.len(), std::process::id() as usize);
    let address = |step: usize| {
        let port = PORTS.start + u16::try_from((from * 7 + step) % count).unwrap_or(0);
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    };
    let mut addresses = (0..count).map(address);
    addresses
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| CliError::refused("no port of this machine is free", "look who listens on so many: ss -tln"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::Clock;
    use crate::domain::clock::SystemClock;

    #[tokio::test]
    async fn the_configuration_is_one_and_an_old_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let stage = Stage::set(Some(dir.path().join("new")), SystemClock.now()).unwrap();
        let settings = stage.settings().unwrap();
        assert_eq!(settings.apps.len(), 1);
        assert_eq!(stage.strike().unwrap(), Some(fs::canonicalize(dir.path()).unwrap().join("new")));
        let error = Stage::set(Some(dir.path().to_owned()), SystemClock.now()).unwrap_err();
        assert!(error.view().message.contains("is not empty"), "{error:?}");
    }

    #[tokio::test]
    async fn a_directory_of_its_own_is_removed() {
        let stage = Stage::set(None, SystemClock.now()).unwrap();
        let dir = stage.dir().to_owned();
        assert!(dir.join("vendor/published/targets/300").exists());
        assert_eq!(stage.strike().unwrap(), None);
        assert!(!dir.exists());
    }
}
