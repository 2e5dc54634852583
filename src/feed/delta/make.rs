//! The vendor's half: compares two archives.

use std::fs::File;
use std::io;
use std::io::BufReader;
use std::io::BufWriter;
use std::io::Read;
use std::io::Write;
use std::path::Path;

use zstd::stream::raw::CParameter;
use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use crate::domain::progress::Progress;
use crate::domain::progress::Silent;
use crate::feed::delta::DeltaError;
use crate::feed::delta::Head;
use crate::feed::delta::LEVEL;
use crate::feed::delta::MAGIC;
use crate::feed::delta::PIECE_BYTES;
use crate::feed::delta::REGION_BYTES_MAX;
use crate::feed::delta::SLACK_BYTES;
use crate::feed::delta::WINDOW_LOG;
use crate::feed::delta::index::Index;
use crate::feed::delta::index::Map;
use crate::feed::delta::region::Regions;

/// Writes into `out` what turns the tar archive in `old` into the one in `new`; both are compressed. Blocking.
///
/// # Errors
/// One of the archives cannot be read, or `out` not be written; then what there is of `out` is of no use.
pub fn make(old: &Path, new: &Path, out: &Path) -> Result<(), DeltaError> {
    make_watched(old, new, out, &Silent)
}

/// The same; progress counts the bytes of the new tar archive.
///
/// # Errors
/// As for [`make`].
pub fn make_watched(old: &Path, new: &Path, out: &Path, progress: &dyn Progress) -> Result<(), DeltaError> {
    let map = Map::new(&index(old)?, &index(new)?);
    let mut regions = Regions::new(open(old)?);
    let mut source = open(new)?;
    let unwritten = |source| DeltaError::Write { path: out.to_owned(), source };
    let mut writer = BufWriter::new(File::create(out).map_err(unwritten)?);
    writer.write_all(MAGIC).map_err(unwritten)?;
    let (mut at, mut region_start) = (0, 0);
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    loop {
        piece.clear();
        source.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece).map_err(unread(new))?;
        if piece.is_empty() {
            break;
        }
        // Regions never move back, or the site could not read its archive as a stream.
        region_start = region_start.max(map.old_place(at).saturating_sub(SLACK_BYTES));
        let region = regions.at(region_start, REGION_BYTES_MAX).map_err(unread(old))?;
        let frame = compress(&piece, region).map_err(unwritten)?;
        Head {
            region_start,
            region_bytes: region.len() as u32,
            piece_bytes: piece.len() as u32,
            frame_bytes: frame.len() as u32,
        }
        .write(&mut writer)
        .and_then(|()| writer.write_all(&frame))
        .map_err(unwritten)?;
        at += piece.len() as u64;
        progress.advance(at, None, "small download");
    }
    Head::default().write(&mut writer).map_err(unwritten)?;
    let file = writer.into_inner().map_err(|error| unwritten(error.into_error()))?;
    file.sync_all().map_err(unwritten)
}

fn index(archive: &Path) -> Result<Index, DeltaError> {
    Index::read(open(archive)?).map_err(unread(archive))
}

fn open(archive: &Path) -> Result<Decoder<'static, BufReader<File>>, DeltaError> {
    let decoder = File::open(archive).and_then(Decoder::new);
    decoder.and_then(|mut decoder| decoder.window_log_max(WINDOW_LOG).map(|()| decoder)).map_err(unread(archive))
}

fn unread(archive: &Path) -> impl Fn(io::Error) -> DeltaError + '_ {
    |source| DeltaError::ReadArchive { path: archive.to_owned(), source }
}

fn compress(piece: &[u8], region: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = Encoder::with_ref_prefix(Vec::new(), LEVEL, region)?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    // The tables of a level remember the piece alone; this finds the region again, however large it is.
    encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
    encoder.set_pledged_src_size(Some(piece.len() as u64))?;
    encoder.write_all(piece)?;
    encoder.finish()
}
