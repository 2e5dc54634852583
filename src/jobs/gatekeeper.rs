//! Closes and opens gates: the store's word first, then the workstations', then the drivers'.
//!
//! A gate that a run closes is a lease, a length on the clock that does not jump: [`Gatekeeper::renew`] keeps it, and if nobody renews it, it
//! counts as open. While the application is away the gate is pinned: then no lease runs out, because
//! nobody may log in to half an application. An operator's closure is the operator's: no run opens it, and its own
//! time does not count while the application is away.
//!
//! Closing goes from the inside out (first nobody new is admitted, then the drivers follow); opening
//! goes the same way, so that a user who is told "ready" is admitted. That the drivers have to open is noted with the
//! store's word, so that [`Gatekeeper::retry_opening`] does it again where one has failed, or where we died in between.
//!
//! *Invariant:* the drivers of one gate are moved by one at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;

use chrono::DateTime;
use chrono::Utc;
use thiserror::Error;
use tokio::sync::OwnedMutexGuard;

use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::clock::Clock;
use crate::domain::clock::Term;
use crate::domain::failure::Failure;
use crate::domain::gate::ClosedBy;
use crate::domain::gate::Gate;
use crate::domain::gate::Opening;
use crate::domain::gate::Position;
use crate::domain::name::AppName;
use crate::domain::run::RunId;
use crate::domain::span::Span;
use crate::gate::GateError;
use crate::jobs::kit::Kit;
use crate::sessions::hub::Hub;

/// How long a gate stays closed when nobody renews it.
pub const LEASE: Span = Span::mins(2);

/// A gate could not be moved.
#[derive(Debug, Error)]
pub enum GatekeeperError {
    /// The store failed.
    #[error("note the gate of {app}")]
    Store {
        /// The application.
        app: AppName,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A driver failed to close.
    #[error("close the gate of {app} everywhere")]
    Close {
        /// The application.
        app: AppName,
        /// Why.
        #[source]
        source: GateError,
    },
    /// A driver failed to open. The gate itself is open.
    #[error("open the gate of {app} everywhere")]
    Open {
        /// The application.
        app: AppName,
        /// Why.
        #[source]
        source: GateError,
    },
}

impl GatekeeperError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store { .. } => None,
            Self::Close { source, .. } => source.hint(),
            Self::Open { app, source } => {
                let remedy = source.hint().map(|hint| format!("{hint}; ")).unwrap_or_default();
                Some(format!("{remedy}it is tried again by itself, and at once by `afterhours gate open {app}`"))
            }
        }
    }
}

/// Moves gates.
#[derive(Debug, Clone)]
pub struct Gatekeeper {
    store: Store,
    hub: Arc<Hub>,
    clock: Arc<dyn Clock>,
    /// Whose turn it is to move the drivers, by application.
    turns: Turns,
}

type Turns = Arc<Mutex<HashMap<AppName, Arc<tokio::sync::Mutex<()>>>>>;

impl Gatekeeper {
    /// Moves the gates in `store` and tells `hub`.
    pub fn new(store: Store, hub: Arc<Hub>, clock: Arc<dyn Clock>) -> Self {
        Self { store, hub, clock, turns: Turns::default() }
    }

    /// Waits for the turn to move the drivers of a gate: at most for what the one before may take, by its deadlines.
    async fn turn(&self, app: &AppName) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            Arc::clone(turns.entry(app.clone()).or_default())
        };
        turn.lock_owned().await
    }

    /// Closes the gate for a run. One that an operator has closed stays the operator's.
    ///
    /// # Errors
    /// The store or a driver fails.
    pub async fn close_for_run(
        &self,
        kit: &Kit,
        run: RunId,
        message: &str,
        until: Option<DateTime<Utc>>,
    ) -> Result<(), GatekeeperError> {
        let lease = Term { from: self.clock.moment(), length: LEASE };
        let position = Position::Closed {
            by: ClosedBy::Run(run),
            message: message.to_owned(),
            until,
            lease_until: Some(lease.ends_at(lease.from)),
            lease: Some(lease),
            since: lease.from.at,
        };
        self.close(kit, position, |before| {
            matches!(before.position, Position::Closed { by: ClosedBy::Operator(_), .. })
        })
        .await
        .map(drop)
    }

    /// Closes the gate for an operator, also over a run's closure.
    ///
    /// # Errors
    /// The store or a driver fails.
    pub async fn close_by_hand(
        &self,
        kit: &Kit,
        who: &str,
        message: &str,
        until: Option<DateTime<Utc>>,
    ) -> Result<Gate, GatekeeperError> {
        let by = ClosedBy::Operator(who.to_owned());
        let position = Position::Closed {
            by,
            message: message.to_owned(),
            until,
            lease_until: until,
            lease: None,
            since: self.clock.now(),
        };
        self.close(kit, position, |_| false).await
    }

    async fn close(
        &self,
        kit: &Kit,
        position: Position,
        stays: impl FnOnce(&Gate) -> bool + Send + 'static,
    ) -> Result<Gate, GatekeeperError> {
        let app = kit.app.name.clone();
        let mut closed = Gate { app: app.clone(), position };
        let _turn = self.turn(&app).await;
        let gate = self
            .store
            .change_gate(&app, move |before, away| {
                if stays(before) {
                    return None;
                }
                if let Position::Closed { lease_until, lease, .. } = &mut closed.position {
                    // As in [`Gatekeeper::pin`]: no time opens it now.
                    (*lease_until, *lease) = (lease_until.filter(|_| !away), lease.filter(|_| !away));
                }
                Some(closed)
            })
            .await
            .map_err(|source| GatekeeperError::Store { app: app.clone(), source })?;
        if let Position::Closed { message, until, .. } = &gate.position {
            self.hub.close(&app, message, *until);
            kit.gate.close(message, *until).await.map_err(|source| GatekeeperError::Close { app, source })?;
        }
        Ok(gate)
    }

    /// Opens the gate that `run` has closed; any other is left as it is. True when it is open now.
    ///
    /// # Errors
    /// The store or a driver fails.
    pub async fn open_for_run(&self, kit: &Kit, run: RunId) -> Result<bool, GatekeeperError> {
        // An operator's own time counts again.
        self.change(&kit.app.name, |gate| match &mut gate.position {
            Position::Closed {
                by: ClosedBy::Operator(_), until: until @ Some(_), lease_until: lease @ None, ..
            } => {
                *lease = *until;
                true
            }
            _ => false,
        })
        .await?;
        self.open(kit, move |gate| closed_by(gate, run)).await
    }

    /// Opens the gate, whoever has closed it.
    ///
    /// # Errors
    /// The store or a driver fails.
    pub async fn open_by_hand(&self, kit: &Kit) -> Result<bool, GatekeeperError> {
        self.open(kit, |_| true).await
    }

    async fn open(&self, kit: &Kit, may: impl FnOnce(&Gate) -> bool + Send + 'static) -> Result<bool, GatekeeperError> {
        let app = &kit.app.name;
        let _turn = self.turn(app).await;
        let owed = (!kit.gate.is_empty()).then(|| Opening::begun(self.clock.now()));
        let gate = self.store.open_gate(app, owed, may).await.map_err(noting(app))?;
        if gate.position != Position::Open {
            return Ok(false);
        }
        // Also when it was open already: we may have died between the store and the drivers.
        self.hub.open(app);
        self.open_drivers(kit).await?;
        Ok(true)
    }

    /// What closes with the gate follows, or it is noted why not and when it is tried again.
    async fn open_drivers(&self, kit: &Kit) -> Result<(), GatekeeperError> {
        let app = &kit.app.name;
        if kit.gate.is_empty() && self.store.gate_opening(app).await.map_err(noting(app))?.is_none() {
            return Ok(());
        }
        let Err(source) = kit.gate.open().await else {
            return self.store.note_opening(app, None).await.map_err(noting(app));
        };
        let failure = Failure { hint: source.hint(), ..Failure::from_error(&source) };
        let now = self.clock.now();
        let before = self.store.gate_opening(app).await.map_err(noting(app))?;
        let left = before.unwrap_or_else(|| Opening::begun(now)).failed(failure, now);
        self.store.note_opening(app, Some(left)).await.map_err(noting(app))?;
        Err(GatekeeperError::Open { app: app.clone(), source })
    }

    /// Opens again what has not opened with its gate, when its time has come.
    ///
    /// # Errors
    /// The store fails, or a driver fails once more.
    pub async fn retry_opening(&self, kit: &Kit) -> Result<(), GatekeeperError> {
        let app = &kit.app.name;
        let is_due = async || {
            let opening = self.store.gate_opening(app).await.map_err(noting(app))?;
            Ok::<_, GatekeeperError>(opening.is_some_and(|opening| opening.next_at <= self.clock.now()))
        };
        if !is_due().await? {
            return Ok(());
        }
        let _turn = self.turn(app).await;
        // Whoever had the turn before may have opened it, or closed the gate.
        if is_due().await? { self.open_drivers(kit).await } else { Ok(()) }
    }

    /// Opens a gate whose lease, or whose operator's time, has run out, also where it was passed on.
    ///
    /// # Errors
    /// The store or a driver fails.
    pub async fn expire(&self, kit: &Kit) -> Result<(), GatekeeperError> {
        let now = self.clock.moment();
        let gate = self.store.gate(&kit.app.name).await;
        let gate = gate.map_err(|source| GatekeeperError::Store { app: kit.app.name.clone(), source })?;
        if gate.position == Position::Open || !gate.admits(now) {
            return Ok(());
        }
        self.open(kit, move |gate| gate.admits(now)).await.map(drop)
    }

    /// Leaves the gate closed in the name of an operator, who looks first and opens it by hand.
    ///
    /// # Errors
    /// The store fails.
    pub async fn leave_closed(&self, kit: &Kit, run: RunId, message: &str) -> Result<(), GatekeeperError> {
        let (app, message) = (kit.app.name.clone(), message.to_owned());
        self.change(&app, move |gate| match &mut gate.position {
            Position::Closed { by, message: told, until, lease_until, lease, .. } if *by == ClosedBy::Run(run) => {
                *by = ClosedBy::Operator(format!("the policy of {}", gate.app));
                *told = message;
                *until = None;
                (*lease_until, *lease) = (None, None);
                true
            }
            _ => false,
        })
        .await
    }

    /// The application is about to be stopped: whatever has become of the gate, it is closed, and no lease and no
    /// time opens it before [`Gatekeeper::open_for_run`].
    ///
    /// # Errors
    /// The store or a driver fails.
    pub async fn pin(&self, kit: &Kit, run: RunId, message: &str) -> Result<(), GatekeeperError> {
        let app = kit.app.name.clone();
        let (message, now) = (message.to_owned(), self.clock.now());
        let _turn = self.turn(&app).await;
        let pinned = self.store.change_gate(&app, move |before, _| {
            let mut after = before.clone();
            match &mut after.position {
                Position::Closed { by: ClosedBy::Operator(_), lease_until, .. } => *lease_until = None,
                Position::Closed { by: ClosedBy::Run(of), lease_until, lease, .. } if *of == run => {
                    (*lease_until, *lease) = (None, None);
                }
                position => {
                    let by = ClosedBy::Run(run);
                    *position =
                        Position::Closed { by, message, until: None, lease_until: None, lease: None, since: now };
                }
            }
            Some(after)
        });
        let gate = pinned.await.map_err(|source| GatekeeperError::Store { app: app.clone(), source })?;
        if let Position::Closed { message, until, .. } = &gate.position {
            self.hub.close(&app, message, *until);
            kit.gate.close(message, *until).await.map_err(|source| GatekeeperError::Close { app, source })?;
        }
        Ok(())
    }

    /// Tells users something else about the gate that `run` has closed, with no time at which it opens.
    ///
    /// # Errors
    /// The store or a driver fails.
    pub async fn say(&self, kit: &Kit, run: RunId, message: &str) -> Result<(), GatekeeperError> {
        let app = &kit.app.name;
        let told = message.to_owned();
        let _turn = self.turn(app).await;
        let changed = self.store.change_gate(app, move |before, _| {
            let mut after = before.clone();
            let Position::Closed { by: ClosedBy::Run(of), message, until, .. } = &mut after.position else {
                return None;
            };
            (*message, *until) = (told, None);
            (*of == run).then_some(after)
        });
        let gate = changed.await.map_err(noting(app))?;
        match &gate.position {
            Position::Closed { by: ClosedBy::Run(of), message, until, .. } if *of == run => {
                self.hub.close(app, message, *until);
                let closed = kit.gate.close(message, *until).await;
                closed.map_err(|source| GatekeeperError::Close { app: app.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Keeps the gate that `run` has closed for another [`LEASE`], unless it is pinned.
    ///
    /// # Errors
    /// The store fails.
    pub async fn renew(&self, app: &AppName, run: RunId) -> Result<(), GatekeeperError> {
        let term = Term { from: self.clock.moment(), length: LEASE };
        self.change(app, move |gate| match &mut gate.position {
            Position::Closed { by, lease_until: until @ Some(_), lease, .. } if *by == ClosedBy::Run(run) => {
                (*until, *lease) = (Some(term.ends_at(term.from)), Some(term));
                true
            }
            _ => false,
        })
        .await
    }

    async fn change(
        &self,
        app: &AppName,
        change: impl FnOnce(&mut Gate) -> bool + Send + 'static,
    ) -> Result<(), GatekeeperError> {
        let changed = self.store.change_gate(app, move |before, _| {
            let mut after = before.clone();
            change(&mut after).then_some(after)
        });
        changed.await.map(drop).map_err(|source| GatekeeperError::Store { app: app.clone(), source })
    }
}

fn closed_by(gate: &Gate, run: RunId) -> bool {
    matches!(&gate.position, Position::Closed { by, .. } if *by == ClosedBy::Run(run))
        || gate.position == Position::Open
}

fn noting(app: &AppName) -> impl FnOnce(StoreError) -> GatekeeperError {
    let app = app.clone();
    move |source| GatekeeperError::Store { app, source }
}
