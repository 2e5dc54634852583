//! Waits until the new version answers, several times in a row.
//!
//! Where it does not because its process ends again and again, what it said last is the cause that a
//! person needs; a health command only sees that nobody is there.

use crate::domain::failure::Failure;
use crate::domain::foreign;
use crate::jobs::blame;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;
use crate::jobs::steps::failed;
use crate::service::ServiceStatus;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let kit = context.kit;
    let release = context.release()?;
    let progress = context.progress();
    let began_as = kit.service.status().await.ok();
    let healthy = match kit.probe.wait_healthy(Some(&release.answers()), &context.env(), progress.as_ref()).await {
        Ok(healthy) => healthy,
        Err(error) => {
            let failure = failed(&error, error.hint()).of_release(!error.is_ours());
            let now = kit.service.status().await.ok();
            let ended = now != began_as || matches!(now, Some(ServiceStatus::Failed(_)));
            let mut failure = if ended { failure.because(last_words(context).await) } else { failure };
            failure.exhibits = error.exhibit().into_iter().chain(kit.service.exhibits().await).collect();
            return Err(blame::settle(&kit.app, failure));
        }
    };
    let answers = match healthy.version {
        Some(version) => format!("version {} answers", foreign::short(&version)),
        None => format!("{} answers, without telling its version", kit.app.title),
    };
    let (times, took_ms) = (kit.app.health.times, healthy.took.duration().as_millis());
    Ok(Done::saying(match healthy.asked {
        0 => "nothing is asked".to_owned(),
        _ => format!("{answers}; {times} good answers after {took_ms} ms"),
    }))
}

async fn last_words(context: &Context<'_>) -> String {
    match context.kit.service.last_words().await {
        Some(said) => format!("the application ended by itself; it said: {said}"),
        None => "the application ended by itself; its own log says why".to_owned(),
    }
}
