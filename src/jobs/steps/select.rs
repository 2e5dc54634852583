//! Decides which releases are installed, in ascending order.

use crate::domain::event::Output;
use crate::domain::failure::Failure;
use crate::jobs::driver::Done;
use crate::jobs::select::select;
use crate::jobs::steps::Context;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let selection = select(context.kit, &context.night.store, context.machine.order().to.as_ref()).await?;
    let message = match selection.path.as_slice() {
        [] => selection.nothing_because(),
        path => path.iter().map(|release| release.id.to_string()).collect::<Vec<_>>().join(", then "),
    };
    Ok(Done { output: Output::Selected { from: selection.from, path: selection.path }, message })
}
