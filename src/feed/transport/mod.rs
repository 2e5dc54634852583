//! How bytes come from a web server that nobody trusts, over a network that breaks.
//!
//! ```text
//! get    ask ──► body, bounded                                   small things: metadata
//! fetch  lock INTO.part ─► ask from its end on ─► append, hash ─► right? rename to INTO
//!             ▲                                       │
//!             └──────── pause, jittered ◄── broke off ┘          archives
//! ```
//!
//! [`ask`] makes one request and reads its answer, [`part`] is the file on its way, [`pace`] computes
//! how fast and how often, [`licence`] is the number and the contract with the vendor's server.
//!
//! *Invariant:* at `into` stands nothing, or the whole file with the hash that was asked for; it was on
//! disk before it got its name. *Invariant:* every wait has a deadline, and no server can make it wait
//! for ever or fill the disk: bodies end at their declared length. *Invariant:* a server learns the
//! address, our version and, if configured, the licence number.
//!
//! Deliberately absent: trust in what comes. Hashes and signatures are the caller's; so is a way to
//! switch the check of certificates off. Bodies are never decoded: what was signed are the bytes.

mod ask;
mod error;
mod licence;
mod pace;
mod part;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::CONTENT_ENCODING;
use reqwest::header::CONTENT_RANGE;
use tokio::time::Instant;
use url::Url;

pub use crate::feed::transport::error::TransportError;
pub use crate::feed::transport::licence::Refusal;
pub use crate::feed::transport::pace::Patience;

use crate::config::settings::TransportSettings;
use crate::domain::progress::Progress;
use crate::domain::span::Span;
use crate::feed::transport::ask::Answer;
use crate::feed::transport::ask::Asker;
use crate::feed::transport::ask::Body;
use crate::feed::transport::ask::name;
use crate::feed::transport::pace::Throttle;
use crate::feed::transport::pace::Tries;
use crate::feed::transport::part::Beginning;
use crate::feed::transport::part::Ending;
use crate::feed::transport::part::Part;

/// How long somebody else who fetches the same file is waited for.
const BUSY_WAIT: Span = Span::mins(30);
/// The pause between two looks whether that has ended.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// How much is collected before it is written.
const WRITE_BYTES: usize = 256 * 1024;
/// How much a try has to bring so that the tries are counted anew.
const FURTHER_BYTES: u64 = 1024 * 1024;

/// How long a server is waited for, and how little of it is too little.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Until there is a connection, proxy and TLS included.
    pub connect: Duration,
    /// From the question to the beginning of the answer, the connection included.
    pub answer: Duration,
    /// From one piece of a body to the next.
    pub read: Duration,
    /// The least that must come, averaged over `window`.
    pub bytes_per_second_min: u64,
    /// How long a slow server is watched before it is cut off.
    pub window: Duration,
    /// How often and how long it is tried again.
    pub patience: Patience,
}

impl Limits {
    /// For servers on the other side of the world and lines of the last century.
    pub const DEFAULT: Self = Self {
        connect: Duration::from_secs(15),
        answer: Duration::from_secs(45),
        read: Duration::from_secs(30),
        bytes_per_second_min: 512,
        window: Duration::from_secs(60),
        patience: Patience {
            tries_max: 5,
            span_max: Duration::from_secs(180),
            pause_first: Duration::from_secs(1),
            pause_max: Duration::from_secs(60),
        },
    };

    /// For small things, while somebody may be waiting for the answer: a silent server is given up in less than a minute.
    pub const QUESTION: Self = Self {
        connect: Duration::from_secs(10),
        answer: Duration::from_secs(20),
        patience: Patience { tries_max: 4, span_max: Duration::from_secs(30), ..Self::DEFAULT.patience },
        ..Self::DEFAULT
    };
}

/// Fetches over HTTP, as one feed's settings say. Clones share their connections and their bandwidth.
#[derive(Debug, Clone)]
pub struct Transport {
    asker: Arc<Asker>,
    throttle: Option<Arc<Mutex<Throttle>>>,
    limits: Limits,
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
    /// A client for one feed. Nothing is asked yet; the licence number is read when something is.
    ///
    /// # Errors
    /// The authority's certificate or the proxy's address cannot be read or understood.
    pub fn new(settings: &TransportSettings) -> Result<Self, TransportError> {
        Self::with_limits(settings, Limits::DEFAULT)
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// As [`Transport::new`].
    pub fn with_limits(settings: &TransportSettings, limits: Limits) -> Result<Self, TransportError> {
        let throttle = settings.bytes_per_second_max.map(|max| Throttle::new(max, Instant::now()));
        Ok(Self {
            asker: Arc::new(Asker::new(settings, limits)?),
            throttle: throttle.map(|throttle| Arc::new(Mutex::new(throttle))),
            limits,
        })
    }

    /// The body at an address; nothing when the server says that there is none (404, 410).
    ///
    /// # Errors
    /// The server cannot be reached, says no or does not behave, or the body is longer than `bytes_max`.
    pub async fn get(&self, url: &Url, bytes_max: u64) -> Result<Option<Vec<u8>>, TransportError> {
        let mut tries = Tries::new(self.limits.patience, Instant::now());
        loop {
            match self.get_once(url, bytes_max).await {
                Err(error) if error.is_passing() => pause(&mut tries, error).await?,
                done => return done,
            }
        }
    }

    async fn get_once(&self, url: &Url, bytes_max: u64) -> Result<Option<Vec<u8>>, TransportError> {
        let Answer::Body(mut body) = self.asker.ask(url, 0).await? else { return Ok(None) };
        expect_status(url, &body, StatusCode::OK)?;
        if let Some(encoding) = body.header(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            return Err(TransportError::Encoded { url: name(url), encoding: encoding.to_owned() });
        }
        let too_large = || TransportError::TooLarge { url: name(url), bytes_max };
        if body.announced_bytes().is_some_and(|announced| announced > bytes_max) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = body.next().await? {
            if (bytes.len() + chunk.len()) as u64 > bytes_max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
            self.hold_back(chunk.len()).await;
        }
        Ok(Some(bytes))
    }

    /// Brings a file of known length and hash to `into`. Done at once when it is there and right; goes on
    /// where an interrupted try ended.
    ///
    /// Dropping the future ends the work soon after and keeps what there is; a second call waits for that.
    ///
    /// # Errors
    /// The server cannot be reached, says no or does not behave, the bytes are not those, or cannot be written.
    pub async fn fetch(
        &self,
        url: &Url,
        want: &Wanted,
        into: &Path,
        progress: &dyn Progress,
    ) -> Result<(), TransportError> {
        let Some(mut part) = begin(into, want).await? else { return Ok(()) };
        let mut download = Download { transport: self, url, want, into, progress, is_pieced: part.len() > 0 };
        loop {
            part = download.fill(part).await?;
            let (wanted, is_pieced) = (want.clone(), std::mem::take(&mut download.is_pieced));
            let ended = on_thread(into, move || match part.finish(&wanted)? {
                Ending::Right => Ok(Then::Done),
                // Put together from several tries, it may be one of them that is to blame: once more, in one piece.
                Ending::Wrong(mut part, _) if is_pieced => part.restart().map(|()| Then::Again(Box::new(part))),
                Ending::Wrong(part, found) => part.remove().map(|()| Then::Refuse(found)),
            });
            match ended.await? {
                Then::Done => return Ok(()),
                Then::Refuse(found) => {
                    return Err(TransportError::WrongHash { url: name(url), declared: want.sha256.clone(), found });
                }
                Then::Again(empty) => {
                    tracing::warn!(url = %name(url), "what was fetched in pieces is not right; it is fetched anew");
                    part = *empty;
                }
            }
        }
    }

    /// Waits as long as the limit on bandwidth asks for after so many bytes.
    async fn hold_back(&self, bytes: usize) {
        let Some(throttle) = &self.throttle else { return };
        let wait = throttle.lock().unwrap_or_else(PoisonError::into_inner).take(bytes as u64, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// What follows when all bytes are there.
enum Then {
    /// It is the right file, and in its place.
    Done,
    /// Once more, from the start.
    Again(Box<Part>),
    /// It is another file, with this hash.
    Refuse(String),
}

/// One file on its way.
struct Download<'a> {
    transport: &'a Transport,
    url: &'a Url,
    want: &'a Wanted,
    into: &'a Path,
    progress: &'a dyn Progress,
    /// Whether it comes from more than one answer.
    is_pieced: bool,
}

impl Download<'_> {
    /// Fetches what is missing, with as many tries as it takes while each gets further.
    async fn fill(&mut self, mut part: Part) -> Result<Part, TransportError> {
        let mut tries = Tries::new(self.transport.limits.patience, Instant::now());
        let mut farthest = part.len();
        while part.len() < self.want.size_bytes {
            self.is_pieced |= part.len() > 0;
            let tried;
            (part, tried) = self.fill_once(part).await?;
            if part.len() >= farthest.saturating_add(FURTHER_BYTES) {
                farthest = part.len();
                tries.got_further(Instant::now());
            }
            match tried {
                Ok(()) => {}
                Err(error) if error.is_passing() => pause(&mut tries, error).await?,
                Err(error @ TransportError::TooLarge { .. }) => {
                    on_thread(self.into, move || part.remove()).await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(part)
    }

    /// One answer, as far as it goes. The outer error is one of our files.
    async fn fill_once(&self, part: Part) -> Result<(Part, Result<(), TransportError>), TransportError> {
        let mut body = match self.transport.asker.ask(self.url, part.len()).await {
            Ok(Answer::Body(body)) => body,
            Ok(Answer::Absent) => return Ok((part, Err(TransportError::Absent { url: name(self.url) }))),
            Err(error) => return Ok((part, Err(error))),
        };
        let mut part = match self.place(&body, part.len()) {
            Ok(Place::Here) => part,
            Ok(Place::Start) => self.restart(part).await?,
            Ok(Place::Nowhere) => return Ok((self.restart(part).await?, Ok(()))),
            Err(error) => return Ok((part, Err(error))),
        };
        let mut waiting = Vec::new();
        loop {
            let next = body.next().await;
            let have = part.len() + waiting.len() as u64;
            let ended = match next {
                Ok(Some(chunk)) if have + chunk.len() as u64 > self.want.size_bytes => {
                    Some(Err(TransportError::TooLarge { url: name(self.url), bytes_max: self.want.size_bytes }))
                }
                Ok(Some(chunk)) => {
                    waiting.extend_from_slice(&chunk);
                    self.progress.advance(have + chunk.len() as u64, Some(self.want.size_bytes), "downloading");
                    self.transport.hold_back(chunk.len()).await;
                    None
                }
                Ok(None) if have < self.want.size_bytes => {
                    let (url, declared) = (name(self.url), self.want.size_bytes);
                    Some(Err(TransportError::Short { url, declared, found: have }))
                }
                Ok(None) => Some(Ok(())),
                Err(error) => Some(Err(error)),
            };
            if ended.is_some() || waiting.len() >= WRITE_BYTES {
                (part, waiting) = on_thread(self.into, move || {
                    part.append(&waiting)?;
                    waiting.clear();
                    Ok((part, waiting))
                })
                .await?;
            }
            if let Some(ended) = ended {
                return Ok((part, ended));
            }
        }
    }

    /// Where the bytes of an answer belong, when `from` bytes are there.
    fn place(&self, body: &Body, from: u64) -> Result<Place, TransportError> {
        let wrong_size =
            |found| TransportError::WrongSize { url: name(self.url), declared: self.want.size_bytes, found };
        match body.status() {
            StatusCode::OK => match body.announced_bytes() {
                Some(announced) if announced != self.want.size_bytes => Err(wrong_size(announced)),
                _ => Ok(Place::Start),
            },
            StatusCode::PARTIAL_CONTENT if from > 0 => match body.header(CONTENT_RANGE).and_then(range) {
                Some((_, Some(total))) if total != self.want.size_bytes => Err(wrong_size(total)),
                Some((start, _)) if start == from => Ok(Place::Here),
                _ => Ok(Place::Nowhere),
            },
            StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => Ok(Place::Nowhere),
            _ => expect_status(self.url, body, StatusCode::OK).map(|()| Place::Start),
        }
    }

    async fn restart(&self, mut part: Part) -> Result<Part, TransportError> {
        if part.len() == 0 {
            return Ok(part);
        }
        on_thread(self.into, move || part.restart().map(|()| part)).await
    }
}

/// Where the bytes of an answer belong.
enum Place {
    /// After those that are there.
    Here,
    /// At the beginning.
    Start,
    /// That cannot be said: it has to be asked again, from the start.
    Nowhere,
}

/// Takes the part, as soon as nobody else has it; nothing when the file is whole.
async fn begin(into: &Path, want: &Wanted) -> Result<Option<Part>, TransportError> {
    let deadline = Instant::now() + BUSY_WAIT.duration();
    loop {
        let (place, wanted) = (into.to_owned(), want.clone());
        match on_thread(into, move || Part::begin(&place, &wanted)).await? {
            Beginning::Whole => return Ok(None),
            Beginning::Part(part) => return Ok(Some(part)),
            Beginning::Busy if Instant::now() >= deadline => {
                return Err(TransportError::Busy { path: into.to_owned(), waited: BUSY_WAIT });
            }
            Beginning::Busy => tokio::time::sleep(BUSY_PAUSE).await,
        }
    }
}

/// Waits before the next try; gives the error back when there is none.
async fn pause(tries: &mut Tries, error: TransportError) -> Result<(), TransportError> {
    match tries.failed(error.retry_after(), Instant::now(), fastrand::f64()) {
        Some(pause) => {
            tracing::debug!(%error, pause_ms = pause.as_millis() as u64, "fetching is tried again");
            tokio::time::sleep(pause).await;
            Ok(())
        }
        None => Err(error),
    }
}

/// Does what blocks on a thread for that.
async fn on_thread<T, F>(path: &Path, work: F) -> Result<T, TransportError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, TransportError> + Send + 'static,
{
    let thread = |source| TransportError::Thread { path: PathBuf::from(path), source };
    tokio::task::spawn_blocking(work).await.map_err(thread)?
}

fn expect_status(url: &Url, body: &Body, expected: StatusCode) -> Result<(), TransportError> {
    match body.status() {
        status if status == expected => Ok(()),
        status => Err(TransportError::Status { url: name(url), status, retry_after: None }),
    }
}

/// The first byte and the total of `bytes 5-9/10`.
fn range(header: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = header.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use crate::domain::hex::hex;
    use std::io::Read;
    use std::io::Write;
    use std::net::TcpListener;

    use sha2::Digest;
    use sha2::Sha256;

    use super::*;
    use crate::config::settings::ProxySettings;
    use crate::domain::progress::Silent;

    const FILE_BYTES: usize = 600_000;

    fn limited(bytes_per_second_max: u64) -> Transport {
        let proxy = ProxySettings::Direct;
        let bytes_per_second_max = Some(bytes_per_second_max);
        Transport::new(&TransportSettings { proxy, bytes_per_second_max, ..TransportSettings::default() }).unwrap()
    }

    /// A server that answers everything with one file.
    fn serve(data: Vec<u8>) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut asked) = (stream.unwrap(), Vec::new());
                while !asked.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    asked.push(byte[0]);
                }
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", data.len());
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&data)).unwrap();
            }
        });
        url.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_much_is_waited_for() {
        let (transport, begun) = (limited(1_000_000), Instant::now());
        for _ in 0..60 {
            transport.hold_back(FILE_BYTES / 60).await;
        }
        // A quarter of a second's worth is there at once; a timer is true to the millisecond.
        assert!((350..=352).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn every_byte_counts_against_the_limit() {
        // While a thread is at work the clock stands still: nothing flows back into the bucket.
        let (work, ended) = std::sync::mpsc::channel::<()>();
        let thread = tokio::task::spawn_blocking(move || ended.recv().is_err());
        let data = vec![7; FILE_BYTES];
        let (url, dir) = (serve(data.clone()), tempfile::tempdir().unwrap());
        // The bucket holds as much as two files.
        let bytes_per_second = 8 * FILE_BYTES as u64;
        let transport = limited(bytes_per_second);
        let sha256 = hex(Sha256::digest(&data));
        let want = Wanted { sha256, size_bytes: FILE_BYTES as u64 };
        transport.fetch(&url, &want, &dir.path().join("file"), &Silent).await.unwrap();
        assert_eq!(transport.get(&url, FILE_BYTES as u64).await.unwrap().unwrap(), data);
        let throttle = transport.throttle.unwrap();
        let wait = throttle.lock().unwrap().take(bytes_per_second, Instant::now());
        assert_eq!(wait, Duration::from_secs(1), "nothing was left in it, and no more was taken");
        drop(work);
        assert!(thread.await.unwrap());
    }
}
