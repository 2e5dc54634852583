//! The site's half: makes the new archive out of the old one and a delta.

use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::BufWriter;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use sha2::Digest;
use sha2::Sha256;
use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use crate::domain::hex::hex;
use crate::domain::progress::Progress;
use crate::feed::archive::Cancel;
use crate::feed::delta::DeltaError;
use crate::feed::delta::Head;
use crate::feed::delta::MAGIC;
use crate::feed::delta::WINDOW_LOG;
use crate::feed::delta::region::Regions;

/// How hard zstd tries: the archive is read once, and once more as the base of the next delta.
const LEVEL: i32 = 1;

/// Makes the compressed archive `into` out of the archive `base` and `delta`, if the tar archive in it has `tar_sha256`.
/// Blocking; progress counts the bytes of the tar archive.
///
/// It is written beside its place as `into` with `.part`, and renamed when it is known to be right and on disk.
///
/// # Errors
/// Something cannot be read or written, or is not what it should be; then `into` is not there, and nothing is left of it.
pub(in crate::feed) fn apply(
    base: &Path,
    delta: &Path,
    tar_sha256: &str,
    into: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(), DeltaError> {
    let part = part_of(into);
    let made = Applying { base, delta, progress, cancel }.write(&part, tar_sha256).and_then(|()| {
        std::fs::rename(&part, into)
            .and_then(|()| into.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all()))
            .map_err(|source| DeltaError::Write { path: into.to_owned(), source })
    });
    if made.is_err() {
        // The next try writes it anew; this only gives the space back at once.
        let _ = std::fs::remove_file(&part);
    }
    made
}

fn part_of(into: &Path) -> PathBuf {
    let mut name = into.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

struct Applying<'a> {
    base: &'a Path,
    delta: &'a Path,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

impl Applying<'_> {
    fn write(&self, part: &Path, tar_sha256: &str) -> Result<(), DeltaError> {
        let unwritten = |source| DeltaError::Write { path: part.to_owned(), source };
        let mut regions = Regions::new(self.open_base()?);
        let mut frames = self.open_delta()?;
        let file = BufWriter::new(File::create(part).map_err(unwritten)?);
        let mut encoder = Encoder::new(file, LEVEL).map_err(unwritten)?;
        encoder.include_checksum(true).map_err(unwritten)?;
        let (mut hash, mut at) = (Sha256::new(), 0);
        let mut piece = Vec::new();
        while let Some((head, frame)) = self.next(&mut frames)? {
            if self.cancel.is_cancelled() {
                return Err(DeltaError::Cancelled { path: self.delta.to_owned() });
            }
            let region = regions
                .at(head.region_start, head.region_bytes as usize)
                .map_err(|source| DeltaError::ReadArchive { path: self.base.to_owned(), source })?;
            decompress(&frame, region, head.piece_bytes, &mut piece).map_err(|source| DeltaError::Apply {
                path: self.delta.to_owned(),
                at,
                source,
            })?;
            hash.update(&piece);
            encoder.write_all(&piece).map_err(unwritten)?;
            at += piece.len() as u64;
            self.progress.advance(at, None, "applying the delta");
        }
        let found: String = hex(hash.finalize());
        if found != tar_sha256 {
            let (base, delta) = (self.base.to_owned(), self.delta.to_owned());
            return Err(DeltaError::WrongHash { base, delta, wanted: tar_sha256.to_owned(), found });
        }
        let file = encoder.finish().map_err(unwritten)?.into_inner().map_err(|e| unwritten(e.into_error()))?;
        file.sync_all().map_err(unwritten)
    }

    fn open_base(&self) -> Result<Decoder<'static, BufReader<File>>, DeltaError> {
        let decoder = File::open(self.base).and_then(Decoder::new);
        decoder
            .and_then(|mut decoder| decoder.window_log_max(WINDOW_LOG).map(|()| decoder))
            .map_err(|source| DeltaError::ReadArchive { path: self.base.to_owned(), source })
    }

    fn open_delta(&self) -> Result<BufReader<File>, DeltaError> {
        let unread = |source| DeltaError::ReadDelta { path: self.delta.to_owned(), source };
        let mut file = BufReader::new(File::open(self.delta).map_err(unread)?);
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).map_err(unread)?;
        if magic == *MAGIC { Ok(file) } else { Err(self.malformed("it does not begin as one")) }
    }

    /// The next frame; nothing at the end.
    fn next(&self, frames: &mut impl Read) -> Result<Option<(Head, Vec<u8>)>, DeltaError> {
        let unread = |source| DeltaError::ReadDelta { path: self.delta.to_owned(), source };
        let head = Head::read(frames).map_err(unread)?;
        if head == Head::default() {
            let more = frames.read(&mut [0]).map_err(unread)?;
            return if more == 0 { Ok(None) } else { Err(self.malformed("it goes on after its end")) };
        }
        if !head.is_modest() {
            return Err(self.malformed("a piece is larger than any can be"));
        }
        let mut frame = vec![0; head.frame_bytes as usize];
        frames.read_exact(&mut frame).map_err(unread)?;
        Ok(Some((head, frame)))
    }

    fn malformed(&self, problem: &'static str) -> DeltaError {
        DeltaError::Malformed { path: self.delta.to_owned(), problem }
    }
}

/// Makes one piece; exactly as long as it was declared to be.
fn decompress(frame: &[u8], region: &[u8], piece_bytes: u32, piece: &mut Vec<u8>) -> io::Result<()> {
    let mut decoder = Decoder::with_ref_prefix(frame, region)?;
    decoder.window_log_max(WINDOW_LOG)?;
    piece.clear();
    // One byte more than there may be, so that more is noticed.
    decoder.take(u64::from(piece_bytes) + 1).read_to_end(piece)?;
    if piece.len() == piece_bytes as usize {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "a piece has another size than declared"))
    }
}
