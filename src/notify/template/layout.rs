//! Plain text that looks right in every mail program: short lines where we choose them, columns
//! that stand under each other, nothing that needs a wide window or a fixed number of bytes.

use chrono::DateTime;
use chrono::Utc;
use chrono_tz::Tz;

use crate::domain::plain::one_line;
use crate::domain::span::Span;

/// A longer text is cut: a mail is for reading, the log is for searching.
const TEXT_CHARS_MAX: usize = 500;
/// More rows of a table are counted, not shown.
const ROWS_MAX: usize = 200;
/// A sentence is broken before it gets longer.
const WIDTH: usize = 76;

/// A page that is being written.
#[derive(Debug, Default)]
pub(super) struct Page(String);

impl Page {
    /// A paragraph, broken where it gets too long.
    pub(super) fn line(&mut self, text: &str) {
        let mut width = 0;
        for word in bounded(text).split(' ') {
            let chars = word.chars().count();
            if width > 0 && width + 1 + chars > WIDTH {
                self.0.push('\n');
                width = 0;
            } else if width > 0 {
                self.0.push(' ');
                width += 1;
            }
            self.0 += word;
            width += chars;
        }
        self.0.push('\n');
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.0.push('\n');
    }

    /// The title of a section.
    pub(super) fn heading(&mut self, text: &str) {
        self.gap();
        self.0 += text;
        self.0.push('\n');
    }

    /// One indented line. It is not broken: it may be a command or a path to copy.
    pub(super) fn item(&mut self, text: &str) {
        self.0 += &format!("  {}\n", bounded(text));
    }

    /// Indented columns, each as wide as its widest cell; the last is not padded.
    pub(super) fn table(&mut self, rows: &[Vec<String>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let cell = |row: &Vec<String>, column: usize| row.get(column).map(|text| bounded(text)).unwrap_or_default();
        let width = |column| rows.iter().map(|row| cell(row, column).chars().count()).max().unwrap_or_default();
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in rows.iter().take(ROWS_MAX) {
            let cells = widths.iter().enumerate().map(|(column, width)| format!("{:width$}", cell(row, column)));
            let line = cells.collect::<Vec<_>>().join("  ");
            self.0 += &format!("  {}\n", line.trim_end());
        }
        if rows.len() > ROWS_MAX {
            self.0 += &format!("  … +{}\n", rows.len() - ROWS_MAX);
        }
    }

    /// What mail programs recognise as a signature.
    pub(super) fn signature(&mut self, text: &str) {
        self.0 += &format!("\n-- \n{}\n", bounded(text));
    }

    /// The whole page.
    pub(super) fn text(self) -> String {
        self.0
    }
}

/// One line of a reasonable length.
fn bounded(text: &str) -> String {
    let line: String = one_line(text.trim_end());
    match line.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// An instant on the clock on the wall there.
pub(super) fn instant(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// A span as precise as a person needs: `350 ms`, `4.2 s`, `41 s`, `6 min 12 s`, `1 h 05 min`.
pub(super) fn span(span: Span, decimal: char) -> String {
    let millis = span.duration().as_millis();
    // Rounded first, so that nothing ever reads as 60 s.
    let (tenths, secs) = ((millis + 50) / 100, (millis + 500) / 1000);
    match (millis, tenths, secs) {
        (0..1000, ..) => format!("{millis} ms"),
        (_, 0..100, _) => format!("{}{decimal}{} s", tenths / 10, tenths % 10),
        (_, _, 0..60) => format!("{secs} s"),
        (_, _, 60..3600) => format!("{} min {:02} s", secs / 60, secs % 60),
        _ => format!("{} h {:02} min", secs / 3600, secs / 60 % 60),
    }
}

/// A size as people compare sizes.
pub(super) fn bytes(bytes: u64, decimal: char) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut unit = 0;
    let mut tenths = u128::from(bytes) * 10;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths = (tenths + 500) / 1000;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}{decimal}{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn spans_read_as_people_say_them() {
        let said = [0, 350, 999, 1000, 4240, 9949, 9950, 41_000, 59_499, 59_500, 372_000, 3_599_499, 3_900_000];
        let said = said.map(|millis| span(Span::from(Duration::from_millis(millis)), ','));
        let expected = [
            "0 ms",
            "350 ms",
            "999 ms",
            "1,0 s",
            "4,2 s",
            "9,9 s",
            "10 s",
            "41 s",
            "59 s",
            "1 min 00 s",
            "6 min 12 s",
            "59 min 59 s",
            "1 h 05 min",
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn sizes_read_as_people_say_them() {
        let said =
            [0, 999, 1000, 1_250_000, 999_949_999, 999_950_000, 2_000_000_000_000_000].map(|size| bytes(size, '.'));
        assert_eq!(said, ["0 B", "999 B", "1.0 kB", "1.3 MB", "1.0 GB", "1.0 GB", "2000.0 TB"]);
    }

    #[test]
    fn long_texts_and_long_tables_end() {
        let mut page = Page::default();
        page.item(&"ä".repeat(10_000));
        page.table(&vec![vec!["x\ny".to_owned()]; 1000]);
        let text = page.text();
        assert_eq!(text.lines().count(), 1 + ROWS_MAX + 1);
        assert_eq!(text.lines().next().unwrap().chars().count(), 2 + TEXT_CHARS_MAX + 1);
        assert!(text.ends_with("  x y\n  … +800\n"));
    }
}
