//! Which paths of a program tree belong to the administrator and survive an update.
//!
//! A path is kept when a pattern matches it or a directory above it; `certs/**` keeps the directory
//! itself too, and a link in its place. Data paths inside the installation are kept like that.
//!
//! Invariant: a walk only enters directories in which a pattern can match, so its cost follows
//! what is kept, not the size of the application.

use std::fs::Metadata;
use std::os::unix::fs::FileTypeExt;
use std::path::Component;
use std::path::Path;
use std::path::PathBuf;

use globset::GlobBuilder;
use globset::GlobMatcher;
use globset::GlobSet;
use globset::GlobSetBuilder;

use crate::config::settings::AppSettings;
use crate::config::settings::DataSettings;
use crate::domain::release::MARKER;
use crate::install::anchor::Anchor;
use crate::install::error::InstallError;
use crate::install::error::must_be_near;
use crate::install::layout::PREPARED;
use crate::install::layout::RETIRED;
use crate::install::tree;

/// Compiles patterns as everywhere: `*` does not cross `/`.
pub(super) fn compile<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<GlobSet, InstallError> {
    let mut set = GlobSetBuilder::new();
    for text in texts {
        set.add(glob(text)?);
    }
    set.build().map_err(|source| InstallError::BadPattern { pattern: String::new(), source })
}

fn glob(text: &str) -> Result<globset::Glob, InstallError> {
    GlobBuilder::new(text)
        .literal_separator(true)
        .build()
        .map_err(|source| InstallError::BadPattern { pattern: text.to_owned(), source })
}

/// One part of a pattern between two slashes.
#[derive(Debug)]
enum Part {
    /// Exactly or by glob, one name.
    Name(GlobMatcher),
    /// `**`, or too clever for us: anything from here on.
    Anything,
}

/// What is kept.
#[derive(Debug)]
pub(super) struct Keep {
    set: GlobSet,
    /// What stands before a closing `/**`.
    roots: GlobSet,
    shapes: Vec<Vec<Part>>,
    texts: Vec<String>,
    data: Vec<PathBuf>,
}

/// Something that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// Relative to the tree.
    pub(super) path: PathBuf,
    /// What it is; a link is not followed.
    pub(super) about: Metadata,
}

impl Keep {
    /// What an application's configuration keeps.
    pub(super) fn of(app: &AppSettings) -> Result<Self, InstallError> {
        let data = match &app.data {
            DataSettings::Paths { paths, .. } => paths
                .iter()
                .filter_map(|path| path.strip_prefix(&app.install_dir).ok())
                .filter(|path| !path.as_os_str().is_empty())
                .map(Path::to_owned)
                .collect(),
            DataSettings::Dump { .. } => Vec::new(),
        };
        Self::new(&app.keep.texts, data)
    }

    /// Patterns, and data paths relative to the tree.
    pub(super) fn new(texts: &[String], data: Vec<PathBuf>) -> Result<Self, InstallError> {
        let texts: Vec<String> = texts
            .iter()
            .map(|text| text.trim_start_matches("./").trim_matches('/').to_owned())
            .filter(|text| !text.is_empty())
            .collect();
        let set = compile(texts.iter().map(String::as_str))?;
        let roots = compile(texts.iter().filter_map(|text| text.strip_suffix("/**")))?;
        let shapes = texts.iter().map(|text| shape(text)).collect::<Result<_, _>>()?;
        Ok(Self { set, roots, shapes, texts, data })
    }

    pub(super) fn texts(&self) -> &[String] {
        &self.texts
    }

    pub(super) fn data(&self) -> &[PathBuf] {
        &self.data
    }

    /// The data path that holds `path`, if one does.
    pub(super) fn data_root(&self, path: &Path) -> Option<&Path> {
        self.data.iter().map(PathBuf::as_path).find(|root| path.starts_with(root))
    }

    /// Whether `path` itself is kept; what lies above it is the walk's business.
    fn matches(&self, path: &Path, about: &Metadata) -> bool {
        let stands_for_a_dir = about.is_dir() || about.file_type().is_symlink();
        self.set.is_match(path)
            || self.data.iter().any(|data| data == path)
            || (stands_for_a_dir && self.roots.is_match(path))
            // A link where patterns expect a directory: what they mean is behind it.
            || (about.file_type().is_symlink() && self.may_contain(path))
    }

    /// Whether something below the directory `path` can be kept by a pattern.
    fn may_contain(&self, path: &Path) -> bool {
        let names: Vec<_> = path.components().collect();
        let fits = |shape: &Vec<Part>| {
            for (place, name) in names.iter().enumerate() {
                match shape.get(place) {
                    Some(Part::Anything) => return true,
                    Some(Part::Name(glob)) if glob.is_match(name.as_os_str()) => {}
                    _ => return false,
                }
            }
            shape.len() > names.len()
        };
        self.shapes.iter().any(fits) || self.data.iter().any(|data| data.starts_with(path) && data != path)
    }

    /// Everything in `tree` that is kept, directories before their content.
    pub(super) fn walk(&self, tree: &Path) -> Result<Vec<Kept>, InstallError> {
        let mut found = Vec::new();
        if let Some(root) = Anchor::follow(tree)? {
            self.visit(&root, Path::new(""), false, &mut found)?;
        }
        Ok(found)
    }

    fn visit(&self, dir: &Anchor, at: &Path, above: bool, found: &mut Vec<Kept>) -> Result<(), InstallError> {
        for name in tree::names(&dir.path())? {
            let path = at.join(&name);
            if is_ours(&path) {
                continue;
            }
            let Some(about) = tree::look(&dir.entry(&name))? else { continue };
            if about.file_type().is_socket() {
                continue;
            }
            let kept = above || self.matches(&path, &about);
            let enter = about.is_dir() && (kept || self.may_contain(&path));
            if kept {
                found.push(Kept { path: path.clone(), about });
            }
            // Where a link took its place by now, nothing is below.
            if enter && let Some(below) = dir.child(&name)? {
                must_be_near(&path)?;
                self.visit(&below, &path, kept, found)?;
            }
        }
        Ok(())
    }
}

/// Whether a path of a tree is neither the vendor's nor the administrator's.
pub(super) fn is_ours(path: &Path) -> bool {
    let mut parts = path.components();
    let Some(Component::Normal(first)) = parts.next() else { return false };
    [MARKER, PREPARED, RETIRED].iter().any(|ours| first == *ours)
}

fn shape(text: &str) -> Result<Vec<Part>, InstallError> {
    // A slash inside braces or brackets does not part names; such patterns are looked for everywhere.
    if text.contains(['{', '[', '\\']) {
        return Ok(vec![Part::Anything]);
    }
    text.split('/')
        .map(
            |part| {
                if part == "**" {
                    Ok(Part::Anything)
                } else {
                    glob(part).map(|glob| Part::Name(glob.compile_matcher()))
                }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn kept(patterns: &[&str], data: &[&str], entries: &[&str]) -> Vec<String> {
        let tree = tempfile::tempdir().unwrap();
        for entry in entries {
            let (path, link) = entry.split_once(" -> ").map_or((*entry, None), |(path, target)| (path, Some(target)));
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match link {
                Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
                None => fs::write(path, "").unwrap(),
            }
        }
        let texts: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let keep = Keep::new(&texts, data.iter().map(PathBuf::from).collect()).unwrap();
        keep.walk(tree.path()).unwrap().iter().map(|kept| kept.path.display().to_string()).collect()
    }

    #[test]
    fn a_directory_is_kept_with_everything_below() {
        let entries = ["certs/a.pem", "certs/deep/b.pem", "bin/x", "licence.key"];
        assert_eq!(kept(&["certs/**"], &[], &entries), ["certs", "certs/a.pem", "certs/deep", "certs/deep/b.pem"]);
        assert_eq!(kept(&["certs"], &[], &entries), ["certs", "certs/a.pem", "certs/deep", "certs/deep/b.pem"]);
        assert_eq!(kept(&["certs/"], &[], &entries).len(), 4);
        assert_eq!(kept(&["licence.key", "none"], &[], &entries), ["licence.key"]);
    }

    #[test]
    fn a_star_stays_in_its_directory() {
        let entries = ["etc/a.conf", "etc/more/b.conf", "c.conf"];
        assert_eq!(kept(&["etc/*.conf"], &[], &entries), ["etc/a.conf"]);
        assert_eq!(kept(&["**/*.conf"], &[], &entries), ["c.conf", "etc/a.conf", "etc/more/b.conf"]);
        assert_eq!(kept(&["{etc/more,x}/*.conf"], &[], &entries), ["etc/more/b.conf"]);
    }

    #[test]
    fn links_are_kept_as_links() {
        let entries = ["certs -> /etc/certs", "conf -> elsewhere", "bin -> lib", "lib/x"];
        assert_eq!(kept(&["certs/**", "conf/*.toml"], &[], &entries), ["certs", "conf"]);
    }

    #[test]
    fn data_inside_the_installation_are_kept() {
        let entries = ["var/data/1", "var/other", "bin/x"];
        assert_eq!(kept(&[], &["var/data"], &entries), ["var/data", "var/data/1"]);
    }

    #[test]
    fn what_is_ours_is_never_kept() {
        assert!(kept(&["**"], &[], &[".afterhours-release.json", ".afterhours-prepared/vendor/x"]).is_empty());
    }

    #[test]
    fn a_walk_does_not_enter_where_nothing_can_be_kept() {
        let keep = Keep::new(&["config/**".to_owned(), "a/*/c".to_owned()], vec!["var/data".into()]).unwrap();
        for (dir, enters) in
            [("config", true), ("node_modules", false), ("a", true), ("a/b", true), ("a/b/c", false), ("var", true)]
        {
            assert_eq!(keep.may_contain(Path::new(dir)), enters, "{dir}");
        }
    }
}
