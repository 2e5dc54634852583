//! A view of a stream that only moves forward: the old archive, seen through one region at a time.

use std::io;
use std::io::Read;

/// The old archive and the part of it that is in memory.
#[derive(Debug)]
pub(super) struct Regions<R> {
    source: R,
    /// Where `held` begins.
    start: u64,
    held: Vec<u8>,
}

impl<R: Read> Regions<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, start: 0, held: Vec::new() }
    }

    /// The `bytes` from `start` on, or fewer where the stream ends.
    ///
    /// # Errors
    /// The stream cannot be read, or `start` lies before the region of an earlier call.
    pub(super) fn at(&mut self, start: u64, bytes: usize) -> io::Result<&[u8]> {
        let back = || io::Error::new(io::ErrorKind::InvalidInput, "a region lies before the one before it");
        let skip = start.checked_sub(self.start).ok_or_else(back)?;
        let dropped = usize::try_from(skip).unwrap_or(usize::MAX).min(self.held.len());
        self.held.drain(..dropped);
        let unread = skip - dropped as u64;
        if unread > 0 {
            io::copy(&mut self.source.by_ref().take(unread), &mut io::sink())?;
        }
        self.start = start;
        // All at once: a buffer that grows is twice as large in the end.
        self.held.reserve_exact(bytes.saturating_sub(self.held.len()));
        if let Some(missing) = bytes.checked_sub(self.held.len()) {
            self.source.by_ref().take(missing as u64).read_to_end(&mut self.held)?;
        }
        Ok(&self.held[..bytes.min(self.held.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_move_forward_and_overlap() {
        let text = b"0123456789";
        let mut regions = Regions::new(&text[..]);
        assert_eq!(regions.at(0, 3).unwrap(), b"012");
        assert_eq!(regions.at(1, 4).unwrap(), b"1234");
        assert_eq!(regions.at(1, 2).unwrap(), b"12");
        assert_eq!(regions.at(7, 9).unwrap(), b"789");
        assert_eq!(regions.at(12, 4).unwrap(), b"");
        assert!(regions.at(5, 1).is_err());
    }
}
