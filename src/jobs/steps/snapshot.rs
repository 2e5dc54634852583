//! Copies the data for rollback: once while people still work, then what has changed until the stop.
//!
//! The program needs no copy: the swap keeps the old tree whole.

use crate::domain::failure::Failure;
use crate::install::SnapshotReport;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;
use crate::jobs::steps::counted;

pub(super) async fn act_ahead(context: &Context<'_>) -> Result<Done, Failure> {
    let report = or_fail!(context.kit.installer.snapshot_ahead(context.run, context.progress()).await);
    Ok(Done::saying(said(&report)))
}

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let report = or_fail!(context.kit.installer.snapshot(context.run, context.progress()).await);
    Ok(Done::saying(said(&report)))
}

fn said(report: &SnapshotReport) -> String {
    let SnapshotReport { files, bytes, copied_files, copied_bytes, .. } = report;
    let (files, copied_files) = (counted(*files, "file"), counted(*copied_files, "file"));
    format!("{files}, {bytes} bytes; copied now: {copied_files}, {copied_bytes} bytes")
}
