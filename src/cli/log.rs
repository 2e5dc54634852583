//! The log: plain lines on stderr.

use std::io;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// Sets the log up once for the process. A filter that cannot be read is said and passed over.
pub(crate) fn set_up(filter: Option<&str>, verbose: u8, is_daemon: bool) {
    let usual = usual_filter(verbose, is_daemon);
    let (filter, bad) = match filter.map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(usual), Some(error)),
        None => (EnvFilter::new(usual), None),
    };
    let log = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // Somebody else may have set one up in this process; then it is theirs.
    let _ = log.with_target(verbose > 1).try_init();
    if let Some(error) = bad {
        tracing::warn!(%error, "AFTERHOURS_LOG cannot be read");
    }
}

const fn usual_filter(verbose: u8, is_daemon: bool) -> &'static str {
    match (verbose, is_daemon) {
        (0, false) => "warn",
        (0, true) => "warn,afterhours=info",
        (1, false) => "warn,afterhours=info",
        (1, true) | (2, false) => "info,afterhours=debug",
        _ => "debug,afterhours=trace",
    }
}
