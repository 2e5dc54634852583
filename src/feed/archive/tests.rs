//! Limits that are too large to be met in a test, and arbitrary archives.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use proptest::prelude::*;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use tar::Header;

use super::*;

/// One entry as raw as it gets.
#[derive(Debug, Clone)]
struct Raw {
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    data: Vec<u8>,
}

impl Raw {
    fn new(kind: u8, name: impl AsRef<[u8]>) -> Self {
        Self { kind, name: name.as_ref().to_vec(), link: Vec::new(), mode: 0o644, data: Vec::new() }
    }

    fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Self { data: data.as_ref().to_vec(), ..Self::new(b'0', name) }
    }

    fn link(kind: u8, name: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Self {
        Self { link: link.as_ref().to_vec(), ..Self::new(kind, name) }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::new(self.kind));
        header.set_mode(self.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(self.data.len() as u64);
        let old = header.as_old_mut();
        let mut bytes = Vec::new();
        for (kind, text, field) in [(b'L', &self.name, &mut old.name), (b'K', &self.link, &mut old.linkname)] {
            if text.len() > field.len() {
                bytes.extend(Self::file(b"././@LongLink", [text, &b"\0"[..]].concat()).of_kind(kind).bytes());
            }
            let short = text.len().min(field.len());
            field[..short].copy_from_slice(&text[..short]);
        }
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend(&self.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn of_kind(self, kind: u8) -> Self {
        Self { kind, ..self }
    }
}

fn tar(entries: &[Raw]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(Raw::bytes).collect();
    bytes.extend([0; 1024]);
    bytes
}

fn unpack_tar(bytes: &[u8], into: &Path, declared: u64, limits: &Limits) -> Result<(), ArchiveError> {
    let root = rustix::fs::open(into, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut tree = Tree::new(root, limits.names_bytes_max);
    let packed = zstd::encode_all(bytes, 1).unwrap();
    unpack(&packed[..], declared, &mut tree, limits, &Cancel::default())?;
    tree.finish().map(drop)
}

fn unpack_entries(entries: &[Raw], limits: &Limits) -> Result<tempfile::TempDir, ArchiveError> {
    let dir = tempfile::tempdir().unwrap();
    unpack_tar(&tar(entries), dir.path(), 1 << 20, limits).map(|()| dir)
}

#[test]
fn entries_are_counted() {
    let limits = Limits { entries_max: 3, ..Limits::DEFAULT };
    let entries = ["a", "b", "c", "d"].map(|name| Raw::file(name, ""));
    unpack_entries(&entries[..3], &limits).unwrap();
    let error = unpack_entries(&entries, &limits).unwrap_err();
    assert!(matches!(error, ArchiveError::TooManyEntries { max: 3 }), "{error}");
}

#[test]
fn names_of_directories_are_bounded_even_when_only_implied() {
    let limits = Limits { names_bytes_max: 10, ..Limits::DEFAULT };
    unpack_entries(&[Raw::new(b'5', "abc/def/")], &limits).unwrap();
    for entry in [Raw::new(b'5', "abc/def/g/"), Raw::file("abc/def/g/h", "")] {
        let error = unpack_entries(&[entry], &limits).unwrap_err();
        assert!(matches!(error, ArchiveError::TooManyNames { max: 10, .. }), "{error}");
    }
}

#[test]
fn metadata_are_bounded_before_they_are_in_memory() {
    let limits = Limits { metadata_bytes_max: 8192, ..Limits::DEFAULT };
    for kind in [b'L', b'K', b'x', b'g'] {
        let entries = [Raw::file("a", "x"), Raw::file("meta", vec![b'x'; 10_000]).of_kind(kind), Raw::file("b", "")];
        match unpack_entries(&entries, &limits).unwrap_err() {
            ArchiveError::MetadataTooLarge { .. } => {}
            other => panic!("{}: {other:?}", kind as char),
        }
    }
}

#[test]
fn padding_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = tar(&[Raw::file("a", "x")]);
    bytes.resize(bytes.len() + 1_000_000, 0);
    unpack_tar(&bytes, dir.path(), 1, &Limits::DEFAULT).unwrap();
    let dir = tempfile::tempdir().unwrap();
    bytes.resize(bytes.len() + 5_000_000, 0);
    let error = unpack_tar(&bytes, dir.path(), 1, &Limits::DEFAULT).unwrap_err();
    assert!(matches!(error, ArchiveError::Trailing), "{error}");
}

#[test]
fn a_window_beyond_the_bound_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    io::copy(&mut io::repeat(0).take(1 << 16), &mut encoder).unwrap();
    let packed = encoder.finish().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let root = rustix::fs::open(dir.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut tree = Tree::new(root, 100);
    let error = unpack(&packed[..], 1, &mut tree, &Limits::DEFAULT, &Cancel::default()).unwrap_err();
    match error {
        ArchiveError::Broken { source, .. } => assert!(source.to_string().contains("memory"), "{source}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cancelled_unpacking_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = rustix::fs::open(dir.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let packed = zstd::encode_all(&tar(&[Raw::file("a", "x")])[..], 1).unwrap();
    let cancel = Cancel::default();
    cancel.cancel();
    let error = unpack(&packed[..], 1, &mut Tree::new(root, 100), &Limits::DEFAULT, &cancel).unwrap_err();
    assert!(matches!(error, ArchiveError::Cancelled), "{error}");
    assert!(!dir.path().join("a").exists());
}

#[test]
fn times_of_pax_are_exact() {
    let time = |text: &str| parse_time(text.as_bytes()).map(|time| (time.tv_sec, time.tv_nsec));
    assert_eq!(time("12"), Some((12, 0)));
    assert_eq!(time("12.5"), Some((12, 500_000_000)));
    assert_eq!(time("12.1234567891"), Some((12, 123_456_789)));
    assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
    assert_eq!(time("-0.25"), Some((-1, 750_000_000)));
    for bad in ["", "x", "1.x", "1.-5", "1.5.5", "99999999999999999999"] {
        assert_eq!(time(bad), None, "{bad}");
    }
}

#[test]
fn no_chain_of_links_leads_out() {
    let inside = Raw::link(b'2', "a/up", "..");
    for (link, refused) in [("a/up/x", false), ("a/up/..", true), ("a/up/../../etc", true), ("up", false)] {
        let unpacked = unpack_entries(&[inside.clone(), Raw::link(b'2', "b", link)], &Limits::DEFAULT);
        assert_eq!(matches!(unpacked, Err(ArchiveError::LinkWinding { .. })), refused, "{link}: {unpacked:?}");
    }
    // The same link with a second name higher up would lead out.
    let moved = unpack_entries(&[inside, Raw::link(b'1', "up", "a/up")], &Limits::DEFAULT);
    assert!(matches!(moved, Err(ArchiveError::HardLinkTarget { .. })), "{moved:?}");
}

#[test]
fn an_unwritable_directory_keeps_its_contents_and_its_mode() {
    let mut shut = Raw::new(b'5', "shut/");
    shut.mode = 0o555;
    let mut tool = Raw::file("shut/tool", "#!");
    tool.mode = 0o6755;
    let dir = unpack_entries(&[shut, tool, Raw::file("implied/x", "")], &Limits::DEFAULT).unwrap();
    let mode = |name: &str| dir.path().join(name).metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("shut"), mode("shut/tool"), mode("implied")), (0o555, 0o755, 0o755));
    assert_eq!(dir.path().join("shut").metadata().unwrap().mtime(), 1_000_000_000);
    std::fs::set_permissions(dir.path().join("shut"), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Everything below a directory, without following links: path, inode, names, mode, time and contents.
fn listing(dir: &Path) -> Vec<(PathBuf, [i64; 4], Vec<u8>)> {
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().map(Result::unwrap);
    entries
        .map(|entry| {
            let meta = entry.metadata().unwrap();
            let numbers = [meta.ino().cast_signed(), meta.nlink().cast_signed(), meta.mode().into(), meta.mtime()];
            let contents = if meta.is_file() { std::fs::read(entry.path()).unwrap() } else { Vec::new() };
            (entry.path().to_owned(), numbers, contents)
        })
        .collect()
}

/// A directory to unpack into, beside one that must not be touched.
struct Arena {
    dir: tempfile::TempDir,
    before: Vec<(PathBuf, [i64; 4], Vec<u8>)>,
}

impl Arena {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for made in ["target", "outside", "outside/a"] {
            std::fs::create_dir(dir.path().join(made)).unwrap();
        }
        for file in ["outside/secret", "outside/a/b"] {
            std::fs::write(dir.path().join(file), "untouched").unwrap();
        }
        let before = listing(&dir.path().join("outside"));
        Self { dir, before }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    /// Nothing outside has changed, and no link that was made leads there.
    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(&listing(&self.dir.path().join("outside")), &self.before);
        let beside: Vec<_> =
            std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        prop_assert_eq!(beside.len(), 2, "{:?}", beside);
        let target = self.target();
        let root =
            rustix::fs::open(&target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        for entry in walkdir::WalkDir::new(&target).min_depth(1) {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            prop_assert_eq!(meta.mode() & 0o6000, 0, "{}", entry.path().display());
            if entry.path_is_symlink() {
                let name = entry.path().strip_prefix(&target).unwrap();
                // The kernel is the judge: it says EXDEV as soon as a link climbs over the root.
                let how = rustix::fs::ResolveFlags::BENEATH;
                let opened = rustix::fs::openat2(&root, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how);
                prop_assert_ne!(opened.err(), Some(rustix::io::Errno::XDEV), "{}", name.display());
                if let Ok(real) = entry.path().canonicalize() {
                    prop_assert!(real.starts_with(target.canonicalize().unwrap()), "{}", real.display());
                }
            }
        }
        Ok(())
    }
}

/// A path of few different pieces, so that entries meet; `@` stands for the arena's absolute path.
fn any_path() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(|piece| piece.as_bytes().to_vec()),
        3 => Just(b"..".to_vec()),
        1 => Just(b".".to_vec()),
        1 => Just(Vec::new()),
        1 => prop_oneof![Just("outside"), Just("target"), Just("secret")].prop_map(|piece| piece.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
        1 => Just(vec![b'n'; 120]),
    ];
    let absolute = proptest::bool::weighted(0.1);
    (absolute, proptest::collection::vec(piece, 1..5)).prop_map(|(absolute, pieces)| {
        let path = pieces.join(&b'/');
        if absolute { [&b"@/"[..], &path].concat() } else { path }
    })
}

fn any_raw() -> impl Strategy<Value = Raw> {
    let kind = prop_oneof![
        6 => Just(b'0'), 5 => Just(b'5'), 6 => Just(b'2'), 4 => Just(b'1'), 1 => any::<u8>(),
    ];
    (kind, any_path(), any_path(), 0_u32..0o10000, proptest::collection::vec(any::<u8>(), 0..40)).prop_map(
        |(kind, name, link, mode, data)| Raw {
            kind,
            name,
            link,
            mode,
            data: if kind == b'0' { data } else { Vec::new() },
        },
    )
}

fn at_arena(raw: &Raw, arena: &Arena) -> Raw {
    let put = |path: &[u8]| match path.strip_prefix(b"@") {
        Some(rest) => [arena.dir.path().as_os_str().as_bytes(), rest].concat(),
        None => path.to_vec(),
    };
    Raw { name: put(&raw.name), link: put(&raw.link), ..raw.clone() }
}

proptest! {
    /// One after the other into the same tree, going on after a refusal: more gets in than in one archive.
    #[test]
    fn no_entry_writes_outside(entries in proptest::collection::vec(any_raw(), 1..24)) {
        let arena = Arena::new();
        let root = rustix::fs::open(arena.target(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut tree = Tree::new(root, 1 << 20);
        for raw in &entries {
            let packed = zstd::encode_all(&tar(&[at_arena(raw, &arena)])[..], 1).unwrap();
            // Refused or not: what counts is what happened to the disk.
            let _ = unpack(&packed[..], 100, &mut tree, &Limits::DEFAULT, &Cancel::default());
        }
        tree.finish().unwrap();
        arena.check()?;
    }

    /// Short names that meet often, and targets that climb: no net of links leads out.
    #[test]
    fn no_net_of_links_leads_out(
        entries in proptest::collection::vec(
            (
                prop_oneof![2 => Just(b'5'), 4 => Just(b'2'), 2 => Just(b'1')],
                proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..4),
                proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c"), Just("..")], 1..5),
            ),
            1..24,
        ),
    ) {
        let arena = Arena::new();
        let root = rustix::fs::open(arena.target(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut tree = Tree::new(root, 1 << 20);
        for (kind, name, mut target) in entries {
            if kind == b'1' {
                target.retain(|piece| *piece != "..");
            }
            let raw = Raw { mode: 0o755, ..Raw::link(kind, name.join("/"), target.join("/")) };
            let packed = zstd::encode_all(&tar(&[raw])[..], 1).unwrap();
            let _ = unpack(&packed[..], 0, &mut tree, &Limits::DEFAULT, &Cancel::default());
        }
        tree.finish().unwrap();
        arena.check()?;
    }

    /// What is accepted as a whole is there as a whole.
    #[test]
    fn an_accepted_archive_is_there(entries in proptest::collection::vec(any_raw(), 1..6)) {
        let arena = Arena::new();
        let entries: Vec<Raw> = entries.iter().map(|raw| at_arena(raw, &arena)).collect();
        if unpack_tar(&tar(&entries), &arena.target(), 1 << 20, &Limits::DEFAULT).is_ok() {
            for raw in entries.iter().filter(|raw| raw.kind == b'0') {
                let path = arena.target().join(std::ffi::OsStr::from_bytes(&raw.name));
                prop_assert_eq!(std::fs::read(&path).unwrap(), raw.data.clone(), "{}", path.display());
            }
        }
        arena.check()?;
    }

    /// Damage of any kind ends in an error or in a tree, never in a panic or outside.
    #[test]
    fn damage_does_no_harm(
        entries in proptest::collection::vec(any_raw(), 1..6),
        hits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<proptest::sample::Index>(),
        repair in any::<bool>(),
    ) {
        let arena = Arena::new();
        let mut bytes = tar(&entries);
        for (place, value) in hits {
            let at = place.index(bytes.len());
            bytes[at] = value;
        }
        if repair {
            for block in bytes.chunks_mut(512).filter(|block| block.iter().any(|byte| *byte != 0)) {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        } else {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        let _ = unpack_tar(&bytes, &arena.target(), 1 << 16, &Limits::DEFAULT);
        arena.check()?;
        let used: u64 = walkdir::WalkDir::new(arena.target())
            .into_iter()
            .map(|entry| entry.unwrap().metadata().unwrap())
            .filter(std::fs::Metadata::is_file)
            .map(|meta| meta.len())
            .sum();
        prop_assert!(used <= 1 << 16);
    }
}
