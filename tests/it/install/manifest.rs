//! Everything a tree consists of, as text that can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use walkdir::WalkDir;

/// One line for each entry of a tree: kind, mode, owner, time, links, attributes, content.
pub(crate) fn manifest(tree: &Path) -> BTreeMap<PathBuf, String> {
    let mut first_of: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut lines = BTreeMap::new();
    for entry in WalkDir::new(tree).sort_by_file_name() {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(tree).unwrap().to_owned();
        let about = entry.path().symlink_metadata().unwrap();
        let content = if about.is_file() {
            let linked_with = first_of.entry(about.ino()).or_insert_with(|| path.clone()).clone();
            format!("{} like {}", String::from_utf8_lossy(&fs::read(entry.path()).unwrap()), linked_with.display())
        } else if about.is_symlink() {
            fs::read_link(entry.path()).unwrap().display().to_string()
        } else {
            String::new()
        };
        let mut attributes: Vec<_> = xattr::list(entry.path()).unwrap().collect();
        attributes.sort();
        let attributes: Vec<_> =
            attributes.into_iter().map(|name| (name.clone(), xattr::get(entry.path(), &name).unwrap())).collect();
        let links = if about.is_dir() { 0 } else { about.nlink() };
        lines.insert(
            path,
            format!(
                "{:o} {}:{} {}.{} links {links} {attributes:?} {content}",
                about.mode(),
                about.uid(),
                about.gid(),
                about.mtime(),
                about.mtime_nsec()
            ),
        );
    }
    lines
}

/// The same without what an application may change by merely being looked at: nothing but the paths and contents.
pub(crate) fn contents(tree: &Path) -> BTreeMap<String, String> {
    let entries = WalkDir::new(tree).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    entries
        .map(|entry| {
            let path = entry.path().strip_prefix(tree).unwrap().display().to_string();
            (path, String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned())
        })
        .collect()
}
