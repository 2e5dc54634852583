//! What is said of the version that is installed, where that is only the application's own word.
//!
//! Whoever owns a tree that we have not put there may write any version into it. One that is too high stops all updates, so
//! it is never believed without a word.

use crate::domain::finding::Finding;
use crate::domain::release::MARKER;
use crate::domain::release::Word;
use crate::jobs::kit::Kit;
use crate::jobs::select::Selection;

/// The name of the check.
const CHECK: &str = "installed";

/// What is to be said of what a selection begins with; nothing where that is our own record, or the administrator's word.
pub(crate) async fn finding(kit: &Kit, selection: &Selection) -> Option<Finding> {
    let (from, word) = (selection.from.as_ref()?, selection.word?);
    let marker = kit.app.install_dir.join(MARKER);
    let (said, flaw) = match word {
        Word::Ours | Word::Administrator => return None,
        Word::Tree => (format!("what {} says", marker.display()), kit.installer.marker_flaw().await),
        Word::Application => ("what the running application says".to_owned(), None),
    };
    let mut text = format!("{from} is installed, unverified: it is {said}, and Afterhours has not put it there");
    if let Some(flaw) = &flaw {
        text.push_str(&format!("; {flaw}, so others than root can write any version there"));
    }
    let doubt = match &selection.newest {
        Some(newest) if from.build > newest.build => {
            Some(format!("that is newer than all of the feed, whose newest is {newest}, so nothing is offered"))
        }
        Some(_) if !selection.is_published => {
            Some("the feed has no such release, so what is offered may be wrong".to_owned())
        }
        _ => None,
    };
    if doubt.is_none() && flaw.is_none() {
        return Some(Finding::good(CHECK, text));
    }
    text.extend(doubt.iter().map(|doubt| format!("; {doubt}")));
    let set = format!("set installed_version of [app.{}] to what is installed", kit.app.name);
    let remedy = match word {
        Word::Tree => format!("look which version it is; if it is another, remove {} and {set}", marker.display()),
        _ => set,
    };
    Some(Finding::warning(CHECK, text, remedy))
}
