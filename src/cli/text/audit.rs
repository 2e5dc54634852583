//! How the proof of the history reads.

use crate::cli::text::Times;
use crate::domain::history::AnchorState;
use crate::domain::history::Happened;
use crate::wire::audit::EntryView;
use crate::wire::audit::ProofView;

/// Whether the history is what it was, and what an old anchor says of it.
pub(crate) fn proof(view: &ProofView, times: &Times) -> String {
    let mut lines = vec![match (view.broken_at, &view.broken) {
        (None, _) => match view.removed.unwrap_or_default() {
            0 => format!("The history is whole: {} entries.", view.head.number),
            removed => {
                format!("The history is whole: {} entries, {removed} of them removed by retention.", view.head.number)
            }
        },
        (Some(number), None) => format!("The history is BROKEN: entry {number} was taken out, or cannot be read."),
        (Some(number), Some(entry)) => {
            format!(
                "The history is BROKEN: entry {number} was changed, or what stood before it: {}.",
                entry_line(entry, times)
            )
        }
    }];
    if view.head.number > 0 {
        lines.push(format!("Its head: entry {}, {}", view.head.number, view.head.hash));
    }
    if let Some(proof) = &view.anchor {
        let number = proof.anchor.number;
        lines.push(match proof.state {
            AnchorState::Held if view.whole => {
                format!("Entry {number} is in it, with the hash you gave: everything up to it is what it was then.")
            }
            AnchorState::Held => {
                format!("Entry {number} is in it, with the hash you gave; that proves nothing while it is broken.")
            }
            AnchorState::Differs => {
                format!("Entry {number} has ANOTHER hash than the one you gave: the history was written anew.")
            }
            AnchorState::Missing => {
                format!("Entry {number} is MISSING: the end of the history was cut off, or a piece taken out.")
            }
            AnchorState::Removed => {
                format!(
                    "Entry {number} was removed by retention and proves nothing any more; give one from a newer mail."
                )
            }
        });
    }
    lines.join("\n")
}

fn entry_line(entry: &EntryView, times: &Times) -> String {
    let at = times.at(entry.at);
    match &entry.what {
        Happened::Event { run, name, .. } => format!("{name} of run {run}, {at}"),
        Happened::Audit { who, action, object, .. } => format!("{action} of {object} by {who}, {at}"),
    }
}
