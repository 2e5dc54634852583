//! What must be true of a site after a night, however it went: one version runs, with its own data.

use afterhours::domain::run::Outcome;
use afterhours::wire::run::RunStateName;
use afterhours::wire::run::RunView;

use super::releases::Edition;
use super::releases::V1;
use super::site::Site;
use super::site::app;

/// Which version a run has left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Old,
    New,
}

impl Site {
    /// Checks everything about a site whose run is over; `editions` were to be installed, `orders` were taken before.
    pub(crate) async fn must_be_whole(&self, run: &RunView, editions: &[Edition], orders: &[&str]) -> Left {
        assert_eq!(run.state, RunStateName::Finished, "{run:#?}\n{}", self.read("log"));
        let new = run.outcome == Some(Outcome::Succeeded);
        let now = if new { editions.last().unwrap() } else { &V1 };
        self.desk_answers(now.version).await;
        assert_eq!(self.read("faults"), "", "{}", self.read("log"));
        assert_eq!(self.read("opt/orders/version"), now.version);
        assert_eq!(self.read("data/schema"), now.schema.to_string(), "{run:#?}");
        let migrated: String =
            if new { editions.iter().map(|e| format!("|{}", e.schema)).collect() } else { String::new() };
        let expected: Vec<String> = orders.iter().map(|order| format!("{order}{migrated}")).collect();
        assert_eq!(self.orders(), expected, "{run:#?}\n{}", self.read("log"));
        let starts = self.read("data/starts");
        if !new {
            assert!(starts.lines().all(|version| version == V1.version), "the data saw another version: {starts}");
        }
        assert_eq!(self.read("opt/orders/config/desk.conf"), "the administrator's own");
        let gate = self.client().show_gate(&app()).await.unwrap();
        assert!(gate.admits, "{gate:#?}");
        assert!(!self.path("opt/.orders.afterhours/hold").exists());
        assert_eq!(self.path("opt/orders_old").exists(), new);
        if new {
            assert_eq!(self.read("opt/orders_old/version"), V1.version);
        }
        if new { Left::New } else { Left::Old }
    }
}
