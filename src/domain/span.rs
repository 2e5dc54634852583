//! Durations as an administrator writes them: `5m`, `2d`, `1h 30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::TimeDelta;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use thiserror::Error;

/// A length of time, at most [`Span::MAX`], written `5m` or `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(Duration);

/// A text that is no length of time.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("\"{text}\" is no length of time: write for example 90s, 5m, 2h or 2d")]
pub struct BadSpan {
    text: String,
}

impl Span {
    /// Nothing.
    pub const ZERO: Self = Self(Duration::ZERO);
    /// The longest span there is: ten years. More is a slip of the pen.
    pub const MAX: Self = Self(Duration::from_secs(10 * 365 * 86_400));

    /// A span of whole seconds.
    pub const fn secs(secs: u64) -> Self {
        Self(Duration::from_secs(secs))
    }

    /// A span of whole minutes.
    pub const fn mins(mins: u64) -> Self {
        Self::secs(mins * 60)
    }

    /// A span of whole hours.
    pub const fn hours(hours: u64) -> Self {
        Self::mins(hours * 60)
    }

    /// A span of days of 24 hours.
    pub const fn days(days: u64) -> Self {
        Self::hours(days * 24)
    }

    /// The same as [`std::time::Duration`].
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// The same for arithmetic with instants.
    pub fn delta(self) -> TimeDelta {
        TimeDelta::from_std(self.0).unwrap_or(TimeDelta::MAX)
    }

    /// The span between two instants; nothing when `to` is not after `from`.
    pub fn between(from: chrono::DateTime<chrono::Utc>, to: chrono::DateTime<chrono::Utc>) -> Self {
        Self((to - from).to_std().unwrap_or_default())
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl FromStr for Span {
    type Err = BadSpan;

    fn from_str(text: &str) -> Result<Self, BadSpan> {
        match humantime::parse_duration(text.trim()) {
            Ok(duration) if duration <= Self::MAX.0 => Ok(Self(duration)),
            _ => Err(BadSpan { text: text.to_owned() }),
        }
    }
}

/// As people read it: `2 days 3h`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = humantime::format_duration(self.0).to_string();
        for (place, part) in written.split(' ').enumerate() {
            let (number, unit) = part.split_at(part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len()));
            let (before, between) = (if place > 0 { " " } else { "" }, if unit.len() > 2 { " " } else { "" });
            write!(f, "{before}{number}{between}{unit}")?;
        }
        Ok(())
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for text in ["0s", "90s", "5m", "1h 30m", "2days"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{text}");
        }
        assert_eq!("2d".parse::<Span>().unwrap(), Span::days(2));
        assert_eq!(Span::days(2).to_string(), "2 days");
        assert_eq!(serde_json::to_string(&Span::days(2)).unwrap(), "\"2days\"");
    }

    #[test]
    fn refuses_nonsense_and_eternity() {
        for text in ["", "5", "-5m", "soon", "900y"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
