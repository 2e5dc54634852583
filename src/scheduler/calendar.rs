//! Calendar expressions: when a series starts.
//!
//! Two notations are read. systemd's, without a zone and in whole seconds:
//!
//! ```text
//! Tue *-*-8..14 02:30     the second Tuesday of every month (Microsoft's patch day)
//! Mon..Fri 22:00          on working days
//! *-*~1 03:00             on the last day of every month
//! *:0/15                  every quarter of an hour
//! daily, weekly, …        words
//! ```
//!
//! and the five fields of cron, `minute hour day-of-month month day-of-week`, read as every cron in use reads them: where
//! both the day of the month and the day of the week are given, **either** is enough (`0 3 13 * 5` is every Friday and
//! every 13th), but where one of the two begins with `*`, **both** must match (`0 3 */2 * 1` is every Monday with an odd
//! date). Source: crontab(5) of cronie and Debian's cron. Five words mean cron, and so does one that begins with `@`; all
//! others mean systemd.
//!
//! An expression speaks of local time. [`Calendar::next_after`] walks through local times in ascending order and asks
//! [`resolve_local`] for the instant of each, so the rule for daylight saving time stands in one place:
//!
//! - a time that does not exist runs at the first instant after the gap (systemd would leave it out);
//! - a time that exists twice runs once, the first time;
//! - thus a repeating expression pauses for the second half of a doubled hour: `*:0/15` fires at 02:00, 02:15, 02:30
//!   and 02:45 once each, and next at 03:00 (as systemd does). All times that fall into one gap run together, once,
//!   at its end.
//!
//! *Invariant:* an expression that can never occur (`*-2-30`) is refused when it is read, so that every search ends.

mod describe;
mod fields;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use chrono::DateTime;
use chrono::Datelike;
use chrono::NaiveDate;
use chrono::NaiveDateTime;
use chrono::SubsecRound;
use chrono::Utc;
use chrono_tz::Tz;
use croner::Cron;
use croner::errors::CronError;
use croner::parser::CronParser;
use croner::parser::Seconds;
use croner::parser::Year;
use thiserror::Error;

use crate::scheduler::calendar::fields::Fields;
pub use crate::scheduler::calendar::parse::Syntax;
use crate::scheduler::resolve::Resolved;
use crate::scheduler::resolve::resolve_local;

/// The first year an expression can speak of.
pub const FIRST_YEAR: i32 = 1970;
/// The last year an expression can speak of; no search goes beyond it.
pub const LAST_YEAR: i32 = 2199;
/// A longer text is no calendar expression.
pub const TEXT_BYTES_MAX: usize = 200;
/// How many words make a cron expression.
const CRON_FIELDS: usize = 5;
/// Where the fields of a cron expression stand that have more to them than numbers.
const DAY_OF_MONTH: usize = 2;
const MONTH: usize = 3;
const DAY_OF_WEEK: usize = 4;
/// The words of cron and what they stand for.
const CRON_WORDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];

/// When a series starts, in local time of a zone that is given apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar(Notation);

#[derive(Debug, Clone, PartialEq)]
enum Notation {
    Systemd(Fields),
    Cron(Box<Cron>),
}

/// A text that is no calendar expression, or one that never comes true.
#[derive(Debug, Error)]
pub enum CalendarError {
    /// The text is in neither notation.
    #[error("read the calendar expression \"{text}\": {problem}")]
    Syntax {
        /// As it was given.
        text: String,
        /// What is wrong with it.
        problem: Syntax,
    },
    /// The text has five words, but is no cron expression.
    #[error("read the five cron fields \"{text}\"")]
    Cron {
        /// As it was given.
        text: String,
        /// What is wrong with it.
        #[source]
        source: CronError,
    },
    /// No day is like that.
    #[error("find any time that matches the calendar expression \"{text}\"")]
    NeverOccurs {
        /// As it was given.
        text: String,
    },
}

impl CalendarError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Syntax { problem: Syntax::StarWithStep, .. } => {
                "write 0/15 in place of */15, or use five cron fields"
            }
            Self::Syntax { problem: Syntax::CronWord(_), .. } => {
                "write @hourly, @daily, @weekly, @monthly or @yearly, or a time such as \"Mon..Fri 22:00\""
            }
            Self::Syntax { problem: Syntax::Zone(_), .. } => "give the zone by itself: --zone Europe/Berlin",
            Self::Syntax { problem: Syntax::Weekdays(_), .. } => {
                "write Mon..Fri, or Sat,Sun; the week begins on Monday, so Friday to Monday is Mon,Fri..Sun"
            }
            Self::Syntax { .. } => {
                "write for example \"Mon..Fri 22:00\", \"Tue *-*-8..14 02:30\", \"*-*~1 03:00\" (the last day of a month), \
                 \"daily\", or five cron fields such as \"30 2 * * 2\""
            }
            Self::Cron { .. } => "the fields are minute, hour, day of month, month, day of week: \"30 2 * * 2\"",
            Self::NeverOccurs { .. } => {
                "check that the month has such a day; for the last day of a month write \"*-*~1\""
            }
        };
        Some(hint.to_owned())
    }
}

impl Calendar {
    /// Reads an expression in either notation.
    pub fn parse(text: &str) -> Result<Self, CalendarError> {
        let syntax = |problem| CalendarError::Syntax { text: text.to_owned(), problem };
        if text.len() > TEXT_BYTES_MAX {
            return Err(syntax(Syntax::TooLong));
        }
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let notation = if let [word] = words[..]
            && word.starts_with('@')
        {
            let (_, meaning) = CRON_WORDS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(word))
                .ok_or_else(|| syntax(Syntax::CronWord(word.to_owned())))?;
            Notation::Cron(Box::new(parse_cron(&meaning.split(' ').collect::<Vec<_>>(), text)?))
        } else if words.len() == CRON_FIELDS {
            Notation::Cron(Box::new(parse_cron(&words, text)?))
        } else {
            Notation::Systemd(parse::systemd(&words).map_err(syntax)?)
        };
        let calendar = Self(notation);
        match calendar.next_local(DateTime::UNIX_EPOCH.naive_utc()) {
            Some(_) => Ok(calendar),
            None => Err(CalendarError::NeverOccurs { text: text.to_owned() }),
        }
    }

    /// The next start strictly after `after`; none when the expression has come to its end.
    pub fn next_after(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        self.next_resolved(after, zone).map(|resolved| resolved.at)
    }

    /// As [`Self::next_after`], with what the zone made of the local time.
    pub fn next_resolved(&self, after: DateTime<Utc>, zone: Tz) -> Option<Resolved> {
        let mut local = after.with_timezone(&zone).naive_local();
        // Later local times never resolve to earlier instants, so the first one beyond `after` is the answer. More than
        // one turn is taken only in the second half of a doubled hour, whose times have all run in the first half.
        loop {
            local = self.next_local(local)?;
            let resolved = resolve_local(local, zone);
            if resolved.at > after {
                return Some(resolved);
            }
        }
    }

    /// One sentence for people, without its full stop: "on Mon to Fri, at 22:00".
    pub fn describe(&self) -> String {
        match &self.0 {
            Notation::Systemd(fields) => describe::sentence(fields),
            Notation::Cron(cron) => {
                let text = cron.describe();
                text.strip_suffix('.').unwrap_or(&text).to_owned()
            }
        }
    }

    /// The next matching local time strictly after `after`, whether or not it exists in some zone.
    fn next_local(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let after = after.trunc_subsecs(0);
        match &self.0 {
            Notation::Systemd(fields) => fields.next_after(after),
            // Local times are handed over as if they were UTC, which has no gaps.
            Notation::Cron(cron) => cron
                .find_next_occurrence(&after.and_utc(), false)
                .ok()
                .map(|next| next.naive_utc())
                .filter(|next| next.year() <= LAST_YEAR),
        }
    }
}

fn parse_cron(fields: &[&str], text: &str) -> Result<Cron, CalendarError> {
    let is_free = |field: &str| field.starts_with('*');
    let both = is_free(fields[DAY_OF_MONTH]) || is_free(fields[DAY_OF_WEEK]);
    let (months, weekdays) = (short_names(fields[MONTH], &MONTHS), short_names(fields[DAY_OF_WEEK], &WEEKDAYS));
    let fields = [fields[0], fields[1], fields[DAY_OF_MONTH], &months, &weekdays];
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .dom_and_dow(both)
        .build()
        .parse(&fields.join(" "))
        .map_err(|source| CalendarError::Cron { text: text.to_owned(), source })
}

/// A field with each full name in it cut to the three letters that cron knows: `Monday-Friday` becomes `Mon-Fri`.
fn short_names(field: &str, names: &[&str]) -> String {
    let short = |word: &str| {
        let is_full = names.iter().any(|name| name.eq_ignore_ascii_case(word));
        if is_full { word[..3].to_owned() } else { word.to_owned() }
    };
    let mut cut = String::with_capacity(field.len());
    let mut rest = field;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        cut += &short(&rest[..end]);
        let next = rest[end..].find(|c: char| c.is_ascii_alphabetic()).map_or(rest.len(), |at| end + at);
        cut += &rest[end..next];
        rest = &rest[next..];
    }
    cut
}

/// How many days a month has.
fn days_in(year: i32, month: u32) -> u32 {
    let next =
        if month == 12 { NaiveDate::from_ymd_opt(year + 1, 1, 1) } else { NaiveDate::from_ymd_opt(year, month + 1, 1) };
    next.and_then(|first| first.pred_opt()).map_or(31, |last| last.day())
}

impl FromStr for Calendar {
    type Err = CalendarError;

    fn from_str(text: &str) -> Result<Self, CalendarError> {
        Self::parse(text)
    }
}

/// The normal form: what `systemd-analyze calendar` prints, or the five cron fields.
impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Notation::Systemd(fields) => fields.fmt(f),
            Notation::Cron(cron) => f.write_str(cron.as_str()),
        }
    }
}
