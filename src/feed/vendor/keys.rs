//! Keys: made, sealed with a passphrase, found again, and used to sign.
//!
//! A key is a file `ROLE-ID.pem`, where ID is the beginning of the key ID that metadata declare: what is in a sealed
//! file cannot be known otherwise. [`sealed`] says how it looks inside. Where a command has the key, `ROLE-ID.signer.toml`
//! describes that (`signer`). The file has mode 0600, its folder 0700.
//!
//! *Invariant:* a key that was opened has the ID that it was looked for by; another one is never used in its place.

use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
use aws_lc_rs::signature::EcdsaKeyPair;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::domain::hex::hex;
use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::passphrases::Passphrases;
use crate::feed::vendor::public::PublicKey;
use crate::feed::vendor::role::Role;
use crate::feed::vendor::sealed;
use crate::feed::vendor::signer::SignerCommand;
use crate::feed::vendor::state::KEYS;

/// How many digits of a key's ID are in its file's name.
const NAME_DIGITS: usize = 16;
/// How the name of a sealed key ends.
const SEALED: &str = ".pem";
/// How the name of what describes a command ends.
const SIGNER: &str = ".signer.toml";

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

/// Whether there are sealed keys of the root or of targets in the feed `dir` or in the folders, so that a passphrase of theirs
/// is needed where they sign.
pub fn are_keys_sealed(dir: &Path, folders: &[PathBuf]) -> bool {
    let inside = dir.join(KEYS);
    let files = [&inside].into_iter().chain(folders).filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    files.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).any(|name| {
        let is_offline = |role: Role| name.starts_with(&format!("{role}-"));
        name.ends_with(SEALED) && [Role::Root, Role::Targets].into_iter().any(is_offline)
    })
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    EcdsaP256(EcdsaKeyPair),
    /// The key is elsewhere.
    Command(SignerCommand),
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

    /// The key that a command signs with, as `file` describes it.
    pub(in crate::feed::vendor) fn command(file: &Path) -> Result<Self, VendorError> {
        SignerCommand::read(file).and_then(|command| Self::new(Pair::Command(command)))
    }

    fn new(pair: Pair) -> Result<Self, VendorError> {
        let public = match &pair {
            Pair::Ed25519(pair) => PublicKey::Ed25519(pair.public_key().as_ref().to_owned()),
            Pair::EcdsaP256(pair) => PublicKey::EcdsaP256(pair.public_key().as_ref().to_owned()),
            Pair::Command(command) => command.public.clone(),
        };
        let id = public.id().ok_or(VendorError::MakeKey)?;
        let public = public.declared().ok_or(VendorError::MakeKey)?;
        Ok(Self { id, public, pair })
    }

    /// The signature over `message`, in hexadecimal digits. A command may take its time.
    pub(in crate::feed::vendor) fn sign(&self, message: &[u8]) -> Result<String, VendorError> {
        let refused = |_| VendorError::Sign { key: self.id.clone() };
        match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(message).map(hex).map_err(refused),
            Pair::EcdsaP256(pair) => pair.sign(&SystemRandom::new(), message).map(hex).map_err(refused),
            Pair::Command(command) => command.sign(message).map(hex),
        }
    }

    /// Writes the key into `folder`, sealed, or what describes the command that has it.
    pub(in crate::feed::vendor) fn keep(
        &self,
        role: Role,
        folder: &Path,
        passphrases: &Passphrases,
    ) -> Result<PathBuf, VendorError> {
        let (end, text) = match &self.pair {
            Pair::Ed25519(pair) => (SEALED, seal(pair.to_pkcs8v1(), passphrases.sealing(role)?)?),
            Pair::EcdsaP256(pair) => (SEALED, seal(pair.to_pkcs8v1(), passphrases.sealing(role)?)?),
            Pair::Command(command) => (SIGNER, Zeroizing::new(command.to_toml()?)),
        };
        let path = folder.join(file_name(role, &self.id, end));
        disk::make_private(folder)?;
        disk::write_private(&path, text.as_bytes())?;
        Ok(path)
    }

    /// Opens what [`Signer::keep`] or another program sealed, with the first passphrase that does.
    fn open(path: &Path, role: Role, passphrases: Option<&Passphrases>) -> Result<Self, VendorError> {
        if path.as_os_str().to_string_lossy().ends_with(SIGNER) {
            return Self::command(path);
        }
        let mut opened = Err(VendorError::NoPassphrase { role });
        for passphrase in passphrases.into_iter().flat_map(|passphrases| passphrases.of(role)) {
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

fn seal<T: AsRef<[u8]>>(
    document: Result<T, aws_lc_rs::error::Unspecified>,
    passphrase: &str,
) -> Result<Zeroizing<String>, VendorError> {
    sealed::seal(document.map_err(|_| VendorError::MakeKey)?.as_ref(), passphrase)
}

fn file_name(role: Role, id: &str, end: &str) -> String {
    format!("{role}-{}{end}", id.get(..NAME_DIGITS).unwrap_or(id))
}

/// The folders with keys, and what opens them.
#[derive(Debug)]
pub(in crate::feed::vendor) struct KeyRing {
    folders: Vec<PathBuf>,
    passphrases: Option<Passphrases>,
    opened: RefCell<Vec<(Role, Rc<Signer>)>>,
}

/// The file of a key in this folder.
fn key_in(folder: &Path, role: Role, id: &str) -> Option<PathBuf> {
    [SEALED, SIGNER].into_iter().map(|end| folder.join(file_name(role, id, end))).find(|path| path.is_file())
}

impl KeyRing {
    /// Keys are looked for in `folders`, in that order; the first is the feed's own. Without passphrases they can be found, not opened.
    pub(in crate::feed::vendor) const fn new(folders: Vec<PathBuf>, passphrases: Option<Passphrases>) -> Self {
        Self { folders, passphrases, opened: RefCell::new(Vec::new()) }
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

    /// What opens the keys, and seals new ones of `role`.
    pub(in crate::feed::vendor) fn passphrases(&self, role: Role) -> Result<&Passphrases, VendorError> {
        self.passphrases.as_ref().ok_or(VendorError::NoPassphrase { role })
    }

    /// The file of a key, where it is here.
    pub(in crate::feed::vendor) fn find(&self, role: Role, id: &str) -> Option<PathBuf> {
        self.folders.iter().find_map(|folder| key_in(folder, role, id))
    }

    /// Those of the keys that are here, opened. Each is opened once: that costs what guessing costs.
    pub(in crate::feed::vendor) fn open<'a>(
        &self,
        role: Role,
        ids: impl IntoIterator<Item = &'a String>,
    ) -> Result<Vec<Rc<Signer>>, VendorError> {
        let mut found: Vec<Rc<Signer>> = Vec::new();
        for id in ids {
            if found.iter().any(|signer| signer.id == *id) {
                continue;
            }
            let Some(file) = self.find(role, id) else { continue };
            let known = self.opened.borrow().iter().find(|(of, signer)| *of == role && signer.id == *id).cloned();
            if let Some((_, signer)) = known {
                found.push(signer);
                continue;
            }
            let signer = Signer::open(&file, role, self.passphrases.as_ref())?;
            if signer.id != *id {
                return Err(VendorError::OtherKey { file, found: signer.id });
            }
            found.push(self.know(role, signer));
        }
        Ok(found)
    }

    /// Remembers a key that is open.
    pub(in crate::feed::vendor) fn know(&self, role: Role, signer: Signer) -> Rc<Signer> {
        let signer = Rc::new(signer);
        self.opened.borrow_mut().push((role, Rc::clone(&signer)));
        signer
    }

    /// Those of the keys that are here and can be opened, and why others cannot.
    pub(in crate::feed::vendor) fn open_some<'a>(
        &self,
        role: Role,
        ids: impl IntoIterator<Item = &'a String>,
    ) -> (Vec<Rc<Signer>>, Vec<VendorError>) {
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
        self.folders.iter().skip(1).any(|folder| key_in(folder, role, id).is_some())
    }

    /// Puts a key that is not used any more aside, in a folder of its own beside the others.
    pub(in crate::feed::vendor) fn retire(&self, role: Role, id: &str) -> Result<Option<PathBuf>, VendorError> {
        let Some(file) = self.find(role, id) else { return Ok(None) };
        let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return Ok(None) };
        let folder = folder.join("retired");
        disk::make_private(&folder)?;
        let aside = folder.join(name);
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
        let name = dir.path().join(file_name(Role::Targets, &two.id, SEALED));
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
        let path = dir.path().join(file_name(Role::Root, &id, SEALED));
        for text in ["", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"] {
            std::fs::write(&path, text).unwrap();
            let ring = KeyRing::new(vec![dir.path().to_owned()], Some(passphrases("correct horse")));
            assert!(matches!(ring.open(Role::Root, [&id]), Err(VendorError::NotAKey { .. })), "{text}");
        }
    }
}
