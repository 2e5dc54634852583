//! Which releases a run installs: what the feed offers, from what is installed, as far as it is open to this site.

use chrono::DateTime;
use chrono::Utc;

use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::answers::Answers;
use crate::domain::failure::Failure;
use crate::domain::held::HeldBack;
use crate::domain::held::HeldBy;
use crate::domain::held::in_utc;
use crate::domain::job::Job;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::domain::release::Word;
use crate::domain::run::Order;
use crate::domain::run::RunId;
use crate::domain::run::Trigger;
use crate::feed::policy::Policy;
use crate::feed::select::path;
use crate::jobs::kit::Kit;
use crate::jobs::steps::failed;

/// How far a run goes, and whose word that is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Install nothing beyond this version; the newest when absent.
    pub to: Option<Version>,
    /// When a person named it. What failed since then is not tried again: a job that is stored with a version must
    /// not try it every night.
    pub named_at: Option<DateTime<Utc>>,
    /// The application is down or ill now, and the update shall mend it.
    pub repair: bool,
}

impl Wish {
    /// The newest there is.
    pub fn newest() -> Self {
        Self::default()
    }

    /// A job's, where it starts by itself.
    pub fn of_job(job: &Job) -> Self {
        Self { to: job.spec.to.clone(), named_at: Some(named_at(job)), repair: job.spec.repair }
    }

    /// That of a run. A person who starts it gives the order once more, whatever failed before.
    ///
    /// # Errors
    /// The store fails.
    pub async fn of_run(store: &Store, run: RunId, order: &Order) -> Result<Self, StoreError> {
        let by_hand = matches!(order.trigger, Trigger::Manual | Trigger::UpdateNow);
        let named_at = match (&order.to, &order.job) {
            (None, _) => None,
            (Some(_), Some(job)) if !by_hand => match store.job(job).await {
                Ok(job) => Some(named_at(&job)),
                // Nobody stands behind it any more.
                Err(StoreError::NoJob(_)) => None,
                Err(error) => return Err(error),
            },
            (Some(_), _) => Some(store.run(run).await?.queued_at),
        };
        Ok(Self { to: order.to.clone(), named_at, repair: order.repair })
    }
}

/// When a person named the job's version; jobs of an earlier Afterhours did so when they were created.
fn named_at(job: &Job) -> DateTime<Utc> {
    job.spec.to_named_at.unwrap_or(job.created_at)
}

/// The version path of a run.
#[derive(Debug, Clone)]
pub struct Selection {
    /// What is installed now, where that is known.
    pub from: Option<ReleaseId>,
    /// Whose word that is.
    pub word: Option<Word>,
    /// Whether the feed has it.
    pub is_published: bool,
    /// What that answers, where the feed still has it.
    pub from_answers: Option<Answers>,
    /// What will be installed, ascending.
    pub path: Vec<Release>,
    /// What is newer as well and is not installed now, ascending.
    pub rest: Vec<Release>,
    /// The newest release of the feed.
    pub newest: Option<ReleaseId>,
    /// Why not.
    pub held: Vec<HeldBack>,
    /// What is installed although something would hold it back.
    pub early: Vec<HeldBack>,
}

impl Selection {
    /// What the installed version must answer, where it is known which one that is.
    pub fn expected(&self) -> Option<Answers> {
        self.from_answers.clone().or_else(|| self.from.as_ref().map(|from| Answers::from(&from.version)))
    }

    /// What failed here before, where nothing is installed because of it.
    pub fn blocked(&self) -> Option<&ReleaseId> {
        let first = self.held.first().filter(|held| self.path.is_empty() && held.why == HeldBy::FailedHere);
        first.map(|held| &held.release)
    }

    /// Why the path is empty, in words.
    pub fn nothing_because(&self) -> String {
        match (self.held.first(), &self.from) {
            (Some(held), _) => held.sentence(in_utc),
            (None, Some(from)) if self.newest.as_ref().is_some_and(|newest| newest.build > from.build) => {
                format!("{from} is installed already")
            }
            (None, Some(from)) => format!("{from} is the newest release"),
            (None, None) => "the feed has no release".to_owned(),
        }
    }

    /// What is to be known beside the path: what is passed over, and where the path ends before the newest release.
    pub fn remarks(&self) -> Vec<String> {
        let ends = self.held.first().filter(|_| !self.path.is_empty());
        self.early.iter().map(HeldBack::passed_over).chain(ends.map(|held| held.sentence(in_utc))).collect()
    }
}

/// Why nothing can be selected.
enum Obstacle {
    /// There is no way to where it shall go, or none that is open to this site.
    NoWay(Failure),
    /// Something cannot be read.
    Trouble(Failure),
}

/// Selects the releases that are open now.
///
/// # Errors
/// The feed, the tree or the store cannot be read; it cannot be told where the path begins, or there is none to the
/// version that is wished for, or that one is not for this site's licence.
pub async fn select(kit: &Kit, store: &Store, wish: &Wish, now: DateTime<Utc>) -> Result<Selection, Failure> {
    let selected = try_select(kit, store, wish, now).await;
    selected.map_err(|(Obstacle::NoWay(failure) | Obstacle::Trouble(failure))| failure)
}

/// What speaks against an order, whatever the hour. What cannot be read just now does not: the run tries it itself, and
/// reports.
pub async fn objection(kit: &Kit, store: &Store, order: &Wish, now: DateTime<Utc>) -> Option<Failure> {
    match try_select(kit, store, order, now).await {
        Err(Obstacle::NoWay(failure)) => Some(failure),
        _ => None,
    }
}

async fn try_select(kit: &Kit, store: &Store, wish: &Wish, now: DateTime<Utc>) -> Result<Selection, Obstacle> {
    // Asked once: the build that is installed and what is newer must be of the same list.
    let releases = kit.feed.releases().await.map_err(|error| Obstacle::Trouble(failed(&error, error.hint())))?;
    let (from, word) = kit.installed(&releases).await.map_err(Obstacle::Trouble)?.map(|it| (it.id, it.word)).unzip();
    let quarantined =
        store.quarantined(&kit.app.name).await.map_err(|error| Obstacle::Trouble(Failure::from_error(&error)))?;
    let offered = path(from.as_ref(), &releases, wish.to.as_ref());
    let offered = offered.map_err(|error| Obstacle::NoWay(failed(&error, error.hint())))?;
    let failed_at = quarantined.iter().map(|release| (release.build, release.at)).collect::<Vec<_>>();
    let policy = Policy {
        updates: &kit.app.updates,
        site: kit.site.as_deref(),
        app: &kit.app.name,
        failed: &failed_at,
        ordered: wish.to.is_some(),
        ordered_at: wish.named_at,
    };
    let opened = policy.divide(offered.clone(), now);
    policy.must_be_licensed(&opened).map_err(|error| Obstacle::NoWay(failed(&error, error.hint())))?;
    let rest = offered.into_iter().skip(opened.path.len()).collect();
    let installed = releases.iter().find(|release| Some(&release.id) == from.as_ref());
    let (is_published, from_answers) = (installed.is_some(), installed.map(Release::answers));
    let newest = releases.into_iter().map(|release| release.id).max_by_key(|id| id.build);
    let (path, held, early) = (opened.path, opened.held, opened.early);
    Ok(Selection { from, word, is_published, from_answers, path, rest, newest, held, early })
}
