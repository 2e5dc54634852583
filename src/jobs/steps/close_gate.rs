//! Refuses new logins from here on.

use crate::domain::failure::Failure;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let message = format!("{} is being updated", context.kit.app.title);
    context.night.gatekeeper.close_for_run(context.kit, context.run, &message, None).await?;
    Ok(Done::saying("no new logins"))
}

pub(super) async fn undo(context: &Context<'_>) -> Result<String, Failure> {
    context.bring_up_resolved().await?;
    let open = context.night.gatekeeper.open_for_run(context.kit, context.run).await?;
    Ok(if open { "users may log in" } else { "the gate stays closed: an operator has closed it" }.to_owned())
}
