//! Starts the new version.

use crate::domain::failure::Failure;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let kit = context.kit;
    let seen = or_fail!(kit.service.start(&context.env()).await);
    context.hook("after_start", kit.app.hooks.after_start.as_ref()).await?;
    Ok(Done::saying(format!("{} is started; {seen}", context.release()?.id)))
}

pub(super) async fn undo(context: &Context<'_>) -> Result<String, Failure> {
    let seen = or_fail!(context.kit.service.stop(&context.marked_env().await?).await);
    Ok(format!("the new version is stopped; {seen}"))
}
