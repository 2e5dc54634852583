//! A daemon's worth of workstation protocol on a real Unix socket, and people made of channels.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use afterhours::api::door::Door as Entrance;
use afterhours::api::door::Patience;
use afterhours::api::door::Shares;
use afterhours::api::workstations::Admission;
use afterhours::api::workstations::Workstations;
use afterhours::api::workstations::router;
use afterhours::client::ui::Input;
use afterhours::client::ui::Scene;
use afterhours::client::ui::Ui;
use afterhours::client::workstation::Outcome;
use afterhours::client::workstation::RunOptions;
use afterhours::client::workstation::WorkstationError;
use afterhours::client::workstation::run;
use afterhours::domain::clock::Clock;
use afterhours::domain::clock::SystemClock;
use afterhours::domain::name::AppName;
use afterhours::domain::session::Answer;
use afterhours::domain::session::Census;
use afterhours::domain::session::Notice;
use afterhours::domain::session::Session;
use afterhours::domain::span::Span;
use afterhours::exec::process::start_ticks;
use afterhours::sessions::hub::Hub;
use afterhours::sessions::hub::HubError;
use afterhours::sessions::hub::SessionChange;
use afterhours::sessions::hub::Verdict;
use afterhours::sessions::notes::notes;
use afterhours::sessions::station::Member;
use afterhours::sessions::station::Peer;
use afterhours::wire::workstation::Process;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a condition is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) fn app() -> AppName {
    "orders".parse().unwrap()
}

/// Waits for a condition, with a bound.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The door: open, or closed with some passes left.
#[derive(Default)]
pub(crate) struct Door(pub(crate) Mutex<Option<u32>>);

impl Admission for Door {
    fn knows(&self, app: &AppName) -> bool {
        *app == self::app()
    }

    async fn counts(&self, _: &AppName, _: Option<Peer>, _: &str) -> bool {
        true
    }

    async fn refused(&self, _: String, _: Option<Peer>, _: Option<&str>, _: &HubError) {}

    async fn admit(&self, _: &AppName, _: Option<Peer>, _: &str) -> Verdict {
        match &mut *self.0.lock().unwrap() {
            None => Verdict::Admitted,
            Some(0) => Verdict::Refused { message: "The office is closed.".into(), until: Some(SystemClock.now()) },
            Some(passes) => {
                *passes -= 1;
                Verdict::AdmittedByPass
            }
        }
    }
}

/// What a store would hold.
type Memory = Arc<Mutex<Vec<Member>>>;

pub(crate) struct Daemon {
    pub(crate) hub: Arc<Hub>,
    pub(crate) door: Arc<Door>,
    pub(crate) memory: Memory,
    /// How often something was written down.
    pub(crate) writes: Arc<AtomicUsize>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Daemon {
    pub(crate) fn start(socket: &Path, known_before: Vec<Member>) -> Self {
        let memory = Memory::new(Mutex::new(known_before.clone()));
        let (changes, mut read) = notes();
        let (store, writes) = (Arc::clone(&memory), Arc::new(AtomicUsize::new(0)));
        let written = Arc::clone(&writes);
        tokio::spawn(async move {
            loop {
                let batch = read.next().await;
                if batch.is_empty() {
                    return;
                }
                written.fetch_add(1, Ordering::Relaxed);
                for change in batch {
                    keep(&mut store.lock().unwrap(), change.what);
                    for remembered in change.remembered {
                        let _ = remembered.send(());
                    }
                }
            }
        });
        let hub = Hub::new(known_before, Arc::new(SystemClock), Some(changes));
        let (door, stop) = (Arc::new(Door::default()), CancellationToken::new());
        let _ = fs_err::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let routes = router(Workstations { hub: Arc::clone(&hub), admission: Arc::clone(&door), stop: stop.clone() });
        let stopped = stop.clone();
        let caps = Shares::of(65_536, 16).workstations;
        let entrance = Entrance::new("test", listener, routes, caps, Patience::default());
        let server = tokio::spawn(entrance.serve(stopped));
        Self { hub, door, memory, writes, stop, server }
    }

    /// Ends it; what it remembers.
    pub(crate) async fn stop(self) -> Vec<Member> {
        self.stop.cancel();
        self.server.await.unwrap();
        self.memory.lock().unwrap().clone()
    }

    pub(crate) fn sessions(&self) -> Vec<Session> {
        match self.hub.census(&app()) {
            Census::Known(sessions) => sessions,
            Census::Unknown(_) => Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hub.census(&app()).is_known_empty()
    }

    /// Waits until `count` programs are known to run.
    pub(crate) async fn running(&self, count: usize) {
        until("the programs run", || {
            // What is remembered is a moment behind: it may still be of a program that has ended.
            let runs = |program: Process| start_ticks(program.pid) == Some(program.start_ticks);
            let started = self.memory.lock().unwrap().iter().filter(|member| member.program.is_some_and(runs)).count();
            started >= count && self.sessions().len() == count
        })
        .await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.memory.lock().unwrap()[0].program.unwrap().pid
    }
}

fn keep(members: &mut Vec<Member>, what: SessionChange) {
    match what {
        SessionChange::Joined(member) => {
            members.retain(|known| known.session.id != member.session.id);
            members.push(member);
        }
        SessionChange::Answered { session, answer, .. } => {
            members.iter_mut().filter(|m| m.session.id == session).for_each(|m| m.session.answer = answer);
        }
        SessionChange::Left { session, .. } => members.retain(|known| known.session.id != session),
    }
}

/// A person at a workstation, from the test's side.
pub(crate) struct Person {
    pub(crate) scenes: Arc<Mutex<Vec<Scene>>>,
    say: mpsc::UnboundedSender<Input>,
    client: JoinHandle<Result<Outcome, WorkstationError>>,
    pub(crate) stop: CancellationToken,
}

struct Script {
    scenes: Arc<Mutex<Vec<Scene>>>,
    heard: mpsc::UnboundedReceiver<Input>,
}

impl Ui for Script {
    fn show(&mut self, scene: &Scene) {
        self.scenes.lock().unwrap().push(scene.clone());
    }

    async fn input(&mut self) -> Input {
        match self.heard.recv().await {
            Some(input) => input,
            None => std::future::pending().await,
        }
    }
}

pub(crate) fn options(socket: &Path, script: &str) -> RunOptions {
    RunOptions {
        socket: socket.to_owned(),
        app: app(),
        program: vec!["sh".into(), "-c".into(), script.into()],
        user: "anna".into(),
        workstation: "pc-3".into(),
        interactive: true,
        answer: None,
        without_daemon: false,
        stop: CancellationToken::new(),
    }
}

impl Person {
    pub(crate) fn sits_down(options: RunOptions) -> Self {
        let scenes = Arc::new(Mutex::new(Vec::new()));
        let (say, heard) = mpsc::unbounded_channel();
        let stop = options.stop.clone();
        let mut ui = Script { scenes: Arc::clone(&scenes), heard };
        let client = tokio::spawn(async move { run(&options, &mut ui).await });
        Self { scenes, say, client, stop }
    }

    pub(crate) fn says(&self, answer: Answer) {
        self.say.send(Input::Answer(answer)).unwrap();
    }

    pub(crate) fn presses_start(&self) {
        self.say.send(Input::Start).unwrap();
    }

    pub(crate) async fn sees(&self, what: &str, matches: impl Fn(&Scene) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.saw(&matches) {
            assert!(Instant::now() < deadline, "never saw {what}, only {:?}", self.scenes.lock().unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn saw(&self, matches: impl Fn(&Scene) -> bool) -> bool {
        self.scenes.lock().unwrap().iter().any(matches)
    }

    pub(crate) async fn outcome(self) -> Outcome {
        self.result().await.unwrap()
    }

    pub(crate) async fn error(self) -> WorkstationError {
        self.result().await.unwrap_err()
    }

    async fn result(self) -> Result<Outcome, WorkstationError> {
        tokio::time::timeout(PATIENCE, self.client).await.expect("the client ends").unwrap()
    }
}

pub(crate) fn notice(in_secs: u64) -> Notice {
    Notice {
        title: "Order desk".into(),
        reason: "Version 2 is installed tonight.".into(),
        ends_at: SystemClock.now() + Span::secs(in_secs).delta(),
        back_at: None,
    }
}
