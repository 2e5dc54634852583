//! What the rest of the program knows of the configuration: complete, checked, without options
//! that have a default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use globset::GlobSet;
use secrecy::SecretString;
use url::Url;

use crate::config::places::Unfit;
use crate::domain::command::Command;
use crate::domain::command::Tree;
use crate::domain::name::AppName;
use crate::domain::release::Version;
use crate::domain::span::Span;
use crate::files::account::Account;

/// Everything.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The daemon itself.
    pub daemon: DaemonSettings,
    /// The applications, by name.
    pub apps: BTreeMap<AppName, AppSettings>,
    /// What is written of each, as a configuration of its own: what a run began with is kept by it.
    pub texts: BTreeMap<AppName, String>,
    /// The applications of which something is written that cannot be used: nothing is done with them.
    pub unfit: BTreeMap<String, Unfit>,
    /// Why no mail is sent although it is configured.
    pub mail_unfit: Option<Unfit>,
    /// The hash of the text that all this was read from.
    pub digest: String,
}

/// The daemon itself.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    /// Where the store, logs and supervised state live.
    pub data_dir: PathBuf,
    /// The operators' Unix socket: all of the API.
    pub socket: PathBuf,
    /// Everybody's Unix socket: what workstations and the login gates of proxies ask.
    pub workstation_socket: PathBuf,
    /// The group whose members are operators, beside root.
    pub operator_group: String,
    /// How long runs, their logs and their mails are kept.
    pub keep_history: Span,
    /// How long it is kept who changed what; not shorter than `keep_history`.
    pub keep_audit: Span,
    /// Whether Afterhours updates itself before an application, where the feed has a newer one.
    pub self_update: bool,
    /// How long a newer Afterhours may take to come up before the old one is put back.
    pub self_update_deadline: Span,
    /// Who vouches for a newer Afterhours, in place of what is compiled in.
    pub self_update_root: Option<PathBuf>,
    /// How mails are sent; none are when absent.
    pub mail: Option<MailSettings>,
}

/// How mails are sent.
#[derive(Debug, Clone)]
pub struct MailSettings {
    /// The server's name.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: MailTls,
    /// The sender.
    pub from: String,
    /// User and password.
    pub login: Option<(String, SecretString)>,
    /// A PEM file of the only authority to trust; the system's when absent.
    pub ca_file: Option<PathBuf>,
}

/// How a mail connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// `smtps://`: TLS from the first byte.
    Implicit,
    /// `smtp://`: STARTTLS is required.
    StartTls,
    /// `smtp+plain://`: none; only to loopback.
    None,
}

/// One application.
#[derive(Debug, Clone)]
pub struct AppSettings {
    /// Its name.
    pub name: AppName,
    /// For people.
    pub title: String,
    /// Where the program stands; absolute.
    pub install_dir: PathBuf,
    /// What is installed, where the tree does not say so itself.
    pub installed_version: Option<Version>,
    /// On the file system of the installation: staged trees and what a swap needs. `PARENT/.NAME.afterhours`, beside the
    /// installation, where nothing else is said.
    pub staging_dir: PathBuf,
    /// On the file system of the data: the copies for rollback. Beside the data when absent.
    pub snapshot_dir: Option<PathBuf>,
    /// Paths below `install_dir` that survive an update.
    pub keep: Patterns,
    /// `user:group` of the new tree; that of the old one when absent.
    pub owner: Option<String>,
    /// Whether a release may migrate the data as root, where it says that it must.
    pub allow_migrate_as_root: bool,
    /// Variables that all its commands see.
    pub env: BTreeMap<String, String>,
    /// How many old program trees are kept after a success.
    pub keep_old: u32,
    /// How it is started and stopped.
    pub service: ServiceSettings,
    /// How it is known to work.
    pub health: HealthSettings,
    /// Where its data are.
    pub data: DataSettings,
    /// The backup gate; no evidence is demanded when absent.
    pub backup: Option<BackupSettings>,
    /// Where its releases come from.
    pub feed: FeedSettings,
    /// Which of its releases are taken, and when they are looked for.
    pub updates: UpdateSettings,
    /// Who is asked about sessions.
    pub sessions: Vec<SessionsSettings>,
    /// How many sessions of one user's may be registered at once by workstations.
    pub sessions_per_user_max: u32,
    /// Whose sessions at workstations count.
    pub people: PeopleSettings,
    /// What else closes and opens with the gate.
    pub gate: Vec<GateSettings>,
    /// How long users have.
    pub grace: Span,
    /// How long before the end of grace users are reminded, descending.
    pub reminders: Vec<Span>,
    /// How long a session is given to close politely before force is used.
    pub polite_end: Span,
    /// How long an unknown census is waited for.
    pub census_wait: Span,
    /// When users are admitted again.
    pub open_gate: OpenGate,
    /// Who is told.
    pub report: ReportSettings,
    /// Commands of the administrator's own.
    pub hooks: HookSettings,
    /// The program that `update now` starts again at the end; for programs that are no service.
    pub restart: Option<Command>,
    /// Files with secrets that its runs need, its own and the daemon's: every one that the configuration names.
    pub secrets: Vec<Secret>,
}

/// A file with a secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Where it is named, such as `daemon.mail.password_file`.
    pub key: String,
    /// The file.
    pub path: PathBuf,
}

impl Secret {
    /// Whether it is named below `table`.
    pub fn is_of(&self, table: &str) -> bool {
        self.key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'))
    }
}

impl AppSettings {
    /// What says whom it belongs to.
    pub fn tree(&self) -> Tree {
        Tree { env: self.env.clone(), ..Tree::new(&self.install_dir, self.owner.as_deref()) }
    }

    /// Every command that is run for it, with its key.
    pub fn commands(&self) -> Vec<(&'static str, &Command)> {
        let mut all = Vec::new();
        match &self.service.control {
            ServiceControl::Commands { start, stop, status } => {
                all.extend([("service.start", start), ("service.stop", stop), ("service.status", status)]);
            }
            ServiceControl::Supervised { run } => all.push(("service.run", run)),
            ServiceControl::Systemd { .. } | ServiceControl::None => {}
        }
        if let HealthProbe::Command(command) = &self.health.probe {
            all.push(("health.command", command));
        }
        if let DataSettings::Dump { dump, restore, verify, .. } = &self.data {
            all.extend([("data.dump", dump), ("data.restore", restore)]);
            all.extend(verify.iter().map(|verify| ("data.verify", verify)));
        }
        if let Some(backup) = &self.backup {
            all.extend(backup.make.iter().map(|make| ("backup.make", make)));
            match &backup.evidence {
                EvidenceSettings::Files { test: Some(test), .. } => all.push(("backup.evidence.test", test)),
                EvidenceSettings::Command { command } => all.push(("backup.evidence.command", command)),
                EvidenceSettings::Files { test: None, .. }
                | EvidenceSettings::Restic { .. }
                | EvidenceSettings::Borg { .. }
                | EvidenceSettings::Manifest { .. } => {}
            }
        }
        for sessions in &self.sessions {
            if let SessionsSettings::Commands { list, message, end, .. } = sessions {
                all.push(("sessions.list", list));
                all.extend(message.iter().map(|message| ("sessions.message", message)));
                all.extend(end.iter().map(|end| ("sessions.end", end)));
            }
        }
        for gate in &self.gate {
            if let GateSettings::Commands { close, open, .. } = gate {
                all.extend([("gate.close", close), ("gate.open", open)]);
            }
        }
        if let OpenGate::After(command) = &self.open_gate {
            all.push(("open_gate.after", command));
        }
        let others = [
            ("health.deep", &self.health.deep),
            ("hooks.before_stop", &self.hooks.before_stop),
            ("hooks.after_start", &self.hooks.after_start),
            ("restart", &self.restart),
        ];
        all.extend(others.into_iter().filter_map(|(key, command)| command.as_ref().map(|command| (key, command))));
        all
    }
}

/// Glob patterns with the texts they were made from.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    /// As written.
    pub texts: Vec<String>,
    /// Compiled; matched against paths relative to the tree. `*` does not cross `/`.
    pub set: GlobSet,
}

impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

/// How an application is started and stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSettings {
    /// By whom.
    pub control: ServiceControl,
    /// How long starting or stopping may take.
    pub deadline: Span,
    /// A port that must be closed for the service to count as stopped.
    pub port: Option<SocketAddr>,
}

/// Who starts and stops an application.
#[derive(Debug, Clone, PartialEq)]
pub enum ServiceControl {
    /// The init system.
    Systemd {
        /// The units, with their endings, in the order of starting; at least one.
        units: Vec<String>,
    },
    /// Commands of the administrator's own.
    Commands {
        /// Starts it and returns.
        start: Command,
        /// Stops it and returns.
        stop: Command,
        /// Ends with 0 when it runs, with 3 when it does not (as LSB says).
        status: Command,
    },
    /// This daemon.
    Supervised {
        /// Runs in the foreground, in the installation directory.
        run: Command,
    },
    /// Nobody: there is no process to stop (a desktop program, a set of files).
    None,
}

/// How an application is known to work.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthSettings {
    /// What is asked.
    pub probe: HealthProbe,
    /// Where the version is read from over HTTP, when it is not in the health answer.
    pub version: Option<Url>,
    /// Trusted for https in place of the host's authorities.
    pub ca_file: Option<PathBuf>,
    /// A deep check: a probe login, a query. Ends with 0 when all is well.
    pub deep: Option<Command>,
    /// How many good answers in a row.
    pub times: u32,
    /// The pause between two questions.
    pub every: Span,
    /// How long it may take until the last of them.
    pub deadline: Span,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum HealthProbe {
    /// An HTTP page that answers 2xx.
    Http(Url),
    /// A TCP port that accepts.
    Tcp(SocketAddr),
    /// A command that ends with 0; its output may name the version.
    Command(Command),
    /// Nothing is asked.
    None,
}

/// Where an application's data are.
#[derive(Debug, Clone, PartialEq)]
pub enum DataSettings {
    /// Directories and files, copied.
    Paths {
        /// Absolute; empty when there are no data beside the program.
        paths: Vec<PathBuf>,
        /// Only these, relative to each path; everything when empty.
        include: Patterns,
        /// Not these, relative to each path.
        exclude: Patterns,
    },
    /// A database: commands with `AFTERHOURS_SNAPSHOT` set to the dump's path.
    Dump {
        /// Writes it.
        dump: Command,
        /// Puts the database back from it.
        restore: Command,
        /// Ends with 0 when the dump is whole.
        verify: Option<Command>,
        /// How long each may take.
        deadline: Span,
    },
}

/// The backup gate.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupSettings {
    /// The oldest backup that is accepted.
    pub max_age: Span,
    /// Where the proof is.
    pub evidence: EvidenceSettings,
    /// Makes a backup.
    pub make: Option<Command>,
    /// How long making or testing one may take.
    pub deadline: Span,
    /// How many backup files are kept after making one; all when absent. Files only.
    pub keep_last: Option<u32>,
}

/// Where the proof of a backup is.
#[derive(Debug, Clone, PartialEq)]
pub enum EvidenceSettings {
    /// A directory of dumps.
    Files {
        /// An absolute path with globs in its last part.
        glob: String,
        /// A smaller file is no backup.
        min_size_bytes: u64,
        /// How much smaller than the median of the ones before it may be, in percent.
        max_shrink_percent: u32,
        /// Tests a file; `{}` is replaced with its path.
        test: Option<Command>,
    },
    /// A restic repository.
    Restic {
        /// As for `restic -r`.
        repository: String,
        /// Its password.
        password_file: PathBuf,
        /// Only snapshots with this tag.
        tag: Option<String>,
        /// How much is read back, as for `--read-data-subset`; nothing is when absent.
        read_data_subset: Option<String>,
        /// Variables that restic sees beyond what it is told here.
        env: BTreeMap<String, String>,
    },
    /// A borg repository.
    Borg {
        /// As borg spells it.
        repository: String,
        /// Its passphrase.
        passphrase_file: Option<PathBuf>,
        /// Only archives whose name begins so.
        prefix: Option<String>,
        /// Whether `borg check` runs.
        check: bool,
        /// Variables that borg sees beyond what it is told here.
        env: BTreeMap<String, String>,
    },
    /// A JSON manifest `{"made_at", "files": [{"path", "sha256", "size_bytes"}]}`.
    Manifest {
        /// The file.
        file: PathBuf,
    },
    /// A command that prints `{"made_at", "size_bytes", "source"}`.
    Command {
        /// The command.
        command: Command,
    },
}

/// Where releases come from.
#[derive(Debug, Clone)]
pub enum FeedSettings {
    /// A directory, one folder a release.
    Dir(PathBuf),
    /// A vendor's web server, with signed metadata.
    Signed(Box<SignedFeedSettings>),
}

/// A vendor's web server, with signed metadata (TUF).
#[derive(Debug, Clone)]
pub struct SignedFeedSettings {
    /// Where `metadata/` and `targets/` are; ends with `/`.
    pub url: Url,
    /// The first root to trust, where none is trusted yet; otherwise `feed trust` names one.
    pub root: Option<PathBuf>,
    /// How it is reached.
    pub transport: TransportSettings,
}

/// Which releases are taken, and when they are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateSettings {
    /// How long a release must have been published before it is taken.
    pub cool_down: Span,
    /// Whether this site waits for its turn where the vendor lets a release spread.
    pub rollout: bool,
    /// Whether newer releases are looked for when the daemon starts.
    pub check_at_start: bool,
    /// How often they are looked for; not by a period when absent.
    pub check_every: Option<Span>,
    /// The class of this site's licence.
    pub licence_class: Option<String>,
    /// Whether small downloads that build upon an earlier release are used.
    pub deltas: bool,
}

impl Default for UpdateSettings {
    /// What holds where nobody says otherwise.
    fn default() -> Self {
        Self {
            cool_down: Span::ZERO,
            rollout: true,
            check_at_start: true,
            check_every: Some(Span::hours(1)),
            licence_class: None,
            deltas: true,
        }
    }
}

/// How a feed is reached over the network.
#[derive(Debug, Clone, Default)]
pub struct TransportSettings {
    /// A PEM file of the only authority to trust; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// The way to the outside.
    pub proxy: ProxySettings,
    /// A file with the licence number, sent as a bearer token and nothing else with it.
    pub licence_file: Option<PathBuf>,
    /// How fast it may be fetched; as fast as it goes when absent.
    pub bytes_per_second_max: Option<u64>,
}

/// The way to the outside.
#[derive(Debug, Clone, Default)]
pub enum ProxySettings {
    /// As `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// Directly, whatever the environment says.
    Direct,
    /// Through this HTTP proxy.
    Through {
        /// `http://HOST:PORT`; no credentials in it.
        url: Url,
        /// User and password.
        login: Option<(String, SecretString)>,
        /// Hosts that are reached directly, as `NO_PROXY` writes them.
        except: Vec<String>,
    },
}

/// Whose sessions at workstations count; everybody's where neither is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeopleSettings {
    /// These users, by name or number.
    pub users: Option<Vec<String>>,
    /// The members of this group.
    pub group: Option<String>,
}

impl PeopleSettings {
    /// Whether nobody is left out.
    pub fn is_everybody(&self) -> bool {
        self.users.is_none() && self.group.is_none()
    }

    /// Whether a user is one of them. Asks the system's databases.
    pub fn are_of(&self, account: &Account) -> bool {
        let named = |user: &String| *user == account.name || *user == account.uid.to_string();
        self.is_everybody()
            || self.users.iter().flatten().any(named)
            || self.group.as_ref().is_some_and(|group| account.is_member(group))
    }
}

/// Who is asked about sessions.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are a few of them, and they live as long as the process")]
pub enum SessionsSettings {
    /// Workstations connected to this daemon.
    Workstations,
    /// Commands of the administrator's own.
    Commands {
        /// Prints a JSON array of sessions.
        list: Command,
        /// Shows `AFTERHOURS_MESSAGE` to the session `AFTERHOURS_SESSION`, or to all when that is empty.
        message: Option<Command>,
        /// Ends the session `AFTERHOURS_SESSION`; by force when `AFTERHOURS_FORCE` is 1.
        end: Option<Command>,
        /// How long each may take.
        deadline: Span,
        /// Users who are no people, such as that of a probe: they are not counted, told or logged out.
        ignore_users: Vec<String>,
    },
}

/// What else closes and opens with the gate.
#[derive(Debug, Clone, PartialEq)]
pub enum GateSettings {
    /// A file that exists while the gate is closed and holds the message (as `/run/nologin`).
    File(PathBuf),
    /// Commands of the administrator's own; both can be run twice.
    Commands {
        /// Closes; sees `AFTERHOURS_MESSAGE` and `AFTERHOURS_UNTIL`.
        close: Command,
        /// Opens.
        open: Command,
        /// How long each may take.
        deadline: Span,
    },
}

/// When users are admitted again.
#[derive(Debug, Clone, PartialEq)]
pub enum OpenGate {
    /// As soon as the new version is healthy.
    Automatic,
    /// When the administrator says `gate open`.
    ByHand,
    /// When this command has ended with 0.
    After(Command),
}

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportSettings {
    /// The person who started the run, when that is a mail address or the job names one.
    pub started_by: bool,
    /// Always these.
    pub group: Vec<String>,
    /// For which runs.
    pub mail: ReportMail,
    /// The language of the mails, as a tag: `en`, `de-AT`.
    pub language: String,
}

/// For which runs there is a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReportMail {
    /// For all.
    Always,
    /// For all but those that found nothing newer.
    #[default]
    WhenSomethingHappened,
    /// For those that failed, were put back or are stuck.
    OnFailure,
}

/// Commands of the administrator's own, at fixed places of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HookSettings {
    /// Before the service is stopped.
    pub before_stop: Option<Command>,
    /// After the new version was started, before it is checked.
    pub after_start: Option<Command>,
    /// How long each may take, and a release's own migration.
    pub deadline: Span,
}
