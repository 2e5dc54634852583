//! Why an archive is refused. Every variant that concerns one entry names it.

use std::io;

use thiserror::Error;

use crate::feed::error::hint_for_write;

/// The longest piece of a hostile name that is shown to a person, in characters.
const SHOWN_CHARS_MAX: usize = 160;

/// An archive that could not be unpacked, or must not be.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// A path that begins with `/`.
    #[error("accept entry {entry}: its path is absolute")]
    Absolute {
        /// The entry.
        entry: String,
    },
    /// A path with `..` in it.
    #[error("accept entry {entry}: its path contains \"..\"")]
    Parent {
        /// The entry.
        entry: String,
    },
    /// A path with nothing, or only `.`, between two slashes; or a file where only a directory can be.
    #[error("accept entry {entry}: its path has an empty component")]
    EmptyComponent {
        /// The entry.
        entry: String,
    },
    /// A path or link target with a character that is not seen and changes how others are read.
    #[error("accept entry {entry}: it contains a format character, which hides what the name is")]
    FormatCharacter {
        /// The entry; the character is shown by its number.
        entry: String,
    },
    /// A path or link target with a zero byte.
    #[error("accept entry {entry}: it contains a zero byte")]
    ZeroByte {
        /// The entry.
        entry: String,
    },
    /// A path, or a link target, that is too long.
    #[error("accept entry {entry}: it is longer than {max} bytes")]
    TooLong {
        /// The entry.
        entry: String,
        /// The limit.
        max: usize,
    },
    /// A path with too many directories.
    #[error("accept entry {entry}: it is nested more than {max} deep")]
    TooDeep {
        /// The entry.
        entry: String,
        /// The limit.
        max: usize,
    },
    /// The name is ours.
    #[error("accept entry {entry}: the name is reserved")]
    Reserved {
        /// The entry.
        entry: String,
    },
    /// The same path a second time.
    #[error("accept entry {entry}: its path occurs twice")]
    Duplicate {
        /// The entry.
        entry: String,
    },
    /// A path that goes through a symbolic link.
    #[error("accept entry {entry}: it lies below the symbolic link {link}")]
    BelowLink {
        /// The entry.
        entry: String,
        /// The link.
        link: String,
    },
    /// A path that goes through a file.
    #[error("accept entry {entry}: it lies below {file}, which is a file")]
    BelowFile {
        /// The entry.
        entry: String,
        /// The file.
        file: String,
    },
    /// A link to an absolute path.
    #[error("accept entry {entry}: it links to the absolute path {target}")]
    LinkAbsolute {
        /// The entry.
        entry: String,
        /// Where it points.
        target: String,
    },
    /// A link that leads out of the tree.
    #[error("accept entry {entry}: it links to {target}, outside the tree")]
    LinkOut {
        /// The entry.
        entry: String,
        /// Where it points.
        target: String,
    },
    /// A symbolic link with `..` after a name: where it leads depends on other links.
    #[error("accept entry {entry}: it links to {target}, with \"..\" after a name")]
    LinkWinding {
        /// The entry.
        entry: String,
        /// Where it points.
        target: String,
    },
    /// A link to nothing.
    #[error("accept entry {entry}: it links to nothing")]
    LinkEmpty {
        /// The entry.
        entry: String,
    },
    /// A hard link to something that is no file of the tree, or comes later.
    #[error("accept entry {entry}: it is a hard link to {target}, which is no file before it")]
    HardLinkTarget {
        /// The entry.
        entry: String,
        /// Where it points.
        target: String,
    },
    /// A device, a pipe, a socket, a sparse file, or anything else that is not on the list.
    #[error("accept entry {entry}: it is {kind}; only files, directories and links are allowed")]
    Kind {
        /// The entry.
        entry: String,
        /// What it is.
        kind: String,
    },
    /// A directory or link that carries data.
    #[error("accept entry {entry}: it is no file and yet has {size} bytes of data")]
    UnexpectedData {
        /// The entry.
        entry: String,
        /// How many.
        size: u64,
    },
    /// A pax record that would change what the entry is, or stands twice.
    #[error("accept entry {entry}: its pax record {key} is not supported")]
    PaxRecord {
        /// The entry.
        entry: String,
        /// The record's key.
        key: String,
    },
    /// Extended metadata that cannot be read.
    #[error("read the extended metadata of entry {entry}")]
    PaxBroken {
        /// The entry.
        entry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A header with a mode or time that is no number.
    #[error("read the header of entry {entry}")]
    Header {
        /// The entry.
        entry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Names and other metadata of one entry that take too much memory.
    #[error("accept what follows {after}: its metadata take more than {max} bytes")]
    MetadataTooLarge {
        /// The last good entry.
        after: String,
        /// The limit.
        max: u64,
    },
    /// More files than were declared by size.
    #[error("accept entry {entry}: with it the archive unpacks to more than the declared {declared} bytes")]
    TooBig {
        /// The entry.
        entry: String,
        /// What the release declares.
        declared: u64,
    },
    /// Too many entries.
    #[error("accept more than {max} entries")]
    TooManyEntries {
        /// The limit.
        max: u64,
    },
    /// So many directories that their names do not fit into memory.
    #[error("accept entry {entry}: the names of all directories take more than {max} bytes")]
    TooManyNames {
        /// The entry.
        entry: String,
        /// The limit.
        max: usize,
    },
    /// The data of an entry end before its size.
    #[error("read entry {entry}: its data end early")]
    Short {
        /// The entry.
        entry: String,
    },
    /// The archive has no end mark: it was cut off between two entries.
    #[error("read beyond {after}: the archive has no end mark")]
    NoEnd {
        /// The last good entry.
        after: String,
    },
    /// Something stands behind the end mark.
    #[error("accept what follows the archive's end mark: only zero bytes may")]
    Trailing,
    /// The compressed stream or a header is broken, or the file could not be read.
    #[error("read the archive after {after}")]
    Broken {
        /// The last good entry.
        after: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An entry could not be written.
    #[error("write {entry}")]
    Write {
        /// The entry.
        entry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody waits for the result any more.
    #[error("go on: unpacking was cancelled")]
    Cancelled,
}

impl ArchiveError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Write { source, .. } => hint_for_write(source),
            Self::Cancelled => None,
            Self::TooBig { .. } => Some(
                "unpacked_bytes in release.toml is too small, or the archive is not what its maker thinks; ask the vendor".to_owned(),
            ),
            Self::LinkAbsolute { .. } => Some(
                "ask the vendor for a release with a relative link, or one that makes the link in its migration; a Python environment \
                 gets none where it is built with `python3 -m venv --copies`"
                    .to_owned(),
            ),
            Self::LinkWinding { .. } => {
                Some("ask the vendor for a release whose links have \"..\" only at their beginning".to_owned())
            }
            _ => Some("nothing was installed; ask the vendor for a corrected release".to_owned()),
        }
    }

    /// Whether the cause is on our side of the archive: our disk, our caller.
    pub(in crate::feed) fn is_ours(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Cancelled)
    }
}

/// A name from an archive as it can be shown: escaped, and cut when it is very long.
pub(in crate::feed) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}
