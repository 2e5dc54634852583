//! The composition root: settings → store → adapters → engine → scheduler → API, and back in order.
//!
//! ```text
//!  socket ──► api ──► control ──► store ◄── dispatcher ──► launcher ──► engine ──► steps ──► adapters
//!                                                     chores ─┘
//! ```
//!
//! Stopping goes from the outside in: no new requests, no new starts, the runs halt where their log says
//! so, the chores end, the store closes.

pub mod alone;
mod feeds;
mod kits;
mod reload;
mod renew;
mod sockets;

use std::collections::BTreeSet;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

pub use crate::daemon::reload::Reread;
pub use crate::daemon::renew::detach_caretaker;
pub use crate::daemon::renew::rehearse;
pub use crate::daemon::renew::watch;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use chrono::DateTime;
use chrono::Utc;
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::sync::broadcast;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::caller::Operators;
use crate::api::door::places::Places;
use crate::api::events;
use crate::api::gate_check;
use crate::api::server::Api;
use crate::api::workstations::Admission;
use crate::api::workstations::Workstations;
use crate::config::places::Unfit;
use crate::config::settings::Settings;
use crate::control::Control;
use crate::control::refusals::Refusals;
use crate::daemon::kits::Built;
use crate::daemon::kits::Parts;
use crate::daemon::kits::chain;
use crate::daemon::renew::Entered;
use crate::daemon::renew::Stop;
use crate::daemon::renew::Told;
use crate::daemon::sockets::Sockets;
use crate::db::sessions::StoredSession;
use crate::db::store::Store;
use crate::domain::clock::Clock;
use crate::domain::clock::SystemClock;
use crate::domain::gate::Gate;
use crate::domain::gate::Position;
use crate::domain::name::AppName;
use crate::domain::span::Span;
use crate::exec::system;
use crate::files::dirs::make_public;
use crate::files::trusted::Untrusted;
use crate::files::trusted::required;
use crate::install::Claim;
use crate::jobs::driver::Live;
use crate::jobs::engine::Engine;
use crate::jobs::engine::LIVE_MAX;
use crate::jobs::gatekeeper::Gatekeeper;
use crate::jobs::lock::AppLock;
use crate::jobs::site;
use crate::jobs::steps::Night;
use crate::notify::mail::Mailer;
use crate::renewal::Origin;
use crate::renewal::Relaunch;
use crate::renewal::Renewal;
use crate::scheduler::checks::Looks;
use crate::scheduler::chores::Chore;
use crate::scheduler::chores::Chores;
use crate::scheduler::dispatcher::Dispatcher;
use crate::scheduler::dispatcher::DueStore;
use crate::scheduler::housekeeping::Household;
use crate::scheduler::launcher::Launcher;
use crate::scheduler::post::PostOffice;
use crate::scheduler::retention::Keep;
use crate::scheduler::timekeeper::Timekeeper;
use crate::sessions::hub::Hub;
use crate::sessions::hub::HubError;
use crate::sessions::hub::SessionChange;
use crate::sessions::hub::Verdict;
use crate::sessions::notes::Notebook;
use crate::sessions::notes::Notes;
use crate::sessions::notes::notes;
use crate::sessions::station::Member;
use crate::sessions::station::Peer;
use crate::wire::error::ErrorKind;
use crate::wire::error::ErrorView;

/// How many due runs may wait for the launcher.
const DUE_MAX: usize = 1024;
/// How long each part may take to stop.
const STOP_WAIT: Span = Span::secs(20);
/// The store's file in the data directory.
const STORE_FILE: &str = "afterhours.db";
/// The name of the lock that one daemon holds.
const DAEMON: &str = "daemon";
/// How long that lock is waited for: a caretaker looks at it in passing.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Everything, put together and not yet running.
struct House {
    settings: Arc<Settings>,
    store: Store,
    clock: Arc<dyn Clock>,
    hub: Arc<Hub>,
    night: Arc<Night>,
    engine: Engine<Night>,
    control: Arc<Control>,
    post: Arc<PostOffice>,
    renewal: Arc<Renewal>,
    /// Stops the runs.
    halt: CancellationToken,
    /// No other store works on our installations.
    _claims: Vec<Claim>,
}

impl House {
    /// Puts everything together upon `store`; nothing is begun, and nothing written.
    async fn build(
        store: Store,
        mut settings: Settings,
        serving_since: Option<DateTime<Utc>>,
        renewal: &Arc<Renewal>,
        claims: bool,
    ) -> Result<(Self, Notebook)> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        for bad in store.unreadable().await? {
            tracing::error!(why = bad.why, remedy = bad.remedy, "{} cannot be read", bad.what);
        }
        let (remember, changes) = notes();
        let hub = hub_of_before(&store, &clock, remember).await?;
        let site = site::read(&settings.daemon.data_dir)?;
        let parts = Parts { store: &store, hub: &hub, clock: &clock, renewal, site, claims };
        let Built { kits, kept, claims } = parts.build(&mut settings).await?;
        let mailer = match settings.daemon.mail.as_ref().map(Mailer::new).transpose() {
            Ok(mailer) => mailer,
            Err(error) => {
                let why = format!("daemon.mail: {}", chain(&error));
                settings.mail_unfit = Some(Unfit { why, hint: error.hint() });
                None
            }
        };
        let settings = Arc::new(settings);
        let data_dir = &settings.daemon.data_dir;
        let live = broadcast::channel(LIVE_MAX).0;
        let night = Arc::new(Night {
            kits,
            kept,
            unfit: settings.unfit.clone(),
            store: store.clone(),
            gatekeeper: Gatekeeper::new(store.clone(), Arc::clone(&hub), Arc::clone(&clock)),
            clock: Arc::clone(&clock),
            live: live.clone(),
        });
        let halt = CancellationToken::new();
        let engine =
            Engine::new(store.clone(), Arc::clone(&night), Arc::clone(&clock), data_dir.clone(), live, halt.clone());
        let post = Arc::new(PostOffice {
            store: store.clone(),
            mailer,
            unfit: settings.mail_unfit.as_ref().map(|unfit| unfit.why.clone()),
            clock: Arc::clone(&clock),
            counter: tokio::sync::Mutex::default(),
            stop: halt.clone(),
        });
        let control = Arc::new(Control {
            settings: Arc::clone(&settings),
            store: store.clone(),
            engine: engine.clone(),
            night: Arc::clone(&night),
            post: Arc::clone(&post),
            clock: Arc::clone(&clock),
            schedule_changed: Arc::new(Notify::new()),
            serving_since,
            config_notice: Mutex::default(),
            refusals: Refusals::default(),
        });
        let renewal = Arc::clone(renewal);
        let house = Self { settings, store, clock, hub, night, engine, control, post, renewal, halt, _claims: claims };
        house.close_hub_gates().await?;
        Ok((house, changes))
    }

    /// The hub begins with open gates; the store knows better.
    async fn close_hub_gates(&self) -> Result<()> {
        let named = self.settings.names().into_iter().filter_map(|name| name.parse().ok());
        let running = self.night.kept.kits.values().map(|kit| kit.app.name.clone());
        for app in &named.chain(running).collect::<BTreeSet<AppName>>() {
            let gate = self.store.gate(app).await?;
            if let Position::Closed { message, until, .. } = &gate.position
                && !gate.admits(self.clock.moment())
            {
                self.hub.close(app, message, *until);
            }
        }
        Ok(())
    }
}

/// A hub that waits for everybody who was there before. Of whom nothing can be read, it is not known whether they still are.
async fn hub_of_before(store: &Store, clock: &Arc<dyn Clock>, remember: Notes) -> Result<Arc<Hub>> {
    let (mut known, mut in_doubt) = (Vec::new(), Vec::new());
    for StoredSession { app, id, body } in store.stored_sessions().await? {
        match body.and_then(|body| serde_json::from_value::<Member>(body).ok()) {
            Some(member) => known.push(member),
            None => in_doubt.push((app, id)),
        }
    }
    let hub = Hub::new(known, Arc::clone(clock), Some(remember));
    for (app, session) in in_doubt {
        let remedy = format!("look whether somebody works there, then `afterhours session end {app} {session}`");
        tracing::error!(app, %session, remedy, "a session cannot be read: it is not known who is logged in");
        if let Ok(app) = app.parse() {
            hub.doubt(&app, session);
        }
    }
    Ok(hub)
}

/// What root goes by must be root's: whoever can write into the data directory can say what the next run does.
fn must_be_ours(settings: &Settings) -> Result<()> {
    let data_dir = &settings.daemon.data_dir;
    let refused = |error: Untrusted| {
        let message = format!("use data_dir \"{}\": others than root can change it: {error}", data_dir.display());
        ErrorView::new(ErrorKind::Usage, message).hint(error.remedy().unwrap_or_default())
    };
    Ok(required(data_dir).map_err(refused)?)
}

/// The data directory is ours alone: whoever may read the store in it sees everything.
fn make_data_dir(settings: &Settings) -> Result<()> {
    must_be_ours(settings)?;
    let data_dir = &settings.daemon.data_dir;
    let make = || -> std::io::Result<()> {
        make_public(data_dir.parent().unwrap_or(data_dir))?;
        match std::fs::DirBuilder::new().mode(0o700).create(data_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    };
    make().context("make the data directory")
}

/// The store of these settings and the number of this site, made where there are none.
fn open_store(settings: &Settings) -> Result<Store> {
    make_data_dir(settings)?;
    site::draw(&settings.daemon.data_dir)?;
    Ok(Store::open(&settings.daemon.data_dir.join(STORE_FILE))?)
}

/// Notes the workstations' sessions, so that the next daemon knows whom to wait for.
async fn remember_sessions(store: Store, mut changes: Notebook) {
    loop {
        let batch = changes.next().await;
        if batch.is_empty() {
            return;
        }
        let (mut noted, mut waiting) = (Vec::new(), Vec::new());
        for change in batch {
            match change.what {
                SessionChange::Joined(member) => match serde_json::to_value(&member) {
                    Ok(body) => noted.push((member.session.app, member.session.id, Some(body))),
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "a session is not noted");
                        continue;
                    }
                },
                // The answer is part of the conversation that a new daemon begins anew.
                SessionChange::Answered { .. } => {}
                SessionChange::Left { app, session } => noted.push((app, session, None)),
            }
            waiting.extend(change.remembered);
        }
        if noted.is_empty() {
            continue;
        }
        match store.note_sessions(noted).await {
            Ok(()) => waiting.into_iter().for_each(|remembered| {
                // The client may have gone meanwhile.
                let _ = remembered.send(());
            }),
            // Dropping those who wait tells the clients that they are not remembered.
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "sessions are not noted"),
        }
    }
}

/// Writes down how often somebody was refused, when the minute is over.
fn note_refusals(control: &Arc<Control>) -> Chore {
    let control = Arc::clone(control);
    let run = Arc::new(move || {
        let control = Arc::clone(&control);
        async move {
            control.close_refusals(false).await;
            Ok(())
        }
        .boxed()
    });
    Chore { name: "refusals", schedule: "0 * * * * *".into(), at_once: false, run }
}

/// From here on SIGHUP ends nobody; what the daemon does upon it, see [`serve`].
///
/// # Errors
/// The system does not let us listen.
pub fn heed_hangups() -> Result<()> {
    Stop::new().map(drop)
}

/// The daemon, until it is told to stop by SIGTERM or SIGINT, or goes over into another program: that is then to be
/// run in its place. SIGHUP lets it take up what `reread` reads, between runs.
///
/// # Errors
/// It cannot start: the store, the socket, or another daemon in its place.
pub async fn serve(mut settings: Settings, reread: Reread<'_>, origin: Origin) -> Result<Option<Relaunch>> {
    let mut stop = Stop::new()?;
    must_be_ours(&settings)?;
    feeds::must_be_ours(&settings).await?;
    system::make_files_our_own();
    let _only_one = only_one(&settings).await?;
    let descriptors = system::raise_open_files();
    let (mut before, mut notice) = (None::<Settings>, None);
    loop {
        let renewal = Arc::new(Renewal::new(&settings.daemon, origin.clone()));
        let begun = async {
            let entered = renew::enter(settings.clone(), &renewal, Some(SystemClock.now())).await?;
            let sockets = Sockets::open(&settings.daemon)?;
            Ok((entered, sockets))
        };
        let (entered, sockets) = match (begun.await, before.take()) {
            (Ok(begun), _) => begun,
            (Err(error), None) => return Err(error),
            (Err(error), Some(good)) => {
                notice = Some(reload::refused(&error));
                settings = good;
                continue;
            }
        };
        let (house, changes) = match entered {
            Entered::House(house, changes) => (*house, changes),
            Entered::Relaunch(relaunch) => return Ok(Some(relaunch)),
        };
        say_unfit(&house.settings);
        reload::say(&house, notice.take());
        match work(&house, changes, (sockets, descriptors), &mut stop, reread).await? {
            Ending::Stopped => return Ok(None),
            Ending::GoesOver => {
                let args = house.renewal.args();
                return renew::go_over(&house, args, false, &mut stop).await;
            }
            Ending::Anew(next) => {
                let next = next.map_or_else(|| settings.clone(), |next| *next);
                before = Some(std::mem::replace(&mut settings, next));
            }
        }
    }
}

/// Says loudly what of the configuration is left out.
fn say_unfit(settings: &Settings) {
    for (app, Unfit { why, hint }) in &settings.unfit {
        tracing::error!(app, why, hint, "nothing is done with the application: what is written of it cannot be used");
    }
    if let Some(Unfit { why, hint }) = &settings.mail_unfit {
        tracing::error!(why, hint, "no mail is sent: what is written of it cannot be used");
    }
}

/// Why a house has stopped working.
enum Ending {
    /// It was told to.
    Stopped,
    /// Another program is to be run in our place.
    GoesOver,
    /// It begins anew, with these settings or with those it has.
    Anew(Option<Box<Settings>>),
}

/// Works until it is told otherwise, and stops in order.
async fn work(
    house: &House,
    changes: Notebook,
    (sockets, descriptors): (Sockets, usize),
    stop: &mut Stop,
    reread: Reread<'_>,
) -> Result<Ending> {
    let (control, engine) = (Arc::clone(&house.control), house.engine.clone());
    let background = TaskTracker::new();
    let memory = tokio::spawn(remember_sessions(house.store.clone(), changes));
    let (stop_api, stop_starts) = (CancellationToken::new(), CancellationToken::new());

    // Whether the clock can be believed; then the runs that were left in the middle, then new ones, then requests.
    house.store.look(house.clock.moment()).await?;
    let launcher = Launcher { store: house.store.clone(), engine: engine.clone(), clock: Arc::clone(&house.clock) };
    let armed = launcher.recover().await?;
    let (due, incoming) = mpsc::channel(DUE_MAX);
    let (dispatcher, poke) = Dispatcher::new(Arc::new(house.store.clone()), Timekeeper::wall(), due);
    background.spawn(dispatcher.adopt(armed).run(stop_starts.clone()));
    background.spawn(async move { launcher.work(incoming).await });
    let (changed, stopping) = (Arc::clone(&control.schedule_changed), stop_starts.clone());
    background.spawn(async move {
        loop {
            tokio::select! {
                () = changed.notified() => poke.poke(),
                () = stopping.cancelled() => return,
            }
        }
    });
    for kit in house.night.kits.values() {
        let (kit, stopping) = (Arc::clone(kit), stop_starts.clone());
        background.spawn(async move { kit.service.supervise(stopping).await });
    }
    let household = Arc::new(Household {
        store: house.store.clone(),
        engine: engine.clone(),
        night: Arc::clone(&house.night),
        post: Arc::clone(&house.post),
        clock: Arc::clone(&house.clock),
        data_dir: house.settings.daemon.data_dir.clone(),
        keep: Keep { history: house.settings.daemon.keep_history, audit: house.settings.daemon.keep_audit },
        looks: Looks::default(),
        since: house.clock.now(),
        stop: stop_starts.clone(),
    });
    let mut chores = household.chores();
    chores.push(note_refusals(&control));
    let chores = Chores::start(chores).await?;
    // What kept a mail may have been mended: a password, a name, the server.
    house.store.hurry_mails(house.clock.now()).await?;
    background.spawn(post_reports(engine.watch(), Arc::clone(&house.post), stop_starts.clone()));

    let doors = sockets.serve(house, descriptors, &stop_api);
    // Not everybody is started by systemd.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let daemon = &house.settings.daemon;
    let (socket, workstations) = (daemon.socket.display(), daemon.workstation_socket.display());
    tracing::info!(%socket, %workstations, descriptors, apps = house.night.kits.len(), "serving");

    let mut next = None;
    let ending = loop {
        tokio::select! {
            told = stop.told_anything() => match told {
                Told::Stop => break Ending::Stopped,
                // What was read before is not on disk any more, whether this is accepted or not.
                Told::Reload => next = reload::changed(house, reread).await.map(Box::new),
            },
            () = house.renewal.wished() => break Ending::GoesOver,
            () = reload::between_runs(house, next.is_some()) => break Ending::Anew(next),
        }
    };
    if let Ending::Stopped = ending {
        // To an init system, all else is no stop: the process stays.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    }
    tracing::info!("stopping");
    stop_api.cancel();
    stop_starts.cancel();
    background.close();
    house.halt.cancel();
    within("the API", doors.wait()).await;
    within("the schedule", background.wait()).await;
    // A step between stop and commit is finished first; systemd's own patience is the limit.
    engine.stopped().await;
    if !chores.stop(STOP_WAIT).await {
        tracing::warn!("a chore did not end in time");
    }
    control.close_refusals(true).await;
    memory.abort();
    sockets::remove(daemon);
    tracing::info!("stopped");
    Ok(ending)
}

async fn within(what: &str, work: impl Future<Output = ()>) {
    if tokio::time::timeout(STOP_WAIT.duration(), work).await.is_err() {
        tracing::warn!("{what} did not stop in time");
    }
}

/// A report is sent as soon as it is written, not at the next chore.
async fn post_reports(mut live: broadcast::Receiver<Live>, post: Arc<PostOffice>, stop: CancellationToken) {
    // What a process before us owed first.
    let mut owed = true;
    loop {
        if owed && let Err(error) = post.deliver().await {
            tracing::error!(error = &error as &dyn std::error::Error, "the outbox cannot be read");
        }
        let happened = tokio::select! {
            happened = live.recv() => happened,
            () = stop.cancelled() => return,
        };
        owed = match happened {
            Ok(Live::Event(logged)) => {
                matches!(logged.event, crate::domain::event::RunEvent::StepSucceeded { at, .. } if at.step == crate::domain::step::Step::Report)
            }
            Ok(Live::Progress { .. }) => false,
            Err(broadcast::error::RecvError::Lagged(_)) => true,
            Err(broadcast::error::RecvError::Closed) => return,
        };
    }
}

/// What the operators' routes ask of the house.
fn api(house: &House, stop: &CancellationToken) -> Api {
    Api {
        control: Arc::clone(&house.control),
        operators: Operators::of_group(&house.settings.daemon.operator_group),
        stop: stop.clone(),
        followers: Places::new(events::FOLLOWERS),
    }
}

/// Everything, for operators.
fn routes(api: Api, house: &House, stop: &CancellationToken) -> axum::Router {
    crate::api::server::router(api).merge(open_routes(house, stop))
}

/// What everybody on the machine may ask.
fn open_routes(house: &House, stop: &CancellationToken) -> axum::Router {
    let doors = Arc::new(Doors(Arc::clone(&house.control)));
    let workstations = Workstations { hub: Arc::clone(&house.hub), admission: Arc::clone(&doors), stop: stop.clone() };
    gate_check::router(doors, Arc::clone(&house.clock)).merge(crate::api::workstations::router(workstations))
}

/// What the workstations' and the proxies' routes ask of control.
struct Doors(Arc<Control>);

impl Admission for Doors {
    fn knows(&self, app: &AppName) -> bool {
        self.0.night.kit_for(app).is_some() || self.0.settings.unfit.contains_key(app.as_str())
    }

    async fn counts(&self, app: &AppName, peer: Option<Peer>, said: &str) -> bool {
        self.0.counts(app, peer, said).await
    }

    async fn refused(&self, object: String, peer: Option<Peer>, said: Option<&str>, error: &HubError) {
        self.0.note_hub_refusal(object, peer, said, error).await;
    }

    async fn admit(&self, app: &AppName, peer: Option<Peer>, said: &str) -> Verdict {
        self.0.admit(app, peer, said).await
    }
}

impl gate_check::Gates for Doors {
    async fn gate(&self, app: &AppName) -> Option<Gate> {
        self.0.gate(app).await.ok().map(|view| view.gate)
    }
}

/// One daemon for one data directory.
async fn only_one(settings: &Settings) -> Result<AppLock> {
    make_data_dir(settings)?;
    let daemon: AppName = DAEMON.parse().context("name the daemon's lock")?;
    let dir = settings.daemon.data_dir.join("run");
    match tokio::time::timeout(LOCK_WAIT, AppLock::take(&dir, &daemon)).await {
        Ok(lock) => Ok(lock?),
        Err(_) => bail!("serve: another daemon works on {} already", settings.daemon.data_dir.display()),
    }
}
