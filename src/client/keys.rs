//! What a person types to a question, and what it means: a key at once, or a word.
//!
//! A single key answers as soon as it is pressed. Whoever types the word that stands on the screen has answered with
//! its first letter, and the rest of the word must not answer again: letters that follow without a [`PAUSE`] belong to
//! one word. Only the second letter can be a second thought as well; it counts when nothing follows it.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::ui::Input;
use crate::domain::session::Answer;

/// Letters that follow each other faster than this belong to one word.
const PAUSE: Duration = Duration::from_millis(600);
/// The words that count, in any case.
const WORDS: [(&str, Input); 12] = [
    ("o", Input::Answer(Answer::Ok)),
    ("ok", Input::Answer(Answer::Ok)),
    ("okay", Input::Answer(Answer::Ok)),
    ("n", Input::Answer(Answer::NotNow)),
    ("no", Input::Answer(Answer::NotNow)),
    ("not now", Input::Answer(Answer::NotNow)),
    ("not-now", Input::Answer(Answer::NotNow)),
    ("r", Input::Answer(Answer::RestartAfterwards)),
    ("restart", Input::Answer(Answer::RestartAfterwards)),
    ("restart afterwards", Input::Answer(Answer::RestartAfterwards)),
    ("s", Input::Start),
    ("start", Input::Start),
];

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing new.
    Nothing,
    /// This.
    Input(Input),
    /// Something that is no answer.
    Odd(String),
}

/// The keys of the last moment.
#[derive(Debug, Default)]
pub(super) struct Keys {
    word: String,
    last: Option<Instant>,
    /// The second letter, until it is known that nothing follows.
    second: Option<Input>,
    said: bool,
}

impl Keys {
    /// Forgets what was typed before.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A whole line, or what arrives at once.
    pub(super) fn line(text: &str) -> Heard {
        let text = text.trim();
        match meaning(&text.to_lowercase()) {
            Some(input) => Heard::Input(input),
            None if text.is_empty() => Heard::Nothing,
            None => Heard::Odd(text.to_owned()),
        }
    }

    /// One key.
    pub(super) fn press(&mut self, key: char, now: Instant) -> Heard {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) > PAUSE) {
            self.clear();
        }
        self.last = Some(now);
        self.second = None;
        if matches!(key, '\r' | '\n') {
            self.clear();
            return Heard::Nothing;
        }
        if self.word.is_empty() && key.is_whitespace() {
            return Heard::Nothing;
        }
        self.word.extend(key.to_lowercase());
        let is_first = self.word.chars().count() == 1;
        if WORDS.iter().any(|(word, _)| word.starts_with(&self.word)) {
            return meaning(&self.word).filter(|_| is_first).map_or(Heard::Nothing, Heard::Input);
        }
        self.second = meaning(&key.to_lowercase().to_string()).filter(|_| self.word.chars().count() == 2);
        if self.second.is_some() || std::mem::replace(&mut self.said, true) {
            return Heard::Nothing;
        }
        Heard::Odd(self.word.clone())
    }

    /// Whether a key that comes now belongs to a word that was begun.
    pub(super) fn is_in_word(&self, now: Instant) -> bool {
        !self.word.is_empty() && self.last.is_some_and(|last| now.saturating_duration_since(last) <= PAUSE)
    }

    /// When [`Keys::second_thought`] is to be asked.
    pub(super) fn due(&self) -> Option<Instant> {
        self.second.and(self.last).map(|last| last + PAUSE)
    }

    /// The second letter, after which nothing came.
    pub(super) fn second_thought(&mut self) -> Option<Input> {
        let input = self.second.take();
        self.clear();
        input
    }
}

fn meaning(word: &str) -> Option<Input> {
    WORDS.iter().find(|(known, _)| *known == word).map(|(_, input)| *input)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Heard = Heard::Input(Input::Answer(Answer::Ok));
    const NOT_NOW: Heard = Heard::Input(Input::Answer(Answer::NotNow));
    const RESTART: Heard = Heard::Input(Input::Answer(Answer::RestartAfterwards));

    /// What is heard of keys that follow each other fast.
    fn heard(text: &str) -> Vec<Heard> {
        let (mut keys, now) = (Keys::default(), Instant::now());
        text.chars().map(|key| keys.press(key, now)).filter(|heard| *heard != Heard::Nothing).collect()
    }

    #[test]
    fn a_word_answers_once_whoever_types_it() {
        for (text, once) in [
            ("o", OK),
            ("OK\r", OK),
            ("n", NOT_NOW),
            ("No\r", NOT_NOW),
            ("not now\r", NOT_NOW),
            ("NOT NOW", NOT_NOW),
            ("r", RESTART),
            ("Restart\r", RESTART),
            ("restart afterwards\r", RESTART),
            ("start", Heard::Input(Input::Start)),
        ] {
            assert_eq!(heard(text), std::slice::from_ref(&once), "{text}");
            assert_eq!(Keys::line(text), once, "{text}");
        }
    }

    #[test]
    fn other_words_close_nothing() {
        assert_eq!(heard("later"), [Heard::Odd("l".into())]);
        assert_eq!(heard("hello"), [Heard::Odd("h".into())]);
        assert_eq!(heard("never"), [NOT_NOW, Heard::Odd("ne".into())]);
        assert_eq!(Keys::line("what?\n"), Heard::Odd("what?".into()));
        assert_eq!(Keys::line("\n"), Heard::Nothing);
    }

    #[test]
    fn a_second_thought_counts_after_a_pause() {
        let (mut keys, now) = (Keys::default(), Instant::now());
        assert_eq!(keys.press('x', now), Heard::Odd("x".into()));
        assert_eq!(keys.press('o', now), Heard::Nothing);
        assert_eq!(keys.due(), Some(now + PAUSE));
        assert_eq!(keys.second_thought(), Some(Input::Answer(Answer::Ok)));
        assert_eq!(keys.press('n', now), NOT_NOW);
        assert_eq!(keys.press('o', now), Heard::Nothing, "no is no yes");
        assert_eq!(keys.due(), None);
        assert_eq!(keys.press('o', now + PAUSE * 2), OK);
    }
}
