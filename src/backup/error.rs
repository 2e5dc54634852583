//! What can be wrong with a backup, and what to do about it.
//!
//! Invariant: no variant holds a secret. Repository locations pass through [`shown`], what a
//! backup program says through [`told`].

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::domain::foreign::masked;
use crate::domain::span::Span;
use crate::exec::ExecError;
use crate::files::trusted::Untrusted;

/// How much of a program's own words is kept, in characters.
const TOLD_CHARS_MAX: usize = 300;

/// A backup was not accepted, not made, or could not be looked at.
#[derive(Debug, Error)]
pub enum BackupError {
    /// There is none.
    #[error("find a backup: there is none in {place}")]
    NotFound {
        /// Where it was looked for.
        place: String,
    },
    /// There is one, but it is older than allowed.
    #[error("accept {backup}: it is {age} old, and {max_age} is allowed")]
    TooOld {
        /// The backup.
        backup: String,
        /// Its age.
        age: Span,
        /// The limit.
        max_age: Span,
    },
    /// It claims to be made later than now.
    #[error("accept {backup}: it is dated {by} in the future")]
    FromTheFuture {
        /// The backup.
        backup: String,
        /// How far.
        by: Span,
    },
    /// Its directory lies behind a link that is not root's, so nothing is removed there.
    #[error("remove old backups in {}: only links of root's are followed", .dir.display())]
    LeadsElsewhere {
        /// The directory.
        dir: PathBuf,
        /// The link and its owner, or why it cannot be known.
        #[source]
        source: Untrusted,
    },
    /// It is smaller than any backup can be.
    #[error("accept {backup}: it has {size_bytes} bytes, and at least {min_bytes} are expected")]
    TooSmall {
        /// The backup.
        backup: String,
        /// Its size.
        size_bytes: u64,
        /// The least.
        min_bytes: u64,
    },
    /// It is much smaller than the ones before.
    #[error(
        "accept {backup}: it has {size_bytes} bytes, {percent} % less than the {median_bytes} bytes of the ones before"
    )]
    Shrunk {
        /// The backup.
        backup: String,
        /// Its size.
        size_bytes: u64,
        /// The median of the ones before.
        median_bytes: u64,
        /// By how much it shrank.
        percent: u32,
    },
    /// It is not finished.
    #[error("accept {backup}: it is still being written{}", .by.as_ref().map_or_else(String::new, |by| format!(" by {by}")))]
    StillWritten {
        /// The backup.
        backup: String,
        /// Who has it open, if that was seen.
        by: Option<String>,
    },
    /// It is not what its checksum says.
    #[error("accept {backup}: its content does not match {against}")]
    ChecksumMismatch {
        /// The file.
        backup: String,
        /// The checksum file or manifest.
        against: PathBuf,
    },
    /// A file that a manifest or checksum file names is not there.
    #[error("accept {against}: it names {file}, which does not exist")]
    FileMissing {
        /// The file.
        file: PathBuf,
        /// The checksum file or manifest.
        against: PathBuf,
    },
    /// The test command refused it.
    #[error("test {backup}")]
    TestFailed {
        /// The backup.
        backup: String,
        /// What the command said.
        #[source]
        source: ExecError,
    },
    /// There is no repository at that place.
    #[error("open {repository}: there is no {program} repository")]
    RepositoryMissing {
        /// restic or borg.
        program: &'static str,
        /// Its location.
        repository: String,
    },
    /// The password does not open the repository.
    #[error("open {repository}: {program} says that the password is wrong")]
    WrongPassword {
        /// restic or borg.
        program: &'static str,
        /// Its location.
        repository: String,
    },
    /// The password file cannot be read.
    #[error("read the password file {file}")]
    PasswordFile {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The program's own check found damage.
    #[error("accept {repository}: {program} found damage: {told}")]
    Damaged {
        /// restic or borg.
        program: &'static str,
        /// Its location.
        repository: String,
        /// What it found first.
        told: String,
    },
    /// Another program holds the repository.
    #[error("open {repository}: it is locked by another {program}")]
    Locked {
        /// restic or borg.
        program: &'static str,
        /// Its location.
        repository: String,
    },
    /// The backup program failed for a reason of its own.
    #[error("{action} of {repository}: {told}")]
    Program {
        /// What was asked of it.
        action: &'static str,
        /// Its location.
        repository: String,
        /// What it said.
        told: String,
    },
    /// A program could not be run to its end.
    #[error("ask {program} for a backup")]
    NotAsked {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: ExecError,
    },
    /// What a program or a manifest says is not understood.
    #[error("understand what {origin} says")]
    NotUnderstood {
        /// The program or file.
        origin: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest names no file at all.
    #[error("accept {manifest}: it names no files")]
    EmptyManifest {
        /// The manifest.
        manifest: PathBuf,
    },
    /// The pattern for files cannot be used.
    #[error("look for {glob}: only the last part of an absolute path may hold a pattern")]
    BadGlob {
        /// As configured.
        glob: String,
    },
    /// A file or directory cannot be read.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Testing took too long.
    #[error("test {backup} within {deadline}")]
    TestOverdue {
        /// The backup.
        backup: String,
        /// The limit.
        deadline: Span,
    },
    /// No command is configured that makes a backup.
    #[error("make a backup: no command is configured")]
    NoMake,
    /// The command that makes a backup failed.
    #[error("make a backup")]
    MakeFailed {
        /// Why.
        #[source]
        source: ExecError,
    },
    /// The command ended well, but there is nothing newer than before.
    #[error("find a new backup after making one: {}", .newest.as_ref().map_or("there is none".to_owned(), |newest| format!("the newest is still {newest}")))]
    MadeNothing {
        /// The newest there is.
        newest: Option<String>,
    },
    /// Work on another thread was lost.
    #[error("finish looking at {place}")]
    Interrupted {
        /// What was looked at.
        place: String,
    },
}

impl BackupError {
    /// Whether a new backup would mend it: there is none, or the newest is old or bad. A locked
    /// door or a damaged repository is not mended by putting more into it.
    pub fn is_mended_by_a_new_backup(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::TooOld { .. }
            | Self::TooSmall { .. }
            | Self::Shrunk { .. }
            | Self::ChecksumMismatch { .. }
            | Self::FileMissing { .. }
            | Self::TestFailed { source: ExecError::Failed { .. }, .. }
            | Self::NotAsked { source: ExecError::Failed { .. }, .. }
            | Self::RepositoryMissing { .. }
            | Self::EmptyManifest { .. }
            | Self::NotUnderstood { .. } => true,
            Self::FromTheFuture { .. }
            | Self::StillWritten { .. }
            | Self::TestFailed { .. }
            | Self::WrongPassword { .. }
            | Self::PasswordFile { .. }
            | Self::Damaged { .. }
            | Self::Locked { .. }
            | Self::Program { .. }
            | Self::NotAsked { .. }
            | Self::BadGlob { .. }
            | Self::Io { .. }
            | Self::LeadsElsewhere { .. }
            | Self::TestOverdue { .. }
            | Self::NoMake
            | Self::MakeFailed { .. }
            | Self::MadeNothing { .. }
            | Self::Interrupted { .. } => false,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotFound { .. } => "make a backup, or correct `backup.evidence`".to_owned(),
            Self::TooOld { .. } => {
                "look why the nightly backup did not run, or let the job make one with `backup.make`".to_owned()
            }
            Self::FromTheFuture { .. } => "compare this machine's clock with that of the machine that made the \
                                           backup; if a wrong clock dated it, make another and remove this one"
                .to_owned(),
            Self::TooSmall { .. } => {
                "look what the backup program said; if it is right, lower `min_size_bytes` in `backup.evidence`"
                    .to_owned()
            }
            Self::Shrunk { .. } => "look what the backup leaves out; if data were really removed, make backups until \
                                    the new size is usual, or raise `max_shrink_percent` in `backup.evidence`"
                .to_owned(),
            Self::StillWritten { by: Some(by), .. } => {
                format!("wait until {by} has ended; if it hangs, end it, and make another backup")
            }
            Self::StillWritten { by: None, .. } => {
                "wait until the backup has ended; a backup program should write under \
                                          another name, such as NAME.part, and rename at the end"
                    .to_owned()
            }
            Self::ChecksumMismatch { .. } | Self::TestFailed { .. } => {
                "do not rely on this backup; check the disk it lies on and make another".to_owned()
            }
            Self::FileMissing { .. } | Self::EmptyManifest { .. } => {
                "the backup is not complete; make another".to_owned()
            }
            Self::RepositoryMissing { program, .. } => {
                format!(
                    "mount the disk it lies on, correct `repository` in `backup.evidence`, or create it with `{program} init`"
                )
            }
            Self::WrongPassword { .. } => {
                "put the repository's password into the file that `backup.evidence` names, without a second line"
                    .to_owned()
            }
            Self::PasswordFile { file, .. } => {
                format!("create {} with mode 0600, readable by the user Afterhours runs as", file.display())
            }
            Self::Damaged { program, .. } => format!(
                "do not rely on this repository; see `{program} check --help`, repair it or begin a new one on another disk"
            ),
            Self::Locked { program, .. } => format!(
                "wait until the other {program} has ended; if none runs, remove the stale lock with `{program} {}`",
                if *program == "borg" { "break-lock" } else { "unlock" }
            ),
            Self::NotAsked { program, source: ExecError::Spawn { .. } } => {
                let package = if program == "borg" { "borgbackup" } else { program };
                format!("install {package}, or correct `backup.evidence`")
            }
            Self::NotAsked { .. } | Self::TestOverdue { .. } => {
                "run it by hand to see what it waits for, or raise `backup.deadline`".to_owned()
            }
            Self::Program { .. } => "run the same by hand as the user Afterhours runs as".to_owned(),
            Self::NotUnderstood { .. } => {
                "run `afterhours doctor`; the reference configuration shows the expected form".to_owned()
            }
            Self::BadGlob { .. } => "write for example `/srv/backup/orders-*.dump`".to_owned(),
            Self::Io { .. } => "give the user Afterhours runs as the right to read it".to_owned(),
            Self::LeadsElsewhere { .. } => {
                "write in `backup.evidence` where the directory really is, without the link".to_owned()
            }
            Self::NoMake => "set `backup.make` to the command that makes a backup".to_owned(),
            Self::MakeFailed { .. } => "run the command of `backup.make` by hand and read what it says".to_owned(),
            Self::MadeNothing { .. } => {
                "`backup.make` must write where `backup.evidence` looks; compare the two".to_owned()
            }
            Self::Interrupted { .. } => return None,
        };
        Some(hint)
    }
}

/// A repository's location as people may see it: without the password that a URL can hold.
pub(super) fn shown(repository: &str) -> String {
    match password(repository) {
        Some(password) => repository.replacen(&format!(":{password}@"), ":***@", 1),
        None => repository.to_owned(),
    }
}

/// The password inside `SCHEME://USER:PASSWORD@HOST`.
fn password(repository: &str) -> Option<&str> {
    let (_, rest) = repository.split_once("://")?;
    let authority = rest.split('/').next()?;
    let (user_info, _) = authority.rsplit_once('@')?;
    user_info.split_once(':').map(|(_, password)| password)
}

/// What a program said about `repository`, short, on one line, and without its password.
pub(super) fn told(text: &str, repository: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it did not say why");
    let line = match password(repository) {
        Some(password) if !password.is_empty() => {
            line.replace(repository, &shown(repository)).replace(&format!(":{password}@"), ":***@")
        }
        _ => line.to_owned(),
    };
    clipped(&line)
}

/// Words of others, without secrets and cut to a length that fits into a message.
pub(super) fn clipped(text: &str) -> String {
    let text = masked(text);
    match text.char_indices().nth(TOLD_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_location_is_never_shown() {
        let repository = "rest:https://anna:s:ecr@t@backup.example.com/orders";
        assert_eq!(shown(repository), "rest:https://anna:***@backup.example.com/orders");
        let said = told(&format!("Fatal: {repository} and https://anna:s:ecr@t@x failed\nmore"), repository);
        assert!(!said.contains("s:ecr@t") && said.starts_with("Fatal: rest:https://***@"), "{said}");
        for plain in ["/srv/repo", "sftp:anna@host:/srv", "ssh://anna@host/./repo"] {
            assert_eq!(shown(plain), plain);
        }
    }

    #[test]
    fn words_of_others_are_short() {
        assert_eq!(told(&"ä".repeat(1000), "x").chars().count(), TOLD_CHARS_MAX + 1);
        assert_eq!(told("\n \n", "x"), "it did not say why");
    }
}
