//! Updates Afterhours itself first: this process stops in order, and the run goes on under the new program.
//!
//! The step ends in another process than the one it began in. What became of it is in the renewal's record; there is
//! no result that depends on a newer Afterhours, so whatever goes wrong here is a finding, and the run goes on.

use std::future::pending;
use std::path::Path;

use crate::db::copy::copy;
use crate::domain::event::Output;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::held::in_utc;
use crate::domain::release::Release;
use crate::domain::release::ReleaseId;
use crate::exec::leftover;
use crate::jobs::driver::Done;
use crate::jobs::select::select;
use crate::jobs::self_update::CHECK;
use crate::jobs::self_update::UNVOUCHED;
use crate::jobs::self_update::awaited;
use crate::jobs::self_update::outlook;
use crate::jobs::self_update::trouble;
use crate::jobs::steps::Context;
use crate::jobs::steps::failed;
use crate::renewal::Ended;
use crate::renewal::Ending;
use crate::renewal::Offer;
use crate::renewal::Own;
use crate::renewal::Renewal;
use crate::renewal::RenewalError;
use crate::renewal::UPDATER;
use crate::renewal::Wish;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let done = renew(context).await?;
    if let Err(failure) = give_back(context).await {
        tracing::warn!(%failure, "what was downloaded of Afterhours stays where it is");
    }
    Ok(done)
}

/// A program that was put in its place, or that failed, is not needed as an archive any more.
async fn give_back(context: &Context<'_>) -> Result<(), Failure> {
    let awaited = awaited(context.kit, &context.night.store).await?;
    or_fail!(context.kit.feed.retain_updaters(&awaited));
    Ok(())
}

async fn renew(context: &Context<'_>) -> Result<Done, Failure> {
    let renewal = &context.kit.renewal;
    if let Some(ended) = or_fail!(renewal.last()) {
        note(context, &ended).await?;
        // Once a run, whatever came of it.
        if ended.run == context.run {
            return Ok(told(&ended));
        }
    }
    if !renewal.is_on() {
        return Ok(Done::saying("Afterhours does not update itself here"));
    }
    let (store, now) = (&context.night.store, context.night.clock.now());
    let wish = crate::jobs::select::Wish::of_run(store, context.run, context.machine.order()).await?;
    // Where nothing can be selected, the step of that name says why.
    let path = select(context.kit, store, &wish, now).await.map(|selection| selection.path).unwrap_or_default();
    let outlook = match outlook(context.kit, store, &path, now).await {
        Ok(outlook) => outlook,
        Err(failure) => return Ok(stays(trouble(&failure))),
    };
    match outlook.offer {
        Offer::Nothing => {
            let none = if outlook.unvouched { UNVOUCHED } else { "the feed has no newer one" };
            let why = outlook.held.map_or_else(|| none.to_owned(), |held| held.fact(in_utc));
            Ok(Done::saying(format!("Afterhours {} stays; {why}", outlook.own)))
        }
        // Preflight has found it already.
        Offer::HeldBack(id) | Offer::Unfit(id) => {
            Ok(Done::saying(format!("Afterhours {} stays, not {id}", outlook.own)))
        }
        Offer::Newer(release) => go_over(context, outlook.own, &release).await,
    }
}

/// A build that failed here is not tried again by itself.
async fn note(context: &Context<'_>, ended: &Ended) -> Result<(), Failure> {
    if ended.noted {
        return Ok(());
    }
    if let Ending::PutBack { reason } = &ended.ending {
        hold_back(context, &ended.to, reason.clone()).await?;
    }
    or_fail!(context.kit.renewal.is_noted().await);
    Ok(())
}

async fn hold_back(context: &Context<'_>, id: &ReleaseId, reason: String) -> Result<(), Failure> {
    let now = context.night.clock.now();
    context.night.store.quarantine(&Renewal::name()?, id, context.run, now, reason).await?;
    Ok(())
}

fn told(ended: &Ended) -> Done {
    let Ended { from, to, ending, .. } = ended;
    let remedy = format!("tell its vendor; to try it again: afterhours update allow {} --app {UPDATER}", to.version);
    match ending {
        Ending::Confirmed => Done::saying(format!("Afterhours {to} runs, before it was {from}")),
        Ending::PutBack { reason } => {
            let text =
                format!("Afterhours {to} did not come up: {reason}; {from} runs again, with the store as it was");
            stays(Finding::warning(CHECK, text, remedy))
        }
        Ending::NotTried { reason } => {
            let text = format!("Afterhours {from} stays; {to} was not tried: {reason}");
            stays(Finding::warning(CHECK, text, "the next run tries it again"))
        }
    }
}

/// The run goes on under the Afterhours that runs.
fn stays(finding: Finding) -> Done {
    Done { message: finding.text.clone(), output: Output::Checked { findings: vec![finding], before: None } }
}

/// Ends only when it does not come to it: else this process is replaced while it waits here.
async fn go_over(context: &Context<'_>, own: Own, release: &Release) -> Result<Done, Failure> {
    let renewal = &context.kit.renewal;
    if let Some(obstacle) = renewal.obstacle(CHECK).await {
        return Ok(stays(obstacle));
    }
    if let Some(away) = another_is_away(context).await? {
        let text = format!("Afterhours {own} stays for now: run {away} is between stop and commit");
        return Ok(stays(Finding::warning(CHECK, text, "the next run updates Afterhours")));
    }
    // Runs of several applications may come here at once; the process goes over once.
    let _turn = renewal.turn().await;
    if renewal.wish().is_none() {
        match prepare(context, release).await {
            Ok(program) => renewal.wish_for(Wish { run: context.run, from: own, to: release.id.clone(), program }),
            Err(Unprepared { failure, blames_release }) => {
                if blames_release {
                    hold_back(context, &release.id, failure.to_string()).await?;
                }
                return Ok(stays(trouble(&failure)));
            }
        }
    }
    pending().await
}

async fn another_is_away(context: &Context<'_>) -> Result<Option<crate::domain::run::RunId>, Failure> {
    let runs = context.night.store.unfinished_runs().await?;
    Ok(runs.into_iter().find(|run| run.away && run.id != context.run).map(|run| run.id))
}

/// Why it does not come to it.
struct Unprepared {
    failure: Failure,
    blames_release: bool,
}

impl From<RenewalError> for Unprepared {
    fn from(error: RenewalError) -> Self {
        use RenewalError::NoProgram;
        use RenewalError::OtherVersion;
        use RenewalError::Rehearsal;
        use RenewalError::Stranger;
        let blames_release =
            matches!(error, NoProgram { .. } | Rehearsal { .. } | Stranger { .. } | OtherVersion { .. });
        Self { failure: failed(&error, error.hint()), blames_release }
    }
}

impl From<Failure> for Unprepared {
    fn from(failure: Failure) -> Self {
        Self { failure, blames_release: false }
    }
}

/// Brings the new program beside the one that runs, and lets it rehearse.
async fn prepare(context: &Context<'_>, release: &Release) -> Result<std::path::PathBuf, Unprepared> {
    let renewal = &context.kit.renewal;
    let tree = renewal.make_room(release.id.build)?;
    let staged = context.kit.feed.stage(release, &tree, context.progress()).await;
    staged.map_err(|error| failed(&error, error.hint()))?;
    let stage = renewal.stage_of_rehearsal()?;
    copy_store(context.night.store.path(), &stage).await?;
    Ok(renewal.rehearse(&release.id, &tree, &stage, (leftover::MARK, context.mark().await?)).await?)
}

async fn copy_store(store: &Path, into: &Path) -> Result<(), Failure> {
    let from = store.to_owned();
    let to = into.join(store.file_name().unwrap_or_default());
    let copied = tokio::task::spawn_blocking(move || copy(&from, &to)).await;
    copied.map_err(|error| Failure::from_error(&error))??;
    Ok(())
}
