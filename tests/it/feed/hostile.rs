//! Archives that nobody should unpack, each refused by name, and nothing of them left.

use std::fs;
use std::path::Path;

use afterhours::feed::ArchiveError;
use afterhours::feed::FeedError;
use tar::EntryType;
use tar::Header;

use super::Site;
use super::run;
use super::tar_zst;
use super::text;

/// One entry, with whatever is in its header.
fn entry(kind: EntryType, name: &str, link: &str, data: &[u8]) -> Vec<u8> {
    sized(kind, name, link, data, data.len() as u64)
}

/// One entry that may lie about its size.
fn sized(kind: EntryType, name: &str, link: &str, data: &[u8], size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o4755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_size(size);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    let mut bytes = [header.as_bytes().as_slice(), data].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, data: &str) -> Vec<u8> {
    entry(EntryType::Regular, name, "", data.as_bytes())
}

fn link(name: &str, to: &str) -> Vec<u8> {
    entry(EntryType::Symlink, name, to, b"")
}

fn hard(name: &str, to: &str) -> Vec<u8> {
    entry(EntryType::Link, name, to, b"")
}

fn dir(name: &str) -> Vec<u8> {
    entry(EntryType::Directory, name, "", b"")
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions(records.iter().map(|(key, value)| (*key, value.as_bytes()))).unwrap();
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    bytes
}

fn ended(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

/// Stages a tar of 100 declared bytes; what it says, and that nothing is left.
async fn refused(tar: &[u8]) -> ArchiveError {
    let zst = zstd::encode_all(tar, 3).unwrap();
    refused_zst(&zst).await
}

async fn refused_zst(zst: &[u8]) -> ArchiveError {
    let site = Site::new();
    fs::write(site.path("victim"), "untouched").unwrap();
    site.publish("2.0", 20, 100, &[zst]);
    let error = site.stage(&site.only().await).await.unwrap_err();
    site.assert_nothing_staged();
    assert_eq!(fs::read_to_string(site.path("victim")).unwrap(), "untouched");
    assert!(error.hint().is_some(), "{error}");
    match error {
        FeedError::Unpack { file, source } => {
            assert!(file.ends_with("2.0/0.tar.zst"));
            source
        }
        other => panic!("{other:?}"),
    }
}

macro_rules! assert_refused {
    ($tar:expr, $variant:pat, $entry:literal) => {
        let error = refused(&$tar).await;
        assert!(matches!(error, $variant), "{}: {error:?}", stringify!($variant));
        assert!(error.to_string().contains($entry), "{error}");
    };
}

#[tokio::test]
async fn paths_that_lead_out() {
    use ArchiveError::*;
    assert_refused!(ended(&[file("../../victim", "x")]), Parent { .. }, "\"../../victim\"");
    assert_refused!(ended(&[file("a/../../../victim", "x")]), Parent { .. }, "a/../");
    assert_refused!(ended(&[file("/tmp/victim", "x")]), Absolute { .. }, "\"/tmp/victim\"");
    assert_refused!(ended(&[dir("../../x/")]), Parent { .. }, "../../x/");
    assert_refused!(ended(&[file("a//b", "x")]), EmptyComponent { .. }, "a//b");
    assert_refused!(ended(&[pax(&[("path", "../../victim")]), file("good", "x")]), Parent { .. }, "../../victim");
    let long = entry(EntryType::GNULongName, "././@LongLink", "", b"/tmp/victim\0");
    assert_refused!(ended(&[long, file("good", "x")]), Absolute { .. }, "/tmp/victim");
    let deep = entry(EntryType::GNULongName, "././@LongLink", "", &b"d/".repeat(500));
    assert_refused!(ended(&[deep, dir("good")]), TooDeep { max: 128, .. }, "d/d/d");
    let long = entry(EntryType::GNULongName, "././@LongLink", "", &[b'n'; 9000]);
    assert_refused!(ended(&[long, file("good", "x")]), TooLong { max: 4000, .. }, "nnnn");
    let zero = entry(EntryType::GNULongName, "././@LongLink", "", b"a\0b\0");
    assert_refused!(ended(&[zero, file("good", "x")]), ZeroByte { .. }, "a\\0b");
    assert_refused!(ended(&[file(".afterhours-release.json", "{}")]), Reserved { .. }, ".afterhours-release.json");
}

#[tokio::test]
async fn links_that_lead_out() {
    use ArchiveError::*;
    assert_refused!(ended(&[link("a", "/etc")]), LinkAbsolute { .. }, "\"/etc\"");
    assert_refused!(ended(&[link("a", "../victim")]), LinkOut { .. }, "../victim");
    assert_refused!(ended(&[link("d/a", "../../victim")]), LinkOut { .. }, "\"d/a\"");
    assert_refused!(ended(&[link("d/a", "b/../../..")]), LinkWinding { .. }, "b/../../..");
    assert_refused!(ended(&[link("a", "")]), LinkEmpty { .. }, "\"a\"");
    assert_refused!(ended(&[hard("a", "../victim")]), LinkOut { .. }, "../victim");
    assert_refused!(ended(&[hard("a", "/etc/passwd")]), LinkAbsolute { .. }, "/etc/passwd");
    assert_refused!(ended(&[hard("a", "later"), file("later", "")]), HardLinkTarget { .. }, "later");
    assert_refused!(ended(&[dir("d"), hard("a", "d")]), HardLinkTarget { .. }, "\"d\"");
    assert_refused!(ended(&[link("l", "x"), hard("a", "l")]), HardLinkTarget { .. }, "\"l\"");
    assert_refused!(ended(&[link("l", "."), file("f", ""), hard("a", "l/f")]), HardLinkTarget { .. }, "l/f");
    assert_refused!(ended(&[link("l", "."), file("l/f", "")]), BelowLink { .. }, "\"l/f\"");
    assert_refused!(ended(&[link("l", "."), dir("l/d/e")]), BelowLink { .. }, "\"l\"");
    assert_refused!(ended(&[file("f", ""), file("f/g", "")]), BelowFile { .. }, "\"f/g\"");
}

#[tokio::test]
async fn what_is_neither_file_nor_directory_nor_link() {
    for (kind, word) in [
        (EntryType::Char, "a character device"),
        (EntryType::Block, "a block device"),
        (EntryType::Fifo, "a named pipe"),
        (EntryType::Continuous, "of the type \"7\""),
        (EntryType::new(b'Z'), "of the type \"Z\""),
        (EntryType::new(b'M'), "of the type \"M\""),
    ] {
        match refused(&ended(&[entry(kind, "dev", "", b"")])).await {
            ArchiveError::Kind { entry, kind } => assert_eq!((entry.as_str(), kind.as_str()), ("\"dev\"", word)),
            other => panic!("{other:?}"),
        }
    }
    use ArchiveError::*;
    assert_refused!(ended(&[entry(EntryType::Directory, "d", "", b"data")]), UnexpectedData { size: 4, .. }, "\"d\"");
    assert_refused!(ended(&[entry(EntryType::Symlink, "l", "x", b"data")]), UnexpectedData { .. }, "\"l\"");
}

#[tokio::test]
async fn duplicates() {
    use ArchiveError::*;
    assert_refused!(ended(&[file("a", "1"), file("a", "2")]), Duplicate { .. }, "\"a\"");
    assert_refused!(ended(&[file("a", "1"), file("./a", "2")]), Duplicate { .. }, "\"a\"");
    assert_refused!(ended(&[dir("d"), dir("d/")]), Duplicate { .. }, "\"d\"");
    assert_refused!(ended(&[link("a", "b"), file("a", "2")]), Duplicate { .. }, "\"a\"");
    assert_refused!(ended(&[link("a", "b"), dir("a")]), Duplicate { .. }, "\"a\"");
    assert_refused!(ended(&[file("d/x", "1"), file("d", "2")]), Duplicate { .. }, "\"d\"");
    assert_refused!(ended(&[file("a", ""), hard("a", "a")]), Duplicate { .. }, "\"a\"");
}

#[tokio::test]
async fn sizes_beyond_the_declared_one() {
    use ArchiveError::*;
    let part = "x".repeat(60);
    assert_refused!(ended(&[file("a", &part), file("b", &part)]), TooBig { declared: 100, .. }, "\"b\"");
    let lie = sized(EntryType::Regular, "a", "", b"x", 1 << 40);
    assert_refused!(ended(&[lie]), TooBig { .. }, "\"a\"");
    let lie = [pax(&[("size", "9999999999")]), file("a", "x")].concat();
    assert_refused!(ended(&[lie]), TooBig { .. }, "\"a\"");
    assert_refused!(ended(&[pax(&[("size", "-1")]), file("a", "x")]), PaxRecord { .. }, "size");
    assert_refused!(sized(EntryType::Regular, "a", "", b"", 50), Short { .. }, "\"a\"");
    let twice = pax(&[("size", "1"), ("size", "99")]);
    assert_refused!(ended(&[twice, file("a", "x")]), PaxRecord { .. }, "size");
}

#[tokio::test]
async fn sparse_files_and_records_that_change_an_entry() {
    let site = Site::new();
    fs::create_dir(site.path("tree")).unwrap();
    run("coreutils", "truncate", &["-s", "1G", text(&site.path("tree/hole"))]);
    let gnu = tar_zst(&site.path("tree"), &["--sparse", "--format=gnu"], &[]);
    assert!(matches!(refused_zst(&gnu).await, ArchiveError::Kind { kind, .. } if kind == "a sparse file"));
    let pax_sparse = tar_zst(&site.path("tree"), &["--sparse", "--format=pax"], &[]);
    match refused_zst(&pax_sparse).await {
        ArchiveError::PaxRecord { key, .. } => assert!(key.contains("GNU.sparse"), "{key}"),
        other => panic!("{other:?}"),
    }
    let mut global = pax(&[("path", "/tmp/victim")]);
    let mut header = Header::from_byte_slice(&global[..512]).clone();
    header.set_entry_type(EntryType::XGlobalHeader);
    header.set_cksum();
    global[..512].copy_from_slice(header.as_bytes());
    let error = refused(&ended(&[global, file("a", "x")])).await;
    assert!(matches!(&error, ArchiveError::PaxRecord { key, .. } if key == "\"path\""), "{error:?}");
    let newline = refused(&ended(&[pax(&[("path", "a\nb")]), file("a", "x")])).await;
    assert!(matches!(newline, ArchiveError::PaxBroken { .. }), "{newline:?}");
}

#[tokio::test]
async fn what_is_cut_off_or_goes_on() {
    use ArchiveError::*;
    let whole = ended(&[file("a", "x"), file("b", "y")]);
    assert_refused!(whole[..1024], NoEnd { .. }, "\"a\"");
    assert_refused!(whole[..1500], Broken { .. }, "\"a\"");
    assert_refused!([whole.clone(), file("c", "z")].concat(), Trailing, "end mark");
    let zst = zstd::encode_all(&whole[..], 3).unwrap();
    for cut in [1, 4, zst.len() / 2] {
        let error = refused_zst(&zst[..zst.len() - cut]).await;
        assert!(matches!(error, Broken { .. } | NoEnd { .. }), "{cut}: {error:?}");
    }
    for garbage in [&b"garbage"[..], b"\0", b"\0\0\0\0\0\0\0\0"] {
        let error = refused_zst(&[&zst, garbage].concat()).await;
        assert!(matches!(error, Broken { .. }), "{garbage:?}: {error:?}");
    }
    let hidden = zstd::encode_all(&ended(&[file("c", "z")])[..], 3).unwrap();
    assert!(matches!(refused_zst(&[zst, hidden].concat()).await, Trailing));
    assert!(matches!(refused_zst(b"").await, Broken { .. } | NoEnd { .. }));
    assert!(matches!(refused_zst(b"PK\x03\x04 is something else").await, Broken { .. }));
}

#[tokio::test]
async fn a_bomb_is_refused_before_it_bursts() {
    let site = Site::new();
    fs::create_dir(site.path("tree")).unwrap();
    run("coreutils", "truncate", &["-s", "100M", text(&site.path("tree/zeros"))]);
    let bomb = tar_zst(&site.path("tree"), &[], &[]);
    assert!(bomb.len() < 100_000);
    assert!(matches!(refused_zst(&bomb).await, ArchiveError::TooBig { .. }));
}

#[tokio::test]
async fn harmless_relatives_of_the_above_are_taken() {
    let site = Site::new();
    let mut comment = pax(&[("comment", "4694b3f")]);
    let mut header = Header::from_byte_slice(&comment[..512]).clone();
    header.set_entry_type(EntryType::XGlobalHeader);
    header.set_cksum();
    comment[..512].copy_from_slice(header.as_bytes());
    let tar = ended(&[
        comment,
        file("d/e/f", "late directory"),
        dir("d/e"),
        dir("./"),
        link("d/up", "../d/./e//f"),
        hard("g", "d/e/f"),
        pax(&[("mtime", "1600000000.25"), ("SCHILY.xattr.user.note", "x")]),
        file("h", ""),
    ]);
    let frames = [zstd::encode_all(&tar[..700], 3).unwrap(), zstd::encode_all(&tar[700..], 3).unwrap()].concat();
    site.publish("2.0", 20, 14, &[&frames]);
    let into = site.stage(&site.only().await).await.unwrap();
    assert_eq!(fs::read_to_string(into.join("d/up")).unwrap(), "late directory");
    assert_eq!(fs::read_to_string(into.join("g")).unwrap(), "late directory");
    let stat = run("coreutils", "stat", &["-c", "%a %.2Y", text(&into.join("h")), text(Path::new(&into))]);
    // Setuid is dropped; the root has the mode of its own entry.
    assert_eq!(stat, "755 1600000000.25\n755 1700000000.00\n");
}
