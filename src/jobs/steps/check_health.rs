//! Waits until the new version answers, several times in a row.

use crate::domain::failure::Failure;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;
use crate::jobs::steps::or_fail;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let version = &context.release()?.id.version;
    let progress = context.progress();
    let healthy = or_fail!(context.kit.probe.wait_healthy(Some(version), &context.env(), progress.as_ref()).await);
    let took_ms = healthy.took.duration().as_millis();
    Ok(Done::saying(format!(
        "version {version} answers; {} good answers after {took_ms} ms",
        context.kit.app.health.times
    )))
}
