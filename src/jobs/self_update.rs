//! Whether Afterhours updates itself before the application, and what `doctor` and a plan say of it.

use crate::db::store::Store;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::release::Release;
use crate::domain::release::Version;
use crate::jobs::kit::Kit;
use crate::jobs::steps::failed;
use crate::renewal;
use crate::renewal::Offer;
use crate::renewal::Own;
use crate::renewal::Renewal;
use crate::renewal::UPDATER;
use crate::renewal::choose;

/// The name of the check.
pub(crate) const CHECK: &str = "self_update";

/// The Afterhours that runs, and what the feed has for it.
#[derive(Debug, Clone)]
pub(crate) struct Outlook {
    pub(crate) own: Own,
    pub(crate) offer: Offer,
}

impl Outlook {
    /// The version that would install an application's release.
    fn version_then(&self) -> &Version {
        match &self.offer {
            Offer::Newer(release) => &release.id.version,
            Offer::Nothing | Offer::HeldBack(_) | Offer::Unfit(_) => &self.own.version,
        }
    }
}

/// Looks into the feed; nothing newer where the administrator does not want to know.
pub(crate) async fn outlook(kit: &Kit, store: &Store) -> Result<Outlook, Failure> {
    let renewal = &kit.renewal;
    let own = renewal.own().await.map_err(|error| failed(&error, error.hint()))?;
    if !renewal.is_on() {
        return Ok(Outlook { own, offer: Offer::Nothing });
    }
    let releases = kit.feed.updaters().await.map_err(|error| failed(&error, error.hint()))?;
    let offer = choose(&own, &releases, &failed_here(store).await?, &Renewal::machine());
    Ok(Outlook { own, offer })
}

/// The builds that may still be taken of those that the feed is known to have; what was fetched of any other is of no use.
pub(crate) async fn awaited(kit: &Kit, store: &Store) -> Result<Vec<Release>, Failure> {
    let known = kit.feed.known_updaters();
    if !kit.renewal.is_on() || known.is_empty() {
        return Ok(Vec::new());
    }
    let own = kit.renewal.own().await.map_err(|error| failed(&error, error.hint()))?;
    Ok(renewal::awaited(&own, &known, &failed_here(store).await?, &Renewal::machine()))
}

async fn failed_here(store: &Store) -> Result<Vec<u64>, Failure> {
    let quarantined = store.quarantined(&Renewal::name()?).await?;
    Ok(quarantined.into_iter().map(|quarantined| quarantined.build).collect())
}

/// What is to be said of it before a run that would install `path`; nothing where no feed carries Afterhours.
pub(crate) async fn findings(kit: &Kit, store: &Store, path: &[Release]) -> Vec<Finding> {
    let outlook = match outlook(kit, store).await {
        Ok(outlook) => outlook,
        Err(failure) => return vec![trouble(&failure)],
    };
    let mut findings: Vec<Finding> = finding(kit, &outlook).await.into_iter().collect();
    if let Some(failure) = too_old(path, outlook.version_then()) {
        let remedy = failure.hint.clone().unwrap_or_default();
        findings.push(Finding::fatal(CHECK, format!("failed to {failure}"), remedy));
    }
    findings
}

async fn finding(kit: &Kit, outlook: &Outlook) -> Option<Finding> {
    match &outlook.offer {
        Offer::Nothing => None,
        Offer::HeldBack(id) => Some(Finding::warning(
            CHECK,
            format!("Afterhours {id} failed here before and is not tried again by itself"),
            format!("afterhours update allow {} --app {UPDATER}", id.version),
        )),
        Offer::Unfit(id) => Some(Finding::warning(
            CHECK,
            format!("Afterhours {id} cannot follow {} on this machine ({})", outlook.own, Renewal::machine()),
            "ask whoever publishes the feed for one that can, or update it by hand",
        )),
        Offer::Newer(release) => match kit.renewal.obstacle(CHECK).await {
            Some(obstacle) => Some(obstacle),
            None => Some(Finding::good(
                CHECK,
                format!("first, Afterhours updates itself from {} to {}", outlook.own, release.id),
            )),
        },
    }
}

/// It cannot be found out or done; the run goes on without.
pub(crate) fn trouble(failure: &Failure) -> Finding {
    let remedy = failure.hint.clone().unwrap_or_else(|| "see the daemon's log".to_owned());
    Finding::warning(CHECK, format!("Afterhours stays as it is; failed to {failure}"), remedy)
}

/// Why this Afterhours must not install one of these releases.
pub(crate) fn too_old(path: &[Release], own: &Version) -> Option<Failure> {
    let release = path.iter().find(|release| release.min_afterhours.as_ref().is_some_and(|min| min > own))?;
    let needs = release.min_afterhours.as_ref()?;
    Some(
        Failure::new(format!("install {}: it needs Afterhours {needs} at least, and this is {own}", release.id))
            .hint("update Afterhours, then start the job again"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::release::ReleaseId;

    #[test]
    fn a_release_may_demand_a_newer_afterhours() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        let id = ReleaseId { version: version("2.0"), build: 2 };
        let mut release = Release::new(id, Vec::new(), "2");
        assert_eq!(too_old(&[release.clone()], &version("0.1")), None);
        release.min_afterhours = Some(version("0.2"));
        assert_eq!(too_old(&[release.clone()], &version("0.10")), None);
        let failure = too_old(&[release], &version("0.1.0")).unwrap();
        assert_eq!(failure.message, "install 2.0 (build 2): it needs Afterhours 0.2 at least, and this is 0.1.0");
    }
}
