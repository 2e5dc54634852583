//! Sessions and the gate.

use crate::control::Caller;
use crate::control::Control;
use crate::control::error::ControlError;
use crate::domain::failure::Failure;
use crate::domain::foreign;
use crate::domain::gate::Pass;
use crate::domain::name::AppName;
use crate::domain::session::Census;
use crate::domain::session::SessionId;
use crate::domain::span::Span;
use crate::files::account::Account;
use crate::sessions::SessionsError;
use crate::wire::people::CloseGate;
use crate::wire::people::EndSessions;
use crate::wire::people::EndedView;
use crate::wire::people::GateView;
use crate::wire::people::GivePass;
use crate::wire::people::MessageSessions;
use crate::wire::people::MessagedView;
use crate::wire::people::PassView;
use crate::wire::people::SessionsView;

/// How long sessions that were ended may take to be gone.
const GONE_WAIT: Span = Span::secs(5);

impl Control {
    /// Who is logged in.
    ///
    /// # Errors
    /// There is no such application.
    pub async fn sessions(&self, app: &AppName) -> Result<SessionsView, ControlError> {
        let sessions = &self.kit(app)?.sessions;
        Ok(SessionsView::new(app.clone(), sessions.census().await).with_ignored(sessions.ignored().await))
    }

    /// Shows a text to some sessions, or to all.
    ///
    /// # Errors
    /// There is no such application or session, or they cannot be reached.
    pub async fn message_sessions(
        &self,
        caller: &Caller,
        app: &AppName,
        ask: MessageSessions,
    ) -> Result<MessagedView, ControlError> {
        Self::must_operate(caller)?;
        let kit = self.kit(app)?;
        let known = self.known_sessions(app).await?;
        let mut told = chosen(app, &known, &ask.sessions)?;
        if let Some(first) = told.first().filter(|_| !told.iter().any(|session| kit.sessions.can_tell(session))) {
            return Err(SessionsError::CannotTell { session: first.clone() }.into());
        }
        self.audit(caller, "session.message", app, &ask).await?;
        if ask.sessions.is_empty() {
            kit.sessions.message(&ask.text, None).await?;
            told.retain(|session| kit.sessions.can_tell(session));
        }
        for session in &ask.sessions {
            kit.sessions.message(&ask.text, Some(session)).await?;
        }
        Ok(MessagedView { told })
    }

    /// Ends some sessions, or all: politely, then by force. Unsaved work is lost.
    ///
    /// # Errors
    /// There is no such application or session.
    pub async fn end_sessions(
        &self,
        caller: &Caller,
        app: &AppName,
        mut ask: EndSessions,
    ) -> Result<EndedView, ControlError> {
        Self::must_operate(caller)?;
        let kit = self.kit(app)?;
        // One that cannot be read keeps us from counting the others; whoever names it has looked.
        let in_doubt = kit.sessions.in_doubt();
        let unread: Vec<SessionId> = ask.sessions.iter().filter(|id| in_doubt.contains(id)).cloned().collect();
        if !unread.is_empty() {
            self.audit(caller, "session.end", app, EndSessions { sessions: unread.clone() }).await?;
            for session in &unread {
                kit.sessions.end(session, true).await?;
            }
            ask.sessions.retain(|id| !unread.contains(id));
            if ask.sessions.is_empty() {
                return Ok(EndedView { ended: unread, left: Vec::new() });
            }
        }
        let asked = chosen(app, &self.known_sessions(app).await?, &ask.sessions)?;
        self.audit(caller, "session.end", app, &ask).await?;
        let mut left = asked.clone();
        for force in [false, true] {
            for session in &left {
                if let Err(error) = kit.sessions.end(session, force).await {
                    tracing::warn!(%session, force, error = &error as &dyn std::error::Error, "a session did not end");
                }
            }
            let wait = if force { GONE_WAIT } else { kit.app.polite_end };
            left = self.wait_until_gone(app, left, wait).await?;
            if left.is_empty() {
                break;
            }
        }
        let ended = unread.into_iter().chain(asked).filter(|session| !left.contains(session)).collect();
        Ok(EndedView { ended, left })
    }

    async fn wait_until_gone(
        &self,
        app: &AppName,
        mut left: Vec<SessionId>,
        wait: Span,
    ) -> Result<Vec<SessionId>, ControlError> {
        // A length: the clock on the wall may be set meanwhile.
        let until = tokio::time::Instant::now() + wait.duration();
        while !left.is_empty() && tokio::time::Instant::now() < until {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            if let Census::Known(sessions) = self.kit(app)?.sessions.census().await {
                left.retain(|id| sessions.iter().any(|session| session.id == *id));
            }
        }
        Ok(left)
    }

    async fn known_sessions(&self, app: &AppName) -> Result<Vec<SessionId>, ControlError> {
        match self.kit(app)?.sessions.census().await {
            Census::Known(sessions) => Ok(sessions.into_iter().map(|session| session.id).collect()),
            Census::Unknown(reason) => Err(ControlError::Failed(
                Failure::new("find out who is logged in")
                    .because(reason)
                    .hint(format!("see `afterhours doctor {app}`")),
            )),
        }
    }

    /// The gate of an application.
    ///
    /// # Errors
    /// There is no such application, or the store fails.
    pub async fn gate(&self, app: &AppName) -> Result<GateView, ControlError> {
        self.must_be_known(app)?;
        let now = self.now();
        let gate = self.store.gate(app).await?;
        let view = GateView::new(gate, self.store.passes(app, now).await?, self.clock.moment());
        let warning = self.kit(app).ok().and_then(|kit| kit.gate.unkept());
        Ok(view.with_opening(self.store.gate_opening(app).await?).with_warning(warning))
    }

    /// Closes a gate until it is opened, or until a time.
    ///
    /// # Errors
    /// There is no such application, the time is past, or a driver fails.
    pub async fn close_gate(&self, caller: &Caller, app: &AppName, ask: CloseGate) -> Result<GateView, ControlError> {
        Self::must_operate(caller)?;
        let kit = self.kit(app)?;
        if let Some(until) = ask.until.filter(|until| *until <= self.now()) {
            return Err(ControlError::Past { at: until.to_string() });
        }
        self.audit(caller, "gate.close", app, &ask).await?;
        let message = ask.message.unwrap_or_else(|| format!("{} is closed for maintenance", kit.app.title));
        self.night.gatekeeper.close_by_hand(kit, &caller.who, &message, ask.until).await?;
        self.gate(app).await
    }

    /// Opens a gate, unless the application is away.
    ///
    /// # Errors
    /// There is no such application, it is being swapped just now, or a driver fails.
    pub async fn open_gate(&self, caller: &Caller, app: &AppName) -> Result<GateView, ControlError> {
        Self::must_operate(caller)?;
        let kit = self.kit(app)?;
        // A run that is under way opens it itself; a stuck one past the commit may need a hand.
        if let Some(run) = self.store.active_run(app).await?.filter(|run| run.away || run.state != "stuck") {
            return Err(ControlError::UnderWay { object: app.to_string(), run: run.id });
        }
        self.audit(caller, "gate.open", app, ()).await?;
        self.night.gatekeeper.open_by_hand(kit).await?;
        self.gate(app).await
    }

    /// Admits one login through a closed gate.
    ///
    /// # Errors
    /// There is no such application, no such user, or the store fails.
    pub async fn give_pass(&self, caller: &Caller, app: &AppName, ask: GivePass) -> Result<PassView, ControlError> {
        Self::must_operate(caller)?;
        self.kit(app)?;
        let account = match ask.user {
            None => None,
            Some(user) => {
                let asked = user.clone();
                // The system's own databases may be on another machine.
                let found = tokio::task::spawn_blocking(move || Account::find(&asked)).await.unwrap_or_default();
                Some(found.ok_or_else(|| ControlError::NoUser { user: foreign::name(&user) })?)
            }
        };
        let pass = Pass {
            app: app.clone(),
            uid: account.as_ref().map(|account| account.uid),
            user: account.map(|account| account.name),
            valid_until: self.now() + ask.valid.delta(),
            given_by: caller.who.clone(),
        };
        self.audit(caller, "gate.pass", app, &pass).await?;
        self.store.give_pass(pass.clone()).await?;
        Ok(pass)
    }
}

fn chosen(app: &AppName, known: &[SessionId], asked: &[SessionId]) -> Result<Vec<SessionId>, ControlError> {
    if asked.is_empty() {
        return Ok(known.to_vec());
    }
    match asked.iter().find(|session| !known.contains(session)) {
        Some(missing) => Err(ControlError::NoSession { app: app.clone(), session: missing.to_string() }),
        None => Ok(asked.to_vec()),
    }
}
