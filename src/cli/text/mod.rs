//! How things read: pure functions from what the daemon says to text for people.

pub(crate) mod app;
pub(crate) mod audit;
pub(crate) mod check;
pub(crate) mod client;
pub(crate) mod event;
pub(crate) mod job;
pub(crate) mod plan;
pub(crate) mod run;

use chrono::DateTime;
use chrono::Local;
use chrono::Utc;
use chrono_tz::Tz;
use comfy_table::ContentArrangement;
use comfy_table::Table;
use comfy_table::presets;

use crate::domain::failure::Failure;
use crate::domain::plain::is_hidden;
use crate::domain::span::Span;

/// The most lines of a vendor's text that are shown at a time.
const FOREIGN_LINES_MAX: usize = 200;

/// What stands where nothing is known or nothing is to be said.
pub(crate) const NOTHING: &str = "-";

/// How instants read: in which zone, and seen from when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    now: DateTime<Utc>,
    zone: Option<Tz>,
}

impl Times {
    /// In the zone of whoever looks, at `now`.
    pub(crate) const fn local(now: DateTime<Utc>) -> Self {
        Self { now, zone: None }
    }

    #[cfg(test)]
    pub(crate) const fn in_zone(now: DateTime<Utc>, zone: Tz) -> Self {
        Self { now, zone: Some(zone) }
    }

    fn format(&self, at: DateTime<Utc>, form: &str) -> String {
        match self.zone {
            Some(zone) => at.with_timezone(&zone).format(form).to_string(),
            None => at.with_timezone(&Local).format(form).to_string(),
        }
    }

    /// `Sun 2026-11-22 02:30:00`.
    pub(crate) fn at(&self, at: DateTime<Utc>) -> String {
        self.format(at, "%a %Y-%m-%d %H:%M:%S")
    }

    /// `02:30:00`.
    pub(crate) fn time(&self, at: DateTime<Utc>) -> String {
        self.format(at, "%H:%M:%S")
    }

    /// `Sun 2026-11-22 02:30:00 (in 5h 12m)`.
    pub(crate) fn at_and_away(&self, at: DateTime<Utc>) -> String {
        format!("{} ({})", self.at(at), self.away(at))
    }

    /// `in 5h 12m`, `3m ago`, `now`.
    pub(crate) fn away(&self, at: DateTime<Utc>) -> String {
        let delta = at - self.now;
        let length = rough(delta.abs().to_std().unwrap_or_default().as_millis());
        match delta.num_seconds() {
            0 => "now".to_owned(),
            1.. => format!("in {length}"),
            _ => format!("{length} ago"),
        }
    }

    /// Whether an instant is over.
    pub(crate) fn is_past(&self, at: DateTime<Utc>) -> bool {
        at <= self.now
    }

    /// An instant that may be absent.
    pub(crate) fn maybe(&self, at: Option<DateTime<Utc>>) -> String {
        at.map_or_else(|| NOTHING.to_owned(), |at| self.at(at))
    }
}

/// A length of time in its two largest units: `5h 12m`, `3m 20s`, `1.2s`, `80ms`.
pub(crate) fn rough(millis: u128) -> String {
    let secs = millis / 1_000;
    let (days, hours, mins) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
    let two = |large: u128, l: &str, small: u128, s: &str| match small {
        0 => format!("{large}{l}"),
        _ => format!("{large}{l} {small}{s}"),
    };
    match secs {
        0 => format!("{millis}ms"),
        1..10 => format!("{}.{}s", secs, millis / 100 % 10),
        10..60 => format!("{secs}s"),
        60..3_600 => two(mins, "m", secs % 60, "s"),
        3_600..86_400 => two(hours, "h", mins, "m"),
        _ => two(days, "d", hours, "h"),
    }
}

/// `5m`, where humantime would say `5m`, and nothing where there is none.
pub(crate) fn maybe_span(span: Option<Span>, otherwise: &str) -> String {
    span.map_or_else(|| otherwise.to_owned(), |span| span.to_string())
}

/// A size in binary units, one place after the point.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// Whatever there is, or a dash.
pub(crate) fn maybe(thing: Option<impl ToString>) -> String {
    thing.map_or_else(|| NOTHING.to_owned(), |thing| thing.to_string())
}

/// One word or the other.
pub(crate) const fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// `1 session`, `2 sessions`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A failure with its causes and its remedy, over several lines.
pub(crate) fn failure(failure: &Failure) -> String {
    let mut text = failure.message.clone();
    for cause in &failure.because {
        text.push_str("\nbecause: ");
        text.push_str(cause);
    }
    for line in &failure.said {
        text.push_str("\nit said: ");
        text.push_str(line);
    }
    for exhibit in &failure.exhibits {
        text.push_str(&format!("\n{}:\n{}", exhibit.from, indented(&exhibit.lines.join("\n"))));
    }
    if let Some(hint) = &failure.hint {
        text.push_str("\nhint: ");
        text.push_str(hint);
    }
    text
}

/// A table for people. Empty tables say what is not there.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, empty: &str) -> String {
    if rows.is_empty() {
        return empty.to_owned();
    }
    let mut table = plain();
    table.set_header(header.to_vec());
    table.add_rows(rows);
    trimmed(&table)
}

/// Names with their values, one on each line.
pub(crate) fn pairs(rows: Vec<(&str, String)>) -> String {
    let mut table = plain();
    for (name, value) in rows {
        table.add_row(vec![name.to_owned(), value]);
    }
    trimmed(&table)
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Columns begin at the edge, and no line ends in blanks.
fn trimmed(table: &Table) -> String {
    let lines: Vec<String> =
        table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A vendor's text without what would do something to a terminal: escape sequences lose their escape, and format
/// characters are left out. At most [`FOREIGN_LINES_MAX`] lines.
pub(crate) fn harmless(text: &str) -> String {
    let kept = |line: &str| -> String {
        let line = line.replace('\t', "    ");
        line.trim_end().chars().filter(|c| !is_hidden(*c)).collect()
    };
    let mut lines: Vec<String> = text.trim().lines().take(FOREIGN_LINES_MAX).map(kept).collect();
    let left_out = text.trim().lines().count().saturating_sub(lines.len());
    if left_out > 0 {
        lines.push(format!("… and {left_out} more lines (--json has all of them)"));
    }
    lines.join("\n")
}

/// The same text, each line moved to the right.
pub(crate) fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}").trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_vendors_text_does_nothing_to_a_terminal() {
        let wild = "\n# New\r\n\u{1b}[31mred\u{1b}]0;title\u{7}\tand\u{202e}dlo\u{9b}1m\n\n";
        assert_eq!(harmless(wild), "# New\n[31mred]0;title    anddlo1m");
        let long = "line\n".repeat(FOREIGN_LINES_MAX + 5);
        assert!(harmless(&long).ends_with("line\n… and 5 more lines (--json has all of them)"));
    }

    #[rstest]
    #[case(0, "0ms")]
    #[case(80, "80ms")]
    #[case(1_250, "1.2s")]
    #[case(59_999, "59s")]
    #[case(200_000, "3m 20s")]
    #[case(3_600_000, "1h")]
    #[case(18_720_000, "5h 12m")]
    #[case(180_000_000, "2d 2h")]
    fn lengths_have_two_units(#[case] millis: u128, #[case] text: &str) {
        assert_eq!(rough(millis), text);
    }

    #[test]
    fn instants_are_read_where_one_is() {
        let times = Times::in_zone("2026-11-21T20:00:00Z".parse().unwrap(), Tz::Europe__Berlin);
        let at = "2026-11-22T01:30:00Z".parse().unwrap();
        assert_eq!(times.at_and_away(at), "Sun 2026-11-22 02:30:00 (in 5h 30m)");
    }

    #[test]
    fn tables_begin_at_the_edge() {
        let text = table(&["A", "B"], vec![vec!["1".into(), "2".into()], vec!["30".into(), String::new()]], "none");
        assert_eq!(text, "A   B\n1   2\n30");
    }
}
