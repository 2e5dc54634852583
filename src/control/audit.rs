//! The history: its head, its proof, its entries.

use crate::control::Control;
use crate::control::error::ControlError;
use crate::db::chain::ChainState;
use crate::db::store::Store;
use crate::domain::history::Anchor;
use crate::domain::history::HEAD_DIGITS_MIN;
use crate::wire::audit::AnchorProof;
use crate::wire::audit::EntriesQuery;
use crate::wire::audit::EntryView;
use crate::wire::audit::PAGE_MAX;
use crate::wire::audit::ProofView;
use crate::wire::audit::VerifyQuery;

impl Control {
    /// Computes the whole chain anew, and says whether the entry of an old anchor is still in it.
    ///
    /// # Errors
    /// The anchor is none, or the store fails.
    pub async fn prove_history(&self, query: VerifyQuery) -> Result<ProofView, ControlError> {
        let anchor = anchor(query)?;
        // A connection of its own: it takes long, and nobody else who reads shall wait.
        let store = Store::open_to_read(self.store.path())?;
        let head = store.chain_head().await?;
        let state = store.verify_chain().await?;
        let anchor = match anchor {
            None => None,
            Some(anchor) => Some(AnchorProof { state: store.anchor_state(anchor.clone()).await?, anchor }),
        };
        Ok(match state {
            ChainState::Whole { links, removed, head: hash } => ProofView {
                whole: true,
                broken_at: None,
                broken: None,
                removed: Some(removed),
                head: Anchor { number: links, hash },
                anchor,
            },
            ChainState::Broken { link } => ProofView {
                whole: false,
                broken_at: Some(link),
                broken: store.history_entry(link).await.unwrap_or_default(),
                removed: None,
                head,
                anchor,
            },
        })
    }

    /// The next entries of the history, ascending; none where there are no more.
    ///
    /// # Errors
    /// The store fails, or an entry cannot be read.
    pub async fn history(&self, query: EntriesQuery) -> Result<Vec<EntryView>, ControlError> {
        Ok(self.store.history(query.after, query.since, PAGE_MAX).await?)
    }
}

fn anchor(query: VerifyQuery) -> Result<Option<Anchor>, ControlError> {
    match (query.number, query.head) {
        (None, None) => Ok(None),
        (Some(number), Some(hash))
            if number > 0 && hash.len() >= HEAD_DIGITS_MIN && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            Ok(Some(Anchor { number, hash: hash.to_ascii_lowercase() }))
        }
        (number, head) => Err(ControlError::BadAnchor {
            number: number.map(|number| number.to_string()).unwrap_or_default(),
            head: head.unwrap_or_default(),
        }),
    }
}
