//! What an administrator does to the data: backups, and a fingerprint to compare by.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use fs_err as fs;
use sha2::Digest;
use sha2::Sha256;
use walkdir::WalkDir;

use crate::domain::hex::hex;
use crate::sample::error::SampleError;

/// Writes everything in `data` as one tar file into the directory `into`; under its name there is a whole backup.
///
/// # Errors
/// It cannot be read or written.
pub fn backup(data: &Path, into: &Path, now: DateTime<Utc>) -> Result<PathBuf, SampleError> {
    let file = into.join(format!("orders-{}.tar", now.format("%Y%m%d-%H%M%S")));
    let draft = file.with_extension("draft");
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(into)?;
        let mut tar = tar::Builder::new(fs::File::create(&draft)?);
        tar.append_dir_all("data", data)?;
        tar.into_inner()?.sync_all()?;
        fs::rename(&draft, &file)?;
        fs::File::open(into)?.sync_all()
    };
    write().map_err(SampleError::file("write", &file))?;
    Ok(file)
}

/// One text for all names, modes and bytes below `data`: equal only where every bit is.
///
/// # Errors
/// It cannot be read.
pub fn fingerprint(data: &Path) -> Result<String, SampleError> {
    let mut all = Sha256::new();
    for entry in WalkDir::new(data).sort_by_file_name() {
        let entry = entry.map_err(|error| SampleError::file("read", data)(error.into()))?;
        let path = entry.path();
        let read = || -> std::io::Result<String> {
            let meta = entry.metadata()?;
            let bytes = if meta.is_file() { hex(Sha256::digest(fs::read(path)?)) } else { String::new() };
            let name = path.strip_prefix(data).unwrap_or(path);
            Ok(format!("{:?} {:o} {bytes}\n", name, meta.mode()))
        };
        all.update(read().map_err(SampleError::file("read", path))?);
    }
    Ok(hex(all.finalize()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_fingerprint_sees_every_bit() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("orders.jsonl");
        fs::write(&file, "one").unwrap();
        let mut seen = vec![fingerprint(dir.path()).unwrap()];
        assert_eq!(fingerprint(dir.path()).unwrap(), seen[0]);
        fs::write(&file, "ona").unwrap();
        seen.push(fingerprint(dir.path()).unwrap());
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        seen.push(fingerprint(dir.path()).unwrap());
        fs::rename(&file, dir.path().join("orders")).unwrap();
        seen.push(fingerprint(dir.path()).unwrap());
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn a_backup_holds_the_data() {
        let (data, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(data.path().join("orders.jsonl"), "one").unwrap();
        let file = backup(data.path(), into.path(), DateTime::UNIX_EPOCH).unwrap();
        assert!(file.ends_with("orders-19700101-000000.tar"), "{}", file.display());
        let mut tar = tar::Archive::new(fs::File::open(file).unwrap());
        tar.unpack(into.path()).unwrap();
        assert_eq!(fs::read_to_string(into.path().join("data/orders.jsonl")).unwrap(), "one");
    }
}
