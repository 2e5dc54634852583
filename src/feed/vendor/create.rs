//! A feed is made: keys, the first root, and three roles that say that there is nothing yet.
//!
//! Everything is made in a hidden folder beside and gets its name last, but for keys that are put elsewhere. A try that fails
//! leaves nothing behind.

use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use sigstore_tuf::Metadata;
use sigstore_tuf::Root;

use crate::domain::span::Span;
use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::keys::Scheme;
use crate::feed::vendor::keys::Signer;
use crate::feed::vendor::passphrases::Passphrases;
use crate::feed::vendor::role::Envelope;
use crate::feed::vendor::role::Role;
use crate::feed::vendor::role::describe;
use crate::feed::vendor::rotate::read_signers;
use crate::feed::vendor::standing::FeedStanding;
use crate::feed::vendor::standing::standing;
use crate::feed::vendor::state::Hold;
use crate::feed::vendor::state::KEYS;
use crate::feed::vendor::state::Place;
use crate::feed::vendor::state::ROOT;
use crate::feed::vendor::state::SETTINGS;
use crate::feed::vendor::state::VendorSettings;
use crate::feed::vendor::state::Workshop;
use crate::feed::vendor::state::parse;

/// The most keys of a role.
const KEYS_MAX: usize = 16;
/// Signatures that hold for less could not be renewed in time.
const HOLD_MIN: Span = Span::mins(10);

/// How many keys a role has, and how many of them have to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    /// There are so many.
    pub keys: usize,
    /// So many have to sign.
    pub threshold: usize,
}

impl Quorum {
    /// One key, which has to sign.
    pub const ONE: Self = Self { keys: 1, threshold: 1 };
}

/// What a new feed should be like. Snapshot and timestamp have one key each: a timer signs them, day after day, and
/// several keys in one place are no better than one.
#[derive(Debug, Clone)]
pub struct NewFeed {
    /// The beginning of the archives' names.
    pub name: String,
    /// What keys sign with.
    pub scheme: Scheme,
    /// Whether it holds releases of Afterhours itself, and no application.
    pub updater: bool,
    /// The keys of the root.
    pub root: Quorum,
    /// The keys that vouch for releases.
    pub targets: Quorum,
    /// For how long signatures hold.
    pub hold: Hold,
    /// Where the keys of the root are put; beside the others when nothing is said.
    pub root_folder: Option<PathBuf>,
    /// What describes the commands that sign for a role in place of its first keys.
    pub signers: Vec<(Role, PathBuf)>,
}

impl NewFeed {
    const fn quorum(&self, role: Role) -> Quorum {
        match role {
            Role::Root => self.root,
            Role::Targets => self.targets,
            Role::Snapshot | Role::Timestamp => Quorum::ONE,
        }
    }
}

/// Makes a feed in `dir`, which must not exist or be empty. Blocking.
///
/// # Errors
/// There is something, a wish cannot be, or a file cannot be written.
pub fn create(
    dir: &Path,
    wish: &NewFeed,
    passphrases: &Passphrases,
    now: DateTime<Utc>,
) -> Result<FeedStanding, VendorError> {
    let (mut used, mut commands) = (Vec::new(), Vec::new());
    for role in Role::ALL {
        let Quorum { keys, threshold } = wish.quorum(role);
        if threshold == 0 || threshold > keys || keys > KEYS_MAX {
            return Err(VendorError::BadThreshold { role, threshold, keys });
        }
        let files: Vec<PathBuf> =
            wish.signers.iter().filter(|(of, _)| *of == role).map(|(_, file)| file.clone()).collect();
        if files.len() > keys {
            return Err(VendorError::SignersUnfit { role, signers: files.len(), keys });
        }
        if files.len() < keys {
            passphrases.sealing(role)?;
        }
        commands.extend(read_signers(role, &files, &mut used)?.into_iter().map(|signer| (role, signer)));
    }
    if let Some(role) = Role::ALL.into_iter().find(|role| wish.hold.of(*role) < HOLD_MIN) {
        return Err(VendorError::ShortSpan { role, span: wish.hold.of(role), least: HOLD_MIN });
    }
    let occupied = std::fs::read_dir(dir).map_or(dir.symlink_metadata().is_ok(), |mut inside| inside.next().is_some());
    if occupied {
        return Err(VendorError::Occupied { dir: dir.to_owned() });
    }
    let name = dir.file_name().ok_or_else(|| VendorError::Occupied { dir: dir.to_owned() })?;
    let hidden = dir.with_file_name(format!(".{}.partial", name.to_string_lossy()));
    disk::remove_folder(&hidden)?;
    let mut apart = Apart::new(wish.root_folder.as_deref());
    let furnished = furnish(&hidden, wish, commands, passphrases, &mut apart, now);
    let is_furnished = furnished.is_ok();
    let made = furnished.and_then(|()| disk::rename(&hidden, dir)).and_then(|()| {
        let keys = wish.root_folder.clone().into_iter().collect();
        standing(Place { dir: dir.to_owned(), keys, passphrases: None })
    });
    if made.is_err() {
        // Why it failed is said; that something stays besides is seen. The next try removes the hidden folder as well.
        let has_its_name = is_furnished && !hidden.exists();
        let _ = disk::remove_folder(if has_its_name { dir } else { &hidden });
        apart.remove();
    }
    made
}

/// Keys that are put elsewhere than into the feed.
struct Apart {
    /// Their folder, where it was made for them.
    folder: Option<PathBuf>,
    keys: Vec<PathBuf>,
}

impl Apart {
    fn new(folder: Option<&Path>) -> Self {
        Self { folder: folder.filter(|folder| !folder.exists()).map(Path::to_owned), keys: Vec::new() }
    }

    /// Removes what can be removed.
    fn remove(self) {
        for key in self.keys {
            let _ = disk::remove(&key);
        }
        if let Some(folder) = self.folder {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn furnish(
    dir: &Path,
    wish: &NewFeed,
    mut signers: Vec<(Role, Signer)>,
    passphrases: &Passphrases,
    kept: &mut Apart,
    now: DateTime<Utc>,
) -> Result<(), VendorError> {
    let inside = dir.join(KEYS);
    let metadata = dir.join("published/metadata");
    disk::make(&metadata)?;
    disk::make(&dir.join("published/targets"))?;
    disk::make_private(&inside)?;
    for role in Role::ALL {
        let missing = wish.quorum(role).keys - signers.iter().filter(|(of, _)| *of == role).count();
        for _ in 0..missing {
            signers.push((role, Signer::generate(wish.scheme)?));
        }
    }
    for (role, signer) in &signers {
        let apart = wish.root_folder.as_deref().filter(|_| *role == Role::Root);
        let file = signer.keep(*role, apart.unwrap_or(&inside), passphrases)?;
        kept.keys.extend(apart.map(|_| file));
    }
    let root = first_root(wish, &signers, now)?;
    disk::write(&metadata.join("1.root.json"), &root)?;
    disk::write(&dir.join(ROOT), &root)?;

    let file = |role: Role, own: Value| {
        let mut envelope = Envelope::new(role, 1, now + wish.hold.of(role).delta(), own);
        signers.iter().filter(|(of, _)| *of == role).try_for_each(|(_, signer)| envelope.sign(signer))?;
        Ok::<_, VendorError>(envelope.to_bytes())
    };
    let named = |bytes: &[u8]| {
        let mut named = describe(bytes);
        named["version"] = 1.into();
        named
    };
    let targets = file(Role::Targets, json!({ "targets": {} }))?;
    let snapshot = file(Role::Snapshot, json!({ "meta": { "targets.json": named(&targets) } }))?;
    let timestamp = file(Role::Timestamp, json!({ "meta": { "snapshot.json": named(&snapshot) } }))?;
    disk::write(&metadata.join("1.targets.json"), &targets)?;
    disk::write(&metadata.join("1.snapshot.json"), &snapshot)?;
    disk::write(&metadata.join("timestamp.json"), &timestamp)?;
    disk::write(&dir.join(SETTINGS), settings(wish).as_bytes())?;
    // The same look at it as after every change.
    let place = Place { dir: dir.to_owned(), keys: Vec::new(), passphrases: None };
    Workshop::enter(place)?.commit(&[], now).map(|_| ())
}

fn first_root(wish: &NewFeed, signers: &[(Role, Signer)], now: DateTime<Utc>) -> Result<Vec<u8>, VendorError> {
    let keys: Map<String, Value> =
        signers.iter().map(|(_, signer)| (signer.id.clone(), signer.public.clone())).collect();
    let roles: Map<String, Value> = Role::ALL
        .into_iter()
        .map(|role| {
            let ids: Vec<&str> =
                signers.iter().filter(|(of, _)| *of == role).map(|(_, signer)| signer.id.as_str()).collect();
            let threshold = wish.quorum(role).threshold;
            (role.name().to_owned(), json!({ "keyids": ids, "threshold": threshold }))
        })
        .collect();
    let own = json!({ "consistent_snapshot": true, "keys": keys, "roles": roles });
    let mut envelope = Envelope::new(Role::Root, 1, now + wish.hold.root.delta(), own);
    signers.iter().filter(|(role, _)| *role == Role::Root).try_for_each(|(_, signer)| envelope.sign(signer))?;
    let bytes = envelope.to_bytes();
    // What cannot be read back is never given to sites.
    let _: Metadata<Root> = parse(Path::new(ROOT), &bytes)?;
    Ok(bytes)
}

fn settings(wish: &NewFeed) -> String {
    let settings =
        VendorSettings { name: wish.name.clone(), scheme: wish.scheme, updater: wish.updater, hold: wish.hold.clone() };
    let scheme = match settings.scheme {
        Scheme::Ed25519 => "ed25519",
        Scheme::EcdsaP256 => "ecdsa-p256",
    };
    let Hold { root, targets, snapshot, timestamp } = settings.hold;
    let span = |span: Span| match span.duration().as_secs() {
        secs if secs % 86_400 == 0 => format!("{}d", secs / 86_400),
        secs => format!("{secs}s"),
    };
    format!(
        "# What `afterhours feed` has to know of this feed.\n\
         name = {}                    # archives are called NAME-VERSION.tar.zst\n\
         scheme = \"{scheme}\"               # of new keys: ed25519 or ecdsa-p256\n\
         {}\n\
         # For how long signatures hold. They are renewed when a third is left; the timestamp with every\n\
         # `afterhours feed sign`.\n\
         [hold]\n\
         root = \"{}\"\n\
         targets = \"{}\"\n\
         snapshot = \"{}\"\n\
         timestamp = \"{}\"\n",
        Value::from(settings.name),
        if settings.updater { "updater = true                     # it holds Afterhours itself\n" } else { "" },
        span(root),
        span(targets),
        span(snapshot),
        span(timestamp)
    )
}
