//! The four roles, and a signed file in the making.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use chrono::DateTime;
use chrono::SecondsFormat;
use chrono::Utc;
use serde::Serialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;
use sigstore_tuf::Root;
use sigstore_tuf::canonical_json::to_canonical_bytes;

use crate::domain::hex::hex;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::keys::Signer;

/// The version of the specification that the metadata follow.
const SPEC_VERSION: &str = "1.0.31";

/// Who vouches for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Says which keys the others have. The trust of a site begins here.
    Root,
    /// Says which files there are.
    Targets,
    /// Says which versions of metadata belong together.
    Snapshot,
    /// Says what is the newest, again and again.
    Timestamp,
}

impl Role {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp];

    /// Its name in metadata.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|role| role.name() == text);
        known.ok_or_else(|| "there are root, targets, snapshot and timestamp".to_owned())
    }
}

/// What is signed, and the signatures so far.
#[derive(Debug, Clone)]
pub(in crate::feed::vendor) struct Envelope {
    signed: Map<String, Value>,
    signatures: BTreeMap<String, String>,
}

impl Envelope {
    /// Nothing is signed yet. `own` is what only this role has.
    pub(in crate::feed::vendor) fn new(role: Role, version: u64, expires_at: DateTime<Utc>, own: Value) -> Self {
        let mut signed = match own {
            Value::Object(own) => own,
            _ => Map::new(),
        };
        signed.insert("_type".to_owned(), role.name().into());
        signed.insert("spec_version".to_owned(), SPEC_VERSION.into());
        signed.insert("version".to_owned(), version.into());
        signed.insert("expires".to_owned(), expires_at.to_rfc3339_opts(SecondsFormat::Secs, true).into());
        Self { signed, signatures: BTreeMap::new() }
    }

    /// What is in a file; the signatures are not checked.
    pub(in crate::feed::vendor) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut value: Value = serde_json::from_slice(bytes).ok()?;
        let Value::Object(signed) = value["signed"].take() else { return None };
        let mut signatures = BTreeMap::new();
        for one in value["signatures"].as_array()? {
            signatures.insert(one["keyid"].as_str()?.to_owned(), one["sig"].as_str()?.to_owned());
        }
        Some(Self { signed, signatures })
    }

    /// What only this role has.
    pub(in crate::feed::vendor) fn own(&self) -> Value {
        let common = ["_type", "spec_version", "version", "expires"];
        let own = self.signed.iter().filter(|(key, _)| !common.contains(&key.as_str()));
        Value::Object(own.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// Whether the key has signed.
    pub(in crate::feed::vendor) fn is_signed_by(&self, key: &str) -> bool {
        self.signatures.contains_key(key)
    }

    /// Adds a signature.
    pub(in crate::feed::vendor) fn sign(&mut self, signer: &Signer) -> Result<(), VendorError> {
        let message = to_canonical_bytes(&Value::Object(self.signed.clone()))
            .map_err(|source| VendorError::Encode { source: Box::new(source) })?;
        self.signatures.insert(signer.id.clone(), signer.sign(&message)?);
        Ok(())
    }

    /// Adds what signatures there can be; why others cannot.
    pub(in crate::feed::vendor) fn sign_some(&mut self, signers: &[Rc<Signer>]) -> Vec<VendorError> {
        signers.iter().filter_map(|signer| self.sign(signer).err()).collect()
    }

    /// The file.
    pub(in crate::feed::vendor) fn to_bytes(&self) -> Vec<u8> {
        let signatures: Vec<Value> =
            self.signatures.iter().map(|(key, sig)| json!({ "keyid": key, "sig": sig })).collect();
        let mut text = format!("{:#}", json!({ "signatures": signatures, "signed": self.signed }));
        text.push('\n');
        text.into_bytes()
    }
}

/// The IDs of a role's keys, and how many of them have to sign.
pub(in crate::feed::vendor) fn keys_of(root: &Root, role: Role) -> (&[String], usize) {
    root.role(role.name()).map_or((&[], 0), |keys| (&keys.keyids, keys.threshold))
}

/// How metadata name a file: its size and its hash.
pub(in crate::feed::vendor) fn describe(bytes: &[u8]) -> Value {
    json!({ "length": bytes.len(), "hashes": { "sha256": sha256(bytes) } })
}

/// The SHA-256 in hexadecimal digits.
pub(in crate::feed::vendor) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}
