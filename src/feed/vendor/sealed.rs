//! A private key in a file: PKCS#8, sealed with scrypt and AES-256, as other programs write and read it, too.
//!
//! *Invariant:* what a file demands of memory and time is known, and bounded, before any of it is spent.

use std::path::Path;

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::LineEnding;
use pkcs8::PrivateKeyInfoRef;
use pkcs8::SecretDocument;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::pkcs5::pbes2::Parameters;
use pkcs8::pkcs5::scrypt::Params;
use secrecy::zeroize::Zeroizing;

use crate::feed::vendor::disk;
use crate::feed::vendor::error::VendorError;

/// What it costs to try one passphrase: 2^17 blocks of scrypt, 128 MiB.
const SCRYPT_LOG_N: u8 = 17;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;
/// What opening a key may cost at most, whoever wrote the file: four times as much,
const SCRYPT_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// or so many rounds of PBKDF2, some seconds.
const PBKDF2_ROUNDS_MAX: u32 = 10_000_000;
/// The largest key file that is read.
const KEY_BYTES_MAX: u64 = 64 * 1024;
/// The label of a sealed key.
const SEALED: &str = "ENCRYPTED PRIVATE KEY";

/// Seals a key, which is PKCS#8 already.
pub(in crate::feed::vendor) fn seal(document: &[u8], passphrase: &str) -> Result<Zeroizing<String>, VendorError> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| VendorError::MakeKey)?;
    aws_lc_rs::rand::fill(&mut iv).map_err(|_| VendorError::MakeKey)?;
    let cost = Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P).map_err(|_| VendorError::MakeKey)?;
    let sealing = Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).map_err(|_| VendorError::MakeKey)?;
    PrivateKeyInfoRef::try_from(document)
        .and_then(|key| key.encrypt_with_params(sealing, passphrase))
        .map_err(|_| VendorError::MakeKey)?
        .to_pem(SEALED, LineEnding::LF)
        .map_err(|_| VendorError::MakeKey)
}

/// Opens what [`seal`] or another program sealed: the key as PKCS#8.
pub(in crate::feed::vendor) fn open(path: &Path, passphrase: &str) -> Result<SecretDocument, VendorError> {
    let bytes = Zeroizing::new(disk::read(path, KEY_BYTES_MAX)?);
    let not_a_key = || VendorError::NotAKey { file: path.to_owned() };
    let text = std::str::from_utf8(&bytes).map_err(|_| not_a_key())?;
    let (label, sealed) = SecretDocument::from_pem(text).map_err(|_| not_a_key())?;
    if label != SEALED {
        return Err(not_a_key());
    }
    let sealed = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).map_err(|_| not_a_key())?;
    let EncryptionScheme::Pbes2(sealing) = &sealed.encryption_algorithm else { return Err(not_a_key()) };
    if !is_bearable(&sealing.kdf) {
        return Err(VendorError::CostlyKey { file: path.to_owned() });
    }
    // A wrong passphrase is seen by what it makes: nothing that could be a key.
    let wrong = || VendorError::WrongPassphrase { file: path.to_owned() };
    let key = sealed.decrypt(passphrase).map_err(|_| wrong())?;
    PrivateKeyInfoRef::try_from(key.as_bytes()).map_err(|_| wrong())?;
    Ok(key)
}

fn is_bearable(kdf: &Kdf) -> bool {
    match kdf {
        Kdf::Scrypt(params) => {
            let blocks = params.cost_parameter.saturating_mul(params.block_size.into());
            let bytes = blocks.saturating_mul(params.parallelization.into()).saturating_mul(128);
            bytes <= SCRYPT_BYTES_MAX
        }
        Kdf::Pbkdf2(params) => params.iteration_count <= PBKDF2_ROUNDS_MAX,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use pkcs8::pkcs5::pbes2::Pbkdf2Params;
    use pkcs8::pkcs5::pbes2::ScryptParams;

    use super::*;

    #[test]
    fn no_file_takes_all_memory_or_all_night() {
        let scrypt = |log_n, r, p| {
            let params = Params::new(log_n, r, p).unwrap();
            is_bearable(&Kdf::Scrypt(ScryptParams::from_params_and_salt(params, b"salt").unwrap()))
        };
        // What openssl makes, what this makes, and four times as much.
        assert!(scrypt(14, 8, 1) && scrypt(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P) && scrypt(19, 8, 1) && scrypt(17, 8, 4));
        assert!(!scrypt(20, 8, 1) && !scrypt(17, 64, 1) && !scrypt(14, 8, 64) && !scrypt(40, 8, 1));
        let pbkdf2 = |rounds| is_bearable(&Kdf::Pbkdf2(Pbkdf2Params::hmac_sha256(rounds, b"salt").unwrap()));
        assert!(pbkdf2(2048) && pbkdf2(PBKDF2_ROUNDS_MAX) && !pbkdf2(PBKDF2_ROUNDS_MAX + 1));
    }

    /// The example of RFC 7914, which takes 1 GiB.
    const COSTLY: &str = "\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHiME0GCSqGSIb3DQEFDTBAMB8GCSsGAQQB2kcECzASBAVNb3VzZQIDEAAAAgEI
AgEBMB0GCWCGSAFlAwQBKgQQyYmguHMsOwzGMPoyObk/JgSBkJb47EWd5iAqJlyy
+ni5ftd6gZgOPaLQClL7mEZc2KQay0VhjZm/7MbBUNbqOAXNM6OGebXxVp6sHUAL
iBGY/Dls7B1TsWeGObE0sS1MXEpuREuloZjcsNVcNXWPlLdZtkSH6uwWzR0PyG/Z
+ZXfNodZtd/voKlvLOw5B3opGIFaLkbtLZQwMiGtl42AS89lZg==
-----END ENCRYPTED PRIVATE KEY-----
";

    #[test]
    fn a_costly_file_is_named_and_not_tried() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("root-0.pem");
        std::fs::write(&file, COSTLY).unwrap();
        let error = open(&file, "Rabbit").unwrap_err();
        assert!(matches!(&error, VendorError::CostlyKey { file: found } if *found == file), "{error}");
        assert!(error.hint().unwrap().contains("at most 512 MiB"));
    }
}
