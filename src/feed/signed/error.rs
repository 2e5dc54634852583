//! What is refused when a vendor's server cannot prove what it says.
//!
//! One variant for each kind of refusal, because each protects from another attack and asks something else of the
//! person who reads it. Nothing that was refused is kept or used.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;
use thiserror::Error;

use crate::domain::span::Span;
use crate::feed::error::hint_for_write;
use crate::feed::signed::store::ROOT;
use crate::feed::transport::TransportError;

/// A signed feed could not be trusted, or what is trusted not be kept.
#[derive(Debug, Error)]
pub enum TrustError {
    /// Nobody has said yet whose signatures count.
    #[error("trust the feed {feed}: there is no trusted root yet")]
    NoRoot {
        /// The feed.
        feed: String,
    },
    /// A bundle cannot be read.
    #[error("read the bundle {}", .file.display())]
    ReadBundle {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no bundle.
    #[error("accept the bundle {}: {problem}", .file.display())]
    BadBundle {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A root that a person hands over cannot be read.
    #[error("read the root {}", .file.display())]
    ReadRoot {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A root that a person hands over does not prove itself.
    #[error("accept {} as a root", .file.display())]
    BadRoot {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<TrustError>,
    },
    /// Too few of the keys that may sign have signed.
    #[error("accept the {role} metadata: {found} good signatures, {threshold} needed")]
    Threshold {
        /// The role.
        role: String,
        /// How many are good.
        found: usize,
        /// How many must be.
        threshold: usize,
    },
    /// One key has signed twice.
    #[error("accept the {role} metadata: the key {key_id} has signed it twice")]
    SignedTwice {
        /// The role.
        role: String,
        /// The key.
        key_id: String,
    },
    /// What was good has run out.
    #[error("accept the {role} metadata: it has expired on {}", .at.format("%Y-%m-%d %H:%M UTC"))]
    Expired {
        /// The role.
        role: String,
        /// When.
        at: DateTime<Utc>,
    },
    /// Something older than what was seen before is offered.
    #[error("accept the {role} metadata: version {offered} is offered, version {trusted} was seen before")]
    Rollback {
        /// The role.
        role: String,
        /// The version that is trusted.
        trusted: u64,
        /// The version that is offered.
        offered: u64,
    },
    /// A root does not follow the one that is trusted.
    #[error("accept the next root: it says to be version {offered}, after version {trusted}")]
    BrokenChain {
        /// The version that is trusted.
        trusted: u64,
        /// The version that is offered.
        offered: u64,
    },
    /// Parts that are good each by itself do not belong together.
    #[error("accept the metadata: they do not belong together ({problem})")]
    Mixed {
        /// Which part.
        problem: String,
    },
    /// A file is not the one that was signed for.
    #[error("accept {target}: it is not the file that was signed for ({problem})")]
    WrongTarget {
        /// Its name in the feed.
        target: String,
        /// How it differs.
        problem: String,
    },
    /// The server sends without end, or more than can be.
    #[error("accept the metadata: more than {bytes_max} bytes are sent")]
    Endless {
        /// The limit.
        bytes_max: u64,
        /// Where.
        #[source]
        source: TransportError,
    },
    /// What is sent is no metadata that can be understood.
    #[error("understand the metadata")]
    Malformed {
        /// Why.
        #[source]
        source: sigstore_tuf::Error,
    },
    /// Nobody who may has signed for a file.
    #[error("find {target} among what was signed")]
    Unsigned {
        /// Its name in the feed.
        target: String,
    },
    /// So many delegations that something must be wrong.
    #[error("look through all roles of the feed: there are more than {max}")]
    TooManyRoles {
        /// The limit.
        max: usize,
    },
    /// The server cannot be reached or does not behave.
    #[error("fetch the metadata")]
    Fetch {
        /// Why.
        #[source]
        source: Arc<TransportError>,
    },
    /// The server cannot be reached; what was verified before does for a run, but not for whoever asks for news.
    #[error("ask the feed {feed}")]
    Away {
        /// The feed.
        feed: String,
        /// Why.
        #[source]
        source: Arc<TransportError>,
    },
    /// What was trusted before cannot be read.
    #[error("read {}", .path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was trusted before is damaged. Whoever wrote it wrote it whole, so it was the disk, or somebody's hand.
    #[error("understand {}: it is damaged", .path.display())]
    Torn {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// What is trusted now cannot be kept.
    #[error("write {}", .path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else is at it and does not come to an end.
    #[error("lock {} within {waited}", .path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
        /// How long it was waited for.
        waited: Span,
    },
}

impl TrustError {
    /// What was refused while the metadata were read, or `target`.
    pub(in crate::feed) fn from_tuf(error: sigstore_tuf::Error, target: Option<&str>) -> Self {
        use sigstore_tuf::Error as Tuf;
        match error {
            Tuf::ThresholdNotMet { role, found, threshold } => Self::Threshold { role, found, threshold },
            Tuf::DuplicateSignature { role, key_id } => Self::SignedTwice { role, key_id },
            Tuf::Expired { role, expires } => Self::Expired { role, at: from_jiff(expires) },
            Tuf::Rollback { role, trusted, new } => Self::Rollback { role, trusted, offered: new },
            Tuf::BadRootVersion { trusted, new } => Self::BrokenChain { trusted, offered: new },
            Tuf::IntegrityMismatch(problem) => match target {
                Some(target) => Self::WrongTarget { target: target.to_owned(), problem },
                None => Self::Mixed { problem },
            },
            Tuf::Transport { message, source: Some(source) } => match source.downcast::<TransportError>() {
                Ok(source) => Self::from_transport(*source),
                Err(source) => Self::Malformed { source: Tuf::Transport { message, source: Some(source) } },
            },
            source => Self::Malformed { source },
        }
    }

    /// What it means that metadata could not be fetched.
    pub(in crate::feed) fn from_transport(source: TransportError) -> Self {
        match source {
            TransportError::TooLarge { bytes_max, .. } => Self::Endless { bytes_max, source },
            source => Self::Fetch { source: Arc::new(source) },
        }
    }

    /// Whether the feed was reached and what it said was refused.
    pub fn is_refusal(&self) -> bool {
        !matches!(
            self,
            Self::Fetch { .. }
                | Self::Away { .. }
                | Self::Load { .. }
                | Self::Torn { .. }
                | Self::Keep { .. }
                | Self::Busy { .. }
                | Self::ReadRoot { .. }
                | Self::ReadBundle { .. }
        )
    }

    /// What a person can do about it, and what the refusal is good for.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoRoot { .. } => {
                "get root.json from the vendor by a way you trust, then `afterhours feed trust APP root.json`, or name \
                 it as feed.root"
            }
            Self::ReadBundle { .. } => "name a bundle that `afterhours feed bundle` wrote; copy it again",
            Self::BadBundle { .. } => {
                "nothing of it was used; make it anew with `afterhours feed bundle`, and copy it again"
            }
            Self::ReadRoot { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "name the root.json that you got from the vendor, with its folder"
            }
            Self::ReadRoot { .. } => "name a root.json that the user Afterhours runs as may read",
            Self::BadRoot { .. } => "get root.json from the vendor again, by a way you trust",
            Self::Threshold { .. } | Self::SignedTwice { .. } => {
                "whoever published this holds too few of the vendor's keys: a thief with one key, or a changed file. \
                 Nothing of it was used. If it stays so, ask the vendor, and trust no new root.json that reaches you \
                 over the same server. Where this site was given the wrong root at first, correct it by \
                 `afterhours feed trust APP root.json`; feed.root counts only until there is one"
            }
            Self::Expired { role, .. } if role == "root" => {
                "look whether the clock of this machine is right. If it is, the vendor has to sign a new root; one \
                 that has run out must not vouch for anything, since its keys may be in other hands by now"
            }
            Self::Expired { .. } => {
                "look whether the clock of this machine is right. If it is, the vendor has to sign anew, or somebody \
                 holds this site on an old state by replaying it; so nothing of it was used"
            }
            Self::Rollback { .. } => {
                "somebody replays an old state of the feed, to bring old holes back, or the vendor restored a backup of \
                 it. Nothing of it was used. If it stays so, ask the vendor to publish with a higher version"
            }
            Self::BrokenChain { .. } => {
                "a root counts only after the one before it; ask the vendor for the missing one, nothing was changed"
            }
            Self::Mixed { .. } => {
                "somebody mixes parts of different states of the feed, or it was just being uploaded. Nothing of it was \
                 used. Try again in a few minutes; if it stays so, ask the vendor to upload all of it, timestamp.json \
                 last"
            }
            Self::WrongTarget { .. } => {
                "the file was changed on the server or on the way, so it was not used. If it stays so, ask the vendor to \
                 upload it again"
            }
            Self::Endless { .. } => {
                "a server that never ends would fill memory and disk, so it was cut off. Check feed.url and the proxy \
                 between; if they are right, tell the vendor"
            }
            Self::Malformed { .. } => {
                "check that feed.url is the folder with metadata/ and targets/, and that no proxy answers in its place"
            }
            Self::Unsigned { .. } => {
                "the release names a file that nobody signed for, so the release was not used; ask the vendor to \
                 publish it again"
            }
            Self::TooManyRoles { .. } => "ask the vendor to delegate to fewer roles",
            Self::Away { source, .. } => return source.hint(),
            Self::Fetch { source } => {
                return match &**source {
                    TransportError::Absent { .. } => Some(
                        "check that feed.url is the folder with metadata/ and targets/; if it is, the vendor's upload is \
                         not complete"
                            .to_owned(),
                    ),
                    source => source.hint(),
                };
            }
            Self::Load { .. } => "give the user that Afterhours runs as the right to read it",
            Self::Torn { path, .. } if path.ends_with(ROOT) => {
                "look whether the disk is well, get root.json from the vendor by a way you trust, then \
                 `afterhours feed trust APP root.json`"
            }
            Self::Torn { .. } => {
                "look whether the disk is well, and bring the file back from a backup. Without it an older state of the \
                 feed could no longer be told from the newest; if there is no backup, remove it, and compare what \
                 `afterhours feed refresh APP` then names with what the vendor says is the newest"
            }
            Self::Keep { source, .. } => return hint_for_write(source),
            Self::Busy { .. } => "another Afterhours asks the same feed; look what it waits for",
        };
        Some(text.to_owned())
    }
}

/// An instant as we write it; the beginning of time where it cannot be one, so that it counts as past.
pub(in crate::feed) fn from_jiff(at: jiff::Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp(at.as_second(), 0).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// An instant as the crate wants it; the end of time where it cannot be one, so that everything has expired.
pub(in crate::feed) fn to_jiff(at: DateTime<Utc>) -> jiff::Timestamp {
    jiff::Timestamp::from_second(at.timestamp()).unwrap_or(jiff::Timestamp::MAX)
}
