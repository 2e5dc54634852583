//! One workstation as the hub sees it.

use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::domain::session::Answer;
use crate::domain::session::Notice;
use crate::domain::session::Session;
use crate::domain::span::Span;
use crate::exec::process;
use crate::exec::process::Life;
use crate::sessions::hub::HubError;
use crate::sessions::standing::LOST_GRACE;
use crate::sessions::standing::LOST_OPEN_MAX;
use crate::sessions::standing::Lost;
use crate::sessions::standing::Standing;
use crate::sessions::standing::standing;
use crate::wire::workstation::Answered;
use crate::wire::workstation::ClientState;
use crate::wire::workstation::Process;
use crate::wire::workstation::Program;
use crate::wire::workstation::Register;
use crate::wire::workstation::ServerMessage;

/// Who is at the other end of a Unix socket, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub uid: u32,
    /// The process, where it can be seen from here.
    pub pid: Option<u32>,
}

impl Peer {
    /// Whether the names that this peer says are believed: root and the user of this daemon vouch for others, since they
    /// could do to any of them what they like.
    pub fn vouches(self) -> bool {
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw()
    }
}

/// A session and what is remembered with it over a restart of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The session.
    pub session: Session,
    /// Whose it is on this machine; nobody else speaks for it.
    #[serde(default)]
    pub uid: Option<u32>,
    /// The client, when it can be looked at.
    #[serde(default)]
    pub client: Option<Process>,
    /// The program, when it was started.
    #[serde(default)]
    pub program: Option<Process>,
    /// Whether `program` can be looked at from here.
    #[serde(default)]
    pub program_seen: bool,
}

impl From<Session> for Member {
    /// A session of which no more is known.
    fn from(session: Session) -> Self {
        Self { session, uid: None, client: None, program: None, program_seen: false }
    }
}

impl Member {
    /// Whether somebody may speak for this session.
    pub(super) fn belongs_to(&self, peer: Option<Peer>) -> bool {
        match (self.uid, peer) {
            (None, _) => true,
            (Some(owner), Some(peer)) => peer.uid == owner || peer.vouches(),
            (Some(_), None) => false,
        }
    }

    /// The session as it is shown to operators.
    pub(super) fn shown(&self) -> Session {
        let pid = self.program.filter(|_| self.program_seen).map(|program| program.pid);
        Session { uid: self.uid, pid, ..self.session.clone() }
    }

    /// Takes down the program's process, and whether it can be looked at and signalled from here:
    /// it is on this machine, and it is the client's own user's, not somebody else's.
    pub(super) fn set_program(&mut self, program: Process) {
        self.program_seen = self.sees(program);
        self.program = Some(program);
    }

    /// Whether this process is there and may be this session's program.
    pub(super) fn sees(&self, program: Process) -> bool {
        let owner = process::uid(program.pid);
        let theirs = owner.is_some() && (self.uid == owner || self.uid == Some(0));
        self.client.is_some()
            && theirs
            && program.pid > 1
            && program.pid != std::process::id()
            && process::start_ticks(program.pid) == Some(program.start_ticks)
    }

    /// Whether root or the user of this daemon has registered it.
    pub(super) fn is_vouched_for(&self) -> bool {
        self.uid.is_some_and(|uid| Peer { uid, pid: None }.vouches())
    }

    /// Sends a signal to the program, if it is seen. Where somebody registered it who vouches for nobody, only processes of
    /// that user get it: not what else runs in the same group.
    pub(super) fn signal(&self, signal: Signal) -> std::io::Result<()> {
        let Some(Process { pid, start_ticks }) = self.program.filter(|_| self.program_seen) else { return Ok(()) };
        match self.uid {
            Some(uid) if !self.is_vouched_for() => process::signal_of_user(pid, start_ticks, uid, signal),
            _ => process::signal(pid, start_ticks, signal),
        }
    }

    pub(super) fn life_of_program(&self) -> Option<Life> {
        let program = self.program?;
        Some(if self.program_seen { process::life(program.pid, program.start_ticks) } else { Life::Unknown })
    }
}

/// The client's process, when it is on this machine and seen under the same number from here:
/// the number the kernel tells for the socket is the one that the client tells of itself.
pub(super) fn visible_client(register: &Register, peer: Option<Peer>) -> Option<Process> {
    let same = peer?.pid? == register.client.pid;
    (same && process::start_ticks(register.client.pid) == Some(register.client.start_ticks)).then_some(register.client)
}

/// Whether the program at a workstation may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It may, and perhaps does: it is logged in.
    Admitted,
    /// It has ended, and the client waits for a word that it may start again.
    Waiting,
}

/// How far ending it by order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nobody ordered it.
    No,
    /// The client was told to end it.
    Asked {
        /// How long the program is given.
        force_after: Span,
    },
    /// The client was told to use force.
    Forced,
}

/// The connection to the client.
#[derive(Debug)]
pub(super) enum Link {
    /// It stands.
    Up {
        /// Which of the connections this session has had.
        conn: u64,
        /// What is still to be said; bounded.
        queue: mpsc::Sender<ServerMessage>,
    },
    /// It does not.
    Lost {
        /// Since when.
        since: Instant,
        /// How long silence means nothing.
        grace: Duration,
    },
}

/// One workstation.
#[derive(Debug)]
pub(super) struct Station {
    /// What is remembered.
    pub(super) member: Member,
    /// Whether its program may run.
    pub(super) phase: Phase,
    /// The connection.
    pub(super) link: Link,
    /// The last answer, with its warning.
    pub(super) answered: Option<Answered>,
    /// Whether it was told the warning, or the end of the update, that holds now.
    pub(super) told: bool,
    /// How far ending it has come.
    pub(super) ending: Ending,
    /// Since when its program is killed from here, whatever its client does.
    pub(super) killed: Option<Instant>,
}

impl Station {
    /// Whether it is logged in.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        match (&self.link, self.phase) {
            (Link::Up { .. }, Phase::Admitted) => Standing::Open,
            (_, Phase::Waiting) => Standing::Gone,
            (Link::Lost { since, grace }, Phase::Admitted) => standing(&Lost {
                silent: now.saturating_duration_since(*since),
                grace: *grace,
                client: self
                    .member
                    .client
                    .map_or(Life::Unknown, |client| process::life(client.pid, client.start_ticks)),
                program: self.member.life_of_program(),
            }),
        }
    }

    /// Whether it can be forgotten: it is gone, and nobody will come back for it.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let silent = match self.link {
            Link::Up { .. } => return false,
            Link::Lost { since, .. } => now.saturating_duration_since(since),
        };
        match self.phase {
            Phase::Admitted => self.standing(now) == Standing::Gone,
            // Its client may come back for the restart it asked for.
            Phase::Waiting => silent >= LOST_OPEN_MAX,
        }
    }

    /// Says something. A client that does not listen any more loses its link: it comes back and is told anew.
    pub(super) fn tell(&mut self, message: ServerMessage, now: Instant) -> bool {
        let heard = match &self.link {
            Link::Up { queue, .. } => queue.try_send(message).is_ok(),
            Link::Lost { .. } => return false,
        };
        if !heard {
            self.lose(now);
        }
        heard
    }

    /// The link is gone.
    pub(super) fn lose(&mut self, now: Instant) {
        self.link = Link::Lost { since: now, grace: LOST_GRACE };
        self.told = false;
    }

    /// Keeps an answer only when it belongs to the warning that holds now; true when that changed something.
    pub(super) fn keep_answer_to(&mut self, notice: Option<&Notice>) -> bool {
        let before = self.member.session.answer;
        self.answered = self.answered.take().filter(|answered| Some(&answered.notice) == notice);
        self.member.session.answer = self.answered.as_ref().map(|answered| answered.answer);
        self.member.session.answer != before
    }

    /// Whether its user asked for the program to be started again.
    pub(super) fn wants_restart(&self) -> bool {
        self.answered.as_ref().is_some_and(|answered| answered.answer == Answer::RestartAfterwards)
    }

    /// Takes down what the client tells.
    pub(super) fn take(&mut self, told: &ClientState) {
        match told.program {
            // Admitted, but not started yet.
            Program::NotStarted => {}
            Program::Running { process } => {
                self.phase = Phase::Admitted;
                if self.member.program != Some(process) {
                    self.member.set_program(process);
                }
            }
            Program::Ended => {
                if self.phase == Phase::Admitted {
                    self.told = false;
                }
                self.phase = Phase::Waiting;
                self.ending = Ending::No;
            }
        }
        self.member.session.unsaved = told.unsaved;
        self.member.session.last_activity = told.last_activity;
    }

    /// Tells the client how far ending has come; once more when it has come back.
    pub(super) fn tell_ending(&mut self, now: Instant) -> bool {
        let force_after = match self.ending {
            Ending::No => return true,
            Ending::Asked { force_after } => force_after,
            Ending::Forced => Span::ZERO,
        };
        self.tell(ServerMessage::EndNow { force_after }, now)
    }

    /// Ends it; true when it is to be forgotten.
    pub(super) fn end(&mut self, force: bool, polite: Span, now: Instant) -> Result<bool, HubError> {
        let before = self.ending;
        let told = match (force, before) {
            (false, Ending::No) => {
                self.ending = Ending::Asked { force_after: polite };
                self.tell_ending(now)
            }
            (true, Ending::No | Ending::Asked { .. }) => {
                self.ending = Ending::Forced;
                self.tell_ending(now)
            }
            (false, _) => matches!(self.link, Link::Up { .. }),
            (true, Ending::Forced) => false,
        };
        if told {
            return Ok(false);
        }
        let session = self.member.session.id.clone();
        match self.member.program {
            Some(_) if self.member.program_seen => {
                let signal = if force { Signal::KILL } else { Signal::TERM };
                self.member.signal(signal).map_err(|source| HubError::Signal { session, source })?;
                Ok(false)
            }
            _ if !force => Ok(false),
            _ => match self.link {
                // Nobody has heard of it for long enough, and somebody decided that it is over.
                Link::Lost { since, .. } if now.saturating_duration_since(since) >= LOST_GRACE => Ok(true),
                _ => Err(HubError::Unreachable { session }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::session::SessionId;

    fn lost(since: Instant) -> Station {
        let session = Session {
            id: SessionId("a".into()),
            app: "orders".parse().unwrap(),
            user: "anna".into(),
            said: None,
            uid: None,
            pid: None,
            workstation: None,
            since: None,
            last_activity: None,
            unsaved: None,
            answer: None,
        };
        let link = Link::Lost { since, grace: LOST_GRACE };
        Station {
            member: Member::from(session),
            phase: Phase::Admitted,
            link,
            answered: None,
            told: false,
            ending: Ending::No,
            killed: None,
        }
    }

    #[test]
    fn a_dead_machine_blocks_for_a_while_but_not_for_ever() {
        let since = Instant::now();
        let mut station = lost(since);
        assert_eq!(station.standing(since), Standing::Unknown);
        assert!(matches!(station.end(true, Span::ZERO, since), Err(HubError::Unreachable { .. })));
        assert_eq!(station.standing(since + LOST_GRACE), Standing::Open, "fails closed");
        assert!(!station.end(false, Span::ZERO, since + LOST_GRACE).unwrap(), "politeness does not reach it");
        assert!(station.end(true, Span::ZERO, since + LOST_GRACE).unwrap(), "somebody decided that it is over");
        assert!(!station.is_over(since + LOST_GRACE));
        assert!(station.is_over(since + LOST_OPEN_MAX));
    }

    #[test]
    fn only_the_clients_own_programs_are_looked_at_and_signalled() {
        let own = std::process::id();
        let process = |pid| Process { pid, start_ticks: process::start_ticks(pid).unwrap_or_default() };
        let mut member = lost(Instant::now()).member;
        member.client = Some(process(own));
        member.uid = process::uid(own).map(|uid| uid + 1);
        member.set_program(process(std::os::unix::process::parent_id()));
        assert!(!member.program_seen, "it belongs to another user");
        member.uid = process::uid(own);
        member.set_program(process(own));
        assert!(!member.program_seen, "the daemon does not signal itself");
        member.set_program(process(std::os::unix::process::parent_id()));
        assert!(member.program_seen);
        member.client = None;
        member.set_program(process(std::os::unix::process::parent_id()));
        assert!(!member.program_seen, "the client's numbers are not ours");
    }
}
