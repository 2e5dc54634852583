//! Carries kept files over and exchanges the directories in one system call.

use crate::domain::failure::Failure;
use crate::jobs::driver::Done;
use crate::jobs::steps::Context;
use crate::jobs::steps::counted;

pub(super) async fn act(context: &Context<'_>) -> Result<Done, Failure> {
    let id = &context.release()?.id;
    if or_fail!(context.kit.installer.is_swapped(id).await) {
        return Ok(Done::saying(format!("{id} was in place already")));
    }
    let report = or_fail!(context.kit.installer.swap(id).await);
    let conflicts: Vec<String> = report.conflicts.iter().map(|path| format!("{}.new", path.display())).collect();
    let beside = if conflicts.is_empty() { String::new() } else { format!("; look at {}", conflicts.join(", ")) };
    Ok(Done::saying(format!("{id} is in place, {} kept{beside}", counted(report.kept, "file"))))
}

pub(super) async fn undo(context: &Context<'_>) -> Result<String, Failure> {
    let id = &context.release()?.id;
    or_fail!(context.kit.installer.swap_back(id).await);
    Ok(match context.from() {
        Some(from) => format!("{from} is in place again"),
        None => "the old program is in place again".to_owned(),
    })
}
