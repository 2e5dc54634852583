//! A copy of a tree for a migration that must run as root.
//!
//! The tree in place belongs to the application, so what is in it is never run as root. The copy is made while the tree is
//! still where nobody else can go, and belongs to root.

use std::path::PathBuf;

use crate::domain::release::ReleaseId;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::ExecError;
use crate::install::durable;
use crate::install::error::InstallError;
use crate::install::layout::Layout;

/// How long the copy may take.
const COPY_DEADLINE: Span = Span::hours(1);

/// Where the copy of `id` is.
pub(super) fn path(layout: &Layout, id: &ReleaseId) -> PathBuf {
    layout.for_root().join(format!("{}+{}", id.version, id.build))
}

/// An empty place for it.
pub(super) fn begin(layout: &Layout, id: &ReleaseId) -> Result<PathBuf, InstallError> {
    let to = path(layout, id);
    durable::remove_any(&to)?;
    durable::create_dir(&layout.for_root())?;
    Ok(to)
}

/// Copies the staged tree of `id`, all of it root's.
pub(super) async fn copy(layout: &Layout, id: &ReleaseId, to: PathBuf) -> Result<(), ExecError> {
    let args = ["-a", "--no-preserve=ownership", "--reflink=auto", "-T", "--"].map(str::to_owned);
    let paths = [layout.staged(id), to].map(|path| path.to_string_lossy().into_owned());
    Exec::ours("cp", args.into_iter().chain(paths), COPY_DEADLINE).run().await.map(drop)
}
