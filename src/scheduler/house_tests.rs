//! The chores that change the store, upon a real one, with a clock that is set by hand.

mod clocks;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;
use rustix::fs::FlockOperation;
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::config::parse;
use crate::db::chain::ChainState;
use crate::db::events::RunHead;
use crate::db::store::Store;
use crate::domain::clock::Clock;
use crate::domain::clock::ManualClock;
use crate::domain::clock::Moment;
use crate::domain::event::LoggedEvent;
use crate::domain::event::RunEvent;
use crate::domain::failure::Failure;
use crate::domain::gate::Opening;
use crate::domain::job::JobType;
use crate::domain::name::AppName;
use crate::domain::run::Fence;
use crate::domain::run::Order;
use crate::domain::run::Outcome;
use crate::domain::run::RunId;
use crate::domain::run::RunState;
use crate::domain::run::Trigger;
use crate::domain::span::Span;
use crate::domain::step::At;
use crate::domain::step::Step;
use crate::domain::update_check::UpdateCheck;
use crate::jobs::engine::Engine;
use crate::jobs::gatekeeper::Gatekeeper;
use crate::jobs::kit::Kit;
use crate::jobs::lock::AppLock;
use crate::jobs::steps::Night;
use crate::renewal::Origin;
use crate::renewal::Renewal;
use crate::scheduler::checks::Looks;
use crate::scheduler::housekeeping::Household;
use crate::scheduler::post::PostOffice;
use crate::scheduler::retention::Keep;
use crate::sessions::hub::Hub;

/// A directory that is not there yet.
const DIR_FEED: &str = "feed = { dir = \"ROOT/releases\" }\n";

struct House<C = ManualClock> {
    dir: TempDir,
    clock: Arc<C>,
    household: Household,
}

fn night() -> DateTime<Utc> {
    "2026-11-22T02:30:00Z".parse().unwrap()
}

fn desk() -> AppName {
    "desk".parse().unwrap()
}

impl House {
    /// A household for one application that is only files.
    fn build() -> Self {
        Self::with(DIR_FEED)
    }

    /// The same, with these settings of its feed.
    fn with(feed: &str) -> Self {
        Self::on(feed, Arc::new(ManualClock::at(night())))
    }
}

impl<C: Clock + 'static> House<C> {
    /// The same, on this clock.
    fn on(feed: &str, clock: Arc<C>) -> Self {
        let dir = TempDir::new().unwrap();
        let root = dir.path().display();
        fs_err::create_dir_all(dir.path().join("opt/desk")).unwrap();
        let text = format!(
            r#"
            [app.desk]
            install_dir = "{root}/opt/desk"
            service = {{ none = true }}
            gate = [{{ file = "{root}/gate/nologin" }}]
            "#
        ) + &feed.replace("ROOT", &root.to_string());
        let settings = parse(&text, "test.toml").unwrap();
        let household = household(dir.path(), &settings.apps[&desk()], clock.clone());
        Self { dir, clock, household }
    }
}

impl House {
    /// Another process upon the same store, as after a crash.
    fn again(self) -> Self {
        let kit = Arc::clone(self.kit());
        let Self { dir, clock, .. } = self;
        let household = household(dir.path(), &kit.app, clock.clone());
        Self { dir, clock, household }
    }

    fn kit(&self) -> &Arc<Kit> {
        &self.household.night.kits[&desk()]
    }

    /// A gate that an operator has opened again, and whose file cannot be removed: somebody put a directory there.
    async fn half_open() -> Self {
        let house = Self::build();
        fs_err::create_dir_all(house.nologin().parent().unwrap()).unwrap();
        let keeper = &house.household.night.gatekeeper;
        keeper.close_by_hand(house.kit(), "anna", "closed", None).await.unwrap();
        fs_err::remove_file(house.nologin()).unwrap();
        fs_err::create_dir_all(house.nologin()).unwrap();
        let error = keeper.open_by_hand(house.kit()).await.unwrap_err();
        assert!(error.hint().unwrap().contains("it is tried again by itself"), "{:?}", error.hint());
        house
    }

    fn nologin(&self) -> PathBuf {
        self.dir.path().join("gate/nologin")
    }

    /// What has failed to open, and how many seconds until it is tried again.
    async fn opening(&self) -> Option<(u32, i64)> {
        let opening = self.store().gate_opening(&desk()).await.unwrap()?;
        assert!(opening.failure.unwrap().hint.unwrap().starts_with("remove "));
        Some((opening.attempts, (opening.next_at - self.clock.now()).num_seconds()))
    }

    fn pass_secs(&self, secs: i64) {
        self.clock.set(self.clock.now() + TimeDelta::seconds(secs));
    }

    fn store(&self) -> &Store {
        &self.household.store
    }

    /// A run that is over.
    async fn run(&self) -> RunId {
        let run = self.store().queue_run(order(), self.clock.now()).await.unwrap();
        let outcome = Outcome::Succeeded;
        let finished = RunState::Finished { outcome };
        self.log(run, 1, RunEvent::Queued { order: order() }, RunHead { state: RunState::Queued, away: false }).await;
        self.log(run, 2, RunEvent::Finished { outcome }, RunHead { state: finished, away: false }).await;
        run
    }

    async fn log(&self, run: RunId, seq: i64, event: RunEvent, head: RunHead) {
        let Moment { at, up } = self.clock.moment();
        let logged = LoggedEvent { run, seq, at, up, event };
        self.store().append_event(Fence(1), logged, head).await.unwrap();
    }

    /// Does the chore; when was looked, the last time, and why that failed.
    async fn check_feeds(&self) -> Option<(DateTime<Utc>, Option<Failure>)> {
        self.household.check_feeds().await.unwrap();
        let check = self.store().update_check(&desk()).await.unwrap()?;
        Some((check.at, check.failure))
    }

    async fn runs(&self) -> Vec<RunId> {
        self.store().runs(Default::default()).await.unwrap().iter().map(|run| run.id).collect()
    }
}

fn order() -> Order {
    Order {
        job: None,
        kind: JobType::SoftwareUpdate,
        app: desk(),
        trigger: Trigger::Manual,
        started_by: "anna".to_owned(),
        grace: None,
        max_runtime: Span::hours(4),
        to: None,
        mail: Vec::new(),
        on_failure: None,
        repair: false,
    }
}

fn running(step: Step) -> RunState {
    RunState::Running { at: At::first(step) }
}

fn household(dir: &Path, app: &crate::config::settings::AppSettings, clock: Arc<dyn Clock>) -> Household {
    let store = Store::open(&dir.join("store.db")).unwrap();
    let hub = Hub::new(Vec::new(), Arc::clone(&clock), None);
    let live = broadcast::channel(9).0;
    let daemon = parse("", "test.toml").unwrap().daemon;
    let renewal = Arc::new(Renewal::new(&daemon, Origin::of_this_process(None).unwrap()));
    let kit = Kit::new(app, dir, Some("here".into()), &hub, Arc::clone(&clock), &renewal).unwrap();
    let night = Arc::new(Night {
        kits: [(app.name.clone(), Arc::new(kit))].into(),
        kept: Default::default(),
        unfit: Default::default(),
        store: store.clone(),
        gatekeeper: Gatekeeper::new(store.clone(), hub, Arc::clone(&clock)),
        clock: Arc::clone(&clock),
        live: live.clone(),
    });
    let stop = CancellationToken::new();
    let engine = Engine::new(store.clone(), Arc::clone(&night), Arc::clone(&clock), dir.to_owned(), live, stop);
    let post = PostOffice {
        unfit: None,
        store: store.clone(),
        mailer: None,
        clock: Arc::clone(&clock),
        counter: tokio::sync::Mutex::default(),
        stop: CancellationToken::new(),
    };
    let keep = Keep { history: Span::days(30), audit: Span::days(60) };
    let since = clock.now();
    let (post, data_dir, looks) = (Arc::new(post), dir.to_owned(), Looks::default());
    Household { store, engine, night, post, clock, data_dir, keep, looks, since, stop: CancellationToken::new() }
}

#[tokio::test]
async fn old_runs_go_with_their_files_and_newer_ones_stay() {
    let house = House::build();
    let snapshots = house.dir.path().join("opt/.desk.afterhours/snapshot");
    for _ in 0..23 {
        house.run().await;
    }
    for run in ["1", "23"] {
        fs_err::create_dir_all(snapshots.join(run)).unwrap();
        fs_err::write(snapshots.join(run).join("junk"), "left by a crash").unwrap();
    }
    house.clock.set(night() + TimeDelta::days(31));
    let newer = [house.run().await, house.run().await];

    // Somebody works on the application: its files, and thus its runs, have their turn later.
    let held = AppLock::try_take(house.dir.path(), &desk()).unwrap().unwrap();
    house.household.prune().await.unwrap();
    assert_eq!(house.runs().await.len(), 25);
    drop(held);

    house.household.prune().await.unwrap();
    assert_eq!(house.runs().await, [newer[1], newer[0]]);
    assert!(!snapshots.join("1").exists() && !snapshots.join("23").exists());
    let chain = house.store().verify_chain().await.unwrap();
    assert!(matches!(chain, ChainState::Whole { links: 53, removed: 46, .. }), "{chain:?}");

    house.household.prune().await.unwrap();
    assert_eq!(house.store().verify_chain().await.unwrap(), chain, "nothing to do leaves no trace");
}

#[tokio::test]
async fn old_copies_of_the_store_go() {
    let house = House::build();
    let copy = |schema: u32| house.dir.path().join(format!("store.db.schema-{schema}"));
    for schema in 1..=5 {
        fs_err::write(copy(schema), "a copy").unwrap();
    }
    house.household.prune().await.unwrap();
    assert_eq!((1..=5).map(|schema| copy(schema).exists()).collect::<Vec<_>>(), [false, false, true, true, true]);
}

#[tokio::test]
async fn a_clock_that_is_years_ahead_does_not_empty_the_history() {
    let house = House::build();
    for _ in 0..3 {
        house.run().await;
    }
    house.clock.set(night() + TimeDelta::days(9_000));
    house.household.prune().await.unwrap();
    assert_eq!(house.runs().await.len(), 3);
    // Nothing happened since, but what is there now is measured by what happens next.
    house.clock.set(night() + TimeDelta::days(31));
    house.run().await;
    house.household.prune().await.unwrap();
    assert_eq!(house.runs().await.len(), 1);
}

#[tokio::test]
async fn what_has_not_opened_with_its_gate_is_tried_again_until_it_does() {
    let mut house = House::half_open().await;
    assert!(house.store().gate(&desk()).await.unwrap().admits(night()), "the gate itself is open");
    assert_eq!(house.opening().await, Some((1, 15)));
    house.household.retry_openings().await.unwrap();
    assert_eq!(house.opening().await, Some((1, 15)), "its time has not come");
    for (attempts, pause) in [(2, 30), (3, 60), (4, 120), (5, 240), (6, 480), (7, 600), (8, 600)] {
        house.pass_secs(house.opening().await.unwrap().1);
        let failure = house.household.retry_openings().await.unwrap_err();
        assert!(failure.to_string().starts_with("desk: open the gate of desk everywhere: open the gate"), "{failure}");
        assert_eq!(house.opening().await, Some((attempts, pause)));
        house = house.again();
    }
    fs_err::remove_dir(house.nologin()).unwrap();
    fs_err::write(house.nologin(), "closed").unwrap();
    house.pass_secs(600);
    house.household.retry_openings().await.unwrap();
    assert!(!house.nologin().exists());
    assert_eq!(house.store().gate_opening(&desk()).await.unwrap(), None);
}

#[tokio::test]
async fn a_gate_that_is_closed_again_is_not_opened_by_a_late_try() {
    let house = House::half_open().await;
    fs_err::remove_dir(house.nologin()).unwrap();
    let keeper = &house.household.night.gatekeeper;
    keeper.close_by_hand(house.kit(), "bert", "closed once more", None).await.unwrap();
    assert_eq!(house.store().gate_opening(&desk()).await.unwrap(), None);
    house.pass_secs(3600);
    house.household.retry_openings().await.unwrap();
    assert!(house.nologin().is_file());
    // By hand it needs no second try, and leaves nothing to do.
    assert!(keeper.open_by_hand(house.kit()).await.unwrap());
    assert_eq!((house.nologin().exists(), house.store().gate_opening(&desk()).await.unwrap()), (false, None));
}

#[tokio::test]
async fn a_gate_that_was_opened_when_we_died_opens_everywhere_afterwards() {
    let house = House::build();
    fs_err::create_dir_all(house.nologin().parent().unwrap()).unwrap();
    house.household.night.gatekeeper.close_by_hand(house.kit(), "anna", "closed", None).await.unwrap();
    // The store's word is durable, and the file is still there.
    let owed = Some(Opening::begun(house.clock.now()));
    house.store().open_gate(&desk(), owed, |_| true).await.unwrap();
    let house = house.again();
    assert!(house.nologin().exists());
    house.household.retry_openings().await.unwrap();
    assert!(!house.nologin().exists());
    assert_eq!(house.store().gate_opening(&desk()).await.unwrap(), None);
}

#[tokio::test]
async fn newer_releases_are_looked_for_at_the_start_and_once_an_hour() {
    let mut house = House::build();
    let (at, failure) = house.check_feeds().await.unwrap();
    assert_eq!(
        (at, failure.unwrap().hint.unwrap()),
        (night(), "create the directory, mount it, or correct feed.dir".to_owned())
    );

    fs_err::create_dir(house.dir.path().join("releases")).unwrap();
    house.pass_secs(60);
    assert_eq!(house.check_feeds().await.unwrap().0, night(), "not before its time, also where it failed");
    let mut looks = Vec::new();
    for _ in 0..180 {
        house.pass_secs(60);
        let (at, failure) = house.check_feeds().await.unwrap();
        if at == house.clock.now() {
            assert_eq!(failure, None);
            looks.push(at);
        }
    }
    let pauses: Vec<i64> = looks.windows(2).map(|pair| (pair[1] - pair[0]).num_minutes()).collect();
    assert_eq!(pauses, [60, 60], "{looks:?}");

    // Another process looks when it starts, whenever the last look was.
    house = house.again();
    house.pass_secs(1);
    assert_eq!(house.check_feeds().await.unwrap().0, house.clock.now());
}

#[tokio::test]
async fn newer_releases_are_not_looked_for_where_nobody_wants_that() {
    let house = House::with(&format!("{DIR_FEED}updates = {{ check_at_start = false, check_every = \"never\" }}"));
    for _ in 0..50 {
        house.pass_secs(1_800);
        assert_eq!(house.check_feeds().await, None);
    }
}

#[tokio::test]
async fn nobody_looks_for_newer_releases_while_the_application_is_away() {
    let house = House::build();
    let run = house.store().queue_run(order(), night()).await.unwrap();
    house.log(run, 1, RunEvent::Started, RunHead { state: running(Step::Stop), away: true }).await;
    assert_eq!(house.check_feeds().await, None);
    house.pass_secs(60);
    house.log(run, 2, RunEvent::Committed, RunHead { state: running(Step::OpenGate), away: false }).await;
    assert_eq!(house.check_feeds().await.unwrap().0, house.clock.now(), "the look at the start is not lost");
}

#[tokio::test]
async fn a_daemon_that_stops_does_not_wait_for_a_feed() {
    let house = House::with("feed = { url = \"http://127.0.0.1:9/\" }\n");
    let lock = house.dir.path().join("apps/desk/feed/lock");
    fs_err::create_dir_all(lock.parent().unwrap()).unwrap();
    // Somebody else works with the feed, and does not come to an end.
    let held = std::fs::File::create(lock).unwrap();
    rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
    let stop = async {
        while house.household.looks.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        house.household.stop.cancel();
    };
    let both = async { tokio::join!(house.household.check_feeds(), stop).0 };
    tokio::time::timeout(Duration::from_secs(30), both).await.expect("it ends with the daemon").unwrap();
    assert_eq!(house.store().update_check(&desk()).await.unwrap(), None, "it was dropped");
}

#[tokio::test]
async fn what_is_known_of_an_application_goes_with_it() {
    let house = House::build();
    let gone: AppName = "gone".parse().unwrap();
    let check = UpdateCheck { at: night(), offer: None, failure: Some(Failure::new("ask the feed")) };
    house.store().note_update_check(&gone, check.clone()).await.unwrap();
    house.store().note_update_check(&desk(), check).await.unwrap();
    house.household.prune().await.unwrap();
    assert_eq!(house.store().update_check(&gone).await.unwrap(), None);
    assert!(house.store().update_check(&desk()).await.unwrap().is_some());
}

#[tokio::test]
async fn what_runs_have_left_is_removed_when_none_is_under_way() {
    let house = House::build();
    let staging = house.dir.path().join("opt/.desk.afterhours");
    fs_err::create_dir_all(staging.join("trash/1/deep")).unwrap();
    fs_err::write(staging.join("trash/1/deep/file"), "").unwrap();
    fs_err::set_permissions(&staging, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let run = house.store().queue_run(order(), night()).await.unwrap();
    house.log(run, 1, RunEvent::Started, RunHead { state: running(Step::Stop), away: true }).await;
    house.household.empty_trash().await.unwrap();
    assert!(staging.join("trash/1/deep/file").exists(), "a run needs the disk");
    let outcome = Outcome::RolledBack;
    let finished = RunHead { state: RunState::Finished { outcome }, away: false };
    house.log(run, 2, RunEvent::Finished { outcome }, finished).await;
    house.household.empty_trash().await.unwrap();
    assert_eq!(fs_err::read_dir(staging.join("trash")).unwrap().count(), 0);
}
