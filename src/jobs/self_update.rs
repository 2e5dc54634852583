//! Whether Afterhours updates itself before the application, and what `doctor` and a plan say of it.

use chrono::DateTime;
use chrono::Utc;

use crate::db::store::Store;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::held::HeldBack;
use crate::domain::held::in_utc;
use crate::domain::release::Release;
use crate::domain::release::Version;
use crate::feed::policy::Opened;
use crate::feed::policy::Policy;
use crate::jobs::kit::Kit;
use crate::jobs::steps::failed;
use crate::renewal;
use crate::renewal::Offer;
use crate::renewal::Own;
use crate::renewal::Renewal;
use crate::renewal::UPDATER;
use crate::renewal::choose;
use crate::renewal::offered;

/// The name of the check.
pub(crate) const CHECK: &str = "self_update";

/// Why an Afterhours is not taken that a feed offers by its own word.
pub(crate) const UNVOUCHED: &str = "the feed offers one that only the vendor of the application vouches for";

/// The Afterhours that runs, and what the feed has for it.
#[derive(Debug, Clone)]
pub(crate) struct Outlook {
    pub(crate) own: Own,
    pub(crate) offer: Offer,
    /// The first of the newer ones that waits, and why.
    pub(crate) held: Option<HeldBack>,
    /// The feed offers one by its own word, which is not taken.
    pub(crate) unvouched: bool,
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

/// Looks into the feed, before a run that would install `path`; nothing newer where the administrator does not want to know.
pub(crate) async fn outlook(
    kit: &Kit,
    store: &Store,
    path: &[Release],
    now: DateTime<Utc>,
) -> Result<Outlook, Failure> {
    let renewal = &kit.renewal;
    let own = renewal.own().await.map_err(|error| failed(&error, error.hint()))?;
    if !renewal.is_on() {
        return Ok(Outlook { own, offer: Offer::Nothing, held: None, unvouched: false });
    }
    let releases = kit.feed.updaters().await.map_err(|error| failed(&error, error.hint()))?;
    let policy = Policy {
        updates: &kit.app.updates,
        site: kit.site.as_deref(),
        app: &Renewal::name()?,
        // A build that failed is no wall: unlike an application's, a later one does not build on it.
        failed: &[],
        ordered: false,
        ordered_at: None,
    };
    let demanded = path.iter().filter_map(|release| release.min_afterhours.as_ref()).max();
    let opened = open(policy, offered(&own, &releases), demanded.filter(|demanded| **demanded > own.version), now);
    let offer = choose(&own, &opened.path, &failed_here(store).await?, &Renewal::machine());
    let unvouched = kit.feed.vouches_for_updaters().await;
    Ok(Outlook { own, offer, held: opened.held.into_iter().next(), unvouched })
}

/// Divides the newer builds into what is taken now and what waits: as releases of the application do, by the same settings.
///
/// One that is demanded by what will be installed does not wait for its time, and no more is taken early than that takes.
fn open(policy: Policy<'_>, offered: Vec<Release>, demanded: Option<&Version>, now: DateTime<Utc>) -> Opened {
    let opened = policy.divide(offered.clone(), now);
    let Some(demanded) = demanded else { return opened };
    match offered.iter().position(|release| release.id.version >= *demanded) {
        Some(place) if place >= opened.path.len() => {
            let needed = offered.into_iter().take(place + 1).collect();
            Policy { ordered: true, ..policy }.divide(needed, now)
        }
        _ => opened,
    }
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
pub(crate) async fn findings(kit: &Kit, store: &Store, path: &[Release], now: DateTime<Utc>) -> Vec<Finding> {
    if kit.renewal.is_on()
        && let Err(error) = kit.renewal.root()
    {
        let text = format!("Afterhours does not update itself: failed to {}", Failure::from_error(&error));
        return vec![Finding::warning(CHECK, text, error.hint().unwrap_or_default())];
    }
    let outlook = match outlook(kit, store, path, now).await {
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
        Offer::Nothing if outlook.unvouched => Some(Finding::warning(
            CHECK,
            format!("Afterhours {} stays: {UNVOUCHED}", outlook.own),
            "ask the vendor to carry Afterhours as its makers have signed it",
        )),
        Offer::Nothing => outlook
            .held
            .as_ref()
            .map(|held| Finding::good(CHECK, format!("Afterhours {} stays: {}", outlook.own, held.fact(in_utc)))),
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
    use crate::config::settings::UpdateSettings;
    use crate::domain::release::ReleaseId;
    use crate::domain::span::Span;

    #[test]
    fn a_newer_afterhours_waits_as_releases_do() {
        let start: DateTime<Utc> = "2026-12-01T00:00:00Z".parse().unwrap();
        let newer = |build: u64, days: i64| {
            let id = ReleaseId { version: format!("0.{build}").parse().unwrap(), build };
            let published_at = Some(start + chrono::TimeDelta::days(days));
            Release { published_at, ..Release::new(id, Vec::new(), "updater") }
        };
        let updates = UpdateSettings { cool_down: Span::days(3), ..UpdateSettings::default() };
        let app = Renewal::name().unwrap();
        let policy = Policy { updates: &updates, site: None, app: &app, failed: &[], ordered: false, ordered_at: None };
        let taken = |offered: &[Release], demanded: Option<&str>, days: i64| {
            let demanded = demanded.map(|version| version.parse::<Version>().unwrap());
            let now = start + chrono::TimeDelta::days(days);
            let opened = open(policy, offered.to_vec(), demanded.as_ref(), now);
            let why = opened.held.first().map(|held| held.fact(in_utc)).unwrap_or_default();
            (opened.path.iter().map(|release| release.id.build).collect::<Vec<_>>(), why)
        };
        let mut offered = vec![newer(2, 0), newer(3, 2), newer(4, 3)];
        let held = "0.2 (build 2) is held back until Fri 4 Dec 2026 00:00 UTC by the cool-down";
        assert_eq!(taken(&offered, None, 2), (vec![], held.to_owned()));
        assert_eq!(taken(&offered, None, 3).0, [2]);
        assert_eq!(taken(&offered, None, 6).0, [2, 3, 4]);
        assert_eq!(taken(&offered, Some("0.3"), 2).0, [2, 3], "what is demanded, and no more");
        assert_eq!(taken(&offered, Some("0.2"), 3).0, [2], "it is there without that");
        assert_eq!(taken(&offered, Some("0.9"), 2).0, [0; 0], "no such one");
        offered[1].security = true;
        assert_eq!(taken(&offered, None, 2).0, [2, 3]);
        offered[0].licences = vec!["pro".to_owned()];
        let (none, why) = taken(&offered, Some("0.3"), 9);
        assert_eq!((none, why.as_str()), (vec![], "0.2 (build 2) is for licences of the class pro only"));
    }

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
