//! `updates`.

use crate::config::error::Place;
use crate::config::error::Problem;
use crate::config::input::UpdatesInput;
use crate::config::lower::check;
use crate::config::settings::UpdateSettings;
use crate::domain::span::Span;

/// The word for no period.
const NEVER: &str = "never";
/// A shorter period is a load on the vendor and helps nobody.
const CHECK_EVERY_MIN: Span = Span::mins(1);

/// Which releases are taken, and when they are looked for.
pub(super) fn updates(place: &Place, input: UpdatesInput) -> Result<UpdateSettings, Problem> {
    let class = |class| check::text(&place.key("licence_class"), class);
    let every = |text: String| check_every(&place.key("check_every"), &text);
    let default = UpdateSettings::default();
    Ok(UpdateSettings {
        cool_down: input.cool_down.unwrap_or(default.cool_down),
        rollout: input.rollout.unwrap_or(default.rollout),
        check_at_start: input.check_at_start.unwrap_or(default.check_at_start),
        check_every: input.check_every.map_or(Ok(default.check_every), every)?,
        licence_class: input.licence_class.map(class).transpose()?,
        deltas: input.deltas.unwrap_or(default.deltas),
    })
}

fn check_every(place: &Place, text: &str) -> Result<Option<Span>, Problem> {
    if text == NEVER {
        return Ok(None);
    }
    let span: Span = text.parse().map_err(|error| place.wrong(format!("{error}, or {NEVER}")))?;
    if span < CHECK_EVERY_MIN {
        return Err(place
            .wrong(format!("\"{text}\" is too often; at most every {CHECK_EVERY_MIN}"))
            .hint("or \"never\"; `afterhours update check` looks at once"));
    }
    Ok(Some(span))
}
