//! The workstations of one application, its gate as they see it, and the warning that holds.
//! Everything here happens under the hub's lock.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::domain::release::Version;
use crate::domain::session::Answer;
use crate::domain::session::Census;
use crate::domain::session::Notice;
use crate::domain::session::SessionId;
use crate::domain::span::Span;
use crate::sessions::Finished;
use crate::sessions::hub::SessionChange;
use crate::sessions::standing::LOST_OPEN_MAX;
use crate::sessions::standing::Standing;
use crate::sessions::station::Link;
use crate::sessions::station::Member;
use crate::sessions::station::Peer;
use crate::sessions::station::Phase;
use crate::sessions::station::Station;
use crate::wire::workstation::ClosedText;
use crate::wire::workstation::OwnSession;
use crate::wire::workstation::Program;
use crate::wire::workstation::ServerMessage;
use crate::wire::workstation::StationStatus;

/// What users are told where no update was.
const NO_NEWS: &str = "The application may be started again.";

/// The lost links of one user that belong together: who loses one again and again is not given the time anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flap {
    /// When the first of them was lost.
    pub(super) since: Instant,
    /// When the last of them was.
    pub(super) last: Instant,
}

/// The workstations of one application.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Why programs may not be started.
    pub(super) closed: Option<ClosedText>,
    /// The warning that holds.
    pub(super) notice: Option<Notice>,
    /// How the last update ended, until the next one is announced.
    pub(super) news: Option<Finished>,
    /// Everybody.
    pub(super) stations: BTreeMap<SessionId, Station>,
    /// Whether everybody is logged out: until the gate opens, no program is taken for one that has run all the time.
    pub(super) sealed: bool,
    /// Since when, and until when, users without a visible program lose their links.
    pub(super) flaps: BTreeMap<u32, Flap>,
    /// Those that were noted before the daemon started and of whom nothing more can be read.
    pub(super) in_doubt: BTreeSet<SessionId>,
}

impl Desk {
    /// Who is logged in.
    pub(super) fn census(&self, now: Instant) -> Census {
        if let Some(session) = self.in_doubt.first() {
            return Census::Unknown(format!("what is noted of session {session} cannot be read"));
        }
        let mut known = Vec::new();
        for station in self.stations.values() {
            let session = &station.member.session;
            match station.standing(now) {
                Standing::Open => known.push(station.member.shown()),
                Standing::Gone => {}
                Standing::Unknown => {
                    let place = session.workstation.as_deref().unwrap_or("a workstation");
                    return Census::Unknown(format!(
                        "{place} of {} (session {}) has lost its connection a moment ago",
                        session.who(),
                        session.id
                    ));
                }
            }
        }
        Census::Known(known)
    }

    /// How it stands, for who asks.
    pub(super) fn status(&self, peer: Option<Peer>) -> StationStatus {
        let uid = peer.map(|peer| peer.uid);
        let own = self.stations.values().filter(|station| uid.is_some() && station.member.uid == uid);
        let own = own.map(|station| OwnSession {
            session: station.member.session.id.clone(),
            workstation: station.member.session.workstation.clone(),
            since: station.member.session.since,
            answer: station.member.session.answer,
            waits: station.phase == Phase::Waiting,
        });
        StationStatus {
            closed: self.closed.clone(),
            notice: self.notice.clone(),
            sessions: self.stations.values().filter(|station| station.phase == Phase::Admitted).count() as u64,
            own: own.collect(),
        }
    }

    /// Whether a program that is said to run already may have done so. `before` is what was known of the session.
    ///
    /// While the gate is open whoever says so is counted. While it is closed, a program that was known before is
    /// believed, and one that is seen; once everybody is logged out only the former. Root's word is believed always.
    pub(super) fn believes(&self, member: &Member, before: Option<&Station>, told: Program) -> bool {
        let Program::Running { process } = told else { return true };
        if self.closed.is_none() || member.is_vouched_for() {
            return true;
        }
        let admitted = before.filter(|station| station.phase == Phase::Admitted);
        match admitted {
            Some(station) if station.member.program == Some(process) => true,
            Some(station) if !self.sealed => station.member.program.is_none() || member.sees(process),
            _ => !self.sealed && member.sees(process),
        }
    }

    /// Counts the time of a lost link from the first that its user has lost lately. Otherwise a user without any program
    /// could keep it unknown for ever who is logged in.
    fn count_flaps(&mut self, now: Instant) {
        let Self { stations, flaps, .. } = self;
        flaps.retain(|_, flap| now.saturating_duration_since(flap.last) < LOST_OPEN_MAX);
        for station in stations.values_mut() {
            let Some(uid) = station.member.uid.filter(|_| !station.member.is_vouched_for()) else { continue };
            if let (Link::Lost { since, .. }, Phase::Admitted) = (&mut station.link, station.phase) {
                let flap = flaps.entry(uid).or_insert(Flap { since: *since, last: *since });
                flap.last = flap.last.max(*since);
                *since = (*since).min(flap.since);
            }
        }
    }

    /// Forgets who is over; their names.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<SessionId> {
        self.count_flaps(now);
        let over: Vec<_> =
            self.stations.iter().filter(|(_, station)| station.is_over(now)).map(|(id, _)| id.clone()).collect();
        for id in &over {
            self.stations.remove(id);
        }
        over
    }

    /// Sets the warning that holds and tells everybody who was not told yet.
    pub(super) fn announce(&mut self, notice: &Notice, left: Span, now: Instant) -> Vec<SessionChange> {
        let mut changes = Vec::new();
        if self.notice.as_ref() != Some(notice) {
            self.notice = Some(notice.clone());
            self.news = None;
            for station in self.stations.values_mut() {
                station.told = false;
                // Who waits to be started again has answered for good.
                if station.phase == Phase::Admitted && station.keep_answer_to(Some(notice)) {
                    changes.push(answered(station));
                }
            }
        }
        for station in self.stations.values_mut().filter(|station| !station.told && station.phase == Phase::Admitted) {
            station.told = station.tell(ServerMessage::Announce { notice: notice.clone(), left }, now);
        }
        changes
    }

    /// The update is over, well or not.
    pub(super) fn finish(&mut self, news: &Finished, now: Instant) -> Vec<SessionChange> {
        if self.news.as_ref() == Some(news) && self.notice.is_none() {
            return self.release(now);
        }
        self.notice = None;
        self.news = Some(news.clone());
        for station in self.stations.values_mut() {
            station.told = false;
            if station.phase == Phase::Admitted {
                station.tell(ready(Some(news)), now);
            }
        }
        self.after_the_update(now)
    }

    /// Answers of those who went on working are void; those who wait are let in.
    fn after_the_update(&mut self, now: Instant) -> Vec<SessionChange> {
        let mut changes = Vec::new();
        for station in self.stations.values_mut().filter(|station| station.phase == Phase::Admitted) {
            // A wish for a restart whose program has not ended yet is the client's to keep.
            if !station.wants_restart() && station.keep_answer_to(None) {
                changes.push(answered(station));
            }
        }
        changes.extend(self.release(now));
        changes
    }

    /// Lets those in who wait, when the gate is open and no update is under way.
    pub(super) fn release(&mut self, now: Instant) -> Vec<SessionChange> {
        if self.closed.is_some() || self.notice.is_some() {
            return Vec::new();
        }
        let mut changes = Vec::new();
        let news = self.news.clone();
        for station in self.stations.values_mut().filter(|station| station.phase == Phase::Waiting) {
            if !matches!(station.link, Link::Up { .. }) {
                continue;
            }
            if station.wants_restart() {
                // Logged in from this word on: the program may run before the client says so.
                let (version, text) = told(news.as_ref());
                if station.tell(ServerMessage::Start { version, text }, now) {
                    station.phase = Phase::Admitted;
                    station.member.program = None;
                    station.told = true;
                    station.keep_answer_to(None);
                    changes.push(SessionChange::Joined(station.member.clone()));
                }
            } else if !station.told {
                station.told = station.tell(ready(news.as_ref()), now);
            }
        }
        changes
    }
}

fn told(news: Option<&Finished>) -> (Option<Version>, String) {
    news.map_or((None, NO_NEWS.to_owned()), |news| (news.version.clone(), news.message.clone()))
}

fn ready(news: Option<&Finished>) -> ServerMessage {
    let (version, text) = told(news);
    ServerMessage::Ready { success: news.is_some_and(|news| news.success), version, text }
}

/// The change to remember after an answer was given or became void.
pub(super) fn answered(station: &Station) -> SessionChange {
    let session = &station.member.session;
    let answer: Option<Answer> = session.answer;
    SessionChange::Answered { app: session.app.clone(), session: session.id.clone(), answer }
}
