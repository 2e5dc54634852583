//! The effects of a run: one file a step, with its act and, where the table says so, its undo.
//!
//! Every act and every undo can be done twice. None of them decides what comes next; they answer with
//! [`Done`] or with the [`Failure`] a person will read. To add a step, add its row to the table in
//! [`crate::domain::step`]; the two matches below are what the compiler then asks for.

/// Turns an adapter's result into a step's; the adapter knows the remedy.
macro_rules! or_fail {
    ($result:expr) => {
        $result.map_err(|error| $crate::jobs::steps::failed(&error, error.hint()))?
    };
}

mod announce;
mod backup;
mod check_health;
mod clean_up;
mod close_gate;
mod download;
mod grace;
mod log_out;
mod migrate_data;
mod open_gate;
mod preflight;
mod report;
mod select;
mod self_update;
mod snapshot;
mod start;
mod stop;
mod swap;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use chrono::Utc;
use tokio::sync::broadcast;

use crate::config::places::Unfit;
use crate::config::settings::AppSettings;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::answers::Before;
use crate::domain::command::Command;
use crate::domain::event::How;
use crate::domain::failure::Failure;
use crate::domain::name::AppName;
use crate::domain::progress::Progress;
use crate::domain::progress::Silent;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::run::RunId;
use crate::domain::run::RunState;
use crate::domain::run::Side;
use crate::domain::session::Census;
use crate::domain::span::Span;
use crate::domain::step::At;
use crate::domain::step::Step;
use crate::domain::step::sequence;
use crate::exec::Exec;
use crate::exec::ExecError;
use crate::exec::leftover;
use crate::exec::leftover::Remaining;
use crate::exec::permit;
use crate::exec::permit::Refusal;
use crate::feed::FeedError;
use crate::jobs::driver::Done;
use crate::jobs::driver::Live;
use crate::jobs::driver::Steps;
use crate::jobs::gatekeeper::Gatekeeper;
use crate::jobs::kept;
use crate::jobs::kept::Kept;
use crate::jobs::kit::Kit;
use crate::jobs::kit::Kits;
use crate::jobs::kit::SharedClock;
use crate::jobs::machine::Machine;
use crate::jobs::mark;
use crate::jobs::plan::learnt_downtime_ms;

/// The steps upon real applications.
#[derive(Debug)]
pub struct Night {
    /// The applications.
    pub kits: Kits,
    /// The settings with which runs began.
    pub kept: Kept,
    /// The applications with which nothing is done, and why.
    pub unfit: BTreeMap<String, Unfit>,
    /// For gates, the outbox, followers and the quarantine.
    pub store: Store,
    /// Moves gates.
    pub gatekeeper: Gatekeeper,
    /// The time.
    pub clock: SharedClock,
    /// Who watches the progress of long work.
    pub live: broadcast::Sender<Live>,
}

/// What one step of one run works with.
struct Context<'a> {
    night: &'a Night,
    kit: &'a Kit,
    run: RunId,
    at: At,
    how: How,
    machine: &'a Machine,
}

impl Steps for Night {
    async fn act(&self, run: RunId, at: At, how: How, machine: Arc<Machine>) -> Result<Done, Failure> {
        let kit = self.kit(run, &machine)?;
        let context = Context { night: self, kit: &kit, run, at, how, machine: &machine };
        match at.step {
            Step::Preflight => {
                self.keep_settings(&context).await?;
                preflight::act(&context).await
            }
            Step::SelfUpdate => self_update::act(&context).await,
            Step::Select => select::act(&context).await,
            Step::Download => download::act(&context).await,
            Step::Backup => backup::act(&context).await,
            Step::SnapshotAhead => snapshot::act_ahead(&context).await,
            Step::CloseGate => close_gate::act(&context).await,
            Step::Announce => announce::act(&context).await,
            Step::Grace => grace::act(&context).await,
            Step::LogOut => log_out::act(&context).await,
            Step::Stop => stop::act(&context).await,
            Step::Snapshot => snapshot::act(&context).await,
            Step::Swap => swap::act(&context).await,
            Step::MigrateData => migrate_data::act(&context).await,
            Step::Start => start::act(&context).await,
            Step::CheckHealth => check_health::act(&context).await,
            Step::OpenGate => open_gate::act(&context).await,
            Step::Report => report::act(&context).await,
            Step::CleanUp => clean_up::act(&context).await,
        }
    }

    async fn undo(&self, run: RunId, at: At, machine: Arc<Machine>) -> Result<String, Failure> {
        let kit = self.kit(run, &machine)?;
        let context = Context { night: self, kit: &kit, run, at, how: How::Act, machine: &machine };
        match at.step {
            Step::CloseGate => close_gate::undo(&context).await,
            Step::Announce => announce::undo(&context).await,
            Step::Stop => stop::undo(&context).await,
            Step::Swap => swap::undo(&context).await,
            Step::MigrateData => migrate_data::undo(&context).await,
            Step::Start => start::undo(&context).await,
            // The table gives them nothing to undo; the engine does not ask.
            Step::Preflight
            | Step::SelfUpdate
            | Step::Select
            | Step::Download
            | Step::Backup
            | Step::SnapshotAhead
            | Step::Grace
            | Step::LogOut
            | Step::Snapshot
            | Step::CheckHealth
            | Step::OpenGate
            | Step::Report
            | Step::CleanUp => Ok(String::new()),
        }
    }

    fn unfit(&self, app: &AppName) -> Option<&str> {
        self.unfit.get(app.as_str()).map(|unfit| unfit.why.as_str())
    }

    async fn clear_up(&self, run: RunId, at: At, machine: Arc<Machine>) -> Result<(), Failure> {
        let kit = self.kit(run, &machine)?;
        let context = Context { night: self, kit: &kit, run, at, how: How::Act, machine: &machine };
        context.end_leftovers().await?;
        let forward = matches!(machine.state(), RunState::Running { .. });
        if forward && machine.is_away() {
            context.must_not_have_gone_back().await?;
            if at.step.needs_rest() {
                or_fail!(kit.service.stop(&context.marked_env().await?).await);
            }
            // The machine may have been down with us, and nobody but us starts what is held.
            if at.step == Step::CheckHealth {
                or_fail!(kit.service.start(&context.env()).await);
            }
        }
        Ok(())
    }
}

impl Night {
    /// The adapters of a run, or why there are none.
    fn kit(&self, run: RunId, machine: &Machine) -> Result<Arc<Kit>, Failure> {
        let app = &machine.order().app;
        self.kit_of(run, app).cloned().ok_or_else(|| {
            if let Some(unfit) = self.unfit.get(app.as_str()) {
                let failure = Failure::new(format!("work on {app}")).because(&unfit.why);
                return Failure { hint: unfit.hint.clone(), ..failure };
            }
            Failure::new(format!("find the application {app} in the configuration"))
                .hint(format!("put [app.{app}] back, or `afterhours job delete` what needs it"))
        })
    }

    /// The adapters of a run: those with which it began, where the configuration has changed since.
    pub fn kit_of(&self, run: RunId, app: &AppName) -> Option<&Arc<Kit>> {
        self.kept.kits.get(&run).or_else(|| self.kits.get(app))
    }

    /// The adapters of an application; while a run goes on with other settings than those of now, that run's.
    pub fn kit_for(&self, app: &AppName) -> Option<&Arc<Kit>> {
        self.kits.get(app).or_else(|| self.kept.kits.values().find(|kit| kit.app.name == *app))
    }

    /// Before anything is done: whatever becomes of the configuration, the run comes to its end.
    async fn keep_settings(&self, context: &Context<'_>) -> Result<(), Failure> {
        let Some(text) = self.kept.texts.get(&context.kit.app.name).cloned() else { return Ok(()) };
        let (dir, run) = (context.kit.state_dir.clone(), context.run);
        let kept = tokio::task::spawn_blocking(move || kept::keep(&dir, run, &text)).await;
        let kept = kept.map_err(|error| Failure::from_error(&error))?;
        kept.map_err(|error| Failure::new("keep the settings with which the run begins").because(error.to_string()))
    }
}

impl Context<'_> {
    /// The version path.
    fn path(&self) -> &[Release] {
        self.machine.known().path.as_deref().unwrap_or_default()
    }

    /// The release that this step of this build is about.
    fn release(&self) -> Result<&Release, Failure> {
        self.path()
            .get(self.at.build as usize)
            .ok_or_else(|| Failure::new(format!("find build {} of the version path", self.at.build + 1)))
    }

    /// What is installed before this build.
    fn from(&self) -> Option<&ReleaseId> {
        match self.at.build.checked_sub(1) {
            Some(before) => self.path().get(before as usize).map(|release| &release.id),
            None => self.machine.known().from.as_ref(),
        }
    }

    /// Whether the application that shall be mended is verified down.
    async fn is_down(&self) -> bool {
        self.machine.order().repair && self.kit.service.is_down().await
    }

    /// Who is logged in. Where the application is verified down, what its own interface cannot say is that nobody is.
    async fn census(&self) -> Census {
        match self.kit.sessions.census().await {
            Census::Unknown(_) if self.is_down().await => self.kit.sessions.census_of_what_is_down().await,
            census => census,
        }
    }

    /// After a person's word about a stuck run: the application may be down, and nobody but us can start one that
    /// is held or supervised. One that runs is left alone. Why users must not be let in, if it is so.
    async fn bring_up_resolved(&self) -> Result<Option<Failure>, Failure> {
        let Some(resolved) = &self.machine.known().resolved else { return Ok(None) };
        or_fail!(self.kit.installer.lift_hold().await);
        match self.must_answer(resolved.side).await {
            Err(failure) if resolved.open_gate => {
                tracing::warn!(run.id = self.run.0, %failure, "users are let in all the same, as {} says", resolved.by);
                Ok(None)
            }
            answer => Ok(answer.err()),
        }
    }

    /// Starts what a person says is the good version, and waits until it answers its health check.
    async fn must_answer(&self, side: Side) -> Result<(), Failure> {
        let known = self.machine.known();
        let started = self.kit.service.start(&self.env()).await;
        // Before the run it was down, and is no worse now.
        if side == Side::Old && matches!(known.before, Some(Before::Down)) {
            return Ok(());
        }
        or_fail!(started);
        if side == Side::Old && self.machine.was_ill() {
            return Ok(());
        }
        let env = match side {
            Side::Old => self.kit.standing_env(self.run, known.from.as_ref()),
            Side::New => self.kit.hook_env(self.run, self.from(), self.path().last().map(|release| &release.id)),
        };
        or_fail!(self.kit.probe.wait_healthy(self.machine.answers_of(side).as_ref(), &env, &Silent).await);
        Ok(())
    }

    /// Nobody is let in to an application that does not answer; a person opens the gate when it does.
    async fn leave_closed(&self, failure: &Failure) -> Result<String, Failure> {
        let app = &self.kit.app;
        let message = closed_message(&app.title);
        self.night.gatekeeper.leave_closed(self.kit, self.run, &message).await?;
        let name = &app.name;
        Ok(format!(
            "the gate STAYS CLOSED: {name} does not answer ({failure}); when it does, `afterhours gate open {name}`"
        ))
    }

    /// Before the log took it, we may have put everything back, and died. What the log says to be in place is looked
    /// for; a swap that was interrupted may be done.
    async fn must_not_have_gone_back(&self) -> Result<(), Failure> {
        let Some(release) = self.machine.in_place() else { return Ok(()) };
        let installer = &self.kit.installer;
        let done = self.at.step == Step::Swap && or_fail!(installer.is_swapped(&self.release()?.id).await);
        if done || or_fail!(installer.is_swapped(&release.id).await) {
            return Ok(());
        }
        Err(Failure::new(format!("find {} in place: it was taken back", release.id)))
    }

    /// The variables every hook sees.
    fn env(&self) -> BTreeMap<String, String> {
        let to = self.path().get(self.at.build as usize).map(|release| &release.id);
        self.kit.hook_env(self.run, self.from(), to)
    }

    /// The same for a command that leaves nothing behind; should we die, it is known by [`leftover::MARK`].
    async fn marked_env(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut env = self.env();
        env.insert(leftover::MARK.to_owned(), self.mark().await?);
        Ok(env)
    }

    /// The secret of this step of this run.
    async fn mark(&self) -> Result<String, Failure> {
        let (dir, run) = (self.kit.state_dir.clone(), self.run);
        let drawn = tokio::task::spawn_blocking(move || mark::draw(&dir, run)).await;
        let drawn = drawn.map_err(|error| Failure::from_error(&error))?;
        Ok(of_step(&drawn.map_err(|error| Failure::from_error(&error))?, self.at))
    }

    /// Ends everything that commands of the whole run have left running, before what they may write to is put back.
    async fn end_all_leftovers(&self) -> Result<(), Failure> {
        self.end_left(sequence(self.machine.builds())).await.map(drop)
    }

    /// Ends the commands of this step that outlived the process that ran them, or left their children behind. How many
    /// there were.
    async fn end_leftovers(&self) -> Result<usize, Failure> {
        self.end_left(vec![self.at]).await
    }

    async fn end_left(&self, steps: Vec<At>) -> Result<usize, Failure> {
        let (app, dir, run) = (self.kit.app.clone(), self.kit.state_dir.clone(), self.run);
        let looked = tokio::task::spawn_blocking(move || (mark::find(&dir, run), keepers_of_data(&app))).await;
        let (secret, keepers) = looked.map_err(|error| Failure::from_error(&error))?;
        let secret = secret.map_err(|error| Failure::from_error(&error))?;
        let secrets: Vec<String> =
            secret.iter().flat_map(|secret| steps.iter().map(move |at| of_step(secret, *at))).collect();
        let snapshot = format!("AFTERHOURS_SNAPSHOT={}/", self.kit.installer.snapshot_path(self.run).display());
        let is_mark = move |uid: u32, variable: &[u8]| {
            let marked = variable.strip_prefix(leftover::MARK.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
            let is_ours = |value: &[u8]| secrets.iter().any(|it| leftover::mark_of(it, uid).as_bytes() == value);
            marked.is_some_and(is_ours) || (keepers.contains(&uid) && variable.starts_with(snapshot.as_bytes()))
        };
        let ended = leftover::end(is_mark).await;
        match ended {
            Ok(ended) if ended.is_empty() => Ok(0),
            Ok(ended) => {
                tracing::warn!(run.id = self.run.0, step = %self.at, ?ended, "ended what commands had left running");
                Ok(ended.len())
            }
            Err(Remaining::Alive(left)) => {
                Err(Failure::new(format!("end what was left running of {}: processes {left:?} would not go", self.at))
                    .hint("see what they wait for, and end them by hand"))
            }
            Err(Remaining::Unknown(scarce)) => {
                let failure =
                    Failure::new(format!("find what was left running of {}: the processes cannot be read", self.at));
                Err(Failure { scarce, ..failure })
            }
        }
    }

    /// When users are expected to be back, if they have until `grace_ends_at`: by what past nights took, else by
    /// what the settings allow.
    async fn back_at(&self, grace_ends_at: DateTime<Utc>) -> DateTime<Utc> {
        let app = &self.kit.app;
        let away = match learnt_downtime_ms(self.kit, &self.night.store).await {
            Some(ms) => Span::from(Duration::from_millis(ms)),
            None => Span::from(app.service.deadline.duration() + app.health.deadline.duration()),
        };
        grace_ends_at + away.delta()
    }

    /// Runs a hook of the administrator's, if there is one.
    async fn hook(&self, name: &str, command: Option<&Command>) -> Result<(), Failure> {
        let Some(command) = command else { return Ok(()) };
        let exec = Exec::of(command, self.kit.app.hooks.deadline).envs(&self.marked_env().await?);
        let ended = exec.run().await;
        if ended.is_err() {
            // What will not go is named by the way back, which asks again.
            let _ = self.end_leftovers().await;
        }
        ended
            .map(drop)
            .map_err(|error| failed(&error, Some(format!("the hook {name} of {} must end with 0", self.kit.app.name))))
    }

    /// Tells whoever watches how far long work is.
    fn progress(&self) -> Arc<dyn Progress> {
        Arc::new(Reporter { live: self.night.live.clone(), run: self.run, at: self.at })
    }
}

/// The secret of one step of a run.
fn of_step(secret: &str, at: At) -> String {
    format!("{secret}/{at}")
}

/// The users as whom the data are dumped and put back: such a command is known by where the dump is.
fn keepers_of_data(app: &AppSettings) -> BTreeSet<u32> {
    let commands = app.commands().into_iter().filter(|(key, _)| key.starts_with("data."));
    commands.filter_map(|(_, command)| permit::account_of(command).ok()).map(|account| account.uid).collect()
}

/// What users read where only a person can help.
fn closed_message(title: &str) -> String {
    format!("{title} is closed. Please ask your administrator.")
}

struct Reporter {
    live: broadcast::Sender<Live>,
    run: RunId,
    at: At,
}

impl Progress for Reporter {
    fn advance(&self, done: u64, total: Option<u64>, what: &str) {
        // Nobody may be watching.
        let _ = self.live.send(Live::Progress { run: self.run, at: self.at, done, total, what: what.to_owned() });
    }
}

/// An error of an adapter, with what a person can do about it, what a script knows it by, and what the command below it
/// said, if there was one.
pub(crate) fn failed<E: Error + 'static>(error: &E, hint: Option<String>) -> Failure {
    let chain = std::iter::successors(Some(error as &(dyn Error + 'static)), |error| (*error).source());
    let said = chain.clone().filter_map(|error| error.downcast_ref::<ExecError>()).flat_map(ExecError::said);
    // What may not be run is not mended by running it by hand.
    let refused = chain.clone().find_map(|error| error.downcast_ref::<Refusal>()).map(Refusal::remedy);
    let hint = refused.or(hint);
    let code = chain.clone().filter_map(|error| error.downcast_ref::<FeedError>()).find_map(FeedError::code);
    let scarce = chain.filter_map(|error| error.downcast_ref::<StoreError>()).find_map(StoreError::scarce);
    let failure = Failure::from_error(error);
    Failure { said: said.cloned().collect(), hint, code, scarce: failure.scarce.or(scarce), ..failure }
}

/// `1 file`, `2 files`.
fn counted(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
