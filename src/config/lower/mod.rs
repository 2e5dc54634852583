//! From what was written to what it means: checks, defaults, and the cross-checks between keys.
//!
//! One function a table of the file, one file a group of tables. Nothing is guessed: what is
//! missing and has no default, and what contradicts itself, is a [`Problem`] at its key.

mod check;
mod data;
mod feed;
mod mail;
mod people;
mod secret;
mod service;
mod updates;

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::input::AppInput;
use crate::config::input::DaemonInput;
use crate::config::input::Input;
use crate::config::settings::AppSettings;
use crate::config::settings::DaemonSettings;
use crate::config::settings::Secret;
use crate::config::settings::Settings;
use crate::domain::command::Tree;
use crate::domain::name::AppName;
use crate::domain::span::Span;

const DATA_DIR: &str = "/var/lib/afterhours";
const SOCKET: &str = "/run/afterhours/afterhours.sock";
/// The workstations' socket stands beside the operators'.
const WORKSTATION_SOCKET: &str = "workstations.sock";
const OPERATOR_GROUP: &str = "afterhours";
const KEEP_OLD: u32 = 1;
const KEEP_HISTORY: Span = Span::days(400);
const KEEP_AUDIT: Span = Span::days(800);
/// A history that is kept for less than this is a slip of the pen.
const KEEP_MIN: Span = Span::days(1);
/// Also a large store has to be copied, and its schema upgraded, within it.
const SELF_UPDATE_DEADLINE: Span = Span::mins(1);
/// The name that Afterhours keeps for itself; see `renewal::UPDATER`.
const OURS: &str = "afterhours";

/// The whole file, and the files with secrets that it names.
pub(super) fn settings(input: Input, secrets: Vec<Secret>) -> Result<Settings, Problem> {
    let top = Place::default();
    let daemon = daemon(&top.key("daemon"), input.daemon)?;
    let mut apps = BTreeMap::new();
    for (name, input) in input.app {
        let place = top.key("app").key(&name);
        let name: AppName = name.parse().map_err(|error| place.wrong(format!("{error}")))?;
        if name.as_str() == OURS {
            return Err(place
                .wrong(format!("\"{name}\" is the name of this program itself"))
                .hint("call the application something else"));
        }
        // A run of the application needs its own secrets, and the daemon's for its report.
        let others = |secret: &&Secret| secret.is_of("app") && !secret.is_of(&format!("app.{name}"));
        let secrets = secrets.iter().filter(|secret| !others(secret)).cloned().collect();
        apps.insert(name.clone(), AppSettings { secrets, ..app(&place, name, input)? });
    }
    apart(&top.key("app"), &apps, &daemon.data_dir)?;
    let (texts, unfit) = (BTreeMap::new(), BTreeMap::new());
    Ok(Settings { daemon, apps, texts, unfit, mail_unfit: None, digest: String::new() })
}

/// Only where the daemon's sockets are, the operators' and the workstations': all that a person without access to
/// secrets can need.
pub(super) fn sockets(input: &DaemonInput) -> Result<(PathBuf, PathBuf), Problem> {
    let place = Place::default().key("daemon");
    let socket = check::path(&place.key("socket"), input.socket.as_deref().unwrap_or(SOCKET))?;
    let place = place.key("workstation_socket");
    let workstations = match &input.workstation_socket {
        Some(text) => check::path(&place, text)?,
        None => socket.with_file_name(WORKSTATION_SOCKET),
    };
    if workstations == socket {
        return Err(place
            .wrong(format!("\"{}\" is the operators' socket, too", socket.display()))
            .hint("give each of `socket` and `workstation_socket` a path of its own"));
    }
    Ok((socket, workstations))
}

fn daemon(place: &Place, input: DaemonInput) -> Result<DaemonSettings, Problem> {
    let (socket, workstation_socket) = sockets(&input)?;
    let group = input.operator_group.unwrap_or_else(|| OPERATOR_GROUP.to_owned());
    let (keep_history, keep_audit) = kept(place, input.keep_history, input.keep_audit)?;
    Ok(DaemonSettings {
        data_dir: check::path(&place.key("data_dir"), input.data_dir.as_deref().unwrap_or(DATA_DIR))?,
        socket,
        workstation_socket,
        operator_group: check::text(&place.key("operator_group"), group)?,
        keep_history,
        keep_audit,
        self_update: input.self_update.unwrap_or(true),
        self_update_deadline: input.self_update_deadline.unwrap_or(SELF_UPDATE_DEADLINE),
        self_update_root: (input.self_update_root.as_deref())
            .map(|path| check::path(&place.key("self_update_root"), path))
            .transpose()?,
        mail: input.mail.map(|mail| mail::mail(&place.key("mail"), mail)).transpose()?,
    })
}

/// How long the history and the audit are kept.
fn kept(place: &Place, history: Option<Span>, audit: Option<Span>) -> Result<(Span, Span), Problem> {
    let history = history.unwrap_or(KEEP_HISTORY);
    if history < KEEP_MIN {
        return Err(place.key("keep_history").wrong(format!("{history} is shorter than {KEEP_MIN}")));
    }
    match audit {
        Some(audit) if audit < history => {
            Err(place.key("keep_audit").wrong(format!("{audit} is shorter than the history of {history}")).hint(
                "who changed what is kept at least as long as what happened: lengthen it, or shorten `keep_history`",
            ))
        }
        Some(audit) => Ok((history, audit)),
        None => Ok((history, KEEP_AUDIT.max(history))),
    }
}

fn app(place: &Place, name: AppName, input: AppInput) -> Result<AppSettings, Problem> {
    let install_dir = install_dir(&place.key("install_dir"), input.install_dir.as_deref())?;
    let staging_dir = staging_dir(&place.key("staging_dir"), input.staging_dir.as_deref(), &install_dir)?;
    let snapshot_dir = snapshot_dir(&place.key("snapshot_dir"), input.snapshot_dir.as_deref(), &install_dir)?;
    let owner = input.owner.map(|text| owner(&place.key("owner"), text)).transpose()?;
    let env = check::environment(&place.key("env"), input.env)?;
    let tree = Tree { env: env.clone(), ..Tree::new(&install_dir, owner.as_deref()) };
    let data = data::data(&place.key("data"), input.data, &tree)?;
    let installed_version = input
        .installed_version
        .map(|text| text.parse().map_err(|error| place.key("installed_version").wrong(format!("{error}"))));
    let (grace, reminders) = people::grace(place, input.grace, input.reminders)?;
    Ok(AppSettings {
        title: check::text(&place.key("title"), input.title.unwrap_or_else(|| name.to_string()))?,
        name,
        install_dir,
        installed_version: installed_version.transpose()?,
        staging_dir,
        snapshot_dir,
        keep: check::patterns(&place.key("keep"), input.keep)?,
        owner,
        env,
        allow_migrate_as_root: input.allow_migrate_as_root.unwrap_or(false),
        keep_old: input.keep_old.unwrap_or(KEEP_OLD),
        service: service::service(&place.key("service"), input.service, &tree)?,
        health: service::health(&place.key("health"), input.health.unwrap_or_default(), &tree)?,
        data,
        backup: input.backup.map(|backup| data::backup(&place.key("backup"), backup, &tree)).transpose()?,
        feed: feed::feed(&place.key("feed"), input.feed)?,
        updates: updates::updates(&place.key("updates"), input.updates)?,
        sessions: people::sessions(&place.key("sessions"), input.sessions, &tree)?,
        sessions_per_user_max: people::sessions_per_user_max(place, input.sessions_per_user_max)?,
        people: people::people(place, input.users, input.group)?,
        gate: people::gate(&place.key("gate"), input.gate, &tree)?,
        grace,
        reminders,
        polite_end: people::polite_end(place, input.polite_end)?,
        census_wait: people::census_wait(place, input.census_wait)?,
        open_gate: people::open_gate(&place.key("open_gate"), input.open_gate, &tree)?,
        report: people::report(&place.key("report"), input.report)?,
        hooks: people::hooks(&place.key("hooks"), input.hooks, &tree)?,
        restart: check::maybe_command(&place.key("restart"), input.restart, &tree)?,
        secrets: Vec::new(),
    })
}

fn install_dir(place: &Place, text: Option<&str>) -> Result<PathBuf, Problem> {
    let text = text.ok_or_else(|| place.missing("say where the program stands: install_dir = \"/opt/NAME\""))?;
    let path = check::path(place, text)?;
    match path.parent().and_then(Path::parent) {
        Some(_) => Ok(path),
        // The whole system, or one of its first directories: nothing that can be exchanged.
        None => Err(place
            .wrong(format!("\"{text}\" is too high up to be exchanged"))
            .hint("give the application a directory of its own, such as /opt/NAME")),
    }
}

/// What is said, else `PARENT/.NAME.afterhours`: beside the installation, so that it is on the same file system.
fn staging_dir(place: &Place, text: Option<&str>, install_dir: &Path) -> Result<PathBuf, Problem> {
    match text {
        Some(text) => outside(place, text, install_dir),
        None => {
            let name = install_dir.file_name().unwrap_or_default().to_string_lossy();
            Ok(install_dir.with_file_name(format!(".{name}.afterhours")))
        }
    }
}

fn snapshot_dir(place: &Place, text: Option<&str>, install_dir: &Path) -> Result<Option<PathBuf>, Problem> {
    text.map(|text| outside(place, text, install_dir)).transpose()
}

/// A directory of ours, which must not go away with the old version.
fn outside(place: &Place, text: &str, install_dir: &Path) -> Result<PathBuf, Problem> {
    let path = check::path(place, text)?;
    if path.starts_with(install_dir) || install_dir.starts_with(&path) {
        return Err(place
            .wrong(format!("\"{text}\" and the program in {} stand in each other", install_dir.display()))
            .hint("name a directory of root's on the same file system, such as /srv/.afterhours-NAME"));
    }
    Ok(path)
}

fn owner(place: &Place, text: String) -> Result<String, Problem> {
    let is_pair = text.split_once(':').is_some_and(|(user, group)| {
        !user.is_empty() && !group.is_empty() && !text.contains(char::is_whitespace) && !group.contains(':')
    });
    if is_pair { Ok(text) } else { Err(place.wrong(format!("\"{text}\" is not USER:GROUP"))) }
}

/// Two applications never stand in, or keep data in, each other's directories; and none of them holds our own store,
/// which a rollback must not put back.
fn apart(place: &Place, apps: &BTreeMap<AppName, AppSettings>, data_dir: &Path) -> Result<(), Problem> {
    let mut taken: Vec<(&Path, PathBuf, &AppName)> = Vec::new();
    let real_data_dir = real(data_dir);
    for (name, app) in apps {
        let ours: Vec<_> = app.places().into_iter().map(|(path, key)| (path, real(path), key)).collect();
        for (path, there, key) in &ours {
            if data_dir.starts_with(path) || real_data_dir.starts_with(there) {
                let (path, data_dir) = (path.display(), data_dir.display());
                return Err(place
                    .key(name.as_str())
                    .key(key)
                    .wrong(format!("\"{path}\" holds the daemon's data_dir \"{data_dir}\""))
                    .hint("name the application's own directories only, or move `data_dir` of [daemon]"));
            }
            let in_each_other = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
            let clash = taken
                .iter()
                .find(|(other, elsewhere, _)| in_each_other(path, other) || in_each_other(there, elsewhere));
            if let Some((other, _, owner)) = clash {
                let (path, other) = (path.display(), other.display());
                return Err(place
                    .key(name.as_str())
                    .key(key)
                    .wrong(format!("\"{path}\" and \"{other}\" of application {owner} stand in each other"))
                    .hint("two applications cannot be updated apart when they share directories"));
            }
        }
        taken.extend(ours.into_iter().map(|(path, there, _)| (path, there, name)));
    }
    Ok(())
}

/// Where a path leads over all links; what is not there yet is taken by its name.
pub(super) fn real(path: &Path) -> PathBuf {
    let known = path.ancestors().find_map(|dir| Some((dir, dir.canonicalize().ok()?)));
    known.map_or_else(|| path.to_owned(), |(dir, there)| there.join(path.strip_prefix(dir).unwrap_or(path)))
}
