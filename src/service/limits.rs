//! What every control shares: the deadline, and the port that must be closed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::domain::span::Span;
use crate::service::error::ServiceError;

/// The pauses between two looks at something that is about to change.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// How long one attempt to connect may take.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// How long starting and stopping may take, and which port tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For starting or stopping as a whole.
    pub(crate) deadline: Span,
    /// Must be closed for the application to count as stopped.
    pub(crate) port: Option<SocketAddr>,
}

/// Waits ever longer between two looks: what ends soon is noticed at once, what takes long costs little.
#[derive(Debug)]
pub(crate) struct Pace(Duration);

impl Default for Pace {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl Pace {
    /// One pause.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 3 / 2).min(PAUSE_MAX);
    }
}

impl Limits {
    /// The instant at which what begins now is overdue.
    pub(crate) fn until(&self) -> Instant {
        Instant::now() + self.deadline.duration()
    }

    /// Waits until the port is closed; at once when none is named.
    pub(crate) async fn port_closed(&self, until: Instant) -> Result<(), ServiceError> {
        let Some(port) = self.port else { return Ok(()) };
        let mut pace = Pace::default();
        while accepts(port).await {
            if Instant::now() >= until {
                return Err(ServiceError::PortOpen { port });
            }
            pace.pause().await;
        }
        Ok(())
    }

    /// The error of a wait that took too long.
    pub(crate) fn overdue(&self, what: impl Into<String>, left: impl Into<String>) -> ServiceError {
        ServiceError::Overdue { what: what.into(), deadline: self.deadline, left: left.into() }
    }
}

/// Whether somebody listens. An attempt that is neither accepted nor refused counts as yes: a full queue looks so.
async fn accepts(port: SocketAddr) -> bool {
    match timeout(CONNECT_WAIT, TcpStream::connect(port)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == io::ErrorKind::TimedOut,
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_stays_open_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap();
        let limits = Limits { deadline: Span::from(Duration::from_millis(60)), port: Some(port) };
        let error = limits.port_closed(limits.until()).await.unwrap_err();
        assert!(matches!(error, ServiceError::PortOpen { port: open } if open == port), "{error}");
        drop(listener);
        limits.port_closed(limits.until()).await.unwrap();
    }
}
