//! How a client gets its place: what the hub's lock guards, and admission and registration as one act on it.

use std::collections::BTreeMap;
use std::collections::HashMap;

use chrono::DateTime;
use chrono::Utc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

use crate::domain::foreign;
use crate::domain::name::AppName;
use crate::domain::session::Answer;
use crate::domain::session::Session;
use crate::domain::session::SessionId;
use crate::domain::span::Span;
use crate::sessions::desk::Desk;
use crate::sessions::hub::HubError;
use crate::sessions::hub::QUEUE_MAX;
use crate::sessions::hub::SessionChange;
use crate::sessions::hub::Verdict;
use crate::sessions::hub::WORKSTATIONS_MAX;
use crate::sessions::named::Named;
use crate::sessions::quota::Quota;
use crate::sessions::quota::has_share;
use crate::sessions::station::Ending;
use crate::sessions::station::Link;
use crate::sessions::station::Member;
use crate::sessions::station::Peer;
use crate::sessions::station::Phase;
use crate::sessions::station::Station;
use crate::sessions::station::visible_client;
use crate::wire::workstation::ClosedText;
use crate::wire::workstation::Program;
use crate::wire::workstation::Register;
use crate::wire::workstation::ServerMessage;

/// How the names of the workstations' sessions begin.
const ID_PREFIX: &str = "ws-";
/// How many hexadecimal digits follow.
const ID_DIGITS: usize = 8;

/// Whether a session's name has the shape of those that the hub gives.
pub(super) fn is_workstations(id: &str) -> bool {
    id.strip_prefix(ID_PREFIX)
        .is_some_and(|rest| rest.len() == ID_DIGITS && rest.chars().all(|c| c.is_ascii_hexdigit()))
}

/// A place, or none.
pub(super) enum Seated {
    /// The gate is closed.
    Closed(ClosedText),
    /// Here it is.
    At(Box<Place>),
}

/// A place at a desk.
pub(super) struct Place {
    /// Which connection it is.
    pub(super) conn: u64,
    /// What the client is to be told.
    pub(super) messages: mpsc::Receiver<ServerMessage>,
    /// What is to be remembered before it is told anything.
    pub(super) member: Member,
    /// What changed besides.
    pub(super) changes: Vec<SessionChange>,
}

/// What the hub's lock guards.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The applications.
    pub(super) desks: BTreeMap<AppName, Desk>,
    /// Where each session sits.
    pub(super) apps: HashMap<SessionId, AppName>,
    /// What one user may have.
    pub(super) quota: Quota,
    conns: u64,
}

impl State {
    pub(super) fn station(&mut self, session: &SessionId) -> Option<(&mut Desk, AppName)> {
        let app = self.apps.get(session)?.clone();
        Some((self.desks.get_mut(&app)?, app))
    }

    pub(super) fn sweep(&mut self, app: &AppName, now: Instant) -> Vec<SessionChange> {
        let Some(desk) = self.desks.get_mut(app) else { return Vec::new() };
        let mut changes = Vec::new();
        for session in desk.sweep(now) {
            self.apps.remove(&session);
            changes.push(SessionChange::Left { app: app.clone(), session });
        }
        changes
    }

    pub(super) fn owned(&mut self, session: &SessionId, peer: Option<Peer>) -> Result<(&mut Desk, AppName), HubError> {
        let no_session = || HubError::NoSession { session: session.clone() };
        let (desk, app) = self.station(session).ok_or_else(no_session)?;
        let station = desk.stations.get(session).ok_or_else(no_session)?;
        if station.member.belongs_to(peer) {
            Ok((desk, app))
        } else {
            Err(HubError::NotYours { session: session.clone() })
        }
    }

    /// The session this client goes on with, when it is still here and its own.
    fn resumed(&self, app: &AppName, register: &Register, peer: Option<Peer>) -> Option<&Station> {
        let station = self.desks.get(app)?.stations.get(register.session.as_ref()?)?;
        station.member.belongs_to(peer).then_some(station)
    }

    /// Whether this client was admitted before and has not started its program yet.
    pub(super) fn is_admitted(&self, app: &AppName, register: &Register, peer: Option<Peer>) -> bool {
        self.resumed(app, register, peer)
            .is_some_and(|station| station.phase == Phase::Admitted && station.member.program.is_none())
    }

    /// Forgets who is over, where there would be no place otherwise.
    pub(super) fn make_room(&mut self, app: &AppName, register: &Register, peer: Option<Peer>) -> Vec<SessionChange> {
        if self.resumed(app, register, peer).is_some() || self.room(app, peer).is_ok() {
            return Vec::new();
        }
        let (now, apps) = (Instant::now(), self.desks.keys().cloned().collect::<Vec<_>>());
        apps.iter().flat_map(|app| self.sweep(app, now)).collect()
    }

    /// Whether this user may have one more session at `app`, and there is a place for it.
    fn room(&self, app: &AppName, peer: Option<Peer>) -> Result<(), HubError> {
        let uid = peer.map(|peer| peer.uid);
        let of = |desk: &Desk| desk.stations.values().filter(|station| station.member.uid == uid).count();
        let max = self.quota.per_user_max(app);
        // An agent of root's registers for everybody.
        if !peer.is_some_and(Peer::vouches) && self.desks.get(app).map_or(0, of) >= max {
            return Err(HubError::TooMany { app: app.clone(), max });
        }
        let own = self.desks.values().map(of).sum();
        if has_share(own, self.apps.len(), WORKSTATIONS_MAX) { Ok(()) } else { Err(HubError::Full) }
    }

    /// Admission and registration in one act.
    pub(super) fn seat(
        &mut self,
        app: &AppName,
        register: &Register,
        peer: Option<Peer>,
        named: Named,
        verdict: &Verdict,
        since: DateTime<Utc>,
    ) -> Result<Seated, HubError> {
        let now = Instant::now();
        let resumed = self.resumed(app, register, peer).map(|station| {
            // Where its program is being killed, that goes on.
            (station.member.clone(), station.ending, station.killed)
        });
        let mut changes = Vec::new();
        if resumed.is_none() {
            self.room(app, peer)?;
        }
        let desk = self.desks.get(app);
        let id = match (&resumed, &register.session) {
            (Some((member, ..)), _) => member.session.id.clone(),
            // Nobody gives themself a name: another provider may use it, and what is told to one would reach the other.
            (None, Some(id)) if desk.is_some_and(|desk| desk.in_doubt.contains(id)) => id.clone(),
            _ => self.fresh_id(),
        };
        let mut member = Member::from(Session {
            id: id.clone(),
            app: app.clone(),
            user: named.user,
            said: named.said,
            uid: None,
            pid: None,
            workstation: Some(foreign::name(&register.workstation)),
            since: resumed.as_ref().and_then(|(member, ..)| member.session.since).or(Some(since)),
            last_activity: None,
            unsaved: None,
            answer: None,
        });
        member.uid = peer.map(|peer| peer.uid);
        member.client = visible_client(register, peer);
        let before = resumed.as_ref().and_then(|(member, ..)| desk?.stations.get(&member.session.id));
        if desk.is_some_and(|desk| !desk.believes(&member, before, register.state.program)) {
            return Err(HubError::NotNow);
        }
        if register.state.program == Program::NotStarted && !self.is_admitted(app, register, peer) {
            let closed = self.desks.get(app).and_then(|desk| desk.closed.clone());
            match (verdict, closed) {
                (Verdict::Refused { message, until }, _) => {
                    return Ok(Seated::Closed(ClosedText { text: message.clone(), until: *until }));
                }
                (Verdict::Admitted, Some(closed)) => return Ok(Seated::Closed(closed)),
                (Verdict::Admitted, None) | (Verdict::AdmittedByPass, _) => {}
            }
        }
        self.conns += 1;
        let conn = self.conns;
        let (queue, messages) = mpsc::channel(QUEUE_MAX);
        self.apps.insert(id.clone(), app.clone());
        let desk = self.desks.entry(app.clone()).or_default();
        desk.in_doubt.remove(&id);
        let link = Link::Up { conn, queue };
        let answered = register.answered.clone();
        let (ending, killed) = resumed.map_or((Ending::No, None), |(_, ending, killed)| (ending, killed));
        let mut station = Station { member, phase: Phase::Admitted, link, answered, told: false, ending, killed };
        station.take(&register.state);
        if station.phase == Phase::Waiting && station.wants_restart() {
            // It was asked for before the warning that holds now, or one that is over: it is still owed.
            station.member.session.answer = Some(Answer::RestartAfterwards);
        } else {
            station.keep_answer_to(desk.notice.as_ref());
        }
        station.tell(ServerMessage::Welcome { session: id.clone() }, now);
        if let (Some(notice), Phase::Admitted) = (&desk.notice, station.phase) {
            let left = Span::between(since, notice.ends_at);
            station.told = station.tell(ServerMessage::Announce { notice: notice.clone(), left }, now);
        }
        if station.phase == Phase::Admitted {
            station.tell_ending(now);
        }
        let member = station.member.clone();
        desk.stations.insert(id.clone(), station);
        changes.extend(desk.release(now));
        Ok(Seated::At(Box::new(Place { conn, messages, member, changes })))
    }

    /// A name short enough to be typed, and of a shape that is ours alone: the random end of a UUID.
    fn fresh_id(&self) -> SessionId {
        loop {
            let uuid = Uuid::now_v7().simple().to_string();
            let id = SessionId(format!("{ID_PREFIX}{}", &uuid[uuid.len() - ID_DIGITS..]));
            if !self.apps.contains_key(&id) {
                return id;
            }
        }
    }
}
