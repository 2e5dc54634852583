//! A web server on loopback: files of one folder, which can be exchanged for another one while it runs.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use url::Url;

#[derive(Debug, Default)]
struct State {
    folder: PathBuf,
    /// Paths with this ending never end.
    endless: Option<String>,
    /// Every second answer to a path with this ending is refused, the first one, too.
    halting: Option<String>,
    /// How often such a path was asked for.
    halted: u64,
    is_silent: bool,
    forbids_absent: bool,
    asked: Vec<String>,
    /// Bytes of files.
    sent: u64,
}

/// The server; it ends when dropped.
pub(crate) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `folder` on a port of its own.
    pub(crate) async fn start(folder: &Path) -> Self {
        let state = Arc::new(Mutex::new(State { folder: folder.to_owned(), ..State::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                // A client that goes away in the middle is no failure of the server's.
                tokio::spawn(async move { drop(answer(stream, &state).await) });
            }
        });
        Self { port, state, task }
    }

    pub(crate) fn url(&self) -> Url {
        format!("http://127.0.0.1:{}/orders/", self.port).parse().unwrap()
    }

    /// Serves another folder from now on.
    pub(crate) fn serve(&self, folder: &Path) {
        self.state.lock().unwrap().folder = folder.to_owned();
    }

    /// Whatever ends so never ends.
    pub(crate) fn make_endless(&self, ending: &str) {
        self.state.lock().unwrap().endless = Some(ending.to_owned());
    }

    /// Whatever ends so is there only every second time, and not the first time.
    pub(crate) fn make_halting(&self, ending: &str) {
        self.state.lock().unwrap().halting = Some(ending.to_owned());
    }

    /// Takes questions and answers none.
    pub(crate) fn fall_silent(&self) {
        self.state.lock().unwrap().is_silent = true;
    }

    /// Says 403 of what is not there, as object stores do.
    pub(crate) fn forbid_what_is_absent(&self) {
        self.state.lock().unwrap().forbids_absent = true;
    }

    /// What was asked for since the last call.
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    /// How many bytes of files were sent since the last call.
    pub(crate) fn take_sent(&self) -> u64 {
        std::mem::take(&mut self.state.lock().unwrap().sent)
    }

    /// Goes away: nobody listens any more.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let ended = (&mut self.task).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 || line == "\r\n" {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches("/orders/").to_owned();
    let (file, is_endless, is_silent, is_refused) = {
        let mut state = state.lock().unwrap();
        state.asked.push(path.clone());
        let is_halting = state.halting.as_ref().is_some_and(|ending| path.ends_with(ending));
        state.halted += u64::from(is_halting);
        let is_endless = state.endless.as_ref().is_some_and(|ending| path.ends_with(ending));
        (state.folder.join(&path), is_endless, state.is_silent, is_halting && state.halted % 2 == 1)
    };
    if is_silent {
        std::future::pending::<()>().await;
    }
    if is_endless {
        stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
        loop {
            stream.write_all(&[b' '; 4096]).await?;
        }
    }
    let (status, body) = match tokio::fs::read(&file).await {
        Ok(body) if !is_refused => ("200 OK", body),
        Err(_) if state.lock().unwrap().forbids_absent => ("403 Forbidden", Vec::new()),
        _ => ("404 Not Found", Vec::new()),
    };
    state.lock().unwrap().sent += body.len() as u64;
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}
