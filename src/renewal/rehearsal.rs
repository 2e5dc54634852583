//! A new program rehearses as somebody who may do nothing: on copies, as `nobody`, and without a way back to more rights.
//!
//! Whoever vouches for it, it has not run yet. It gets a copy of the store and of the configuration, without the secrets in it
//! (files, variables, arguments, passwords in addresses), in a private directory of that user; its environment is its own.
//!
//! ```text
//! /var/lib/.afterhours.rehearsal/   afterhours.db, afterhours.toml, afterhours: copies; removed afterwards
//! ```

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::StatVfsMountFlags;

use crate::config::hide_secrets;
use crate::config::names_a_secret;
use crate::files::account::Account;
use crate::files::small::read_small;
use crate::files::small::read_small_text;
use crate::renewal::error::At;
use crate::renewal::error::RenewalError;
use crate::renewal::place;

/// Who rehearses, where we are root. The number is that of everybody's `nobody`.
const NOBODY: (&str, u32) = ("nobody", 65_534);
/// Where there is room where the data directory's neighbourhood cannot be reached by others.
const ELSEWHERE: [&str; 2] = ["/var/tmp", "/tmp"];
/// The configuration that a program reads where none is named.
const CONFIG_DEFAULT: &str = "/etc/afterhours/afterhours.toml";
/// The largest file that is copied beside the configuration.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// What stands in the place of a secret.
const NO_SECRET: &str = "rehearsal";

/// Who rehearses: nobody in particular; we ourselves where we are not root.
pub(super) fn user() -> Account {
    match rustix::process::geteuid().is_root() {
        true => Account::find(NOBODY.0).unwrap_or_else(|| Account::of_uid(NOBODY.1)),
        false => Account::own(),
    }
}

/// An empty directory that `account` can reach; still ours.
pub(super) fn stage(data_dir: &Path, account: &Account) -> Result<PathBuf, RenewalError> {
    if account.uid == rustix::process::geteuid().as_raw() {
        let dir = data_dir.join("renewal/rehearsal");
        place::remove_tree(&dir)?;
        place::create_dir(&dir)?;
        return Ok(dir);
    }
    if let Some(parent) = data_dir.parent().filter(|parent| is_open(parent, false)) {
        let dir = parent.join(".afterhours.rehearsal");
        place::remove_tree(&dir)?;
        fs::DirBuilder::new().mode(0o700).create(&dir).at("create", &dir)?;
        return Ok(dir);
    }
    let parent = ELSEWHERE.iter().map(Path::new).find(|parent| is_open(parent, true)).unwrap_or(Path::new("/tmp"));
    let made = tempfile::Builder::new().prefix(".afterhours.rehearsal.").tempdir_in(parent);
    Ok(made.at("make a directory in", parent)?.keep())
}

/// Whether everybody can come to `dir`, programs in it can be run, and nobody but root can put something there, unless it is
/// `shared` by all.
fn is_open(dir: &Path, shared: bool) -> bool {
    let is_passable = |dir: &Path| fs::metadata(dir).is_ok_and(|about| about.mode() & 0o001 != 0);
    let is_ours = |about: fs::Metadata| about.uid() == 0 && about.mode() & 0o022 == 0;
    let runs = rustix::fs::statvfs(dir).is_ok_and(|on| !on.f_flag.contains(StatVfsMountFlags::NOEXEC));
    runs && dir.ancestors().all(is_passable) && (shared || fs::metadata(dir).is_ok_and(is_ours))
}

/// Puts copies of `program` and of the configuration beside the copy of the store in `dir`, and gives all of it to `account`.
/// What is to be run, and the configuration to be named.
pub(super) fn dress(
    dir: &Path,
    program: &Path,
    config: Option<&Path>,
    account: &Account,
) -> Result<(PathBuf, Option<PathBuf>), RenewalError> {
    if account.uid == rustix::process::geteuid().as_raw() {
        return Ok((program.to_owned(), config.map(Path::to_owned)));
    }
    let copy = dir.join("afterhours");
    fs::copy(program, &copy).at("copy", program)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o700)).at("make executable", &copy)?;
    let named = config.map(Path::to_owned).or_else(|| Some(PathBuf::from(CONFIG_DEFAULT)).filter(|path| path.exists()));
    let config = named.map(|from| copy_config(&from, dir)).transpose()?;
    for entry in fs::read_dir(dir).at("read", dir)? {
        let path = entry.at("read", dir)?.path();
        std::os::unix::fs::lchown(&path, Some(account.uid), Some(account.gid)).at("give away", &path)?;
    }
    // Last: until then nobody else could change what is in it.
    std::os::unix::fs::chown(dir, Some(account.uid), Some(account.gid)).at("give away", dir)?;
    Ok((copy, config))
}

/// The configuration as it is, but for what others must not see: what files it names hold copies, or nothing.
fn copy_config(from: &Path, dir: &Path) -> Result<PathBuf, RenewalError> {
    let text = read_small_text(&fs::canonicalize(from).at("find", from)?, FILE_BYTES_MAX);
    let text = text.map_err(std::io::Error::from).at("read", from)?.unwrap_or_default();
    let copy = dir.join("afterhours.toml");
    // Nothing of a text that we do not understand is handed out: who could say what in it is secret?
    let no_text = |message: String| std::io::Error::new(std::io::ErrorKind::InvalidData, message);
    let mut table = toml::from_str::<toml::Table>(&text)
        .map_err(|error| no_text(error.message().to_owned()))
        .at("understand", from)?;
    hide_secrets(&mut table, NO_SECRET);
    let mut files = 0;
    table.iter_mut().try_for_each(|(key, value)| replace_files(key, value, dir, &mut files))?;
    let bare = toml::to_string(&table).map_err(|error| no_text(error.to_string())).at("write anew", from)?;
    place::write(&copy, bare.as_bytes())?;
    Ok(copy)
}

fn replace_files(key: &str, value: &mut toml::Value, dir: &Path, files: &mut u32) -> Result<(), RenewalError> {
    match value {
        toml::Value::Table(table) => {
            table.iter_mut().try_for_each(|(key, value)| replace_files(key, value, dir, files))
        }
        toml::Value::Array(all) => all.iter_mut().try_for_each(|value| replace_files(key, value, dir, files)),
        toml::Value::String(path) if names_a_secret(key) || matches!(key, "ca_file" | "root" | "self_update_root") => {
            let found = if !names_a_secret(key) {
                read_small(Path::new(path), FILE_BYTES_MAX).unwrap_or_default()
            } else {
                None
            };
            *files += 1;
            let copy = dir.join(format!("file-{files}"));
            place::write(&copy, found.as_deref().unwrap_or(NO_SECRET.as_bytes()))?;
            *path = copy.display().to_string();
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_configuration_holds_no_secret() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("site.toml");
        for (name, content) in [("pw", "hunter2 hunter2"), ("ca.pem", "an authority")] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        let (pw, ca) = (dir.path().join("pw"), dir.path().join("ca.pem"));
        let text = format!(
            "[daemon]\nmail = {{ smtp = \"x\", password_file = {pw:?}, ca_file = {ca:?} }}\n[app.orders]\ninstall_dir = \"/opt\"\nenv = {{ PW = \"hunter2\" }}\n\
            restart = [\"ctl\", \"hunter2\"]\n"
        );
        fs::write(&from, text).unwrap();
        let stage = dir.path().join("stage");
        fs::create_dir(&stage).unwrap();
        let copy: toml::Table =
            toml::from_str(&fs::read_to_string(copy_config(&from, &stage).unwrap()).unwrap()).unwrap();
        assert!(!copy.to_string().contains("hunter2"), "{copy}");
        let mail = &copy["daemon"]["mail"];
        let held = |key: &str| fs::read_to_string(mail[key].as_str().unwrap()).unwrap();
        assert_eq!((held("password_file").as_str(), held("ca_file").as_str()), (NO_SECRET, "an authority"));
        assert_eq!((mail["smtp"].as_str(), copy["app"]["orders"]["install_dir"].as_str()), (Some("x"), Some("/opt")));
    }
}
