//! Makes `corpus/` and `delta-makes.sha256` anew, with the product's own vendor: `cargo run --example corpus`, in `fuzz/`.

use std::error::Error;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use afterhours::domain::release::ReleaseId;
use afterhours::domain::release::Rollout;
use afterhours::domain::span::Span;
use afterhours::feed::delta;
use afterhours::feed::pack::PackMeta;
use afterhours::feed::pack::pack;
use afterhours::feed::vendor;
use afterhours::feed::vendor::Content;
use afterhours::feed::vendor::Hold;
use afterhours::feed::vendor::NewFeed;
use afterhours::feed::vendor::Passphrases;
use afterhours::feed::vendor::Place;
use afterhours::feed::vendor::Quorum;
use afterhours::feed::vendor::Role;
use afterhours::feed::vendor::Scheme;
use afterhours_fuzz::SEPARATOR;
use afterhours_fuzz::now;
use afterhours_fuzz::tar;
use chrono::TimeDelta;
use secrecy::SecretString;
use sha2::Digest;
use sha2::Sha256;

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in ["metadata", "manifest", "archive", "delta"] {
        fs::create_dir_all(corpus.join(target))?;
    }
    let dir = tempfile::tempdir()?;
    let tree = dir.path().join("tree");
    plant(&tree)?;
    for scheme in [Scheme::Ed25519, Scheme::EcdsaP256] {
        metadata(scheme, &tree, dir.path(), &corpus.join("metadata"))?;
    }
    archives(&tree, dir.path(), &corpus)?;
    deltas(dir.path(), &corpus.join("delta"))
}

/// Everything that a tree may hold.
fn plant(tree: &Path) -> Done {
    fs::create_dir_all(tree.join("bin/plugins"))?;
    fs::create_dir_all(tree.join("empty"))?;
    fs::write(tree.join("bin/orders"), "#!/bin/sh\n")?;
    fs::write(tree.join("bin/plugins/a"), [7; 1_000])?;
    fs::hard_link(tree.join("bin/plugins/a"), tree.join("bin/plugins/b"))?;
    symlink("plugins/a", tree.join("bin/current"))?;
    fs::write(tree.join(format!("{}.txt", "long".repeat(40))), "a long name\n")?;
    Ok(())
}

fn meta(version: &str, build: u64) -> Result<PackMeta, Box<dyn Error>> {
    Ok(PackMeta::new(ReleaseId { version: version.parse()?, build }))
}

fn metadata(scheme: Scheme, tree: &Path, dir: &Path, into: &Path) -> Done {
    let name = format!("{scheme:?}").to_lowercase();
    let feed = dir.join(&name);
    let signed_at = now() - TimeDelta::days(1);
    let long = Span::days(3_650);
    let hold = Hold { root: long, targets: long, snapshot: long, timestamp: long };
    let (name_of, root) = ("orders".to_owned(), Quorum { keys: 2, threshold: 2 });
    let targets = Quorum { keys: 1, threshold: 1 };
    let wish = NewFeed { name: name_of, scheme, updater: false, root, targets, hold, root_folder: None };
    let passphrases = Passphrases::new(SecretString::from("nobody needs it again"), None);
    let place = || Place { dir: feed.clone(), keys: Vec::new(), passphrases: Some(passphrases.clone()) };
    vendor::create(&feed, &wish, &passphrases, signed_at)?;
    fs::write(into.join(format!("{name}-created")), chain(&feed, 1, 1)?)?;
    vendor::publish(place(), &meta("1.0", 1)?, &Content::Tree(tree.to_owned()), 0, signed_at)?;
    vendor::publish(place(), &meta("2.0", 2)?, &Content::Tree(tree.to_owned()), 0, signed_at)?;
    fs::write(into.join(format!("{name}-published")), chain(&feed, 1, 3)?)?;
    vendor::rotate(place(), Role::Timestamp, None, None, signed_at)?;
    let newest = newest(&feed, "snapshot.json")?;
    fs::write(into.join(format!("{name}-rotated")), chain(&feed, 2, newest)?)?;
    Ok(())
}

/// The highest version of a file of metadata.
fn newest(feed: &Path, name: &str) -> Result<u64, Box<dyn Error>> {
    let mut newest = 0;
    for entry in fs::read_dir(feed.join("published/metadata"))? {
        let file = entry?.file_name();
        let version = file.to_str().and_then(|file| file.strip_suffix(name)?.strip_suffix('.')?.parse().ok());
        newest = newest.max(version.unwrap_or(0));
    }
    Ok(newest)
}

fn chain(feed: &Path, roots: u64, snapshot: u64) -> Result<Vec<u8>, Box<dyn Error>> {
    let targets = newest(feed, "targets.json")?;
    let mut names: Vec<String> = (1..=roots).map(|version| format!("{version}.root.json")).collect();
    names.extend(["timestamp.json".to_owned(), format!("{snapshot}.snapshot.json"), format!("{targets}.targets.json")]);
    let mut all = Vec::new();
    for name in names {
        if !all.is_empty() {
            all.push(SEPARATOR);
        }
        all.extend(fs::read(feed.join("published/metadata").join(name))?);
    }
    Ok(all)
}

fn archives(tree: &Path, dir: &Path, corpus: &Path) -> Done {
    let mut meta = meta("2.4.1", 24)?;
    let release = pack(tree, &meta, dir)?;
    let packed = fs::read(release.location.join(&release.archives[0].file))?;
    fs::write(corpus.join("archive/packed"), &packed)?;
    fs::write(corpus.join("archive/plain"), zstd::decode_all(packed.as_slice())?)?;
    fs::write(corpus.join("archive/pax"), pax()?)?;
    fs::copy(release.location.join("release.toml"), corpus.join("manifest/plain"))?;

    meta.id = ReleaseId { version: "2.5.0-rc.1".parse()?, build: 25 };
    meta.date = now().date_naive().into();
    meta.notes = "Faster *search*.\n\n\"Quoted\", and a \\ backslash: ä.".to_owned();
    meta.min_version = Some("2.0".parse()?);
    meta.barrier = true;
    meta.migrate = Some(vec!["bin/migrate".to_owned(), "--yes".to_owned()]);
    meta.published_at = Some(now());
    meta.security = true;
    meta.rollout = Some(Rollout { start: now(), hours: 72 });
    meta.licences = vec!["standard".to_owned(), "pro".to_owned()];
    let release = pack(tree, &meta, dir)?;
    let mut text = fs::read_to_string(release.location.join("release.toml"))?;
    fs::write(corpus.join("manifest/full"), &text)?;
    let zeros = "0".repeat(64);
    text.push_str(&format!(
        "\n[[archive.delta]]\nfrom_build = 24\nfrom_tar_sha256 = \"{zeros}\"\nfile = \"orders.delta\"\nsha256 = \"{zeros}\"\nsize_bytes = 9\n"
    ));
    fs::write(corpus.join("manifest/delta"), text)?;
    Ok(())
}

/// As others pack: with records of pax, and a comment for all.
fn pax() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut archive = ::tar::Builder::new(Vec::new());
    let comment = b"20 comment=a commit";
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(::tar::EntryType::XGlobalHeader);
    header.set_size(comment.len() as u64 + 1);
    archive.append_data(&mut header, "pax_global_header", [&comment[..], b"\n"].concat().as_slice())?;
    archive.append_pax_extensions([("path", &b"dir/file"[..]), ("mtime", b"-1.5"), ("size", b"5")])?;
    let mut header = ::tar::Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o640);
    archive.append_data(&mut header, "short", &b"hello"[..])?;
    Ok(archive.into_inner()?)
}

fn deltas(dir: &Path, into: &Path) -> Done {
    let [old, new] = ["old", "new"].map(|name| dir.join(name));
    fs::write(&old, zstd::encode_all(tar(false).as_slice(), 1)?)?;
    fs::write(&new, zstd::encode_all(tar(true).as_slice(), 1)?)?;
    delta::make(&old, &new, &into.join("good"))?;
    fs::write(into.join("nothing"), [&b"AHDELTA1"[..], &[0; 20]].concat())?;
    let sha256: String = Sha256::digest(tar(true)).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(into.with_file_name("../delta-makes.sha256"), format!("{sha256}\n"))?;
    Ok(())
}
