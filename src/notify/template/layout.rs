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

/// A page that gets longer ends: a mail is for reading.
const PAGE_BYTES_MAX: usize = 100_000;

/// A page that is being written.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    /// "… and 12 more", in the language of the page.
    left_out: fn(usize) -> String,
}

impl Page {
    /// An empty page, and how it says that more is left out.
    pub(super) const fn new(left_out: fn(usize) -> String) -> Self {
        Self { text: String::new(), left_out }
    }

    /// A paragraph, broken where it gets too long.
    pub(super) fn line(&mut self, text: &str) {
        let mut width = 0;
        for word in bounded(text).split(' ') {
            let chars = word.chars().count();
            if width > 0 && width + 1 + chars > WIDTH {
                self.text.push('\n');
                width = 0;
            } else if width > 0 {
                self.text.push(' ');
                width += 1;
            }
            self.text += word;
            width += chars;
        }
        self.text.push('\n');
    }

    /// An empty line.
    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// The title of a section.
    pub(super) fn heading(&mut self, text: &str) {
        self.gap();
        self.text += text;
        self.text.push('\n');
    }

    /// One indented line. It is not broken: it may be a command or a path to copy.
    pub(super) fn item(&mut self, text: &str) {
        self.text += &format!("  {}\n", bounded(text));
    }

    /// Each of `all`, at most `max`; of the others, how many there are.
    pub(super) fn list<T>(&mut self, all: &[T], max: usize, mut shown: impl FnMut(&mut Self, &T)) {
        all.iter().take(max).for_each(|one| shown(self, one));
        self.leave_out(all.len().saturating_sub(max));
    }

    fn leave_out(&mut self, more: usize) {
        if more > 0 {
            self.item(&(self.left_out)(more));
        }
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
            self.text += &format!("  {}\n", line.trim_end());
        }
        self.leave_out(rows.len().saturating_sub(ROWS_MAX));
    }

    /// What mail programs recognise as a signature.
    pub(super) fn signature(&mut self, text: &str) {
        self.text += &format!("\n-- \n{}\n", bounded(text));
    }

    /// The whole page; where it is too long, as many whole lines as there is room for.
    pub(super) fn text(mut self) -> String {
        if self.text.len() > PAGE_BYTES_MAX {
            let end = self.text.floor_char_boundary(PAGE_BYTES_MAX);
            let end = self.text[..end].rfind('\n').map_or(0, |line| line + 1);
            let lines = self.text[end..].lines().count();
            self.text.truncate(end);
            self.leave_out(lines);
        }
        self.text
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
        let mut page = Page::new(|more| format!("… +{more}"));
        page.item(&"ä".repeat(10_000));
        page.table(&vec![vec!["x\ny".to_owned()]; 1000]);
        let text = page.text();
        assert_eq!(text.lines().count(), 1 + ROWS_MAX + 1);
        assert_eq!(text.lines().next().unwrap().chars().count(), 2 + TEXT_CHARS_MAX + 1);
        assert!(text.ends_with("  x y\n  … +800\n"));

        let mut page = Page::new(|more| format!("… +{more}"));
        page.list(&(0..30).collect::<Vec<_>>(), 2, |page, number| page.item(&number.to_string()));
        assert_eq!(page.text(), "  0\n  1\n  … +28\n");
        let mut page = Page::new(|more| format!("… +{more}"));
        (0..1000).for_each(|_| page.item(&"ä".repeat(400)));
        let text = page.text();
        assert!(text.len() < PAGE_BYTES_MAX + 100 && text.lines().count() == 125, "{}", text.lines().count());
        assert!(text.ends_with("ä\n  … +876\n"));
    }
}
