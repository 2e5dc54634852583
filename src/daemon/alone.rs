//! The same house without a socket: what one command does where no daemon answers.
//!
//! Everything goes through [`Control`], as it does for the daemon. Whoever runs the command is the operator: to
//! open the store takes its owner or root. A run is driven by the same engine under the same lock, so that a
//! daemon that is started meanwhile waits for its turn. Who only looks ([`look`]) takes no lock, makes no store,
//! and cannot write to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio::sync::mpsc;

use crate::api::events::event_view;
use crate::api::events::live_view;
use crate::config::settings::ServiceControl;
use crate::config::settings::Settings;
use crate::control::Caller;
use crate::control::Control;
use crate::control::Role;
use crate::control::apps::updates;
use crate::control::error::ControlError;
use crate::control::mail::mailed;
use crate::daemon::House;
use crate::daemon::STORE_FILE;
use crate::daemon::must_be_ours;
use crate::daemon::only_one;
use crate::daemon::open_store;
use crate::daemon::remember_sessions;
use crate::daemon::renew;
use crate::daemon::renew::Entered;
use crate::daemon::renew::Stop;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::name::AppName;
use crate::domain::release::Version;
use crate::domain::run::RunId;
use crate::exec::system;
use crate::files::account::user_name;
use crate::jobs::driver::Live;
use crate::jobs::kit::state_dir;
use crate::jobs::lock::AppLock;
use crate::jobs::steps::failed;
use crate::notify::mail::Mailer;
use crate::renewal::Origin;
use crate::renewal::Relaunch;
use crate::renewal::Renewal;
use crate::renewal::RenewalError;
use crate::scheduler::housekeeping::empty_trash;
use crate::scheduler::post::send_test;
use crate::service::Service;
use crate::sessions::notes::Notebook;
use crate::wire::app::AllowedView;
use crate::wire::app::BackupView;
use crate::wire::app::DoctorView;
use crate::wire::app::UpdateNow;
use crate::wire::app::UpdatesView;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;
use crate::wire::mail::MailedView;
use crate::wire::run::ResolveRun;
use crate::wire::run::RunEventView;
use crate::wire::run::RunView;

/// The house of a process that is no daemon, and beside none that goes over into another program.
async fn house(settings: Settings) -> Result<(House, Notebook)> {
    let renewal = renewal(&settings)?;
    must_be_over(&renewal)?;
    system::make_files_our_own();
    House::build(open_store(&settings)?, settings, None, &renewal, true).await
}

/// The way to the next Afterhours of a command that will not take it.
fn renewal(settings: &Settings) -> Result<Arc<Renewal>> {
    Ok(Arc::new(Renewal::new(&settings.daemon, Origin::of_this_process(None)?)))
}

/// Nobody is about to replace Afterhours, and with it perhaps the store.
fn must_be_over(renewal: &Renewal) -> Result<()> {
    let refused = |error: RenewalError| {
        let view = ErrorView::new(ErrorKind::Refused, error.to_string());
        view.hint(error.hint().unwrap_or_default())
    };
    Ok(renewal.must_be_over().map_err(refused)?)
}

/// The use cases upon the store as it is, for somebody who only looks.
///
/// # Errors
/// There is no store, or this user may not read it, or it is of another schema.
pub async fn look(settings: Settings) -> Result<Arc<Control>> {
    must_be_ours(&settings)?;
    let opened = Store::open_to_read(&settings.daemon.data_dir.join(STORE_FILE));
    let store = opened.map_err(|error| ControlError::from(error).view())?;
    let renewal = renewal(&settings)?;
    let (house, _) = House::build(store, settings, None, &renewal, false).await?;
    Ok(house.control)
}

/// The house of somebody who only looks, also before there is a store: then upon an empty one that goes away again.
async fn looking(mut settings: Settings) -> Result<(House, Option<TempDir>)> {
    let renewal = renewal(&settings)?;
    must_be_ours(&settings)?;
    must_be_over(&renewal)?;
    let path = settings.daemon.data_dir.join(STORE_FILE);
    let (store, empty) = match Store::open_to_read(&path) {
        Err(StoreError::Absent { .. }) => {
            let dir = tempfile::tempdir().context("make room for an empty store")?;
            if !settings.daemon.data_dir.exists() {
                // Whoever only looks does not make it either, for what a signed feed says.
                dir.path().clone_into(&mut settings.daemon.data_dir);
            }
            (Store::open(&dir.path().join(STORE_FILE))?, Some(dir))
        }
        // Who may bring it up to date does so, as for every other work.
        Err(StoreError::TooOld { .. }) => (open_store(&settings)?, None),
        opened => (opened.map_err(|error| ControlError::from(error).view())?, None),
    };
    Ok((House::build(store, settings, None, &renewal, false).await?.0, empty))
}

/// Checks one application without a daemon.
///
/// # Errors
/// The store cannot be opened, or there is no such application.
pub async fn doctor(settings: Settings, app: &AppName) -> Result<DoctorView> {
    let (house, _keep) = looking(settings).await?;
    house.control.doctor(app).await.map_err(|error| error.view().into())
}

/// Sends a mail that says nothing but that it came, without a daemon and without a store.
///
/// # Errors
/// Mail is not configured, the address is none, or the server cannot be reached or does not take it.
pub async fn test_mail(settings: &Settings, to: String) -> Result<MailedView> {
    let described = settings.daemon.mail.as_ref().ok_or_else(|| ControlError::NoMail.view())?;
    let mailer = Mailer::new(described).map_err(|error| ControlError::Failed(failed(&error, error.hint())).view())?;
    let outcome = send_test(&mailer, &to, &ourselves().who).await;
    Ok(mailed(&mailer, to, outcome).map_err(|error| error.view())?)
}

/// Makes a backup without a daemon.
///
/// # Errors
/// The store cannot be opened, there is no such application, or it cannot be made.
pub async fn make_backup(settings: Settings, app: &AppName) -> Result<BackupView> {
    let (house, _) = house(settings).await?;
    let made = house.control.make_backup(&ourselves(), app).await;
    Ok(noted(&house, &format!("backup.make {app}"), made).await?)
}

/// Tests the newest backup without a daemon.
///
/// # Errors
/// The store cannot be opened, there is no such application, or no backup is described.
pub async fn check_backup(settings: Settings, app: &AppName) -> Result<BackupView> {
    let (house, _keep) = looking(settings).await?;
    house.control.check_backup(app).await.map_err(|error| error.view().into())
}

/// Looks for newer releases without a daemon.
///
/// # Errors
/// The store cannot be opened, there is no such application, or its feed cannot be read.
pub async fn check_updates(settings: Settings, app: &AppName) -> Result<UpdatesView> {
    let (house, _keep) = looking(settings).await?;
    let Some(kit) = house.night.kits.get(app) else {
        return house.control.updates(app).await.map_err(|error| error.view().into());
    };
    updates(kit, &house.store, &*house.clock).await.map_err(|failure| ControlError::Failed(failure).view().into())
}

/// Lets a release that failed here be tried again, without a daemon.
///
/// # Errors
/// The store cannot be opened, or there is no such application.
pub async fn allow_release(settings: Settings, app: &AppName, version: Version) -> Result<AllowedView> {
    let (house, _) = house(settings).await?;
    let asked = format!("update.allow {app}");
    let allowed = house.control.allow_release(&ourselves(), app, version).await;
    Ok(noted(&house, &asked, allowed).await?)
}

/// The user of this process, as a caller.
pub fn ourselves() -> Caller {
    Caller { who: user_name(rustix::process::geteuid().as_raw()), via: "command line", role: Role::Operator }
}

/// The result of what was `asked`; a refusal is noted, as the daemon notes it.
async fn noted<T>(house: &House, asked: &str, result: Result<T, ControlError>) -> Result<T, ErrorView> {
    match result {
        Ok(done) => Ok(done),
        Err(error) => {
            let view = error.view();
            house.control.note_refusal(&ourselves(), asked, &view).await;
            Err(view)
        }
    }
}

/// What became of an update without a daemon.
#[derive(Debug)]
pub enum Updated {
    /// The run is over or stuck.
    Run(Box<RunView>),
    /// It goes on under another program, to be run in the place of this one.
    GoesOver(Relaunch),
}

/// Updates one application without a daemon: the same engine, in this process. `resume` is the run that the program
/// before this one has begun.
///
/// What happens goes to `events`. A service that this process supervises is left running.
///
/// # Errors
/// It cannot be begun; how the run ended is in its view.
pub async fn update_now(
    settings: Settings,
    origin: Origin,
    app: &AppName,
    ask: UpdateNow,
    resume: Option<RunId>,
    events: mpsc::Sender<RunEventView>,
) -> Result<Updated> {
    let mut stop = Stop::new()?;
    let renewal = Arc::new(Renewal::new(&settings.daemon, origin));
    // A renewal under way is ended by one process alone.
    let alone = if renewal.must_be_over().is_err() { Some(only_one(&settings).await?) } else { None };
    let (house, changes) = match renew::enter(settings, &renewal, None).await? {
        Entered::House(house, changes) => (*house, changes),
        Entered::Relaunch(relaunch) => return Ok(Updated::GoesOver(relaunch)),
    };
    drop(alone);
    let memory = tokio::spawn(remember_sessions(house.store.clone(), changes));
    let caller = ourselves();
    must_be_free(&house, app)?;
    let (started, live) = match resume {
        Some(run) => {
            let view = house.control.run_view(run).await.map_err(|error| error.view())?;
            let live = house.engine.watch();
            house.engine.take_up(run);
            (view, live)
        }
        None => {
            // A run that was left in the middle goes first, whoever began it.
            for run in house.store.unfinished_runs().await? {
                if run.order.app == *app && run.started_at.is_some() {
                    house.engine.take_up(run.id);
                }
            }
            if !wait_for_turn(&house, &mut stop).await? {
                memory.abort();
                return over(&house, house.renewal.args(), &mut stop).await;
            }
            let live = house.engine.watch();
            let begun = house.control.update_now(&caller, app, ask).await;
            (noted(&house, &format!("update.now {app}"), begun).await?, live)
        }
    };
    let ended = to_the_end(&house, &caller, &started, (live, 0), events, &mut stop).await;
    memory.abort();
    if let Some(view) = ended? {
        return Ok(Updated::Run(Box::new(view)));
    }
    let mut args = house.renewal.args();
    if resume.is_none() {
        args.extend(["--resume".to_owned(), started.id.to_string()]);
    }
    over(&house, args, &mut stop).await
}

/// The end of an update that goes on under another program.
async fn over(house: &House, args: Vec<String>, stop: &mut Stop) -> Result<Updated> {
    match renew::go_over(house, args, true, stop).await? {
        Some(relaunch) => Ok(Updated::GoesOver(relaunch)),
        None => bail!("update: stopped while Afterhours was updated; the run goes on with the next start"),
    }
}

/// What a person says of a stuck run.
#[derive(Debug, Clone, Copy)]
pub enum Word {
    /// The cause is removed: it may try again.
    Retry,
    /// Which version is the good one.
    Resolve(ResolveRun),
}

/// Takes a person's word about a stuck run, and drives it to its end: the same engine, in this process.
///
/// What happens goes to `events`.
///
/// # Errors
/// There is no such run, it is not stuck, or another process works on its application; then nothing has changed.
pub async fn go_on(settings: Settings, run: RunId, word: Word, events: mpsc::Sender<RunEventView>) -> Result<RunView> {
    let mut stop = Stop::new()?;
    // Looked for first: nothing is made where there is nothing to resolve.
    let stuck = look(settings.clone()).await?.run_view(run).await.map_err(|error| error.view())?;
    let (house, changes) = house(settings).await?;
    let memory = tokio::spawn(remember_sessions(house.store.clone(), changes));
    must_be_free(&house, &stuck.app)?;
    let caller = ourselves();
    let known = house.store.events(run, 0).await?.last().map_or(0, |logged| logged.seq);
    let live = house.engine.watch();
    let going_on = match word {
        Word::Retry => noted(&house, &format!("run.retry {run}"), house.control.retry_run(&caller, run).await).await?,
        Word::Resolve(ask) => {
            let resolved = house.control.resolve_run(&caller, run, ask).await;
            noted(&house, &format!("run.resolve {run}"), resolved).await?
        }
    };
    let ended = to_the_end(&house, &caller, &going_on, (live, known), events, &mut stop).await;
    memory.abort();
    // A run that got stuck is long past the step that asks for it.
    ended?.context("finish the run: it wants a newer Afterhours; start the daemon, which goes on with it")
}

/// Keeps the house until the run is over or stuck, and tells what happens after the line of its log that is known.
/// Nothing when it wants to go on under another program; then everything has stopped.
async fn to_the_end(
    house: &House,
    caller: &Caller,
    run: &RunView,
    (mut live, mut told): (broadcast::Receiver<Live>, i64),
    events: mpsc::Sender<RunEventView>,
    stop: &mut Stop,
) -> Result<Option<RunView>> {
    let (app, run) = (&run.app, run.id);
    let mut lease = tokio::time::interval(Duration::from_secs(30));
    loop {
        tokio::select! {
            _ = lease.tick() => house.night.gatekeeper.renew(app, run).await?,
            happened = live.recv() => if let Ok(happened) = happened
                && let Some(view) = live_view(run, happened)
            {
                if let RunEventView::Event { seq, .. } = &view {
                    told = *seq;
                }
                // Nobody may be looking.
                let _ = events.send(view).await;
            },
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
            () = house.renewal.wished() => {
                house.halt.cancel();
                house.engine.stopped().await;
                return Ok(None);
            }
            () = stop.told() => {
                // A cancelled run goes back; it is not left where it stands.
                if let Err(error) = house.control.cancel_run(caller, run).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the run cannot be cancelled any more");
                }
            }
        }
        if house.control.run_view(run).await.map_err(|error| error.view())?.state.is_settled()
            && !house.engine.held().contains(&run)
        {
            break;
        }
    }
    for logged in house.store.events(run, told).await? {
        let _ = events.send(event_view(logged)).await;
    }
    tokio::select! {
        delivered = house.post.deliver() => delivered?,
        // Whoever wants to go does not wait for a mail server.
        () = stop.told() => {}
    }
    if house.store.outbox_counts(Some(run)).await?.pending > 0 {
        tracing::warn!(run.id = run.0, "the report is not sent yet; the next `afterhours` that works here tries again");
    }
    house.halt.cancel();
    house.engine.stopped().await;
    tidy_up(house, app, stop).await;
    Ok(Some(house.control.run_view(run).await.map_err(|error| error.view())?))
}

/// Removes what the run has moved out of the way, which nobody else will where there is no daemon. Ctrl-C leaves the rest for the next time.
async fn tidy_up(house: &House, app: &AppName, stop: &mut Stop) {
    let Some(kit) = house.night.kits.get(app) else { return };
    tokio::select! {
        emptied = empty_trash(kit) => if let Err(failure) = emptied {
            tracing::warn!(%app, %failure, "something that is not needed any more stays; see `afterhours doctor`");
        },
        () = stop.told() => {}
    }
}

/// Waits for the run that was left in the middle; false when it wants to go on under another program. Ctrl-C ends the
/// waiting, and the run goes on next time.
async fn wait_for_turn(house: &House, stop: &mut Stop) -> Result<bool> {
    while !house.engine.held().is_empty() {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
            () = house.renewal.wished() => {
                house.halt.cancel();
                house.engine.stopped().await;
                return Ok(false);
            }
            () = stop.told() => {
                house.halt.cancel();
                house.engine.stopped().await;
                bail!("update: stopped while an earlier run was being finished");
            }
        }
    }
    Ok(true)
}

/// No other process works on the application.
fn must_be_free(house: &House, app: &AppName) -> Result<()> {
    let lock = AppLock::try_take(&house.settings.daemon.data_dir, app)?;
    if lock.is_none() {
        bail!(
            ErrorView::new(ErrorKind::Refused, format!("another process works on {app} just now"))
                .hint("see `afterhours status`, and try again when it is done")
        );
    }
    Ok(())
}

/// Stops the applications that a daemon has supervised. That daemon must have ended: an application
/// outlives it, so that a restart of the daemon disturbs nobody.
///
/// # Errors
/// A daemon works with these settings, or an application does not stop.
pub async fn stop_services(settings: Settings) -> Result<()> {
    let _only_one = only_one(&settings).await?;
    for app in settings.apps.values() {
        if matches!(app.service.control, ServiceControl::Supervised { .. }) {
            let service = Service::new(app, &state_dir(&settings.daemon.data_dir, &app.name));
            service.stop(&BTreeMap::new()).await?;
        }
    }
    Ok(())
}
