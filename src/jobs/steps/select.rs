//! Decides which releases are installed, in ascending order.

use crate::domain::event::Output;
use crate::domain::failure::Failure;
use crate::jobs::driver::Done;
use crate::jobs::select::Wish;
use crate::jobs::select::select;
use crate::jobs::self_update::too_old;
use crate::jobs::steps::Context;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let (store, now) = (&context.night.store, context.night.clock.now());
    let wish = Wish::of_run(store, context.run, context.machine.order()).await?;
    let selection = select(context.kit, store, &wish, now).await?;
    let own = or_fail!(context.kit.renewal.own().await);
    if let Some(failure) = too_old(&selection.path, &own.version) {
        return Err(failure);
    }
    let message = match selection.path.as_slice() {
        [] => selection.nothing_because(),
        path => {
            let path = path.iter().map(|release| release.id.to_string()).collect::<Vec<_>>().join(", then ");
            [vec![path], selection.remarks()].concat().join("; ")
        }
    };
    let blocked = selection.blocked().cloned();
    Ok(Done { output: Output::Selected { from: selection.from, path: selection.path, blocked }, message })
}
