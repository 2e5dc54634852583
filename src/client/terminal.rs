//! A person at a terminal: lines out, one-letter answers in.
//!
//! The library never prints: the caller gives the writer, and the lines that are typed, if
//! somebody is there to type. A countdown is drawn over itself on a terminal; elsewhere only
//! whole warnings and reminders are written.

use std::future::pending;
use std::io::BufRead;
use std::io::Read;
use std::io::Write;

use chrono::DateTime;
use chrono::Local;
use chrono::Utc;
use tokio::sync::mpsc;

use crate::client::ui::Input;
use crate::client::ui::Scene;
use crate::client::ui::Ui;
use crate::domain::plain::one_line;
use crate::domain::session::Answer;
use crate::domain::span::Span;

/// The longest line that is read, in bytes.
const LINE_BYTES_MAX: u64 = 1024;
/// How many typed lines wait.
const LINES_MAX: usize = 16;
/// Rings once.
const BELL: char = '\u{7}';

/// A person at a terminal.
#[derive(Debug)]
pub struct Terminal<W> {
    out: W,
    lines: Option<mpsc::Receiver<String>>,
    live: bool,
    drawn: bool,
}

impl<W: Write + Send> Terminal<W> {
    /// Writes to `out`; takes answers from `lines`; `live` when `out` is a terminal that can be drawn over.
    pub fn new(out: W, lines: Option<mpsc::Receiver<String>>, live: bool) -> Self {
        Self { out, lines, live, drawn: false }
    }

    fn say(&mut self, text: &str) {
        let clear = if std::mem::take(&mut self.drawn) { "\r\u{1b}[K" } else { "" };
        // A terminal that has gone away must not take the program with it.
        let _ = writeln!(self.out, "{clear}{text}").and_then(|()| self.out.flush());
    }

    fn draw(&mut self, text: &str) {
        if self.live {
            self.drawn = true;
            let _ = write!(self.out, "\r\u{1b}[K{text}").and_then(|()| self.out.flush());
        }
    }

    fn choices(&self) -> &'static str {
        if self.lines.is_some() {
            "\n  o = OK, close it now   n = not now   r = close it now, start it again afterwards"
        } else {
            ""
        }
    }
}

/// Lines typed at `reader`, read by a thread of their own: reading a terminal cannot be interrupted. The thread
/// ends with the reader, or with the process.
pub fn typed(reader: impl BufRead + Send + 'static) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut reader = reader;
        let mut line = String::new();
        while let Ok(1..) = reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line) {
            if send.blocking_send(std::mem::take(&mut line)).is_err() {
                break;
            }
        }
    });
    lines
}

impl<W: Write + Send> Ui for Terminal<W> {
    fn show(&mut self, scene: &Scene) {
        let text = match scene {
            Scene::Countdown { left } => return self.draw(&format!("closes in {}", short(*left))),
            Scene::Started => return,
            Scene::Warned { notice, left } | Scene::Reminded { notice, left } => {
                let back = notice.back_at.map(|at| format!(" It is expected back at {}.", clock(at)));
                format!(
                    "{BELL}{}: {}\n  The program closes in {}, at {}.{} Please save your work.{}",
                    one_line(&notice.title),
                    one_line(&notice.reason),
                    short(*left),
                    clock(notice.ends_at),
                    back.unwrap_or_default(),
                    self.choices()
                )
            }
            Scene::Refused { text, until } => {
                let until = until.map(|at| format!(" Please try again after {}.", clock(at)));
                format!("{}{}", one_line(text), until.unwrap_or_default())
            }
            Scene::Unguarded => "The update service cannot be reached; the program was started without it.".to_owned(),
            Scene::Answered(Answer::Ok) => "Thank you; the program is being closed.".to_owned(),
            Scene::Answered(Answer::NotNow) => "The warning is put aside; the time stays.".to_owned(),
            Scene::Answered(Answer::RestartAfterwards) => {
                "Thank you; the program is being closed and started again afterwards.".to_owned()
            }
            Scene::Message(text) => format!("{BELL}{}", one_line(text)),
            Scene::Withdrawn => "The update will not happen now; please go on.".to_owned(),
            Scene::Ending { force_after: Span::ZERO } => format!("{BELL}The program is closed now."),
            Scene::Ending { force_after } => {
                format!("{BELL}The program is being closed; it has {} to save.", short(*force_after))
            }
            Scene::Waiting { restart: true } => {
                "The program is closed; it starts again by itself afterwards.".to_owned()
            }
            Scene::Waiting { restart: false } => {
                "The program is closed; you will be told when it can be started again.".to_owned()
            }
            Scene::Restarted { version, text } => {
                let version = version.as_ref().map(|version| format!(" (version {version})"));
                format!("{}{} The program starts again.", one_line(text), version.unwrap_or_default())
            }
            Scene::Ready { version, text, can_start, .. } => {
                let version = version.as_ref().map(|version| format!(" (version {version})"));
                let start = if *can_start { "\n  s = start the program" } else { "" };
                format!("{BELL}{}{}{start}", one_line(text), version.unwrap_or_default())
            }
            Scene::LinkLost => "The update service does not answer; the program goes on.".to_owned(),
            Scene::LinkBack => "The update service answers again.".to_owned(),
        };
        self.say(&text);
    }

    async fn input(&mut self) -> Input {
        loop {
            let Some(lines) = &mut self.lines else { return pending().await };
            match lines.recv().await.as_deref().map(str::trim) {
                Some("o" | "O") => return Input::Answer(Answer::Ok),
                Some("n" | "N") => return Input::Answer(Answer::NotNow),
                Some("r" | "R") => return Input::Answer(Answer::RestartAfterwards),
                Some("s" | "S") => return Input::Start,
                Some(_) => {}
                None => self.lines = None,
            }
        }
    }
}

/// Whole seconds.
fn short(span: Span) -> Span {
    Span::secs(span.duration().as_secs_f64().round() as u64)
}

/// The time of day here.
fn clock(at: DateTime<Utc>) -> impl std::fmt::Display {
    at.with_timezone(&Local).format("%H:%M")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::session::Notice;

    fn notice() -> Notice {
        Notice {
            title: "Order\u{1b}[2J desk".into(),
            reason: "version 2 is installed tonight.".into(),
            ends_at: DateTime::UNIX_EPOCH,
            back_at: None,
        }
    }

    #[tokio::test]
    async fn letters_are_answers_and_an_end_of_input_is_silence() {
        let lines = typed(std::io::Cursor::new("what?\n r\nn\no\ns\n"));
        let mut terminal = Terminal::new(Vec::new(), Some(lines), false);
        for expected in [
            Input::Answer(Answer::RestartAfterwards),
            Input::Answer(Answer::NotNow),
            Input::Answer(Answer::Ok),
            Input::Start,
        ] {
            assert_eq!(terminal.input().await, expected);
        }
        assert!(futures_util::FutureExt::now_or_never(terminal.input()).is_none());
    }

    #[test]
    fn text_from_elsewhere_does_not_steer_the_terminal() {
        let mut terminal = Terminal::new(Vec::new(), None, false);
        terminal.show(&Scene::Warned { notice: notice(), left: Span::mins(5) });
        terminal.show(&Scene::Countdown { left: Span::mins(4) });
        let text = String::from_utf8(terminal.out).unwrap();
        assert!(text.contains("Order [2J desk: version 2 is installed tonight."), "{text}");
        assert!(text.contains("closes in 5m"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains("4m"), "{text}");
        assert!(!text.contains("o = OK"), "nobody can answer: {text}");
    }

    #[test]
    fn every_scene_reads_well() {
        let (_keep, lines) = mpsc::channel(1);
        let mut terminal = Terminal::new(Vec::new(), Some(lines), true);
        let at = DateTime::UNIX_EPOCH;
        let notice = Notice { title: "Order desk".into(), back_at: Some(at), ..notice() };
        let version: Option<crate::domain::release::Version> = Some("2.1".parse().unwrap());
        let text = "Version 2.1 is installed.".to_owned();
        for scene in [
            Scene::Started,
            Scene::Refused { text: "Order desk is being updated.".into(), until: Some(at) },
            Scene::Unguarded,
            Scene::Warned { notice: notice.clone(), left: Span::mins(5) },
            Scene::Countdown { left: Span::secs(299) },
            Scene::Countdown { left: Span::secs(298) },
            Scene::Reminded { notice, left: Span::secs(30) },
            Scene::Answered(Answer::Ok),
            Scene::Answered(Answer::NotNow),
            Scene::Answered(Answer::RestartAfterwards),
            Scene::Message("Coffee is ready.".into()),
            Scene::Withdrawn,
            Scene::Ending { force_after: Span::secs(30) },
            Scene::Ending { force_after: Span::ZERO },
            Scene::Waiting { restart: true },
            Scene::Waiting { restart: false },
            Scene::Restarted { version: version.clone(), text: text.clone() },
            Scene::Ready { success: true, version, text, can_start: true },
            Scene::LinkLost,
            Scene::LinkBack,
        ] {
            terminal.show(&scene);
        }
        let shown = String::from_utf8(terminal.out).unwrap();
        let shown = shown.replace(BELL, "(bell) ").replace("\r\u{1b}[K", "(redraw) ");
        let here = clock(at).to_string();
        insta::assert_snapshot!(shown.replace(&here, "HH:MM"));
    }
}
