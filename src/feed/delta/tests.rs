//! Deltas made and applied for real, and what must not get through.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

use proptest::prelude::*;
use sha2::Digest;
use sha2::Sha256;

use crate::domain::progress::Silent;
use crate::domain::release::ReleaseId;
use crate::feed::archive::Cancel;
use crate::feed::delta::DeltaError;
use crate::feed::delta::Head;
use crate::feed::delta::apply;
use crate::feed::delta::make;
use crate::feed::pack::PackMeta;
use crate::feed::pack::pack;

struct Bench {
    dir: tempfile::TempDir,
}

struct Packed {
    archive: PathBuf,
    tar_sha256: String,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pack(&self, build: u64, files: &[(&str, Vec<u8>)]) -> Packed {
        let tree = self.path(&format!("tree-{build}"));
        for (name, bytes) in files {
            let path = tree.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let id = ReleaseId { version: format!("{build}.0").parse().unwrap(), build };
        let release = pack(&tree, &PackMeta::new(id), &self.path("feed")).unwrap();
        let archive = release.location.join(&release.archives[0].file);
        Packed { archive, tar_sha256: release.archives[0].tar_sha256.clone().unwrap() }
    }

    fn apply(&self, old: &Path, delta: &Path, new: &Packed) -> Result<PathBuf, DeltaError> {
        let into = self.path("made.tar.zst");
        apply(old, delta, &new.tar_sha256, &into, &Silent, &Cancel::default()).map(|()| into)
    }

    /// The delta, and the two archives.
    fn two(&self) -> (Packed, Packed, PathBuf) {
        let old = self.pack(1, &[("a", noise(300_000, 1)), ("b/c", noise(200_000, 2)), ("z", b"end".to_vec())]);
        let mut changed = noise(300_000, 1);
        changed.splice(1000..1003, *b"changed a little");
        let new = self.pack(2, &[("a", changed), ("b/b", noise(70_000, 3)), ("b/c", noise(200_000, 2))]);
        let delta = self.path("delta");
        make(&old.archive, &new.archive, &delta).unwrap();
        (old, new, delta)
    }

    fn assert_nothing_made(&self) {
        assert!(!self.path("made.tar.zst").exists());
        assert!(!self.path("made.tar.zst.part").exists());
    }
}

/// Bytes that do not compress, the same for the same seed.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let block = |n: u64| Sha256::digest([seed.to_le_bytes(), n.to_le_bytes()].concat());
    (0..).flat_map(block).take(bytes).collect()
}

fn tar_of(archive: &Path) -> Vec<u8> {
    zstd::decode_all(fs::File::open(archive).unwrap()).unwrap()
}

#[test]
fn a_delta_makes_the_new_archive() {
    let bench = Bench::new();
    let (old, new, delta) = bench.two();
    let made = bench.apply(&old.archive, &delta, &new).unwrap();
    assert_eq!(tar_of(&made), tar_of(&new.archive));
    let size = fs::metadata(&delta).unwrap().len();
    assert!((70_000..75_000).contains(&size), "the new file and little more, not {size}");
    // What a delta has made is the base of the next one.
    let third = bench.pack(3, &[("a", noise(300_000, 1))]);
    let next = bench.path("next");
    make(&made, &third.archive, &next).unwrap();
    assert!(bench.apply(&new.archive, &next, &third).is_ok());
}

#[test]
fn another_base_gives_nothing() {
    let bench = Bench::new();
    let (_, new, delta) = bench.two();
    let other = bench.pack(9, &[("a", noise(300_000, 7))]);
    let error = bench.apply(&other.archive, &delta, &new).unwrap_err();
    assert!(matches!(error, DeltaError::WrongHash { .. } | DeltaError::Apply { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("full archive"));
    bench.assert_nothing_made();
    let missing = bench.apply(&bench.path("nowhere"), &delta, &new).unwrap_err();
    assert!(matches!(missing, DeltaError::ReadArchive { .. }), "{missing:?}");
    bench.assert_nothing_made();
}

#[test]
fn a_delta_that_was_tampered_with_gives_nothing() {
    let bench = Bench::new();
    let (old, new, delta) = bench.two();
    let good = fs::read(&delta).unwrap();
    let head = |head: Head| {
        let mut bytes = b"AHDELTA1".to_vec();
        head.write(&mut bytes).unwrap();
        bytes
    };
    let huge = Head { region_start: 0, region_bytes: u32::MAX, piece_bytes: 1, frame_bytes: 1 };
    let bomb = Head { frame_bytes: u32::MAX, ..Head::default() };
    let mut longer = good.clone();
    longer.push(0);
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let bad =
        [Vec::new(), b"AHDELTA2".to_vec(), head(huge), head(bomb), longer, flipped, good[..good.len() - 1].to_vec()];
    for (number, bytes) in bad.into_iter().enumerate() {
        fs::write(&delta, bytes).unwrap();
        assert!(bench.apply(&old.archive, &delta, &new).is_err(), "{number}");
        bench.assert_nothing_made();
    }
    fs::write(&delta, good).unwrap();
    bench.apply(&old.archive, &delta, &new).unwrap();
}

#[test]
fn a_cancelled_one_leaves_nothing() {
    let bench = Bench::new();
    let (old, new, delta) = bench.two();
    let cancel = Cancel::default();
    cancel.cancel();
    let into = bench.path("made.tar.zst");
    let error = apply(&old.archive, &delta, &new.tar_sha256, &into, &Silent, &cancel).unwrap_err();
    assert!(matches!(error, DeltaError::Cancelled { .. }));
    bench.assert_nothing_made();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_two_trees_lead_to_each_other(
        old in proptest::collection::btree_map("[a-e]{1,2}", (0_usize..5000, 0_u64..4), 1..8),
        new in proptest::collection::btree_map("[a-e]{1,2}", (0_usize..5000, 0_u64..4), 1..8),
    ) {
        let bench = Bench::new();
        let pack = |build, files: &std::collections::BTreeMap<String, (usize, u64)>| {
            let files: Vec<_> = files.iter().map(|(name, (bytes, seed))| (name.as_str(), noise(*bytes, *seed))).collect();
            bench.pack(build, &files)
        };
        let (old, new) = (pack(1, &old), pack(2, &new));
        let delta = bench.path("delta");
        make(&old.archive, &new.archive, &delta).unwrap();
        let made = bench.apply(&old.archive, &delta, &new).unwrap();
        prop_assert_eq!(tar_of(&made), tar_of(&new.archive));
    }
}
