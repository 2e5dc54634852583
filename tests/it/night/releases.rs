//! Versions of the order desk, as trees and as packed releases.

use std::path::Path;

use afterhours::domain::release::ReleaseId;
use afterhours::feed::pack::PackMeta;
use afterhours::feed::pack::pack;

/// What a version of the order desk is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edition {
    pub(crate) version: &'static str,
    pub(crate) build: u64,
    /// The data it works with.
    pub(crate) schema: u32,
    /// A file that says what is wrong with it: `sick` (its page answers 500), `dies` (it does not start).
    pub(crate) flaw: Option<&'static str>,
    /// In place of its own migration.
    pub(crate) migrate: Option<&'static [&'static str]>,
    /// With a file of 1 MB.
    pub(crate) large: bool,
}

/// What is installed when a test begins.
pub(crate) const V1: Edition = Edition { version: "1.0", build: 1, schema: 1, flaw: None, migrate: None, large: false };
/// Changes the data.
pub(crate) const V2: Edition = Edition { version: "2.0", build: 2, schema: 2, ..V1 };
/// Changes the data again.
pub(crate) const V3: Edition = Edition { version: "3.0", build: 3, schema: 3, ..V1 };
/// Changes the data and never becomes healthy.
pub(crate) const SICK: Edition = Edition { flaw: Some("sick"), ..V2 };

impl Edition {
    /// Makes its tree.
    pub(crate) fn tree(&self, dir: &Path) {
        fs_err::create_dir_all(dir.join("config")).unwrap();
        fs_err::create_dir_all(dir.join("lib")).unwrap();
        for (name, text) in [
            ("version", self.version.to_owned()),
            ("schema", self.schema.to_string()),
            ("config/desk.conf", format!("vendor's default of {}\n", self.version)),
            ("desk.py", include_str!("desk.py").to_owned()),
            ("migrate.py", include_str!("migrate.py").to_owned()),
        ] {
            fs_err::write(dir.join(name), text).unwrap();
        }
        for part in 0..20 {
            fs_err::write(dir.join(format!("lib/{part}.py")), format!("# {} {part}\n", self.version)).unwrap();
        }
        if self.large {
            fs_err::write(dir.join("lib/large"), vec![b'x'; 1 << 20]).unwrap();
        }
        if let Some(flaw) = self.flaw {
            fs_err::write(dir.join(flaw), "").unwrap();
        }
    }

    /// Installs it by hand.
    pub(crate) fn install(&self, dir: &Path) {
        self.tree(dir);
        fs_err::write(dir.join("config/desk.conf"), "the administrator's own\n").unwrap();
    }

    /// Publishes it in a feed.
    pub(crate) fn publish(&self, feed: &Path) {
        let tree = tempfile::tempdir().unwrap();
        self.tree(tree.path());
        let id = ReleaseId { version: self.version.parse().unwrap(), build: self.build };
        pack(tree.path(), &PackMeta { migrate: self.migration(), ..PackMeta::new(id) }, feed).unwrap();
    }

    /// How it migrates the data of the one before.
    pub(crate) fn migration(&self) -> Option<Vec<String>> {
        let own = || {
            let line = format!("python3 -I -S migrate.py {} {}", self.schema - 1, self.schema);
            line.split(' ').map(str::to_owned).collect()
        };
        match self.migrate {
            Some(argv) => Some(argv.iter().map(|&arg| arg.to_owned()).collect()),
            None => (self.schema > 1).then(own),
        }
    }
}
