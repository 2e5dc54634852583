//! What a version answers when it is asked which one it is.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

use crate::domain::release::Version;

/// The longest answer that is told from others.
pub const ANSWER_CHARS_MAX: usize = 128;

/// What counts as the right answer. Written as the answer itself; a `*` at the end stands for whatever follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Answers {
    /// This, and nothing else.
    Exactly(String),
    /// Whatever begins so.
    Beginning(String),
}

/// A text that no program could answer with.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error(
    "\"{text}\" cannot be an answer: use 1 to {ANSWER_CHARS_MAX} characters on one line; a * at the end stands for whatever follows"
)]
pub struct BadAnswers {
    text: String,
}

impl Answers {
    /// Exactly what was heard.
    pub fn heard(answer: &str) -> Self {
        Self::Exactly(answer.to_owned())
    }

    /// Whether this answer is right.
    pub fn fits(&self, answer: &str) -> bool {
        match self {
            Self::Exactly(text) => answer == text,
            Self::Beginning(text) => answer.starts_with(text.as_str()),
        }
    }
}

impl From<&Version> for Answers {
    fn from(version: &Version) -> Self {
        Self::Exactly(version.to_string())
    }
}

impl FromStr for Answers {
    type Err = BadAnswers;

    fn from_str(text: &str) -> Result<Self, BadAnswers> {
        let (answer, answers): (&str, fn(String) -> Self) = match text.strip_suffix('*') {
            Some(beginning) => (beginning, Self::Beginning),
            None => (text, Self::Exactly),
        };
        let good = (1..=ANSWER_CHARS_MAX).contains(&answer.chars().count())
            && answer.trim_start() == answer
            && !text.chars().any(char::is_control)
            && !text.ends_with(char::is_whitespace);
        if good { Ok(answers(answer.to_owned())) } else { Err(BadAnswers { text: text.chars().take(200).collect() }) }
    }
}

impl TryFrom<String> for Answers {
    type Error = BadAnswers;

    fn try_from(text: String) -> Result<Self, BadAnswers> {
        text.parse()
    }
}

impl From<Answers> for String {
    fn from(answers: Answers) -> Self {
        answers.to_string()
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(text) => f.write_str(text),
            Self::Beginning(text) => write!(f, "{text}*"),
        }
    }
}

/// What the running version answered before anybody was disturbed. After a rollback no more is asked of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "snake_case")]
pub enum Before {
    /// It passed its check.
    Well {
        /// The version that it told, where it told one.
        version: Option<String>,
    },
    /// It ran and did not pass.
    Ill,
    /// It did not run.
    Down,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_exact_or_begins_so() {
        let fits = |answers: &str, answer: &str| answers.parse::<Answers>().unwrap().fits(answer);
        assert!(fits("2.0+build.7", "2.0+build.7"));
        assert!(!fits("2.0", "2.0+build.7"));
        assert!(fits("2.0+*", "2.0+build.7"));
        assert!(!fits("2.0+*", "2.1+build.7"));
        assert!(fits("5.4.6 LTS", "5.4.6 LTS"));
    }

    #[test]
    fn it_reads_as_it_was_written() {
        for text in ["2.0", "2.0+*", "5.4.6 LTS", "ERP 17*"] {
            assert_eq!(text.parse::<Answers>().unwrap().to_string(), text);
        }
        for bad in ["", "*", " 2", "2 ", "2\n3", &"9".repeat(200)] {
            assert!(bad.parse::<Answers>().is_err(), "{bad}");
        }
    }
}
