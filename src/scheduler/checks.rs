//! When newer releases are looked for: when the daemon starts and in a period, as each application wishes.
//!
//! Whether it is time is decided anew each minute from what the store says of the last look; so a look that was missed
//! while the machine was off is made up for, and one that we die in is made again.
//!
//! The period is laid over the clock, and each site and application has a place of its own in it, found from the number
//! of the site, which is never sent: sites that were installed or started together do not ask their vendor together.
//! The second of the minute is the site's own, too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use chrono::DateTime;
use chrono::Utc;
use futures_util::StreamExt;
use futures_util::stream;
use sha2::Digest;
use sha2::Sha256;

use crate::config::settings::UpdateSettings;
use crate::domain::failure::Failure;
use crate::domain::name::AppName;
use crate::domain::span::Span;
use crate::domain::update_check::Offer;
use crate::domain::update_check::UpdateCheck;
use crate::jobs::kit::Kit;
use crate::jobs::update_check::look;
use crate::scheduler::housekeeping::Household;
use crate::scheduler::housekeeping::Troubles;

/// How many feeds are looked at together; a server that does not answer must not hold up all others.
const TOGETHER_MAX: usize = 4;
/// Where nobody has ever looked, the first look comes in this time after the start, however long the period is.
const FIRST_WITHIN: Span = Span::hours(1);

/// When this process has looked, by application: also where it could not be noted.
pub type Looks = Mutex<BTreeMap<AppName, DateTime<Utc>>>;

impl Household {
    /// Each minute, at a second of this site's own.
    pub(super) fn checks_schedule(&self) -> String {
        let site = self.night.kits.values().find_map(|kit| kit.site.clone());
        let second = Place::of(site.as_deref(), "").millis_of(Span::mins(1)) / 1_000;
        format!("{second} * * * * *")
    }

    /// Looks for newer releases of every application for which it is time. When the daemon stops, what is under way is
    /// dropped, and what was noted before stays.
    pub(super) async fn check_feeds(&self) -> Result<(), Failure> {
        tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            checked = self.check_due_feeds() => checked,
        }
    }

    async fn check_due_feeds(&self) -> Result<(), Failure> {
        let mut troubles = Troubles::default();
        let mut due = Vec::new();
        for (app, kit) in &self.night.kits {
            match self.is_check_due(kit).await {
                Ok(true) => due.push(Arc::clone(kit)),
                Ok(false) => {}
                Err(failure) => troubles.add(app.as_str(), failure),
            }
        }
        let mut checks = stream::iter(due)
            .map(|kit| async move { (kit.app.name.clone(), self.check_feed(&kit).await) })
            .buffer_unordered(TOGETHER_MAX);
        while let Some((app, checked)) = checks.next().await {
            troubles.note(&app, checked);
        }
        troubles.result()
    }

    async fn is_check_due(&self, kit: &Kit) -> Result<bool, Failure> {
        let app = &kit.app.name;
        let now = self.clock.now();
        let noted_at = self.store.update_check(app).await?.map(|check| check.at);
        let looked_at = self.looks.lock().unwrap_or_else(PoisonError::into_inner).get(app).copied();
        let place = Place::of(kit.site.as_deref(), app.as_str());
        let looks = LastLooks { noted_at, looked_at, since: self.since };
        if !is_due(&kit.app.updates, place, looks, now) {
            return Ok(false);
        }
        // Between stop and commit nobody can say what is newer; it is looked when the application is back.
        Ok(!self.store.active_run(app).await?.is_some_and(|run| run.away))
    }

    async fn check_feed(&self, kit: &Kit) -> Result<(), Failure> {
        let app = &kit.app.name;
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).insert(app.clone(), self.clock.now());
        let before = self.store.update_check(app).await?;
        let check = look(kit, &self.store, &*self.clock).await.check;
        tell(app, before.as_ref(), &check);
        Ok(self.store.note_update_check(app, check).await?)
    }
}

/// A line in the log where something has changed; a failure that lasts is told once.
fn tell(app: &AppName, before: Option<&UpdateCheck>, now: &UpdateCheck) {
    // Which failure it is; what is below it may read otherwise each time.
    let told = |failure: &Failure| (failure.message.clone(), failure.hint.clone());
    let failure_before = before.and_then(|check| check.failure.as_ref());
    match &now.failure {
        Some(failure) if failure_before.map(told) != Some(told(failure)) => {
            tracing::warn!(%app, %failure, hint = failure.hint, "newer releases cannot be looked for");
        }
        None if failure_before.is_some() => tracing::info!(%app, "newer releases can be looked for again"),
        _ => {}
    }
    let newest = |check: &UpdateCheck| check.offer.as_ref().and_then(|Offer { pending, .. }| pending.last().cloned());
    if let Some(release) = newest(now)
        && before.and_then(newest).as_ref() != Some(&release)
    {
        tracing::info!(%app, %release, "a newer release is there");
    }
}

/// When was looked, the last time.
#[derive(Debug, Clone, Copy)]
struct LastLooks {
    /// By the store.
    noted_at: Option<DateTime<Utc>>,
    /// By this process.
    looked_at: Option<DateTime<Utc>>,
    /// Since when this process could have.
    since: DateTime<Utc>,
}

/// Whether it is time to look.
fn is_due(wish: &UpdateSettings, place: Place, looks: LastLooks, now: DateTime<Utc>) -> bool {
    if wish.check_at_start && looks.looked_at.is_none() {
        return true;
    }
    let Some(every) = wish.check_every else { return false };
    match looks.noted_at.max(looks.looked_at) {
        // The clock was set back, who knows how far.
        Some(last) if last > now => true,
        Some(last) => place.turn(every, now) > place.turn(every, last),
        None => {
            let every = every.min(FIRST_WITHIN);
            place.turn(every, now) > place.turn(every, looks.since)
        }
    }
}

/// A place in any period, of 2^64.
#[derive(Debug, Clone, Copy)]
struct Place(u64);

impl Place {
    /// That of this site for one application: always the same.
    fn of(site: Option<&str>, app: &str) -> Self {
        let hash = Sha256::new().chain_update("check").chain_update([0]).chain_update(site.unwrap_or_default());
        let hash = hash.chain_update([0]).chain_update(app).finalize();
        Self(hash.iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// How far into a period it is, in milliseconds.
    fn millis_of(self, period: Span) -> i64 {
        let millis = (u128::from(self.0) * period.duration().as_millis()) >> 64;
        i64::try_from(millis).unwrap_or(i64::MAX)
    }

    /// How many looks of this place were due until an instant, since 1970.
    fn turn(self, every: Span, at: DateTime<Utc>) -> i64 {
        let period = i64::try_from(every.duration().as_millis()).unwrap_or(i64::MAX).max(1);
        (at.timestamp_millis() - self.millis_of(every)).div_euclid(period)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-22T{text}Z").parse().unwrap()
    }

    /// A place a quarter into every period.
    const QUARTER: Place = Place(1 << 62);

    fn wish(check_at_start: bool, check_every: Option<Span>) -> UpdateSettings {
        UpdateSettings { check_at_start, check_every, ..UpdateSettings::default() }
    }

    fn noted(noted_at: &str) -> LastLooks {
        LastLooks { noted_at: Some(at(noted_at)), looked_at: None, since: at("02:00:00") }
    }

    fn never(since: &str) -> LastLooks {
        LastLooks { noted_at: None, looked_at: None, since: at(since) }
    }

    #[test]
    fn once_in_each_period_at_a_place_of_its_own() {
        let hourly = wish(false, Some(Span::hours(1)));
        let due = |last: &str, now: &str| is_due(&hourly, QUARTER, noted(last), at(now));
        assert!(!due("02:15:00", "03:14:59"));
        assert!(due("02:15:00", "03:15:00"));
        // Who has looked by hand meanwhile has not changed the place.
        assert!(due("03:14:00", "03:15:00") && !due("03:16:00", "04:14:59"));
        // What was missed is made up for, once.
        assert!(due("02:15:00", "09:00:00") && !due("09:00:00", "09:14:00"));
        assert!(due("09:00:00", "02:16:00"), "the clock was set back");
    }

    #[test]
    fn what_this_process_has_done_counts_also_where_it_was_not_noted() {
        let hourly = wish(true, Some(Span::hours(1)));
        let looked = |at: Option<DateTime<Utc>>| LastLooks { looked_at: at, ..noted("02:10:00") };
        assert!(is_due(&hourly, QUARTER, looked(None), at("02:12:00")), "at the start, however short ago it was");
        assert!(!is_due(&hourly, QUARTER, looked(Some(at("02:16:00"))), at("02:17:00")));
        assert!(is_due(&hourly, QUARTER, looked(Some(at("02:16:00"))), at("03:15:00")));
        assert!(!is_due(&wish(false, None), QUARTER, looked(None), at("09:00:00")));
        assert!(!is_due(&wish(true, None), QUARTER, looked(Some(at("02:16:00"))), at("09:00:00")));
    }

    #[test]
    fn where_nobody_has_ever_looked_the_first_look_does_not_wait_for_weeks() {
        let weekly = wish(false, Some(Span::days(7)));
        let due = |now: &str| is_due(&weekly, QUARTER, never("02:00:00"), at(now));
        assert!(!due("02:00:01") && !due("02:14:59") && due("02:15:00"));
        let often = wish(false, Some(Span::mins(4)));
        assert!(is_due(&often, QUARTER, never("02:00:00"), at("02:01:00")));
    }

    #[test]
    fn sites_are_spread_over_the_whole_period() {
        let day = Span::days(1);
        let sites: Vec<i64> =
            (0..1_000).map(|site| Place::of(Some(&format!("site {site}")), "orders").millis_of(day)).collect();
        let hour = |hour: i64| sites.iter().filter(|millis| **millis / 3_600_000 == hour).count();
        assert!((0..24).all(|it| (15..85).contains(&hour(it))), "{:?}", (0..24).map(hour).collect::<Vec<_>>());
        let of = |site, app| Place::of(Some(site), app).0;
        assert_eq!(of("a", "orders"), of("a", "orders"));
        assert!(of("a", "orders") != of("a", "crm") && of("a", "orders") != of("b", "orders"));
    }

    #[test]
    fn over_any_time_there_is_one_look_a_period() {
        let every = Span::mins(90);
        let wish = wish(false, Some(every));
        for place in [0, 1, 1 << 61, u64::MAX].map(Place) {
            let (mut last, mut looks, begin) = (at("00:00:00"), 0, at("00:00:00"));
            for minute in 0..=90 * 16 {
                let now = begin + TimeDelta::minutes(minute);
                let facts = LastLooks { noted_at: Some(last), looked_at: None, since: begin };
                if is_due(&wish, place, facts, now) {
                    (last, looks) = (now, looks + 1);
                }
            }
            assert_eq!(looks, 16, "{place:?}");
        }
    }
}
