//! What can go wrong between a feed and a staged tree.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::domain::failure::FailureCode;
use crate::domain::release::BadMarker;
use crate::domain::release::ReleaseId;
use crate::domain::span::Span;
use crate::feed::archive::error::ArchiveError;
use crate::feed::delta::DeltaError;
use crate::feed::signed::TrustError;
use crate::feed::transport::TransportError;
use crate::files::trusted::Untrusted;

/// A feed could not be read, a release not be staged or not be made.
#[derive(Debug, Error)]
pub enum FeedError {
    /// A signed feed is not trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Something cannot be fetched.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A small download is of no use.
    #[error("use a small download")]
    Delta {
        /// Why.
        #[source]
        source: DeltaError,
    },
    /// An Afterhours is carried that its makers do not vouch for.
    #[error("accept Afterhours from this feed: only its makers can vouch for it, whoever signs the feed")]
    NotVouchedFor {
        /// What is wrong.
        #[source]
        source: Box<TrustError>,
    },
    /// A signed description is in the folder of another build.
    #[error("accept {target}: it describes build {build}")]
    ForeignBuild {
        /// Its name in the feed.
        target: String,
        /// The build that it describes.
        build: u64,
    },
    /// A description and the signed metadata say different things of a file.
    #[error("accept {target}: release.toml says {described}, the signed metadata say {signed}")]
    Disagreement {
        /// Its name in the feed.
        target: String,
        /// Hash and size by the description.
        described: String,
        /// Hash and size by the metadata.
        signed: String,
    },
    /// A file was signed for without a hash that we use.
    #[error("accept {target}: the signed metadata have no sha256 of it")]
    NoHash {
        /// Its name in the feed.
        target: String,
    },
    /// The feed's directory cannot be listed.
    #[error("list the releases in {}", .dir.display())]
    List {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// So many folders that something must be wrong.
    #[error("list the releases in {}: there are more than {max}", .dir.display())]
    TooManyReleases {
        /// The directory.
        dir: PathBuf,
        /// The limit.
        max: usize,
    },
    /// A `release.toml` cannot be read.
    #[error("read {}", .file.display())]
    ReadDescription {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A `release.toml` is too large to be one.
    #[error("read {}: it is larger than {max} bytes", .file.display())]
    DescriptionTooLarge {
        /// The file.
        file: PathBuf,
        /// The limit.
        max: u64,
    },
    /// A `release.toml` would be so large that no site reads it.
    #[error("write {}: it would have {bytes} bytes, and sites read {max} at most", .file.display())]
    DescriptionTooLong {
        /// The file.
        file: PathBuf,
        /// As large it would be.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A `release.toml` is no TOML, lacks a key, or has a value of the wrong type.
    #[error("understand {}", .file.display())]
    ParseDescription {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A `release.toml` has a key that does not exist.
    #[error("understand {}: there is no key {key}", .file.display())]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The key with its path.
        key: String,
        /// A key that may be meant.
        similar: Option<String>,
    },
    /// A value in a `release.toml` cannot be.
    #[error("accept {}: {key} {problem}", .file.display())]
    BadValue {
        /// The file.
        file: PathBuf,
        /// The key with its path.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two releases have the same build.
    #[error("tell two releases apart: build {build} is in {} and in {}", .first.display(), .second.display())]
    DuplicateBuild {
        /// The build.
        build: u64,
        /// One folder.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// A look at the feed took too long.
    #[error("read the feed {feed} within {deadline}")]
    Overdue {
        /// The feed.
        feed: String,
        /// The limit.
        deadline: Span,
    },

    /// An archive cannot be opened or read.
    #[error("read {}", .file.display())]
    ReadArchive {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An archive is a directory, a device or something else.
    #[error("read {}: it is not a regular file", .file.display())]
    NotAFile {
        /// The path.
        file: PathBuf,
    },
    /// An archive has not the size that the release declares.
    #[error("accept {}: it has {found} bytes instead of {declared}", .file.display())]
    WrongSize {
        /// The file.
        file: PathBuf,
        /// As the release says.
        declared: u64,
        /// As it is.
        found: u64,
    },
    /// An archive's bytes are not those that the release declares.
    #[error("accept {}: its sha256 is {found} instead of {declared}", .file.display())]
    WrongHash {
        /// The file.
        file: PathBuf,
        /// As the release says.
        declared: String,
        /// As it is.
        found: String,
    },
    /// An archive cannot be unpacked, or must not be.
    #[error("unpack {}", .file.display())]
    Unpack {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: ArchiveError,
    },

    /// The path to stage into has no parent or no name.
    #[error("stage into {}: it is no place for a directory", .into.display())]
    NoPlace {
        /// The path.
        into: PathBuf,
    },
    /// Where the tree should go stands something that is not this release.
    #[error(
        "stage into {}: {} stands there",
        .into.display(),
        .found.as_ref().map_or_else(|| "something else".to_owned(), |id| format!("release {id}"))
    )]
    Occupied {
        /// The path.
        into: PathBuf,
        /// Which release it is, if one.
        found: Option<ReleaseId>,
    },
    /// The marker of a staged tree cannot be read.
    #[error("read the marker of {}", .tree.display())]
    ReadMarker {
        /// The tree.
        tree: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The marker of a staged tree is none.
    #[error("understand the marker of {}", .tree.display())]
    ParseMarker {
        /// The tree.
        tree: PathBuf,
        /// Why.
        #[source]
        source: BadMarker,
    },
    /// Somebody else stages the same release and does not come to an end.
    #[error("stage into {}: it is being done already, and was not done within {waited}", .into.display())]
    Busy {
        /// The path.
        into: PathBuf,
        /// How long it was waited for.
        waited: Span,
    },
    /// Others than root can change the place where the tree should go.
    #[error("work in {}: others than root can change it", .path.display())]
    Untrusted {
        /// The directory.
        path: PathBuf,
        /// Who can, and where.
        #[source]
        source: Untrusted,
    },
    /// A directory for the tree cannot be made.
    #[error("make {}", .path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What an interrupted try left behind cannot be removed.
    #[error("remove the leftovers in {}", .path.display())]
    Clear {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of ours cannot be written.
    #[error("write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tree cannot be brought to disk.
    #[error("bring {} to disk", .path.display())]
    Sync {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The finished tree cannot be given its name.
    #[error("rename {} to {}", .from.display(), .to.display())]
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new one.
        to: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody waits for the result any more.
    #[error("go on staging: it was cancelled")]
    Cancelled,
    /// The thread that did the work is gone.
    #[error("finish the work on {what}: its thread ended unexpectedly")]
    Thread {
        /// What it worked on.
        what: String,
        /// Why.
        #[source]
        source: tokio::task::JoinError,
    },

    /// Something in a tree that becomes a release cannot be read.
    #[error("pack {}", .path.display())]
    ReadTree {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in a tree cannot be in a release.
    #[error("pack {}", .path.display())]
    Refused {
        /// The path.
        path: PathBuf,
        /// What unpacking would say.
        #[source]
        source: ArchiveError,
    },
    /// A file changed its size while it was packed.
    #[error("pack {}: it changed meanwhile", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The release is there already.
    #[error("publish into {}: it exists", .folder.display())]
    Published {
        /// The folder.
        folder: PathBuf,
    },
    /// The description of a release cannot be expressed.
    #[error("describe the release for {}", .file.display())]
    Describe {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: toml::ser::Error,
    },
}

impl FeedError {
    /// Which of the failures that scripts tell apart it is, if it is one.
    pub fn code(&self) -> Option<FailureCode> {
        match self {
            Self::Transport(source) => source.code(),
            Self::Trust(TrustError::Fetch { source } | TrustError::Away { source, .. }) => source.code(),
            _ => None,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Trust(error) => return error.hint(),
            Self::Transport(error) => return error.hint(),
            Self::NotVouchedFor { .. } => {
                "ask the vendor to carry Afterhours as its makers have signed it; until then the installed one goes on"
                    .to_owned()
            }
            Self::Delta { source } => return source.hint(),
            Self::ForeignBuild { .. } | Self::Disagreement { .. } | Self::NoHash { .. } => {
                "the release was not used; ask the vendor to publish it again".to_owned()
            }
            Self::List { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "create the directory, mount it, or correct feed.dir".to_owned()
            }
            Self::List { source, .. } | Self::ReadDescription { source, .. } | Self::ReadArchive { source, .. } => {
                match source.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "give the user that Afterhours runs as the right to read the feed"
                    }
                    io::ErrorKind::NotFound => "copy the release into the feed again; release.toml last",
                    io::ErrorKind::InvalidData => "save release.toml as UTF-8",
                    _ => "check the file system of the feed",
                }
                .to_owned()
            }
            Self::Overdue { .. } => "check that the file system of the feed answers".to_owned(),
            Self::UnknownKey { similar: Some(similar), .. } => format!("did you mean {similar}?"),
            Self::UnknownKey { .. } => {
                "correct the key, or update Afterhours if it is too old for this release".to_owned()
            }
            Self::ParseDescription { .. } | Self::BadValue { .. } | Self::DescriptionTooLarge { .. } => {
                "correct release.toml, or begin the folder's name with '.' to have it ignored".to_owned()
            }
            Self::DescriptionTooLong { .. } => "shorten the notes; nothing was packed".to_owned(),
            Self::DuplicateBuild { .. } | Self::TooManyReleases { .. } => {
                "take releases that are not needed out of the feed".to_owned()
            }
            Self::NotAFile { .. } | Self::WrongSize { .. } | Self::WrongHash { .. } => {
                "copy the release into the feed again; release.toml last".to_owned()
            }
            Self::Occupied { into, .. } => format!("look what it is, then remove {}", into.display()),
            Self::ReadMarker { tree, .. } | Self::ParseMarker { tree, .. } => {
                format!("if {} is no longer needed, remove it", tree.display())
            }
            Self::Busy { .. } => "look for another run or prefetch of this application".to_owned(),
            Self::Published { .. } => "raise the build number".to_owned(),
            Self::Unpack { source, .. } => return source.hint(),
            Self::Make { source, .. } | Self::Write { source, .. } | Self::Sync { source, .. } => {
                return hint_for_write(source);
            }
            Self::Untrusted { source, .. } => return source.remedy(),
            Self::Clear { path, .. } => format!("remove {} by hand", path.display()),
            Self::Refused { source: ArchiveError::LinkAbsolute { .. }, .. } => {
                "make the link relative, or have the migration make it; a Python environment gets no such links where it is built \
                 with `python3 -m venv --copies`, at the path where it will run"
                    .to_owned()
            }
            Self::Refused { .. } => "take it out of the tree".to_owned(),
            Self::Changed { .. } => "pack a tree that nobody works in".to_owned(),
            Self::NoPlace { .. }
            | Self::Rename { .. }
            | Self::Cancelled
            | Self::Thread { .. }
            | Self::ReadTree { .. }
            | Self::Describe { .. } => return None,
        };
        Some(text)
    }
}

/// What a person can do about an error while writing.
pub(in crate::feed) fn hint_for_write(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::StorageFull => Some("free space on that file system; nothing was installed".to_owned()),
        io::ErrorKind::QuotaExceeded => Some("raise the quota or free space; nothing was installed".to_owned()),
        io::ErrorKind::PermissionDenied => {
            Some("give the user that Afterhours runs as the right to write there".to_owned())
        }
        io::ErrorKind::NotFound => Some("make the folder that it is to be in, or name another one".to_owned()),
        io::ErrorKind::ReadOnlyFilesystem => Some("mount that file system for writing".to_owned()),
        _ => None,
    }
}
