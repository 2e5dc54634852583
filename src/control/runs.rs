//! Runs: list, show, follow, cancel, retry, resolve, bundle; and `update now`.

use tokio::sync::broadcast;

use crate::control::Caller;
use crate::control::Control;
use crate::control::error::ControlError;
use crate::db::runs::RunFilter;
use crate::db::store::StoreError;
use crate::domain::event::LoggedEvent;
use crate::domain::event::RunEvent;
use crate::domain::failure::Failure;
use crate::domain::job::JobType;
use crate::domain::job::MAX_RUNTIME_DEFAULT;
use crate::domain::name::AppName;
use crate::domain::release::Version;
use crate::domain::run::Order;
use crate::domain::run::RunId;
use crate::domain::run::RunState;
use crate::domain::run::Side;
use crate::domain::run::Trigger;
use crate::jobs::decide::Decision;
use crate::jobs::decide::decide;
use crate::jobs::driver::Live;
use crate::jobs::engine::EngineError;
use crate::jobs::history::view;
use crate::jobs::kit::Kit;
use crate::jobs::machine::IllegalEvent;
use crate::jobs::machine::Machine;
use crate::jobs::select::Wish;
use crate::jobs::select::objection;
use crate::jobs::steps::failed;
use crate::wire::app::UpdateNow;
use crate::wire::run::LookView;
use crate::wire::run::ResolveRun;
use crate::wire::run::RunStateName;
use crate::wire::run::RunView;
use crate::wire::run::RunsQuery;

impl Control {
    /// One run with all its steps.
    ///
    /// # Errors
    /// There is no such run, or its log cannot be read.
    pub async fn run_view(&self, run: RunId) -> Result<RunView, ControlError> {
        let row = self.store.run(run).await?;
        let events = self.store.events(run, 0).await?;
        let mut view = view(&row, &events).map_err(|error| ControlError::Failed(Failure::from_error(&error)))?;
        self.tell_of_report(&mut view).await?;
        Ok(view)
    }

    pub(super) async fn run_views(&self, filter: RunFilter) -> Result<Vec<RunView>, ControlError> {
        let mut views = Vec::new();
        for row in self.store.runs(filter).await? {
            let events = match self.store.events(row.id, 0).await {
                // It must not hide the others; `status` names it, and so does whoever asks for it alone.
                Err(StoreError::Corrupt { .. }) => continue,
                events => events?,
            };
            // A run that is only armed has not begun: nobody asked for it yet.
            if events.is_empty() && row.due_at.is_some_and(|due_at| due_at > self.now()) {
                continue;
            }
            let view = view(&row, &events);
            let mut view = view.map_err(|error| ControlError::Failed(Failure::from_error(&error)))?;
            self.tell_of_report(&mut view).await?;
            views.push(view);
        }
        Ok(views)
    }

    /// Runs, the newest first.
    ///
    /// # Errors
    /// The store fails.
    pub async fn runs(&self, query: RunsQuery) -> Result<Vec<RunView>, ControlError> {
        let filter = RunFilter { app: query.app, job: query.job, limit: query.limit, ..RunFilter::default() };
        self.run_views(filter).await
    }

    /// The log of a run so far, and everything from now on.
    ///
    /// # Errors
    /// There is no such run, or the store fails.
    pub async fn follow_run(
        &self,
        run: RunId,
        after: i64,
    ) -> Result<(Vec<LoggedEvent>, broadcast::Receiver<Live>), ControlError> {
        // Subscribed before it is read: nothing falls between.
        let live = self.engine.watch();
        self.store.run(run).await?;
        Ok((self.store.events(run, after).await?, live))
    }

    /// Whether nothing more happens to a run by itself: it is over, or it is stuck and has reported.
    ///
    /// # Errors
    /// There is no such run, or its log cannot be read.
    pub async fn rests(&self, run: RunId) -> Result<bool, ControlError> {
        Ok(decide(&self.engine.machine(run).await?, self.now()) == Decision::Halt)
    }

    /// Asks a run to stop. It then goes back, unless it is past the commit; one that goes back already does what was
    /// asked, and its view says so.
    ///
    /// # Errors
    /// There is no such run, or it cannot stop any more.
    pub async fn cancel_run(&self, caller: &Caller, run: RunId) -> Result<RunView, ControlError> {
        Self::must_operate(caller)?;
        self.audit(caller, "run.cancel", run, ()).await?;
        match self.engine.cancel(run, &caller.who).await {
            Err(EngineError::Illegal { source, .. }) if source.state == RunStateName::Unwinding.name() => {}
            asked => asked.map_err(|error| refused(run, "cancelled", error))?,
        }
        self.engine.take_up(run);
        self.run_view(run).await
    }

    /// Lets a stuck run try again where it failed, when the cause is removed.
    ///
    /// # Errors
    /// There is no such run, or it is not stuck.
    pub async fn retry_run(&self, caller: &Caller, run: RunId) -> Result<RunView, ControlError> {
        Self::must_operate(caller)?;
        self.must_be_stuck(run, "tried again").await?;
        self.audit(caller, "run.retry", run, ()).await?;
        let event = RunEvent::Retried { by: caller.who.clone() };
        self.engine.resolve(run, event).await.map_err(|error| refused(run, "tried again", error))?;
        self.run_view(run).await
    }

    /// Looks whether the version in place is that of `side`, and whether it answers its health check.
    ///
    /// # Errors
    /// There is no such run, it is not stuck, or another version is in place.
    pub async fn look_at_run(&self, caller: &Caller, run: RunId, side: Side) -> Result<LookView, ControlError> {
        Self::must_operate(caller)?;
        let machine = self.must_be_stuck(run, "resolved").await?;
        self.must_be_in_place(run, side).await?;
        let kit = self.kit_of(run, &machine.order().app)?;
        let known = machine.known();
        let to = match side {
            Side::Old => known.from.as_ref(),
            Side::New => known.path.as_ref().and_then(|path| path.last()).map(|release| &release.id),
        };
        let version = to.map(|id| id.version.clone());
        if side == Side::Old && machine.was_ill() {
            return Ok(LookView { version, unwell: None });
        }
        let env = kit.hook_env(run, known.from.as_ref(), to);
        let asked = kit.probe.ask(machine.answers_of(side).as_ref(), &env).await;
        Ok(LookView { version, unwell: asked.err().map(|error| failed(&error, error.hint())) })
    }

    async fn must_be_stuck(&self, run: RunId, verb: &'static str) -> Result<Machine, ControlError> {
        let machine = self.engine.machine(run).await?;
        if matches!(machine.state(), RunState::Stuck { .. }) {
            return Ok(machine);
        }
        let source = IllegalEvent { event: verb, state: machine.state().name(), at: None };
        Err(ControlError::RunState { run, verb, source })
    }

    /// Says of a stuck run which version is the good one, and lets it end.
    ///
    /// # Errors
    /// There is no such run, or it is not stuck.
    pub async fn resolve_run(&self, caller: &Caller, run: RunId, ask: ResolveRun) -> Result<RunView, ControlError> {
        Self::must_operate(caller)?;
        self.must_be_in_place(run, ask.side).await?;
        self.audit(caller, "run.resolve", run, ask).await?;
        let by = caller.who.clone();
        let event = RunEvent::Resolved { side: ask.side, by, open_gate: ask.open_gate, reports: true };
        self.engine.resolve(run, event).await.map_err(|error| refused(run, "resolved", error))?;
        if ask.side == Side::Old {
            // Its hold would keep the application from being started by anybody.
            let row = self.store.run(run).await?;
            let kit = self.kit_of(run, &row.order.app)?;
            let lifted = kit.installer.lift_hold().await;
            lifted.map_err(|error| ControlError::Failed(Failure::from_error(&error)))?;
        }
        self.run_view(run).await
    }

    /// A person says which version is the good one; what is in place must not say otherwise.
    async fn must_be_in_place(&self, run: RunId, side: Side) -> Result<(), ControlError> {
        let machine = self.engine.machine(run).await?;
        let kit = self.kit_of(run, &machine.order().app)?;
        let marked =
            kit.installer.installed().await.map_err(|error| ControlError::Failed(failed(&error, error.hint())))?;
        let path = machine.known().path.as_deref().unwrap_or_default();
        // A tree without a marker was never put there by us: it is the old one.
        let fits = match (side, &marked) {
            (Side::Old, None) => true,
            (Side::Old, Some(marked)) => path.iter().all(|release| release.id != *marked),
            (Side::New, None) => path.is_empty(),
            (Side::New, Some(marked)) => path.last().is_none_or(|release| release.id == *marked),
        };
        if fits {
            Ok(())
        } else {
            Err(ControlError::NotInPlace { run, marked, install_dir: kit.app.install_dir.clone() })
        }
    }

    /// Updates an application now, without a job.
    ///
    /// # Errors
    /// There is no such application, a run of it is under way, or there is no way to the version.
    pub async fn update_now(&self, caller: &Caller, app: &AppName, ask: UpdateNow) -> Result<RunView, ControlError> {
        Self::must_operate(caller)?;
        let kit = self.kit(app)?;
        if let Some(run) = self.store.active_run(app).await? {
            return Err(ControlError::UnderWay { object: app.to_string(), run: run.id });
        }
        self.must_lead_somewhere(kit, ask.to.as_ref()).await?;
        let order = Order {
            job: None,
            kind: JobType::SoftwareUpdate,
            app: app.clone(),
            trigger: Trigger::UpdateNow,
            started_by: caller.who.clone(),
            grace: ask.grace,
            max_runtime: MAX_RUNTIME_DEFAULT,
            to: ask.to,
            mail: Vec::new(),
            on_failure: None,
            repair: ask.repair,
        };
        let run = self.store.queue_run(order, self.now()).await?;
        self.audit(caller, "update.now", app, serde_json::json!({ "run": run })).await?;
        self.engine.take_up(run);
        self.run_view(run).await
    }

    /// An order that nobody could carry out becomes no run, and nobody gets a mail about it.
    pub(in crate::control) async fn must_lead_somewhere(
        &self,
        kit: &Kit,
        to: Option<&Version>,
    ) -> Result<(), ControlError> {
        let (Some(to), now) = (to, self.now()) else { return Ok(()) };
        let order = Wish { to: Some(to.clone()), named_at: Some(now), repair: false };
        match objection(kit, &self.store, &order, now).await {
            Some(failure) => Err(ControlError::NoWay(failure)),
            None => Ok(()),
        }
    }
}

fn refused(run: RunId, verb: &'static str, error: EngineError) -> ControlError {
    match error {
        EngineError::Illegal { source, .. } => ControlError::RunState { run, verb, source },
        error => error.into(),
    }
}
