//! One question and its answer: which client asks, what is said, where redirects may lead, and what
//! a status or a broken connection means.

use std::error::Error;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Client;
use reqwest::NoProxy;
use reqwest::Proxy;
use reqwest::Response;
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use reqwest::header::DATE;
use reqwest::header::HeaderMap;
use reqwest::header::HeaderName;
use reqwest::header::HeaderValue;
use reqwest::header::LOCATION;
use reqwest::header::RANGE;
use reqwest::header::RETRY_AFTER;
use reqwest::header::WWW_AUTHENTICATE;
use reqwest::redirect::Policy;
use rustls::ClientConfig;
use secrecy::ExposeSecret;
use tokio::time::Instant;
use url::Host;
use url::Url;

use crate::config::settings::ProxySettings;
use crate::config::settings::TransportSettings;
use crate::domain::span::Span;
use crate::feed::transport::Limits;
use crate::feed::transport::error::TransportError;
use crate::feed::transport::licence;
use crate::feed::transport::licence::Refusal;
use crate::feed::transport::pace::Floor;
use crate::files::pinned::Pinned;
use crate::files::pinned::PinnedError;

/// How often the server may send elsewhere.
const REDIRECTS_MAX: u32 = 5;
/// How much is read of an answer that says no.
const REFUSAL_BYTES_MAX: usize = 4096;

/// Asks, as one feed's settings say.
#[derive(Debug)]
pub(super) struct Asker {
    /// Goes the configured way.
    client: Client,
    /// Goes no way but the direct one.
    direct: Client,
    /// For messages: what certificates are measured by.
    trusted: String,
    licence_file: Option<PathBuf>,
    /// Whether no proxy is asked, whatever the environment says.
    is_direct: bool,
    /// Whether the configured proxy is on this host, so that it sees nothing that is not ours already.
    is_proxy_here: bool,
    limits: Limits,
}

/// Whom a client trusts in place of the host's authorities.
#[derive(Debug, Clone)]
enum Authorities {
    /// The certificates of `feed.ca_file`.
    Pinned(Box<ClientConfig>),
    /// Nobody.
    None,
}

impl Asker {
    pub(super) fn new(settings: &TransportSettings, limits: Limits) -> Result<Self, TransportError> {
        let build = |proxy: Option<Proxy>, is_direct: bool, authorities: Option<Authorities>| {
            let mut builder = Client::builder()
                .user_agent(concat!("afterhours/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .referer(false)
                .retry(reqwest::retry::never())
                .connect_timeout(limits.connect);
            if is_direct {
                builder = builder.no_proxy();
            }
            if let Some(proxy) = proxy {
                builder = builder.proxy(proxy);
            }
            builder = match authorities {
                Some(Authorities::Pinned(tls)) => builder.tls_backend_preconfigured(*tls),
                Some(Authorities::None) => builder.tls_certs_only([]),
                None => builder,
            };
            builder.build()
        };
        let is_direct = matches!(settings.proxy, ProxySettings::Direct);
        let way = proxy(&settings.proxy)?;
        let prepare = |source| TransportError::Prepare { source };
        let (client, authorities, trusted) = match &settings.ca_file {
            Some(file) => {
                let tls = pinned(file)?;
                let client = build(way, is_direct, Some(Authorities::Pinned(tls.clone()))).map_err(prepare)?;
                (client, Some(Authorities::Pinned(tls)), format!("the certificates in {}", file.display()))
            }
            None => match build(way.clone(), is_direct, None) {
                Ok(client) => (client, None, "this host's authorities".to_owned()),
                // A host without any can still ask without encryption.
                Err(_) => {
                    let client = build(way, is_direct, Some(Authorities::None)).map_err(prepare)?;
                    (
                        client,
                        Some(Authorities::None),
                        "no authority at all, since this host has none installed".to_owned(),
                    )
                }
            },
        };
        let direct = build(None, true, authorities).map_err(prepare)?;
        let is_proxy_here = matches!(&settings.proxy, ProxySettings::Through { url, .. } if is_loopback(url));
        let licence_file = settings.licence_file.clone();
        Ok(Self { client, direct, trusted, licence_file, is_direct, is_proxy_here, limits })
    }

    /// Asks for what is at `url`, from the byte `from` on, and follows where the server sends.
    pub(super) async fn ask(&self, url: &Url, from: u64) -> Result<Answer, TransportError> {
        let licence = match &self.licence_file {
            Some(file) => Some(licence::header(file).await?),
            None => None,
        };
        let mut there = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            if !matches!(there.scheme(), "http" | "https") || !there.has_host() {
                return Err(TransportError::BadAddress { url: name(&there) });
            }
            // To nobody but the server that was configured.
            let licence = licence.as_ref().filter(|_| there.origin() == url.origin());
            let response = self.ask_once(&there, from, licence).await?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                    return Ok(self.answer(there, response));
                }
                StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Answer::Absent),
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => there = redirected(&there, response.headers())?,
                _ => return Err(self.refused(&there, response, licence.is_some()).await),
            }
        }
        Err(TransportError::TooManyRedirects { url: name(url), max: REDIRECTS_MAX })
    }

    async fn ask_once(&self, url: &Url, from: u64, licence: Option<&HeaderValue>) -> Result<Response, TransportError> {
        let mut client = &self.client;
        if licence.is_some() && url.scheme() == "http" {
            if !is_loopback(url) {
                return Err(TransportError::LicenceInClear { url: name(url) });
            }
            if !self.is_proxy_here {
                client = &self.direct;
            }
        }
        let mut request = client.get(url.clone());
        if let Some(licence) = licence {
            request = request.header(AUTHORIZATION, licence.clone());
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        match tokio::time::timeout(self.limits.answer, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(self.broken(url, source)),
            Err(_) => Err(TransportError::Silent {
                url: name(url),
                stage: "get an answer",
                waited: self.limits.answer.into(),
            }),
        }
    }

    fn answer(&self, url: Url, response: Response) -> Answer {
        let floor = Floor::new(self.limits.bytes_per_second_min, self.limits.window);
        Answer::Body(Box::new(Body { url, response, floor, limits: self.limits }))
    }

    /// What an answer that is no body means.
    async fn refused(&self, url: &Url, response: Response, was_sent: bool) -> TransportError {
        let status = response.status();
        let headers = response.headers().clone();
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED || self.is_proxys_401(url, status, &headers) {
            return TransportError::ProxyLogin { url: name(url), status: status.as_u16() };
        }
        let mut body = Body {
            url: url.clone(),
            floor: Floor::new(self.limits.bytes_per_second_min, self.limits.window),
            limits: self.limits,
            response,
        };
        let mut said = Vec::new();
        // It explains; what it says is of use as far as it goes.
        while said.len() < REFUSAL_BYTES_MAX
            && let Ok(Some(chunk)) = body.next().await
        {
            said.extend_from_slice(&chunk);
        }
        match Refusal::of(status, text(&headers, WWW_AUTHENTICATE), &said, was_sent) {
            Some(refusal) => TransportError::Licence { url: name(url), refusal },
            None => TransportError::Status { url: name(url), status, retry_after: retry_after(&headers) },
        }
    }

    /// Without encryption a proxy can answer in the server's place, and some do so when they do not know a password: with
    /// a challenge for a user and a password, which no vendor asks for (see [`super::licence`]).
    fn is_proxys_401(&self, url: &Url, status: StatusCode, headers: &HeaderMap) -> bool {
        let asks_password =
            || text(headers, WWW_AUTHENTICATE).is_some_and(|asked| asked.trim_start().starts_with("Basic"));
        status == StatusCode::UNAUTHORIZED && url.scheme() == "http" && !self.is_direct && asks_password()
    }

    /// What an error of the connection means.
    fn broken(&self, url: &Url, source: reqwest::Error) -> TransportError {
        let connect = (self.limits.connect, "connect");
        broken(url, source, connect, &self.trusted)
    }
}

/// What a server answers, if it does not say no.
#[derive(Debug)]
pub(super) enum Answer {
    /// There is nothing.
    Absent,
    /// It sends something; see its status.
    Body(Box<Body>),
}

/// A body on its way.
#[derive(Debug)]
pub(super) struct Body {
    url: Url,
    response: Response,
    floor: Floor,
    limits: Limits,
}

impl Body {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        text(self.response.headers(), name)
    }

    /// How long it will be, as the server says.
    pub(super) fn announced_bytes(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next piece. Each has a deadline, and together they must not be too slow.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        let Limits { read, window, bytes_per_second_min, .. } = self.limits;
        let asked_at = Instant::now();
        let chunk = match tokio::time::timeout(read, self.response.chunk()).await {
            Ok(Ok(chunk)) => chunk,
            Ok(Err(source)) => return Err(broken(&self.url, source, (read, "go on"), "")),
            Err(_) => {
                return Err(TransportError::Silent { url: name(&self.url), stage: "go on", waited: read.into() });
            }
        };
        let Some(bytes) = chunk else { return Ok(None) };
        if !self.floor.holds(asked_at.elapsed(), bytes.len() as u64) {
            let url = name(&self.url);
            return Err(TransportError::TooSlow { url, bytes_per_second_min, watched: window.into() });
        }
        Ok(Some(bytes))
    }
}

/// A client's side of TLS that trusts the certificates of `feed.ca_file`.
fn pinned(file: &Path) -> Result<Box<ClientConfig>, TransportError> {
    let bad = |source: PinnedError| match source {
        PinnedError::Read { source, .. } => TransportError::ReadAuthority { file: file.to_owned(), source },
        PinnedError::Parse { problem, .. } => TransportError::BadAuthority { file: file.to_owned(), problem },
    };
    let config = Pinned::read(file).map_err(bad)?.into_config();
    let unusable =
        |error: rustls::Error| TransportError::BadAuthority { file: file.to_owned(), problem: error.to_string() };
    config.map(Box::new).map_err(unusable)
}

/// The configured proxy; nothing when the environment decides, or when there is none.
fn proxy(settings: &ProxySettings) -> Result<Option<Proxy>, TransportError> {
    let ProxySettings::Through { url, login, except } = settings else { return Ok(None) };
    let bad = |source: reqwest::Error| TransportError::BadProxy { proxy: name(url), source: source.without_url() };
    let mut proxy = Proxy::all(url.clone()).map_err(bad)?.no_proxy(NoProxy::from_string(&except.join(",")));
    if let Some((user, password)) = login {
        proxy = proxy.basic_auth(user, password.expose_secret());
    }
    Ok(Some(proxy))
}

/// Where the server sends: never from encryption to none.
fn redirected(from: &Url, headers: &HeaderMap) -> Result<Url, TransportError> {
    let bad = |to: String| TransportError::BadRedirect { url: name(from), to };
    let location = text(headers, LOCATION).ok_or_else(|| bad("nowhere".to_owned()))?;
    let mut to = from.join(location).map_err(|_| bad("an address that is none".to_owned()))?;
    let may = if from.scheme() == "https" { &["https"][..] } else { &["http", "https"] };
    if !may.contains(&to.scheme()) {
        return Err(bad(name(&to)));
    }
    if to.origin() != from.origin() {
        // Refused for addresses that cannot have them.
        let _ = to.set_username("");
        let _ = to.set_password(None);
    }
    Ok(to)
}

/// When the server may be asked again: in seconds, or as a date beside its own.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let said = text(headers, RETRY_AFTER)?.trim();
    if let Ok(secs) = said.parse() {
        return Some(Duration::from_secs(secs));
    }
    let date = |text: &str| chrono::DateTime::parse_from_rfc2822(text).ok();
    (date(said)? - date(text(headers, DATE)?)?).to_std().ok()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// What an error of the connection means; `stage` is the wait that may have run out.
fn broken(url: &Url, source: reqwest::Error, stage: (Duration, &'static str), trusted: &str) -> TransportError {
    let (url, source) = (name(url), source.without_url());
    let causes = causes(&source);
    let is_untrusted = causes
        .iter()
        .any(|cause| matches!(cause.downcast_ref::<rustls::Error>(), Some(rustls::Error::InvalidCertificate(_))));
    // The error behind a refused tunnel has no public type.
    let tunnel = |text: &str| causes.iter().any(|cause| cause.to_string() == format!("tunnel error: {text}"));
    let (asks_login, is_refused) = (tunnel("proxy authorization required"), tunnel("unsuccessful"));
    if is_untrusted {
        TransportError::Untrusted { url, trusted: trusted.to_owned(), source }
    } else if asks_login {
        TransportError::ProxyLogin { url, status: 407 }
    } else if is_refused {
        TransportError::ProxyRefused { url, source }
    } else if source.is_timeout() {
        TransportError::Silent { url, stage: stage.1, waited: Span::from(stage.0) }
    } else if source.is_connect() {
        TransportError::Unreachable { url, source }
    } else {
        TransportError::Broken { url, source }
    }
}

/// An error and all that is below it, also what an [`io::Error`] wraps.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut causes = vec![error];
    let mut last = error;
    loop {
        let below = match last.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &'a (dyn Error + 'static)),
            None => last.source(),
        };
        let Some(below) = below else { return causes };
        causes.push(below);
        last = below;
    }
}

/// The address without what is nobody's business.
pub(super) fn name(url: &Url) -> String {
    let mut url = url.clone();
    // Refused for addresses that cannot have them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(url.query().map(|_| "…"));
    url.set_fragment(None);
    url.to_string()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn messages_tell_no_secrets() {
        let name = name(&url("https://anna:secret@vendor.example/orders/?token=secret#secret"));
        assert!(!name.contains("secret"), "{name}");
        assert!(name.starts_with("https://vendor.example/orders/"), "{name}");
    }

    #[test]
    fn loopback_is_not_what_looks_like_it() {
        for here in ["http://127.0.0.1:8080/", "http://[::1]/", "http://LocalHost/", "http://127.1/"] {
            assert!(is_loopback(&url(here)), "{here}");
        }
        for elsewhere in ["http://127.0.0.1.example.com/", "http://localhost.example.com/", "http://10.0.0.1/"] {
            assert!(!is_loopback(&url(elsewhere)), "{elsewhere}");
        }
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn encryption_is_not_redirected_away() {
        let to = |location| redirected(&url("https://a.example/x/y"), &headers(&[(LOCATION, location)]));
        assert_eq!(to("z").unwrap(), url("https://a.example/x/z"));
        assert_eq!(to("//b.example/").unwrap(), url("https://b.example/"));
        assert_eq!(to("https://eve:pw@b.example/").unwrap(), url("https://b.example/"));
        for bad in ["http://a.example/", "file:///etc/passwd", "https://["] {
            assert!(matches!(to(bad), Err(TransportError::BadRedirect { .. })), "{bad}");
        }
    }

    #[test]
    fn the_server_says_when_in_either_way() {
        let seconds = headers(&[(RETRY_AFTER, "7")]);
        let date = headers(&[(DATE, "Sat, 21 Nov 2026 02:30:00 GMT"), (RETRY_AFTER, "Sat, 21 Nov 2026 02:30:09 GMT")]);
        let past = headers(&[(DATE, "Sat, 21 Nov 2026 02:30:00 GMT"), (RETRY_AFTER, "Sat, 21 Nov 2026 02:29:00 GMT")]);
        assert_eq!(retry_after(&seconds), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&date), Some(Duration::from_secs(9)));
        assert_eq!(retry_after(&past), None);
        assert_eq!(retry_after(&headers(&[(RETRY_AFTER, "soon")])), None);
    }
}
