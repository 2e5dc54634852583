//! Reads and hashes a file in a thread of its own, so that hashing costs no time while something is unpacked.
//!
//! A few chunks are read ahead and no more: the thread waits when nobody takes them, and ends when nobody will.

use std::fs::File;
use std::io;
use std::io::Read;
use std::sync::mpsc;
use std::thread::JoinHandle;

use sha2::Digest;
use sha2::Sha256;

use crate::domain::hex::hex;

/// How much is read at a time.
const CHUNK_BYTES: usize = 1024 * 1024;
/// How many chunks wait to be taken.
const CHUNKS_MAX: usize = 4;

/// The first `declared` bytes of a file.
#[derive(Debug)]
pub(in crate::feed) struct ReadAhead {
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    taken: usize,
    thread: Option<JoinHandle<Sha256>>,
    read: u64,
}

impl ReadAhead {
    pub(in crate::feed) fn new(mut file: File, declared: u64) -> Self {
        let (ready, chunks) = mpsc::sync_channel(CHUNKS_MAX);
        let thread = std::thread::spawn(move || {
            let mut hash = Sha256::new();
            let mut left = declared;
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                let mut chunk = Vec::with_capacity(want);
                let read = file.by_ref().take(want as u64).read_to_end(&mut chunk);
                hash.update(&chunk);
                left -= chunk.len() as u64;
                let is_over = chunk.is_empty() || read.is_err();
                // Nobody takes it when unpacking was given up.
                if ready.send(read.map(|_| chunk)).is_err() || is_over {
                    break;
                }
            }
            hash
        });
        Self { chunks, chunk: Vec::new(), taken: 0, thread: Some(thread), read: 0 }
    }

    /// Reads what is left, and says how many bytes there were and their SHA-256 in hexadecimal digits.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(in crate::feed) fn finish(mut self) -> io::Result<(u64, String)> {
        io::copy(&mut self, &mut io::sink())?;
        let hash = self.thread.take().map(JoinHandle::join).transpose();
        let hash = hash.map_err(|_| io::Error::other("the thread that reads the file panicked"))?.unwrap_or_default();
        Ok((self.read, hex(hash.finalize())))
    }
}

impl Read for ReadAhead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.chunk.len() {
            self.taken = 0;
            // The thread has ended: that is the end of the file.
            self.chunk = self.chunks.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
        }
        let read = into.len().min(self.chunk.len() - self.taken);
        into[..read].copy_from_slice(&self.chunk[self.taken..self.taken + read]);
        self.taken += read;
        self.read += read as u64;
        Ok(read)
    }
}
