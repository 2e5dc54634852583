//! The end of all patience: sessions that are still there long after force was used.
//!
//! A client can ignore what it is told, lose its link again and again, and claim any process as its program. None of that
//! may keep everybody else from being updated. Of a session of this machine only its process counts: one that is seen is
//! killed from here, and a session without one is dropped.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::domain::name::AppName;
use crate::domain::session::Session;
use crate::domain::session::SessionId;
use crate::exec::process::Life;
use crate::sessions::desk::Desk;
use crate::sessions::hub::Hub;
use crate::sessions::hub::SessionChange;
use crate::sessions::standing::Standing;
use crate::sessions::station::Phase;
use crate::sessions::station::Station;

/// How long a process that was killed may still be there; it does nothing more of its own.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Why a session was dropped that had not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its client ignored the end, and its program was killed.
    Killed,
    /// Its program was killed, and the kernel does not let go of it.
    Held,
    /// What it claims as its program is no process of that user.
    NoProgram,
}

/// A session that was dropped.
#[derive(Debug, Clone)]
pub struct Dropped {
    /// Which.
    pub session: Session,
    /// Why.
    pub why: Why,
}

/// Which sessions are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All that are left.
    Left,
    /// Only those of which it is not known whether they are there.
    Unsure,
}

impl Hub {
    /// Everybody is to be logged out: from now on, until the gate opens or the update is called off, nobody's word is
    /// taken for a program that has run all the time.
    pub fn seal(&self, app: &AppName) {
        self.at_desk(app, |desk, _| {
            desk.sealed = true;
            Vec::new()
        });
    }

    /// Whether it becomes known by itself, soon, who is logged in: somebody has lost a link a moment ago.
    pub fn is_settling(&self, app: &AppName) -> bool {
        let now = Instant::now();
        self.lock().desks.get(app).is_some_and(|desk| {
            desk.in_doubt.is_empty() && desk.stations.values().any(|station| station.standing(now) == Standing::Unknown)
        })
    }

    /// Kills the programs that are seen, and drops the sessions without one. A session that root has registered is not
    /// dropped: its program may be where nobody but root's agent sees it.
    pub fn cut_off(&self, app: &AppName, which: Which) -> Vec<Dropped> {
        let now = Instant::now();
        let (dropped, changes) = {
            let mut state = self.lock();
            let Some(desk) = state.desks.get_mut(app) else { return Vec::new() };
            desk.sealed = true;
            let dropped = desk.cut_off(which, now);
            let changes: Vec<_> = dropped.iter().map(|one| left(app, &one.session.id)).collect();
            for one in &dropped {
                state.apps.remove(&one.session.id);
            }
            (dropped, changes)
        };
        self.pass_on(changes);
        dropped
    }
}

fn left(app: &AppName, session: &SessionId) -> SessionChange {
    SessionChange::Left { app: app.clone(), session: session.clone() }
}

impl Desk {
    fn cut_off(&mut self, which: Which, now: Instant) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        for station in self.stations.values_mut().filter(|station| station.phase == Phase::Admitted) {
            if which == Which::Unsure && station.standing(now) != Standing::Unknown {
                continue;
            }
            if let Some(why) = station.cut_off(now) {
                dropped.push(Dropped { session: station.member.shown(), why });
            }
        }
        for one in &dropped {
            self.stations.remove(&one.session.id);
        }
        dropped
    }
}

impl Station {
    /// Kills its program; answers why it is to be dropped, if it is.
    fn cut_off(&mut self, now: Instant) -> Option<Why> {
        let alive = self.member.program_seen && self.member.life_of_program() == Some(Life::Alive);
        let vouched = self.member.is_vouched_for();
        match (alive, self.killed) {
            (true, Some(at)) => (!vouched && now.saturating_duration_since(at) >= KILL_WAIT).then_some(Why::Held),
            (true, None) => {
                match self.member.signal(Signal::KILL) {
                    Ok(()) => self.killed = Some(now),
                    // It stays: whoever may not be killed by us may still work.
                    Err(error) => tracing::warn!(session = %self.member.session.id, %error, "a program was not killed"),
                }
                None
            }
            (false, Some(_)) => Some(Why::Killed),
            (false, None) => (!vouched).then_some(Why::NoProgram),
        }
    }
}
