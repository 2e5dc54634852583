//! What the person at a workstation sees and says.

use std::io;
use std::os::fd::OwnedFd;

use chrono::DateTime;
use chrono::Utc;

use crate::domain::session::Answer;
use crate::domain::session::Notice;
use crate::domain::span::Span;

/// Something to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scene {
    /// The program was started.
    Started,
    /// The program may not be started.
    Refused {
        /// Why.
        text: String,
        /// Until when.
        until: Option<DateTime<Utc>>,
    },
    /// There is no daemon, and the program was started all the same.
    Unguarded,
    /// An update is going to happen: a question that [`Input::Answer`] answers.
    Warned {
        /// What is going to happen.
        notice: Notice,
        /// How long until the program is closed.
        left: Span,
    },
    /// The same once more.
    Reminded {
        /// What is going to happen.
        notice: Notice,
        /// How long until the program is closed.
        left: Span,
    },
    /// A second has passed.
    Countdown {
        /// How long until the program is closed.
        left: Span,
    },
    /// The answer was taken.
    Answered(Answer),
    /// A word from the operator.
    Message(String),
    /// The update will not happen now.
    Withdrawn,
    /// The program is being closed.
    Ending {
        /// How long it is given; nothing means force at once.
        force_after: Span,
    },
    /// The program is closed; the client waits for the end of the update.
    Waiting {
        /// Whether the program will be started by itself then.
        restart: bool,
    },
    /// The program is started again.
    Restarted {
        /// What the daemon says.
        text: String,
    },
    /// The application is there again; where the program is closed, [`Input::Start`] starts it.
    Ready {
        /// Whether the update was a success.
        success: bool,
        /// What the daemon says.
        text: String,
        /// Whether the program can be started now.
        can_start: bool,
    },
    /// The daemon does not answer; the program goes on.
    LinkLost,
    /// It answers again.
    LinkBack,
}

/// Something the person says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// To the warning.
    Answer(Answer),
    /// Start the program again, after [`Scene::Ready`].
    Start,
    /// End the client.
    Stop,
}

/// A person at a workstation.
pub trait Ui: Send {
    /// Shows something; must not block for long.
    fn show(&mut self, scene: &Scene);

    /// A terminal for a program that is about to be started, where it is not to share ours.
    ///
    /// # Errors
    /// There can be none.
    fn open_screen(&mut self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }

    /// The program has ended; its terminal is not needed any more.
    fn close_screen(&mut self) {}

    /// The next thing the person says; for ever pending where nobody can say anything. Must be cancel-safe.
    fn input(&mut self) -> impl Future<Output = Input> + Send;
}
