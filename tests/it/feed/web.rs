//! A small web server that misbehaves on demand and remembers what it was asked.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::ServerConnection;
use rustls::StreamOwned;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

/// What a client asked.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) path: String,
    /// Names in lower case, in their order.
    pub(super) headers: Vec<(String, String)>,
    /// How many came before.
    pub(super) number: usize,
}

impl Question {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The names of all headers, sorted.
    pub(super) fn header_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }

    /// The first byte that is asked for.
    pub(super) fn from(&self) -> usize {
        let range = self.header("range").map(|range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap());
        range.map_or(0, |from| from.parse().unwrap())
    }
}

/// What happens after the head of an answer.
pub(super) enum Then {
    /// These bytes.
    Send(Vec<u8>),
    /// Nothing more, until the client goes.
    Hang,
    /// A byte now and then, until the client goes.
    Drip,
    /// Zeros, until the client goes.
    Endless,
}

/// An answer; the connection ends with it.
pub(super) struct Answer {
    head: Option<String>,
    then: Vec<Then>,
}

impl Answer {
    /// An answer with a body of known length, of which `body` is sent.
    pub(super) fn new(status: u16, headers: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let headers = format!("content-length: {}\r\n{headers}", body.len());
        Self::open(status, &headers, vec![Then::Send(body)])
    }

    /// An answer whose length is not said unless `headers` do; each of them ends with a line feed.
    pub(super) fn open(status: u16, headers: &str, then: Vec<Then>) -> Self {
        Self { head: Some(format!("HTTP/1.1 {status} X\r\nconnection: close\r\n{headers}\r\n")), then }
    }

    /// No answer at all, until the client goes.
    pub(super) fn none() -> Self {
        Self { head: None, then: vec![Then::Hang] }
    }

    /// What a good web server says when it has `data`.
    pub(super) fn file(question: &Question, data: &[u8]) -> Self {
        match question.from() {
            0 => Self::new(200, "", data),
            from if from >= data.len() => Self::new(416, "", ""),
            from => {
                let range = format!("content-range: bytes {from}-{}/{}\r\n", data.len() - 1, data.len());
                Self::new(206, &range, &data[from..])
            }
        }
    }

    /// The beginning of that, until the client goes.
    pub(super) fn stuck_file(question: &Question, data: &[u8], bytes: usize) -> Self {
        let mut answer = Self::file(question, data);
        let Some(Then::Send(body)) = answer.then.first_mut() else { panic!("a file is sent") };
        body.truncate(bytes);
        answer.then.push(Then::Hang);
        answer
    }

    /// The beginning of that, and then the connection breaks.
    pub(super) fn broken_file(question: &Question, data: &[u8], bytes: usize) -> Self {
        let mut answer = Self::stuck_file(question, data, bytes);
        answer.then.pop();
        answer
    }
}

/// The server.
pub(super) struct Web {
    addr: SocketAddr,
    scheme: &'static str,
    questions: Arc<Mutex<Vec<Question>>>,
}

impl Web {
    /// Serves without encryption.
    pub(super) fn start(answer: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> Self {
        Self::serve(None, answer)
    }

    /// Serves with the certificate and the key in a directory.
    pub(super) fn start_tls(dir: &Path, answer: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> Self {
        let certificates: Vec<_> =
            CertificateDer::pem_file_iter(dir.join("server.pem")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(dir.join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(certificates, key).unwrap();
        Self::serve(Some(Arc::new(config)), answer)
    }

    fn serve(tls: Option<Arc<ServerConfig>>, answer: impl Fn(&Question) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let questions = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&questions));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, seen, tls) = (Arc::clone(&answer), Arc::clone(&seen), tls.clone());
                std::thread::spawn(move || {
                    let stream = stream?;
                    // So that what waits for the client to go, or drips, does not wait for ever.
                    stream.set_read_timeout(Some(Duration::from_millis(10)))?;
                    match tls {
                        None => converse(stream, &seen, answer.as_ref()),
                        Some(config) => {
                            let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
                            converse(StreamOwned::new(connection, stream), &seen, answer.as_ref())
                        }
                    }
                });
            }
        });
        Self { addr, scheme, questions }
    }

    pub(super) fn url(&self, path: &str) -> Url {
        format!("{}://{}{path}", self.scheme, self.addr).parse().unwrap()
    }

    /// All questions so far.
    pub(super) fn questions(&self) -> Vec<Question> {
        self.questions.lock().unwrap().clone()
    }
}

/// Reads; nothing when there is nothing yet.
fn read(stream: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<Option<usize>> {
    match stream.read(buffer) {
        Ok(read) => Ok(Some(read)),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error),
    }
}

fn converse(
    mut stream: impl Read + Write,
    seen: &Mutex<Vec<Question>>,
    answer: &dyn Fn(&Question) -> Answer,
) -> std::io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match read(&mut stream, &mut byte)? {
            Some(0) => return Ok(()),
            Some(_) => head.push(byte[0]),
            None => {}
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let question = {
        let mut seen = seen.lock().unwrap();
        let question = Question { path, headers, number: seen.len() };
        seen.push(question.clone());
        question
    };
    let answer = answer(&question);
    if let Some(head) = answer.head {
        stream.write_all(head.as_bytes())?;
    }
    for then in answer.then {
        stream.flush()?;
        match then {
            Then::Send(bytes) => stream.write_all(&bytes)?,
            Then::Hang => while read(&mut stream, &mut byte)? != Some(0) {},
            Then::Drip => {
                while read(&mut stream, &mut byte)? != Some(0) {
                    stream.write_all(b".")?;
                    stream.flush()?;
                }
            }
            Then::Endless => loop {
                stream.write_all(&[0; 65_536])?;
            },
        }
    }
    stream.flush()
}
