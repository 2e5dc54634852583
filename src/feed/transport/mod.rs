//! How bytes come from a web server.

mod error;

use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Client;
use reqwest::Response;
use reqwest::StatusCode;
use sha2::Digest;
use sha2::Sha256;
use tokio::io::AsyncWriteExt;
use url::Url;

pub use crate::feed::transport::error::TransportError;

use crate::config::settings::TransportSettings;
use crate::domain::progress::Progress;

/// Fetches over HTTP, as one feed's settings say.
#[derive(Debug, Clone)]
pub struct Transport {
    client: Client,
}

/// What a file that is fetched has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its sha256, in lower-case hexadecimal.
    pub sha256: String,
    /// Its length.
    pub size_bytes: u64,
}

impl Transport {
    /// A client for one feed. Nothing is asked yet.
    ///
    /// # Errors
    /// The authority's certificate cannot be read or understood.
    pub fn new(settings: &TransportSettings) -> Result<Self, TransportError> {
        let mut builder = Client::builder()
            .user_agent(concat!("afterhours/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(Duration::from_secs(30));
        if let Some(file) = &settings.ca_file {
            let pem =
                std::fs::read(file).map_err(|source| TransportError::ReadAuthority { file: file.clone(), source })?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|source| TransportError::BadAuthority { file: file.clone(), source: Some(source) })?;
            builder = builder.tls_certs_only(certificates);
        }
        Ok(Self { client: builder.build().map_err(|source| TransportError::Prepare { source })? })
    }

    /// The body at an address; nothing when the server says that there is none (404, 410).
    ///
    /// # Errors
    /// The server cannot be reached or does not behave, or the body is longer than `bytes_max`.
    pub async fn get(&self, url: &Url, bytes_max: u64) -> Result<Option<Vec<u8>>, TransportError> {
        let Some(mut response) = self.ask(url).await? else { return Ok(None) };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|source| broken(url, source))? {
            if (body.len() + chunk.len()) as u64 > bytes_max {
                return Err(TransportError::TooLarge { url: name(url), bytes_max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body))
    }

    /// Brings a file of known length and hash to `into`. Done at once when it is there and right.
    ///
    /// # Errors
    /// The server cannot be reached or does not behave, the bytes are not those, or cannot be written.
    pub async fn fetch(
        &self,
        url: &Url,
        want: &Wanted,
        into: &Path,
        progress: &dyn Progress,
    ) -> Result<(), TransportError> {
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| TransportError::File { operation, path, source }
        };
        let mut part = into.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let Some(mut response) = self.ask(url).await? else {
            return Err(TransportError::Absent { url: name(url) });
        };
        let mut file = tokio::fs::File::create(&part).await.map_err(failed("create", &part))?;
        let (mut hash, mut done) = (Sha256::new(), 0);
        while let Some(chunk) = response.chunk().await.map_err(|source| broken(url, source))? {
            done += chunk.len() as u64;
            if done > want.size_bytes {
                return Err(TransportError::TooLarge { url: name(url), bytes_max: want.size_bytes });
            }
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(failed("write", &part))?;
            progress.advance(done, Some(want.size_bytes), "downloading");
        }
        file.sync_all().await.map_err(failed("write", &part))?;
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found != want.sha256 {
            return Err(TransportError::WrongHash { url: name(url), declared: want.sha256.clone(), found });
        }
        tokio::fs::rename(&part, into).await.map_err(failed("rename", &part))
    }

    async fn ask(&self, url: &Url) -> Result<Option<Response>, TransportError> {
        let response = self.client.get(url.clone()).send().await.map_err(|source| broken(url, source))?;
        match response.status() {
            StatusCode::OK => Ok(Some(response)),
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(None),
            status => Err(TransportError::Status { url: name(url), status }),
        }
    }
}

fn broken(url: &Url, source: reqwest::Error) -> TransportError {
    TransportError::Http { url: name(url), source: source.without_url() }
}

/// The address without what is nobody's business.
fn name(url: &Url) -> String {
    let mut url = url.clone();
    // Refused for addresses that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(url.query().map(|_| "…"));
    url.set_fragment(None);
    url.to_string()
}
