//! A vendor's web server, or what stands in for it without a network, as the crate that verifies wants to see it.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use sigstore_tuf::Repository;
use sigstore_tuf::transport::FetchFuture;
use url::Url;

use crate::feed::signed::bundle::Bundle;
use crate::feed::signed::bundle::target_name;
use crate::feed::signed::store;
use crate::feed::transport::Transport;
use crate::feed::transport::TransportError;
use crate::files::small::SmallFileError;
use crate::files::small::read_small;

/// Where metadata and targets are.
#[derive(Debug, Clone)]
enum Source {
    /// On a web server.
    Web { transport: Box<Transport>, metadata: Url, targets: Url },
    /// In one file, where these metadata are.
    Bundle { bundle: Arc<Bundle>, metadata: &'static str },
    /// In a directory with `metadata/` and `targets/`, which anybody may have written.
    Dir(PathBuf),
    /// In the directory of what was trusted before: nothing newer can be had.
    Kept(PathBuf),
}

/// What the crate that verifies asks for metadata and targets.
#[derive(Debug, Clone)]
pub(in crate::feed) struct Remote {
    source: Source,
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
        let transport = Box::new(transport);
        Self { source: Source::Web { transport, metadata, targets }, looked_through: Arc::default() }
    }

    /// A bundle in place of the server; its metadata are those below `metadata`.
    pub(in crate::feed) fn bundle(bundle: Arc<Bundle>, metadata: &'static str) -> Self {
        Self { source: Source::Bundle { bundle, metadata }, looked_through: Arc::default() }
    }

    /// A directory in place of the server.
    pub(in crate::feed) fn dir(dir: PathBuf) -> Self {
        Self { source: Source::Dir(dir), looked_through: Arc::default() }
    }

    /// What was trusted before in place of the server.
    pub(in crate::feed) fn kept(metadata_dir: PathBuf) -> Self {
        Self { source: Source::Kept(metadata_dir), looked_through: Arc::default() }
    }

    /// Metadata as they are at the source, whatever they are worth.
    pub(in crate::feed) async fn metadata(
        &self,
        name: &str,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, TransportError> {
        match &self.source {
            Source::Web { transport, metadata, .. } => {
                // The name is encoded already where that is needed.
                let whole = format!("{metadata}{name}");
                let url = Url::parse(&whole).map_err(|_| TransportError::Absent { url: whole })?;
                transport.get(&url, bytes_max).await
            }
            Source::Bundle { bundle, metadata } => bundle.read(&format!("{metadata}{name}"), bytes_max),
            Source::Dir(dir) => in_dir(&dir.join("metadata").join(name), bytes_max),
            Source::Kept(dir) => Ok(kept(dir, name)),
        }
    }

    /// A root by the name of its version; nothing where there is none.
    pub(in crate::feed) async fn root(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, TransportError> {
        match self.metadata(name, bytes_max).await {
            // Some servers forbid what is not there.
            Err(TransportError::Status { status, .. }) if status.as_u16() == 403 => Ok(None),
            got => got,
        }
    }

    /// A file of metadata, kept for the next who asks.
    pub(in crate::feed) async fn look_through(&self, name: &str, bytes_max: u64) -> sigstore_tuf::Result<Vec<u8>> {
        let bytes = self.needed(name, bytes_max).await?;
        self.seen().insert(name.to_owned(), bytes.clone());
        Ok(bytes)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.looked_through.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn needed(&self, name: &str, bytes_max: u64) -> sigstore_tuf::Result<Vec<u8>> {
        let got = self.metadata(name, bytes_max).await.map_err(told)?;
        got.ok_or_else(|| told(TransportError::Absent { url: self.shown(name) }))
    }

    async fn target(&self, path: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, TransportError> {
        match &self.source {
            Source::Web { transport, targets, .. } => transport.get(&below(targets, path), bytes_max).await,
            Source::Dir(dir) => in_dir(&below_dir(&dir.join("targets"), path), bytes_max),
            Source::Bundle { bundle, .. } => {
                let file = path.rsplit('/').next().unwrap_or(path);
                bundle.read(&target_name(file.split('.').next().unwrap_or(file)), bytes_max)
            }
            Source::Kept(_) => Ok(None),
        }
    }

    fn shown(&self, name: &str) -> String {
        match &self.source {
            Source::Web { metadata, .. } => format!("{metadata}{name}"),
            Source::Bundle { metadata, .. } => format!("{metadata}{name} in the bundle"),
            Source::Dir(dir) => dir.join("metadata").join(name).display().to_string(),
            Source::Kept(dir) => dir.join(name).display().to_string(),
        }
    }
}

impl Repository for Remote {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(async move {
            let kept = self.seen().get(name).cloned();
            if kept.is_some() {
                return Ok(kept);
            }
            if !name.ends_with(".root.json") {
                return self.needed(name, max_length).await.map(Some);
            }
            // The chain of roots ends where there is no further one.
            self.root(name, max_length).await.map_err(told)
        })
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(async move {
            let got = self.target(path, max_length).await.map_err(told)?;
            got.map(Some).ok_or_else(|| told(TransportError::Absent { url: self.shown(path) }))
        })
    }
}

fn told(error: TransportError) -> sigstore_tuf::Error {
    sigstore_tuf::Error::transport_with_source("fetch", error)
}

/// A small file of a directory; nothing where it is not there or cannot be a file of a feed.
fn in_dir(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, TransportError> {
    match read_small(path, bytes_max) {
        Ok(found) => Ok(found),
        Err(SmallFileError::TooLarge { .. }) => {
            Err(TransportError::TooLarge { url: path.display().to_string(), bytes_max })
        }
        Err(_) => Err(TransportError::Absent { url: path.display().to_string() }),
    }
}

/// A path below a directory, whatever it says: it leads neither up nor elsewhere.
pub(super) fn below_dir(dir: &Path, path: &str) -> PathBuf {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
    dir.join(parts.collect::<PathBuf>())
}

/// What was trusted, under the name that a server has it by.
fn kept(dir: &Path, name: &str) -> Option<Vec<u8>> {
    if name.ends_with(".root.json") {
        return None;
    }
    let plain = name.split_once('.').filter(|(version, _)| version.bytes().all(|b| b.is_ascii_digit()));
    store::read(&dir.join(plain.map_or(name, |(_, plain)| plain))).ok().flatten()
}

/// An address below another one, whatever the path says: it leads neither up nor elsewhere.
pub(super) fn below(base: &Url, path: &str) -> Url {
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
