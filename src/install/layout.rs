//! Where everything of one application lies.
//!
//! ```text
//! /opt/orders                       the installation
//! /opt/orders_old, _old.2 …         the trees of before the last successful runs
//! /opt/.orders.afterhours/          the staging folder: same file system, root only
//!   staged/2.0+20/                  a tree to come, or after the swap the tree that was
//!   trees.json                      which tree is in place, and which old ones are ours
//!   exchange.json, aside            a journalled pair of renames, while it lasts
//!   snapshot/7/                     state, indexes, and copies that cannot lie beside their data
//!   snapshot/7/dumped/dump          a dump of the data, in a directory of the user's who writes it
//!   for-root/2.0+20/                a copy of the tree, root's own, for a migration that must be root
//!   trash/                          on its way out
//!   hold, lock, store
//! /var/lib/.orders.afterhours-snapshot/7   the copy of /var/lib/orders for run 7
//! ```
//!
//! `staged/2.0+20.state/` holds what is known of the tree beside it, and what belongs to its swap. Nothing of ours is in a tree,
//! but for the marker that tells people, and other machines, which release it is.

use std::ffi::OsString;
use std::path::Path;
use std::path::PathBuf;

use crate::config::settings::AppSettings;
use crate::domain::release::ReleaseId;
use crate::domain::run::RunId;
use crate::files::trusted::trusted_dir;

/// An earlier Afterhours kept here what belongs to the swap: never the administrator's.
pub(super) const PREPARED: &str = ".afterhours-prepared";
/// An earlier Afterhours marked an `_old` tree with it: never the administrator's.
pub(super) const RETIRED: &str = ".afterhours-retired";

/// The file that keeps a reboot from starting half-migrated data.
pub fn hold_path(app: &AppSettings) -> PathBuf {
    app.staging_dir.join("hold")
}

/// Paths of one application.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) install_dir: PathBuf,
    pub(super) staging_dir: PathBuf,
}

impl Layout {
    pub(super) fn new(app: &AppSettings) -> Self {
        Self { install_dir: app.install_dir.clone(), staging_dir: app.staging_dir.clone() }
    }

    pub(super) fn staged_dir(&self) -> PathBuf {
        self.staging_dir.join("staged")
    }

    pub(super) fn staged(&self, id: &ReleaseId) -> PathBuf {
        self.staged_dir().join(format!("{}+{}", id.version, id.build))
    }

    /// Which tree is which.
    pub(super) fn trees(&self) -> PathBuf {
        self.staging_dir.join("trees.json")
    }

    pub(super) fn intent(&self) -> PathBuf {
        self.staging_dir.join("exchange.json")
    }

    pub(super) fn aside(&self) -> PathBuf {
        self.staging_dir.join("aside")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.staging_dir.join("lock")
    }

    pub(super) fn hold(&self) -> PathBuf {
        self.staging_dir.join("hold")
    }

    pub(super) fn trash(&self) -> PathBuf {
        self.staging_dir.join("trash")
    }

    /// Copies of trees whose migration runs as root.
    pub(super) fn for_root(&self) -> PathBuf {
        self.staging_dir.join("for-root")
    }

    /// How large the last dump was.
    pub(super) fn dump_size(&self) -> PathBuf {
        self.staging_dir.join("dump-size")
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.staging_dir.join("snapshot")
    }

    pub(super) fn snapshot(&self, run: RunId) -> PathBuf {
        self.snapshots().join(run.to_string())
    }

    /// Where old trees are kept: beside the installation, or with our own where others than root could exchange them there.
    pub(super) fn old_dir(&self) -> &Path {
        let beside = parent(&self.install_dir);
        if trusted_dir(beside).is_ok() { beside } else { &self.staging_dir }
    }

    /// `<install_dir>_old` for 1, `<install_dir>_old.2` for 2, and so on.
    pub(super) fn old(&self, place: u32) -> PathBuf {
        let tail = if place <= 1 { "_old".to_owned() } else { format!("_old.{place}") };
        let mut name = self.install_dir.file_name().map_or_else(OsString::new, ToOwned::to_owned);
        name.push(tail);
        self.old_dir().join(name)
    }
}

/// The directory that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("/"),
    }
}

/// Where copies of `data` lie: beside it, hidden.
pub(super) fn beside(data: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(data.file_name().unwrap_or_default());
    name.push(".afterhours-snapshot");
    parent(data).join(name)
}

/// `path` with `.new` after its name.
pub(super) fn dot_new(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_trees_stand_beside_the_installation() {
        let layout = Layout { install_dir: "/usr/orders".into(), staging_dir: "/usr/.orders.afterhours".into() };
        assert_eq!(layout.old(1), Path::new("/usr/orders_old"));
        assert_eq!(layout.old(3), Path::new("/usr/orders_old.3"));
        let id = ReleaseId { version: "2.0".parse().unwrap(), build: 20 };
        assert_eq!(layout.staged(&id), Path::new("/usr/.orders.afterhours/staged/2.0+20"));
    }

    #[test]
    fn copies_lie_beside_their_data() {
        assert_eq!(beside(Path::new("/var/lib/orders")), Path::new("/var/lib/.orders.afterhours-snapshot"));
        assert_eq!(parent(Path::new("/a")), Path::new("/"));
    }
}
