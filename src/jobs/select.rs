//! Which releases a run installs: what the feed offers, from what is installed, without what failed here.

use crate::db::store::Store;
use crate::domain::failure::Failure;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Version;
use crate::feed::select::path;
use crate::jobs::kit::Kit;
use crate::jobs::steps::failed;

/// The version path of a run.
#[derive(Debug, Clone)]
pub struct Selection {
    /// What is installed now, where that is known.
    pub from: Option<ReleaseId>,
    /// What will be installed, ascending.
    pub path: Vec<Release>,
    /// The release at which the path ends because it failed here before.
    pub held_back: Option<ReleaseId>,
}

impl Selection {
    /// Why the path is empty, in words.
    pub fn nothing_because(&self) -> String {
        match (&self.held_back, &self.from) {
            (Some(release), _) => format!(
                "{release} failed here before and is not tried again by itself (`afterhours update allow {}`)",
                release.version
            ),
            (None, Some(from)) => format!("{from} is the newest release"),
            (None, None) => "the feed has no release".to_owned(),
        }
    }
}

/// Selects the releases up to `to`. One that failed here ends the path, unless it is `to` itself: asking
/// for it by name is an order.
pub(crate) async fn select(kit: &Kit, store: &Store, to: Option<&Version>) -> Result<Selection, Failure> {
    let from = kit.installed().await.map_err(|error| failed(&error, error.hint()))?;
    let releases = kit.feed.releases().await.map_err(|error| failed(&error, error.hint()))?;
    let quarantined = store.quarantined(&kit.app.name).await?;
    let mut path = path(from.as_ref(), &releases, to).map_err(|error| failed(&error, error.hint()))?;
    let failed_here =
        |release: &Release| to != Some(&release.id.version) && quarantined.iter().any(|q| q.build == release.id.build);
    let held_back = path.iter().position(failed_here).map(|place| path.split_off(place).swap_remove(0).id);
    Ok(Selection { from, path, held_back })
}
