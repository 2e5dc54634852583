//! A moment of what `cargo fuzz` does for as long as it is let: the corpus, and always the same variations of it.
//!
//! The targets are those of `fuzz/`. What one of them does not survive is kept, and the message says where.

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "for `fuzz/` it is a library")]
mod targets;

use std::panic::catch_unwind;
use std::path::Path;

use afterhours::feed::untrusted;
use fs_err as fs;

/// Bytes that mean something to one format or another.
const TELLING: [u8; 10] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'"', b'/', b'.'];

/// What a corpus holds, by name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Changes a few places of one input; sometimes it goes on as another one.
fn vary(inputs: &[Vec<u8>], chance: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = inputs[chance.usize(..inputs.len())].clone();
    for _ in 0..chance.usize(1..5) {
        let (at, other) = (chance.usize(..=input.len()), &inputs[chance.usize(..inputs.len())]);
        let end = (at + chance.usize(..32)).min(input.len());
        match chance.u8(..7) {
            0 if at < input.len() => input[at] ^= 1 << chance.u8(..8),
            1 if at < input.len() => input[at] = TELLING[chance.usize(..TELLING.len())],
            2 => drop(input.drain(at..end)),
            3 => input.truncate(at),
            4 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            5 => input.splice(at.., other[at.min(other.len())..].iter().copied()).for_each(drop),
            _ => input.insert(at, TELLING[chance.usize(..TELLING.len())]),
        }
    }
    input
}

/// Tries the corpus and `count` variations.
fn tries(name: &str, target: fn(&[u8]), count: usize) {
    let inputs = corpus(name);
    assert!(!inputs.is_empty(), "the corpus of {name} is empty");
    let mut chance = fastrand::Rng::with_seed(1);
    let varied: Vec<Vec<u8>> = (0..count).map(|_| vary(&inputs, &mut chance)).collect();
    for input in inputs.iter().chain(&varied) {
        if catch_unwind(|| target(input)).is_err() {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.found"));
            fs::write(&kept, input).unwrap();
            panic!("{name} does not survive {}; put it into fuzz/corpus/{name} when it is mended", kept.display());
        }
    }
}

#[test]
fn metadata_are_verified_or_refused() {
    tries("metadata", targets::metadata, 2_000);
}

#[test]
fn a_description_is_read_or_refused() {
    tries("manifest", targets::manifest, 5_000);
}

#[test]
fn an_archive_is_unpacked_or_refused() {
    tries("archive", targets::archive, 300);
}

#[test]
fn a_delta_is_applied_or_refused() {
    tries("delta", targets::delta, 500);
}

#[test]
fn the_corpora_are_good_to_begin_with() {
    for input in corpus("metadata") {
        let files: Vec<&[u8]> = input.split(|byte| *byte == targets::SEPARATOR).collect();
        let [root, next_roots @ .., timestamp, snapshot, targets] = files.as_slice() else {
            panic!("files are missing")
        };
        let chain = untrusted::Chain { root, next_roots: next_roots.to_vec(), timestamp, snapshot, targets };
        untrusted::metadata(&chain, targets::now()).unwrap();
    }
    for input in corpus("manifest") {
        untrusted::description(std::str::from_utf8(&input).unwrap()).unwrap();
    }
    for input in corpus("archive") {
        let dir = tempfile::tempdir().unwrap();
        untrusted::archive(&input, targets::UNPACKED_BYTES, dir.path()).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("base"), zstd::encode_all(targets::tar(false).as_slice(), 1).unwrap()).unwrap();
    let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/delta/good");
    untrusted::delta(&path("base"), &good, targets::DELTA_MAKES.trim(), &path("into")).unwrap();
    assert_eq!(zstd::decode_all(fs::read(path("into")).unwrap().as_slice()).unwrap(), targets::tar(true));
}
