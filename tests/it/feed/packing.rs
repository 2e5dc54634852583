//! A release of a directory feed, made with the program itself and staged by a site.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::Value;

use super::Site;
use super::listing;
use super::sample_tree;
use super::text;

/// Packs `tree` into the site's feed; the exit code, and what is answered.
fn pack(site: &Site, version: &str, build: &str, more: &[&str]) -> (i32, Value) {
    let (dir, tree) = (site.path("feed"), site.path("tree"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_afterhours"));
    command.args(["--json", "feed", "pack", "--dir", text(&dir), "--version", version, "--build", build]);
    if !more.contains(&"--tree") {
        command.args(["--tree", text(&tree)]);
    }
    let output = command.args(more).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout);
    (output.status.code().unwrap(), answer.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

#[tokio::test]
async fn a_site_installs_what_was_packed_into_its_directory() {
    let site = Site::new();
    sample_tree(&site.path("tree"));
    fs::write(site.path("notes.md"), "Faster search.\n").unwrap();
    let (code, packed) = pack(&site, "5.4.6", "5", &["--notes", text(&site.path("notes.md")), "--barrier"]);
    assert_eq!((code, &packed["version"], &packed["build"]), (0, &"5.4.6".into(), &5.into()), "{packed}");
    let release = site.only().await;
    assert_eq!((release.notes.as_str(), release.barrier), ("Faster search.\n", true));
    let staged = site.stage(&release).await.unwrap();
    assert_eq!(listing(&staged), listing(&site.path("tree")));
    // The same version once more, under the next build.
    assert_eq!(pack(&site, "5.4.6", "6", &[]).0, 0);
    assert_eq!(site.feed.releases().await.unwrap().len(), 2);
    assert!(site.feed.check().await.iter().all(|finding| finding.remedy.is_none()));
}

#[tokio::test]
async fn what_a_site_would_refuse_is_not_packed() {
    let site = Site::new();
    sample_tree(&site.path("tree"));
    assert_eq!(pack(&site, "1.0", "1", &[]).0, 0);
    // The time of the directory itself changes with every try.
    let inside = || listing(&site.path("feed")).split_off(1);
    let before = inside();
    let refused = |build: &str, more: &[&str], expected: &str| {
        let (code, answer) = pack(&site, "2.0", build, more);
        let said = answer["error"].to_string();
        assert!(code == 4 && said.contains(expected), "{code}: {answer}");
        assert_eq!(inside(), before);
    };
    refused("1", &[], "it exists");
    refused("0", &[], "must be at least 1");
    refused("2", &["--migrate", "bin/nosuch"], "find a program bin/nosuch");
    refused("2", &["--tree", text(&site.path("."))], "it is not apart from");
    fs::write(site.path("notes.md"), vec![b'y'; 1_060_000]).unwrap();
    refused("2", &["--notes", text(&site.path("notes.md"))], "sites read 1048576 at most");
    symlink("/usr/bin/python3", site.path("tree/python3")).unwrap();
    refused("2", &[], "python3 -m venv --copies");
}
