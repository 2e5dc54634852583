//! The workstations that are connected to this daemon, of all applications; in memory.
//!
//! ```text
//! api ── join, state, answer, leave ──▶ ┌─────┐ ◀── announce, end, finish, census ── Sessions
//!     ◀── ServerMessage (bounded) ───── │ Hub │ ◀── close, open ── the gate
//!                                       └──┬──┘
//!                                          ▼ Notes (bounded)        remembered by the daemon
//! ```
//!
//! Invariants
//! - Admission and registration are one act under one lock: once [`Hub::close`] has returned,
//!   whoever is admitted is in the census, and nobody is admitted any more without a pass.
//! - A client may start its program only after the daemon has remembered the session, so a
//!   restarted daemon knows whom to wait for.
//! - A lost link is judged by `standing.rs`; it never makes an application look empty by itself.
//! - A client that does not read loses its link instead of filling memory.
//! - One user has a maximum at each application, registers only so often, and leaves places for all others (`quota.rs`).
//!
//! The hub does not decide who may log in, and it does not keep the gate: both are told to it. A
//! new daemon tells it every closed gate before it serves the socket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use chrono::DateTime;
use chrono::Utc;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::domain::clock::Clock;
use crate::domain::name::AppName;
use crate::domain::session::Answer;
use crate::domain::session::Census;
use crate::domain::session::Notice;
use crate::domain::session::SessionId;
use crate::domain::span::Span;
use crate::sessions::Finished;
use crate::sessions::desk::Desk;
use crate::sessions::desk::answered;
use crate::sessions::named::Named;
use crate::sessions::notes::Notes;
use crate::sessions::seating::Place;
use crate::sessions::seating::Seated;
use crate::sessions::seating::State;
use crate::sessions::standing::RECONNECT_GRACE;
use crate::sessions::station::Ending;
use crate::sessions::station::Link;
use crate::sessions::station::Member;
use crate::sessions::station::Peer;
use crate::sessions::station::Phase;
use crate::sessions::station::Station;
use crate::wire::workstation::Answered;
use crate::wire::workstation::ClientState;
use crate::wire::workstation::ClosedText;
use crate::wire::workstation::Program;
use crate::wire::workstation::Register;
use crate::wire::workstation::ServerMessage;
use crate::wire::workstation::StationStatus;

/// How many workstations one daemon takes.
pub const WORKSTATIONS_MAX: usize = 10_000;
/// How many unread messages a client may have.
pub const QUEUE_MAX: usize = 32;
/// How long a client waits for its session to be remembered.
const REMEMBER_WAIT: Duration = Duration::from_secs(10);

/// A workstation could not be served.
#[derive(Debug, Error)]
pub enum HubError {
    /// No such session.
    #[error("find session {session}")]
    NoSession {
        /// Which.
        session: SessionId,
    },
    /// It is somebody else's.
    #[error("speak for session {session}, which belongs to another user")]
    NotYours {
        /// Which.
        session: SessionId,
    },
    /// The answer is to a warning that does not hold any more.
    #[error("answer a warning that is over")]
    StaleAnswer,
    /// The application is being updated, and it cannot be found out that this program has run all the time.
    #[error("take session up again: the application is being updated")]
    NotNow,
    /// There are too many.
    #[error("register another workstation: too few of the {WORKSTATIONS_MAX} places are left")]
    Full,
    /// This user has too many.
    #[error("register another session of yours: you have {max} at {app} already")]
    TooMany {
        /// The application.
        app: AppName,
        /// How many one user may have.
        max: usize,
    },
    /// This user registers too often.
    #[error("register another session of yours now: you have registered too often in a short time")]
    TooOften,
    /// The session could not be remembered.
    #[error("remember session {session}")]
    NotRemembered {
        /// Which.
        session: SessionId,
    },
    /// Its client does not answer, and its program cannot be reached from here.
    #[error("reach session {session}: its workstation has lost its connection")]
    Unreachable {
        /// Which.
        session: SessionId,
    },
    /// Its program may not be signalled.
    #[error("signal the program of session {session}")]
    Signal {
        /// Which.
        session: SessionId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Whether a program may be started, as control decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The gate is open.
    Admitted,
    /// The gate is closed, and a pass was used up.
    AdmittedByPass,
    /// The gate is closed.
    Refused {
        /// Why.
        message: String,
        /// Until when.
        until: Option<DateTime<Utc>>,
    },
}

/// What the daemon remembers over a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionChange {
    /// A session is there, or stands differently now; replaces what was known of it.
    Joined(Member),
    /// Its user answered, or the answer became void.
    Answered {
        /// The application.
        app: AppName,
        /// Which session.
        session: SessionId,
        /// What holds now.
        answer: Option<Answer>,
    },
    /// It is gone.
    Left {
        /// The application.
        app: AppName,
        /// Which session.
        session: SessionId,
    },
}

/// What became of a registration.
#[derive(Debug)]
pub enum Joined {
    /// The client has its place.
    Seat(Seat),
    /// Its program may not be started.
    GateClosed(ClosedText),
}

/// A client's place; its link counts as lost when this is dropped.
#[derive(Debug)]
pub struct Seat {
    hub: Arc<Hub>,
    session: SessionId,
    conn: u64,
    /// What the client is to be told; ends when the hub gives the link up.
    pub messages: mpsc::Receiver<ServerMessage>,
}

impl Seat {
    /// The session.
    pub fn session(&self) -> &SessionId {
        &self.session
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.lost(&self.session, self.conn);
    }
}

/// The workstations that are connected to this daemon.
#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    memory: Option<Notes>,
}

impl Hub {
    /// A hub that waits for those who were `known_before`. Changes go to `memory`; without one nothing is remembered.
    pub fn new(known_before: Vec<Member>, clock: Arc<dyn Clock>, memory: Option<Notes>) -> Arc<Self> {
        let mut state = State::default();
        let since = Instant::now();
        for member in known_before {
            let (app, id) = (member.session.app.clone(), member.session.id.clone());
            state.apps.insert(id.clone(), app.clone());
            let link = Link::Lost { since, grace: RECONNECT_GRACE };
            let (phase, ending) = (Phase::Admitted, Ending::No);
            let station = Station { member, phase, link, answered: None, told: false, ending, killed: None };
            state.desks.entry(app).or_default().stations.insert(id, station);
        }
        Arc::new(Self { state: Mutex::new(state), clock, memory })
    }

    /// Somebody was logged in before, and nothing more is known: who is logged in is unknown until this session is back,
    /// or is ended by hand.
    pub fn doubt(&self, app: &AppName, session: SessionId) {
        self.at_desk(app, |desk, _| {
            desk.in_doubt.insert(session);
            Vec::new()
        });
    }

    /// The sessions in [`Hub::doubt`].
    pub fn in_doubt(&self, app: &AppName) -> Vec<SessionId> {
        self.lock().desks.get(app).map_or_else(Vec::new, |desk| desk.in_doubt.iter().cloned().collect())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Does something at an application's desk and passes the changes on.
    pub(super) fn at_desk(&self, app: &AppName, act: impl FnOnce(&mut Desk, Instant) -> Vec<SessionChange>) {
        let changes = act(self.lock().desks.entry(app.clone()).or_default(), Instant::now());
        self.pass_on(changes);
    }

    /// Changes that nobody waits for. One that is lost where too much waits is found out again: a restarted
    /// daemon looks at processes, and clients repeat their answers.
    pub(super) fn pass_on(&self, changes: Vec<SessionChange>) {
        let Some(memory) = &self.memory else { return };
        for what in changes {
            if !memory.note(what, None) {
                tracing::warn!("a change of a session was not remembered: too many at once");
            }
        }
    }

    /// Logging in is refused from now on; changes the text when it is refused already.
    pub fn close(&self, app: &AppName, message: &str, until: Option<DateTime<Utc>>) {
        let closed = ClosedText { text: message.to_owned(), until };
        self.at_desk(app, |desk, _| {
            desk.closed = Some(closed);
            Vec::new()
        });
    }

    /// Logging in is possible from now on; those who wait are let in, unless an update is still announced.
    pub fn open(&self, app: &AppName) {
        self.at_desk(app, |desk, now| {
            desk.closed = None;
            desk.sealed = false;
            desk.release(now)
        });
    }

    /// How it stands at one application, for who asks.
    pub fn status(&self, app: &AppName, peer: Option<Peer>) -> StationStatus {
        self.lock().desks.get(app).map(|desk| desk.status(peer)).unwrap_or_default()
    }

    /// The same for every application where who asks has a session.
    pub fn statuses(&self, peer: Option<Peer>) -> BTreeMap<AppName, StationStatus> {
        let state = self.lock();
        let all = state.desks.iter().map(|(app, desk)| (app.clone(), desk.status(peer)));
        all.filter(|(_, status)| !status.own.is_empty()).collect()
    }

    /// Who is logged in. Looks at processes: call it where blocking is allowed.
    pub fn census(&self, app: &AppName) -> Census {
        let now = Instant::now();
        let (census, changes) = {
            let mut state = self.lock();
            let changes = state.sweep(app, now);
            (state.desks.get(app).map_or(Census::Known(Vec::new()), |desk| desk.census(now)), changes)
        };
        self.pass_on(changes);
        census
    }

    /// From now on one user may have so many sessions at `app`; see [`crate::sessions::quota`].
    pub fn allow(&self, app: &AppName, per_user_max: u32) {
        self.lock().quota.allow(app, per_user_max);
    }

    /// Somebody wants to register. To be asked first, before anything is looked up or written for them.
    ///
    /// # Errors
    /// This user has done so too often in a short time.
    pub fn knock(&self, peer: Option<Peer>) -> Result<(), HubError> {
        if peer.is_some_and(Peer::vouches) {
            // An agent of root's registers for everybody.
            return Ok(());
        }
        let may = self.lock().quota.knock(peer.map(|peer| peer.uid), Instant::now());
        if may { Ok(()) } else { Err(HubError::TooOften) }
    }

    /// Whether control has to be asked before this client may have its place; a pass is only used up then.
    pub fn needs_admission(&self, app: &AppName, register: &Register, peer: Option<Peer>) -> bool {
        register.state.program == Program::NotStarted && !self.lock().is_admitted(app, register, peer)
    }

    /// Gives a client its place. `verdict` is needed only when [`Hub::needs_admission`] says so; the gate as it
    /// was told to the hub is obeyed in any case, save with a pass.
    ///
    /// # Errors
    /// There is no place, or the session could not be remembered.
    pub async fn join(
        self: &Arc<Self>,
        app: &AppName,
        register: &Register,
        peer: Option<Peer>,
        verdict: &Verdict,
    ) -> Result<Joined, HubError> {
        let named = Named::of(peer, &register.user).await;
        let (seat, member, changes) = {
            let since = self.clock.now();
            let (over, seated) = {
                let mut state = self.lock();
                (state.make_room(app, register, peer), state.seat(app, register, peer, named, verdict, since))
            };
            self.pass_on(over);
            match seated? {
                Seated::Closed(closed) => return Ok(Joined::GateClosed(closed)),
                Seated::At(place) => {
                    let Place { conn, messages, member, changes } = *place;
                    let session = member.session.id.clone();
                    (Seat { hub: Arc::clone(self), session, conn, messages }, member, changes)
                }
            }
        };
        let remembered = self.remember(member).await;
        self.pass_on(changes);
        if remembered {
            return Ok(Joined::Seat(seat));
        }
        // Nothing runs yet where a start was asked for, so the place can be taken back; a program that runs keeps it.
        let session = seat.session.clone();
        if register.state.program == Program::NotStarted {
            self.forget(&session);
        }
        Err(HubError::NotRemembered { session })
    }

    async fn remember(&self, member: Member) -> bool {
        let Some(memory) = &self.memory else { return true };
        let (done, remembered) = oneshot::channel();
        memory.note(SessionChange::Joined(member), Some(done))
            && timeout(REMEMBER_WAIT, remembered).await.is_ok_and(|remembered| remembered.is_ok())
    }

    /// What a client tells about its program.
    ///
    /// # Errors
    /// There is no such session, or it is somebody else's.
    pub fn state(&self, session: &SessionId, peer: Option<Peer>, told: &ClientState) -> Result<(), HubError> {
        let changes = {
            let mut state = self.lock();
            let (desk, _) = state.owned(session, peer)?;
            let mut changes = Vec::new();
            if let Some(station) = desk.stations.get(session)
                && !desk.believes(&station.member, Some(station), told.program)
            {
                return Err(HubError::NotNow);
            }
            if let Some(station) = desk.stations.get_mut(session) {
                let before = station.member.clone();
                station.take(told);
                if station.member != before {
                    changes.push(SessionChange::Joined(station.member.clone()));
                }
            }
            changes.extend(desk.release(Instant::now()));
            changes
        };
        self.pass_on(changes);
        Ok(())
    }

    /// What a user says to the warning that holds.
    ///
    /// # Errors
    /// There is no such session, it is somebody else's, or the warning is over.
    pub fn answer(&self, session: &SessionId, peer: Option<Peer>, answer: &Answered) -> Result<(), HubError> {
        let change = {
            let mut state = self.lock();
            let (desk, _) = state.owned(session, peer)?;
            if desk.notice.as_ref() != Some(&answer.notice) {
                return Err(HubError::StaleAnswer);
            }
            desk.stations.get_mut(session).map(|station| {
                station.answered = Some(answer.clone());
                station.member.session.answer = Some(answer.answer);
                answered(station)
            })
        };
        self.pass_on(change.into_iter().collect());
        Ok(())
    }

    /// The program has ended, and the client goes.
    ///
    /// # Errors
    /// The session is somebody else's.
    pub fn leave(&self, session: &SessionId, peer: Option<Peer>) -> Result<(), HubError> {
        match self.lock().owned(session, peer) {
            Ok(_) => {}
            Err(HubError::NoSession { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.forget(session);
        Ok(())
    }

    fn forget(&self, session: &SessionId) {
        let gone = {
            let mut state = self.lock();
            let app = state.apps.remove(session);
            app.inspect(|app| {
                if let Some(desk) = state.desks.get_mut(app) {
                    desk.stations.remove(session);
                }
            })
        };
        let left = gone.map(|app| SessionChange::Left { app, session: session.clone() });
        self.pass_on(left.into_iter().collect());
    }

    fn lost(&self, session: &SessionId, conn: u64) {
        let mut state = self.lock();
        let Some((desk, _)) = state.station(session) else { return };
        let Some(station) = desk.stations.get_mut(session) else { return };
        if matches!(station.link, Link::Up { conn: ours, .. } if ours == conn) {
            station.lose(Instant::now());
        }
    }

    /// Tells everybody that an update will happen; those who come later are told when they come. The same notice
    /// again reaches only those who have not heard it.
    pub fn announce(&self, app: &AppName, notice: &Notice) {
        let left = Span::between(self.clock.now(), notice.ends_at);
        self.at_desk(app, |desk, now| desk.announce(notice, left, now));
    }

    /// Tells everybody that it comes nearer.
    pub fn remind(&self, app: &AppName, notice: &Notice, left: Span) {
        self.tell_all(app, &ServerMessage::Remind { notice: notice.clone(), left });
    }

    /// A word from the operator, to one or to all.
    ///
    /// # Errors
    /// There is no such session.
    pub fn message(&self, app: &AppName, text: &str, session: Option<&SessionId>) -> Result<(), HubError> {
        let message = ServerMessage::Message { text: text.to_owned() };
        let Some(id) = session else {
            self.tell_all(app, &message);
            return Ok(());
        };
        let mut state = self.lock();
        let station = state.desks.get_mut(app).and_then(|desk| desk.stations.get_mut(id));
        let station = station.ok_or_else(|| HubError::NoSession { session: id.clone() })?;
        if station.tell(message, Instant::now()) { Ok(()) } else { Err(HubError::Unreachable { session: id.clone() }) }
    }

    fn tell_all(&self, app: &AppName, message: &ServerMessage) {
        self.at_desk(app, |desk, now| {
            for station in desk.stations.values_mut().filter(|station| station.phase == Phase::Admitted) {
                station.tell(message.clone(), now);
            }
            Vec::new()
        });
    }

    /// The update is over: a restart where it was asked for, "ready" elsewhere. Where the gate is still closed,
    /// both wait for [`Hub::open`].
    pub fn finish(&self, app: &AppName, news: &Finished) {
        self.at_desk(app, |desk, now| desk.finish(news, now));
    }

    /// Whether this session is known here.
    pub fn knows(&self, app: &AppName, session: &SessionId) -> bool {
        let state = self.lock();
        state.apps.get(session) == Some(app) || state.desks.get(app).is_some_and(|desk| desk.in_doubt.contains(session))
    }

    /// Ends a session: its client ends the program, and uses force after `polite` at the latest. With `force` it
    /// does so at once; asked a second time, or without its client, the program is killed from here. A session
    /// that is not there (any more) is ended already.
    ///
    /// # Errors
    /// Force was asked for, and neither client nor program can be reached.
    pub fn end(&self, app: &AppName, session: &SessionId, force: bool, polite: Span) -> Result<(), HubError> {
        let now = Instant::now();
        if self.lock().desks.get_mut(app).is_some_and(|desk| desk.in_doubt.remove(session)) {
            self.pass_on(vec![SessionChange::Left { app: app.clone(), session: session.clone() }]);
            return Ok(());
        }
        let forgotten = {
            let mut state = self.lock();
            let Some(station) = state.desks.get_mut(app).and_then(|desk| desk.stations.get_mut(session)) else {
                return Ok(());
            };
            if station.phase == Phase::Waiting {
                return Ok(());
            }
            station.end(force, polite, now)?
        };
        if forgotten {
            self.forget(session);
        }
        Ok(())
    }
}
