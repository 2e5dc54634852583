//! Refuses new logins from here on.

use crate::domain::failure::Failure;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let message = format!("{} is being updated", context.kit.app.title);
    let grace = context.machine.order().grace.unwrap_or(context.kit.app.grace);
    let back_at = context.back_at(context.night.clock.now() + grace.delta()).await;
    or_fail!(context.night.gatekeeper.close_for_run(context.kit, context.run, &message, Some(back_at)).await);
    Ok(Done::saying(match context.kit.gate.unkept() {
        None => "no new logins".to_owned(),
        Some(unkept) => format!("the gate is closed, with a warning: {unkept}"),
    }))
}

pub(super) async fn undo(context: &Context<'_>) -> Result<String, Failure> {
    if let Some(failure) = context.bring_up_resolved().await? {
        return context.leave_closed(&failure).await;
    }
    let open = or_fail!(context.night.gatekeeper.open_for_run(context.kit, context.run).await);
    Ok(if open { "users may log in" } else { "the gate stays closed: an operator has closed it" }.to_owned())
}
