//! Looks whether the clock can be believed before anything is started by it, and puts right what a wrong one has done.
//!
//! [`judge`] says which it is. While the clock is doubted nothing starts by the schedule and no history is removed: the doubt stands
//! in the store, where `status` and the launcher find it. When a clock that was ahead is right again, the starts that
//! it had moved on or used up are computed again: said in the log, in the audit and in `status`.

use std::sync::Arc;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use crate::db::audit::AuditEntry;
use crate::db::clock::Again;
use crate::db::clock::Moved;
use crate::db::store::Store;
use crate::db::store::StoreError;
use crate::domain::clock::Moment;
use crate::domain::doubt::BEHIND;
use crate::domain::doubt::REMEDY;
use crate::domain::doubt::Seen;
use crate::domain::doubt::Word;
use crate::domain::doubt::judge;
use crate::domain::job::JobSpec;
use crate::domain::job::StartCondition;
use crate::scheduler::resolve::next_start;

/// How often a clock that is believed is remembered.
const REMEMBER_EVERY: TimeDelta = TimeDelta::hours(1);
/// How many starts that were computed again are named in the audit.
const NAMED_MAX: usize = 100;

/// What a look at the clock came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It is believed.
    Believed,
    /// It was ahead, and is right now: what was seen of it before is void.
    Mended,
    /// It is not: nothing starts.
    Doubted,
}

/// Looks at the clock; `vouched` says whether a time service keeps it.
///
/// # Errors
/// The store fails.
pub async fn look(store: &Store, now: Moment, vouched: bool) -> Result<Look, StoreError> {
    let newest = store.newest_link_at().await?;
    let known = store.clock_seen().await?;
    let seen = known.clone().unwrap_or_else(|| Seen::at(newest.map_or(now, Moment::from)));
    let word = judge(now, &seen, newest, vouched);
    let doubt = word.doubt(now);
    if let Some(text) = &doubt {
        if seen.doubt.is_none() {
            tracing::error!("{text}: {REMEDY}");
            store.note_clock(Seen { doubt, ..seen }).await?;
        }
        return Ok(Look::Doubted);
    }
    if seen.doubt.is_some() {
        tracing::info!(at = %now.at, "the clock is believed again: starts go on");
    }
    let good = Seen { good: now, doubt: None, mended: seen.mended.clone() };
    if word == Word::WasAhead {
        let wrong = newest.max(Some(seen.good.at)).unwrap_or(now.at);
        mend(store, now, wrong, good).await?;
        return Ok(Look::Mended);
    }
    let is_old = |seen: &Seen| now.at - seen.good.at >= REMEMBER_EVERY || now.set_since(seen.good).is_none();
    if known.as_ref().is_none_or(|seen| seen.doubt.is_some() || is_old(seen)) {
        store.note_clock(good).await?;
    }
    Ok(Look::Believed)
}

/// Whether the clock is doubted, as the last look has found.
///
/// # Errors
/// The store fails.
pub async fn is_doubted(store: &Store) -> Result<bool, StoreError> {
    Ok(store.clock_seen().await?.is_some_and(|seen| seen.doubt.is_some()))
}

async fn mend(store: &Store, now: Moment, wrong: DateTime<Utc>, good: Seen) -> Result<(), StoreError> {
    let again: Again = Arc::new(move |spec, due_at, after| start_again(spec, due_at, now.at, after));
    let told = move |moved: &[Moved]| {
        let text = format!(
            "the clock was ahead, at {}; it is right now, and the next starts of {} jobs were computed again",
            wrong.format("%Y-%m-%d %H:%M:%S UTC"),
            moved.len()
        );
        let entry = AuditEntry {
            at: now.at,
            who: "afterhours".to_owned(),
            via: "daemon".to_owned(),
            action: "clock.mended".to_owned(),
            object: "jobs".to_owned(),
            body: serde_json::json!({
                "was_ahead_at": wrong, "moved": moved.len(), "starts": moved.iter().take(NAMED_MAX).collect::<Vec<_>>(),
            }),
        };
        (entry, Seen { mended: Some((now.at, text)), ..good })
    };
    let moved = store.compute_again(now.at, again, told).await?;
    tracing::warn!(was_ahead_at = %wrong, jobs = moved.len(), "the clock was ahead and is right now");
    for Moved { job, before, after } in moved.iter().take(NAMED_MAX) {
        tracing::warn!(job, ?before, ?after, "the next start was computed by a wrong clock, and is computed again");
    }
    Ok(())
}

/// When a job starts that a wrong clock wanted to start at `due_at`.
fn start_again(
    spec: &JobSpec,
    due_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
    after: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    match &spec.start {
        StartCondition::Series { .. } => {
            let next = next_start(&spec.start, after).ok().flatten().map(|next| next.at);
            due_at.filter(|due_at| *due_at <= now).or(next)
        }
        StartCondition::Immediate => due_at.map(|due_at| if due_at - now > BEHIND { now } else { due_at }),
        StartCondition::Time { .. } | StartCondition::After { .. } => due_at,
    }
}
