//! A night that is broken into at random: what is in it follows from one number.
//!
//! Shared with `benches/nights.rs`, which passes a hundred of them.

use std::collections::BTreeSet;
use std::time::Duration;

use afterhours::wire::run::RunStateName;

use super::releases::Edition;
use super::releases::SICK;
use super::releases::V2;
use super::releases::V3;
use super::site::Site;
use super::site::app;
use super::site::eventually;
use super::truth::Left;

/// A run of one build takes about so long.
const RUN_MS: u64 = 1_800;
/// The settings that bound a night.
const SETTINGS: (&str, &str) =
    ("health", "{ http = \"http://127.0.0.1:PORT/\", times = 2, every = \"30ms\", deadline = \"3s\" }");

/// What happens in a night.
#[derive(Debug)]
pub(crate) struct Night {
    editions: Vec<Edition>,
    /// When the daemon is killed, each counted from its last start.
    kills: Vec<Duration>,
}

/// What a night has left behind.
#[derive(Debug)]
pub(crate) struct Found {
    /// Nothing when it is stuck.
    pub(crate) left: Option<Left>,
    pub(crate) gate_open: bool,
    /// Different mails.
    pub(crate) reports: usize,
    /// All mails: one that was sent just before a kill is sent again under its own number.
    pub(crate) mails: usize,
}

/// Numbers that look random and follow from the first.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        // SplitMix64: neighbouring seeds must not look alike.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

impl Night {
    /// The night of this number: one or two builds, in a third of the nights one that never becomes healthy, and one
    /// to three kills.
    pub(crate) fn roll(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let editions = match dice.roll(3) {
            0 => vec![V2],
            1 => vec![V2, V3],
            _ => vec![SICK],
        };
        let run_ms = if editions[0].flaw.is_some() { RUN_MS + 3_000 } else { RUN_MS };
        let kills = (0..=dice.roll(3)).map(|_| Duration::from_millis(dice.roll(run_ms))).collect();
        Self { editions, kills }
    }

    /// Lets it pass, and checks what it has left behind.
    pub(crate) async fn pass(&self) -> Found {
        let mut site = Site::with(&[SETTINGS]).await;
        self.editions.iter().for_each(|edition| edition.publish(&site.feed()));
        site.open().await;
        let run = site.update().await;
        let mut orders = vec!["first".to_owned(), "second".to_owned()];
        let mut unanswered = None;
        for (number, kill) in self.kills.iter().enumerate() {
            if number == 0 {
                // People work on until the desk is stopped, whatever becomes of the daemon.
                (unanswered, ()) = tokio::join!(work(&site, &mut orders), tokio::time::sleep(*kill));
            } else {
                tokio::time::sleep(*kill).await;
            }
            site.kill().await;
            site.serve().await;
        }
        let run = site.settled(run).await;
        // One that the desk was stopped upon may have been taken or not.
        orders
            .extend(unanswered.filter(|order| site.orders().iter().any(|kept| kept.split('|').next() == Some(order))));
        let stuck = run.state == RunStateName::Stuck;
        let orders: Vec<&str> = orders.iter().map(String::as_str).collect();
        let left = if stuck { None } else { Some(site.must_be_whole(&run, &self.editions, &orders).await) };
        let gate_open = site.client().show_gate(&app()).await.unwrap().admits;
        eventually("the report arrives", async || !site.mail.taken().is_empty()).await;
        site.stop().await;
        let mails = site.mail.taken();
        let reports = mails.iter().map(|mail| mail.id.as_str()).collect::<BTreeSet<_>>().len();
        Found { left, gate_open, reports, mails: mails.len() }
    }
}

/// Hands in a few orders, as long as the desk of before is there; the one that got no answer, if any.
async fn work(site: &Site, taken: &mut Vec<String>) -> Option<String> {
    for number in 0..10 {
        let order = format!("order-{number}");
        match site.order(&order).await.as_deref() {
            Some("1.0") => taken.push(order),
            // Or another version has it, which nobody but us could talk to yet.
            _ => return Some(order),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}
