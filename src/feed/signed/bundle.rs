//! A feed in one file, for sites without a network: metadata and archives, carried on a stick.
//!
//! ```text
//! metadata/3.root.json  metadata/timestamp.json  metadata/7.snapshot.json  metadata/5.targets.json  …   as on the server
//! afterhours-metadata/…                                                     those of Afterhours itself, where it is carried
//! targets/SHA256                                                            descriptions and archives, by their hash
//! ```
//!
//! It is a plain tar archive. Nothing of it is unpacked: it is read like a server, by the same client, with the same checks.
//! No name in it is ever a path on this machine; what the metadata do not vouch for is not looked at.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;

use sha2::Digest;
use sha2::Sha256;

use crate::domain::hex::hex;
use crate::feed::signed::error::TrustError;
use crate::feed::transport::TransportError;

/// The most files in a bundle: every description, and the archives of a path.
const ENTRIES_MAX: usize = 20_000;
/// The longest name of a file, as many as fit into its header.
const NAME_BYTES_MAX: usize = 100;
/// How much is copied at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// A bundle that is read.
#[derive(Debug)]
pub(in crate::feed) struct Bundle {
    path: PathBuf,
    file: File,
    /// Where each file begins, and its size.
    places: BTreeMap<String, (u64, u64)>,
}

impl Bundle {
    /// Looks where everything is. Blocking.
    ///
    /// # Errors
    /// It cannot be read, or is no bundle.
    pub(in crate::feed) fn open(path: &Path) -> Result<Self, TrustError> {
        let unread = |source| TrustError::ReadBundle { file: path.to_owned(), source };
        let bad = |problem: String| TrustError::BadBundle { file: path.to_owned(), problem };
        let file = File::open(path).map_err(unread)?;
        let size = file.metadata().map_err(unread)?.len();
        let mut places = BTreeMap::new();
        let mut tar = tar::Archive::new(file.try_clone().map_err(unread)?);
        // As they stand: no entry changes what the next one is called.
        for entry in tar.entries_with_seek().map_err(unread)?.raw(true) {
            let entry = entry.map_err(|error| bad(format!("it is no archive ({error})")))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if !entry.header().entry_type().is_file() || !is_plain(&name) {
                return Err(bad(format!("{} has no place in it", name.escape_default())));
            }
            let (at, length) = (entry.raw_file_position(), entry.size());
            if at.checked_add(length).is_none_or(|end| end > size) {
                return Err(bad(format!("{name} is cut off")));
            }
            if places.insert(name.clone(), (at, length)).is_some() {
                return Err(bad(format!("{name} is there twice")));
            }
            if places.len() > ENTRIES_MAX {
                return Err(bad(format!("there are more than {ENTRIES_MAX} files in it")));
            }
        }
        Ok(Self { path: path.to_owned(), file, places })
    }

    /// A whole file of metadata, or of a target by the hash that its name begins with.
    pub(in crate::feed) fn read(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, TransportError> {
        let url = format!("{name} in {}", self.path.display());
        let Some((at, length)) = self.places.get(name).copied() else { return Ok(None) };
        if length > bytes_max {
            return Err(TransportError::TooLarge { url, bytes_max });
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        match self.file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(Some(bytes)),
            Err(_) => Err(TransportError::Absent { url }),
        }
    }

    /// Copies a target to `into` if it has this hash and size; nothing when the bundle does not have it. Blocking.
    ///
    /// # Errors
    /// It is another file, or cannot be written; then `into` is as it was.
    pub(in crate::feed) fn copy(
        &self,
        target: &str,
        sha256: &str,
        size_bytes: u64,
        into: &Path,
    ) -> Result<bool, TrustError> {
        let Some((at, length)) = self.places.get(&target_name(sha256)).copied() else { return Ok(false) };
        let wrong = |problem: String| TrustError::WrongTarget { target: target.to_owned(), problem };
        if length != size_bytes {
            return Err(wrong(format!("{length} bytes instead of {size_bytes}")));
        }
        // Not the name of a download: one of the same file may be under way, and has a lock that we do not.
        let part = into.with_extension("carried");
        let unwritten = |source| TrustError::Keep { path: part.clone(), source };
        let copied = self.pour(at, length, &part).map_err(unwritten)?;
        if copied != sha256 {
            std::fs::remove_file(&part).map_err(unwritten)?;
            return Err(wrong(format!("its sha256 is {copied}")));
        }
        std::fs::rename(&part, into)
            .and_then(|()| into.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all()))
            .map_err(|source| TrustError::Keep { path: into.to_owned(), source })?;
        Ok(true)
    }

    fn pour(&self, at: u64, length: u64, part: &Path) -> io::Result<String> {
        let mut out = File::create(part)?;
        let (mut hash, mut chunk, mut done) = (Sha256::new(), vec![0; CHUNK_BYTES], 0);
        while done < length {
            let want = usize::try_from(length - done).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            self.file.read_exact_at(&mut chunk[..want], at + done)?;
            hash.update(&chunk[..want]);
            io::Write::write_all(&mut out, &chunk[..want])?;
            done += want as u64;
        }
        out.sync_all()?;
        Ok(hex(hash.finalize()))
    }
}

/// The name of a target in a bundle.
pub(in crate::feed) fn target_name(sha256: &str) -> String {
    format!("targets/{sha256}")
}

/// Where the metadata of the feed are in a bundle.
pub(in crate::feed) const METADATA: &str = "metadata/";
/// Where those of Afterhours itself are, which the feed carries.
pub(in crate::feed) const CARRIED_METADATA: &str = "afterhours-metadata/";

/// `metadata/NAME`, `afterhours-metadata/NAME` or `targets/NAME`.
fn is_plain(name: &str) -> bool {
    let file = [METADATA, CARRIED_METADATA, "targets/"].into_iter().find_map(|folder| name.strip_prefix(folder));
    file.is_some_and(|file| !file.is_empty() && !file.starts_with('.') && !file.contains('/'))
        && name.len() <= NAME_BYTES_MAX
}

/// What goes into a bundle.
#[derive(Debug)]
pub(in crate::feed) enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// All of this file.
    File(PathBuf),
}

/// Writes a bundle at `path`, whole or not at all. Blocking; returns its size in bytes.
///
/// # Errors
/// Something cannot be read or written, or has a name that does not fit.
pub(in crate::feed) fn write(path: &Path, files: Vec<(String, Content)>) -> Result<u64, TrustError> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = fill(&part, files).and_then(|bytes| std::fs::rename(&part, path).map(|()| bytes));
    written.map_err(|source| {
        // What there is of it is of no use to anybody.
        let _ = std::fs::remove_file(&part);
        TrustError::Keep { path: path.to_owned(), source }
    })
}

fn fill(part: &Path, files: Vec<(String, Content)>) -> io::Result<u64> {
    let mut tar = tar::Builder::new(File::create(part)?);
    for (name, content) in files {
        if !is_plain(&name) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the name {name} does not fit")));
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let mut append = |size: u64, data: &mut dyn Read| {
            header.set_size(size);
            header.set_cksum();
            tar.append(&header, data)
        };
        match content {
            Content::Bytes(bytes) => append(bytes.len() as u64, &mut bytes.as_slice())?,
            Content::File(file) => {
                let mut file = File::open(file)?;
                append(file.metadata()?.len(), &mut file)?;
            }
        }
    }
    let file = tar.into_inner()?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}
