//! Fetches, verifies, unpacks and prepares every release of the path beside the installation.

use crate::domain::failure::Failure;
use crate::install::hold_path;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;
use crate::jobs::steps::counted;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let kit = context.kit;
    or_fail!(kit.installer.place().await);
    for release in context.path() {
        let tree = kit.installer.staged_path(&release.id);
        or_fail!(kit.feed.stage(release, &tree, context.progress()).await);
        // Owners and durability are seen to now, so that the swap costs nothing but the swap.
        or_fail!(kit.installer.prepare(&release.id).await);
        if release.migrate_as_root {
            or_fail!(kit.installer.copy_for_root(&release.id).await);
        }
    }
    // The service learns to heed the hold while there is time; the stop then only has to write a file.
    or_fail!(kit.service.install_hold(&hold_path(&kit.app)).await);
    let bytes: u64 = context.path().iter().map(crate::domain::release::Release::unpacked_bytes).sum();
    Ok(Done::saying(format!("{} staged, {bytes} bytes", counted(context.path().len() as u64, "release"))))
}
