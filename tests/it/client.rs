//! Programs that use the terminal, and a person who answers at it: the real client at a real terminal.

use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use afterhours::domain::session::Answer;
use afterhours::domain::span::Span;
use afterhours::sessions::Finished;
use rustix::pty::OpenptFlags;
use rustix::termios::LocalModes;
use rustix::termios::Termios;
use rustix::termios::Winsize;

use crate::people::bench::Daemon;
use crate::people::bench::app;
use crate::people::bench::notice;
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_secs(20);
const CTRL_C: &str = "\u{3}";
const LEAD: &str = "\u{1d}";

/// A terminal at which a client runs.
struct Station {
    near: File,
    far: OwnedFd,
    before: Termios,
    shown: Arc<Mutex<String>>,
    /// How much of it was looked at.
    seen: usize,
    child: Child,
}

impl Station {
    fn opens(socket: &Path, term: &str, flags: &[&str], program: &[&str]) -> Self {
        let near = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&near).unwrap();
        rustix::pty::unlockpt(&near).unwrap();
        let far = rustix::pty::ioctl_tiocgptpeer(&near, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        resize(&near, 24, 80);
        let before = rustix::termios::tcgetattr(&far).unwrap();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait", env!("CARGO_BIN_EXE_afterhours"), "client", "run", "--app", "orders"]);
        command.arg("--socket").arg(socket).args(flags).arg("--").args(program);
        command.env("TERM", term).env("LESS", "").env_remove("LESSOPEN").env("PS1", "> ");
        let end = || far.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop(command);
        let near = File::from(near);
        let (shown, mut reader) = (Arc::<Mutex<String>>::default(), near.try_clone().unwrap());
        let show = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = reader.read(&mut buffer) {
                show.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        });
        Self { near, far, before, shown, seen: 0, child }
    }

    fn types(&mut self, keys: &str) {
        self.near.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `text` is shown after what was seen before.
    async fn sees(&mut self, text: &str) {
        let at = async || self.shown.lock().unwrap()[self.seen..].find(text);
        let what = format!("{text:?} is shown");
        eventually(&what, PATIENCE, async || {
            let found = at().await;
            found.is_some()
        })
        .await;
        let found = at().await.unwrap();
        self.seen += found + text.len();
    }

    fn has_shown(&self, text: &str) -> bool {
        self.shown.lock().unwrap().contains(text)
    }

    /// Waits for the end of the client; its exit code. The terminal is as it was.
    async fn ends(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the client ends", PATIENCE, async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        let after = rustix::termios::tcgetattr(&self.far).unwrap();
        assert_eq!(format!("{after:?}"), format!("{:?}", self.before), "the terminal has its settings back");
        status.unwrap().code()
    }
}

fn resize(near: &impl std::os::fd::AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(near, size).unwrap();
}

/// A daemon and a file to look at.
fn office() -> (tempfile::TempDir, Daemon, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let daemon = Daemon::start(&socket, Vec::new());
    let file = dir.path().join("file");
    let text: String = (1..200).map(|line| format!("line-{line}\n")).collect();
    fs_err::write(&file, text).unwrap();
    (dir, daemon, socket)
}

#[tokio::test]
async fn a_pager_shows_and_quits() {
    let (dir, _daemon, socket) = office();
    let file = dir.path().join("file");
    let mut station = Station::opens(&socket, "xterm", &[], &["less", file.to_str().unwrap()]);
    station.sees("line-23").await;
    station.types("/line-77\r");
    station.sees("line-77").await;
    station.types("q");
    assert_eq!(station.ends().await, Some(0));
    assert!(station.has_shown("\u{1b}[?1049l"));
}

#[tokio::test]
async fn a_shell_has_its_terminal() {
    let (_dir, daemon, socket) = office();
    let mut station = Station::opens(&socket, "xterm", &[], &["sh"]);
    // What is typed before the shell is there is not lost.
    station.types("stty size\r");
    station.sees("24 80").await;
    resize(&station.near, 30, 100);
    daemon.running(1).await;
    station.types("until stty size | grep '30 100'; do :; done\r");
    station.sees("\n30 100").await;
    station.types("echo $((1000 + 1)); sleep 1000\r");
    station.sees("1001").await;
    station.types(CTRL_C);
    station.types("echo back $((1 + 1))\r");
    station.sees("back 2").await;
    station.types("exit 3\r");
    assert_eq!(station.ends().await, Some(3));
}

#[tokio::test]
async fn one_key_or_the_word_answers() {
    let (_dir, daemon, socket) = office();
    let mut station = Station::opens(&socket, "xterm", &[], &["sleep", "1000"]);
    daemon.running(1).await;
    daemon.hub.announce(&app(), &notice(300));
    station.sees("---- Afterhours, for orders ----").await;
    station.sees("Order desk: Version 2 is installed tonight.").await;
    station.sees("Press: o = OK").await;
    station.types("x");
    station.sees("\"x\" is not understood.").await;
    station.types("NOT NOW\r");
    station.sees("You can go on for now; the program is closed at ").await;
    station.sees("all the same").await;
    eventually("the answer is known", PATIENCE, async || daemon.sessions()[0].answer == Some(Answer::NotNow)).await;
    station.types(LEAD);
    station.sees("Press: o = OK").await;
    station.types("r");
    station.sees("started again afterwards").await;
    eventually("she is logged out", PATIENCE, async || daemon.is_empty()).await;
    let message = "Order desk is updated to version 2.".to_owned();
    daemon.hub.finish(&app(), &Finished { success: true, version: None, message: message.clone() });
    station.sees(&message).await;
    daemon.running(1).await;
    station.types(CTRL_C);
    assert_eq!(station.ends().await, Some(128 + 2));
}

#[tokio::test]
async fn ok_is_one_key_and_so_is_the_start() {
    let (_dir, daemon, socket) = office();
    let mut station = Station::opens(&socket, "xterm", &[], &["sleep", "1000"]);
    daemon.running(1).await;
    daemon.hub.announce(&app(), &notice(300));
    station.sees("o = OK").await;
    station.types("O");
    station.sees("The program is closed;").await;
    let message = "The update of Order desk was cancelled.".to_owned();
    daemon.hub.finish(&app(), &Finished { success: false, version: None, message });
    station.sees("s = start").await;
    station.types("q");
    station.sees("\"q\" is not understood.").await;
    station.types("Start\r");
    daemon.running(1).await;
    station.types(CTRL_C);
    assert_eq!(station.ends().await, Some(128 + 2));
}

#[tokio::test]
async fn where_keys_cannot_be_read_words_are() {
    let (_dir, daemon, socket) = office();
    let mut station = Station::opens(&socket, "dumb", &[], &["sleep", "1000"]);
    daemon.running(1).await;
    daemon.hub.announce(&app(), &notice(300));
    station.sees("and Enter").await;
    station.types("what?\n");
    station.sees("\"what?\" is not understood.").await;
    station.types("ok\n");
    station.sees("The program is closed;").await;
    station.types(CTRL_C);
    assert_eq!(station.ends().await, Some(0));
}

#[tokio::test]
async fn a_screen_of_the_programs_is_not_written_upon() {
    let (dir, daemon, socket) = office();
    let file = dir.path().join("file");
    let mut station = Station::opens(&socket, "xterm", &[], &["less", file.to_str().unwrap()]);
    station.sees("line-23").await;
    daemon.hub.announce(&app(), &notice(300));
    station.sees("\u{7}\u{1b}[22;2t\u{1b}]2;Order desk: Version 2 is installed tonight. (Ctrl-] to answer)\u{7}").await;
    // An ordinary key is the program's.
    station.types("G");
    station.sees("line-199").await;
    assert!(!station.has_shown("----"), "{}", station.shown.lock().unwrap());
    station.types(LEAD);
    station.sees("o = OK").await;
    station.types("o");
    station.sees("\u{1b}[?1049l").await;
    station.sees("The program is closed;").await;
    station.types(CTRL_C);
    assert_eq!(station.ends().await, Some(0));
}

#[tokio::test]
async fn a_word_from_the_operator_stands_in_a_frame_between() {
    let (_dir, daemon, socket) = office();
    let script = "while :; do printf 'half a line'; sleep 0.1; echo; done";
    let mut station = Station::opens(&socket, "xterm", &["--answer", "ok"], &["sh", "-c", script]);
    daemon.running(1).await;
    station.sees("half a line").await;
    daemon.hub.message(&app(), "Coffee is ready.", None).unwrap();
    station.sees("\r\n\u{7}---- Afterhours, for orders ----\r\n| Coffee is ready.\r\n----\r\n").await;
    daemon.hub.announce(&app(), &notice(300));
    assert_eq!(station.ends().await, Some(0), "answered by itself");
    assert!(!station.has_shown("o = OK"));
}

#[tokio::test]
async fn a_shell_ends_when_it_is_told() {
    let (_dir, daemon, socket) = office();
    for (shell, args) in [("bash", ["--norc", "-i"]), ("sh", ["-i", "-m"])] {
        let mut station = Station::opens(&socket, "xterm", &[], &[shell, args[0], args[1]]);
        daemon.running(1).await;
        station.types("sleep 1000\r");
        station.sees("sleep 1000").await;
        let session = daemon.sessions()[0].id.clone();
        daemon.hub.end(&app(), &session, false, Span::mins(5)).unwrap();
        eventually("she is logged out", PATIENCE, async || daemon.is_empty()).await;
        station.sees("The program is closed;").await;
        station.types(CTRL_C);
        assert_eq!(station.ends().await, Some(0));
    }
}

#[tokio::test]
async fn a_killed_program_leaves_the_terminal_as_it_was() {
    let (dir, daemon, socket) = office();
    let file = dir.path().join("file");
    for by_client in [false, true] {
        let mut station = Station::opens(&socket, "xterm", &[], &["less", file.to_str().unwrap()]);
        station.sees("line-23").await;
        daemon.running(1).await;
        let modes = rustix::termios::tcgetattr(&station.far).unwrap().local_modes;
        assert!(!modes.contains(LocalModes::ICANON), "keys come one by one");
        let (pid, signal, code) = match by_client {
            false => (daemon.pid(), rustix::process::Signal::KILL, 128 + 9),
            true => (station.child.id(), rustix::process::Signal::HUP, 128 + 15),
        };
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
        let ended = station.ends().await;
        assert!(ended == Some(code) || by_client, "{ended:?}");
        assert!(station.has_shown("\u{1b}[?1049l"));
        eventually("she is logged out", PATIENCE, async || daemon.is_empty()).await;
    }
}
