//! Which entries below a data path belong to it: `include` and `exclude`.

use std::fs::Metadata;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use globset::GlobSet;
use serde::Deserialize;
use serde::Serialize;

use crate::install::error::InstallError;
use crate::install::keep;

/// The patterns as written, kept with a snapshot: a restore follows them, whatever the configuration says by then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScopeTexts {
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
}

/// The patterns, compiled.
#[derive(Debug)]
pub(super) struct Scope {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

/// How an entry belongs to the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belongs {
    /// It is data.
    Yes,
    /// A directory that is only a way to data.
    OnTheWay,
    /// It is never touched.
    No,
}

impl Scope {
    pub(super) fn new(texts: &ScopeTexts) -> Result<Self, InstallError> {
        let clean = |texts: &[String]| {
            texts.iter().map(|text| text.trim_start_matches("./").trim_matches('/').to_owned()).collect::<Vec<_>>()
        };
        let (include, exclude) = (clean(&texts.include), clean(&texts.exclude));
        Ok(Self {
            include: if include.is_empty() { None } else { Some(keep::compile(include.iter().map(String::as_str))?) },
            exclude: keep::compile(exclude.iter().map(String::as_str))?,
        })
    }

    /// Whether the entry `path`, relative to the data path, belongs to the data. Sockets are their owner's.
    pub(super) fn of(&self, path: &Path, about: &Metadata) -> Belongs {
        self.of_kind(path, about.is_dir(), about.file_type().is_socket())
    }

    pub(super) fn of_kind(&self, path: &Path, is_dir: bool, is_socket: bool) -> Belongs {
        let any =
            |set: &GlobSet| path.ancestors().filter(|part| !part.as_os_str().is_empty()).any(|part| set.is_match(part));
        if is_socket || any(&self.exclude) {
            return Belongs::No;
        }
        match &self.include {
            None => Belongs::Yes,
            Some(include) if any(include) => Belongs::Yes,
            Some(_) if is_dir => Belongs::OnTheWay,
            Some(_) => Belongs::No,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn include_and_exclude() {
        let texts = |include: &[&str], exclude: &[&str]| ScopeTexts {
            include: include.iter().map(ToString::to_string).collect(),
            exclude: exclude.iter().map(ToString::to_string).collect(),
        };
        let all = Scope::new(&texts(&[], &["cache/**", "*.tmp"])).unwrap();
        let some = Scope::new(&texts(&["db/**"], &["db/*.lock"])).unwrap();
        for (scope, path, is_dir, expected) in [
            (&all, "a/b", false, Belongs::Yes),
            (&all, "cache", true, Belongs::Yes),
            (&all, "cache/x/y", false, Belongs::No),
            (&all, "x.tmp", false, Belongs::No),
            (&all, "a/x.tmp", false, Belongs::Yes),
            (&some, "db", true, Belongs::OnTheWay),
            (&some, "db/1/2", false, Belongs::Yes),
            (&some, "db/x.lock", false, Belongs::No),
            (&some, "other", false, Belongs::No),
        ] {
            assert_eq!(scope.of_kind(Path::new(path), is_dir, false), expected, "{path}");
        }
        assert_eq!(all.of_kind(Path::new("s"), false, true), Belongs::No);
    }
}
