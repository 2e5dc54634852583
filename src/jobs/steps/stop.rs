//! Stops the service and verifies that it is down.
//!
//! From here until the commit a hold keeps everybody but us, a reboot above all, from starting the
//! application. Each start of ours has its own permit.

use crate::domain::event::How;
use crate::domain::failure::Failure;
use crate::domain::foreign;
use crate::domain::progress::Silent;
use crate::domain::session::Census;
use crate::domain::session::Session;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let kit = context.kit;
    // From here on the gate does not open by itself, whatever becomes of us.
    let message = format!("{} is being updated", kit.app.title);
    context.night.gatekeeper.pin(kit, context.run, &message).await?;
    if context.how == How::Act {
        nobody_came_back(context).await?;
    }
    if context.at.build == 0 {
        context.hook("before_stop", kit.app.hooks.before_stop.as_ref()).await?;
    }
    or_fail!(kit.installer.hold().await);
    Ok(Done::saying(or_fail!(kit.service.stop(&context.marked_env().await?).await)))
}

/// Between the log-out and the pinned gate somebody may have slipped in, with a pass or through a gate that an
/// operator has opened. Their work must not be lost.
async fn nobody_came_back(context: &Context<'_>) -> Result<(), Failure> {
    match context.kit.sessions.census().await {
        Census::Known(sessions) if sessions.is_empty() => Ok(()),
        Census::Known(sessions) => {
            let users = foreign::names(sessions.iter().map(Session::who));
            Err(Failure::new(format!("stop: logged in again meanwhile: {users}"))
                .hint("start the job again; until then the gate is open as before"))
        }
        Census::Unknown(reason) => Err(Failure::new("find out whether anybody has logged in again").because(reason)),
    }
}

pub(super) async fn undo(context: &Context<'_>) -> Result<String, Failure> {
    let kit = context.kit;
    let seen = or_fail!(kit.service.start(&context.env()).await);
    let expected = context.machine.known().from.as_ref().map(|from| &from.version);
    let healthy = or_fail!(kit.probe.wait_healthy(expected, &context.env(), &Silent).await);
    or_fail!(kit.installer.lift_hold().await);
    let version = healthy.version.or_else(|| expected.map(ToString::to_string));
    let version = version.map(|version| format!(" {version}")).unwrap_or_default();
    Ok(format!("the old version{version} runs again: {seen}"))
}
