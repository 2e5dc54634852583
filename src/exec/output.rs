//! What a command says: the last of a stream, or a file that it and what it leaves behind write to.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::domain::foreign;
use crate::exec::LOG_BYTES_MAX;
use crate::exec::OUTPUT_BYTES_MAX;

/// How much of an output is looked through for its newest line.
const LISTEN_BYTES_MAX: usize = 4 * 1024;

/// A file that takes the output of a command and of whatever it leaves behind.
pub(super) struct Log {
    file: File,
    /// Where the command's own output begins.
    from: u64,
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
        if file.metadata()?.len() > LOG_BYTES_MAX {
            file.set_len(0)?;
        }
        let from = file.metadata()?.len();
        Ok(Self { file, from })
    }

    pub(super) fn writer(&self) -> io::Result<Stdio> {
        self.file.try_clone().map(Stdio::from)
    }

    /// The last [`OUTPUT_BYTES_MAX`] bytes of what was written since; what cannot be read back is lost, not an error.
    pub(super) fn appended(&self) -> String {
        let len = self.file.metadata().map_or(self.from, |meta| meta.len());
        let from = self.from.max(len.saturating_sub(OUTPUT_BYTES_MAX as u64));
        let mut bytes = vec![0; usize::try_from(len.saturating_sub(from)).unwrap_or(0)];
        let read = self.file.read_at(&mut bytes, from).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }
}

/// The last bytes of a stream.
#[derive(Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub(super) async fn fill(
        &mut self,
        stream: Option<impl AsyncRead + Unpin>,
        listener: Option<&watch::Sender<String>>,
    ) {
        let Some(mut stream) = stream else { return };
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = stream.read(&mut chunk).await {
            self.0.extend_from_slice(&chunk[..read]);
            if self.0.len() > 2 * OUTPUT_BYTES_MAX {
                self.0.drain(..self.0.len() - OUTPUT_BYTES_MAX);
            }
            if let Some(listener) = listener {
                // Only whole lines: the half of one may hide that it is a secret.
                let recent = &self.0[self.0.len().saturating_sub(LISTEN_BYTES_MAX)..];
                let whole = recent.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |end| &recent[..end]);
                let begin = whole.iter().position(|byte| *byte == b'\n').filter(|_| recent.len() < self.0.len());
                let line = foreign::telling_line(&String::from_utf8_lossy(&whole[begin.map_or(0, |at| at + 1)..]));
                line.into_iter().for_each(|line| drop(listener.send_replace(line)));
            }
        }
    }

    pub(super) fn last(&self) -> &[u8] {
        &self.0[self.0.len().saturating_sub(OUTPUT_BYTES_MAX)..]
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(self.last()).into_owned()
    }
}
