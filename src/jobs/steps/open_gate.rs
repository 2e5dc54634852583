//! Admits users again, by the application's policy.

use crate::config::settings::OpenGate;
use crate::domain::failure::Failure;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let (kit, gatekeeper) = (context.kit, &context.night.gatekeeper);
    // The new version is accepted: from now on anybody may start it.
    or_fail!(kit.installer.lift_hold().await);
    if let Some(failure) = context.bring_up_resolved().await? {
        return Ok(Done::saying(context.leave_closed(&failure).await?));
    }
    match &kit.app.open_gate {
        OpenGate::ByHand => {
            let message = format!("{} was updated and is being looked at", kit.app.title);
            gatekeeper.leave_closed(kit, context.run, &message).await?;
            return Ok(Done::saying(format!("the gate waits for `afterhours gate open {}`", kit.app.name)));
        }
        OpenGate::After(argv) => context.hook("open_gate", Some(argv)).await?,
        OpenGate::Automatic => {}
    }
    let open = or_fail!(gatekeeper.open_for_run(kit, context.run).await);
    Ok(Done::saying(if open { "users may log in" } else { "the gate stays closed: an operator has closed it" }))
}
