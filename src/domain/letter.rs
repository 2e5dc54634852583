//! A mail and one of its recipients: how it stands with that one, whoever else is to get it.

use chrono::DateTime;
use chrono::Utc;
use serde::Deserialize;
use serde::Serialize;

use crate::domain::foreign::names;
use crate::domain::run::RunId;

/// How a mail stands with one recipient. Spelt the same in SQL and JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LetterState {
    /// To be sent, or to be tried again.
    Pending,
    /// The server has it.
    Sent,
    /// Given up.
    Dead,
}

impl LetterState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Sent, Self::Dead];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Dead => "dead",
        }
    }
}

/// A mail and one of its recipients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// The run it reports.
    pub run: Option<RunId>,
    /// What it is about.
    pub subject: String,
    /// Who gets it.
    pub to: String,
    /// How it stands.
    pub state: LetterState,
    /// How often the mail was tried.
    pub attempts: u32,
    /// When it was last tried; absent when it was not.
    pub tried_at: Option<DateTime<Utc>>,
    /// When it is tried again; absent when it is not.
    pub next_at: Option<DateTime<Utc>>,
    /// What came of the last try: the server's answer, or why there is none.
    pub said: Option<String>,
}

impl Letter {
    /// Whether something has gone wrong with it.
    pub fn is_in_trouble(&self) -> bool {
        match self.state {
            LetterState::Pending => self.said.is_some(),
            LetterState::Sent => false,
            LetterState::Dead => true,
        }
    }
}

/// How a mail stands with all of its recipients, in one line.
pub fn standing(letters: &[Letter]) -> String {
    let of = |state, in_trouble| {
        letters.iter().filter(move |letter| letter.state == state && letter.is_in_trouble() == in_trouble)
    };
    let why = |letter: &Letter| format!("{} ({})", letter.to, letter.said.as_deref().unwrap_or("not tried"));
    let parts = [
        ("sent to", names(of(LetterState::Sent, false).map(|letter| &letter.to))),
        ("queued for", names(of(LetterState::Pending, false).map(|letter| &letter.to))),
        ("queued, to be tried again, for", names(of(LetterState::Pending, true).map(why))),
        ("given up for", names(of(LetterState::Dead, true).map(why))),
    ];
    let parts = parts.iter().filter(|(_, whom)| !whom.is_empty()).map(|(what, whom)| format!("{what} {whom}"));
    parts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_spelt_the_same_everywhere() {
        for state in LetterState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
        }
    }

    #[test]
    fn what_became_of_a_mail_is_told_in_one_line() {
        let letter = |to: &str, state, said: Option<&str>| Letter {
            run: Some(RunId(7)),
            subject: String::new(),
            to: to.to_owned(),
            state,
            attempts: 1,
            tried_at: None,
            next_at: None,
            said: said.map(str::to_owned),
        };
        let new = [letter("it@x", LetterState::Pending, None), letter("boss@x", LetterState::Pending, None)];
        assert_eq!(standing(&new), "queued for it@x, boss@x");
        let tried = [
            letter("it@x", LetterState::Sent, Some("250 ok")),
            letter("full@x", LetterState::Pending, Some("452 full")),
            letter("gone@x", LetterState::Dead, Some("550 no such user")),
        ];
        assert_eq!(
            standing(&tried),
            "sent to it@x; queued, to be tried again, for full@x (452 full); given up for gone@x (550 no such user)"
        );
        assert_eq!(standing(&[]), "");
    }
}
