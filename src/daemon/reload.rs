//! A changed configuration is taken up between runs, whole or not at all.
//!
//! It is done by a stop in order and a start in order, in the same process and under the same lock: nothing that hangs on
//! the settings can be forgotten, and where the start fails, the settings of before are at hand.

use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Error;
use anyhow::Result;
use anyhow::bail;

use crate::config::ConfigError;
use crate::config::settings::Settings;
use crate::daemon::House;
use crate::daemon::feeds;
use crate::daemon::must_be_ours;

/// Reads the configuration anew; one that says anything that cannot be used is an error.
pub type Reread<'a> = &'a dyn Fn() -> Result<Settings, ConfigError>;

/// The pause between two looks whether no run is under way.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The settings that the daemon is to work with from now on; nothing where they are refused, which is said.
pub(super) async fn changed(house: &House, reread: Reread<'_>) -> Option<Settings> {
    let read = async {
        let next = reread()?;
        let (ours, theirs) = (&house.settings.daemon.data_dir, &next.daemon.data_dir);
        if ours != theirs {
            bail!("daemon.data_dir: it was {}: only a restart takes the daemon to another store", ours.display());
        }
        must_be_ours(&next)?;
        feeds::must_be_ours(&next).await?;
        Ok(next)
    };
    match read.await {
        Ok(next) => {
            let runs = house.engine.held();
            let waits = runs
                .first()
                .map(|run| format!("the changed configuration is taken up when no run is under way; run {run} is"));
            tracing::info!(waits, "the configuration is read anew");
            say(house, waits);
            Some(next)
        }
        Err(error) => {
            say(house, Some(refused(&error)));
            None
        }
    }
}

/// What is to be known of a configuration that is not taken up; it is written to the log, too.
pub(super) fn refused(error: &Error) -> String {
    tracing::error!(
        error = format!("{error:#}"),
        "the changed configuration is refused: the daemon goes on with the one it has"
    );
    format!(
        "the configuration on disk is refused, and the daemon goes on with the one it has: {error:#}; correct it, then `systemctl reload afterhours`"
    )
}

/// What `status` says of it from now on.
pub(super) fn say(house: &House, notice: Option<String>) {
    *house.control.config_notice.lock().unwrap_or_else(PoisonError::into_inner) = notice;
}

/// Waits until no run is under way. With `wished` that is enough; otherwise until a run that began with other settings
/// is over, and what waits for its directories can be taken up.
pub(super) async fn between_runs(house: &House, wished: bool) {
    if !wished && house.night.kept.kits.is_empty() {
        // An idle daemon looks for nothing.
        return std::future::pending().await;
    }
    loop {
        if house.engine.held().is_empty() && (wished || is_released(house).await) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn is_released(house: &House) -> bool {
    let kept = &house.night.kept.kits;
    match house.store.unfinished_runs().await {
        Ok(runs) => !runs.iter().any(|run| kept.contains_key(&run.id)),
        // Asked again.
        Err(_) => false,
    }
}
