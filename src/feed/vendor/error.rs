//! What can go wrong while a vendor's feed is made or kept.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::domain::span::Span;
use crate::feed::delta::DeltaError;
use crate::feed::error::FeedError;
use crate::feed::error::hint_for_write;
use crate::feed::vendor::role::Role;
use crate::feed::vendor::signer::SignerError;

/// A feed could not be made, published into, signed or given other keys.
#[derive(Debug, Error)]
pub enum VendorError {
    /// There is something where the feed should be made.
    #[error("create a feed in {}: there is something already", .dir.display())]
    Occupied {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder is no feed.
    #[error("find a feed in {}", .dir.display())]
    NoFeed {
        /// The folder.
        dir: PathBuf,
    },
    /// The feed's own settings cannot be understood.
    #[error("understand {}", .file.display())]
    BadSettings {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Another program works on this feed.
    #[error("lock {}: another command works on this feed", .lock.display())]
    Busy {
        /// The lock.
        lock: PathBuf,
    },
    /// More signatures are asked for than there are keys, or none.
    #[error("have {threshold} of {keys} {role} keys sign: that cannot be")]
    BadThreshold {
        /// Whose keys.
        role: Role,
        /// As many have to sign.
        threshold: usize,
        /// As many there are.
        keys: usize,
    },
    /// A span for which signatures hold is too short to be kept up.
    #[error("have signatures of {role} hold for {span}: at least {least} is needed")]
    ShortSpan {
        /// The role.
        role: Role,
        /// As asked for.
        span: Span,
        /// The limit.
        least: Span,
    },

    /// Keys must not be sealed with so little.
    #[error("accept the passphrase: it has fewer than {chars_min} characters")]
    ShortPassphrase {
        /// The limit.
        chars_min: usize,
    },
    /// What a timer reads every night would open the other keys, too.
    #[error("accept the passphrases: that of timestamp and snapshot opens other keys as well")]
    SamePassphrase,
    /// Keys have to be opened, and nobody said how.
    #[error("open the keys of {role}: there is no passphrase")]
    NoPassphrase {
        /// Whose keys.
        role: Role,
    },
    /// The passphrase is not the one that the key is sealed with.
    #[error("open {}: the passphrase is wrong", .file.display())]
    WrongPassphrase {
        /// The key.
        file: PathBuf,
    },
    /// A file is no sealed key.
    #[error("open {}: it is no sealed PKCS#8 key for Ed25519 or ECDSA P-256", .file.display())]
    NotAKey {
        /// The file.
        file: PathBuf,
    },
    /// Whoever opens the file spends more than it is worth, and perhaps more than there is.
    #[error("open {}: its passphrase costs too much to try", .file.display())]
    CostlyKey {
        /// The file.
        file: PathBuf,
    },
    /// A file has not the key that its name says.
    #[error("open {}: it holds another key, {found}", .file.display())]
    OtherKey {
        /// The file.
        file: PathBuf,
        /// The ID of the key in it.
        found: String,
    },
    /// The cryptographic library refused.
    #[error("make a key")]
    MakeKey,
    /// The cryptographic library refused.
    #[error("sign with the key {key}")]
    Sign {
        /// The key's ID.
        key: String,
    },
    /// A command that signs in place of a key file cannot, or has not.
    #[error("use the signer {}", .file.display())]
    Signer {
        /// What describes it.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<SignerError>,
    },
    /// There are other commands than there are keys for them.
    #[error("have {signers} signers for {keys} keys of {role}")]
    SignersUnfit {
        /// Whose keys.
        role: Role,
        /// As many are named.
        signers: usize,
        /// As many keys are made.
        keys: usize,
    },
    /// Two signatures of one key would count as one.
    #[error("take the key of {}: it is one of {role} already", .file.display())]
    SameKey {
        /// Whose key it is already.
        role: Role,
        /// What describes the signer.
        file: PathBuf,
    },
    /// Too few keys are here to sign for a role.
    #[error("sign {role}: {here} of the keys it needs {needed} of are in {places}")]
    KeysMissing {
        /// The role.
        role: Role,
        /// As many are here.
        here: usize,
        /// As many have to sign.
        needed: usize,
        /// Where they were looked for.
        places: String,
    },
    /// Metadata cannot be written down in a form that is signed.
    #[error("encode metadata")]
    Encode {
        /// Why.
        #[source]
        source: Box<sigstore_tuf::Error>,
    },

    /// A file cannot be read.
    #[error("read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is too large to be what it should be.
    #[error("read {}: it is larger than {bytes_max} bytes", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// Something cannot be written, renamed or removed.
    #[error("write {}", .path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is published is not what was signed here. Nothing is signed on top of it.
    #[error("trust {}", .file.display())]
    Untrusted {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<sigstore_tuf::Error>,
    },
    /// A root was exchanged behind our back.
    #[error("trust {}: it differs from {}", .file.display(), .pinned.display())]
    OtherRoot {
        /// What is published.
        file: PathBuf,
        /// What was kept.
        pinned: PathBuf,
    },
    /// A site would not accept what was made. It was not published.
    #[error("show the feed to a site")]
    Refused {
        /// What the site says.
        #[source]
        source: Box<sigstore_tuf::Error>,
    },
    /// A file that the metadata name is not there as they say.
    #[error("find {} as it was signed", .file.display())]
    Spoilt {
        /// The file.
        file: PathBuf,
    },

    /// The root's signatures hold no more; nothing below it can be renewed.
    #[error("sign: the root has expired at {expired_at}")]
    RootExpired {
        /// When.
        expired_at: String,
    },
    /// A new root with other keys waits for signatures.
    #[error("go on: root {version} with other keys waits for signatures")]
    RootPending {
        /// Its version.
        version: u64,
        /// Where it waits.
        file: PathBuf,
    },
    /// The release cannot be made.
    #[error("make release {id}")]
    Release {
        /// Which.
        id: ReleaseId,
        /// Why.
        #[source]
        source: Box<FeedError>,
    },
    /// A kind of machine has a name that none has.
    #[error("publish Afterhours for {triple}: that is no target triple")]
    BadTriple {
        /// As named.
        triple: String,
    },
    /// A kind of machine is named more than once.
    #[error("publish Afterhours for {triple}: it is named twice")]
    TripleTwice {
        /// Which.
        triple: String,
    },
    /// What is to be published as Afterhours is no program.
    #[error("publish {} as Afterhours: it is no file, or an empty one", .path.display())]
    NotAProgram {
        /// What was named.
        path: PathBuf,
    },
    /// A small download cannot be made.
    #[error("make a small download from {from}")]
    Delta {
        /// The build it would start from.
        from: ReleaseId,
        /// Why.
        #[source]
        source: Box<DeltaError>,
    },
    /// Sites do not read metadata that are so large. They were not written.
    #[error("write {}: it would have {bytes} bytes, and sites read {bytes_max} at most", .file.display())]
    TooLargeForSites {
        /// The file.
        file: PathBuf,
        /// As large it would be.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The build does not come after all others.
    #[error("publish build {build}: the newest is {newest}")]
    BuildNotNewer {
        /// As asked for.
        build: u64,
        /// What there is.
        newest: ReleaseId,
    },
    /// The build is so high that nothing could follow it.
    #[error("publish build {build}: the highest is {max}")]
    BuildTooHigh {
        /// As asked for.
        build: u64,
        /// The limit.
        max: u64,
    },
    /// No site could take the release: the one before it is too old.
    #[error("publish {id}: it needs at least version {needs}, and the release before it is {before}")]
    NoWay {
        /// The release.
        id: ReleaseId,
        /// The lowest version it may follow.
        needs: Version,
        /// The one it follows.
        before: ReleaseId,
    },
    /// What should be packed cannot be read.
    #[error("read the tree {}", .tree.display())]
    ReadTree {
        /// As named.
        tree: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What should be packed is a file or a link.
    #[error("pack {}: it is no folder", .tree.display())]
    TreeIsNoFolder {
        /// As named.
        tree: PathBuf,
    },
    /// There is nothing to pack.
    #[error("pack {}: there is no file in it", .tree.display())]
    EmptyTree {
        /// As named.
        tree: PathBuf,
    },
    /// Packing the tree would give keys away, or the feed itself.
    #[error("pack {}: it is not apart from {}, which no site must get", .tree.display(), .folder.display())]
    TreeInFeed {
        /// As named.
        tree: PathBuf,
        /// The feed, or a folder with keys.
        folder: PathBuf,
    },
    /// The program that migrates the data is not in the tree, or cannot be run.
    #[error("find a program {program} in {}", .tree.display())]
    NoMigration {
        /// As named.
        tree: PathBuf,
        /// As named.
        program: String,
    },
    /// Afterhours is vouched for by its makers' feed, and an application by its vendor's.
    #[error("publish {} into this feed", if *.is_updater { "an application" } else { "Afterhours" })]
    WrongContent {
        /// Whether it is a feed of Afterhours itself.
        is_updater: bool,
    },
    /// What is to be carried is no feed.
    #[error("carry {}: there is no metadata/timestamp.json in it", .dir.display())]
    NothingToCarry {
        /// As named.
        dir: PathBuf,
    },
    /// There is no such build to take back.
    #[error("find a build {build} in the feed")]
    NoSuchBuild {
        /// As asked for.
        build: u64,
    },
    /// A later release cannot be reached without this one.
    #[error("withdraw {id}: without it no site could update to {by}")]
    Needed {
        /// The release.
        id: ReleaseId,
        /// The one that needs it.
        by: ReleaseId,
    },
    /// The role has no key that begins like this.
    #[error("find a key {key} of {role}")]
    NoSuchKey {
        /// The role.
        role: Role,
        /// As asked for.
        key: String,
    },
}

/// What kind of failure it is, for exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VendorFailure {
    /// Wrong use.
    Usage,
    /// There is no such thing.
    NotFound,
    /// It will not be done.
    Refused,
    /// Whoever asks may not.
    NotPermitted,
    /// It could not be done.
    Failed,
}

impl VendorError {
    /// What kind of failure it is.
    pub fn failure(&self) -> VendorFailure {
        match self {
            Self::BadThreshold { .. }
            | Self::ShortSpan { .. }
            | Self::ShortPassphrase { .. }
            | Self::SamePassphrase
            | Self::SignersUnfit { .. }
            | Self::SameKey { .. }
            | Self::NoPassphrase { .. }
            | Self::BadTriple { .. }
            | Self::TripleTwice { .. }
            | Self::NotAProgram { .. }
            | Self::BuildTooHigh { .. }
            | Self::TreeIsNoFolder { .. } => VendorFailure::Usage,
            Self::NothingToCarry { .. } | Self::NoFeed { .. } | Self::NoSuchKey { .. } | Self::NoSuchBuild { .. } => {
                VendorFailure::NotFound
            }
            Self::ReadTree { source, .. } if matches!(source.kind(), io::ErrorKind::NotFound) => {
                VendorFailure::NotFound
            }
            Self::WrongContent { .. }
            | Self::Occupied { .. }
            | Self::Busy { .. }
            | Self::KeysMissing { .. }
            | Self::RootExpired { .. }
            | Self::RootPending { .. }
            | Self::BuildNotNewer { .. }
            | Self::NoWay { .. }
            | Self::EmptyTree { .. }
            | Self::TreeInFeed { .. }
            | Self::NoMigration { .. }
            | Self::TooLargeForSites { .. }
            | Self::Needed { .. } => VendorFailure::Refused,
            Self::Release { source, .. }
                if matches!(
                    **source,
                    FeedError::Refused { .. }
                        | FeedError::BadValue { .. }
                        | FeedError::DescriptionTooLong { .. }
                        | FeedError::Published { .. }
                        | FeedError::TooManyReleases { .. }
                ) =>
            {
                VendorFailure::Refused
            }
            Self::WrongPassphrase { .. } => VendorFailure::NotPermitted,
            Self::Signer { source, .. } => source.failure(),
            Self::BadSettings { .. }
            | Self::NotAKey { .. }
            | Self::CostlyKey { .. }
            | Self::OtherKey { .. }
            | Self::MakeKey
            | Self::Sign { .. }
            | Self::Encode { .. }
            | Self::Read { .. }
            | Self::ReadTree { .. }
            | Self::Release { .. }
            | Self::TooLarge { .. }
            | Self::Write { .. }
            | Self::Untrusted { .. }
            | Self::OtherRoot { .. }
            | Self::Refused { .. }
            | Self::Delta { .. }
            | Self::Spoilt { .. } => VendorFailure::Failed,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::WrongContent { is_updater: true } => {
                "make a feed of its own for it: `afterhours feed create DIR --keys STICK`"
            }
            Self::WrongContent { is_updater: false } => {
                "carry it as its makers have signed it: `afterhours feed publish DIR --updater --from PUBLISHED`"
            }
            Self::NothingToCarry { .. } => "name the published folder of a feed of Afterhours",
            Self::Occupied { .. } => "name a folder that does not exist, or an empty one",
            Self::NoFeed { .. } => "make one with `afterhours feed create DIR --keys STICK`",
            Self::BadSettings { .. } => "correct it; the manual on publishing shows one",
            Self::Busy { .. } => "wait until the other command has ended",
            Self::BadThreshold { role: Role::Targets, .. } => {
                "make it 1 to the number of --targets-keys, of 16 at most"
            }
            Self::BadThreshold { .. } => "make it 1 to the number of --root-keys, of 16 at most",
            Self::ShortSpan { .. } => "make it longer; it is renewed when a third of it is left",
            Self::ShortPassphrase { .. } => {
                "take a longer one, nobody asks for it often: `feed create --generate-passphrases` makes them, and `feed rotate \
                 --new-passphrase-file FILE` seals new keys with another one than opens the old ones"
            }
            Self::SamePassphrase => {
                "take another one for the keys that a timer signs with: whoever reads the timer's file must not be able to \
                 publish"
            }
            Self::NoPassphrase { role: Role::Timestamp | Role::Snapshot } => {
                "name a file with it: --online-passphrase-file FILE, or --passphrase-file FILE where there is one for all"
            }
            Self::NoPassphrase { .. } => "name a file with it: --passphrase-file FILE",
            Self::WrongPassphrase { .. } => {
                "type the right one, or name the file with it: --passphrase-file, or, where they have one of their own, \
                 --root-passphrase-file for root keys and --online-passphrase-file for timestamp and snapshot"
            }
            Self::NotAKey { .. } | Self::OtherKey { .. } => {
                "take the file out of the folder, or put back what was there"
            }
            Self::Signer { source, .. } => return Some(source.hint()),
            Self::SignersUnfit { .. } => {
                "name one signer for each key that it replaces; at `feed rotate`, --only ID replaces one key, and at `feed create` \
                 --root-keys and --targets-keys say how many there are"
            }
            Self::SameKey { .. } => "give each its own: make another key in the device",
            Self::CostlyKey { .. } => {
                "put back what was there, or seal it anew with the program that made it: scrypt with at most 512 MiB (N = 2^19, \
                 r = 8, p = 1), or at most 10,000,000 rounds of PBKDF2"
            }
            Self::KeysMissing { .. } => "name the folder with the other keys: --keys DIR",
            Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run it as the owner of the feed"
            }
            Self::Write { source, .. } => return hint_for_write(source),
            Self::Untrusted { .. } | Self::OtherRoot { .. } | Self::Spoilt { .. } => {
                "find out who changed it, and put back what was there; nothing was signed"
            }
            Self::Refused { .. } => "nothing was published; please report this",
            Self::RootExpired { .. } => "renew it with the root keys: `afterhours feed sign DIR --keys KEYS`",
            Self::RootPending { file, .. } => {
                return Some(format!(
                    "sign it with the other root keys first: `afterhours feed sign DIR --keys KEYS`; or remove {} to drop it",
                    file.display()
                ));
            }
            Self::Release { source, .. } => return source.hint(),
            Self::TooLargeForSites { .. } => "withdraw releases that nobody needs any more, with their small downloads",
            Self::Delta { source, .. } => {
                return source.hint().or_else(|| Some("publish without small downloads: --deltas 0".to_owned()));
            }
            Self::BadTriple { .. } => "name it as the compiler does, for example x86_64-unknown-linux-gnu",
            Self::TripleTwice { .. } => "give each --triple one --binary",
            Self::NotAProgram { .. } => "name the program that was built for this platform",
            Self::BuildNotNewer { newest, .. } => return Some(format!("raise the build above {}", newest.build)),
            Self::BuildTooHigh { .. } => "take the next number; a build only has to be above the one before",
            Self::NoWay { needs, before, .. } => {
                return Some(format!(
                    "publish a release of version {needs} or later first, or lower --min-version to {}",
                    before.version
                ));
            }
            Self::ReadTree { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run it as somebody who may read the tree"
            }
            Self::ReadTree { .. } | Self::TreeIsNoFolder { .. } => "name the folder with what sites install",
            Self::EmptyTree { .. } => "build the application into it first",
            Self::TreeInFeed { .. } => "build into a folder elsewhere",
            Self::NoMigration { .. } => {
                "put it into the tree and make it executable; a bare name, without a slash, is a program of the site's system"
            }
            Self::NoSuchBuild { .. } => "see the builds with `afterhours feed show DIR`",
            Self::Needed { by, .. } => {
                return Some(format!("withdraw build {} first, or publish one in its place", by.build));
            }
            Self::NoSuchKey { .. } => "see the IDs with `afterhours feed show DIR`",
            Self::MakeKey | Self::Sign { .. } | Self::Encode { .. } | Self::Read { .. } | Self::TooLarge { .. } => {
                return None;
            }
        };
        Some(text.to_owned())
    }
}
