//! How one Afterhours goes over into the next: what the composition root does for [`crate::renewal`].
//!
//! It owns what the renewal does not see: the store, the house that must come up, and the order in which a process stops.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use chrono::DateTime;
use chrono::Utc;
use futures_util::FutureExt;
use tokio::process::Command;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::config::settings::Settings;
use crate::daemon::House;
use crate::daemon::STORE_FILE;
use crate::daemon::api;
use crate::daemon::open_store;
use crate::daemon::routes;
use crate::db::copy;
use crate::domain::name::AppName;
use crate::exec::system;
use crate::jobs::lock::AppLock;
use crate::renewal::Begin;
use crate::renewal::Origin;
use crate::renewal::Rehearsed;
use crate::renewal::Relaunch;
use crate::renewal::Renewal;
use crate::renewal::caretaker;
use crate::sessions::notes::Notebook;
use crate::sessions::station::Peer;
use crate::wire::route;

/// How long an init system has to start a daemon that ended, before the caretaker does.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(10);
/// The pause between two looks whether it has.
const TAKE_OVER_PAUSE: Duration = Duration::from_millis(200);
/// How long the caretaker may take to detach itself.
const DETACH_WAIT: Duration = Duration::from_secs(20);

/// What a process is told by signals, from its first moment to its last.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    /// Also where nobody waits for it: otherwise it would end the process.
    hangup: Signal,
}

/// What a process is told.
pub(super) enum Told {
    Stop,
    Reload,
}

impl Stop {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until it is told to stop.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits until it is told to stop, or to read its configuration anew.
    pub(super) async fn told_anything(&mut self) -> Told {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// Whether it was told meanwhile.
    fn was_told(&mut self) -> bool {
        self.told().now_or_never().is_some()
    }
}

/// The house, or what is to be run in the place of this process.
pub(super) enum Entered {
    House(Box<House>, Notebook),
    Relaunch(Relaunch),
}

/// Builds the house after whatever a renewal before us has left to do. Nobody else may have the store open if it has.
pub(super) async fn enter(
    settings: Settings,
    renewal: &Arc<Renewal>,
    serving_since: Option<DateTime<Utc>>,
) -> Result<Entered> {
    let store = settings.daemon.data_dir.join(STORE_FILE);
    let proves = match renewal.begin().await? {
        Begin::Plain => false,
        Begin::Relaunch(relaunch) => return Ok(Entered::Relaunch(relaunch)),
        Begin::PutStoreBack { copy } => {
            tokio::task::spawn_blocking(move || copy::put_back(&copy, &store)).await??;
            renewal.is_back().await?;
            tracing::warn!("the Afterhours of before is back, with the store as it was");
            false
        }
        Begin::Prove => true,
    };
    // A store that does not open is a reason to go back, too.
    let built = async { House::build(open_store(&settings)?, settings, serving_since, renewal, true).await }.await;
    if !proves {
        let (house, changes) = built?;
        return Ok(Entered::House(Box::new(house), changes));
    }
    let up = async {
        let (house, changes) = built?;
        answers(&house).await?;
        Ok::<_, anyhow::Error>((house, changes))
    };
    match up.await {
        Ok((house, changes)) => {
            renewal.confirm().await?;
            tracing::info!("this is the new Afterhours");
            Ok(Entered::House(Box::new(house), changes))
        }
        Err(error) => {
            let reason = format!("failed to {error:#}");
            tracing::error!(reason, "the new Afterhours does not come up; the one of before is put back");
            Ok(Entered::Relaunch(renewal.go_back(&reason).await?))
        }
    }
}

/// Asks the API for its first page, without a socket.
async fn answers(house: &House) -> Result<()> {
    let ourselves = Peer { uid: rustix::process::geteuid().as_raw(), pid: None };
    let request = Request::get(route::STATUS).extension(ConnectInfo(ourselves)).body(Body::empty())?;
    let stop = CancellationToken::new();
    let answer = routes(api(house, &stop), house, &stop).oneshot(request).await?;
    if !answer.status().is_success() {
        bail!("get an answer of the API: it says {}", answer.status());
    }
    Ok(())
}

/// Does everything that [`enter`] asks of a new program, on the copy of the store in `dir`; no socket is opened and no
/// run is taken up.
///
/// # Errors
/// It cannot.
pub async fn rehearse(mut settings: Settings, origin: Origin, dir: &Path) -> Result<Rehearsed> {
    dir.clone_into(&mut settings.daemon.data_dir);
    let renewal = Arc::new(Renewal::new(&settings.daemon, origin));
    let (house, _) = House::build(open_store(&settings)?, settings, None, &renewal, false).await?;
    answers(&house).await?;
    let afterhours = env!("CARGO_PKG_VERSION").parse().context("read the version of this program")?;
    Ok(Rehearsed { afterhours, apps: house.settings.apps.len() })
}

/// Everything has stopped: from one program to the next. Nothing to run when this process was told to stop meanwhile.
///
/// What fails before the new program is in its place is a reason to go on with this one.
pub(super) async fn go_over(
    house: &House,
    args: Vec<String>,
    alone: bool,
    stop: &mut Stop,
) -> Result<Option<Relaunch>> {
    let renewal = &house.renewal;
    let Some(wish) = renewal.wish() else { return Ok(None) };
    renewal.intend(&wish, args, alone).await?;
    if let Err(error) = prepare(house).await {
        return Ok(Some(renewal.leave(format!("failed to {error:#}")).await?));
    }
    if stop.was_told() {
        renewal.leave("Afterhours was told to stop".to_owned()).await?;
        return Ok(None);
    }
    let relaunch = match renewal.put(&wish).await {
        Ok(relaunch) => relaunch,
        Err(error) => renewal.give_up(format!("failed to {:#}", anyhow::Error::from(error))).await?,
    };
    if stop.was_told() {
        renewal.stop_watching().await?;
        return Ok(None);
    }
    tracing::info!(to = %wish.to, "Afterhours goes over into the new one");
    Ok(Some(relaunch))
}

/// Copies of all that the old program needs to come back, and somebody who sees to it.
async fn prepare(house: &House) -> Result<()> {
    let (store, copy) = (house.store.path().to_owned(), house.renewal.store_copy());
    tokio::task::spawn_blocking(move || copy::copy(&store, &copy)).await??;
    let renewal = Arc::clone(&house.renewal);
    let kept = tokio::task::spawn_blocking(move || renewal.keep()).await??;
    // It detaches itself and leaves; its child belongs to nobody, least of all to the program that is to come.
    let mut command = Command::new(&kept);
    command.arg("caretaker").arg(&house.settings.daemon.data_dir).stdin(Stdio::null()).kill_on_drop(true);
    system::with_first_limit(command.as_std_mut());
    let ended = tokio::time::timeout(DETACH_WAIT, command.status()).await.context("wait for the caretaker")?;
    let ended = ended.with_context(|| format!("run {}", kept.display()))?;
    if !ended.success() {
        bail!("start the caretaker: it ended with {ended}");
    }
    Ok(())
}

/// Starts the process that watches, and leaves it alone.
///
/// # Errors
/// It cannot be started.
pub fn detach_caretaker(data_dir: &Path) -> Result<()> {
    let program = std::env::current_exe().context("find this program")?;
    let mut command = std::process::Command::new(program);
    command.arg("caretaker").arg(data_dir).arg("--watch").stdin(Stdio::null());
    command.spawn().context("start the caretaker")?;
    Ok(())
}

/// Watches a new program come up. What is to be run in the place of this process, when nobody else does it.
///
/// # Errors
/// The old program cannot be put back.
pub async fn watch(data_dir: &Path) -> Result<Option<Relaunch>> {
    // A signal from the terminal is not for us; where we lead a group already, none reaches us.
    let _ = rustix::process::setsid();
    let Some(relaunch) = caretaker::watch(data_dir).await? else { return Ok(None) };
    tracing::warn!("the new Afterhours did not come up; the one of before is back in its place");
    let until = Instant::now() + TAKE_OVER_WAIT;
    while !relaunch.alone && Instant::now() < until {
        if is_taken(data_dir)? {
            return Ok(None);
        }
        tokio::time::sleep(TAKE_OVER_PAUSE).await;
    }
    Ok(Some(relaunch))
}

/// Whether a daemon works here.
fn is_taken(data_dir: &Path) -> Result<bool> {
    let daemon: AppName = super::DAEMON.parse().context("name the daemon's lock")?;
    Ok(AppLock::try_take(&data_dir.join("run"), &daemon)?.is_none())
}
