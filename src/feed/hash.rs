//! What a file's bytes are, in one line.

use std::io;
use std::io::Read;

use sha2::Digest;
use sha2::Sha256;

use crate::domain::hex::hex;

/// How much is read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// The SHA-256 of all that can be read, in hexadecimal digits. Blocking.
///
/// # Errors
/// It cannot be read to its end.
pub(in crate::feed) fn sha256_of(mut source: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match source.read(&mut chunk) {
            Ok(0) => return Ok(hex(hash.finalize())),
            Ok(read) => hash.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
