//! What was looked at in the demo, and whether it was as it should be.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use sha2::Digest;
use sha2::Sha256;
use tokio::time::timeout;

use crate::cli::demo::crew::Crew;
use crate::cli::demo::crew::Dismissed;
use crate::cli::demo::crew::entered;
use crate::cli::demo::crew::probe_till;
use crate::cli::demo::night::Night;
use crate::cli::demo::stage::GREETING;
use crate::cli::demo::stage::PEOPLE;
use crate::cli::demo::stage::Stage;
use crate::cli::exit::CliError;
use crate::cli::out::Ui;
use crate::cli::text;
use crate::client::api::Client;
use crate::domain::hex::hex;
use crate::domain::name::AppName;
use crate::domain::run::Outcome;
use crate::domain::span::Span;
use crate::domain::step::Step;
use crate::sample::About;
use crate::sample::Order;
use crate::sample::tree::SETTINGS;

/// How long a workstation that was promised to come back may take.
const BACK_MAX: Duration = Duration::from_secs(10);
/// The exit code of a login that is refused.
const REFUSED: i32 = 4;
/// How much of a hash is shown.
const SHOWN: usize = 12;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What should be.
    what: String,
    /// Whether it is.
    ok: bool,
    /// What was seen.
    seen: String,
}

/// One part of the demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Part {
    title: String,
    took_ms: Option<u64>,
    downtime_ms: Option<u64>,
    checks: Vec<Check>,
}

impl Part {
    fn new(title: &str) -> Self {
        Self { title: title.to_owned(), took_ms: None, downtime_ms: None, checks: Vec::new() }
    }

    fn of_night(title: &str, night: &Night) -> Self {
        let run = &night.run;
        let took = run.started_at.zip(run.finished_at).map(|(from, to)| Span::between(from, to).duration());
        let took_ms = took.and_then(|took| u64::try_from(took.as_millis()).ok());
        Self { took_ms, downtime_ms: run.downtime_ms, ..Self::new(title) }
    }

    fn check(&mut self, what: &str, ok: bool, seen: impl Into<String>) {
        self.checks.push(Check { what: what.to_owned(), ok, seen: seen.into() });
    }

    /// Whether everything was as it should be.
    pub(super) fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    fn head(&self) -> String {
        let millis = |millis: u64| text::rough(u128::from(millis));
        match (self.took_ms, self.downtime_ms) {
            (Some(took), Some(down)) => {
                format!("{} (took {}, Order desk was away for {})", self.title, millis(took), millis(down))
            }
            _ => self.title.clone(),
        }
    }
}

/// The first night, in which all goes well.
pub(super) async fn first_night(
    night: &Night,
    stage: &Stage,
    crew: &mut Crew,
    client: &Client,
) -> Result<Part, CliError> {
    let mut part = Part::of_night("The first night: 1.0 to 2.0 to 3.0", night);
    let outcome = night.run.outcome;
    part.check("the run succeeded", outcome == Some(Outcome::Succeeded), text::maybe(outcome));
    let backup = night.said(Step::Backup).join("; ");
    let backup = backup.replace(&format!("{}/", stage.dir().display()), "");
    part.check("a fresh backup was proven beforehand", backup.contains("orders-"), backup);
    late_login(&mut part, night);
    part.check(
        "anna said OK and was closed, ben was logged out",
        crew.ended("anna") == Some(0) && crew.ended("ben") == Some(0) && night.logged_out == ["ben"],
        format!("logged out: {}", night.logged_out.join(", ")),
    );
    let steps = night.said(Step::MigrateData);
    let in_order = steps.len() == 2 && steps[0].ends_with("1 to 2") && steps[1].ends_with("2 to 3");
    part.check("both versions were installed in order", in_order, steps.join("; "));
    answers(&mut part, stage).await;
    kept(&mut part, stage);
    rosa_is_back(&mut part, stage, crew, "3.0").await;
    nothing_lost(&mut part, stage, Extra::MayBeOnTheirWay).await?;
    gate_and_report(&mut part, night, client).await?;
    Ok(part)
}

/// What the daemon takes from the vendor's web server: what was signed, and neither another nor an `old` list.
pub(super) async fn web_server(old: &[u8], stage: &Stage, client: &Client) -> Result<Part, CliError> {
    let mut part = Part::new("At the vendor's web server, meanwhile");
    let (app, vendor) = (app()?, stage.vendor());
    let list = vendor.list()?;
    let updates = client.check_updates(&app).await?;
    let newest = updates.pending.last();
    let seen =
        newest.map_or_else(|| "nothing newer".to_owned(), |release| format!("{} ({})", release.version, release.build));
    part.check("4.0 is in the signed feed", newest.is_some_and(|release| release.version.as_str() == "4.0"), seen);
    // A site that believed this would never again miss anything.
    let forged = String::from_utf8_lossy(&list).replacen("\"expires\": \"2", "\"expires\": \"9", 1).into_bytes();
    let tries = [
        ("a list changed to hold for ever is refused", forged.as_slice(), "0 good signatures"),
        ("the list of yesterday is refused", old, "was seen before"),
    ];
    for (what, put, because) in tries {
        vendor.breaks_in(put)?;
        let answer = client.check_updates(&app).await.map_err(CliError::from);
        let refusal = answer.as_ref().err().map_or("it was believed", |error| error.view().message.as_str());
        part.check(what, refusal.contains(because), refusal.trim_start_matches("failed to "));
    }
    vendor.breaks_in(&list)?;
    let again = client.check_updates(&app).await?.pending.last().map(|release| release.version.clone());
    part.check(
        "the vendor puts its own back: 4.0 is there again",
        again.as_ref().is_some_and(|version| version.as_str() == "4.0"),
        text::maybe(again),
    );
    Ok(part)
}

/// The second night, whose version does not work.
pub(super) async fn second_night(
    night: &Night,
    stage: &Stage,
    crew: &mut Crew,
    client: &Client,
) -> Result<Part, CliError> {
    let mut part = Part::of_night("The second night: 3.0 to 4.0, and back", night);
    let failed = night.failed_at.is_some_and(|at| at.step == Step::CheckHealth);
    let because = night.run.cause.as_ref().and_then(|cause| cause.because.last()).map(String::as_str);
    let because = because.unwrap_or_default().rsplit(": ").next().unwrap_or_default();
    part.check("4.0 did not pass its health check", failed, because);
    let outcome = night.run.outcome;
    part.check("the run was rolled back", outcome == Some(Outcome::RolledBack), text::maybe(outcome));
    let migrated = night.said(Step::MigrateData).join("; ");
    let before = fs_err::read_to_string(stage.print_before()).unwrap_or_default();
    let same = !before.is_empty() && night.print_restored.as_deref() == Some(before.as_str());
    let seen = format!("{migrated}; then sha256 {} again", shown(&before));
    part.check("the data are as they were, to the bit", same && migrated.ends_with("3 to 4"), seen);
    late_login(&mut part, night);
    answers(&mut part, stage).await;
    kept(&mut part, stage);
    rosa_is_back(&mut part, stage, crew, "3.0").await;
    nothing_lost(&mut part, stage, Extra::MayBeOnTheirWay).await?;
    let updates = client.check_updates(&app()?).await?;
    let noted = updates.pending.iter().find(|release| release.version.as_str() == "4.0");
    let held = noted.is_some_and(|release| release.failed_before);
    part.check("4.0 is not tried again by itself", held, "noted as failed here");
    gate_and_report(&mut part, night, client).await?;
    Ok(part)
}

/// When everybody has logged out: the books are compared.
pub(super) async fn morning(stage: &Stage) -> Result<Part, CliError> {
    let mut part = Part::new("In the morning");
    nothing_lost(&mut part, stage, Extra::Never).await?;
    Ok(part)
}

/// When everything is over.
pub(super) fn afterwards(dismissed: Dismissed, struck: Result<Option<PathBuf>, std::io::Error>) -> Part {
    let mut part = Part::new("Afterwards");
    let Dismissed { trouble } = dismissed;
    let seen = if trouble.is_empty() { "none is left".to_owned() } else { trouble.join("; ") };
    part.check("every process ended in order", trouble.is_empty(), seen);
    match struck {
        Ok(None) => part.check("the directory is removed", true, "nothing is left"),
        Ok(Some(dir)) => part.check("the directory is kept", true, dir.display().to_string()),
        Err(error) => part.check("the directory is removed", false, error.to_string()),
    }
    part
}

fn late_login(part: &mut Part, night: &Night) {
    let seen = format!("eva tried, and got exit code {}", text::maybe(night.late_login));
    part.check("nobody could log in meanwhile", night.late_login == Some(REFUSED), seen);
}

async fn answers(part: &mut Part, stage: &Stage) {
    let about = match probe_till(stage) {
        Ok(till) => till.about().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.view().message.clone()),
    };
    let seen = match &about {
        Ok(About { version, schema, .. }) => format!("version {version}, schema {schema}"),
        Err(error) => error.clone(),
    };
    part.check("3.0 answers", about.as_ref().is_ok_and(|about| about.version == "3.0" && about.schema == 3), seen);
    let greets = about.is_ok_and(|about| about.greeting == GREETING);
    part.check("it works with the administrator's settings", greets, format!("{GREETING:?}"));
}

fn kept(part: &mut Part, stage: &Stage) {
    let kept = fs_err::read_to_string(stage.install().join(SETTINGS)).unwrap_or_default();
    let new = stage.install().join(format!("{SETTINGS}.new")).exists();
    let seen = if new { format!("{SETTINGS}; the vendor's beside it as .new") } else { SETTINGS.to_owned() };
    part.check("the file that the administrator changed is kept", kept.contains(GREETING), seen);
}

/// Rosa's workstation was never touched by us; new orders in its ledger are from the program it started again.
async fn rosa_is_back(part: &mut Part, stage: &Stage, crew: &mut Crew, version: &str) {
    let back = timeout(BACK_MAX, crew.wait_for_orders_of("rosa", stage, 2));
    let works = matches!(back.await, Ok(Ok(())));
    let program = entered(stage, "rosa").ok().and_then(|entered| Some(entered.last()?.program.clone()));
    let ok = works && crew.ended("rosa").is_none() && program.as_deref() == Some(version);
    let seen = format!("she enters orders with program {}", text::maybe(program));
    part.check("rosa, who asked for it, is back", ok, seen);
}

/// Whether there may be orders that no ledger knows yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    /// Somebody is working.
    MayBeOnTheirWay,
    /// Nobody is.
    Never,
}

/// What was confirmed at the workstations is what is there.
async fn nothing_lost(part: &mut Part, stage: &Stage, extra: Extra) -> Result<(), CliError> {
    let failed = |error: crate::sample::error::SampleError| CliError::failed("count the orders", &error);
    let mut confirmed = Vec::new();
    for who in PEOPLE {
        confirmed.extend(entered(stage, who)?.into_iter().map(|entered| entered.order));
    }
    let mut till = probe_till(stage)?;
    till.log_in().await.map_err(failed)?;
    let there = till.orders().await.map_err(failed)?;
    till.log_out().await;
    let found = found(&confirmed, &there);
    let (ours, theirs) = (sha256(&confirmed), sha256(&found));
    let none_invented = extra == Extra::MayBeOnTheirWay || there.len() == confirmed.len();
    let ok = !confirmed.is_empty() && ours == theirs && none_invented;
    let mut seen = format!("{} of {}, sha256 {}", found.len(), confirmed.len(), shown(&theirs));
    if extra == Extra::Never {
        seen.push_str(&format!("; {} in all", there.len()));
    }
    part.check("every order that people entered is there", ok, seen);
    Ok(())
}

/// Those orders of `there` that were confirmed.
fn found(confirmed: &[Order], there: &[Order]) -> Vec<Order> {
    let by_reference: BTreeMap<&str, &Order> = there.iter().map(|order| (order.reference.as_str(), order)).collect();
    confirmed
        .iter()
        .filter_map(|order| by_reference.get(order.reference.as_str()).map(|order| (*order).clone()))
        .collect()
}

fn sha256(orders: &[Order]) -> String {
    let mut orders = orders.to_vec();
    orders.sort();
    let mut all = Sha256::new();
    for order in &orders {
        all.update(format!("{order:?}\n"));
    }
    hex(all.finalize())
}

fn shown(hash: &str) -> &str {
    hash.get(..SHOWN).unwrap_or(hash)
}

async fn gate_and_report(part: &mut Part, night: &Night, client: &Client) -> Result<(), CliError> {
    let gate = client.show_gate(&app()?).await?;
    part.check("people can log in again", gate.admits, if gate.admits { "the gate is open" } else { "it is closed" });
    let subject = night.mails.first().and_then(|mail| mail.lines().next()).unwrap_or_default();
    let seen = format!("{}: {}", text::count(night.mails.len(), "mail"), subject.trim_start_matches("Subject: "));
    part.check("exactly one report was written", night.mails.len() == 1, seen);
    Ok(())
}

fn app() -> Result<AppName, CliError> {
    "orders".parse().map_err(|error| CliError::failed("name the application", &error))
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    ok: bool,
    took_ms: u64,
    parts: Vec<Part>,
}

impl Summary {
    pub(super) fn new(parts: Vec<Part>, took: Duration) -> Self {
        Self { ok: parts.iter().all(Part::holds), took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX), parts }
    }

    pub(super) const fn holds(&self) -> bool {
        self.ok
    }

    /// Writes it as the answer of the command.
    pub(super) fn show(&self, ui: &Ui) -> Result<(), CliError> {
        let all = || self.parts.iter().flat_map(|part| &part.checks);
        let width = all().map(|check| check.what.chars().count()).max().unwrap_or(0);
        for part in &self.parts {
            ui.data(format!("\n{}", part.head()))?;
            for Check { what, ok, seen } in &part.checks {
                ui.verdict(*ok, format!("{what:<width$}  {seen}"))?;
            }
        }
        let took = text::rough(u128::from(self.took_ms));
        let bad = all().filter(|check| !check.ok).count();
        let last = match bad {
            0 => format!("All {} checks held. It took {took}.", all().count()),
            bad => format!("{bad} of {} checks FAILED. It took {took}.", all().count()),
        };
        ui.answer(self, |_| format!("\n{last}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(reference: &str, quantity: u32) -> Order {
        Order { reference: reference.to_owned(), by: "anna".to_owned(), quantity, item: "hinges".to_owned() }
    }

    #[test]
    fn a_lost_or_changed_order_changes_the_sum() {
        let confirmed = [order("a", 1), order("b", 2)];
        let sum = |there: &[Order]| sha256(&found(&confirmed, there));
        let all = sum(&[order("b", 2), order("c", 3), order("a", 1)]);
        assert_eq!(all, sha256(&confirmed));
        assert_ne!(sum(&[order("a", 1)]), all);
        assert_ne!(sum(&[order("a", 1), order("b", 3)]), all);
    }

    #[test]
    fn one_bad_check_spoils_the_whole() {
        let mut part = Part::new("A night");
        part.check("one", true, "");
        assert!(Summary::new(vec![part.clone()], Duration::ZERO).holds());
        part.check("two", false, "");
        assert!(!Summary::new(vec![part], Duration::ZERO).holds());
    }
}
