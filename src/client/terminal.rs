//! A person at a terminal: words out, keys or words in.
//!
//! The library never prints: the caller gives the writer, and what is typed, if somebody is there to type. Where the
//! program has a terminal of its own ([`Terminal::shared`]), what is ours stands in a frame between what is the
//! program's; while the program draws or takes keys one by one, a bell and the title say it at once, and the frame
//! follows when the screen is free. A countdown is drawn over itself where it spoils nothing; elsewhere only whole
//! warnings and reminders are written.
//!
//! A key is an answer where nothing was typed for the program so far. A person who works with the program by keys may
//! be in the middle of a word when the warning comes: there, [`LEAD`] has to come before an answer.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::io::BufRead;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use chrono::DateTime;
use chrono::Local;
use chrono::Utc;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::client::keys::Heard;
use crate::client::keys::Keys;
use crate::client::screen::Screen;
use crate::client::screen::typed_keys;
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
/// How many frames wait until the screen is free.
const FRAMES_MAX: usize = 8;
/// Rings once.
const BELL: char = '\u{7}';
/// The key that comes before an answer while the other keys are the program's: Ctrl-].
const LEAD: u8 = 0x1d;
/// The key that ends the client while no program runs: Ctrl-C.
const INTERRUPT: u8 = 0x03;
const ANSWERS: &str =
    "o = OK, close it now   n = not now, go on until then   r = restart: close it now, start it again afterwards";
const START: &str = "s = start the program";

/// What a key would answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    Warning,
    Start,
}

/// A person at a terminal.
#[derive(Debug)]
pub struct Terminal<W> {
    out: W,
    typed: Option<mpsc::Receiver<Vec<u8>>>,
    live: bool,
    drawn: bool,
    /// Who speaks, in frames.
    sender: String,
    screen: Option<Screen>,
    /// Whether a program was started and has ended since.
    alone: bool,
    answers: bool,
    asked: Asked,
    /// When the program is closed.
    ends_at: Option<DateTime<Utc>>,
    /// Whether something was typed for the program.
    worked: bool,
    /// Whether the next key is an answer.
    led: bool,
    keys: Keys,
    heard: VecDeque<Input>,
    /// What the person was not shown yet.
    frames: VecDeque<String>,
    titled: bool,
}

impl<W: Write + Send> Terminal<W> {
    /// Writes to `out`; takes answers from `lines`; `live` when `out` is a terminal that can be drawn over.
    pub fn new(out: W, lines: Option<mpsc::Receiver<Vec<u8>>>, live: bool) -> Self {
        Self {
            out,
            answers: lines.is_some(),
            typed: lines,
            live,
            drawn: false,
            sender: String::new(),
            screen: None,
            alone: false,
            asked: Asked::Nothing,
            ends_at: None,
            worked: false,
            led: false,
            keys: Keys::default(),
            heard: VecDeque::new(),
            frames: VecDeque::new(),
            titled: false,
        }
    }

    /// Shares `terminal`, which `out` writes to, with the program. What is ours is said by `sender`; a person answers if
    /// `answers`.
    ///
    /// # Errors
    /// The terminal cannot be read key by key.
    pub fn shared(out: W, terminal: impl AsFd, sender: &str, answers: bool) -> io::Result<Self> {
        let keys = typed_keys(terminal.as_fd().try_clone_to_owned()?);
        let screen = Screen::take(terminal)?;
        let new = Self::new(out, Some(keys), true);
        Ok(Self { screen: Some(screen), sender: one_line(sender), answers, ..new })
    }

    fn write(&mut self, text: &[u8]) {
        // A terminal that has gone away must not take the program with it.
        let _ = self.out.write_all(text).and_then(|()| self.out.flush());
    }

    /// A terminal that is read key by key does not move to the first column by itself.
    fn line_end(&self) -> &'static str {
        if self.screen.is_some() { "\r\n" } else { "\n" }
    }

    fn say(&mut self, text: &str) {
        let Some(screen) = self.screen.as_ref().filter(|screen| screen.is_used()) else {
            let clear = if std::mem::take(&mut self.drawn) { "\r\u{1b}[K" } else { "" };
            let text = text.replace('\n', self.line_end());
            self.write(format!("{clear}{text}{}", self.line_end()).as_bytes());
            return;
        };
        let busy = screen.is_the_programs() || !screen.is_between();
        if self.frames.len() == FRAMES_MAX {
            self.frames.pop_front();
        }
        self.frames.push_back(text.to_owned());
        if busy {
            let first = text.trim_start_matches(BELL).lines().next().unwrap_or_default().to_owned();
            self.title(&first);
        } else {
            self.show_frames();
        }
    }

    /// Shows what could not be shown, if it can be now.
    fn show_frames(&mut self) {
        let Some(screen) = &self.screen else { return };
        if self.frames.is_empty() || screen.is_the_programs() || !screen.is_between() {
            return;
        }
        let from = if std::mem::take(&mut self.drawn) { "\r\u{1b}[K" } else { "" };
        let fresh = if screen.is_at_line_start() { "" } else { "\r\n" };
        let mut shown = format!("{from}{fresh}");
        for frame in std::mem::take(&mut self.frames) {
            let (bell, text) = frame.strip_prefix(BELL).map_or(("", frame.as_str()), |text| ("\u{7}", text));
            shown.push_str(&format!("{bell}---- Afterhours, for {} ----\r\n", self.sender));
            for line in text.lines() {
                shown.push_str(&format!("| {}\r\n", line.trim_start()));
            }
            shown.push_str("----\r\n");
        }
        self.write(shown.as_bytes());
    }

    /// Says something in the title, where the screen is the program's.
    fn title(&mut self, text: &str) {
        let Some(screen) = self.screen.as_ref().filter(|screen| screen.is_between()) else { return };
        let lead = if self.asked == Asked::Warning && screen.is_used() { " (Ctrl-] to answer)" } else { "" };
        let save = if std::mem::replace(&mut self.titled, true) { "" } else { "\u{1b}[22;2t" };
        let text = format!("{BELL}{save}\u{1b}]2;{}{lead}\u{7}", one_line(text));
        self.write(text.as_bytes());
    }

    fn untitle(&mut self) {
        if std::mem::take(&mut self.titled) {
            self.write(b"\x1b[23;2t");
        }
    }

    fn draw(&mut self, left: Span) {
        let text = format!("closes in {}", short(left));
        match &self.screen {
            Some(screen) if screen.is_used() => {
                if screen.is_the_programs() {
                    if self.titled && is_round(left) {
                        self.title(&text);
                    }
                    return;
                }
                self.show_frames();
                if self.worked || !self.screen.as_ref().is_some_and(Screen::is_at_line_start) {
                    return;
                }
            }
            _ if !self.live => return,
            _ => {}
        }
        self.drawn = true;
        self.write(format!("\r\u{1b}[K{text}").as_bytes());
    }

    /// What the person can press, and how.
    fn choices(&self, choices: &str) -> String {
        match &self.screen {
            _ if !self.answers => String::new(),
            None => format!("\n  {choices}   and Enter"),
            Some(_) if self.is_the_programs() => format!("\n  Press Ctrl-] first, and then: {choices}"),
            Some(_) => format!("\n  Press: {choices}"),
        }
    }

    /// Whether keys go to the program.
    fn is_the_programs(&self) -> bool {
        let Some(screen) = &self.screen else { return false };
        !self.alone && (!self.answers || self.asked == Asked::Nothing || self.worked || screen.is_the_programs())
    }

    /// What was typed: whole lines, or keys as they come.
    fn typed(&mut self, bytes: &[u8]) {
        if self.screen.is_none() {
            let heard = Keys::line(&String::from_utf8_lossy(bytes));
            return self.hear(heard);
        }
        if self.led {
            return self.answered_after_lead(bytes);
        }
        if bytes.contains(&INTERRUPT) && !self.screen.as_ref().is_some_and(Screen::is_used) {
            return self.heard.push_back(Input::Stop);
        }
        // The rest of a word that has answered is no program's.
        if self.is_the_programs() && !self.keys.is_in_word(Instant::now()) {
            let lead =
                bytes.iter().position(|byte| *byte == LEAD).filter(|_| self.answers && self.asked == Asked::Warning);
            let keys = &bytes[..lead.unwrap_or(bytes.len())];
            self.worked |= !keys.is_empty();
            if let Some(screen) = &mut self.screen {
                screen.type_in(keys);
            }
            if let Some(lead) = lead {
                self.lead();
                if lead + 1 < bytes.len() {
                    self.answered_after_lead(&bytes[lead + 1..]);
                }
            }
            return;
        }
        if bytes.contains(&INTERRUPT) {
            if let Some(screen) = &mut self.screen {
                screen.type_in(&[INTERRUPT]);
            }
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        if text.trim().chars().count() > 1 {
            self.keys.clear();
            return text.split(['\r', '\n']).map(Keys::line).for_each(|heard| self.hear(heard));
        }
        for key in text.chars().filter(|key| *key != char::from(LEAD)) {
            let heard = self.keys.press(key, Instant::now());
            self.hear(heard);
        }
    }

    /// Asks on the last line of a screen that is the program's.
    fn lead(&mut self) {
        self.led = true;
        let text = format!("\u{1b}7\u{1b}[999;1H\u{1b}[7m{}\u{1b}[m\u{1b}[K\u{1b}8", ANSWERS);
        if self.screen.as_ref().is_some_and(Screen::is_the_programs) {
            self.write(text.as_bytes());
        } else {
            self.say(&format!("Press: {ANSWERS}"));
        }
    }

    fn answered_after_lead(&mut self, bytes: &[u8]) {
        self.led = false;
        if let Some(screen) = &mut self.screen
            && bytes.first() == Some(&LEAD)
        {
            screen.type_in(bytes);
        }
        let text = String::from_utf8_lossy(bytes);
        let heard = match Keys::line(&text) {
            _ if bytes.first() == Some(&LEAD) => Heard::Nothing,
            // What follows the key is the program's again.
            Heard::Odd(_) if text.trim().len() > 1 => {
                let first = Keys::line(&text.chars().take(1).collect::<String>());
                if let (Heard::Input(_), Some(screen)) = (&first, &mut self.screen) {
                    screen.type_in(&bytes[1..]);
                }
                first
            }
            heard => heard,
        };
        let closes = matches!(heard, Heard::Input(Input::Answer(Answer::Ok | Answer::RestartAfterwards)));
        // A program that is about to end need not draw; `less` even misses its end over it.
        if let Some(screen) = self.screen.as_ref().filter(|screen| screen.is_the_programs() && !closes) {
            screen.redraw();
        }
        self.hear(heard);
    }

    fn hear(&mut self, heard: Heard) {
        match (heard, self.asked) {
            (Heard::Nothing, _) => {}
            (Heard::Input(input @ Input::Answer(_)), Asked::Warning)
            | (Heard::Input(input @ Input::Start), Asked::Start) => {
                self.heard.push_back(input);
            }
            // Without a terminal the question may have crossed the answer; the rest of the client knows what is asked.
            (Heard::Input(input), _) if self.screen.is_none() => self.heard.push_back(input),
            (_, Asked::Nothing) => {}
            (Heard::Input(_), asked) => self.not_understood("that", asked),
            (Heard::Odd(text), asked) => {
                let text = format!("\"{}\"", one_line(&text));
                self.not_understood(&text, asked);
            }
        }
    }

    fn not_understood(&mut self, what: &str, asked: Asked) {
        let choices = self.choices(if asked == Asked::Start { START } else { ANSWERS });
        self.say(&format!("{what} is not understood.{choices}"));
    }

    /// What `scene` changes for what is asked.
    fn turn(&mut self, scene: &Scene) {
        match scene {
            Scene::Warned { notice, .. } | Scene::Reminded { notice, .. } => {
                self.asked = Asked::Warning;
                self.ends_at = Some(notice.ends_at);
            }
            Scene::Answered(Answer::NotNow) | Scene::Started | Scene::Restarted { .. } | Scene::Withdrawn => {}
            Scene::Ready { can_start: true, .. } => self.asked = Asked::Start,
            Scene::Ready { .. } | Scene::Ending { .. } | Scene::Refused { .. } => self.asked = Asked::Nothing,
            _ => return,
        }
        if matches!(scene, Scene::Started | Scene::Restarted { .. } | Scene::Withdrawn) {
            self.asked = Asked::Nothing;
        }
        if !matches!(scene, Scene::Ending { .. }) {
            self.frames.clear();
        }
        if self.asked != Asked::Warning {
            self.untitle();
            self.keys.clear();
        }
    }
}

/// Lines typed at `reader`, read by a thread of their own: reading a terminal cannot be interrupted. The thread
/// ends with the reader, or with the process.
pub fn typed(reader: impl BufRead + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, lines) = mpsc::channel(LINES_MAX);
    std::thread::spawn(move || {
        let mut reader = reader;
        let mut line = Vec::new();
        while let Ok(1..) = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            if send.blocking_send(std::mem::take(&mut line)).is_err() {
                break;
            }
        }
    });
    lines
}

impl<W: Write + Send> Ui for Terminal<W> {
    fn open_screen(&mut self) -> io::Result<Option<OwnedFd>> {
        self.alone = false;
        self.worked = false;
        self.screen.as_mut().map(Screen::open).transpose()
    }

    fn close_screen(&mut self) {
        if let Some(last) = self.screen.as_mut().map(Screen::close) {
            let clear: &[u8] = if std::mem::take(&mut self.drawn) { b"\r\x1b[K" } else { b"" };
            self.write(&[clear, &last].concat());
            self.alone = true;
            self.led = false;
            self.untitle();
            self.frames.clear();
        }
    }

    fn show(&mut self, scene: &Scene) {
        self.turn(scene);
        let text = match scene {
            Scene::Countdown { left } => return self.draw(*left),
            Scene::Started => return,
            Scene::Warned { notice, left } | Scene::Reminded { notice, left } => {
                let back = notice.back_at.map(|at| format!(" It is expected back at {}.", clock(at)));
                format!(
                    "{BELL}{}: {}\n  The program closes in {}, at {}.{} Please save your work.{}",
                    one_line(&notice.title),
                    sentence(&notice.reason),
                    short(*left),
                    clock(notice.ends_at),
                    back.unwrap_or_default(),
                    self.choices(ANSWERS)
                )
            }
            Scene::Refused { text, until } => {
                let until = until.map(|at| format!(" Please try again after {}.", clock(at)));
                format!("{}{}", sentence(text), until.unwrap_or_default())
            }
            Scene::Unguarded => "The update service cannot be reached; the program was started without it.".to_owned(),
            Scene::Answered(Answer::Ok) => "Thank you; the program is being closed.".to_owned(),
            Scene::Answered(Answer::NotNow) => {
                let at = self.ends_at.map(|at| format!(" at {}", clock(at))).unwrap_or_default();
                let again = if self.screen.is_some() && self.answers { " Ctrl-] lets you answer again." } else { "" };
                self.worked = true;
                format!("You can go on for now; the program is closed{at} all the same.{again}")
            }
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
            Scene::Restarted { text } => format!("{} The program starts again.", sentence(text)),
            Scene::Ready { text, can_start, .. } => {
                let start = if *can_start { self.choices(START) } else { String::new() };
                format!("{BELL}{}{start}", sentence(text))
            }
            Scene::LinkLost => "The update service does not answer; the program goes on.".to_owned(),
            Scene::LinkBack => "The update service answers again.".to_owned(),
        };
        self.say(&text);
    }

    async fn input(&mut self) -> Input {
        loop {
            if let Some(input) = self.heard.pop_front() {
                return input;
            }
            let due = self.keys.due();
            let has_room = self.screen.as_ref().is_none_or(Screen::has_room);
            tokio::select! {
                typed = next(&mut self.typed), if has_room => match typed {
                    Some(bytes) => self.typed(&bytes),
                    None => self.typed = None,
                },
                shown = shown(&mut self.screen) => {
                    let clear: &[u8] = if std::mem::take(&mut self.drawn) { b"\r\x1b[K" } else { b"" };
                    self.write(&[clear, &shown].concat());
                    self.show_frames();
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let second = self.keys.second_thought().map_or(Heard::Nothing, Heard::Input);
                    self.hear(second);
                }
            }
        }
    }
}

async fn next(typed: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match typed {
        Some(typed) => typed.recv().await,
        None => pending().await,
    }
}

async fn shown(screen: &mut Option<Screen>) -> Vec<u8> {
    match screen {
        Some(screen) => screen.shown().await,
        None => pending().await,
    }
}

/// One line that ends as a sentence does.
fn sentence(text: &str) -> String {
    let mut text = one_line(text).trim_end().to_owned();
    if !text.ends_with(['.', '!', '?']) {
        text.push('.');
    }
    text
}

/// Whether a countdown in the title is worth saying: a bell rings with it.
fn is_round(left: Span) -> bool {
    matches!(short(left).duration().as_secs(), 10 | 30 | 60 | 300)
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
            Scene::Restarted { text: text.clone() },
            Scene::Ready { success: true, text, can_start: true },
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
