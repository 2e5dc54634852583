//! A command that signs in place of a key file: the key stays in a smart card, an HSM, or on another machine.
//!
//! ```text
//! what is to be signed ──stdin──► command ──stdout──► signature ──► checked with the public key ──► used
//! ```
//!
//! What describes it, `ROLE-ID.signer.toml`, lies where the key file would be, and holds no secret. Its command runs with
//! the rights, and sees the variables, of whoever signs; standard input is a regular file, for programs that have to know
//! its length.
//!
//! *Invariant:* nothing that a command prints is used before the public key in the description says that it is a signature
//! of what the command was given.

use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

use crate::domain::command::Command;
use crate::domain::command::Tree;
use crate::domain::hex::unhex;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::ExecError;
use crate::exec::Output;
use crate::exec::permit;
use crate::exec::permit::Refusal;
use crate::feed::vendor::error::VendorError;
use crate::feed::vendor::error::VendorFailure;
use crate::feed::vendor::public::PublicKey;
use crate::files::account::Account;
use crate::files::small::read_small;
use crate::files::trusted;
use crate::files::trusted::Untrusted;

/// How long a command may take, if nothing else is said: somebody may have to find the card and touch it.
const DEADLINE: Span = Span::mins(2);
/// The longest that may be said.
const DEADLINE_MAX: Span = Span::hours(1);
/// The largest description, and the largest public key.
const DESCRIPTION_BYTES_MAX: u64 = 64 * 1024;
/// More than any signature has, in hexadecimal digits, too.
const SIGNATURE_BYTES_MAX: usize = 1024;
/// How a PEM block begins.
const PEM: &str = "-----BEGIN";

/// A command cannot sign, or has not signed.
#[derive(Debug, Error)]
pub enum SignerError {
    /// Others could let root run what they like.
    #[error("others than root can change it")]
    Untrusted {
        /// Who can.
        #[source]
        source: Untrusted,
    },
    /// The description or the public key cannot be read.
    #[error("read {}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The description cannot be understood.
    #[error("understand it")]
    Bad {
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The command is an empty list.
    #[error("there is no command in it")]
    NoCommand,
    /// The deadline is none, or no end.
    #[error("its deadline is {deadline}: that cannot be")]
    BadDeadline {
        /// As it is written.
        deadline: Span,
    },
    /// Sites accept no signature of this key.
    #[error("its public key is neither Ed25519 nor ECDSA P-256, in PEM")]
    OtherKind,
    /// The command could not be run to a good end.
    #[error(transparent)]
    Run(ExecError),
    /// What the command printed is too long to be a signature.
    #[error("{program} printed {bytes} bytes; no signature has more than {}", SIGNATURE_BYTES_MAX)]
    TooMuch {
        /// The program.
        program: String,
        /// As many were printed, or more.
        bytes: usize,
    },
    /// What the command printed is no signature, or one of another key, or of something else.
    #[error("what {program} printed is no signature by this key of what it was given")]
    Wrong {
        /// The program.
        program: String,
    },
}

impl SignerError {
    /// What kind of failure it is.
    pub(in crate::feed::vendor) const fn failure(&self) -> VendorFailure {
        match self {
            Self::Bad { .. } | Self::NoCommand | Self::BadDeadline { .. } | Self::OtherKind => VendorFailure::Usage,
            Self::Untrusted { .. } | Self::Run(ExecError::Refused { .. }) => VendorFailure::NotPermitted,
            Self::Read { .. } | Self::Run(_) | Self::TooMuch { .. } | Self::Wrong { .. } => VendorFailure::Failed,
        }
    }

    /// What a person can do about it.
    pub(in crate::feed::vendor) fn hint(&self) -> String {
        let text = match self {
            Self::Untrusted { source } => {
                return source.remedy().unwrap_or_else(|| "let only root be able to change it".to_owned());
            }
            Self::Run(ExecError::Refused { source, .. }) => match &**source {
                Refusal::Untrusted { source, .. } if source.remedy().is_some() => {
                    return source.remedy().unwrap_or_default();
                }
                _ => "let only root be able to change what it runs, or do not run this as root",
            },
            Self::Read { .. } => "name a file that is there and can be read; `public_key` is looked for beside it",
            Self::Bad { .. } | Self::NoCommand => {
                "write `command = [\"PROGRAM\", \"ARGUMENT\"]` and `public_key = \"FILE.pem\"`, as in the manual on publishing"
            }
            Self::BadDeadline { .. } => "make it one second to one hour",
            Self::OtherKind => {
                "make the key Ed25519 or ECDSA on P-256, and export its public half as a PEM block that begins with \
                 -----BEGIN PUBLIC KEY-----"
            }
            Self::Run(ExecError::Spawn { .. }) => {
                "install the program, or write the whole path of it into `command`; a relative one begins at /"
            }
            Self::Run(ExecError::Overdue { .. }) => {
                "see that the device is there and answers, or raise `deadline`. Nobody can type into the command: let it have \
                 its PIN from a file, an agent or the reader"
            }
            Self::Run(_) => {
                "mend what it says, then try again; run it by hand with any file on its standard input to see more"
            }
            Self::TooMuch { .. } => {
                "let it print the signature and nothing else, and all that it says to standard error"
            }
            Self::Wrong { .. } => {
                "see that it signs its standard input with the key whose public half stands in the file, and prints the bytes \
                 of the signature or their hexadecimal digits: of Ed25519 64, of ECDSA over SHA-256 in DER"
            }
        };
        text.to_owned()
    }
}

/// A command that signs, and what its signatures are checked with.
#[derive(Debug, Clone)]
pub(in crate::feed::vendor) struct SignerCommand {
    command: Vec<String>,
    deadline: Span,
    /// The public half of its key.
    pub(in crate::feed::vendor) public: PublicKey,
    /// Where it is described, for messages.
    file: PathBuf,
}

/// What stands in the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    command: Vec<String>,
    #[serde(default = "usual")]
    deadline: Span,
    /// A PEM block, or the name of a file with one.
    public_key: String,
}

const fn usual() -> Span {
    DEADLINE
}

impl SignerCommand {
    /// The one that `file` describes.
    pub(in crate::feed::vendor) fn read(file: &Path) -> Result<Self, VendorError> {
        Self::described(file).map_err(|source| VendorError::Signer { file: file.to_owned(), source: Box::new(source) })
    }

    fn described(file: &Path) -> Result<Self, SignerError> {
        trusted::required(file).map_err(|source| SignerError::Untrusted { source })?;
        let Description { command, deadline, public_key } =
            toml::from_str(&text(file)?).map_err(|source| SignerError::Bad { source: Box::new(source) })?;
        if command.is_empty() {
            return Err(SignerError::NoCommand);
        }
        if deadline < Span::secs(1) || deadline > DEADLINE_MAX {
            return Err(SignerError::BadDeadline { deadline });
        }
        let pem = if public_key.trim_start().starts_with(PEM) {
            public_key
        } else {
            text(&file.with_file_name("").join(public_key))?
        };
        let public = PublicKey::from_pem(&pem).ok_or(SignerError::OtherKind)?;
        Ok(Self { command, deadline, public, file: file.to_owned() })
    }

    /// What describes it, whole: nothing else has to be kept with it.
    pub(in crate::feed::vendor) fn to_toml(&self) -> Result<String, VendorError> {
        let public_key = self.public.to_pem().ok_or(VendorError::MakeKey)?;
        let description = Description { command: self.command.clone(), deadline: self.deadline, public_key };
        let text = toml::to_string(&description).map_err(|_| VendorError::MakeKey)?;
        Ok(format!("# Signs in place of a key file: see the manual on publishing.\n{text}"))
    }

    /// The signature over `message`. Blocking.
    pub(in crate::feed::vendor) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, VendorError> {
        let signed = self.ask(message);
        signed.map_err(|source| VendorError::Signer { file: self.file.clone(), source: Box::new(source) })
    }

    fn ask(&self, message: &[u8]) -> Result<Vec<u8>, SignerError> {
        let command = Command::of_owner(self.command.clone(), Tree::default());
        // The owner is whoever signs; root says so, and then root alone may be able to change what runs.
        let command = if Account::own().is_root() { permit::as_root(command) } else { command };
        let program = command.program().to_owned();
        let exec = Exec::of(&command, self.deadline).inherit(&[""]).input(message);
        let Output { stdout_bytes, .. } = wait_for(exec, &program).map_err(SignerError::Run)?;
        if stdout_bytes.len() > SIGNATURE_BYTES_MAX {
            return Err(SignerError::TooMuch { program, bytes: stdout_bytes.len() });
        }
        let digits = std::str::from_utf8(&stdout_bytes).ok().and_then(|text| unhex(text.trim()));
        let printed = [Some(stdout_bytes), digits].into_iter().flatten();
        let signature = printed.into_iter().find(|bytes| self.public.has_signed(message, bytes));
        signature.ok_or(SignerError::Wrong { program })
    }
}

fn text(file: &Path) -> Result<String, SignerError> {
    let failed = |source| SignerError::Read { file: file.to_owned(), source };
    let absent = || failed(std::io::ErrorKind::NotFound.into());
    let bytes = read_small(file, DESCRIPTION_BYTES_MAX).map_err(|error| failed(error.into()))?.ok_or_else(absent)?;
    String::from_utf8(bytes).map_err(|_| failed(std::io::ErrorKind::InvalidData.into()))
}

/// Runs it to its end on a thread of its own: whoever signs may be a task already, and must not start another in it.
fn wait_for(exec: Exec, program: &str) -> Result<Output, ExecError> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| ExecError::Spawn { program: program.to_owned(), source })?;
        runtime.block_on(exec.run())
    };
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
