//! Waits until the new version answers, several times in a row.
//!
//! Where it does not because its process ends again and again, what it said last is the cause that a
//! person needs; a health command only sees that nobody is there.

use crate::domain::failure::Failure;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;
use crate::jobs::steps::failed;
use crate::service::ServiceStatus;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let version = &context.release()?.id.version;
    let progress = context.progress();
    let began_as = context.kit.service.status().await.ok();
    let healthy = match context.kit.probe.wait_healthy(Some(version), &context.env(), progress.as_ref()).await {
        Ok(healthy) => healthy,
        Err(error) => {
            let failure = failed(&error, error.hint());
            let now = context.kit.service.status().await.ok();
            let ended = now != began_as || matches!(now, Some(ServiceStatus::Failed(_)));
            return Err(if ended { failure.because(last_words(context).await) } else { failure });
        }
    };
    let took_ms = healthy.took.duration().as_millis();
    Ok(Done::saying(format!(
        "version {version} answers; {} good answers after {took_ms} ms",
        context.kit.app.health.times
    )))
}

async fn last_words(context: &Context<'_>) -> String {
    match context.kit.service.last_words().await {
        Some(said) => format!("the application ended by itself; it said: {said}"),
        None => "the application ended by itself; its own log says why".to_owned(),
    }
}
