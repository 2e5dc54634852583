//! Which commands of an application may be run, and as whom, before any of them is.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;

use crate::config::settings::AppSettings;
use crate::config::settings::DataSettings;
use crate::domain::command::Command;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::release::Release;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::missing_program;
use crate::exec::permit;
use crate::exec::permit::Permit;
use crate::exec::permit::Refusal;
use crate::files::account::Account;

/// The check's name.
const CHECK: &str = "commands";
/// How long it may take to find out whether a user may run a program.
const LOOK_DEADLINE: Span = Span::secs(10);

/// What is to be said of the commands of `app`, and of those that the releases of `path` bring.
pub(crate) async fn findings(app: &AppSettings, path: &[Release]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut users: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut accounts = BTreeMap::new();
    for (key, command) in app.commands() {
        match permitted(command, dir(app, key)).await {
            Ok(permit) => {
                findings.extend(absent(app, key, command));
                findings.extend(unreachable(key, command, &permit, dir(app, key)).await);
                users.entry(permit.account.name.clone()).or_default().insert(key);
                accounts.insert(key, permit.account);
            }
            Err(Refusal::Absent { .. }) => findings.extend(absent(app, key, command)),
            Err(refusal) => findings.push(refused(key, &refusal)),
        }
    }
    findings.extend(unreadable_dump(app, &accounts));
    findings.extend(migrations(app, path).await);
    if findings.is_empty() && !users.is_empty() {
        let told = users.iter().map(|(user, keys)| format!("{user} runs {}", join(keys)));
        findings.push(Finding::good(CHECK, told.collect::<Vec<_>>().join("; ")));
    }
    findings
}

fn join(keys: &BTreeSet<&str>) -> String {
    keys.iter().copied().collect::<Vec<_>>().join(", ")
}

/// Where the command of `key` is run.
fn dir<'a>(app: &'a AppSettings, key: &str) -> &'a Path {
    if key.starts_with("service.") { &app.install_dir } else { Path::new("/") }
}

async fn permitted(command: &Command, dir: &Path) -> Result<Permit, Refusal> {
    let (command, at) = (command.clone(), dir.to_owned());
    let asked = tokio::task::spawn_blocking(move || permit::permit(&command, &at)).await;
    asked.unwrap_or_else(|source| Err(Refusal::NoTree { path: dir.to_owned(), source: source.into() }))
}

/// A program that is not there. Of those that adapters run they say so themselves, since they know where it is looked for.
fn absent(app: &AppSettings, key: &str, command: &Command) -> Option<Finding> {
    if !matches!(key, "hooks.before_stop" | "hooks.after_start" | "open_gate.after" | "restart" | "health.deep") {
        return None;
    }
    let program = missing_program(command)?;
    let text = format!("the command `{key}` cannot be run: there is no program {program}");
    let remedy = "install it, or correct the command in the configuration";
    // A new release may bring what runs after it was put in place.
    let may_come = key != "hooks.before_stop" && Path::new(program).starts_with(&app.install_dir);
    Some(if may_come { Finding::warning(CHECK, text, remedy) } else { Finding::fatal(CHECK, text, remedy) })
}

fn refused(key: &str, refusal: &Refusal) -> Finding {
    let why = Failure::from_error(refusal);
    Finding::fatal(CHECK, format!("the command `{key}` may not be run: {why}"), refusal.remedy())
}

/// A program that its user cannot run. That it is missing is said where it is used.
async fn unreachable(key: &str, command: &Command, permit: &Permit, dir: &Path) -> Option<Finding> {
    if permit.account.uid == Account::own().uid {
        return None;
    }
    let found = permit::find_program(command, dir)?;
    let shown = found.display().to_string();
    let argv = vec!["test".to_owned(), "-x".to_owned(), shown.clone()];
    let ended = Exec::of(&Command { argv, env: BTreeMap::new(), ..command.clone() }, LOOK_DEADLINE).output().await;
    let user = &permit.account;
    (!ended.ok()?.status.success()).then(|| {
        Finding::fatal(
            CHECK,
            format!("the command `{key}` runs as {user}, who may not run {shown}"),
            format!("let {user} run it, or write {{ argv = [..], as = \"USER\" }} for it"),
        )
    })
}

/// A dump that whoever has to restore or to test it cannot read.
fn unreadable_dump(app: &AppSettings, accounts: &BTreeMap<&str, Account>) -> Option<Finding> {
    let DataSettings::Dump { .. } = app.data else { return None };
    let dump = accounts.get("data.dump")?;
    let stranger = |key: &&str| accounts.get(key).is_some_and(|user| user.uid != dump.uid && !user.is_root());
    let key = ["data.restore", "data.verify"].into_iter().find(stranger)?;
    let text = format!("`data.dump` runs as {dump} and `{key}` as {}, who could not read the dump", accounts[key]);
    Some(Finding::fatal(CHECK, text, "let the commands of `data` run as one user"))
}

/// What the releases' own migrations demand.
async fn migrations(app: &AppSettings, path: &[Release]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for release in path.iter().filter(|release| release.migrate_as_root) {
        if !app.allow_migrate_as_root {
            let text = format!("the migration of {} demands to run as root", release.id);
            findings.push(Finding::fatal("migrate_as_root", text, as_root_hint(app)));
            continue;
        }
        // That there is nothing for root to run yet is no obstacle; the way to where it will be is looked at.
        let nothing = permit::as_root(Command::of_owner(vec!["true".to_owned()], app.tree()));
        findings.extend(permitted(&nothing, Path::new("/")).await.err().map(|refusal| refused("migrate", &refusal)));
        let way = crate::files::trusted::trusted_way(&app.staging_dir);
        findings.push(match way {
            Ok(()) => Finding::warning(
                "migrate_as_root",
                format!("the migration of {} runs as root, as it demands and as the configuration allows", release.id),
                "ask its vendor why, or hold the release back",
            ),
            Err(source) => {
                let refusal = Refusal::Untrusted { path: app.staging_dir.clone(), source };
                refused("migrate", &refusal)
            }
        });
    }
    findings
}

/// What to do about a migration that demands to be root.
pub(crate) fn as_root_hint(app: &AppSettings) -> String {
    format!("set `allow_migrate_as_root = true` in [app.{}] if you trust its vendor with this machine", app.name)
}
