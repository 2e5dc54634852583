//! Moves out of the way what retention does not keep. A chore removes it when nobody waits.

use crate::domain::failure::Failure;
use crate::install::Left;
use crate::jobs::driver::Done;
use crate::jobs::self_update::awaited;
use crate::jobs::steps::Context;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    if context.machine.known().started.is_none() {
        // Another run may have its turn just now.
        return Ok(Done::saying("nothing was begun"));
    }
    let installer = &context.kit.installer;
    or_fail!(context.kit.service.remove_hold().await);
    if context.machine.is_committed() {
        let path: Vec<_> = context.path().iter().map(|release| release.id.clone()).collect();
        let left = or_fail!(installer.retire(context.run, &path).await);
        // The archive of what runs now is what the next small download starts from.
        let awaited = awaited(context.kit, &context.night.store).await?;
        or_fail!(context.kit.feed.retain(context.path().last().map_or(&[], std::slice::from_ref), &awaited));
        return Ok(Done::saying(with(left, "the old version is kept beside the new one")));
    }
    if context.machine.known().resolved.is_some() {
        return Ok(Done::saying("the snapshot is kept, in case the person was wrong"));
    }
    let left = or_fail!(installer.discard(context.run).await);
    Ok(Done::saying(with(left, "what is left of the attempt is out of the way")))
}

/// What was done, and what could not be moved.
fn with(left: Left, done: &str) -> String {
    match left.because {
        Some(because) => format!("{done}, but {} stays: failed to {}", left.entries, Failure::from_error(&because)),
        None => done.to_owned(),
    }
}
