//! Instants as an operator types them: `02:30`, `2026-11-22 02:30`, `2h`.

use chrono::DateTime;
use chrono::Days;
use chrono::Local;
use chrono::NaiveDateTime;
use chrono::NaiveTime;
use chrono::TimeZone;
use chrono::Utc;

use crate::domain::span::Span;

/// Reads an instant after `now`: a length of time, a time of day, a local date and time, or RFC 3339.
pub(crate) fn instant(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    instant_in(&Local, text, now)
}

fn instant_in<Z: TimeZone>(zone: &Z, text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    let text = text.trim();
    let at = if let Ok(span) = text.parse::<Span>() {
        now + span.delta()
    } else if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        at.to_utc()
    } else if let Some(time) =
        first(time_of(text), &["%H:%M", "%H:%M:%S"], |text, form| NaiveTime::parse_from_str(text, form).ok())
    {
        let today = now.with_timezone(zone).date_naive();
        let later = |days| today.checked_add_days(Days::new(days)).and_then(|day| resolve(zone, day.and_time(time)));
        let found = match text.split_once(' ') {
            Some(("tomorrow", _)) => later(1),
            Some(_) => later(0),
            None => later(0).filter(|at| *at > now).or_else(|| later(1)),
        };
        found.ok_or_else(|| missing(text))?
    } else {
        let forms = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"];
        let local = first(text, &forms, |text, form| NaiveDateTime::parse_from_str(text, form).ok())
            .ok_or_else(|| format!("\"{text}\" is no time: write 2h, 06:00 or \"2026-11-22 06:00\""))?;
        resolve(zone, local).ok_or_else(|| missing(text))?
    };
    if at > now { Ok(at) } else { Err(format!("\"{text}\" is over")) }
}

/// The time of day of `tomorrow 02:30`.
fn time_of(text: &str) -> &str {
    text.strip_prefix("today ").or_else(|| text.strip_prefix("tomorrow ")).unwrap_or(text).trim()
}

fn first<T>(text: &str, forms: &[&str], parse: impl Fn(&str, &str) -> Option<T>) -> Option<T> {
    forms.iter().find_map(|form| parse(text, form))
}

fn resolve<Z: TimeZone>(zone: &Z, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    zone.from_local_datetime(&local).earliest().map(|at| at.to_utc())
}

fn missing(text: &str) -> String {
    format!("\"{text}\" does not exist: the clocks are set forward then")
}

#[cfg(test)]
mod tests {
    use chrono_tz::Europe::Berlin;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("2h", "2026-11-21T22:00:00Z")]
    #[case("22:15", "2026-11-21T21:15:00Z")]
    #[case("today 22:15", "2026-11-21T21:15:00Z")]
    #[case("tomorrow 22:15", "2026-11-22T21:15:00Z")]
    #[case("06:00", "2026-11-22T05:00:00Z")]
    #[case("2026-11-23 06:00", "2026-11-23T05:00:00Z")]
    #[case("2026-11-23T06:00:30", "2026-11-23T05:00:30Z")]
    #[case("2026-11-23T06:00:30Z", "2026-11-23T06:00:30Z")]
    #[case("2027-10-31 02:30", "2027-10-31T00:30:00Z")]
    fn reads_what_people_type(#[case] text: &str, #[case] at: &str) {
        let now = "2026-11-21T20:00:00Z".parse().unwrap();
        assert_eq!(instant_in(&Berlin, text, now), Ok(at.parse().unwrap()));
    }

    #[rstest]
    #[case("soon")]
    #[case("today 08:00")]
    #[case("2026-11-21 08:00")]
    #[case("2027-03-28 02:30")]
    #[case("25:00")]
    fn refuses_the_rest(#[case] text: &str) {
        let now = "2026-11-21T20:00:00Z".parse().unwrap();
        assert!(instant_in(&Berlin, text, now).is_err());
    }
}
