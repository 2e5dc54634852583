//! The workstation program: logs in and enters orders until it is told to end.
//!
//! What the server has confirmed goes into a ledger on the workstation's own disk, so that somebody
//! can compare afterwards what people entered with what is there. Told to end, it finishes the order
//! it is at. A server that goes away is waited for; an order that was not confirmed is entered again
//! under the same reference.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use chrono::DateTime;
use chrono::Utc;
use fs_err as fs;
use reqwest::Client;
use reqwest::Method;
use reqwest::RequestBuilder;
use reqwest::StatusCode;
use serde::Deserialize;
use serde::Serialize;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::domain::clock::Clock;
use crate::sample::About;
use crate::sample::Login;
use crate::sample::Order;
use crate::sample::Token;
use crate::sample::error::SampleError;

/// How long a person takes for an order.
const PACE: Duration = Duration::from_millis(120);
/// How long a server may be away.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// What is ordered, over and over.
const ITEMS: [&str; 5] = ["bolts M8 x 20", "washers A8", "hinges", "oak boards", "wood glue 750 g"];

/// A line of a ledger: an order that was confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entered {
    /// The version of the workstation program that entered it.
    pub program: String,
    /// The order.
    pub order: Order,
}

/// Reads a ledger; one that was not begun is empty.
///
/// # Errors
/// It cannot be read.
pub fn read_ledger(path: &Path) -> Result<Vec<Entered>, SampleError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SampleError::file("read", path)(error)),
    };
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    whole.lines().map(serde_json::from_str).collect::<Result<_, _>>().map_err(SampleError::text(path))
}

/// The server, as seen from a workstation.
#[derive(Debug)]
pub struct Till {
    client: Client,
    base: String,
    login: Login,
    token: Option<String>,
}

impl Till {
    /// A workstation of the server at `server`, not logged in.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(server: SocketAddr, login: Login) -> Result<Self, SampleError> {
        let client = Client::builder().no_proxy().tls_certs_only([]).timeout(ANSWER_MAX).build();
        let client = client.map_err(|source| SampleError::Ask { page: "nothing", source })?;
        Ok(Self { client, base: format!("http://{server}"), login, token: None })
    }

    fn ask(&self, method: Method, page: &'static str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{page}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Logs in.
    ///
    /// # Errors
    /// The server cannot be asked, or says no.
    pub async fn log_in(&mut self) -> Result<(), SampleError> {
        let failed = |source| SampleError::Ask { page: "/login", source };
        let answer = self.ask(Method::POST, "/login").json(&self.login).send().await.map_err(failed)?;
        let token: Token = answer.error_for_status().map_err(failed)?.json().await.map_err(failed)?;
        self.token = Some(token.token);
        Ok(())
    }

    /// Logs out; a server that is gone has forgotten us anyway.
    pub async fn log_out(&mut self) {
        let _ = self.ask(Method::POST, "/logout").send().await;
        self.token = None;
    }

    /// What runs there.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn about(&self) -> Result<About, SampleError> {
        let failed = |source| SampleError::Ask { page: "/version", source };
        let answer = self.ask(Method::GET, "/version").send().await.map_err(failed)?;
        answer.error_for_status().map_err(failed)?.json().await.map_err(failed)
    }

    /// All orders. Needs a login.
    ///
    /// # Errors
    /// The server cannot be asked, or says no.
    pub async fn orders(&self) -> Result<Vec<Order>, SampleError> {
        let failed = |source| SampleError::Ask { page: "/orders", source };
        let answer = self.ask(Method::GET, "/orders").send().await.map_err(failed)?;
        answer.error_for_status().map_err(failed)?.json().await.map_err(failed)
    }

    /// Enters an order: returns when it is confirmed.
    async fn enter(&mut self, order: &Order) -> Result<(), SampleError> {
        let until = Instant::now() + AWAY_MAX;
        while Instant::now() < until {
            if self.token.is_none() {
                // Away or not ready: both are waited for.
                let _ = self.log_in().await;
            }
            let answer = self.ask(Method::POST, "/orders").json(order).send().await;
            match answer.map(|answer| answer.status()) {
                Ok(StatusCode::CREATED) => return Ok(()),
                // Another server than before: it does not know us.
                Ok(StatusCode::UNAUTHORIZED) => self.token = None,
                Ok(_) | Err(_) => {}
            }
            sleep(LOOK_EVERY).await;
        }
        Err(SampleError::Away)
    }
}

/// A person at a workstation.
#[derive(Debug)]
pub struct Person<'a> {
    /// The version of the workstation program.
    pub program: String,
    /// Where confirmed orders are noted.
    pub ledger: PathBuf,
    /// Where it is said how the work stands, for whoever wants to know.
    pub status: Option<PathBuf>,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Cancelled when the program is to end.
    pub stop: CancellationToken,
}

/// Says how the work stands.
#[derive(Serialize)]
struct Status {
    unsaved: bool,
    last_activity: DateTime<Utc>,
}

impl Person<'_> {
    /// Enters orders until told to stop.
    ///
    /// # Errors
    /// The login is refused, the server stays away, or the ledger cannot be written.
    pub async fn work(&self, till: &mut Till) -> Result<(), SampleError> {
        till.log_in().await?;
        let mut number = read_ledger(&self.ledger)?.len();
        let failed = || SampleError::file("write", &self.ledger);
        let file = fs::OpenOptions::new().create(true).append(true).open(&self.ledger);
        let mut ledger = file.map_err(failed())?;
        while self.stop.run_until_cancelled(sleep(PACE)).await.is_some() {
            number += 1;
            let by = till.login.name.clone();
            let order = Order {
                reference: format!("{by}-{number:04}"),
                by,
                quantity: u32::try_from(1 + number * 7 % 23).unwrap_or(1),
                item: ITEMS[number % ITEMS.len()].to_owned(),
            };
            self.say(true);
            till.enter(&order).await?;
            let entered = Entered { program: self.program.clone(), order };
            let mut line = serde_json::to_string(&entered).map_err(SampleError::text(&self.ledger))?;
            line.push('\n');
            ledger.write_all(line.as_bytes()).and_then(|()| ledger.sync_data()).map_err(failed())?;
            self.say(false);
        }
        till.log_out().await;
        Ok(())
    }

    fn say(&self, unsaved: bool) {
        let status = Status { unsaved, last_activity: self.clock.now() };
        if let (Some(path), Ok(text)) = (&self.status, serde_json::to_vec(&status)) {
            // A courtesy; the work goes on without it.
            let _ = fs::write(path, text);
        }
    }
}
