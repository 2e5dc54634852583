//! What opens and seals the keys of a feed, and what is good enough for that.

use secrecy::ExposeSecret;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::role::Role;

/// The fewest characters of a passphrase for new keys.
const PASSPHRASE_CHARS_MIN: usize = 12;
/// What a made passphrase consists of: 32 characters that nobody takes for one another.
const PASSPHRASE_ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// How many of them: 125 bits.
const PASSPHRASE_CHARS: usize = 25;
/// As many stand together.
const PASSPHRASE_GROUP: usize = 5;

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

/// What opens the keys, and seals new ones.
#[derive(Debug, Clone, Default)]
pub struct Passphrases {
    keys: Option<SecretString>,
    root: Option<SecretString>,
    online: Option<SecretString>,
    new: Option<SecretString>,
}

impl Passphrases {
    /// `keys` opens every key; `root` those of the root, where they have one of their own.
    pub fn new(keys: SecretString, root: Option<SecretString>) -> Self {
        Self { keys: Some(keys), root, ..Self::default() }
    }

    /// Opens only what a timer signs every night: timestamp and snapshot.
    pub fn online(online: SecretString) -> Self {
        Self { online: Some(online), ..Self::default() }
    }

    /// Opens every key that has no passphrase of its own.
    #[must_use]
    pub fn with_keys(self, keys: Option<SecretString>) -> Self {
        Self { keys: keys.or(self.keys), ..self }
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

    /// New keys are sealed with this one, whatever opens the old ones.
    #[must_use]
    pub fn with_new(self, new: Option<SecretString>) -> Self {
        Self { new: new.or(self.new), ..self }
    }

    /// What may open the keys of a role, its own passphrase first.
    pub(in crate::feed::vendor) fn of(&self, role: Role) -> impl Iterator<Item = &str> {
        let own = match role {
            Role::Root => self.root.as_ref(),
            Role::Targets => None,
            Role::Snapshot | Role::Timestamp => self.online.as_ref(),
        };
        own.into_iter().chain(&self.keys).map(SecretString::expose_secret)
    }

    /// What seals new keys of a role. The one place that says what is good enough.
    pub(in crate::feed::vendor) fn sealing(&self, role: Role) -> Result<&str, VendorError> {
        let new = self.new.as_ref().map(SecretString::expose_secret);
        let sealing = new.or_else(|| self.of(role).next()).ok_or(VendorError::NoPassphrase { role })?;
        if sealing.chars().count() < PASSPHRASE_CHARS_MIN {
            return Err(VendorError::ShortPassphrase { chars_min: PASSPHRASE_CHARS_MIN });
        }
        // What a timer can read must not open what it does not need. Old feeds have one for all, and nothing is said of them.
        let others = match role {
            Role::Root | Role::Targets => [&self.online, &None],
            Role::Snapshot | Role::Timestamp if self.online.is_none() && new.is_none() => [&None, &None],
            Role::Snapshot | Role::Timestamp => [&self.keys, &self.root],
        };
        if others.into_iter().flatten().any(|other| other.expose_secret() == sealing) {
            return Err(VendorError::SamePassphrase);
        }
        Ok(sealing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: &str, root: &str, online: &str) -> Passphrases {
        let given = |text: &str| Some(text).filter(|text| !text.is_empty()).map(SecretString::from);
        Passphrases::default().with_keys(given(keys)).with_root(given(root)).with_online(given(online))
    }

    #[test]
    fn new_keys_are_sealed_with_what_is_good_enough() {
        let (safe, long, timer) = ("the keys in the safe", "correct horse battery", "what the timer reads");
        let all = of(long, safe, timer);
        assert_eq!(Role::ALL.map(|role| all.sealing(role).unwrap()), [safe, long, timer, timer]);
        // Whoever has a feed with one for all goes on with it.
        assert!(Role::ALL.into_iter().all(|role| of(long, "", "").sealing(role).unwrap() == long));
        for role in Role::ALL {
            assert!(matches!(Passphrases::default().sealing(role), Err(VendorError::NoPassphrase { .. })));
            assert!(matches!(of("eleven char", "", "").sealing(role), Err(VendorError::ShortPassphrase { .. })));
            assert!(matches!(of(long, "", long).sealing(role), Err(VendorError::SamePassphrase)), "{role}");
            // Another one for the new keys is what counts.
            let new = of("eleven char", "", "").with_new(Some(safe.into()));
            assert_eq!((new.sealing(role).unwrap(), new.of(role).next()), (safe, Some("eleven char")));
        }
        assert!(matches!(
            of(long, safe, "").with_new(Some(safe.into())).sealing(Role::Timestamp),
            Err(VendorError::SamePassphrase)
        ));
        assert!(matches!(of("eleven char", safe, timer).sealing(Role::Root), Ok(found) if found == safe));
    }
}
