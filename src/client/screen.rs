//! The terminal of a person, shared by the client and a program that thinks it has it alone.
//!
//! ```text
//!   keys ──▶ the person's terminal, raw ──▶ client ──▶ a terminal of the program's own ──▶ program
//!                                             ▲                                              │
//!   screen ◀──────────────────────────────────┴──────────────────────────────────────────────┘
//! ```
//!
//! The program leads a session with a terminal of its own (a pty): it has a foreground, a size, and Ctrl-C, as anywhere.
//! The client passes on what is typed and shown, so it knows whether the screen is the program's, and can write between.
//!
//! Invariant: whichever way this ends, but for `kill -9` of the client, the terminal gets its settings back, and leaves
//! the modes that the program had set.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::LocalModes;
use rustix::termios::OptionalActions;
use rustix::termios::Termios;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::exec::system::watched;

/// How much is passed on at once, in bytes.
const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// How much is read of what is typed, in bytes, and how often that waits to be looked at.
const KEYS_BYTES_MAX: usize = 1024;
const KEYS_MAX: usize = 16;
/// How much that is typed waits for the program, in bytes.
const TYPED_BYTES_MAX: usize = 64 * 1024;
/// How much is still shown of a program that has ended, in bytes, and how long it is waited for.
const LAST_BYTES_MAX: usize = 4 * 1024 * 1024;
const LAST_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How long is waited where nobody has the program's terminal open at the moment.
const NOBODY_WAIT: Duration = Duration::from_millis(200);
/// The signal that says: you go on after a stop.
const CONTINUED: i32 = 18;

/// The person's terminal.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: OwnedFd,
    before: Termios,
    /// The near side of the program's terminal, while there is a program.
    near: Option<AsyncFd<OwnedFd>>,
    quiet_until: Option<Instant>,
    typed: Vec<u8>,
    resized: Signal,
    continued: Signal,
    watch: Watch,
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn take(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = rustix::io::fcntl_dupfd_cloexec(terminal, 0)?;
        let before = rustix::termios::tcgetattr(&terminal)?;
        let (resized, continued) = (signal(SignalKind::window_change())?, signal(SignalKind::from_raw(CONTINUED))?);
        let screen = Self {
            terminal,
            before,
            near: None,
            quiet_until: None,
            typed: Vec::new(),
            resized,
            continued,
            watch: Watch::default(),
        };
        screen.make_raw()?;
        Ok(screen)
    }

    fn make_raw(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        Ok(rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &raw)?)
    }

    /// Makes a terminal for a program; its far side, which is the program's.
    pub(super) fn open(&mut self) -> io::Result<OwnedFd> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let near = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&near)?;
        rustix::pty::unlockpt(&near)?;
        let far = rustix::pty::ioctl_tiocgptpeer(&near, flags)?;
        rustix::termios::tcsetattr(&far, OptionalActions::Now, &self.before)?;
        rustix::termios::tcsetwinsize(&far, rustix::termios::tcgetwinsize(&self.terminal)?)?;
        let nonblocking = rustix::fs::fcntl_getfl(&near)? | rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&near, nonblocking)?;
        self.near = Some(watched(near)?);
        self.watch = Watch::default();
        Ok(far)
    }

    /// Whether a program has the screen.
    pub(super) fn is_used(&self) -> bool {
        self.near.is_some()
    }

    /// Whether what we write would spoil what the program shows: it draws, or takes keys one by one.
    pub(super) fn is_the_programs(&self) -> bool {
        let cooked = |near: &AsyncFd<OwnedFd>| {
            rustix::termios::tcgetattr(near).is_ok_and(|modes| modes.local_modes.contains(LocalModes::ICANON))
        };
        self.watch.is_alternate() || self.near.as_ref().is_some_and(|near| !cooked(near))
    }

    /// Whether the program has shown whole characters and commands so far.
    pub(super) fn is_between(&self) -> bool {
        self.watch.is_between()
    }

    /// Whether what is shown next begins a line.
    pub(super) fn is_at_line_start(&self) -> bool {
        self.watch.line_start
    }

    /// Passes on what was typed, as soon as the program takes it.
    pub(super) fn type_in(&mut self, keys: &[u8]) {
        let room = TYPED_BYTES_MAX.saturating_sub(self.typed.len());
        self.typed.extend(&keys[..keys.len().min(room)]);
    }

    /// Whether more can be typed.
    pub(super) fn has_room(&self) -> bool {
        self.typed.len() + CHUNK_BYTES_MAX <= TYPED_BYTES_MAX
    }

    /// What the program shows next. Cancel-safe.
    pub(super) async fn shown(&mut self) -> Vec<u8> {
        loop {
            let Self { near, typed, quiet_until, resized, continued, .. } = &mut *self;
            let quiet = *quiet_until;
            tokio::select! {
                bytes = read(near.as_ref()), if quiet.is_none() => match bytes {
                    Ok(bytes) => {
                        self.watch.feed(&bytes);
                        return bytes;
                    }
                    Err(_) => self.quiet_until = Some(Instant::now() + NOBODY_WAIT),
                },
                () = sleep_until(quiet.unwrap_or_else(Instant::now)), if quiet.is_some() => self.quiet_until = None,
                written = write(near.as_ref(), typed), if !typed.is_empty() => {
                    // What the program's terminal does not take is lost, as at any terminal.
                    let len = written.unwrap_or(typed.len());
                    typed.drain(..len);
                }
                Some(()) = resized.recv() => self.resize(),
                Some(()) = continued.recv() => {
                    // Whoever had stopped us has used the terminal meanwhile.
                    let _ = self.make_raw();
                    self.resize();
                }
            }
        }
    }

    fn resize(&self) {
        if let (Some(near), Ok(size)) = (&self.near, rustix::termios::tcgetwinsize(&self.terminal)) {
            // A size that cannot be passed on is no reason to end anything.
            let _ = rustix::termios::tcsetwinsize(near, size);
        }
    }

    /// Has the program draw its screen anew.
    pub(super) fn redraw(&self) {
        if let Some(near) = &self.near
            && let Ok(group) = rustix::termios::tcgetpgrp(near)
        {
            // A program that does not draw anew has a line of ours on its screen until it does.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::WINCH);
        }
    }

    /// The program has ended: what it showed last, and what brings the terminal out of its modes.
    pub(super) fn close(&mut self) -> Vec<u8> {
        let Some(near) = self.near.take().map(AsyncFd::into_inner) else { return Vec::new() };
        let mut last = Vec::new();
        let mut buffer = [0; CHUNK_BYTES_MAX];
        while last.len() < LAST_BYTES_MAX {
            match rustix::io::read(&near, &mut buffer) {
                Ok(0) => break,
                Ok(len) => last.extend(&buffer[..len]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let mut ready = [PollFd::new(&near, PollFlags::IN)];
                    if !matches!(rustix::event::poll(&mut ready, Some(&LAST_WAIT)), Ok(1..)) {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        self.typed.clear();
        self.quiet_until = None;
        self.watch.feed(&last);
        last.extend(std::mem::take(&mut self.watch).back_to_plain());
        last
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs no settings.
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Keys as they are pressed, read by a thread of its own: reading a terminal cannot be interrupted. The thread ends with
/// the terminal, or with the process.
pub(super) fn typed_keys(terminal: OwnedFd) -> mpsc::Receiver<Vec<u8>> {
    let (send, keys) = mpsc::channel(KEYS_MAX);
    std::thread::spawn(move || {
        let mut buffer = [0; KEYS_BYTES_MAX];
        loop {
            let keys = match rustix::io::read(&terminal, &mut buffer) {
                Ok(0) => break,
                Ok(len) => buffer[..len].to_vec(),
                Err(Errno::INTR) => continue,
                Err(_) => break,
            };
            if send.blocking_send(keys).is_err() {
                break;
            }
        }
    });
    keys
}

async fn read(near: Option<&AsyncFd<OwnedFd>>) -> io::Result<Vec<u8>> {
    let Some(near) = near else { return pending().await };
    let mut bytes = vec![0; CHUNK_BYTES_MAX];
    loop {
        let mut ready = near.readable().await?;
        if let Ok(len) = ready.try_io(|near| Ok(rustix::io::read(near, &mut bytes[..])?)) {
            bytes.truncate(len?);
            return Ok(bytes);
        }
    }
}

async fn write(near: Option<&AsyncFd<OwnedFd>>, bytes: &[u8]) -> io::Result<usize> {
    let Some(near) = near else { return pending().await };
    loop {
        let mut ready = near.writable().await?;
        if let Ok(len) = ready.try_io(|near| Ok(rustix::io::write(near, bytes)?)) {
            return len;
        }
    }
}

/// The longest list of modes in one command that is looked at, and the most modes that are remembered.
const MODE_CHARS_MAX: usize = 64;
const MODES_MAX: usize = 64;
/// The modes in which a program has another screen, and what leaves them.
const ALTERNATE: [u16; 3] = [47, 1047, 1049];
/// The modes that a terminal is in from the beginning: lines wrap, the cursor is seen.
const USUAL: [u16; 2] = [7, 25];

/// Where in a terminal's language the program is.
#[derive(Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Text,
    Escape,
    /// In a command, and what stands in it.
    Command(String),
    /// In a title or the like; whether it may end with the next character.
    Words {
        ending: bool,
    },
}

/// What the program has done to the terminal.
#[derive(Debug)]
struct Watch {
    place: Place,
    /// How many bytes of a character are still to come.
    rest: u8,
    line_start: bool,
    /// The modes that are not as usual.
    changed: BTreeSet<u16>,
    /// Whether it used any command at all.
    styled: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self { place: Place::Text, rest: 0, line_start: true, changed: BTreeSet::new(), styled: false }
    }
}

impl Watch {
    fn is_alternate(&self) -> bool {
        ALTERNATE.iter().any(|mode| self.changed.contains(mode))
    }

    fn is_between(&self) -> bool {
        self.place == Place::Text && self.rest == 0
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.step(*byte);
        }
    }

    fn step(&mut self, byte: u8) {
        self.place = match (std::mem::take(&mut self.place), byte) {
            (Place::Words { .. }, 0x07) | (Place::Words { ending: true }, b'\\') => Place::Text,
            (Place::Words { .. }, byte) => Place::Words { ending: byte == 0x1b },
            (_, 0x1b) => {
                self.styled = true;
                self.rest = 0;
                Place::Escape
            }
            (Place::Text, byte) => {
                self.rest = match byte {
                    0x80..=0xbf => self.rest.saturating_sub(1),
                    0xc0..=0xdf => 1,
                    0xe0..=0xef => 2,
                    0xf0..=0xf7 => 3,
                    _ => 0,
                };
                self.line_start = matches!(byte, b'\r' | b'\n');
                Place::Text
            }
            (Place::Escape, b'[') => Place::Command(String::new()),
            (Place::Escape, b']' | b'P' | b'X' | b'^' | b'_') => Place::Words { ending: false },
            // What stands between the escape and its last character.
            (Place::Escape, 0x20..=0x2f) => Place::Escape,
            (Place::Escape, _) => Place::Text,
            (Place::Command(said), 0x40..=0x7e) => {
                self.command(&said, byte);
                Place::Text
            }
            (Place::Command(mut said), byte) => {
                if said.len() < MODE_CHARS_MAX {
                    said.push(char::from(byte));
                }
                Place::Command(said)
            }
        };
    }

    fn command(&mut self, said: &str, last: u8) {
        let (Some(modes), b'h' | b'l') = (said.strip_prefix('?'), last) else { return };
        for mode in modes.split(';').filter_map(|mode| mode.parse().ok()) {
            if (last == b'h') == USUAL.contains(&mode) {
                self.changed.remove(&mode);
            } else if self.changed.len() < MODES_MAX {
                self.changed.insert(mode);
            }
        }
    }

    /// What undoes what the program has left.
    fn back_to_plain(self) -> Vec<u8> {
        if !self.styled {
            return Vec::new();
        }
        // A command that was begun is given up; a title ends.
        let mut text = if self.is_between() { String::new() } else { "\u{18}\u{1b}\\".to_owned() };
        for mode in &self.changed {
            text.push_str(&format!("\u{1b}[?{mode}{}", if USUAL.contains(mode) { 'h' } else { 'l' }));
        }
        if !self.changed.is_empty() {
            text.push_str("\u{1b}>");
        }
        text.push_str("\u{1b}[m");
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(bytes: &[u8]) -> Watch {
        let mut watch = Watch::default();
        watch.feed(bytes);
        watch
    }

    #[test]
    fn modes_are_followed_through_pieces() {
        let mut watch = after(b"text\x1b[?10");
        assert!(!watch.is_between() && !watch.is_alternate());
        watch.feed(b"49;2004h\x1b[?25l");
        assert!(watch.is_between() && watch.is_alternate());
        let back = String::from_utf8(watch.back_to_plain()).unwrap();
        assert_eq!(back, "\u{1b}[?25h\u{1b}[?1049l\u{1b}[?2004l\u{1b}>\u{1b}[m");
        assert!(!after(b"\x1b[?1049h\x1b[?1049l").is_alternate());
        assert!(after(b"plain\n").back_to_plain().is_empty());
    }

    #[test]
    fn nothing_is_written_into_a_character_or_a_title() {
        assert!(!after("ä".as_bytes().split_last().unwrap().1).is_between());
        assert!(after("ä€".as_bytes()).is_between());
        assert!(!after(b"\x1b]2;a title").is_between());
        assert!(after(b"\x1b]2;a title\x07").is_between());
        assert!(after(b"\x1b]2;a title\x1b\\").is_between());
        assert!(after(b"\x1b(B").is_between());
        assert!(after(b"a\n").line_start && !after(b"$ ").line_start);
    }
}
