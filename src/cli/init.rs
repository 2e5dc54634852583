//! `afterhours init`: a commented configuration to fill in.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::fchown;
use std::path::Path;

use clap::Args;
use tempfile::NamedTempFile;

use crate::cli::context::Context;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::config;
use crate::domain::name::AppName;
use crate::files::account::find_group;

/// Write a commented configuration.
///
/// It is written to /etc/afterhours/afterhours.toml, or where --config says. Everything that has a default stands there
/// as a comment. A configuration that exists is never replaced.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo afterhours init --app orders
  afterhours init --app orders --print")]
pub(crate) struct InitArgs {
    /// The application to begin with
    #[arg(long, value_name = "NAME")]
    app: Option<AppName>,
    /// Print it instead of writing it
    #[arg(long)]
    print: bool,
}

/// Does what the arguments say.
pub(crate) fn run(args: InitArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let template = config::template(args.app.as_ref());
    if args.print {
        context.ui.answer(&serde_json::json!({ "configuration": template }), |_| template.clone())?;
        return Ok(Ending::Good);
    }
    let path = context.config_path();
    write_new(path, &template, readers())?;
    let done = format!("Wrote {}. Fill it in, then say `afterhours doctor`.", path.display());
    context.ui.done(&serde_json::json!({ "file": path }), done)?;
    Ok(Ending::Good)
}

/// The group of the operators, who find the daemon by the configuration; nothing where there is no such group, or we may not
/// give a file to it.
fn readers() -> Option<u32> {
    let settings = config::parse(config::DEFAULT, "default").ok()?;
    find_group(&settings.daemon.operator_group).filter(|_| rustix::process::geteuid().is_root())
}

/// Under its name there is a whole file or none, and never somebody else's replaced.
fn write_new(path: &Path, text: &str, readers: Option<u32>) -> Result<(), CliError> {
    let failed = |error: &dyn std::error::Error| CliError::failed(format!("write {}", path.display()), error);
    let exists = || {
        let hint = "edit it, or name another file with --config";
        CliError::refused(format!("{} exists already", path.display()), hint)
    };
    if path.exists() {
        return Err(exists());
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs_err::create_dir_all(dir).map_err(|error| failed(&error))?;
    let mut file = NamedTempFile::new_in(dir).map_err(|error| failed(&error))?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| readers.map_or(Ok(()), |group| fchown(file.as_file(), None, Some(group))))
        .and_then(|()| file.as_file().set_permissions(PermissionsExt::from_mode(0o640)))
        .and_then(|()| file.as_file().sync_all());
    written.map_err(|error| failed(&error))?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists()),
        Err(error) => Err(failed(&error.error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::wire::error::ErrorKind;

    #[test]
    fn operators_can_read_it_and_nobody_else() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("afterhours.toml");
        write_new(&path, "text", Some(12345)).unwrap();
        let about = fs_err::metadata(&path).unwrap();
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o777), (0, 12345, 0o640));
        crate::files::trusted::trusted_file(&path).unwrap();
    }

    #[test]
    fn a_configuration_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/afterhours.toml");
        write_new(&path, "first", None).unwrap();
        assert_eq!(write_new(&path, "second", None).unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs_err::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
