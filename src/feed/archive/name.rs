//! What an entry may be called and where a link may lead: pure rules about bytes.
//!
//! A name is a list of components without `..`, `.` or nothing in it. A symbolic link may climb
//! with `..` only at its beginning and no higher than the root. Since no entry may lie below a
//! link, the directory that a link stands in is a real one, its climbing ends in a real directory
//! of the tree, and from there every further name is again inside or a link of the same kind: no
//! chain of links leads out. A `..` after a name could climb from wherever a link had led, so it
//! is refused even where it would end inside.

use crate::domain::plain::is_format;
use crate::feed::archive::Limits;
use crate::feed::archive::error::ArchiveError;
use crate::feed::archive::error::shown;

/// The longest component, as on every Linux file system.
const COMPONENT_BYTES_MAX: usize = 255;

/// A path inside the tree: components joined by `/`; the root is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::feed) struct EntryName(Vec<u8>);

impl EntryName {
    /// The root of the tree.
    pub(in crate::feed) const ROOT: Self = Self(Vec::new());

    /// Checks the path of an entry. `./` in front is customary and dropped; a directory may end
    /// with `/`, and may be the root.
    ///
    /// # Errors
    /// The variant that names what is wrong with it.
    pub(in crate::feed) fn parse(raw: &[u8], is_dir: bool, limits: &Limits) -> Result<Self, ArchiveError> {
        let entry = || shown(raw);
        if raw.len() > limits.path_bytes_max {
            return Err(ArchiveError::TooLong { entry: entry(), max: limits.path_bytes_max });
        }
        if raw.contains(&0) {
            return Err(ArchiveError::ZeroByte { entry: entry() });
        }
        if is_disguised(raw) {
            return Err(ArchiveError::FormatCharacter { entry: entry() });
        }
        if raw.starts_with(b"/") {
            return Err(ArchiveError::Absolute { entry: entry() });
        }
        let mut path = raw;
        if is_dir {
            if raw == b"." || raw == b"./" {
                return Ok(Self::ROOT);
            }
            path = path.strip_suffix(b"/").unwrap_or(path);
        }
        path = path.strip_prefix(b"./").unwrap_or(path);
        let mut depth = 0;
        for component in path.split(|byte| *byte == b'/') {
            depth += 1;
            match component {
                b"" | b"." => return Err(ArchiveError::EmptyComponent { entry: entry() }),
                b".." => return Err(ArchiveError::Parent { entry: entry() }),
                long if long.len() > COMPONENT_BYTES_MAX => {
                    return Err(ArchiveError::TooLong { entry: entry(), max: COMPONENT_BYTES_MAX });
                }
                _ => {}
            }
        }
        if depth > limits.depth_max {
            return Err(ArchiveError::TooDeep { entry: entry(), max: limits.depth_max });
        }
        Ok(Self(path.to_vec()))
    }

    /// The bytes, without a slash at either end.
    pub(in crate::feed) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name for people.
    pub(in crate::feed) fn shown(&self) -> String {
        if self.0.is_empty() { shown(b".") } else { shown(&self.0) }
    }

    /// The components, from the root down.
    pub(in crate::feed) fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// The directory it stands in and its own name; nothing for the root.
    pub(in crate::feed) fn split(&self) -> Option<(Self, &[u8])> {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => Some((Self(self.0[..slash].to_vec()), &self.0[slash + 1..])),
            None if self.0.is_empty() => None,
            None => Some((Self::ROOT, &self.0)),
        }
    }

    /// One component further down; `component` comes from [`Self::components`].
    pub(in crate::feed) fn child(&self, component: &[u8]) -> Self {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(component);
        Self(bytes)
    }
}

/// Whether a name may be read as another one. The two joiners are part of words in several scripts.
fn is_disguised(raw: &[u8]) -> bool {
    !raw.is_ascii()
        && String::from_utf8_lossy(raw).chars().any(|c| is_format(c) && !matches!(c, '\u{200c}' | '\u{200d}'))
}

/// Whether a symbolic link at `link` may point to `target`.
///
/// # Errors
/// The variant that names what is wrong with it.
pub(in crate::feed) fn check_symlink(link: &EntryName, target: &[u8], limits: &Limits) -> Result<(), ArchiveError> {
    let entry = link.shown();
    if target.is_empty() {
        return Err(ArchiveError::LinkEmpty { entry });
    }
    if target.len() > limits.path_bytes_max {
        return Err(ArchiveError::TooLong { entry, max: limits.path_bytes_max });
    }
    if target.contains(&0) {
        return Err(ArchiveError::ZeroByte { entry });
    }
    if is_disguised(target) {
        return Err(ArchiveError::FormatCharacter { entry });
    }
    if target.starts_with(b"/") {
        return Err(ArchiveError::LinkAbsolute { entry, target: shown(target) });
    }
    // The link's own name is not climbed over.
    let mut height = link.components().count().saturating_sub(1);
    let mut named = false;
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if named => return Err(ArchiveError::LinkWinding { entry, target: shown(target) }),
            b".." => {
                height = height
                    .checked_sub(1)
                    .ok_or_else(|| ArchiveError::LinkOut { entry: entry.clone(), target: shown(target) })?;
            }
            _ => named = true,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &[u8]) -> Result<EntryName, ArchiveError> {
        EntryName::parse(raw, false, &Limits::DEFAULT)
    }

    #[test]
    fn good_names_are_kept_as_they_are() {
        for (raw, name) in [
            (&b"a"[..], &b"a"[..]),
            (b"./a/b", b"a/b"),
            (b"a b/\xff\xfe", b"a b/\xff\xfe"),
            (b"...", b"..."),
            (b"..a/b..", b"..a/b.."),
            (b"-rf", b"-rf"),
        ] {
            assert_eq!(parse(raw).unwrap().as_bytes(), name);
        }
        for root in [&b"."[..], b"./"] {
            assert_eq!(EntryName::parse(root, true, &Limits::DEFAULT).unwrap(), EntryName::ROOT);
        }
        assert_eq!(EntryName::parse(b"./a/", true, &Limits::DEFAULT).unwrap().as_bytes(), b"a");
    }

    #[test]
    fn bad_names_are_refused_by_name() {
        use ArchiveError::*;
        assert!(matches!(parse(b"/etc/passwd"), Err(Absolute { .. })));
        assert!(matches!(parse(b".."), Err(Parent { .. })));
        assert!(matches!(parse(b"a/../b"), Err(Parent { .. })));
        for empty in [&b""[..], b".", b"./", b"a//b", b"a/./b", b"././a", b"a/"] {
            assert!(matches!(parse(empty), Err(EmptyComponent { .. })), "{}", shown(empty));
        }
        assert!(matches!(parse(b".//a"), Err(EmptyComponent { .. })));
        assert!(matches!(parse(b"a\0b"), Err(ZeroByte { .. })));
        let Err(FormatCharacter { entry }) = parse("gpj.\u{202e}exe".as_bytes()) else { panic!("taken") };
        assert_eq!(entry, "\"gpj.\\u{202e}exe\"");
        assert!(parse("\u{200c}نمی‌خواهم".as_bytes()).is_ok());
        assert!(matches!(parse(&[b'a'; 256]), Err(TooLong { max: 255, .. })));
        assert!(matches!(parse(&b"a/".repeat(3000)), Err(TooLong { .. })));
        assert!(matches!(parse(&[b"a/".repeat(200), b"b".to_vec()].concat()), Err(TooDeep { .. })));
        assert!(matches!(EntryName::parse(b"a//", true, &Limits::DEFAULT), Err(EmptyComponent { .. })));
        assert!(matches!(EntryName::parse(b"/", true, &Limits::DEFAULT), Err(Absolute { .. })));
        assert!(matches!(EntryName::parse(b"../", true, &Limits::DEFAULT), Err(Parent { .. })));
    }

    #[test]
    fn links_stay_inside() {
        use ArchiveError::*;
        let link = |at: &[u8], to: &[u8]| check_symlink(&parse(at).unwrap(), to, &Limits::DEFAULT);
        for (at, to) in [
            (&b"a"[..], &b"b"[..]),
            (b"a", b"."),
            (b"a/b", b".."),
            (b"a/b/c", b"../../d/e"),
            (b"a", b"no/such//thing/"),
            (b"a/b", b"./../c"),
        ] {
            link(at, to).unwrap();
        }
        assert!(matches!(link(b"a", b"/etc"), Err(LinkAbsolute { .. })));
        assert!(matches!(link(b"a", b".."), Err(LinkOut { .. })));
        assert!(matches!(link(b"a/b", b"../../x"), Err(LinkOut { .. })));
        assert!(matches!(link(b"a/b", b".././../x"), Err(LinkOut { .. })));
        assert!(matches!(link(b"a/b", b"c/../d"), Err(LinkWinding { .. })));
        assert!(matches!(link(b"a", b""), Err(LinkEmpty { .. })));
        assert!(matches!(link(b"a", b"b\0c"), Err(ZeroByte { .. })));
        assert!(matches!(link(b"a", &[b'x'; 5000]), Err(TooLong { .. })));
    }

    #[test]
    fn a_name_comes_apart_and_together() {
        let name = parse(b"a/b/c").unwrap();
        let (parent, leaf) = name.split().unwrap();
        assert_eq!((parent.as_bytes(), leaf), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(parent.child(leaf), name);
        assert_eq!(EntryName::ROOT.child(b"a").split(), Some((EntryName::ROOT, &b"a"[..])));
        assert_eq!(EntryName::ROOT.split(), None);
        assert_eq!(EntryName::ROOT.components().count(), 0);
    }

    #[test]
    fn hostile_names_are_shown_harmlessly() {
        assert_eq!(shown(b"a\x1b[2Jb\n"), "\"a\\u{1b}[2Jb\\n\"");
        assert!(shown(&[b'x'; 9999]).chars().count() < 200);
    }
}
