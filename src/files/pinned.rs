//! The certificates of a `ca_file`: whom a server behind TLS must be.
//!
//! Each is trusted as an authority. A certificate that the server itself shows, byte for byte, is trusted as the server's
//! own, too: `openssl req -x509` makes one that says it is an authority and stands for a server all the same, and often
//! one that names the server in the old way only (`CN`). Its dates and its name are checked as everywhere.

use std::path::Path;
use std::sync::Arc;

use rustls::CertificateError;
use rustls::ClientConfig;
use rustls::DigitallySignedStruct;
use rustls::Error;
use rustls::RootCertStore;
use rustls::SignatureScheme;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use thiserror::Error as ThisError;

/// A `ca_file` cannot be used.
#[derive(Debug, ThisError)]
pub enum PinnedError {
    /// It cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It holds no certificate, or something that is none.
    #[error("find certificates in {path}: {problem}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Accepts servers by the certificates of one file, and by nothing else.
#[derive(Debug)]
pub struct Pinned {
    usual: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Pinned {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// It cannot be read, or holds no certificate.
    pub fn read(file: &Path) -> Result<Self, PinnedError> {
        let path = file.display().to_string();
        let pem = std::fs::read(file).map_err(|source| PinnedError::Read { path: path.clone(), source })?;
        Self::parse(&pem).map_err(|problem| PinnedError::Parse { path, problem })
    }

    fn parse(pem: &[u8]) -> Result<Self, String> {
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| error.to_string())?;
        }
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Ok(Self { usual: usual.map_err(|error| error.to_string())?, certificates })
    }

    /// What a client of HTTPS needs.
    ///
    /// # Errors
    /// There is no version of TLS that both sides could speak.
    pub fn into_config(self) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Judges the certificates that the server of this name has shown.
    ///
    /// # Errors
    /// They are not those of the file, out of date, or of another name.
    pub fn judge(&self, chain: &[Vec<u8>], host: &str) -> Result<(), Error> {
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let [first, rest @ ..] = chain.as_slice() else {
            return Err(Error::NoCertificatesPresented);
        };
        let name =
            ServerName::try_from(host).map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))?;
        self.verify_server_cert(first, rest, &name, &[], UnixTime::now()).map(drop)
    }

    fn is_pinned(&self, shown: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|pinned| pinned.as_ref() == shown.as_ref())
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused = match self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        // Dates are looked at before: what is refused for one of these two is not out of date.
        if !self.is_pinned(end_entity) || !(is_authority(&refused) || names_nobody(&refused)) {
            return Err(refused);
        }
        match verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(error) if names_nobody(&error) && common_name(end_entity) == Some(&*server_name.to_str()) => {
                Ok(ServerCertVerified::assertion())
            }
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}

/// Whether it is refused because an authority stands for a server. The error behind it has no public type.
fn is_authority(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::Other(other)) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

/// Whether the certificate names no server in the way of today.
fn names_nobody(error: &Error) -> bool {
    match error {
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => presented.is_empty(),
        _ => false,
    }
}

/// The common name of the subject, in the old way of naming a server.
fn common_name<'c>(certificate: &'c CertificateDer<'_>) -> Option<&'c str> {
    const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
    // Certificate, in it what was signed; there stand the version, a number, an algorithm, the issuer, the dates, the subject.
    let (certificate, _) = element(certificate.as_ref())?;
    let (mut signed, _) = element(certificate)?;
    for _ in 0..5 {
        signed = element(signed)?.1;
    }
    let (mut subject, _) = element(signed)?;
    let mut found = None;
    while !subject.is_empty() {
        let (set, rest) = element(subject)?;
        let (pair, _) = element(set)?;
        let (kind, value) = element(pair)?;
        if kind == COMMON_NAME {
            found = std::str::from_utf8(element(value)?.0).ok();
        }
        subject = rest;
    }
    found
}

/// The content of the first DER element, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = match length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        _ => return None,
    };
    Some((rest.get(..length)?, rest.get(length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        for pem in
            ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n!\n"]
        {
            Pinned::parse(pem.as_bytes()).unwrap_err();
        }
        Pinned::parse(b"").unwrap_err();
        assert_eq!(element(&[0x30]), None);
        assert_eq!(element(&[0x30, 0x82, 0xff]), None);
        assert_eq!(common_name(&CertificateDer::from(&[0x30, 3, 1][..])), None);
    }
}
