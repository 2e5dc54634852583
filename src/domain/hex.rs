//! Bytes as people and files write them.

/// Two hexadecimal digits a byte, small letters: as `sha256sum` prints a hash.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
