//! The web server of Order desk's vendor: the files of one folder, as any web server gives them.
//!
//! It knows nothing of signatures. What it gives proves itself, or is refused by whoever asked.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower_http::services::ServeDir;

use crate::sample::error::SampleError;

/// The server, open until this is dropped.
#[derive(Debug)]
pub struct Website {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Website {
    /// Gives the files in `folder` to whoever asks on this machine, on a port that is free. Needs the runtime.
    ///
    /// # Errors
    /// No port can be listened at.
    pub fn open(folder: &Path) -> Result<Self, SampleError> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bound = || {
            let listener = std::net::TcpListener::bind(any)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, TcpListener::from_std(listener)?))
        };
        let (address, listener) = bound().map_err(|source| SampleError::Listen { address: any, source })?;
        let pages = Router::new().fallback_service(ServeDir::new(folder));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, pages).await {
                tracing::error!(error = &error as &dyn std::error::Error, "the vendor's web server is closed");
            }
        });
        Ok(Self { address, task })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Website {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_given_and_nothing_beside_them() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("published");
        fs_err::create_dir(&folder).unwrap();
        fs_err::write(folder.join("list"), "two releases").unwrap();
        fs_err::write(dir.path().join("key"), "secret").unwrap();
        let website = Website::open(&folder).unwrap();
        let get = async |path: &str| {
            let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
            client.get(format!("{}{path}", website.url())).send().await.unwrap()
        };
        assert_eq!(get("list").await.text().await.unwrap(), "two releases");
        for beside in ["key", "..%2fkey", "%2e%2e/key"] {
            assert_eq!(get(beside).await.status(), 404, "{beside}");
        }
    }
}
