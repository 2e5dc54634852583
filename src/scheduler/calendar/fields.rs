//! The parts of a systemd calendar expression: which values match, and the next local time that does.
//!
//! Pure and without zones. The search carries from seconds up to years like an odometer; it visits no more than every
//! day until [`LAST_YEAR`].

use std::fmt;

use chrono::Datelike;
use chrono::NaiveDate;
use chrono::NaiveDateTime;
use chrono::NaiveTime;
use chrono::TimeDelta;
use chrono::Timelike;
use chrono::Weekday;

use crate::scheduler::calendar::LAST_YEAR;
use crate::scheduler::calendar::days_in;

/// One value, a range, or a repetition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Term {
    pub(super) start: u32,
    pub(super) stop: Option<u32>,
    pub(super) step: Option<u32>,
}

impl Term {
    /// The least matching value that is at least `from` and at most `max`.
    fn next(self, from: u32, max: u32) -> Option<u32> {
        let value = match self.step {
            _ if from <= self.start => self.start,
            Some(step) => self.start + (from - self.start).div_ceil(step) * step,
            None => return None,
        };
        (value <= self.stop.unwrap_or(max).min(max)).then_some(value)
    }

    /// The same term, counted from the first of a month with `days` days and not from its last.
    fn turned(self, days: u32) -> Self {
        let turn = |day: u32| (days + 1).saturating_sub(day);
        match self.stop {
            Some(stop) => Self { start: turn(stop), stop: Some(turn(self.start)), ..self },
            None => Self { start: turn(self.start), ..self },
        }
    }
}

/// What one place of an expression allows; everything when it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Part(pub(super) Vec<Term>);

impl Part {
    /// Only this value.
    pub(super) fn only(value: u32) -> Self {
        Self(vec![Term { start: value, stop: None, step: None }])
    }

    fn next(&self, from: u32, max: u32) -> Option<u32> {
        match self.0.as_slice() {
            [] => (from <= max).then_some(from),
            terms => terms.iter().filter_map(|term| term.next(from, max)).min(),
        }
    }

    fn next_from_end(&self, from: u32, days: u32) -> Option<u32> {
        self.0.iter().filter_map(|term| term.turned(days).next(from, days)).min()
    }

    /// As systemd writes it, numbers padded to `width`.
    fn write(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("*");
        }
        for (i, term) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{:0width$}", term.start)?;
            if let Some(stop) = term.stop {
                write!(f, "..{stop:0width$}")?;
            }
            match (term.stop, term.step) {
                (Some(_), Some(1)) | (_, None) => {}
                (_, Some(step)) => write!(f, "/{step}")?,
            }
        }
        Ok(())
    }
}

/// A set of days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weekdays(u8);

impl Weekdays {
    /// Every day.
    pub(super) const ALL: Self = Self(0b111_1111);
    /// No day yet.
    pub(super) const NONE: Self = Self(0);

    /// Adds the days from `first` to `last`, Monday first; false when they stand in the wrong order.
    pub(super) fn add(&mut self, first: Weekday, last: Weekday) -> bool {
        let (first, last) = (first.num_days_from_monday(), last.num_days_from_monday());
        (first..=last).for_each(|day| self.0 |= 1 << day);
        first <= last
    }

    fn contains(self, day: u32) -> bool {
        self.0 & (1 << day) != 0
    }
}

impl fmt::Display for Weekdays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        let mut comma = "";
        let mut first = 0;
        while first < 7 {
            if !self.contains(first) {
                first += 1;
                continue;
            }
            let last = (first..7).take_while(|day| self.contains(*day)).last().unwrap_or(first);
            let (from, to) = (NAMES[first as usize], NAMES[last as usize]);
            match last - first {
                0 => write!(f, "{comma}{from}")?,
                1 => write!(f, "{comma}{from},{to}")?,
                _ => write!(f, "{comma}{from}..{to}")?,
            }
            comma = ",";
            first = last + 1;
        }
        Ok(())
    }
}

/// A whole expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) weekdays: Weekdays,
    pub(super) year: Part,
    pub(super) month: Part,
    pub(super) day: Part,
    /// `~`: days are counted from the end of the month.
    pub(super) day_from_end: bool,
    pub(super) hour: Part,
    pub(super) minute: Part,
    pub(super) second: Part,
}

impl Fields {
    /// The first matching time strictly after `after`, which is a whole second.
    pub(super) fn next_after(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let from = after.checked_add_signed(TimeDelta::seconds(1))?;
        let date = self.next_date(from.date())?;
        let earliest = if date == from.date() { from.time() } else { NaiveTime::MIN };
        if let Some(time) = self.next_time(earliest) {
            return Some(date.and_time(time));
        }
        // That day is over; every other one begins at midnight, which has all of its times ahead.
        Some(self.next_date(date.succ_opt()?)?.and_time(self.next_time(NaiveTime::MIN)?))
    }

    /// The first matching day that is not before `from`.
    fn next_date(&self, from: NaiveDate) -> Option<NaiveDate> {
        let (mut year, mut month, mut day) = (from.year().try_into().ok()?, from.month(), from.day());
        loop {
            let next_year = self.year.next(year, LAST_YEAR as u32)?;
            if next_year != year {
                (year, month, day) = (next_year, 1, 1);
            }
            let Some(next_month) = self.month.next(month, 12) else {
                (year, month, day) = (year + 1, 1, 1);
                continue;
            };
            if next_month != month {
                (month, day) = (next_month, 1);
            }
            let Some(next_day) = self.next_day(year as i32, month, day) else {
                (month, day) = (month + 1, 1);
                continue;
            };
            let date = NaiveDate::from_ymd_opt(year as i32, month, next_day)?;
            if self.weekdays.contains(date.weekday().num_days_from_monday()) {
                return Some(date);
            }
            day = next_day + 1;
        }
    }

    fn next_day(&self, year: i32, month: u32, from: u32) -> Option<u32> {
        let days = days_in(year, month);
        if self.day_from_end { self.day.next_from_end(from, days) } else { self.day.next(from, days) }
    }

    /// The first matching time of day that is not before `from`.
    fn next_time(&self, from: NaiveTime) -> Option<NaiveTime> {
        let (mut hour, mut minute, mut second) = (from.hour(), from.minute(), from.second());
        loop {
            let next_hour = self.hour.next(hour, 23)?;
            if next_hour != hour {
                (hour, minute, second) = (next_hour, 0, 0);
            }
            let Some(next_minute) = self.minute.next(minute, 59) else {
                (hour, minute, second) = (hour + 1, 0, 0);
                continue;
            };
            if next_minute != minute {
                (minute, second) = (next_minute, 0);
            }
            match self.second.next(second, 59) {
                Some(second) => return NaiveTime::from_hms_opt(hour, minute, second),
                None => (minute, second) = (minute + 1, 0),
            }
        }
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weekdays != Weekdays::ALL {
            write!(f, "{} ", self.weekdays)?;
        }
        self.year.write(f, 4)?;
        f.write_str("-")?;
        self.month.write(f, 2)?;
        f.write_str(if self.day_from_end { "~" } else { "-" })?;
        self.day.write(f, 2)?;
        f.write_str(" ")?;
        self.hour.write(f, 2)?;
        f.write_str(":")?;
        self.minute.write(f, 2)?;
        f.write_str(":")?;
        self.second.write(f, 2)
    }
}
