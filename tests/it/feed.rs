//! Releases from a directory, made with the real `tar` and `zstd` programs and staged for real.

mod faults;
mod hostile;
mod licence;
mod packing;
mod passphrase;
mod reading;
mod signer;
mod transport;
mod transport_ways;
mod vendor;
mod web;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;

use afterhours::domain::progress::Progress;
use afterhours::domain::progress::Silent;
use afterhours::domain::release::MARKER;
use afterhours::domain::release::Marker;
use afterhours::domain::release::Release;
use afterhours::domain::release::ReleaseId;
use afterhours::feed::Feed;
use afterhours::feed::FeedError;
use afterhours::feed::dir::DirFeed;
use afterhours::feed::pack::PackMeta;
use afterhours::feed::pack::pack;
use rstest::rstest;
use sha2::Digest;
use sha2::Sha256;

/// Runs a program that has to be there and to succeed.
fn run(package: &str, program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program} cannot be run ({error}); install the package {package}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What the manual's own script says of a sealed key: the key, unsealed. Python's `cryptography` is a judge that has never
/// heard of us; `openssl` refuses what costs so much to try.
fn opened_elsewhere(key: &Path, passphrase: &Path) -> Option<String> {
    let tuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign/python-tuf-7.0.1");
    assert!(tuf.exists(), "{} is missing; `make test` fetches it", tuf.display());
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/manual/publishing.md")).unwrap();
    let script = manual.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", script]).args([key, passphrase]).env("PYTHONPATH", tuf).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = python.output();
    let output = output.unwrap_or_else(|error| panic!("python3 cannot be run ({error}); install the package python3"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() || said.contains("Incorrect password"), "{said}");
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// A feed in a temporary directory.
struct Site {
    dir: tempfile::TempDir,
    feed: Feed,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("feed")).unwrap();
        let feed = Feed::Dir(DirFeed::new(dir.path().join("feed")));
        Self { dir, feed }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Publishes archives as they are, with the right hashes and sizes.
    fn publish(&self, version: &str, build: u64, unpacked_bytes: u64, archives: &[&[u8]]) -> PathBuf {
        let folder = self.path("feed").join(version);
        fs::create_dir(&folder).unwrap();
        let mut description = format!("version = \"{version}\"\nbuild = {build}\n");
        for (index, bytes) in archives.iter().enumerate() {
            let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            description += &format!(
                "[[archive]]\nfile = \"{index}.tar.zst\"\nsha256 = \"{hash}\"\nsize_bytes = {}\nunpacked_bytes = {unpacked_bytes}\n",
                bytes.len()
            );
            fs::write(folder.join(format!("{index}.tar.zst")), bytes).unwrap();
        }
        fs::write(folder.join("release.toml"), description).unwrap();
        folder
    }

    async fn only(&self) -> Release {
        let releases = self.feed.releases().await.unwrap();
        assert_eq!(releases.len(), 1);
        releases.into_iter().next().unwrap()
    }

    async fn stage(&self, release: &Release) -> Result<PathBuf, FeedError> {
        let into = self.path("staging").join("tree");
        self.feed.stage(release, &into, Arc::new(Silent)).await.map(|()| into)
    }

    fn assert_nothing_staged(&self) {
        let left: Vec<_> =
            fs::read_dir(self.path("staging")).into_iter().flatten().map(|e| e.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A tree with something of everything.
fn sample_tree(dir: &Path) {
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::create_dir_all(dir.join("lib/deep")).unwrap();
    fs::write(dir.join("bin/orders"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(dir.join("bin/orders"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("lib/secret"), vec![7; 300_000]).unwrap();
    fs::set_permissions(dir.join("lib/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    let long = format!("lib/deep/{}", "n".repeat(200));
    fs::write(dir.join(&long), "long").unwrap();
    symlink(format!("../{}", &long[4..]), dir.join("lib/deep/to-long")).unwrap();
    symlink("../../bin/orders", dir.join("lib/deep/up")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
    fs::hard_link(dir.join("lib/secret"), dir.join("zweite")).unwrap();
    fs::write(dir.join(std::ffi::OsStr::from_bytes(b"l\xe4nder.txt")), "latin-1").unwrap();
    fs::create_dir(dir.join("shut")).unwrap();
    fs::write(dir.join("shut/in"), "x").unwrap();
    fs::set_permissions(dir.join("shut"), fs::Permissions::from_mode(0o555)).unwrap();
    // Times in whole seconds, since not every format keeps more; the directories last.
    run("findutils", "find", &[text(dir), "-depth", "-exec", "touch", "-h", "-d", "@1700000000", "{}", "+"]);
}

/// What has to be the same in two trees: path, kind, mode, time, names and contents.
fn listing(tree: &Path) -> Vec<String> {
    let entries = walkdir::WalkDir::new(tree).sort_by_file_name().into_iter().map(Result::unwrap);
    entries
        .filter(|entry| entry.file_name() != MARKER)
        .map(|entry| {
            let meta = entry.metadata().unwrap();
            let contents = match meta.file_type() {
                kind if kind.is_file() => fs::read(entry.path()).unwrap(),
                kind if kind.is_symlink() => fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().to_vec(),
                _ => Vec::new(),
            };
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            let hash = Sha256::digest(&contents);
            let name = entry.path().strip_prefix(tree).unwrap().to_owned();
            format!("{name:?} {:o} {} {links} {:?}", meta.mode(), meta.mtime(), &hash[..4])
        })
        .collect()
}

/// Packs a tree with the real programs.
fn tar_zst(tree: &Path, tar_args: &[&str], zstd_args: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (tar, zst) = (dir.path().join("x.tar"), dir.path().join("x.tar.zst"));
    let mut args = vec!["-C", text(tree), "-cf", text(&tar)];
    args.extend(tar_args);
    args.push(".");
    run("tar", "tar", &args);
    let mut args = vec!["-q", text(&tar), "-o", text(&zst)];
    args.extend(zstd_args);
    run("zstd", "zstd", &args);
    fs::read(&zst).unwrap()
}

#[rstest]
#[case::gnu(&["--format=gnu"], &[])]
#[case::pax(&["--format=pax"], &["-19"])]
#[case::blocking(&["--format=gnu", "-b", "200"], &["--long=27", "-T2"])]
#[case::reversed(&["--format=gnu", "--sort=name", "--numeric-owner", "--owner=1234"], &["--fast=5", "--no-check"])]
#[tokio::test]
async fn a_real_archive_becomes_the_same_tree(#[case] tar_args: &[&str], #[case] zstd_args: &[&str]) {
    let site = Site::new();
    sample_tree(&site.path("tree"));
    site.publish("2.0", 20, 400_000, &[&tar_zst(&site.path("tree"), tar_args, zstd_args)]);
    let into = site.stage(&site.only().await).await.unwrap();
    assert_eq!(listing(&into), listing(&site.path("tree")));
    let marker = fs::read_to_string(into.join(MARKER)).unwrap();
    assert_eq!(Marker::from_text(&marker).unwrap().id.to_string(), "2.0 (build 20)");
    let owner = |path: &Path| path.metadata().map(|meta| (meta.uid(), meta.gid())).unwrap();
    assert_eq!(owner(&into.join("bin/orders")), owner(site.dir.path()));
    assert!(!site.path("staging/tree.partial").exists());
}

#[tokio::test]
async fn several_archives_make_one_tree() {
    let site = Site::new();
    for (part, file) in [("one", "bin/a"), ("two", "bin/b")] {
        fs::create_dir_all(site.path(part).join("bin")).unwrap();
        fs::write(site.path(part).join(file), part).unwrap();
    }
    let archives = ["one", "two"].map(|part| tar_zst(&site.path(part), &[], &[]));
    site.publish("2.0", 20, 100, &[&archives[0], &archives[1]]);
    let into = site.stage(&site.only().await).await.unwrap();
    assert_eq!(fs::read_to_string(into.join("bin/a")).unwrap(), "one");
    assert_eq!(fs::read_to_string(into.join("bin/b")).unwrap(), "two");

    let site = Site::new();
    site.publish("2.0", 20, 100, &[&archives[0], &archives[0]]);
    let error = site.stage(&site.only().await).await.unwrap_err();
    assert!(error.to_string().ends_with("1.tar.zst"), "{error}");
    site.assert_nothing_staged();
}

#[tokio::test]
async fn a_packed_tree_is_read_by_us_and_by_the_real_programs() {
    let site = Site::new();
    sample_tree(&site.path("tree"));
    let meta = PackMeta {
        date: chrono::NaiveDate::from_ymd_opt(2026, 11, 20),
        notes: "# New\n\n\"quoted\" \\ and ü".to_owned(),
        min_version: Some("1.5".parse().unwrap()),
        min_afterhours: Some("0.1".parse().unwrap()),
        barrier: true,
        migrate: Some(vec!["bin/orders".to_owned(), "--migrate".to_owned()]),
        ..PackMeta::new(ReleaseId { version: "2.0".parse().unwrap(), build: 20 })
    };
    let packed = pack(&site.path("tree"), &meta, &site.path("feed")).unwrap();
    assert_eq!(site.only().await, packed);
    assert_eq!(packed.unpacked_bytes(), 300_000 + 10 + 4 + 7 + 1);
    let into = site.stage(&packed).await.unwrap();
    assert_eq!(listing(&into), listing(&site.path("tree")));

    let archive = packed.location.join("2.0.tar.zst");
    run("zstd", "zstd", &["-q", "-t", text(&archive)]);
    fs::create_dir(site.path("real")).unwrap();
    run("tar", "tar", &["--zstd", "-C", text(&site.path("real")), "-xpf", text(&archive)]);
    assert_eq!(listing(&site.path("real")), listing(&site.path("tree")));

    // A tree that was installed is packed without the marker, and gives the same bytes.
    let again = pack(&into, &meta, &site.path("again")).unwrap();
    assert_eq!(again.archives, packed.archives);
    assert!(matches!(pack(&into, &meta, &site.path("again")), Err(FeedError::Published { .. })));
    let left: Vec<_> = fs::read_dir(site.path("again")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["2.0-20"]);
}

#[test]
fn what_cannot_be_staged_is_not_packed() {
    let meta = PackMeta::new(ReleaseId { version: "1".parse().unwrap(), build: 1 });
    let refused = |make: &dyn Fn(&Path)| {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        make(&dir.path().join("tree"));
        let error = pack(&dir.path().join("tree"), &meta, &dir.path().join("feed")).unwrap_err();
        assert_eq!(fs::read_dir(dir.path().join("feed")).unwrap().count(), 0);
        assert!(error.hint().is_some());
        std::error::Error::source(&error).unwrap().to_string()
    };
    assert_eq!(
        refused(&|tree| symlink("/etc/passwd", tree.join("l")).unwrap()),
        "accept entry \"l\": it links to the absolute path \"/etc/passwd\""
    );
    assert_eq!(
        refused(&|tree| symlink("../x", tree.join("l")).unwrap()),
        "accept entry \"l\": it links to \"../x\", outside the tree"
    );
    assert!(refused(&|tree| drop(run("coreutils", "mkfifo", &[text(&tree.join("p"))]))).contains("a pipe"));
}

/// Keeps what it was told.
#[derive(Default)]
struct Told(Mutex<Vec<(u64, Option<u64>)>>);

impl Progress for Told {
    fn advance(&self, done: u64, total: Option<u64>, _what: &str) {
        self.0.lock().unwrap().push((done, total));
    }
}

#[tokio::test]
async fn progress_rises_to_the_size_of_all_archives() {
    let site = Site::new();
    for part in ["one", "two"] {
        fs::create_dir(site.path(part)).unwrap();
        // Not to be compressed, so that there are many bytes to read.
        let noise: Vec<u8> = (0_u32..30_000).flat_map(|i| Sha256::digest(format!("{part}{i}"))).collect();
        fs::write(site.path(part).join(part), noise).unwrap();
    }
    let archives = ["one", "two"].map(|part| tar_zst(&site.path(part), &[], &[]));
    site.publish("2.0", 20, 1_000_000, &[&archives[0], &archives[1]]);
    let release = site.only().await;
    let told = Arc::new(Told::default());
    site.feed.stage(&release, &site.path("staging/tree"), told.clone()).await.unwrap();
    let told = told.0.lock().unwrap();
    assert!(told.len() > 4 && told.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{told:?}");
    assert!(told.iter().all(|(_, total)| *total == Some(release.size_bytes())));
    assert_eq!(told.last().unwrap().0, release.size_bytes());
}
