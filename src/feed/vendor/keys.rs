//! Keys: made, sealed with a passphrase, found again, and used to sign.
//!
//! A key is a file `ROLE-ID.pem`, where ID is the beginning of the key ID that metadata declare: what is in a sealed
//! file cannot be known otherwise; [`sealed`] says how it looks inside. The file has mode 0600, its folder 0700.
//!
//! *Invariant:* a key that was opened has the ID that it was looked for by; another one is never used in its place.

use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::encoding::PublicKeyX509Der;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair;
use pkcs8::Document;
use pkcs8::LineEnding;
use secrecy::ExposeSecret;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use sigstore_tuf::Key;

use crate::domain::hex::hex;
use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::role::Role;
use crate::feed::vendor::sealed;

/// How many digits of a key's ID are in its file's name.
const NAME_DIGITS: usize = 16;
/// The fewest characters of a passphrase for new keys.
const PASSPHRASE_CHARS_MIN: usize = 12;
/// What a made passphrase consists of: 32 characters that nobody takes for one another.
const PASSPHRASE_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// How many of them: 125 bits.
const PASSPHRASE_CHARS: usize = 25;
/// As many stand together.
const PASSPHRASE_GROUP: usize = 5;

/// What a key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Ed25519: small and quick.
    #[default]
    Ed25519,
    /// ECDSA over NIST P-256 with SHA-256, where rules ask for it.
    EcdsaP256,
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ed25519" => Ok(Self::Ed25519),
            "ecdsa-p256" => Ok(Self::EcdsaP256),
            _ => Err("there are ed25519 and ecdsa-p256".to_owned()),
        }
    }
}

/// A new passphrase that nobody can guess.
///
/// # Errors
/// There is no randomness.
pub fn make_passphrase() -> Result<SecretString, VendorError> {
    let mut bytes = Zeroizing::new([0; PASSPHRASE_CHARS]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| VendorError::MakeKey)?;
    let mut text = String::with_capacity(PASSPHRASE_CHARS * 2);
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index % PASSPHRASE_GROUP == 0 {
            text.push('-');
        }
        text.extend(PASSPHRASE_ALPHABET.get(usize::from(byte % 32)).copied().map(char::from));
    }
    Ok(SecretString::from(text))
}

/// What opens the keys.
#[derive(Debug, Clone)]
pub struct Passphrases {
    keys: Option<SecretString>,
    root: Option<SecretString>,
    online: Option<SecretString>,
}

impl Passphrases {
    /// `keys` opens every key; `root` those of the root, where they have one of their own.
    pub const fn new(keys: SecretString, root: Option<SecretString>) -> Self {
        Self { keys: Some(keys), root, online: None }
    }

    /// Opens only what a timer signs every night: timestamp and snapshot.
    pub const fn online(online: SecretString) -> Self {
        Self { keys: None, root: None, online: Some(online) }
    }

    /// Timestamp and snapshot have a passphrase of their own, which opens nothing else.
    #[must_use]
    pub fn with_online(self, online: Option<SecretString>) -> Self {
        Self { online: online.or(self.online), ..self }
    }

    /// The keys of the root have a passphrase of their own.
    #[must_use]
    pub fn with_root(self, root: Option<SecretString>) -> Self {
        Self { root: root.or(self.root), ..self }
    }

    /// What may open the keys of a role, its own passphrase first. The first one seals new keys.
    fn of(&self, role: Role) -> impl Iterator<Item = &str> {
        let own = match role {
            Role::Root => self.root.as_ref(),
            Role::Targets => None,
            Role::Snapshot | Role::Timestamp => self.online.as_ref(),
        };
        own.into_iter().chain(&self.keys).map(SecretString::expose_secret)
    }

    /// Whether new keys may be sealed with them.
    pub(in crate::feed::vendor) fn check(&self) -> Result<(), VendorError> {
        let all = [&self.keys, &self.root, &self.online];
        let short = |secret: &SecretString| secret.expose_secret().chars().count() < PASSPHRASE_CHARS_MIN;
        if all.into_iter().flatten().any(short) {
            return Err(VendorError::ShortPassphrase { chars_min: PASSPHRASE_CHARS_MIN });
        }
        // What a timer can read must not open what it does not need.
        let Some(online) = &self.online else { return Ok(()) };
        let same = |other: &SecretString| other.expose_secret() == online.expose_secret();
        if [&self.keys, &self.root].into_iter().flatten().any(same) {
            return Err(VendorError::SamePassphrase);
        }
        Ok(())
    }
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    EcdsaP256(EcdsaKeyPair),
}

/// A key that can sign.
pub(in crate::feed::vendor) struct Signer {
    /// Its ID, as `securesystemslib` makes it: 64 hexadecimal digits.
    pub(in crate::feed::vendor) id: String,
    /// Its public half, as metadata declare it.
    pub(in crate::feed::vendor) public: Value,
    pair: Pair,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Signer {
    /// A new key.
    pub(in crate::feed::vendor) fn generate(scheme: Scheme) -> Result<Self, VendorError> {
        let pair = match scheme {
            Scheme::Ed25519 => Ed25519KeyPair::generate().map(Pair::Ed25519),
            Scheme::EcdsaP256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map(Pair::EcdsaP256),
        };
        Self::new(pair.map_err(|_| VendorError::MakeKey)?)
    }

    fn new(pair: Pair) -> Result<Self, VendorError> {
        let public = match &pair {
            Pair::Ed25519(pair) => {
                let raw: String = hex(pair.public_key().as_ref());
                json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": raw } })
            }
            Pair::EcdsaP256(pair) => {
                let der: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| VendorError::MakeKey)?;
                let pem = Document::try_from(der.as_ref())
                    .and_then(|document| document.to_pem("PUBLIC KEY", LineEnding::LF))
                    .map_err(|_| VendorError::MakeKey)?;
                json!({ "keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": { "public": pem } })
            }
        };
        let key: Key = serde_json::from_value(public.clone()).map_err(|_| VendorError::MakeKey)?;
        let id = key.key_id().map_err(|_| VendorError::MakeKey)?;
        Ok(Self { id, public, pair })
    }

    /// The signature over `message`, in hexadecimal digits.
    pub(in crate::feed::vendor) fn sign(&self, message: &[u8]) -> Result<String, VendorError> {
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(message),
            Pair::EcdsaP256(pair) => pair.sign(&SystemRandom::new(), message),
        };
        let signature = signature.map_err(|_| VendorError::Sign { key: self.id.clone() })?;
        Ok(hex(signature.as_ref()))
    }

    /// Writes the key into `folder`, sealed.
    pub(in crate::feed::vendor) fn keep(
        &self,
        role: Role,
        folder: &Path,
        passphrases: &Passphrases,
    ) -> Result<PathBuf, VendorError> {
        let path = folder.join(file_name(role, &self.id));
        let passphrase = passphrases.of(role).next().ok_or(VendorError::NoPassphrase { role })?;
        disk::make_private(folder)?;
        disk::write_private(&path, self.sealed(passphrase)?.as_bytes())?;
        Ok(path)
    }

    fn sealed(&self, passphrase: &str) -> Result<Zeroizing<String>, VendorError> {
        let document = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8v1(),
            Pair::EcdsaP256(pair) => pair.to_pkcs8v1(),
        };
        sealed::seal(document.map_err(|_| VendorError::MakeKey)?.as_ref(), passphrase)
    }

    /// Opens what [`Signer::keep`] or another program sealed, with the first passphrase that does.
    fn open(path: &Path, role: Role, passphrases: &Passphrases) -> Result<Self, VendorError> {
        let mut opened = Err(VendorError::NoPassphrase { role });
        for passphrase in passphrases.of(role) {
            opened = Self::open_with(path, passphrase);
            if !matches!(opened, Err(VendorError::WrongPassphrase { .. })) {
                break;
            }
        }
        opened
    }

    fn open_with(path: &Path, passphrase: &str) -> Result<Self, VendorError> {
        let key = sealed::open(path, passphrase)?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes())
            .map(Pair::Ed25519)
            .or_else(|_| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_bytes()).map(Pair::EcdsaP256))
            .map_err(|_| VendorError::NotAKey { file: path.to_owned() })?;
        Self::new(pair)
    }
}

fn file_name(role: Role, id: &str) -> String {
    format!("{role}-{}.pem", id.get(..NAME_DIGITS).unwrap_or(id))
}

/// The folders with keys, and what opens them.
#[derive(Debug)]
pub(in crate::feed::vendor) struct KeyRing {
    folders: Vec<PathBuf>,
    passphrases: Option<Passphrases>,
}

impl KeyRing {
    /// Keys are looked for in `folders`, in that order; the first is the feed's own. Without passphrases they can be found, not opened.
    pub(in crate::feed::vendor) const fn new(folders: Vec<PathBuf>, passphrases: Option<Passphrases>) -> Self {
        Self { folders, passphrases }
    }

    /// Looks into one more folder.
    pub(in crate::feed::vendor) fn add(&mut self, folder: PathBuf) {
        if !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
    }

    pub(in crate::feed::vendor) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The folders, as people read them.
    pub(in crate::feed::vendor) fn places(&self) -> String {
        let places: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        places.join(", ")
    }

    pub(in crate::feed::vendor) fn passphrases(&self, role: Role) -> Result<&Passphrases, VendorError> {
        self.passphrases.as_ref().ok_or(VendorError::NoPassphrase { role })
    }

    /// The file of a key, where it is here.
    pub(in crate::feed::vendor) fn find(&self, role: Role, id: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(file_name(role, id))).find(|path| path.is_file())
    }

    /// Those of the keys that are here, opened.
    pub(in crate::feed::vendor) fn open<'a>(
        &self,
        role: Role,
        ids: impl IntoIterator<Item = &'a String>,
    ) -> Result<Vec<Signer>, VendorError> {
        let mut opened: Vec<Signer> = Vec::new();
        for id in ids {
            if opened.iter().any(|signer| signer.id == *id) {
                continue;
            }
            let Some(file) = self.find(role, id) else { continue };
            let signer = Signer::open(&file, role, self.passphrases(role)?)?;
            if signer.id != *id {
                return Err(VendorError::OtherKey { file, found: signer.id });
            }
            opened.push(signer);
        }
        Ok(opened)
    }

    /// Those of the keys that are here and can be opened, and why others cannot.
    pub(in crate::feed::vendor) fn open_some<'a>(
        &self,
        role: Role,
        ids: impl IntoIterator<Item = &'a String>,
    ) -> (Vec<Signer>, Vec<VendorError>) {
        let (mut opened, mut closed) = (Vec::new(), Vec::new());
        for id in ids {
            match self.open(role, [id]) {
                Ok(signers) => opened.extend(signers),
                Err(error) => closed.push(error),
            }
        }
        (opened, closed)
    }

    /// Whether a key is in a folder that somebody named, not only in the feed's own.
    pub(in crate::feed::vendor) fn is_brought(&self, role: Role, id: &str) -> bool {
        self.folders.iter().skip(1).any(|folder| folder.join(file_name(role, id)).is_file())
    }

    /// Puts a key that is not used any more aside, in a folder of its own beside the others.
    pub(in crate::feed::vendor) fn retire(&self, role: Role, id: &str) -> Result<Option<PathBuf>, VendorError> {
        let Some(file) = self.find(role, id) else { return Ok(None) };
        let Some(folder) = file.parent().map(|folder| folder.join("retired")) else { return Ok(None) };
        disk::make_private(&folder)?;
        let aside = folder.join(file_name(role, id));
        disk::rename(&file, &aside)?;
        Ok(Some(aside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrases(text: &str) -> Passphrases {
        Passphrases::new(text.into(), None)
    }

    #[test]
    fn a_key_opens_with_its_passphrase_only() {
        let dir = tempfile::tempdir().unwrap();
        for scheme in [Scheme::Ed25519, Scheme::EcdsaP256] {
            let made = Signer::generate(scheme).unwrap();
            let file = made.keep(Role::Targets, dir.path(), &passphrases("correct horse")).unwrap();
            let ring = KeyRing::new(vec![dir.path().to_owned()], Some(passphrases("correct horse")));
            let opened = ring.open(Role::Targets, [&made.id]).unwrap();
            assert_eq!((opened.len(), &opened[0].public), (1, &made.public));
            assert!(!opened[0].sign(b"what is signed").unwrap().is_empty());

            let ring = KeyRing::new(vec![dir.path().to_owned()], Some(passphrases("wrong horse")));
            assert!(matches!(
                ring.open(Role::Targets, [&made.id]),
                Err(VendorError::WrongPassphrase { file: found }) if found == file
            ));
            // Not one of another role, not one that is somebody else's.
            assert!(ring.open(Role::Root, [&made.id]).unwrap().is_empty());
        }
    }

    #[test]
    fn a_file_with_another_key_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Signer::generate(Scheme::Ed25519).unwrap(), Signer::generate(Scheme::Ed25519).unwrap());
        let file = one.keep(Role::Targets, dir.path(), &passphrases("correct horse")).unwrap();
        let name = dir.path().join(file_name(Role::Targets, &two.id));
        std::fs::rename(file, &name).unwrap();
        let ring = KeyRing::new(vec![dir.path().to_owned()], Some(passphrases("correct horse")));
        match ring.open(Role::Targets, [&two.id]).unwrap_err() {
            VendorError::OtherKey { file, found } => assert_eq!((file, found), (name, one.id)),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_no_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let id = "0".repeat(64);
        let path = dir.path().join(file_name(Role::Root, &id));
        for text in ["", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"] {
            std::fs::write(&path, text).unwrap();
            let ring = KeyRing::new(vec![dir.path().to_owned()], Some(passphrases("correct horse")));
            assert!(matches!(ring.open(Role::Root, [&id]), Err(VendorError::NotAKey { .. })), "{text}");
        }
    }
}
