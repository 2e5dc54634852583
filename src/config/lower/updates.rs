//! `updates`.

use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::input::UpdatesInput;
use crate::config::lower::check;
use crate::config::settings::UpdateSettings;

/// Which releases are taken.
pub(super) fn updates(place: &Place, input: UpdatesInput) -> Result<UpdateSettings, Problem> {
    let class = |class| check::text(&place.key("licence_class"), class);
    let default = UpdateSettings::default();
    Ok(UpdateSettings {
        cool_down: input.cool_down.unwrap_or(default.cool_down),
        rollout: input.rollout.unwrap_or(default.rollout),
        licence_class: input.licence_class.map(class).transpose()?,
        deltas: input.deltas.unwrap_or(default.deltas),
    })
}
