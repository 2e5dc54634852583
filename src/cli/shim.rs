//! What is still to come.

use std::path::PathBuf;

use anyhow::Result;
use anyhow::bail;

/// The demo, in `dir`, which is kept, or in a directory of its own, which is not.
pub(crate) async fn demo(_dir: Option<PathBuf>) -> Result<()> {
    bail!("show the demo: not wired yet")
}
