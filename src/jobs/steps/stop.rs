//! Stops the service and verifies that it is down.
//!
//! From here until the commit a hold keeps everybody but us, a reboot above all, from starting the
//! application. Each start of ours has its own permit.

use crate::domain::answers::Before;
use crate::domain::event::How;
use crate::domain::failure::Failure;
use crate::domain::foreign;
use crate::domain::progress::Silent;
use crate::domain::run::Side;
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
    match context.census().await {
        Census::Known(sessions) if sessions.is_empty() => Ok(()),
        Census::Known(sessions) => {
            let users = foreign::names(sessions.iter().map(Session::who));
            Err(Failure::new(format!("stop: logged in again meanwhile: {users}"))
                .hint("start the job again; until then the gate is open as before"))
        }
        Census::Unknown(reason) => Err(Failure::new("find out whether anybody has logged in again").because(reason)),
    }
}

/// No more is asked of the old version than it could do before the run.
pub(super) async fn undo(context: &Context<'_>) -> Result<String, Failure> {
    let kit = context.kit;
    let started = kit.service.start(&context.env()).await;
    let known = context.machine.known();
    let said = match (&known.before, started) {
        // It was to be mended, and was not; now it is as it was.
        (Some(Before::Down), Ok(seen)) => {
            format!("the old version is started again; before the run it was down: {seen}")
        }
        (Some(Before::Down), Err(_)) => {
            "the old version is in place again, and as before the run it does not start".to_owned()
        }
        (Some(Before::Ill), started) => {
            let seen = or_fail!(started);
            format!("the old version runs again: {seen}; it did not pass its health check before the run, either")
        }
        (Some(Before::Well { .. }) | None, started) => {
            let seen = or_fail!(started);
            let expected = context.machine.answers_of(Side::Old);
            let env = kit.standing_env(context.run, known.from.as_ref());
            let healthy = or_fail!(kit.probe.wait_healthy(expected.as_ref(), &env, &Silent).await);
            let version = healthy.version.or_else(|| known.from.as_ref().map(|from| from.version.to_string()));
            let version = version.map(|version| format!(" {}", foreign::short(&version))).unwrap_or_default();
            format!("the old version{version} runs again: {seen}")
        }
    };
    or_fail!(kit.installer.lift_hold().await);
    Ok(said)
}
