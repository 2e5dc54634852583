//! The use cases: the one door for every change.
//!
//! Floor 6. API and command line come here and nowhere else. Whether the caller may, whether the
//! request makes sense, what is written, who did it: all of that is decided here, once. Every change is
//! audited before its result is known to the caller, and so is every refusal (`refusals`).

pub mod admission;
pub mod apps;
pub mod audit;
pub mod bundle;
pub mod error;
pub mod jobs;
pub mod mail;
pub mod people;
pub mod refusals;
pub mod runs;
pub mod status;

use std::sync::Arc;
use std::sync::Mutex;

use chrono::DateTime;
use chrono::Utc;
use serde::Serialize;
use tokio::sync::Notify;

use crate::config::settings::Settings;
use crate::control::error::ControlError;
use crate::control::refusals::Refusals;
use crate::db::audit::AuditEntry;
use crate::db::store::Store;
use crate::domain::name::AppName;
use crate::domain::run::RunId;
use crate::jobs::engine::Engine;
use crate::jobs::kit::Kit;
use crate::jobs::kit::SharedClock;
use crate::jobs::steps::Night;
use crate::scheduler::post::PostOffice;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Operator,
    /// Nothing but what a workstation needs.
    Workstation,
}

/// Who asks, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// A user of this machine, or a token's name.
    pub who: String,
    /// `socket` or `command line`.
    pub via: &'static str,
    /// What they may do.
    pub role: Role,
}

/// The use cases, upon everything below.
pub struct Control {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// The store.
    pub store: Store,
    /// The runs.
    pub engine: Engine<Night>,
    /// The applications.
    pub night: Arc<Night>,
    /// The mails.
    pub post: Arc<PostOffice>,
    /// The time.
    pub clock: SharedClock,
    /// Wakes the dispatcher when a start has changed.
    pub schedule_changed: Arc<Notify>,
    /// Since when this process is the daemon; nothing when it is none.
    pub serving_since: Option<DateTime<Utc>>,
    /// What became of a changed configuration, where an operator should know it.
    pub config_notice: Mutex<Option<String>>,
    /// Who was refused something in this process.
    pub refusals: Refusals,
}

impl Control {
    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// The adapters of an application.
    fn kit(&self, app: &AppName) -> Result<&Arc<Kit>, ControlError> {
        self.night.kit_for(app).ok_or_else(|| self.no_kit(app))
    }

    /// The adapters of a run.
    fn kit_of(&self, run: RunId, app: &AppName) -> Result<&Arc<Kit>, ControlError> {
        self.night.kit_of(run, app).ok_or_else(|| self.no_kit(app))
    }

    /// Why there are no adapters of an application.
    fn no_kit(&self, app: &AppName) -> ControlError {
        match self.settings.unfit.get(app.as_str()) {
            Some(unfit) => ControlError::Unfit { app: app.clone(), unfit: unfit.clone() },
            None => ControlError::NoApp {
                app: app.clone(),
                known: self.settings.names().iter().map(ToString::to_string).collect(),
            },
        }
    }

    /// Refuses who names an application that is not in the configuration; one that is described wrong is in it.
    fn must_be_known(&self, app: &AppName) -> Result<(), ControlError> {
        if self.settings.unfit.contains_key(app.as_str()) { Ok(()) } else { self.kit(app).map(drop) }
    }

    /// Refuses whoever is no operator.
    ///
    /// # Errors
    /// The caller may not.
    pub fn must_operate(caller: &Caller) -> Result<(), ControlError> {
        match caller.role {
            Role::Operator => Ok(()),
            Role::Workstation => Err(ControlError::NotPermitted { who: caller.who.clone() }),
        }
    }

    /// Writes down who changes what.
    async fn audit(
        &self,
        caller: &Caller,
        action: &str,
        object: impl ToString,
        body: impl Serialize,
    ) -> Result<(), ControlError> {
        let body = serde_json::to_value(body).unwrap_or_default();
        let entry = AuditEntry {
            at: self.now(),
            who: caller.who.clone(),
            via: caller.via.to_owned(),
            action: action.to_owned(),
            object: object.to_string(),
            body,
        };
        Ok(self.store.audit(entry).await?)
    }
}
