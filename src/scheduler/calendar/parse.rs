//! Reads systemd's calendar notation: `[weekdays] [date] [time]`, or one word.
//!
//! As strict as systemd itself (the tests compare the two), except that spaces around the text do no harm. Left out on
//! purpose: fractions of a second, `@epoch`, and a zone inside the text, because a job names its zone apart.

use chrono::Weekday;
use chrono_tz::Tz;
use thiserror::Error;

use crate::scheduler::calendar::FIRST_YEAR;
use crate::scheduler::calendar::LAST_YEAR;
use crate::scheduler::calendar::fields::Fields;
use crate::scheduler::calendar::fields::Part;
use crate::scheduler::calendar::fields::Term;
use crate::scheduler::calendar::fields::Weekdays;

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Syntax {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// There is too much.
    #[error("it is too long")]
    TooLong,
    /// Something is neither days of the week nor a date nor a time, or stands in the wrong place.
    #[error("\"{0}\" is not expected here")]
    Unexpected(String),
    /// No such days of the week.
    #[error("\"{0}\" are no days of the week, Monday first")]
    Weekdays(String),
    /// A date has two or three places.
    #[error("\"{0}\" is no date")]
    Date(String),
    /// A time has two or three places.
    #[error("\"{0}\" is no time of day")]
    Time(String),
    /// Something is no list of numbers, ranges and repetitions.
    #[error("\"{text}\" is no {unit}")]
    Number {
        /// Which place.
        unit: &'static str,
        /// What stands there.
        text: String,
    },
    /// A number that this place does not allow.
    #[error("\"{text}\" is no {unit} from {min} to {max}")]
    OutOfBounds {
        /// Which place.
        unit: &'static str,
        /// What stands there.
        text: String,
        /// The least value.
        min: u32,
        /// The greatest value.
        max: u32,
    },
    /// `5..3`.
    #[error("\"{0}\" ends before it begins")]
    Backwards(String),
    /// `0/60`.
    #[error("\"{0}\" never repeats")]
    Step(String),
    /// `@reboot`.
    #[error("\"{0}\" is none of cron's words for a time")]
    CronWord(String),
    /// `*/15`.
    #[error("\"*\" takes no repetition")]
    StarWithStep,
    /// `02:30 Europe/Berlin`.
    #[error("the zone \"{0}\" does not belong in it")]
    Zone(String),
}

/// The words and what they stand for.
const WORDS: [(&str, &str); 13] = [
    ("minutely", "*-*-* *:*:00"),
    ("hourly", "*-*-* *:00:00"),
    ("daily", "*-*-* 00:00:00"),
    ("weekly", "Mon *-*-* 00:00:00"),
    ("monthly", "*-*-01 00:00:00"),
    ("quarterly", "*-01,04,07,10-01 00:00:00"),
    ("semiannually", "*-01,07-01 00:00:00"),
    ("semi-annually", "*-01,07-01 00:00:00"),
    ("biannually", "*-01,07-01 00:00:00"),
    ("bi-annually", "*-01,07-01 00:00:00"),
    ("yearly", "*-01-01 00:00:00"),
    ("annually", "*-01-01 00:00:00"),
    ("anually", "*-01-01 00:00:00"), // systemd reads the slip of the pen too
];

/// A place of an expression: its name and its bounds.
#[derive(Clone, Copy)]
struct Unit {
    name: &'static str,
    min: u32,
    max: u32,
}

const YEAR: Unit = Unit { name: "year", min: FIRST_YEAR as u32, max: LAST_YEAR as u32 };
const MONTH: Unit = Unit { name: "month", min: 1, max: 12 };
const DAY: Unit = Unit { name: "day of the month", min: 1, max: 31 };
/// No month is shorter, so that a day counted from the end always exists.
const DAY_FROM_END: Unit = Unit { name: "day before the end of the month", min: 1, max: 28 };
const HOUR: Unit = Unit { name: "hour", min: 0, max: 23 };
const MINUTE: Unit = Unit { name: "minute", min: 0, max: 59 };
const SECOND: Unit = Unit { name: "second", min: 0, max: 59 };

/// Reads the words of a text.
pub(super) fn systemd(words: &[&str]) -> Result<Fields, Syntax> {
    if let [word] = words
        && let Some((_, meaning)) = WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word))
    {
        return systemd(&meaning.split(' ').collect::<Vec<_>>());
    }
    let mut rest = words;
    let mut fields = Fields {
        weekdays: Weekdays::ALL,
        year: Part::default(),
        month: Part::default(),
        day: Part::default(),
        day_from_end: false,
        hour: Part::only(0),
        minute: Part::only(0),
        second: Part::only(0),
    };
    if let Some((word, after)) = rest.split_first()
        && word.starts_with(|c: char| c.is_ascii_alphabetic())
    {
        fields.weekdays = weekdays(word)?;
        rest = after;
    }
    if let Some((word, after)) = rest.split_first()
        && !word.contains(':')
        && word.starts_with(|c: char| c == '*' || c.is_ascii_digit())
    {
        date(word, &mut fields)?;
        rest = after;
    }
    if let Some((word, after)) = rest.split_first()
        && word.contains(':')
    {
        time(word, &mut fields)?;
        rest = after;
    }
    match rest {
        [] if words.is_empty() => Err(Syntax::Empty),
        [] => Ok(fields),
        [word, ..] if is_zone(word) => Err(Syntax::Zone((*word).to_owned())),
        [word, ..] => Err(Syntax::Unexpected((*word).to_owned())),
    }
}

fn is_zone(word: &str) -> bool {
    word.parse::<Tz>().is_ok()
}

fn weekdays(word: &str) -> Result<Weekdays, Syntax> {
    let bad = || if is_zone(word) { Syntax::Zone(word.to_owned()) } else { Syntax::Weekdays(word.to_owned()) };
    let day = |name: &str| name.parse::<Weekday>().map_err(|_| bad());
    let mut days = Weekdays::NONE;
    for item in word.strip_suffix(',').unwrap_or(word).split(',') {
        let (first, last) = item.split_once("..").or_else(|| item.split_once('-')).unwrap_or((item, item));
        if !days.add(day(first)?, day(last)?) {
            return Err(bad());
        }
    }
    Ok(days)
}

fn date(word: &str, fields: &mut Fields) -> Result<(), Syntax> {
    let bad = || Syntax::Date(word.to_owned());
    let (before, day, unit) = match word.rsplit_once('~') {
        Some((before, day)) => (before, day, DAY_FROM_END),
        None => word.rsplit_once('-').map(|(before, day)| (before, day, DAY)).ok_or_else(bad)?,
    };
    fields.day_from_end = unit.max == DAY_FROM_END.max;
    match before.split('-').collect::<Vec<_>>().as_slice() {
        [month] => fields.month = part(month, MONTH)?,
        [year, month] => (fields.year, fields.month) = (part(year, YEAR)?, part(month, MONTH)?),
        _ => return Err(bad()),
    }
    fields.day = part(day, unit)?;
    // "~*" counts every day from the end, which is every day.
    fields.day_from_end &= !fields.day.0.is_empty();
    Ok(())
}

fn time(word: &str, fields: &mut Fields) -> Result<(), Syntax> {
    match word.split(':').collect::<Vec<_>>().as_slice() {
        [hour, minute] => (fields.hour, fields.minute) = (part(hour, HOUR)?, part(minute, MINUTE)?),
        [hour, minute, second] => {
            (fields.hour, fields.minute, fields.second) =
                (part(hour, HOUR)?, part(minute, MINUTE)?, part(second, SECOND)?);
        }
        _ => return Err(Syntax::Time(word.to_owned())),
    }
    Ok(())
}

/// Reads `*`, or a list of terms; sorted and without doubles.
fn part(text: &str, unit: Unit) -> Result<Part, Syntax> {
    if text == "*" {
        return Ok(Part::default());
    }
    if text.starts_with("*/") {
        return Err(Syntax::StarWithStep);
    }
    let mut terms = text.split(',').map(|item| term(item, unit)).collect::<Result<Vec<_>, _>>()?;
    terms.sort_unstable();
    terms.dedup();
    Ok(Part(terms))
}

fn term(text: &str, unit: Unit) -> Result<Term, Syntax> {
    let number = |digits: &str| {
        // Not `parse` alone: that takes a plus sign.
        let sound = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let value = sound.then(|| digits.parse::<u32>().ok()).flatten();
        value.ok_or_else(|| Syntax::Number { unit: unit.name, text: text.to_owned() })
    };
    let value = |digits: &str| number(digits).map(|value| full_year(value, unit));
    let (span, step) = match text.split_once('/') {
        Some((span, step)) => (span, Some(number(step)?)),
        None => (text, None),
    };
    let term = match span.split_once("..") {
        Some((start, stop)) => Term { start: value(start)?, stop: Some(value(stop)?), step: Some(step.unwrap_or(1)) },
        None => Term { start: value(span)?, stop: None, step },
    };
    if ![Some(term.start), term.stop].into_iter().flatten().all(|value| (unit.min..=unit.max).contains(&value)) {
        return Err(Syntax::OutOfBounds { unit: unit.name, text: text.to_owned(), min: unit.min, max: unit.max });
    }
    if term.stop.is_some_and(|stop| stop < term.start) {
        return Err(Syntax::Backwards(text.to_owned()));
    }
    if !repeats(term, unit) {
        return Err(Syntax::Step(text.to_owned()));
    }
    Ok(normalized(term))
}

/// Years may be written with two digits: 70 is 1970, 69 is 2069.
fn full_year(value: u32, unit: Unit) -> u32 {
    match value {
        0..70 if unit.name == YEAR.name => 2000 + value,
        70..100 if unit.name == YEAR.name => 1900 + value,
        _ => value,
    }
}

/// Whether a repetition happens once at least; in a range it need not.
fn repeats(term: Term, unit: Unit) -> bool {
    match term.step {
        None => true,
        Some(step) if term.stop.is_some() => step != 0,
        Some(step) if unit.max == DAY_FROM_END.max => step != 0 && term.start.saturating_sub(step) >= unit.min,
        Some(step) => step != 0 && term.start.saturating_add(step) <= unit.max,
    }
}

/// A range ends at the last value its repetition reaches; a range of one value is that value.
fn normalized(term: Term) -> Term {
    let (Some(stop), Some(step)) = (term.stop, term.step) else { return term };
    let stop = stop - (stop - term.start) % step;
    if stop == term.start { Term { stop: None, step: None, ..term } } else { Term { stop: Some(stop), ..term } }
}
