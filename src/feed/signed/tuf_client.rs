//! A TUF client without an application, as the public conformance suite asks for it.
//!
//! It is the client that feeds are read with, over a directory that holds nothing but what is trusted, so that the
//! suite judges what the product does.

use std::path::Path;
use std::path::PathBuf;

use chrono::DateTime;
use chrono::Utc;
use sha2::Digest;
use sha2::Sha256;
use sha2::Sha512;
use sigstore_tuf::TargetFile;
use sigstore_tuf::Updater;
use url::Url;

use crate::config::settings::TransportSettings;
use crate::domain::hex::hex;
use crate::feed::error::FeedError;
use crate::feed::signed::error::TrustError;
use crate::feed::signed::error::to_jiff;
use crate::feed::signed::remote::Remote;
use crate::feed::signed::store;
use crate::feed::signed::store::Metadata;
use crate::feed::signed::store::Trouble;
use crate::feed::signed::trust;
use crate::feed::transport::Transport;

/// What is downloaded, from where, and where to.
#[derive(Debug)]
pub struct Targets {
    /// The names, in order.
    pub names: Vec<String>,
    /// Below which they are.
    pub base: Url,
    /// Where they go.
    pub dir: PathBuf,
}

/// Trusts the root in a file.
///
/// # Errors
/// It cannot be read, does not prove itself, or cannot be kept.
pub fn init(metadata_dir: &Path, root: &Path) -> Result<(), FeedError> {
    let bytes = trust::named_root(root)?;
    let path = metadata_dir.join(store::ROOT);
    store::keep(&path, &bytes).map_err(|source| TrustError::Keep { path, source })?;
    Ok(())
}

/// Brings the metadata up to date.
///
/// # Errors
/// They are refused, or cannot be fetched or kept.
pub async fn refresh(metadata_dir: &Path, metadata_url: &Url, now: DateTime<Utc>) -> Result<(), FeedError> {
    refreshed(metadata_dir, metadata_url, metadata_url, now).await.map(drop)
}

/// Brings the metadata up to date and fetches targets, all with the same client.
///
/// # Errors
/// One of them is not signed for, or is another one; those before it are there.
pub async fn download(
    metadata_dir: &Path,
    metadata_url: &Url,
    targets: &Targets,
    now: DateTime<Utc>,
) -> Result<(), FeedError> {
    let (mut updater, trouble) = refreshed(metadata_dir, metadata_url, &targets.base, now).await?;
    for name in &targets.names {
        let refused = |error| TrustError::from_tuf(error, Some(name));
        let found = updater.get_target_info(name, to_jiff(now)).await.map_err(refused)?;
        let target = found.ok_or_else(|| TrustError::Unsigned { target: name.clone() })?;
        let into = targets.dir.join(file_name(name));
        // What is there and right is not fetched again.
        let there = store::read(&into).ok().flatten();
        if !there.is_some_and(|bytes| is_it(&bytes, &target)) {
            let bytes = updater.download_target(&target, name).await.map_err(refused)?;
            store::keep(&into, &bytes).map_err(|source| TrustError::Keep { path: into, source })?;
        }
    }
    match trouble.take() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

async fn refreshed(
    metadata_dir: &Path,
    metadata_url: &Url,
    targets_url: &Url,
    now: DateTime<Utc>,
) -> Result<(Updater, Trouble), FeedError> {
    let no_root = || TrustError::NoRoot { feed: metadata_url.to_string() };
    let root = trust::trusted_root(metadata_dir)?.ok_or_else(no_root)?;
    let transport = Transport::new(&TransportSettings::default())?;
    let remote = Remote::at(transport, folder(metadata_url), folder(targets_url));
    Ok(trust::refresh(&root, Metadata::new(metadata_dir, false), remote, now).await?)
}

/// The address of a folder, with the slash at its end.
fn folder(url: &Url) -> Url {
    let mut url = url.clone();
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}

/// One file name for one target name, whatever is in it.
fn file_name(target: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let name: String =
        target.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect();
    if name.starts_with('.') || name.len() > 200 { hex(Sha256::digest(target)) } else { name }
}

fn is_it(bytes: &[u8], target: &TargetFile) -> bool {
    let right = |(algorithm, hash): (&String, &String)| match algorithm.as_str() {
        "sha256" => Some(hex(Sha256::digest(bytes)).eq_ignore_ascii_case(hash)),
        "sha512" => Some(hex(Sha512::digest(bytes)).eq_ignore_ascii_case(hash)),
        _ => None,
    };
    let known: Vec<bool> = target.hashes.iter().filter_map(right).collect();
    bytes.len() as u64 == target.length && !known.is_empty() && known.into_iter().all(|is| is)
}
