//! Starts the new version.

use crate::domain::failure::Failure;
use crate::domain::foreign;
use crate::domain::session::Census;
use crate::domain::session::Session;
use crate::jobs::blame;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;
use crate::jobs::steps::failed;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let kit = context.kit;
    let seen = match kit.service.start(&context.env()).await {
        Ok(seen) => seen,
        Err(error) => {
            let mut failure = failed(&error, error.hint()).of_release(error.is_of_program());
            failure.exhibits = kit.service.exhibits().await.into();
            return Err(blame::settle(&kit.app, failure));
        }
    };
    context.hook("after_start", kit.app.hooks.after_start.as_ref()).await?;
    Ok(Done::saying(format!("{} is started; {seen}", context.release()?.id)))
}

pub(super) async fn undo(context: &Context<'_>) -> Result<String, Failure> {
    let came_in = came_in(context).await;
    let seen = or_fail!(context.kit.service.stop(&context.marked_env().await?).await);
    Ok(format!("the new version is stopped; {seen}{came_in}"))
}

/// Who has logged in to the new version: what they did there is put back with the data.
async fn came_in(context: &Context<'_>) -> String {
    match context.kit.sessions.census().await {
        Census::Known(sessions) if sessions.is_empty() => String::new(),
        Census::Known(sessions) => {
            let users = foreign::names(sessions.iter().map(Session::who));
            format!("; logged in to it were {users}: what they did there is lost")
        }
        Census::Unknown(reason) => format!("; who was logged in to it is not known: {reason}"),
    }
}
