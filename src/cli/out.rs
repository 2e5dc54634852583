//! The only place that writes: stdout is data, stderr is talk.

use std::fmt::Display;
use std::io;
use std::io::IsTerminal;
use std::io::Write;

use anstream::AutoStream;
use anstream::ColorChoice;
use anstyle::AnsiColor;
use anstyle::Style;
use dialoguer::Confirm;
use serde::Serialize;

use crate::cli::Color;
use crate::cli::exit::CliError;
use crate::domain::plain;
use crate::wire::error::ErrorBody;

const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBTFUL: Style = AnsiColor::Yellow.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const HELPFUL: Style = AnsiColor::Cyan.on_default().bold();

/// The terminal, or what stands in its place.
#[derive(Debug)]
pub(crate) struct Ui {
    json: bool,
    quiet: bool,
    color: ColorChoice,
}

impl Ui {
    pub(crate) const fn new(json: bool, quiet: bool, color: Color) -> Self {
        let color = match color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        };
        Self { json, quiet, color }
    }

    /// Whether the answer is a JSON document.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person sits there who can be asked.
    pub(crate) fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether progress may be drawn.
    pub(crate) fn can_draw(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// The answer of a command: the thing itself for scripts, its text for people.
    pub(crate) fn answer<T: Serialize>(&self, thing: &T, text: impl FnOnce(&T) -> String) -> Result<(), CliError> {
        if self.json { self.document(thing) } else { self.data(text(thing)) }
    }

    /// The answer of a command that only does something: for people it is talk.
    pub(crate) fn done<T: Serialize>(&self, thing: &T, text: impl Display) -> Result<(), CliError> {
        if self.json {
            return self.document(thing);
        }
        self.say(text);
        Ok(())
    }

    /// A line of data. Never with `--json`, where it would be a second document.
    pub(crate) fn data(&self, text: impl Display) -> Result<(), CliError> {
        if self.json {
            return Ok(());
        }
        let text = harmless(text);
        written(writeln!(AutoStream::new(io::stdout().lock(), self.color), "{}", text.trim_end_matches('\n')))
    }

    /// A line of data that says of something whether it is good.
    pub(crate) fn verdict(&self, is_good: bool, text: impl Display) -> Result<(), CliError> {
        if self.json {
            return Ok(());
        }
        let (style, word) = if is_good { (GOOD, "ok    ") } else { (BAD, "FAILED") };
        let mut stdout = AutoStream::new(io::stdout().lock(), self.color);
        written(writeln!(stdout, "  {style}{word}{style:#}  {}", harmless(text)))
    }

    /// Bytes as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
    }

    fn document(&self, thing: &impl Serialize) -> Result<(), CliError> {
        let mut text = serde_json::to_vec_pretty(thing).map_err(|error| CliError::failed("write JSON", &error))?;
        text.push(b'\n');
        self.raw(&text)
    }

    /// Talk.
    pub(crate) fn say(&self, text: impl Display) {
        if !self.quiet {
            self.talk(format_args!("{}", harmless(text)));
        }
    }

    /// Talk that somebody should not miss.
    pub(crate) fn warn(&self, text: impl Display) {
        self.talk(format_args!("{DOUBTFUL}warning:{DOUBTFUL:#} {}", harmless(text)));
    }

    /// What went wrong, because of what, and what to do next.
    pub(crate) fn error(&self, error: &CliError) {
        let view = error.view();
        self.talk(format_args!("{BAD}error:{BAD:#} {}", harmless(&view.message)));
        for cause in &view.because {
            self.talk(format_args!("  because: {}", harmless(cause)));
        }
        if let Some(hint) = &view.hint {
            self.talk(format_args!("   {HELPFUL}hint:{HELPFUL:#} {}", harmless(hint)));
        }
        if self.json {
            self.error_document(error);
        }
    }

    /// The error as the one document on stdout.
    pub(crate) fn error_document(&self, error: &CliError) {
        // Where even the error cannot be written, the exit code has to do.
        let _ = self.document(&ErrorBody::from(error.view().clone()));
    }

    /// Asks a yes-or-no question; `yes` answers for scripts. Nothing is assumed where nobody can answer.
    pub(crate) fn confirm(&self, question: &str, yes: bool) -> Result<(), CliError> {
        if yes {
            return Ok(());
        }
        if !self.can_ask() {
            return Err(CliError::refused(
                format!("nobody is here to answer: {question}"),
                "say yes beforehand with --yes",
            ));
        }
        match Confirm::new().with_prompt(question).default(false).interact() {
            Ok(true) => Ok(()),
            Ok(false) => Err(CliError::refused("you said no", "nothing was changed")),
            Err(error) => Err(CliError::failed("ask", &error)),
        }
    }

    fn talk(&self, text: std::fmt::Arguments<'_>) {
        // There is nowhere left to complain about a broken stderr.
        let _ = writeln!(AutoStream::new(io::stderr().lock(), self.color), "{text}");
    }
}

/// Names, messages and notes come from strangers: what could steer a terminal is shown, not obeyed.
fn harmless(text: impl Display) -> String {
    plain::lines(&text.to_string())
}

/// Whoever closed the pipe has seen enough; that is no error.
fn written(result: io::Result<()>) -> Result<(), CliError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::failed("write to stdout", &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_do_not_steer_the_terminal() {
        assert_eq!(harmless("anna\x1b[2J\u{9b}31m\r\n\tben"), "anna\u{fffd}[2J\u{fffd}31m\u{fffd}\n\tben");
    }
}
