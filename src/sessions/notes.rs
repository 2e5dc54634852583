//! What changed of the sessions, on its way to whoever remembers it.
//!
//! ```text
//! Hub ── note ──► one entry a session; the newest wins ── next ──► at most BATCH_MAX, of each user in turn ──► the store
//! ```
//!
//! Invariants
//! - However often a session changes before it is noted, it is noted once: what waits is bounded by the sessions there are.
//! - Users take turns: what one of them makes us write keeps nobody else's change waiting.
//! - Batches have a pause between them, so that the store's writer is there for the runs.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::domain::name::AppName;
use crate::domain::session::SessionId;
use crate::sessions::hub::SessionChange;
use crate::sessions::hub::WORKSTATIONS_MAX;

/// How many changes are noted together.
pub const BATCH_MAX: usize = 256;
/// How long after one batch the next may be taken.
pub const BATCH_PAUSE: Duration = Duration::from_millis(50);
/// How many sessions may wait to be noted. One may have gone while it waits, and its place may be taken again.
const WAITING_MAX: usize = 2 * WORKSTATIONS_MAX;

/// A change on its way to the store.
#[derive(Debug)]
pub struct Change {
    /// What changed; what came before it and was not noted yet is in it.
    pub what: SessionChange,
    /// Told once it is durable: clients wait for it. Dropping them means that it failed.
    pub remembered: Vec<oneshot::Sender<()>>,
}

/// Where changes are handed in.
#[derive(Debug, Clone)]
pub struct Notes(Arc<Shared>);

/// Where they are taken out.
#[derive(Debug)]
pub struct Notebook {
    shared: Arc<Shared>,
    taken_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    something: Notify,
}

type Key = (AppName, SessionId);

#[derive(Debug, Default)]
struct Waiting {
    changes: HashMap<Key, Change>,
    /// Whose they are, each in the order in which they came.
    turns: BTreeMap<Option<u32>, VecDeque<Key>>,
    closed: bool,
}

/// Both ends.
pub fn notes() -> (Notes, Notebook) {
    let shared = Arc::new(Shared::default());
    (Notes(Arc::clone(&shared)), Notebook { shared, taken_at: None })
}

impl Notes {
    /// Hands a change in. Whether it will be noted: not when nobody takes it, or too much waits.
    pub(super) fn note(&self, what: SessionChange, remembered: Option<oneshot::Sender<()>>) -> bool {
        let mut waiting = self.0.lock();
        let key = key(&what);
        if waiting.closed {
            return false;
        }
        if let Some(change) = waiting.changes.get_mut(&key) {
            merge(&mut change.what, what);
            change.remembered.extend(remembered);
        } else if waiting.changes.len() < WAITING_MAX {
            waiting.turns.entry(whose(&what)).or_default().push_back(key.clone());
            waiting.changes.insert(key, Change { what, remembered: remembered.into_iter().collect() });
        } else {
            return false;
        }
        drop(waiting);
        self.0.something.notify_one();
        true
    }
}

impl Notebook {
    /// What changed, as soon as something did and the last batch is a while ago; nothing when no hub is left.
    pub async fn next(&mut self) -> Vec<Change> {
        if let Some(taken_at) = self.taken_at {
            tokio::time::sleep_until(taken_at + BATCH_PAUSE).await;
        }
        loop {
            let batch = self.shared.lock().take();
            if !batch.is_empty() {
                self.taken_at = Some(Instant::now());
                return batch;
            }
            if Arc::strong_count(&self.shared) == 1 {
                return batch;
            }
            self.shared.something.notified().await;
        }
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        // The notebook looks whether it is alone.
        self.0.something.notify_one();
    }
}

impl Drop for Notebook {
    fn drop(&mut self) {
        let mut waiting = self.shared.lock();
        waiting.closed = true;
        waiting.changes.clear();
        waiting.turns.clear();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Waiting {
    /// One of each user, then the next of each, up to the maximum.
    fn take(&mut self) -> Vec<Change> {
        let mut batch = Vec::new();
        while batch.len() < BATCH_MAX && !self.turns.is_empty() {
            for keys in self.turns.values_mut() {
                let change = keys.pop_front().and_then(|key| self.changes.remove(&key));
                batch.extend(change);
                if batch.len() >= BATCH_MAX {
                    break;
                }
            }
            self.turns.retain(|_, keys| !keys.is_empty());
        }
        batch
    }
}

fn key(what: &SessionChange) -> Key {
    match what {
        SessionChange::Joined(member) => (member.session.app.clone(), member.session.id.clone()),
        SessionChange::Answered { app, session, .. } | SessionChange::Left { app, session } => {
            (app.clone(), session.clone())
        }
    }
}

fn whose(what: &SessionChange) -> Option<u32> {
    match what {
        SessionChange::Joined(member) => member.uid,
        SessionChange::Answered { .. } | SessionChange::Left { .. } => None,
    }
}

/// What two changes of one session come to.
fn merge(before: &mut SessionChange, after: SessionChange) {
    match (before, after) {
        (SessionChange::Joined(member), SessionChange::Answered { answer, .. }) => member.session.answer = answer,
        // It is gone: nobody is left to have answered.
        (SessionChange::Left { .. }, SessionChange::Answered { .. }) => {}
        (before, after) => *before = after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::session::Answer;
    use crate::domain::session::Session;
    use crate::sessions::station::Member;

    fn app() -> AppName {
        "orders".parse().unwrap()
    }

    fn joined(uid: u32, id: &str) -> SessionChange {
        let mut member = Member::from(Session {
            id: SessionId(id.into()),
            app: app(),
            said: None,
            uid: None,
            pid: None,
            user: "anna".into(),
            workstation: None,
            since: None,
            last_activity: None,
            unsaved: None,
            answer: None,
        });
        member.uid = Some(uid);
        SessionChange::Joined(member)
    }

    fn left(id: &str) -> SessionChange {
        SessionChange::Left { app: app(), session: SessionId(id.into()) }
    }

    fn what(batch: Vec<Change>) -> Vec<SessionChange> {
        batch.into_iter().map(|change| change.what).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn flapping_is_one_change_and_all_who_wait_are_told() {
        let (notes, mut notebook) = notes();
        let (told, heard) = oneshot::channel();
        assert!(notes.note(joined(1, "a"), Some(told)));
        for _ in 0..10_000 {
            assert!(notes.note(left("a"), None));
            assert!(notes.note(joined(1, "a"), None));
        }
        let answer = Some(Answer::NotNow);
        assert!(notes.note(SessionChange::Answered { app: app(), session: SessionId("a".into()), answer }, None));
        let mut batch = notebook.next().await;
        assert_eq!(batch.len(), 1);
        let Change { what: SessionChange::Joined(member), remembered } = batch.remove(0) else { panic!("it is there") };
        assert_eq!(member.session.answer, answer);
        remembered.into_iter().for_each(|told| told.send(()).unwrap());
        heard.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn users_take_turns() {
        let (notes, mut notebook) = notes();
        for number in 0..5_000 {
            assert!(notes.note(joined(1, &format!("s{number}")), None));
        }
        assert!(notes.note(joined(2, "b"), None));
        let batch = notebook.next().await;
        assert_eq!(batch.len(), BATCH_MAX);
        assert!(what(batch).contains(&joined(2, "b")), "it is in the first batch");
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_apart_and_what_waits_is_bounded() {
        let (notes, mut notebook) = notes();
        let begun = Instant::now();
        for number in 0..10 {
            assert!(notes.note(joined(1, &format!("s{number}")), None));
            assert_eq!(notebook.next().await.len(), 1);
        }
        assert!(begun.elapsed() >= BATCH_PAUSE * 9);
        let taken = (0..=WAITING_MAX).filter(|number| notes.note(joined(1, &format!("t{number}")), None)).count();
        assert_eq!(taken, WAITING_MAX);
    }

    #[tokio::test]
    async fn both_ends_notice_that_the_other_has_gone() {
        let (notes, mut notebook) = super::notes();
        assert!(notes.note(left("a"), None));
        drop(notes);
        assert_eq!(what(notebook.next().await), [left("a")]);
        assert!(notebook.next().await.is_empty());
        let (notes, notebook) = super::notes();
        drop(notebook);
        assert!(!notes.note(left("a"), None));
    }
}
