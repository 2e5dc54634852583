//! Runs the release's own migration; undone by restoring the snapshot.
//!
//! The data are restored whenever the new version may have touched them: also a release without a
//! migration changes data when it starts.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::command::Command;
use crate::domain::event::How;
use crate::domain::failure::Failure;
use crate::domain::foreign::last_lines;
use crate::domain::foreign::masked;
use crate::domain::foreign::telling_line;
use crate::domain::foreign::warnings;
use crate::domain::span::Span;
use crate::exec::Exec;
use crate::exec::ExecError;
use crate::exec::Output;
use crate::exec::permit;
use crate::jobs::blame;
use crate::jobs::commands::as_root_hint;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;
use crate::jobs::steps::failed;

/// How often it is told how a long migration goes.
const TELL_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    if context.how == How::UndoFirst {
        or_fail!(context.kit.installer.restore(context.run).await);
    }
    let release = context.release()?;
    let Some(migrate) = &release.migrate else {
        return Ok(Done::saying("the release brings no migration"));
    };
    if release.migrate_as_root && !context.kit.app.allow_migrate_as_root {
        return Err(Failure::new(format!("let the migration of {} run as root", release.id))
            .hint(as_root_hint(&context.kit.app)));
    }
    // What the application can change is never run as root.
    let dir = match release.migrate_as_root {
        true => context.kit.installer.path_for_root(&release.id),
        false => context.kit.app.install_dir.clone(),
    };
    let mut command = Command::of_owner(migrate.clone(), context.kit.app.tree());
    if let Some(program) = command.argv.first_mut()
        && program.contains('/')
    {
        // A path is meant within the new tree; a bare name is a program of the system.
        *program = dir.join(&*program).to_string_lossy().into_owned();
    }
    if release.migrate_as_root {
        command = permit::as_root(command);
    }
    let exec = Exec::of(&command, context.kit.app.hooks.deadline).envs(&context.marked_env().await?).dir(dir);
    let ended = watched(context, exec).await;
    // Whatever way it ended, and however it hid: nothing of it goes on writing.
    let left = context.end_leftovers().await;
    let output = ended.map_err(|error| {
        let cause = failed(&error, None);
        let failure = Failure {
            said: cause.said.clone(),
            scarce: cause.scarce,
            ..Failure::new(format!("run the migration of {}", release.id))
        }
        .because(cause.to_string())
        .of_release(blame::is_of_command(&error));
        let failure = blame::settle(&context.kit.app, failure);
        let vendor = format!("the migration is part of {}; its vendor must know", release.id);
        let ours = "remove the cause on this machine; the release is tried again".to_owned();
        let usual = if failure.of_release { vendor } else { ours };
        failure.hint(cause.hint.unwrap_or(usual))
    })?;
    // A migration may end well and say what matters in its output: all of it goes into the log.
    for line in masked(&format!("{}\n{}", output.stdout, output.stderr)).lines().filter(|line| !line.is_empty()) {
        tracing::info!(run.id = context.run.0, migrate = line);
    }
    Ok(Done::saying(summary(&output, left?)))
}

/// Runs it, and tells whoever watches since when it runs and what it said last.
async fn watched(context: &Context<'_>, exec: Exec) -> Result<Output, ExecError> {
    let (said, progress, begin) = (watch::Sender::new(String::new()), context.progress(), Instant::now());
    let heard = said.subscribe();
    let work = exec.tell(said).run();
    tokio::pin!(work);
    loop {
        tokio::select! {
            output = &mut work => return output,
            () = tokio::time::sleep(TELL_EVERY) => {
                let span = Span::from(Duration::from_secs(begin.elapsed().as_secs()));
                let line = heard.borrow().clone();
                let line = if line.is_empty() { "nothing is said yet".to_owned() } else { line };
                progress.advance(begin.elapsed().as_secs(), None, &format!("for {span}: {line}"));
            }
        }
    }
}

/// What it said last, how many processes of it were left to end, and below that what it warned of.
fn summary(output: &Output, left: usize) -> String {
    let mut last = telling_line(&output.stdout).unwrap_or_else(|| "the migration is done".to_owned());
    if left > 0 {
        last = format!("{last}; it had left processes running, which were ended: {left}");
    }
    let warnings = last_lines(&warnings(&output.stderr).join("\n"));
    if warnings.is_empty() { last } else { format!("{last}; it warned:\n{}", warnings.join("\n")) }
}

pub(super) async fn undo(context: &Context<'_>) -> Result<String, Failure> {
    context.end_all_leftovers().await?;
    // Nothing is restored below a running application; it may have been started by somebody else meanwhile.
    or_fail!(context.kit.service.stop(&context.marked_env().await?).await);
    let report = or_fail!(context.kit.installer.restore(context.run).await);
    Ok(format!("the data are as at the snapshot; {} of {} files restored", report.restored_files, report.files))
}
