//! Another key for a role: a new root says so, signed with enough keys of the old root and of the new one.
//!
//! The new key is on disk first, then the new root as one that waits for signatures, and only then is anything published:
//! after a crash `sign` goes on where this ended.

use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;
use serde_json::Value;
use sigstore_tuf::Root;

use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::keys::Signer;
use crate::feed::vendor::renew::own;
use crate::feed::vendor::role::Envelope;
use crate::feed::vendor::role::Role;
use crate::feed::vendor::role::keys_of;
use crate::feed::vendor::sign::ClosedKey;
use crate::feed::vendor::sign::RootWork;
use crate::feed::vendor::standing::PendingRoot;
use crate::feed::vendor::state::KEYS;
use crate::feed::vendor::state::Place;
use crate::feed::vendor::state::Workshop;

/// What came of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rotated {
    /// Whose keys.
    pub role: Role,
    /// The IDs of the keys that are used no more.
    pub old: Vec<String>,
    /// The IDs of the keys in their place.
    pub new: Vec<String>,
    /// The version of the root that says so.
    pub root: u64,
    /// What that root still lacks; nothing when it is published.
    pub pending: Option<PendingRoot>,
    /// Keys of the root that are here, but could not be opened, or did not sign.
    pub closed: Vec<ClosedKey>,
    /// Until when sites accept the feed without another signature.
    pub holds_until: DateTime<Utc>,
}

/// Which keys are replaced, and by what.
#[derive(Debug, Clone, Default)]
pub struct Replacement {
    /// Those whose ID begins so; all of the role when nothing is said.
    pub only: Option<String>,
    /// Where new ones are put; with the others when nothing is said.
    pub folder: Option<PathBuf>,
    /// What describes the commands that sign in their place, one for each; new keys are made when there is none.
    pub signers: Vec<PathBuf>,
}

/// What a command signs before its key is given to anything: whether it can.
const PROBE: &[u8] = b"afterhours asks whether this key signs\n";

/// Replaces keys of `role`. Blocking.
///
/// # Errors
/// Another rotation waits for signatures, a key is missing or cannot be opened, a command does not sign, or something cannot
/// be written.
pub fn rotate(place: Place, role: Role, replacement: Replacement, now: DateTime<Utc>) -> Result<Rotated, VendorError> {
    let Replacement { only, folder, signers } = replacement;
    let only = only.as_deref();
    let mut workshop = Workshop::enter(place)?;
    let current = workshop.current()?;
    let mut own = own(&current.root_bytes);
    // One that waits and only renews the present root gives way: the new one does that as well.
    if let Some((envelope, pending)) = workshop.pending()?
        && envelope.own() != own
    {
        let (version, file) = (pending.signed().version, workshop.pending_file());
        return Err(VendorError::RootPending { version, file });
    }
    let root = current.root.signed();
    let old: Vec<String> =
        keys_of(root, role).0.iter().filter(|id| only.is_none_or(|only| id.starts_with(only))).cloned().collect();
    if old.is_empty() {
        return Err(VendorError::NoSuchKey { role, key: only.unwrap_or_default().to_owned() });
    }
    // Whether the root can be signed at all, and the passphrase opens what there is, is known before keys are made.
    let (root_keys, _) = keys_of(root, Role::Root);
    if workshop.keys.open(Role::Root, root_keys)?.is_empty() {
        let (here, needed) = (0, keys_of(root, Role::Root).1);
        return Err(VendorError::KeysMissing { role: Role::Root, here, needed, places: workshop.keys.places() });
    }
    // A passphrase that is not that of the old key would be that of the new one, and whoever signs every night not have it.
    workshop.keys.open(role, &old)?;
    let signers = workshop.new_signers(role, root, old.len(), &signers)?;
    let folder = folder.unwrap_or_else(|| workshop.dir.join(KEYS));
    let mut new = Vec::new();
    for (id, signer) in old.iter().zip(signers) {
        signer.keep(role, &folder, workshop.keys.passphrases(role)?)?;
        own["keys"][&signer.id] = signer.public.clone();
        for place in own["roles"][role.name()]["keyids"].as_array_mut().into_iter().flatten() {
            if place == id.as_str() {
                *place = signer.id.as_str().into();
            }
        }
        new.push(signer.id.clone());
        workshop.keys.know(role, signer);
    }
    forget_unused(&mut own);
    let version = root.version + 1;
    workshop.propose(Envelope::new(Role::Root, version, workshop.root_holds_until(now), own))?;
    workshop.keys.add(folder);
    let RootWork { closed, .. } = workshop.complete(&current, now)?;
    let closed = closed.iter().map(|error| ClosedKey::new(Role::Root, error)).collect();
    let after = workshop.current()?;
    let pending = workshop.waiting(&after)?;
    Ok(Rotated { role, old, new, root: version, pending, closed, holds_until: after.holds_until() })
}

impl Workshop {
    /// As many new keys for a role: those that commands have, which have shown that they sign, or made ones.
    fn new_signers(&self, role: Role, root: &Root, keys: usize, files: &[PathBuf]) -> Result<Vec<Signer>, VendorError> {
        if files.is_empty() {
            self.keys.passphrases(role)?.sealing(role)?;
            return (0..keys).map(|_| Signer::generate(self.settings.scheme)).collect();
        }
        if files.len() != keys {
            return Err(VendorError::SignersUnfit { role, signers: files.len(), keys });
        }
        let mut used: Vec<(Role, String)> =
            Role::ALL.into_iter().flat_map(|of| keys_of(root, of).0.iter().map(move |id| (of, id.clone()))).collect();
        let signers = read_signers(role, files, &mut used)?;
        signers.iter().try_for_each(|signer| signer.sign(PROBE).map(drop))?;
        Ok(signers)
    }
}

/// The keys that the commands have which these files describe; none of them is `used`, and they are then.
pub(in crate::feed::vendor) fn read_signers(
    role: Role,
    files: &[PathBuf],
    used: &mut Vec<(Role, String)>,
) -> Result<Vec<Signer>, VendorError> {
    let mut signers = Vec::new();
    for file in files {
        let signer = Signer::command(file)?;
        if let Some((role, _)) = used.iter().find(|(_, id)| *id == signer.id) {
            return Err(VendorError::SameKey { role: *role, file: file.clone() });
        }
        used.push((role, signer.id.clone()));
        signers.push(signer);
    }
    Ok(signers)
}

/// Takes keys out that no role has any more.
fn forget_unused(own: &mut Value) {
    let used: Vec<Value> = Role::ALL
        .into_iter()
        .flat_map(|role| own["roles"][role.name()]["keyids"].as_array().cloned().unwrap_or_default())
        .collect();
    if let Some(keys) = own["keys"].as_object_mut() {
        keys.retain(|id, _| used.iter().any(|used| used == id.as_str()));
    }
}
