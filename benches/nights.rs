//! A hundred nights in which the daemon is killed at random instants, with the real program as processes.
//!
//! `cargo bench --bench nights [-- NIGHTS [SEED]]`. Each night is checked as the tests check theirs: one version runs, with its
//! own data and nothing lost of what was acknowledged. The last line is one JSON object: `runs, old, new, stuck,
//! gates_open, reports_exactly_one`, and `broken` for nights that failed a check, by their seeds.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

#[path = "../tests/it/night/chance.rs"]
mod chance;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/night/mail.rs"]
mod mail;
#[path = "../tests/it/night/releases.rs"]
mod releases;
#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/night/site.rs"]
mod site;
#[path = "../tests/it/night/truth.rs"]
mod truth;

use serde_json::json;

use crate::chance::Night;
use crate::truth::Left;

/// How many nights, where nobody says.
const NIGHTS: u64 = 100;
/// How many at a time.
const AT_ONCE: u64 = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    tokio::task::LocalSet::new().run_until(pass_all()).await;
}

async fn pass_all() {
    // Cargo adds a flag of its own.
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<u64>().ok());
    let nights = numbers.next().unwrap_or(NIGHTS);
    let seed = numbers.next().unwrap_or(1);
    println!("{nights} nights, seed {seed}");
    let mut found = Vec::new();
    let mut broken = Vec::new();
    let mut under_way = tokio::task::JoinSet::new();
    let mut next = 0;
    while next < nights || !under_way.is_empty() {
        while next < nights && (under_way.len() as u64) < AT_ONCE {
            let seed = seed.wrapping_add(next);
            let night = tokio::task::spawn_local(async move { Night::roll(seed).pass().await });
            under_way.spawn_local(async move { (seed, night.await) });
            next += 1;
        }
        if let Some(Ok((seed, passed))) = under_way.join_next().await {
            match passed {
                Ok(night) => found.push(night),
                Err(_) => broken.push(seed),
            }
            println!("night {seed}: {} of {nights} passed", found.len());
        }
    }
    let count = |is: &dyn Fn(&chance::Found) -> bool| found.iter().filter(|night| is(night)).count();
    let figures = json!({
        "runs": nights,
        "old": count(&|night| night.left == Some(Left::Old)),
        "new": count(&|night| night.left == Some(Left::New)),
        "stuck": count(&|night| night.left.is_none()),
        "gates_open": count(&|night| night.gate_open),
        "reports_exactly_one": count(&|night| night.reports == 1),
        "same_report_sent_again": count(&|night| night.mails > 1),
        "broken": broken,
    });
    println!("{figures}");
}
