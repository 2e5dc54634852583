//! A vendor's web server, as the crate that verifies wants to see it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;

use sigstore_tuf::Repository;
use sigstore_tuf::transport::FetchFuture;
use url::Url;

use crate::feed::transport::Transport;
use crate::feed::transport::TransportError;

/// `metadata/` and `targets/` on a web server.
#[derive(Debug, Clone)]
pub(in crate::feed) struct Remote {
    transport: Transport,
    metadata: Url,
    targets: Url,
    /// The metadata of delegated roles that were looked through; what is in them is asked for once more.
    looked_through: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Remote {
    /// Both below one address that ends with `/`.
    pub(in crate::feed) fn below(transport: Transport, base: &Url) -> Self {
        Self::at(transport, below(base, "metadata/"), below(base, "targets/"))
    }

    /// Each at its own address; both end with `/`.
    pub(in crate::feed) fn at(transport: Transport, metadata: Url, targets: Url) -> Self {
        Self { transport, metadata, targets, looked_through: Arc::default() }
    }

    /// What fetches.
    pub(in crate::feed) const fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The address of a target file.
    pub(in crate::feed) fn target(&self, path: &str) -> Url {
        below(&self.targets, path)
    }

    /// A file of metadata, kept for the next who asks.
    pub(in crate::feed) async fn look_through(&self, name: &str, bytes_max: u64) -> sigstore_tuf::Result<Vec<u8>> {
        let bytes = self.get(&self.metadata_url(name)?, bytes_max).await?;
        self.kept().insert(name.to_owned(), bytes.clone());
        Ok(bytes)
    }

    fn metadata_url(&self, name: &str) -> sigstore_tuf::Result<Url> {
        // The name is encoded already where that is needed.
        let whole = format!("{}{name}", self.metadata);
        Url::parse(&whole).map_err(|source| sigstore_tuf::Error::transport_with_source("no address", source))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.looked_through.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn get(&self, url: &Url, bytes_max: u64) -> sigstore_tuf::Result<Vec<u8>> {
        let got = self.transport.get(url, bytes_max).await.map_err(told)?;
        got.ok_or_else(|| told(TransportError::Absent { url: url.to_string() }))
    }
}

impl Repository for Remote {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(async move {
            let kept = self.kept().get(name).cloned();
            if kept.is_some() {
                return Ok(kept);
            }
            let url = self.metadata_url(name)?;
            if !name.ends_with(".root.json") {
                return self.get(&url, max_length).await.map(Some);
            }
            // The chain of roots ends where there is no further one. Some servers forbid what is not there.
            match self.transport.get(&url, max_length).await {
                Err(TransportError::Status { status, .. }) if status.as_u16() == 403 => Ok(None),
                got => got.map_err(told),
            }
        })
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(async move { self.get(&self.target(path), max_length).await.map(Some) })
    }
}

fn told(error: TransportError) -> sigstore_tuf::Error {
    sigstore_tuf::Error::transport_with_source("fetch", error)
}

/// An address below another one, whatever the path says: it leads neither up nor elsewhere.
fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path.split('/'));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_out_of_the_feed() {
        let base: Url = "https://example.com/orders/targets/".parse().unwrap();
        for (path, url) in [
            ("24/a b.tar.zst", "24/a%20b.tar.zst"),
            ("24/../../x", "24/x"),
            ("https://evil.example/x", "https://evil.example/x"),
            ("a?b#c%", "a%3Fb%23c%25"),
        ] {
            assert_eq!(below(&base, path).as_str(), format!("{base}{url}"), "{path}");
        }
    }
}
