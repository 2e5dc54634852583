//! What has to be signed anew, and the files that come of it.
//!
//! A role whose keys change is signed with the old and the new ones: such metadata are right under the old root and
//! under the new one, so that there is no moment in which the folder is half of each.

use std::rc::Rc;

use chrono::DateTime;
use chrono::Utc;
use serde_json::Value;
use serde_json::json;
use sigstore_tuf::Root;

use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::keys::Signer;
use crate::feed::vendor::role::Envelope;
use crate::feed::vendor::role::Role;
use crate::feed::vendor::role::describe;
use crate::feed::vendor::role::keys_of;
use crate::feed::vendor::state::Current;
use crate::feed::vendor::state::Workshop;
use crate::feed::vendor::state::verify;

/// What is signed anew. The timestamp is in every case.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::feed::vendor) struct Renewal {
    /// The targets, and what they then name.
    pub(in crate::feed::vendor) targets: Option<Value>,
    /// The snapshot; always when there are new targets.
    pub(in crate::feed::vendor) snapshot: bool,
}

impl Renewal {
    /// What needs it: little of its time is left, or the keys of `root` have not signed it.
    pub(in crate::feed::vendor) fn due(
        current: &Current,
        workshop: &Workshop,
        root: &Root,
        now: DateTime<Utc>,
    ) -> Self {
        let (targets, snapshot) = (&current.targets, &current.snapshot);
        let needed = |role: Role, expires: jiff::Timestamp| is_due(expires, workshop.settings.hold.of(role), now);
        let targets_due =
            needed(Role::Targets, targets.signed().expires) || verify(targets, root, Role::Targets).is_err();
        let snapshot_due =
            needed(Role::Snapshot, snapshot.signed().expires) || verify(snapshot, root, Role::Snapshot).is_err();
        Self { targets: targets_due.then(|| own(&current.targets_bytes)), snapshot: snapshot_due }
    }

    /// The roles that it signs.
    pub(in crate::feed::vendor) fn roles(&self) -> Vec<Role> {
        let targets = self.targets.is_some().then_some(Role::Targets);
        let snapshot = (self.snapshot || self.targets.is_some()).then_some(Role::Snapshot);
        targets.into_iter().chain(snapshot).chain([Role::Timestamp]).collect()
    }

    /// The files, the timestamp last. The keys of all `roots` sign as far as they are here; those of the last one have to.
    pub(in crate::feed::vendor) fn files(
        self,
        workshop: &Workshop,
        current: &Current,
        roots: &[&Root],
        now: DateTime<Utc>,
    ) -> Result<Vec<(String, Vec<u8>)>, VendorError> {
        let mut files = Vec::new();
        let mut targets = (current.targets.signed().version, current.targets_bytes.clone());
        let mut snapshot = (current.snapshot.signed().version, current.snapshot_bytes.clone());
        let is_new = self.snapshot || self.targets.is_some();
        if let Some(own) = self.targets {
            let version = workshop.next_version(Role::Targets)?;
            targets = (version, workshop.signed(Role::Targets, version, own, roots, now)?);
            files.push((format!("{version}.targets.json"), targets.1.clone()));
        }
        if is_new {
            let version = workshop.next_version(Role::Snapshot)?;
            let own = json!({ "meta": { "targets.json": named(targets.0, &targets.1) } });
            snapshot = (version, workshop.signed(Role::Snapshot, version, own, roots, now)?);
            files.push((format!("{version}.snapshot.json"), snapshot.1.clone()));
        }
        let own = json!({ "meta": { "snapshot.json": named(snapshot.0, &snapshot.1) } });
        let version = current.timestamp.signed().version + 1;
        files.push(("timestamp.json".to_owned(), workshop.signed(Role::Timestamp, version, own, roots, now)?));
        Ok(files)
    }
}

impl Workshop {
    /// A file of a role, signed with what its keys are in `roots`.
    pub(in crate::feed::vendor) fn signed(
        &self,
        role: Role,
        version: u64,
        own: Value,
        roots: &[&Root],
        now: DateTime<Utc>,
    ) -> Result<Vec<u8>, VendorError> {
        let mut envelope = Envelope::new(role, version, now + self.settings.hold.of(role).delta(), own);
        self.signers(role, roots)?.iter().try_for_each(|signer| envelope.sign(signer))?;
        Ok(envelope.to_bytes())
    }

    /// What signs for a role: its keys in all `roots`, as far as they are here. Of the last one they are enough.
    pub(in crate::feed::vendor) fn signers(&self, role: Role, roots: &[&Root]) -> Result<Vec<Rc<Signer>>, VendorError> {
        let signers = self.keys.open(role, roots.iter().flat_map(|root| keys_of(root, role).0))?;
        let (keys, needed) = roots.last().map_or((&[][..], 0), |root| keys_of(root, role));
        let here = keys.iter().filter(|key| signers.iter().any(|signer| signer.id == **key)).count();
        if here < needed {
            return Err(VendorError::KeysMissing { role, here, needed, places: self.keys.places() });
        }
        Ok(signers)
    }
}

/// What only the role of this file has.
pub(in crate::feed::vendor) fn own(bytes: &[u8]) -> Value {
    Envelope::parse(bytes).map_or(Value::Null, |envelope| envelope.own())
}

fn named(version: u64, bytes: &[u8]) -> Value {
    let mut named = describe(bytes);
    named["version"] = version.into();
    named
}

/// Whether no more than a third of the time is left.
pub(in crate::feed::vendor) fn is_due(
    expires: jiff::Timestamp,
    hold: crate::domain::span::Span,
    now: DateTime<Utc>,
) -> bool {
    expires_at(expires) - now <= hold.delta() / 3
}

/// The same instant in the house's notation.
pub(in crate::feed::vendor) fn expires_at(expires: jiff::Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp(expires.as_second(), 0).unwrap_or_default()
}
