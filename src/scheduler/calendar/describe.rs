//! Says a calendar expression in words, for people who do not read the notation.
//!
//! What has no short sentence is said with the notation of the place in question: never wrong, sometimes dry.

use chrono::Month;

use crate::scheduler::calendar::fields::Fields;
use crate::scheduler::calendar::fields::Part;
use crate::scheduler::calendar::fields::Term;
use crate::scheduler::calendar::fields::Weekdays;

/// One sentence without its full stop: "on Tue, on day 8 to 14 of every month, at 02:30".
pub(super) fn sentence(fields: &Fields) -> String {
    let every_day = fields.weekdays == Weekdays::ALL && fields.day.0.is_empty();
    let mut parts = Vec::new();
    if every_day && !is_repeated(fields) {
        parts.push("every day".to_owned());
    }
    if fields.weekdays != Weekdays::ALL {
        parts.push(format!("on {}", fields.weekdays.to_string().replace("..", " to ").replace(',', ", ")));
    }
    parts.extend(days(fields));
    if !fields.year.0.is_empty() {
        parts.push(format!("in {}", list(&fields.year, number)));
    }
    parts.push(time(fields));
    parts.join(", ")
}

/// The sentence says how often it is by its time alone.
fn is_repeated(fields: &Fields) -> bool {
    fields.hour.0.is_empty()
}

fn days(fields: &Fields) -> Option<String> {
    let months = || match fields.month.0.as_slice() {
        [] => "every month".to_owned(),
        _ => list(&fields.month, month),
    };
    match (fields.day.0.as_slice(), fields.day_from_end) {
        ([], _) if fields.month.0.is_empty() => None,
        ([], _) => Some(format!("in {}", months())),
        ([Term { start: 1, stop: None, step: None }], true) => Some(format!("on the last day of {}", months())),
        (_, true) => Some(format!("on day {} from the end of {}", list(&fields.day, number), months())),
        (_, false) => Some(format!("on day {} of {}", list(&fields.day, number), months())),
    }
}

fn time(fields: &Fields) -> String {
    let only = |part: &Part| match part.0.as_slice() {
        [Term { start, stop: None, step: None }] => Some(*start),
        _ => None,
    };
    let repeated = |part: &Part| match part.0.as_slice() {
        [] => Some(1),
        [Term { start: 0, stop: None, step: Some(step) }] => Some(*step),
        _ => None,
    };
    match (only(&fields.hour), only(&fields.minute), only(&fields.second)) {
        (Some(hour), Some(minute), Some(0)) => return format!("at {hour:02}:{minute:02}"),
        (Some(hour), Some(minute), Some(second)) => return format!("at {hour:02}:{minute:02}:{second:02}"),
        (None, Some(0), Some(0)) if fields.hour.0.is_empty() => return "every hour".to_owned(),
        (None, None, Some(0)) if fields.hour.0.is_empty() => match repeated(&fields.minute) {
            Some(1) => return "every minute".to_owned(),
            Some(step) if 60 % step == 0 => return format!("every {step} minutes"),
            _ => {}
        },
        _ => {}
    }
    let place = |part: &Part, unit: &str| match part.0.is_empty() {
        true => format!("every {unit}"),
        false => format!("{unit} {}", list(part, number)),
    };
    let mut text = format!("at {}, {}", place(&fields.hour, "hour"), place(&fields.minute, "minute"));
    if only(&fields.second) != Some(0) {
        text += &format!(", {}", place(&fields.second, "second"));
    }
    text
}

fn list(part: &Part, name: impl Fn(u32) -> String) -> String {
    let term = |term: &Term| {
        let start = name(term.start);
        match (term.stop, term.step) {
            (None, None) => start,
            (None, Some(step)) => format!("{start} and every {step} after it"),
            (Some(stop), None | Some(1)) => format!("{start} to {}", name(stop)),
            (Some(stop), Some(step)) => format!("{start} to {} by {step}", name(stop)),
        }
    };
    part.0.iter().map(term).collect::<Vec<_>>().join(", ")
}

fn number(value: u32) -> String {
    value.to_string()
}

fn month(value: u32) -> String {
    let month = u8::try_from(value).ok().and_then(|value| Month::try_from(value).ok());
    month.map_or_else(|| number(value), |month| month.name().to_owned())
}
