//! What several parts need to be tested.

pub(crate) mod systemd_box;

use std::time::Duration;
use std::time::Instant;

/// Waits until `seen` is true, for at most `bound`; the test fails with `what` otherwise.
pub(crate) async fn eventually(what: &str, bound: Duration, mut seen: impl AsyncFnMut() -> bool) {
    let until = Instant::now() + bound;
    while !seen().await {
        assert!(Instant::now() < until, "not within {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
