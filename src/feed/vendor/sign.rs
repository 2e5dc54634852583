//! Signatures are renewed before they run out, and a root that waits for signatures gets those that are here.
//!
//! The timestamp is signed anew every time: that is what tells sites that nobody holds back something newer. The others
//! are when a third of their time is left.

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
    /// When the root has to be renewed and no key of it is here: when it expires.
    pub root_expires_at: Option<DateTime<Utc>>,
}

/// Renews what has to be renewed. Blocking.
///
/// # Errors
/// A key is missing or cannot be opened, what is published is not what was signed, or something cannot be written.
pub fn sign(place: Place, now: DateTime<Utc>) -> Result<Signed, VendorError> {
    let workshop = Workshop::enter(place)?;
    let mut current = workshop.current()?;
    let mut root_expires_at = None;
    if workshop.pending()?.is_none() && workshop.root_is_due(&current, now) {
        let old = current.root.signed();
        if keys_of(old, Role::Root).0.iter().any(|id| workshop.keys.find(Role::Root, id).is_some()) {
            let own = own(&current.root_bytes);
            workshop.propose(Envelope::new(Role::Root, old.version + 1, workshop.root_holds_until(now), own))?;
        } else {
            root_expires_at = Some(expires_at(old.expires));
        }
    }
    if let Some((envelope, new)) = workshop.pending()?
        && workshop.expired(&new, now)
    {
        // It waited for so long that nobody may accept it any more: the same root with a new time. It is signed from the start.
        let root = Envelope::new(Role::Root, new.signed().version, workshop.root_holds_until(now), envelope.own());
        workshop.propose(root)?;
    }
    let mut roles = Vec::new();
    if let Some(signed) = workshop.complete(&current, now)? {
        roles = signed;
        current = workshop.current()?;
    }
    if !roles.contains(&Role::Timestamp) {
        workshop.check_root(&current, now)?;
        let renewal = Renewal::due(&current, &workshop, current.root.signed(), now);
        roles.extend(renewal.roles());
        let files = renewal.files(&workshop, &current, &[current.root.signed()], now)?;
        workshop.commit(&files, now)?;
        current = workshop.current()?;
    }
    let pending =
        workshop.pending()?.map(|(envelope, new)| pending_root(&envelope, current.root.signed(), new.signed()));
    Ok(Signed { roles, pending, holds_until: current.holds_until(), root_expires_at })
}

impl Workshop {
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
    /// present root and for itself. Returns the roles that were signed, if it was published.
    pub(in crate::feed::vendor) fn complete(
        &self,
        current: &Current,
        now: DateTime<Utc>,
    ) -> Result<Option<Vec<Role>>, VendorError> {
        let Some((mut envelope, new)) = self.pending()? else { return Ok(None) };
        let old = current.root.signed();
        let both = keys_of(old, Role::Root).0.iter().chain(keys_of(new.signed(), Role::Root).0);
        let unsigned: Vec<&String> = both.filter(|id| !envelope.is_signed_by(id)).collect();
        for signer in self.keys.open(Role::Root, unsigned)? {
            envelope.sign(&signer)?;
        }
        self.propose(envelope.clone())?;
        let lacking = pending_root(&envelope, old, new.signed());
        if lacking.missing_old > 0 || lacking.missing_new > 0 {
            return Ok(None);
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
        Ok(Some(roles))
    }

    fn expired(&self, root: &Metadata<Root>, now: DateTime<Utc>) -> bool {
        expires_at(root.signed().expires) <= now
    }
}
