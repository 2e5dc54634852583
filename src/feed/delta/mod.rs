//! Small downloads: what turns the tar archive of one build into that of a later one.
//!
//! ```text
//! vendor   make(old.tar.zst, new.tar.zst)  ──►  DELTA
//! site     apply(old.tar.zst, DELTA)       ──►  new.tar.zst, if its tar archive has the hash that was signed
//! ```
//!
//! A tar archive is cut into pieces of [`PIECE_BYTES`]. Each piece is one frame of zstd that may refer to a *region* of
//! the old archive, as `zstd --patch-from` refers to the whole of it. Where the region lies is decided by the vendor: around
//! the old place of the file in which the piece begins, so that files which came or went before it do not matter.
//! Regions only move forward; so both sides read the old archive once, as a stream, and hold no more than one region and
//! one piece in memory, whatever the size of the application.
//!
//! ```text
//! file    = "AHDELTA1" piece* end
//! piece   = region_start u64 · region_bytes u32 · piece_bytes u32 · frame_bytes u32 · frame      (little endian)
//! end     = the same 20 bytes, all zero
//! ```
//!
//! *Invariant:* what [`apply`] leaves behind has the hash that it was asked for, or is not there. Whether the old archive
//! was intact need not be asked: if it was not, the hash says so. The caller then takes the full archive.
//!
//! Deliberately absent: finding files that were renamed, and any promise about the bytes of the *compressed* archive,
//! which depend on the version of zstd.

mod apply;
mod error;
mod index;
mod make;
mod region;
#[cfg(test)]
mod tests;

use std::io;
use std::io::Read;
use std::io::Write;

pub(in crate::feed) use crate::feed::delta::apply::apply;
pub use crate::feed::delta::error::DeltaError;
pub use crate::feed::delta::make::make;
pub use crate::feed::delta::make::make_watched;

/// How hard zstd tries. What both archives have is found by the long distance matcher at any level; the highest levels took two
/// minutes and a gigabyte for each 100 MB, and saved little of what is left.
pub const LEVEL: i32 = 3;
/// How much of the new archive one frame makes.
const PIECE_BYTES: usize = 32 * 1024 * 1024;
/// How far the region of a piece reaches to either side of its place.
const SLACK_BYTES: u64 = 16 * 1024 * 1024;
/// The largest region: a piece, and its slack on both sides.
const REGION_BYTES_MAX: usize = PIECE_BYTES + 2 * SLACK_BYTES as usize;
/// The largest frame: a piece that does not compress at all, and what zstd adds to it.
const FRAME_BYTES_MAX: usize = PIECE_BYTES + PIECE_BYTES / 128 + 1024;
/// The window that sees a piece and its region: 128 MiB.
const WINDOW_LOG: u32 = 27;
/// How a delta begins.
const MAGIC: &[u8; 8] = b"AHDELTA1";

/// What stands before each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Head {
    region_start: u64,
    region_bytes: u32,
    piece_bytes: u32,
    frame_bytes: u32,
}

impl Head {
    const BYTES: usize = 20;

    fn write(self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.region_start.to_le_bytes())?;
        out.write_all(&self.region_bytes.to_le_bytes())?;
        out.write_all(&self.piece_bytes.to_le_bytes())?;
        out.write_all(&self.frame_bytes.to_le_bytes())
    }

    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut bytes = [0; Self::BYTES];
        from.read_exact(&mut bytes)?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok(Self {
            region_start: u64::from(word(0)) | u64::from(word(4)) << 32,
            region_bytes: word(8),
            piece_bytes: word(12),
            frame_bytes: word(16),
        })
    }

    /// Whether no more is asked for than a vendor's `make` ever asks.
    fn is_modest(self) -> bool {
        let within = |bytes: u32, max: usize| usize::try_from(bytes).is_ok_and(|bytes| bytes <= max);
        within(self.region_bytes, REGION_BYTES_MAX)
            && within(self.piece_bytes, PIECE_BYTES)
            && within(self.frame_bytes, FRAME_BYTES_MAX)
    }
}
