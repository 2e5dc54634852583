//! Signatures are renewed before they run out, and a root that waits for signatures gets those that are here.
//!
//! The timestamp is signed anew every time: that is what tells sites that nobody holds back something newer. The others
//! are when a third of their time is left.
//!
//! *Invariant:* whatever is wrong with a root that is to come, the others are renewed under the present one. Sites wait
//! for the timestamp every day, for the root once a year.

use std::collections::BTreeSet;

use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;
use sigstore_tuf::Metadata;
use sigstore_tuf::Root;

use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::renew::Renewal;
use crate::feed::vendor::renew::expires_at;
use crate::feed::vendor::renew::is_due;
use crate::feed::vendor::renew::own;
use crate::feed::vendor::role::Envelope;
use crate::feed::vendor::role::Role;
use crate::feed::vendor::role::keys_of;
use crate::feed::vendor::standing::PendingRoot;
use crate::feed::vendor::standing::pending_root;
use crate::feed::vendor::state::Current;
use crate::feed::vendor::state::Place;
use crate::feed::vendor::state::Workshop;
use crate::feed::vendor::state::parse;

/// What came of signing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// The roles that were signed anew.
    pub roles: Vec<Role>,
    /// A root that still waits for signatures.
    pub pending: Option<PendingRoot>,
    /// Until when sites accept the feed without another signature.
    pub holds_until: DateTime<Utc>,
    /// When the root has to be renewed and too few of its keys are here: when it expires.
    pub root_expires_at: Option<DateTime<Utc>>,
    /// When the targets have to be renewed and too few of their keys are here: when they expire.
    pub targets_expire_at: Option<DateTime<Utc>>,
    /// Keys of the root and of targets that are needed and here, but could not be opened, or did not sign. They count as if they were not here.
    pub closed: Vec<ClosedKey>,
}

/// A key that is here and cannot be opened, or did not sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClosedKey {
    /// Whose key.
    pub role: Role,
    /// A fragment that fits after "failed to".
    pub problem: String,
    /// What a person can do about it.
    pub hint: Option<String>,
}

impl ClosedKey {
    pub(in crate::feed::vendor) fn new(role: Role, error: &VendorError) -> Self {
        let mut problem = error.to_string();
        let mut because = std::error::Error::source(error);
        while let Some(cause) = because {
            problem = format!("{problem}: {cause}");
            because = cause.source();
        }
        Self { role, problem, hint: error.hint() }
    }
}

/// Whether the keys of targets, which are opened first, are missing or closed. A passphrase that is wrong for all is told
/// by the next one.
const fn is_of_targets(error: &VendorError) -> bool {
    matches!(
        error,
        VendorError::KeysMissing { role: Role::Targets, .. }
            | VendorError::NoPassphrase { role: Role::Targets }
            | VendorError::WrongPassphrase { .. }
            | VendorError::Signer { .. }
    )
}

/// What was done about the root.
#[derive(Debug, Default)]
pub(in crate::feed::vendor) struct RootWork {
    /// The roles that were signed, when a new root was published.
    roles: Vec<Role>,
    /// Why keys of the root could not be opened, or did not sign.
    pub(in crate::feed::vendor) closed: Vec<VendorError>,
    /// When the present root expires, where nobody has begun a new one and it is time to.
    expires_at: Option<DateTime<Utc>>,
}

/// Renews what has to be renewed. Blocking.
///
/// # Errors
/// A key is missing or cannot be opened, what is published is not what was signed, or something cannot be written.
pub fn sign(place: Place, now: DateTime<Utc>) -> Result<Signed, VendorError> {
    let workshop = Workshop::enter(place)?;
    let root = workshop.renew_root(&workshop.current()?, now);
    let mut current = workshop.current()?;
    let mut roles = root.as_ref().map_or_else(|_| Vec::new(), |work| work.roles.clone());
    let (mut targets_expire_at, mut targets_closed) = (None, None);
    if !roles.contains(&Role::Timestamp) {
        if let Err(expired) = workshop.check_root(&current, now) {
            // Nothing can be renewed below it, so what kept it from being renewed is what matters.
            return Err(root.map_or_else(|error| error, |work| work.closed.into_iter().next().unwrap_or(expired)));
        }
        let present = [current.root.signed()];
        let mut renewal = Renewal::due(&current, &workshop, current.root.signed(), now);
        let files = match renewal.clone().files(&workshop, &current, &present, now) {
            // Who vouches for releases may keep the keys elsewhere, or their passphrase; the timestamp does not wait for them.
            Err(error) if renewal.targets.is_some() && is_of_targets(&error) => {
                targets_closed = Some(error).filter(|error| !matches!(error, VendorError::KeysMissing { .. }));
                targets_expire_at = Some(expires_at(current.targets.signed().expires));
                renewal = Renewal { targets: None, ..renewal };
                renewal.clone().files(&workshop, &current, &present, now)?
            }
            files => files?,
        };
        roles.extend(renewal.roles());
        workshop.commit(&files, now)?;
        current = workshop.current()?;
    }
    let RootWork { closed, expires_at: root_expires_at, .. } = root?;
    let closed = closed.iter().map(|error| ClosedKey::new(Role::Root, error));
    let closed = closed.chain(targets_closed.iter().map(|error| ClosedKey::new(Role::Targets, error))).collect();
    let pending = workshop.waiting(&current)?;
    Ok(Signed { roles, pending, holds_until: current.holds_until(), root_expires_at, targets_expire_at, closed })
}

impl Workshop {
    /// Begins a new root when the present one needs it, and brings the one that waits as far as the keys go that are here.
    ///
    /// Keys beside the feed begin one only where they are enough: a timer with one of two would otherwise leave a root
    /// behind that nobody knows of. Whoever names a folder with keys wants it, and the next one adds theirs.
    fn renew_root(&self, current: &Current, now: DateTime<Utc>) -> Result<RootWork, VendorError> {
        match self.pending()? {
            // It waited for so long that nobody may accept it any more: the same root with a new time. It is signed from the start.
            Some((envelope, new)) if self.expired(&new, now) => {
                let version = new.signed().version;
                self.propose(Envelope::new(Role::Root, version, self.root_holds_until(now), envelope.own()))?;
            }
            Some(_) => {}
            None if !self.root_is_due(current, now) => return Ok(RootWork::default()),
            None => {
                let old = current.root.signed();
                let (keys, needed) = keys_of(old, Role::Root);
                let (here, mut closed) = self.keys.open_some(Role::Root, keys);
                let own = own(&current.root_bytes);
                let mut envelope = Envelope::new(Role::Root, old.version + 1, self.root_holds_until(now), own);
                closed.extend(envelope.sign_some(&here));
                let signed = keys.iter().filter(|id| envelope.is_signed_by(id)).count();
                if signed < needed && !here.iter().any(|signer| self.keys.is_brought(Role::Root, &signer.id)) {
                    return Ok(RootWork { closed, expires_at: Some(expires_at(old.expires)), ..RootWork::default() });
                }
                self.propose(envelope)?;
            }
        }
        self.complete(current, now)
    }

    /// The root that still waits for signatures.
    pub(in crate::feed::vendor) fn waiting(&self, current: &Current) -> Result<Option<PendingRoot>, VendorError> {
        let pending = self.pending()?;
        Ok(pending
            .map(|(envelope, new)| pending_root(self.pending_file(), &envelope, current.root.signed(), new.signed())))
    }

    fn root_is_due(&self, current: &Current, now: DateTime<Utc>) -> bool {
        is_due(current.root.signed().expires, self.settings.hold.root, now)
    }

    pub(in crate::feed::vendor) fn root_holds_until(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        now + self.settings.hold.root.delta()
    }

    /// Keeps a new root until enough keys have signed it.
    pub(in crate::feed::vendor) fn propose(&self, root: Envelope) -> Result<(), VendorError> {
        disk::write_private(&self.pending_file(), &root.to_bytes())
    }

    /// Adds the signatures that are here to the root that waits for them, and publishes it when they are enough: for the
    /// present root and for itself.
    pub(in crate::feed::vendor) fn complete(
        &self,
        current: &Current,
        now: DateTime<Utc>,
    ) -> Result<RootWork, VendorError> {
        let Some((mut envelope, new)) = self.pending()? else { return Ok(RootWork::default()) };
        let old = current.root.signed();
        let both = keys_of(old, Role::Root).0.iter().chain(keys_of(new.signed(), Role::Root).0);
        let unsigned: BTreeSet<&String> = both.filter(|id| !envelope.is_signed_by(id)).collect();
        let (here, mut closed) = self.keys.open_some(Role::Root, unsigned);
        closed.extend(envelope.sign_some(&here));
        self.propose(envelope.clone())?;
        let lacking = pending_root(self.pending_file(), &envelope, old, new.signed());
        if lacking.missing_old > 0 || lacking.missing_new > 0 {
            return Ok(RootWork { closed, ..RootWork::default() });
        }
        let bytes = envelope.to_bytes();
        let new: Metadata<Root> = parse(&self.pending_file(), &bytes)?;
        // A root that waited for long must not run out at once.
        if self.expired(&new, now) {
            return Err(VendorError::RootExpired { expired_at: expires_at(new.signed().expires).to_rfc3339() });
        }
        let renewal = Renewal::due(current, self, new.signed(), now);
        let roles = [Role::Root].into_iter().chain(renewal.roles()).collect();
        let mut files = renewal.files(self, current, &[old, new.signed()], now)?;
        // Right under both roots, so the root that makes the others count comes last.
        files.push((format!("{}.root.json", new.signed().version), bytes));
        self.commit(&files, now)?;
        disk::remove(&self.pending_file())?;
        for role in Role::ALL {
            let after = keys_of(new.signed(), role).0;
            for id in keys_of(old, role).0.iter().filter(|id| !after.contains(id)) {
                self.keys.retire(role, id)?;
            }
        }
        Ok(RootWork { roles, closed, expires_at: None })
    }

    fn expired(&self, root: &Metadata<Root>, now: DateTime<Utc>) -> bool {
        expires_at(root.signed().expires) <= now
    }
}
