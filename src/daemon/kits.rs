//! The adapters of all applications, and of the runs that began with other settings than those of now.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use crate::config::places::Unfit;
use crate::config::settings::AppSettings;
use crate::config::settings::Settings;
use crate::db::store::Store;
use crate::domain::clock::Clock;
use crate::domain::run::RunId;
use crate::install::Claim;
use crate::install::Claimed;
use crate::jobs::kept;
use crate::jobs::kept::Kept;
use crate::jobs::kit::Kit;
use crate::jobs::kit::KitError;
use crate::jobs::kit::Kits;
use crate::jobs::kit::state_dir;
use crate::jobs::preflight::ONE_STORE;
use crate::jobs::preflight::claimed_by;
use crate::renewal::Renewal;
use crate::sessions::hub::Hub;

/// What all adapters are put together with.
pub(super) struct Parts<'a> {
    pub(super) store: &'a Store,
    pub(super) hub: &'a Arc<Hub>,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) renewal: &'a Arc<Renewal>,
    pub(super) site: Option<Arc<str>>,
    /// Whether something may be done, and not only looked at: then no other store may work on the same installations.
    pub(super) claims: bool,
}

/// All adapters, and the locks that go with them.
pub(super) struct Built {
    pub(super) kits: Kits,
    pub(super) kept: Kept,
    pub(super) claims: Vec<Claim>,
}

impl Parts<'_> {
    /// Puts all adapters together. An application whose adapters do not fit, or whose directories belong to a run that
    /// began with other settings, is taken out of `settings`.
    pub(super) async fn build(&self, settings: &mut Settings) -> Result<Built> {
        let kept = self.kept(settings).await?;
        let (mut kits, mut claims) = (Kits::new(), Vec::new());
        for kit in kept.kits.values() {
            claims.extend(self.claim(&kit.app, settings).await.unwrap_or_default());
        }
        for (name, app) in std::mem::take(&mut settings.apps) {
            self.hub.allow(&name, app.sessions_per_user_max);
            let kit = match self.kit(&app, &settings.daemon.data_dir) {
                Err(KitError::Probe(error)) => Err(Unfit {
                    why: format!("app.{name}.health: failed to {}", chain(&error)),
                    hint: Some("correct it, then `systemctl reload afterhours`".to_owned()),
                }),
                Err(error) => return Err(error.into()),
                Ok(kit) => match kept.kits.iter().find(|(_, began)| is_in_the_way(&began.app, &app)) {
                    None => self.claim(&app, settings).await.map(|claim| {
                        claims.extend(claim);
                        kit
                    }),
                    Some((run, began)) => Err(in_use(*run, &began.app)),
                },
            };
            match kit {
                Ok(kit) => {
                    kits.insert(name.clone(), Arc::new(kit));
                    settings.apps.insert(name, app);
                }
                Err(unfit) => drop(settings.unfit.insert(name.to_string(), unfit)),
            }
        }
        Ok(Built { kits, kept, claims })
    }

    /// The lock beside the installation; nothing where there is no place for one.
    async fn claim(&self, app: &AppSettings, settings: &Settings) -> Result<Option<Claim>, Unfit> {
        if !self.claims {
            return Ok(None);
        }
        match Claim::take(app, &settings.daemon.data_dir).await {
            Claimed::Ours(claim) => Ok(Some(claim)),
            Claimed::Nowhere => Ok(None),
            Claimed::Theirs(holder) => Err(Unfit { why: claimed_by(app, &holder), hint: Some(ONE_STORE.to_owned()) }),
        }
    }

    /// What the runs in the middle began with, where that is not what is written now.
    async fn kept(&self, settings: &Settings) -> Result<Kept> {
        let mut kept = Kept { texts: settings.texts.clone(), ..Kept::default() };
        for run in self.store.unfinished_runs().await?.into_iter().filter(|run| run.started_at.is_some()) {
            let (run, name) = (run.id, run.order.app);
            let began = match kept::find(&state_dir(&settings.daemon.data_dir, &name), &name, run) {
                Ok(Some(began)) => began,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(
                        run.id = run.0,
                        error = &error as &dyn std::error::Error,
                        hint = error.hint(),
                        "it is not known with which settings the run began"
                    );
                    continue;
                }
            };
            if settings.apps.get(&name).is_some_and(|app| began.is_placed_as(app)) {
                continue;
            }
            tracing::warn!(run.id = run.0, app = %name, "the configuration has changed: the run goes to its end with the settings with which it began");
            self.hub.allow(&name, began.sessions_per_user_max);
            kept.kits.insert(run, Arc::new(self.kit(&began, &settings.daemon.data_dir)?));
        }
        Ok(kept)
    }

    fn kit(&self, app: &AppSettings, data_dir: &Path) -> Result<Kit, KitError> {
        Kit::new(app, data_dir, self.site.clone(), self.hub, Arc::clone(self.clock), self.renewal)
    }
}

/// Whether an application cannot be worked on before a run that began with `began` is over.
fn is_in_the_way(began: &AppSettings, app: &AppSettings) -> bool {
    let in_each_other = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
    let shares = |(ours, _): &(&Path, _)| began.places().iter().any(|(theirs, _)| in_each_other(ours, theirs));
    began.name == app.name || app.places().iter().any(shares)
}

fn in_use(run: RunId, began: &AppSettings) -> Unfit {
    Unfit {
        why: format!(
            "run {run} of {} began with other settings, and is not over: it works in {}",
            began.name,
            began.install_dir.display()
        ),
        hint: Some(format!("it is taken up when that run is over; see `afterhours run show {run}`")),
    }
}

/// An error with all that stands behind it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
