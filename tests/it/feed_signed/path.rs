//! Which releases a site takes: a vendor's signed feed, a store and a site number as they are on disk, and a clock of ours.

use std::path::Path;
use std::sync::Arc;

use afterhours::config;
use afterhours::db::store::Store;
use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::held::HeldBack;
use afterhours::domain::held::in_utc;
use afterhours::domain::job::Job;
use afterhours::domain::job::JobSpec;
use afterhours::domain::job::JobType;
use afterhours::domain::job::MisfirePolicy;
use afterhours::domain::job::StartCondition;
use afterhours::domain::name::AppName;
use afterhours::domain::release::Release;
use afterhours::domain::release::ReleaseId;
use afterhours::domain::release::Version;
use afterhours::domain::run::Order;
use afterhours::domain::run::RunId;
use afterhours::domain::run::Trigger;
use afterhours::domain::span::Span;
use afterhours::jobs::kit::Kit;
use afterhours::jobs::select::Selection;
use afterhours::jobs::select::Wish;
use afterhours::jobs::select::select;
use afterhours::jobs::site;
use afterhours::renewal::Origin;
use afterhours::renewal::Renewal;
use afterhours::sessions::hub::Hub;
use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use crate::feed_signed::small::Trade;

/// A vendor whose signatures hold longer than anything here takes.
async fn trade() -> Trade {
    let trade = Trade::with(&["--timestamp-holds", "60d", "--snapshot-holds", "60d"]).await;
    trade.clock.set(SystemClock.now());
    trade
}

/// A site of that vendor.
struct Desk<'t> {
    trade: &'t Trade,
    store: Store,
    settings: String,
}

impl<'t> Desk<'t> {
    /// One with these settings of its application.
    fn new(trade: &'t Trade, settings: &str) -> Self {
        let data = trade.path("data");
        fs_err::create_dir_all(&data).unwrap();
        site::draw(&data).unwrap();
        Self { trade, store: Store::open(&data.join("afterhours.db")).unwrap(), settings: settings.to_owned() }
    }

    /// What is put together when Afterhours starts.
    fn kit(&self) -> Kit {
        let data = self.trade.path("data");
        let text = format!(
            "[daemon]\ndata_dir = {data:?}\n[app.orders]\ninstall_dir = {install:?}\nservice = {{ none = true }}\n\
             sessions = []\nfeed = {{ url = \"{url}\", root = {root:?}, proxy = \"none\" }}\n{settings}\n",
            install = self.trade.path("opt/orders"),
            url = self.trade.server.url(),
            root = self.trade.path("orders/root.json"),
            settings = self.settings,
        );
        let settings = config::parse(&text, "test.toml").unwrap();
        let clock: Arc<dyn Clock> = Arc::clone(&self.trade.clock) as Arc<dyn Clock>;
        let origin = Origin { program: Path::new("/nowhere").to_owned(), args: None, config: None };
        let renewal = Arc::new(Renewal::new(&settings.daemon, origin));
        let hub = Hub::new(Vec::new(), Arc::clone(&clock), None);
        let number = site::read(&data).unwrap();
        Kit::new(&settings.apps[&app()], &data, number, &hub, clock, &renewal).unwrap()
    }

    async fn selects(&self, wish: &Wish) -> Selection {
        select(&self.kit(), &self.store, wish, self.trade.clock.now()).await.unwrap()
    }

    async fn newest(&self) -> Selection {
        self.selects(&Wish::newest()).await
    }

    /// What somebody reads whose order is refused: what, and what to do.
    async fn refuses(&self, to: Option<&str>) -> String {
        let wish = Wish { to: to.map(v), named_at: Some(self.trade.clock.now()), repair: false };
        let failure = select(&self.kit(), &self.store, &wish, self.trade.clock.now()).await.unwrap_err();
        let hint = failure.hint.clone().expect("every refusal has a remedy");
        format!("failed to {failure}; {hint}")
    }

    /// A run that was queued now.
    async fn run(&self, job: Option<&Job>, to: Option<&str>, trigger: Trigger) -> (RunId, Order) {
        let spec = job.map_or_else(|| spec("none", to), |job| job.spec.clone());
        let order = Order { job: job.map(|job| job.spec.name.clone()), ..Order::of_job(&spec, trigger, "anna") };
        let run = self.store.queue_run(order.clone(), self.trade.clock.now()).await.unwrap();
        (run, order)
    }

    /// A build fails here, now.
    async fn fails(&self, build: u64) {
        let (run, _) = self.run(None, None, Trigger::UpdateNow).await;
        let release = ReleaseId { version: v(&format!("{build}.0")), build };
        let reason = "check the health".to_owned();
        self.store.quarantine(&app(), &release, run, self.trade.clock.now(), reason).await.unwrap();
    }

    fn later(&self, by: TimeDelta) {
        self.trade.clock.set(self.trade.clock.now() + by);
    }
}

fn app() -> AppName {
    "orders".parse().unwrap()
}

fn v(version: &str) -> Version {
    version.parse().unwrap()
}

/// An order that is given now.
fn order(desk: &Desk<'_>, version: &str) -> Wish {
    Wish { to: Some(v(version)), named_at: Some(desk.trade.clock.now()), repair: false }
}

fn spec(name: &str, to: Option<&str>) -> JobSpec {
    JobSpec {
        name: name.parse().unwrap(),
        title: String::new(),
        kind: JobType::SoftwareUpdate,
        app: app(),
        remarks: String::new(),
        start: StartCondition::Immediate,
        grace: None,
        max_runtime: Span::hours(1),
        misfire: MisfirePolicy::Skip,
        misfire_tolerance: Span::hours(1),
        to: to.map(v),
        to_named_at: None,
        on_failure: None,
        mail: Vec::new(),
        repair: false,
    }
}

fn builds(path: &[Release]) -> Vec<u64> {
    path.iter().map(|release| release.id.build).collect()
}

fn held(selection: &Selection) -> Vec<String> {
    selection.held.iter().map(|held| held.sentence(in_utc)).collect()
}

fn early(selection: &Selection) -> Vec<String> {
    selection.early.iter().map(HeldBack::passed_over).collect()
}

fn until(selection: &Selection) -> DateTime<Utc> {
    selection.held[0].until().expect("it is open by itself some time")
}

const ONE: &str = "installed_version = \"1.0\"";

#[tokio::test]
async fn every_build_is_installed_in_its_order_and_a_refusal_says_what_to_do() {
    let trade = trade().await;
    for (build, more) in [(1, &[][..]), (2, &[]), (3, &["--barrier"]), (4, &["--min-version", "3.0"])] {
        trade.publish(build, &[more, &["--deltas", "0"]].concat());
    }
    let desk = Desk::new(&trade, ONE);
    assert_eq!(builds(&desk.newest().await.path), [2, 3, 4]);
    let third = desk.selects(&order(&desk, "3.0")).await;
    assert_eq!((builds(&third.path), third.remarks()), (vec![2, 3], Vec::new()));
    assert_eq!(
        desk.refuses(Some("9.0")).await,
        "failed to find a release 9.0 in the feed; the newest is 4.0 (build 4); name a version that the feed has, or none \
         for the newest"
    );

    let ahead = Desk::new(&trade, "installed_version = \"3.0\"");
    assert_eq!(
        ahead.refuses(Some("2.0")).await,
        "failed to go back from 3.0 (build 3) to 2.0 (build 2); an older version cannot be installed over a newer one's \
         data; restore a backup"
    );
    let same = ahead.selects(&order(&ahead, "3.0")).await;
    assert_eq!((builds(&same.path), same.nothing_because().as_str()), (vec![], "3.0 (build 3) is installed already"));
    let newest = Desk::new(&trade, "installed_version = \"4.0\"");
    assert_eq!(newest.newest().await.nothing_because(), "4.0 (build 4) is the newest release");

    // Where it is not known what is installed, nothing is jumped over on a guess.
    let unknown = Desk::new(&trade, "");
    assert_eq!(
        unknown.refuses(None).await,
        "failed to update to 4.0 (build 4): it needs at least version 3.0, and it is not known which version is \
         installed; set installed_version of the application"
    );
    assert_eq!(builds(&unknown.selects(&order(&unknown, "2.0")).await.path), [2]);
    trade.publish(5, &["--deltas", "0"]);
    assert_eq!(
        unknown.refuses(None).await,
        "failed to update to 5.0 (build 5): every update must pass 3.0 (build 3), and it is not known which version is \
         installed; set installed_version of the application"
    );
    trade.publish(6, &["--min-version", "5.5", "--yes", "--deltas", "0"]);
    assert_eq!(
        desk.refuses(None).await,
        "failed to update to 6.0 (build 6): it needs at least version 5.5, and there is no release between 5.0 (build 5) \
         and it that has that; name an earlier version with --to, or ask for a release with version 5.5 or later in the feed"
    );
    assert_eq!(builds(&desk.selects(&order(&desk, "5.0")).await.path), [2, 3, 4, 5]);
}

#[tokio::test]
async fn a_release_cools_down_unless_it_is_ordered_or_mends_a_hole() {
    let trade = trade().await;
    trade.publish(2, &["--deltas", "0"]);
    let desk = Desk::new(&trade, &format!("{ONE}\nupdates = {{ cool_down = \"1d\" }}"));
    let waiting = desk.newest().await;
    let published_at = waiting.rest[0].published_at.unwrap();
    assert_eq!((builds(&waiting.path), until(&waiting)), (vec![], published_at + TimeDelta::days(1)));
    assert_eq!(
        waiting.nothing_because(),
        format!(
            "2.0 (build 2) is held back until {} by the cool-down; name it with --to to take it now",
            in_utc(published_at + TimeDelta::days(1))
        )
    );
    let ordered = desk.selects(&order(&desk, "2.0")).await;
    assert_eq!(
        (builds(&ordered.path), early(&ordered)),
        (vec![2], vec!["2.0 (build 2) is installed in spite of its cool-down".to_owned()])
    );

    // A hole is mended at once, and what is on the way to it comes along; what is after it waits.
    trade.publish(3, &["--security", "--deltas", "0"]);
    trade.publish(4, &["--deltas", "0"]);
    let mended = desk.newest().await;
    assert_eq!((builds(&mended.path), early(&mended), mended.held.len()), (vec![2, 3], early(&ordered), 1));
    assert!(held(&mended)[0].starts_with("4.0 (build 4) is held back until "), "{:?}", held(&mended));

    trade.clock.set(until(&mended) - TimeDelta::seconds(1));
    assert_eq!(builds(&desk.newest().await.path), [2, 3]);
    desk.later(TimeDelta::seconds(1));
    let all = desk.newest().await;
    assert_eq!((builds(&all.path), all.remarks()), (vec![2, 3, 4], Vec::new()));
}

#[tokio::test]
async fn a_release_for_other_licences_ends_the_path_also_by_order() {
    let trade = trade().await;
    trade.publish(2, &["--deltas", "0"]);
    trade.publish(3, &["--licence", "pro", "--licence", "gold", "--deltas", "0"]);
    trade.publish(4, &["--deltas", "0"]);
    let desk = Desk::new(&trade, &format!("{ONE}\nupdates = {{ licence_class = \"basic\" }}"));
    let newest = desk.newest().await;
    assert_eq!(builds(&newest.path), [2]);
    assert_eq!(
        held(&newest),
        [
            "3.0 (build 3) is for licences of the class pro or gold only; where this site has one, set licence_class of \
             `updates`",
            "4.0 (build 4) comes after 3.0 (build 3)"
        ]
    );
    for ordered in ["3.0", "4.0"] {
        assert_eq!(
            desk.refuses(Some(ordered)).await,
            "failed to update to 3.0 (build 3): it is for licences of the class pro or gold only, and this site's is \
             basic; name an earlier version with --to; where this site has such a licence, say so with licence_class of \
             `updates`"
        );
    }
    assert_eq!(builds(&desk.selects(&order(&desk, "2.0")).await.path), [2]);
    let gold = Desk::new(&trade, &format!("{ONE}\nupdates = {{ licence_class = \"gold\" }}"));
    assert_eq!(builds(&gold.newest().await.path), [2, 3, 4]);
}

#[tokio::test]
async fn each_site_has_a_place_in_a_rollout_that_it_keeps() {
    let trade = trade().await;
    let start = trade.clock.now() + TimeDelta::hours(1);
    let start = DateTime::from_timestamp(start.timestamp(), 0).unwrap();
    trade.publish(2, &["--rollout-hours", "40", "--rollout-start", &start.to_rfc3339(), "--deltas", "0"]);
    let desk = Desk::new(&trade, ONE);
    let number = fs_err::read_to_string(trade.path("data/site-id")).unwrap();
    let turn = until(&desk.newest().await);
    assert!((start..start + TimeDelta::hours(40)).contains(&turn), "{turn}");
    // The number is kept, and with it the place.
    drop(desk);
    let desk = Desk::new(&trade, ONE);
    assert_eq!(fs_err::read_to_string(trade.path("data/site-id")).unwrap(), number);
    trade.clock.set(turn - TimeDelta::seconds(1));
    let waiting = desk.newest().await;
    assert_eq!(
        (builds(&waiting.path), waiting.nothing_because()),
        (
            vec![],
            format!(
                "2.0 (build 2) is held back until {} by its rollout; name it with --to to take it now",
                in_utc(turn)
            )
        )
    );
    let ordered = desk.selects(&order(&desk, "2.0")).await;
    assert_eq!(
        (builds(&ordered.path), early(&ordered)),
        (vec![2], vec!["2.0 (build 2) is installed in spite of its turn in the rollout".to_owned()])
    );
    let at_once = Desk::new(&trade, &format!("{ONE}\nupdates = {{ rollout = false }}"));
    assert_eq!(builds(&at_once.newest().await.path), [2]);
    desk.later(TimeDelta::seconds(1));
    assert_eq!(builds(&desk.newest().await.path), [2]);

    // These two numbers are an early place and a late one, for whoever computes them, for ever.
    trade.clock.set(start);
    let mut turns = Vec::new();
    for number in [EARLY, LATE] {
        fs_err::write(trade.path("data/site-id"), number).unwrap();
        turns.push((until(&desk.newest().await) - start).num_minutes());
    }
    assert_eq!(turns, [EARLY_MINUTES, LATE_MINUTES]);
    fs_err::remove_file(trade.path("data/site-id")).unwrap();
    assert_eq!(until(&desk.newest().await), start + TimeDelta::hours(40), "who has no number is the last");
    fs_err::write(trade.path("data/site-id"), "here").unwrap();
    let unreadable = site::read(&trade.path("data")).unwrap_err();
    assert!(unreadable.to_string().contains("remove the file, and another one is drawn"), "{unreadable}");
}

const EARLY: &str = "00000000-0000-4000-8000-000000000003";
const EARLY_MINUTES: i64 = 21;
const LATE: &str = "00000000-0000-4000-8000-00000000002b";
const LATE_MINUTES: i64 = 2341;

#[tokio::test]
async fn what_failed_here_is_tried_again_only_when_a_person_says_so() {
    let trade = trade().await;
    for build in [2, 3, 4] {
        trade.publish(build, &["--deltas", "0"]);
    }
    let desk = Desk::new(&trade, ONE);
    desk.fails(3).await;
    let stopped = desk.newest().await;
    assert_eq!(builds(&stopped.path), [2]);
    assert_eq!(
        held(&stopped),
        [
            "3.0 (build 3) failed here before and is not tried again by itself (`afterhours update allow 3.0`)",
            "4.0 (build 4) comes after 3.0 (build 3)"
        ]
    );
    // Time alone changes nothing, nor does a restart.
    desk.later(TimeDelta::days(20));
    assert_eq!(builds(&desk.newest().await.path), [2]);
    let again = Desk::new(&trade, ONE);
    assert_eq!(builds(&again.newest().await.path), [2]);

    let ordered = desk.selects(&order(&desk, "4.0")).await;
    assert_eq!(
        (builds(&ordered.path), early(&ordered)),
        (vec![2, 3, 4], vec!["3.0 (build 3) is installed although it failed here before".to_owned()])
    );
    let given = order(&desk, "4.0");
    desk.later(TimeDelta::minutes(10));
    desk.fails(3).await;
    assert_eq!(builds(&desk.selects(&given).await.path), [2], "an order is carried out once");

    assert!(desk.store.allow_release(&app(), &v("3.0")).await.unwrap());
    let allowed = desk.newest().await;
    assert_eq!((builds(&allowed.path), allowed.remarks()), (vec![2, 3, 4], Vec::new()));
}

#[tokio::test]
async fn a_runs_order_is_as_old_as_the_word_of_the_person_behind_it() {
    let trade = trade().await;
    let desk = Desk::new(&trade, ONE);
    let begun = trade.clock.now();
    let hour = |n| begun + TimeDelta::hours(n);
    let job = |name, to, to_named_at| Job {
        spec: JobSpec { to_named_at, ..spec(name, to) },
        enabled: true,
        due_at: None,
        missed_at: None,
        created_by: "anna".to_owned(),
        created_at: begun,
        updated_at: hour(3),
    };
    let jobs = [job("named", Some("3.0"), Some(hour(2))), job("earlier", Some("3.0"), None), job("newest", None, None)];
    for job in &jobs {
        desk.store.create_job(job.clone()).await.unwrap();
    }
    trade.clock.set(hour(5));
    let wish = async |job: Option<&Job>, to, trigger| {
        let (run, order) = desk.run(job, to, trigger).await;
        Wish::of_run(&desk.store, run, &order).await.unwrap()
    };
    let three = |named_at| Wish { to: Some(v("3.0")), named_at, repair: false };
    // Where a job starts by itself, it is when its version was named; whatever else was changed of it later.
    for trigger in [Trigger::Schedule, Trigger::Misfire { missed_at: begun }, Trigger::After { run: RunId(1) }] {
        assert_eq!(wish(Some(&jobs[0]), None, trigger).await, three(Some(hour(2))));
    }
    assert_eq!(wish(Some(&jobs[1]), None, Trigger::Schedule).await, three(Some(begun)));
    assert_eq!((Wish::of_job(&jobs[0]), Wish::of_job(&jobs[1])), (three(Some(hour(2))), three(Some(begun))));
    // Who starts it by hand says so once more.
    assert_eq!(wish(Some(&jobs[0]), None, Trigger::Manual).await, three(Some(hour(5))));
    assert_eq!(wish(None, Some("3.0"), Trigger::UpdateNow).await, three(Some(hour(5))));
    for (job, trigger) in [(Some(&jobs[2]), Trigger::Manual), (None, Trigger::UpdateNow)] {
        assert_eq!(wish(job, None, trigger).await, Wish::newest(), "without a version it is no order");
    }
    // Nobody stands behind a job that is gone.
    let (run, order) = desk.run(Some(&jobs[0]), None, Trigger::Schedule).await;
    desk.store.delete_job(&jobs[0].spec.name, hour(5)).await.unwrap();
    assert_eq!(Wish::of_run(&desk.store, run, &order).await.unwrap(), three(None));
}
