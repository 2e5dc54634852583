//! One page, asked anew each time.

use std::path::Path;

use reqwest::Client;
use reqwest::Response;
use reqwest::header::AGE;
use reqwest::header::CACHE_CONTROL;
use reqwest::header::PRAGMA;
use reqwest::redirect::Policy;
use url::Host;
use url::Url;

use crate::domain::foreign;
use crate::files::pinned::Pinned;
use crate::probe::ANSWER_WAIT_MAX;
use crate::probe::BODY_BYTES_MAX;
use crate::probe::ProbeError;

/// An address and the client that asks it.
#[derive(Debug)]
pub(crate) struct Page {
    url: Url,
    /// The address without user and password, for messages.
    name: String,
    client: Client,
}

impl Page {
    /// With the certificates of a file, nobody else is trusted for https.
    pub(crate) fn new(url: &Url, ca_file: Option<&Path>) -> Result<Self, ProbeError> {
        let name = name(url);
        let mut builder = Client::builder()
            .user_agent(concat!("afterhours/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(ANSWER_WAIT_MAX.duration())
            .read_timeout(ANSWER_WAIT_MAX.duration())
            // No connection is kept: each question finds out anew who listens.
            .pool_max_idle_per_host(0);
        if is_loopback(url) {
            builder = builder.no_proxy();
        }
        if url.scheme() == "http" {
            // A host without certificates can still ask its own pages.
            builder = builder.tls_certs_only([]);
        }
        if let Some(file) = ca_file.filter(|_| url.scheme() == "https") {
            let bad = |source| ProbeError::Authority { file: file.display().to_string(), source };
            let config = Pinned::read(file).map_err(|source| bad(source.into()))?.into_config();
            builder = builder.tls_backend_preconfigured(config.map_err(|source| bad(source.into()))?);
        }
        match builder.build() {
            Ok(client) => Ok(Self { url: url.clone(), name, client }),
            Err(source) => Err(ProbeError::Client { url: name, source }),
        }
    }

    /// The address, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The beginning of its body, if the answer is good.
    pub(crate) async fn get(&self) -> Result<Vec<u8>, ProbeError> {
        let bad = |source: reqwest::Error| ProbeError::Http { url: self.name.clone(), source: source.without_url() };
        let request =
            self.client.get(self.url.clone()).header(CACHE_CONTROL, "no-cache, no-store").header(PRAGMA, "no-cache");
        let mut response = request.send().await.map_err(bad)?;
        let status = response.status();
        if !status.is_success() {
            // What can be read of it says why.
            let body = body(&mut response).await.unwrap_or_default();
            let body = foreign::first_lines(&String::from_utf8_lossy(&body));
            return Err(ProbeError::Status { url: self.name.clone(), status, body });
        }
        let age = response.headers().get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok());
        if let Some(age @ 1..) = age {
            return Err(ProbeError::Cached { url: self.name.clone(), age });
        }
        body(&mut response).await.map_err(bad)
    }
}

/// The beginning of a body.
async fn body(response: &mut Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < BODY_BYTES_MAX {
        let Some(chunk) = response.chunk().await? else { break };
        body.extend_from_slice(&chunk);
    }
    body.truncate(BODY_BYTES_MAX);
    Ok(body)
}

/// The address without what is nobody's business.
fn name(url: &Url) -> String {
    let mut url = url.clone();
    // Refused for addresses that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(url.query().map(|_| "…"));
    url.to_string()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(Host::Domain(name)) => {
            name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_asked_without_a_proxy() {
        let is = |text: &str| is_loopback(&text.parse().unwrap());
        assert!(is("http://127.0.0.1:8080/health"));
        assert!(is("http://[::1]/"));
        assert!(is("https://LocalHost/"));
        assert!(!is("http://127.0.0.1.example.com/"));
        assert!(!is("http://10.0.0.1/"));
    }

    #[test]
    fn messages_tell_no_secrets() {
        let url = "http://probe:secret@127.0.0.1/health?token=secret".parse().unwrap();
        assert!(!name(&url).contains("secret"), "{}", name(&url));
    }
}
