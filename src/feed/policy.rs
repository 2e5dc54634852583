//! Which releases of a path are open to this site now: a pure function of the path, the settings and the time.
//!
//! The path is what [`super::select`] found: every pending build, ascending. Each build migrates what the one before
//! it left behind, so none is left out: one that is held back ends the path, and what comes after it waits behind it.
//! A security release must not wait. It pulls along what stands before it and is merely waiting for its time, because
//! the way to it leads through there; it does not pull what failed here, or what is for another class of licences.
//!
//! A version that was asked for by name is an order: time and earlier failures hold back neither it nor what is before
//! it. Licences do, and so does what failed after the order was given: a job that carries the version tries it once.
//! Nothing and nobody passes a release that says something this Afterhours does not understand, or that cannot be read at all: a
//! newer Afterhours has to decide, or the vendor has to mend it.
//! Barriers and minimum versions have been kept when the path was made.
//!
//! *Invariant:* what is open stays open while time goes on. *Invariant:* what is taken is a beginning of the path.

use chrono::DateTime;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Utc;
use sha2::Digest;
use sha2::Sha256;
use thiserror::Error;

use crate::config::settings::UpdateSettings;
use crate::domain::held::HeldBack;
use crate::domain::held::HeldBy;
use crate::domain::name::AppName;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::domain::release::Rollout;

/// What decides at this site.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    /// What the administrator wants.
    pub updates: &'a UpdateSettings,
    /// The random number of this site; where none was drawn yet, its turn is the last.
    pub site: Option<&'a str>,
    /// The application.
    pub app: &'a AppName,
    /// The builds that failed here, and when the last time.
    pub failed: &'a [(u64, DateTime<Utc>)],
    /// Whether the end of the path was asked for by name.
    pub ordered: bool,
    /// When a person did so. What failed since then is not tried again.
    pub ordered_at: Option<DateTime<Utc>>,
}

/// A path, divided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// What is installed now, ascending.
    pub path: Vec<Release>,
    /// What is not, ascending, and why.
    pub held: Vec<HeldBack>,
    /// What is installed although something would hold it back: by order, or on the way to a security release.
    pub early: Vec<HeldBack>,
}

/// What is ordered must not be installed here.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum PolicyError {
    /// It is for other licences.
    #[error(
        "update to {release}: it is for licences of the class {classes} only, and {}",
        .ours.as_ref().map_or_else(|| "this site names none".to_owned(), |ours| format!("this site's is {ours}"))
    )]
    Licence {
        /// The release.
        release: ReleaseId,
        /// The classes it is for.
        classes: String,
        /// The class of this site.
        ours: Option<String>,
    },
}

impl PolicyError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Licence { .. } => Some(
                "name an earlier version with --to; where this site has such a licence, say so with licence_class of `updates`"
                    .to_owned(),
            ),
        }
    }
}

impl Policy<'_> {
    /// Divides a path into what is installed now and what is not.
    pub fn divide(&self, mut path: Vec<Release>, now: DateTime<Utc>) -> Opened {
        let why: Vec<Option<HeldBy>> = path.iter().map(|release| self.held_by(release, now)).collect();
        let is_wall =
            |(release, why): (&Release, &Option<HeldBy>)| why.as_ref().is_some_and(|why| self.is_wall(release, why));
        let wall = path.iter().zip(&why).position(is_wall).unwrap_or(path.len());
        let pulled = match self.ordered {
            true => wall,
            false => path[..wall].iter().rposition(|release| release.security).map_or(0, |place| place + 1),
        };
        let taken = (pulled..wall).find(|place| why[*place].is_some()).unwrap_or(wall);
        let rest = path.split_off(taken);
        let mut why = why.into_iter();
        let early = path.iter().zip(why.by_ref()).filter_map(|(release, why)| Some(held(release, why?))).collect();
        let before = rest.first().map(|release| release.id.clone());
        let held = rest.iter().zip(why).filter_map(|(release, why)| {
            Some(held(release, why.or_else(|| before.clone().map(|before| HeldBy::Behind { before }))?))
        });
        Opened { held: held.collect(), path, early }
    }

    /// Whether neither an order nor a security release goes past it.
    fn is_wall(&self, release: &Release, why: &HeldBy) -> bool {
        match why {
            HeldBy::NewerAfterhours { .. } | HeldBy::Unreadable { .. } | HeldBy::Licence { .. } => true,
            HeldBy::FailedHere => !self.ordered || self.failed_since_the_order(release.id.build),
            HeldBy::CoolDown { .. } | HeldBy::Rollout { .. } | HeldBy::Behind { .. } => false,
        }
    }

    fn failed_since_the_order(&self, build: u64) -> bool {
        let since = |at| self.ordered_at.is_none_or(|ordered_at| at > ordered_at);
        self.failed.iter().any(|(failed, at)| *failed == build && since(*at))
    }

    /// Refuses an order that leads to, or past, what is not for this site's licence.
    ///
    /// # Errors
    /// It does.
    pub fn must_be_licensed(&self, opened: &Opened) -> Result<(), PolicyError> {
        let licence = |held: &HeldBack| match &held.why {
            HeldBy::Licence { classes } => Some(PolicyError::Licence {
                release: held.release.clone(),
                classes: classes.join(" or "),
                ours: self.updates.licence_class.clone(),
            }),
            _ => None,
        };
        opened.held.iter().find_map(licence).filter(|_| self.ordered).map_or(Ok(()), Err)
    }

    fn held_by(&self, release: &Release, now: DateTime<Utc>) -> Option<HeldBy> {
        if let Some(because) = &release.unreadable {
            return Some(HeldBy::Unreadable { because: because.clone() });
        }
        if let Some(key) = &release.unknown_key {
            return Some(HeldBy::NewerAfterhours { key: key.clone() });
        }
        if !self.is_licensed(release) {
            return Some(HeldBy::Licence { classes: release.licences.clone() });
        }
        if self.failed.iter().any(|(build, _)| *build == release.id.build) {
            return Some(HeldBy::FailedHere);
        }
        if release.security {
            return None;
        }
        let turn = self.turn(release).filter(|until| *until > now);
        match self.cooled_down_at(release) {
            Some(None) => Some(HeldBy::CoolDown { until: None }),
            Some(Some(until)) if until > now && turn.is_none_or(|turn| turn <= until) => {
                Some(HeldBy::CoolDown { until: Some(until) })
            }
            _ => turn.map(|until| HeldBy::Rollout { until }),
        }
    }

    fn is_licensed(&self, release: &Release) -> bool {
        let ours = |class: &String| Some(class.as_str()) == self.updates.licence_class.as_deref();
        release.licences.is_empty() || release.licences.iter().any(ours)
    }

    /// When it has been published for long enough. Absent where no cool-down is wished; nothing inside where the
    /// release does not say when it was published: what has no age is never old enough.
    fn cooled_down_at(&self, release: &Release) -> Option<Option<DateTime<Utc>>> {
        let wished = self.updates.cool_down.delta();
        let day = release.date.map(|date| date.and_time(NaiveTime::MIN).and_utc());
        let published_at = release.published_at.or(day);
        // Beyond the end of the calendar is as good as never.
        (wished > TimeDelta::zero()).then(|| published_at.and_then(|at| at.checked_add_signed(wished)))
    }

    fn turn(&self, release: &Release) -> Option<DateTime<Utc>> {
        let rollout = release.rollout.as_ref().filter(|_| self.updates.rollout)?;
        Some(match self.site {
            Some(site) => turn_of(rollout, site, self.app, release.id.build),
            None => after(rollout, i64::from(rollout.hours) * 3600),
        })
    }
}

/// When it is a site's turn. Each release puts the sites into another order, so that nobody is always the first.
fn turn_of(rollout: &Rollout, site: &str, app: &AppName, build: u64) -> DateTime<Utc> {
    let place = Sha256::new().chain_update(site).chain_update([0]).chain_update(app.as_str()).chain_update([0]);
    let place = place.chain_update(build.to_be_bytes()).finalize();
    let place = place.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    // Of 2^64 places; whole seconds are fine enough.
    let secs = (u128::from(place) * (u128::from(rollout.hours) * 3600)) >> 64;
    after(rollout, i64::try_from(secs).unwrap_or(i64::MAX))
}

fn after(rollout: &Rollout, secs: i64) -> DateTime<Utc> {
    let after = TimeDelta::try_seconds(secs).and_then(|after| rollout.start.checked_add_signed(after));
    after.unwrap_or(DateTime::<Utc>::MAX_UTC)
}

fn held(release: &Release, why: HeldBy) -> HeldBack {
    HeldBack { release: release.id.clone(), why }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::held::in_utc;
    use crate::domain::span::Span;

    fn start() -> DateTime<Utc> {
        "2026-12-01T00:00:00Z".parse().unwrap()
    }

    fn release(build: u64) -> Release {
        let id = ReleaseId { version: format!("{build}.0").parse().unwrap(), build };
        Release { published_at: Some(start()), ..Release::new(id, Vec::new(), "/feed") }
    }

    fn app() -> AppName {
        "orders".parse().unwrap()
    }

    fn builds(path: &[Release]) -> Vec<u64> {
        path.iter().map(|release| release.id.build).collect()
    }

    fn said(held: &[HeldBack]) -> Vec<String> {
        held.iter().map(|held| held.sentence(in_utc)).collect()
    }

    #[test]
    fn a_release_that_waits_ends_the_path_and_a_security_release_pulls_it_along() {
        let (updates, app) = (UpdateSettings { cool_down: Span::days(3), ..UpdateSettings::default() }, app());
        let policy =
            Policy { updates: &updates, site: Some("here"), app: &app, failed: &[], ordered: false, ordered_at: None };
        let mut old = release(2);
        old.published_at = Some(start() - TimeDelta::days(3));
        let path = vec![old, release(3), release(4)];
        let opened = policy.divide(path.clone(), start());
        assert_eq!(builds(&opened.path), [2]);
        assert_eq!(
            said(&opened.held)[0],
            "3.0 (build 3) is held back until Fri 4 Dec 2026 00:00 UTC by the cool-down; name it with --to to take it now"
        );
        let mut path = path;
        path[2].security = true;
        let opened = policy.divide(path.clone(), start());
        assert_eq!((builds(&opened.path), opened.held.len(), opened.early.len()), (vec![2, 3, 4], 0, 1));
        let failed = [(3, start())];
        // What failed here is not pulled along, unless somebody orders it.
        let opened = Policy { failed: &failed, ..policy }.divide(path.clone(), start());
        assert_eq!(builds(&opened.path), [2]);
        assert_eq!(said(&opened.held)[1], "4.0 (build 4) comes after 3.0 (build 3)");
        let opened = Policy { failed: &failed, ordered: true, ordered_at: Some(start()), ..policy }
            .divide(path.clone(), start());
        assert_eq!(builds(&opened.path), [2, 3, 4]);
        // What failed after the order was given is not tried again.
        let since = Policy { failed: &failed, ordered: true, ordered_at: Some(start() - TimeDelta::days(1)), ..policy };
        assert_eq!(builds(&since.divide(path.clone(), start()).path), [2]);
        path[1].licences = vec!["pro".to_owned()];
        let ordered = Policy { ordered: true, ordered_at: Some(start()), ..policy };
        let opened = ordered.divide(path.clone(), start());
        assert_eq!(builds(&opened.path), [2]);
        let refused = ordered.must_be_licensed(&opened).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "update to 3.0 (build 3): it is for licences of the class pro only, and this site names none"
        );
        assert_eq!(policy.must_be_licensed(&opened), Ok(()), "without an order it is only held back");
        let pro = UpdateSettings { licence_class: Some("pro".to_owned()), ..updates.clone() };
        assert_eq!(builds(&Policy { updates: &pro, ..policy }.divide(path, start()).path), [2, 3, 4]);
    }

    #[test]
    fn a_day_counts_where_the_instant_is_not_known_and_without_both_nothing_is_old_enough() {
        let (updates, app) = (UpdateSettings { cool_down: Span::days(3), ..UpdateSettings::default() }, app());
        let policy =
            Policy { updates: &updates, site: Some("here"), app: &app, failed: &[], ordered: false, ordered_at: None };
        let day = Release { published_at: None, date: Some(start().date_naive()), ..release(2) };
        let until = start() + TimeDelta::days(3);
        assert_eq!(policy.divide(vec![day.clone()], start()).held[0].until(), Some(until));
        assert_eq!(builds(&policy.divide(vec![day.clone()], until).path), [2]);
        let ageless = policy.divide(vec![Release { date: None, ..day }], DateTime::<Utc>::MAX_UTC);
        assert_eq!(ageless.held[0].why, HeldBy::CoolDown { until: None });
    }

    #[test]
    fn the_places_of_sites_are_spread_evenly_and_do_not_move() {
        let (rollout, app) = (Rollout { start: start(), hours: 10 }, app());
        let hour = |site: u32| (turn_of(&rollout, &site.to_string(), &app, 2) - start()).num_hours();
        let mut sites = [0_u32; 10];
        for site in 0..10_000 {
            sites[usize::try_from(hour(site)).unwrap()] += 1;
        }
        // Ten standard deviations on either side of a thousand would be 300.
        assert!(sites.iter().all(|number| (850..1150).contains(number)), "{sites:?}");
        assert!((0..100).all(|site| hour(site) == hour(site)));
        let place = |build| turn_of(&rollout, "here", &app, build);
        assert!((3..20).any(|build| place(build) != place(2)), "another order for each release");
    }

    fn any_path() -> impl Strategy<Value = Vec<Release>> {
        let one = (0_i64..200, any::<bool>(), proptest::option::of((0_i64..200, 0_u32..200)), 0_u8..6);
        proptest::collection::vec(one, 0..8).prop_map(|rows| {
            let made = rows.into_iter().zip(1_u64..).map(|((age, security, rollout, class), build)| Release {
                published_at: Some(start() - TimeDelta::hours(age)),
                security: security && age % 3 == 0,
                rollout: rollout.map(|(after, hours)| Rollout { start: start() + TimeDelta::hours(after), hours }),
                licences: if class == 0 { vec!["pro".to_owned()] } else { Vec::new() },
                ..release(build)
            });
            made.collect()
        })
    }

    proptest! {
        #[test]
        fn the_path_is_cut_not_thinned_and_once_open_stays_open(
            path in any_path(),
            cool_down in 0_u64..200,
            failed in proptest::collection::vec(1_u64..9, 0..2),
            ordered in any::<bool>(),
            hours in 0_i64..500,
            later in 0_i64..500,
        ) {
            let updates = UpdateSettings { cool_down: Span::hours(cool_down), ..UpdateSettings::default() };
            let app = app();
            let failed: Vec<_> = failed.into_iter().map(|build| (build, start())).collect();
            let ordered_at = Some(start());
            let (updates, app) = (&updates, &app);
            let policy = Policy { updates, site: Some("here"), app, failed: &failed, ordered, ordered_at };
            let now = start() + TimeDelta::hours(hours);
            let opened = policy.divide(path.clone(), now);
            // Nothing, and so no barrier, is jumped over; and of each release that is not taken is said why.
            prop_assert_eq!(&opened.path[..], &path[..opened.path.len()]);
            prop_assert_eq!(opened.path.len() + opened.held.len(), path.len());
            prop_assert!(opened.path.iter().all(|release| release.licences.is_empty()));
            let failed_here = |release: &Release| failed.iter().any(|(build, _)| *build == release.id.build);
            prop_assert!(ordered || !opened.path.iter().any(failed_here));
            prop_assert!(opened.held.iter().all(|held| held.until().is_none_or(|until| until > now)));
            let then = policy.divide(path, now + TimeDelta::hours(later));
            prop_assert!(then.path.len() >= opened.path.len());
        }
    }
}
