//! The public half of a key: as metadata declare it, and what a signature is checked with.

use aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1;
use aws_lc_rs::signature::ED25519;
use aws_lc_rs::signature::ParsedPublicKey;
use aws_lc_rs::signature::UnparsedPublicKey;
use aws_lc_rs::signature::VerificationAlgorithm;
use pkcs8::Document;
use pkcs8::LineEnding;
use serde_json::Value;
use serde_json::json;
use sigstore_tuf::Key;

use crate::domain::hex::hex;

/// The label of a public key.
const LABEL: &str = "PUBLIC KEY";
/// What stands before the 32 bytes of an Ed25519 key (RFC 8410).
const ED25519_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const ED25519_BYTES: usize = 32;
/// What stands before the 65 bytes of a point on NIST P-256 that is not compressed (RFC 5480).
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P256_BYTES: usize = 65;

/// A public key of a kind that sites accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::feed::vendor) enum PublicKey {
    /// The 32 bytes of the key.
    Ed25519(Vec<u8>),
    /// The 65 bytes of the point.
    EcdsaP256(Vec<u8>),
}

impl PublicKey {
    /// The key in a PEM block; nothing where it is of another kind.
    pub(in crate::feed::vendor) fn from_pem(text: &str) -> Option<Self> {
        let (label, document) = Document::from_pem(text).ok()?;
        let der = document.as_bytes();
        let ed25519 = der.strip_prefix(&ED25519_HEAD).filter(|key| key.len() == ED25519_BYTES);
        let p256 = der.strip_prefix(&P256_HEAD).filter(|point| point.len() == P256_BYTES);
        let ed25519 = ed25519.map(|key| Self::Ed25519(key.to_owned()));
        let found = ed25519.or_else(|| p256.map(|point| Self::EcdsaP256(point.to_owned())))?;
        // Nothing could be checked with a point that is not on the curve.
        let (algorithm, key) = found.parts();
        (label == LABEL && ParsedPublicKey::new(algorithm, key).is_ok()).then_some(found)
    }

    /// As a PEM block.
    pub(in crate::feed::vendor) fn to_pem(&self) -> Option<String> {
        let der = match self {
            Self::Ed25519(key) => [&ED25519_HEAD, key.as_slice()].concat(),
            Self::EcdsaP256(point) => [&P256_HEAD, point.as_slice()].concat(),
        };
        Document::try_from(der).and_then(|document| document.to_pem(LABEL, LineEnding::LF)).ok()
    }

    /// As metadata declare it.
    pub(in crate::feed::vendor) fn declared(&self) -> Option<Value> {
        Some(match self {
            Self::Ed25519(key) => {
                json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": hex(key) } })
            }
            Self::EcdsaP256(_) => {
                json!({ "keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": { "public": self.to_pem()? } })
            }
        })
    }

    /// Its ID, as `securesystemslib` makes it: 64 hexadecimal digits.
    pub(in crate::feed::vendor) fn id(&self) -> Option<String> {
        serde_json::from_value::<Key>(self.declared()?).ok()?.key_id().ok()
    }

    /// Whether the key has signed the message.
    pub(in crate::feed::vendor) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let (algorithm, key) = self.parts();
        UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
    }

    fn parts(&self) -> (&'static dyn VerificationAlgorithm, &[u8]) {
        match self {
            Self::Ed25519(key) => (&ED25519, key),
            Self::EcdsaP256(point) => (&ECDSA_P256_SHA256_ASN1, point),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by openssl 3.0.
    const P256: &str = "\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE7zV5+i50PDQumtMCv9IQNCb/JHnG
nG0DPKMesCePoJQvcsp6Y8aNxPkqNswkbJoa9w7UnJc3Oa/pYkvd0McW1A==
-----END PUBLIC KEY-----
";
    const OTHERS: [&str; 2] = [
        "\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEdSpzkIF8EzIu24c/K1JGaelzicgYmPle
qaDcDIsB8ac4/zgXZz7kBKb1L8teD4952WjlK8ltlBj074QagarrMLfvB++LCJbj
Hzwp0BRuR4wVq29YC6FQpkn6aJ9QH+u2
-----END PUBLIC KEY-----
",
        "\
-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAwHY87xVRY0muW79s531lUbbGg1cnxp0JBtj/l13FUno=
-----END PUBLIC KEY-----
",
    ];

    #[test]
    fn keys_of_two_kinds_are_taken() {
        let key = PublicKey::from_pem(P256).unwrap();
        assert_eq!(key.to_pem().unwrap(), P256);
        assert!(key.declared().unwrap()["keyval"]["public"] == P256);
        // A point that is not on the curve, and another label.
        let mut off = P256_HEAD.to_vec();
        off.extend([4; P256_BYTES]);
        let off = Document::try_from(off).unwrap().to_pem(LABEL, LineEnding::LF).unwrap();
        let label = P256.replace("PUBLIC", "RSA PUBLIC");
        for bad in OTHERS.into_iter().chain([off.as_str(), label.as_str(), "", "a key"]) {
            assert_eq!(PublicKey::from_pem(bad), None, "{bad}");
        }
    }
}
