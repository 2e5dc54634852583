//! Looking for newer releases: by itself, or because somebody asks.
//!
//! A run goes on with what was verified before while the vendor's server is away. Who looks for news is told.

use crate::db::store::Store;
use crate::domain::clock::Clock;
use crate::domain::failure::Failure;
use crate::domain::release::Release;
use crate::domain::update_check::Offer;
use crate::domain::update_check::UpdateCheck;
use crate::feed::Feed;
use crate::feed::FeedError;
use crate::feed::signed::TrustError;
use crate::jobs::kit::Kit;
use crate::jobs::select::Selection;
use crate::jobs::select::Wish;
use crate::jobs::select::select;
use crate::jobs::steps::failed;

/// What looking has found.
#[derive(Debug)]
pub struct Looked {
    /// What a run would make of it now.
    pub selection: Result<Selection, Failure>,
    /// What is to be noted of it.
    pub check: UpdateCheck,
}

/// Looks for newer releases of an application; asks its feed in any case. What came of it is not noted yet.
pub async fn look(kit: &Kit, store: &Store, clock: &dyn Clock) -> Looked {
    let (selection, away) = match ask(&kit.feed).await {
        Ok(away) => (select(kit, store, &Wish::newest(), clock.now()).await, away),
        Err(failure) => (Err(failure), None),
    };
    let at = clock.now();
    let check = match (&selection, away) {
        (Err(failure), _) => UpdateCheck { at, offer: None, failure: Some(failure.clone()) },
        // It says nothing new that what was verified before still holds.
        (Ok(_), Some(away)) => UpdateCheck { at, offer: None, failure: Some(away) },
        (Ok(selection), None) => {
            let id = |release: &Release| release.id.clone();
            let pending = selection.path.iter().chain(&selection.rest).map(id).collect();
            UpdateCheck { at, offer: Some(Offer::new(at, pending, selection.path.len())), failure: None }
        }
    };
    Looked { selection, check }
}

/// Asks a feed afresh; answers with why it is not to be reached where what was verified before still holds.
async fn ask(feed: &Feed) -> Result<Option<Failure>, Failure> {
    let Feed::Signed(signed) = feed else { return Ok(None) };
    match signed.refresh().await {
        Ok(_) => Ok(None),
        Err(error @ FeedError::Trust(TrustError::Away { .. })) => Ok(Some(failed(&error, error.hint()))),
        Err(error) => Err(failed(&error, error.hint())),
    }
}
