//! The hold file: while it exists, a reboot must not start the application, because its data may be half-migrated.
//!
//! The service's unit asks for its absence (`ConditionPathExists=!`).

use std::fs;

use crate::install::durable;
use crate::install::error::At;
use crate::install::error::InstallError;
use crate::install::layout::Layout;

const TEXT: &[u8] = b"An update is between stop and commit. Afterhours removes this file; \
if it does not run any more, `afterhours run resolve` does.\n";

/// Puts the hold file in place, durably.
pub(super) fn hold(layout: &Layout) -> Result<(), InstallError> {
    durable::create_dir(&layout.staging_dir)?;
    if !is_held(layout)? {
        // That it is there is all that counts, so its text need not be durable.
        fs::write(layout.hold(), TEXT).at("write", &layout.hold())?;
    }
    durable::fsync_dir(&layout.staging_dir)
}

/// Takes it away, durably.
pub(super) fn lift_hold(layout: &Layout) -> Result<(), InstallError> {
    durable::remove_file_durably(&layout.hold())
}

/// Whether it is there.
pub(super) fn is_held(layout: &Layout) -> Result<bool, InstallError> {
    durable::exists(&layout.hold())
}
