//! What is trusted, on disk: byte for byte as it was signed, and durable.
//!
//! The versions in these files are what a rollback is measured against. The crate that verifies takes a store
//! for a mere cache: it goes on where one cannot be read or written, or is torn. Ours therefore remembers the first
//! [`Trouble`], stores nothing after it, and whoever refreshes asks for it and fails.

use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use serde::de::IgnoredAny;
use sigstore_tuf::MetadataStore;

use crate::feed::signed::error::TrustError;

/// The longest file that is read back; longer than anything that is accepted.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// The trusted root's file.
pub(in crate::feed) const ROOT: &str = "root.json";
/// Where the roots that were trusted one after the other are.
pub(in crate::feed) const HISTORY: &str = "root_history/";

/// The first thing that went wrong with a store.
#[derive(Debug, Clone, Default)]
pub(in crate::feed) struct Trouble(Arc<Mutex<Option<TrustError>>>);

impl Trouble {
    /// Takes it out.
    pub(in crate::feed) fn take(&self) -> Option<TrustError> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }

    fn is_there(&self) -> bool {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_some()
    }

    fn note(&self, error: TrustError) {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
    }
}

/// A directory of trusted metadata.
#[derive(Debug)]
pub(in crate::feed) struct Metadata {
    dir: PathBuf,
    keeps_history: bool,
    trouble: Trouble,
}

impl Metadata {
    /// The one in `dir`; `keeps_history` says whether earlier roots are kept as well.
    pub(in crate::feed) fn new(dir: &Path, keeps_history: bool) -> Self {
        Self { dir: dir.to_owned(), keeps_history, trouble: Trouble::default() }
    }

    /// Where what goes wrong is found.
    pub(in crate::feed) fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    fn is_kept(&self, name: &str) -> bool {
        // Verified targets have their own places, and each version of the snapshot would stay for ever.
        let versioned = name.strip_suffix(".snapshot.json").is_some_and(|v| v.bytes().all(|b| b.is_ascii_digit()));
        match name.strip_prefix(HISTORY) {
            Some(root) => self.keeps_history && !root.contains('/'),
            None => !name.contains('/') && !versioned,
        }
    }
}

impl MetadataStore for Metadata {
    fn load(&self, name: &str) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        if !self.is_kept(name) {
            return Ok(None);
        }
        let path = self.dir.join(name);
        load(&path).map_err(|trouble| {
            let source = io::Error::other(trouble.to_string());
            self.trouble.note(trouble);
            sigstore_tuf::Error::io(format!("load {}", path.display()), source)
        })
    }

    fn store(&self, name: &str, bytes: &[u8]) -> sigstore_tuf::Result<()> {
        let path = self.dir.join(name);
        if self.trouble.is_there() {
            // A floor that could not be read must not be overwritten by something lower.
            let source = io::Error::other("something else went wrong before");
            return Err(sigstore_tuf::Error::io(format!("write {}", path.display()), source));
        }
        if !self.is_kept(name) {
            return Ok(());
        }
        keep(&path, bytes).map_err(|source| {
            let told = sigstore_tuf::Error::io(format!("write {}", path.display()), source.kind().into());
            self.trouble.note(TrustError::Keep { path: path.clone(), source });
            told
        })
    }
}

/// Metadata that were verified before; nothing when there are none. What is whole and no longer counts, since its keys were
/// replaced, is for the caller to pass over.
pub(in crate::feed) fn load(path: &Path) -> Result<Option<Vec<u8>>, TrustError> {
    let bytes = read(path).map_err(|source| TrustError::Load { path: path.to_owned(), source })?;
    if let Some(bytes) = &bytes {
        let whole = serde_json::from_slice::<IgnoredAny>(bytes);
        whole.map_err(|source| TrustError::Torn { path: path.to_owned(), source })?;
    }
    Ok(bytes)
}

/// A whole file; nothing when it is not there.
pub(in crate::feed) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(Some(bytes))
}

/// Writes a file durably, or leaves it as it was. Done at once when it holds these bytes.
pub(in crate::feed) fn keep(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    std::fs::create_dir_all(dir)?;
    if read(path).is_ok_and(|old| old.as_deref() != Some(bytes)) {
        let part = dir.join(format!(".{}.part", name.to_string_lossy()));
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
    }
    // Also where nothing was written: whoever wrote it may have died before this.
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_kept_byte_for_byte_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let site = Metadata::new(dir.path(), true);
        for name in ["root.json", "root_history/2.root.json", "7.snapshot.json", "snapshot.json", "targets/24/a"] {
            site.store(name, b"{ }\n").unwrap();
            site.store(name, b"{  }").unwrap();
        }
        assert_eq!(site.load("snapshot.json").unwrap().unwrap(), b"{  }");
        let mut names: Vec<_> = walkdir::WalkDir::new(dir.path())
            .into_iter()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| entry.path().strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["root.json", "root_history/2.root.json", "snapshot.json"]);
        assert!(site.trouble().take().is_none());
        let flat = Metadata::new(&dir.path().join("flat"), false);
        flat.store("root_history/2.root.json", b"{}").unwrap();
        assert!(!dir.path().join("flat").exists());
    }

    #[test]
    fn what_cannot_be_read_is_remembered_and_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("timestamp.json")).unwrap();
        let site = Metadata::new(dir.path(), true);
        assert!(site.load("timestamp.json").is_err());
        assert!(site.store("snapshot.json", b"{}").is_err());
        assert!(!dir.path().join("snapshot.json").exists());
        assert!(
            matches!(site.trouble().take(), Some(TrustError::Load { path, .. }) if path.ends_with("timestamp.json"))
        );
    }

    #[test]
    fn what_is_torn_is_no_floor_and_is_not_written_over() {
        for torn in [&b""[..], b"{\"signed\":", &[0; 512]] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("timestamp.json");
            std::fs::write(&path, torn).unwrap();
            let site = Metadata::new(dir.path(), true);
            assert!(site.load("timestamp.json").is_err());
            assert!(site.store("timestamp.json", b"{}").is_err());
            assert_eq!(std::fs::read(&path).unwrap(), torn);
            assert!(matches!(site.trouble().take(), Some(TrustError::Torn { .. })));
        }
    }

    #[test]
    fn what_cannot_be_written_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let site = Metadata::new(&dir.path().join("file"), true);
        assert!(site.store("root.json", b"{}").is_err());
        assert!(matches!(site.trouble().take(), Some(TrustError::Keep { path, .. }) if path.ends_with("root.json")));
    }
}
