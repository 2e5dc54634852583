//! Keeps a unit down, whoever wants it up, until we want it up.
//!
//! Between stop and commit the application must not come up by a reboot, by somebody's `systemctl start`, or
//! by a socket. A drop-in says so:
//!
//! ```text
//! /etc/systemd/system/UNIT.d/50-afterhours-hold.conf
//!     ConditionPathExists=|!HOLD       up when nothing is held,
//!     ConditionPathExists=|PERMIT      or when we started it ourselves in this boot
//! ```
//!
//! The permit lies below `/run` and is gone after a reboot. A start of ours writes it and a stop removes
//! it, so the hold can stay from stop to commit while we start the new version and systemd restarts
//! it after a crash. Who has the drop-in but no hold file notices nothing.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::Access;

use crate::files::dirs::make_public;
use crate::service::error::ServiceError;
use crate::service::files::absent_is_fine;
use crate::service::files::write_durably;
use crate::service::state::blocking;

/// The file name of our drop-in.
const DROP_IN: &str = "50-afterhours-hold.conf";
/// Where drop-ins of the administrator's stand.
const UNIT_DIR: &str = "etc/systemd/system";
/// Where permits lie; it must not survive a reboot.
const PERMIT_DIR: &str = "run/afterhours/permits";

/// The files that hold one unit.
#[derive(Debug)]
pub(crate) struct Hold {
    unit: String,
    /// Our view of systemd's root directory.
    root: PathBuf,
}

impl Hold {
    pub(crate) fn new(unit: &str, root: PathBuf) -> Self {
        Self { unit: unit.to_owned(), root }
    }

    /// The folder that would have to be writable and is not.
    pub(crate) fn unwritable(&self) -> Option<String> {
        let refused = rustix::fs::access(self.root.join(UNIT_DIR), Access::WRITE_OK).is_err();
        refused.then(|| format!("/{UNIT_DIR}"))
    }

    /// Writes the drop-in; systemd has to be reloaded then.
    pub(crate) async fn install(&self, hold: &Path) -> Result<(), ServiceError> {
        let text = self.text(hold)?;
        let dir = self.dir();
        self.on_file("write", dir.join(DROP_IN), move |file| {
            make_public(&dir)?;
            write_durably(file, text.as_bytes(), 0o644)?;
            // The folder may be new, and must be there after a power cut too.
            fs_err::File::open(dir.parent().unwrap_or(&dir))?.sync_all()
        })
        .await
    }

    /// Removes the drop-in; systemd has to be reloaded then.
    pub(crate) async fn remove(&self) -> Result<(), ServiceError> {
        let dir = self.dir();
        self.on_file("remove", dir.join(DROP_IN), move |file| {
            absent_is_fine(fs_err::remove_file(file))?;
            // Others may have drop-ins of their own there.
            let _ = fs_err::remove_dir(&dir);
            Ok(())
        })
        .await
    }

    /// Allows the unit to be started in this boot.
    pub(crate) async fn permit(&self) -> Result<(), ServiceError> {
        // Without a drop-in nobody asks for a permit, and a daemon that is not root could not write one.
        if !self.dir().join(DROP_IN).exists() {
            return Ok(());
        }
        self.on_file("write", self.permit_file(), |file| {
            file.parent().map_or(Ok(()), make_public)?;
            fs_err::write(file, "")
        })
        .await
    }

    /// Takes [`Hold::permit`] back.
    pub(crate) async fn withdraw_permit(&self) -> Result<(), ServiceError> {
        self.on_file("remove", self.permit_file(), |file| absent_is_fine(fs_err::remove_file(file))).await
    }

    fn dir(&self) -> PathBuf {
        self.root.join(UNIT_DIR).join(format!("{}.d", self.unit))
    }

    fn permit_file(&self) -> PathBuf {
        self.root.join(PERMIT_DIR).join(&self.unit)
    }

    fn text(&self, hold: &Path) -> Result<String, ServiceError> {
        if self.unit.contains('/') {
            return Err(ServiceError::NoUnit { unit: self.unit.clone() });
        }
        let bad = || ServiceError::BadHold { path: hold.to_owned() };
        let path = hold.to_str().filter(|path| path.starts_with('/')).ok_or_else(bad)?;
        if path.chars().any(|c| c.is_control() || c == '\\') {
            return Err(bad());
        }
        // A percent sign begins a specifier of systemd's.
        let (path, permit) = (path.replace('%', "%%"), format!("/{PERMIT_DIR}/{}", self.unit).replace('%', "%%"));
        Ok(format!(
            "# Written by Afterhours. While an update is under way the application must not start by itself.\n\
             [Unit]\nConditionPathExists=|!{path}\nConditionPathExists=|{permit}\n"
        ))
    }

    async fn on_file(
        &self,
        call: &'static str,
        path: PathBuf,
        work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), ServiceError> {
        let file = path.clone();
        blocking(move || work(&file)).await.map_err(|source| ServiceError::File { call, path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn is_written_once_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(root.path().join(UNIT_DIR)).unwrap();
        let hold = Hold::new("orders@1.service", root.path().to_owned());
        assert_eq!(hold.unwritable(), None);
        hold.permit().await.unwrap();
        assert!(!root.path().join("run").exists(), "nobody asks for a permit");
        for _ in 0..2 {
            hold.install(Path::new("/var/lib/100%/hold")).await.unwrap();
        }
        let text = fs_err::read_to_string(hold.dir().join(DROP_IN)).unwrap();
        let conditions: Vec<_> = text.lines().filter(|line| line.starts_with("Condition")).collect();
        assert_eq!(
            conditions,
            [
                "ConditionPathExists=|!/var/lib/100%%/hold",
                "ConditionPathExists=|/run/afterhours/permits/orders@1.service"
            ]
        );
        hold.permit().await.unwrap();
        assert!(hold.permit_file().exists());
        for _ in 0..2 {
            hold.remove().await.unwrap();
            hold.withdraw_permit().await.unwrap();
        }
        assert!(!hold.dir().exists() && !hold.permit_file().exists());
    }

    #[tokio::test]
    async fn what_could_break_a_unit_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let hold = Hold::new("orders.service", root.path().to_owned());
        for path in ["relative", "/a\nExecStart=/bin/evil", "/a\\"] {
            let error = hold.install(Path::new(path)).await.unwrap_err();
            assert!(matches!(error, ServiceError::BadHold { .. }), "{error}");
        }
        let escaping = Hold::new("../../orders.service", root.path().to_owned());
        assert!(matches!(escaping.install(Path::new("/hold")).await, Err(ServiceError::NoUnit { .. })));
    }
}
