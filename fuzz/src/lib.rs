//! What is tried with bytes that nobody vouches for, and what must hold whatever they are.
//!
//! Each function takes anything and panics only when a promise of [`afterhours::feed::untrusted`] is broken. `cargo fuzz`
//! calls them for as long as it is let (see ARCHITECTURE.md); the tests of the product call the same functions for a
//! moment, with what is in `corpus/` and variations of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use afterhours::feed::untrusted;
use afterhours::feed::untrusted::Chain;
use chrono::DateTime;
use chrono::Utc;
use walkdir::WalkDir;

/// Stands between the files of metadata; it cannot be in JSON.
pub const SEPARATOR: u8 = 0;
/// As many bytes may come out of an archive.
pub const UNPACKED_BYTES: u64 = 1 << 20;
/// What the tar archive hashes to that `corpus/delta/good` makes.
pub const DELTA_MAKES: &str = include_str!("../delta-makes.sha256");

/// When metadata are looked at: a year before those in the corpus run out.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default()
}

/// Metadata, one file after the other with [`SEPARATOR`] between them: roots, timestamp, snapshot, targets.
pub fn metadata(data: &[u8]) {
    let files: Vec<&[u8]> = data.split(|byte| *byte == SEPARATOR).collect();
    if let [root, next_roots @ .., timestamp, snapshot, targets] = files.as_slice() {
        let chain = Chain { root, next_roots: next_roots.to_vec(), timestamp, snapshot, targets };
        if let Ok(builds) = untrusted::metadata(&chain, now()) {
            // What was vouched for can be read without its signatures, too, and says the same.
            assert_eq!(untrusted::listing(targets).ok(), Some(builds));
        }
    }
    for file in files {
        let _ = untrusted::listing(file);
    }
}

/// A `release.toml`.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(release) = untrusted::description(text) else { return };
    let written = untrusted::describe(&release).expect("what was read can be written");
    let again = untrusted::description(&written).expect("what was written can be read");
    assert_eq!(again, release, "{written}");
}

/// An archive, compressed or plain. The sums in its headers are mended first, or hardly anything would get past them.
pub fn archive(data: &[u8]) {
    let mut data = data.to_vec();
    mend_sums(&mut data);
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let (inside, beside) = (dir.path().join("tree"), dir.path().join("beside"));
    fs::create_dir(&inside).expect("there is room for a directory");
    fs::write(&beside, "untouched").expect("there is room for a file");
    let unpacked = untrusted::archive(&data, UNPACKED_BYTES, &inside);
    make_removable(&inside);
    let files: BTreeMap<u64, u64> = WalkDir::new(&inside)
        .into_iter()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|meta| meta.is_file())
        .map(|meta| (meta.ino(), meta.len()))
        .collect();
    let bytes: u64 = files.values().sum();
    assert!(bytes <= UNPACKED_BYTES, "{bytes} bytes came out: {unpacked:?}");
    assert_eq!(fs::read(&beside).ok().as_deref(), Some(&b"untouched"[..]));
    assert_eq!(fs::read_dir(dir.path()).map(Iterator::count).ok(), Some(2), "something came out beside the tree");
}

/// Directories may come out without the right to look into them.
fn make_removable(dir: &Path) {
    let _ = fs::set_permissions(dir, PermissionsExt::from_mode(0o700));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_removable(&entry.path());
        }
    }
}

/// Gives every header of a plain tar archive the sum that it must have, as far as one follows another.
fn mend_sums(data: &mut [u8]) {
    const BLOCK: usize = 512;
    let mut at = 0;
    while let Some(block) = data.get_mut(at..at + BLOCK) {
        if block.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || block.iter().all(|byte| *byte == 0) {
            return;
        }
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let Some(size) = header.entry_size().ok().and_then(|size| usize::try_from(size).ok()) else { return };
        let Some(next) = size.checked_next_multiple_of(BLOCK).and_then(|size| size.checked_add(at + BLOCK)) else {
            return;
        };
        at = next;
    }
}

/// The tar archive that deltas of the corpus are made for, always the same; with `changed`, the one that they make.
pub fn tar(changed: bool) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    let mut file: Vec<u8> = std::iter::repeat_with(noise).take(40_000).collect();
    if changed {
        file.splice(20_000..20_004, *b"something else");
    }
    let mut header = tar::Header::new_gnu();
    header.set_size(file.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "noise", file.as_slice()).expect("there is room in memory");
    archive.into_inner().expect("there is room in memory")
}

/// A delta for an archive that we have.
pub fn delta(data: &[u8]) {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let path = |name: &str| dir.path().join(name);
    let base = zstd::encode_all(tar(false).as_slice(), 1).expect("it can be compressed");
    fs::write(path("base"), base).expect("there is room for a file");
    fs::write(path("delta"), data).expect("there is room for a file");
    let made = untrusted::delta(&path("base"), &path("delta"), DELTA_MAKES.trim(), &path("into"));
    let count = fs::read_dir(dir.path()).map(Iterator::count).ok();
    assert_eq!(count, Some(if made.is_ok() { 3 } else { 2 }), "{made:?}");
}
