//! `afterhours demo`: the whole night in half a minute.
//!
//! Nothing is played: the real daemon, the real workstation client and a real application are started
//! as processes, and what is claimed in the end was looked at.
//!
//! - `stage`: a directory of its own with a program, data and a configuration;
//! - `vendor`: a signed feed and a web server for it, on a port of this machine;
//! - `crew`: the processes, and how they are ended;
//! - `night`: one run, told while it happens;
//! - `verdict`: what was looked at, and how it reads.
//!
//! *Invariant:* however it ends, by Ctrl-C, too, no process is left, and no file but those in `--dir`.

mod crew;
mod night;
mod stage;
mod vendor;
mod verdict;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::time::Instant;

use crate::cli::context::Context;
use crate::cli::demo::crew::Crew;
use crate::cli::demo::night::Night;
use crate::cli::demo::stage::FOURTH;
use crate::cli::demo::stage::Stage;
use crate::cli::demo::verdict::Part;
use crate::cli::demo::verdict::Summary;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::out::Ui;
use crate::client::api::Client;
use crate::domain::run::Outcome;
use crate::domain::session::Answer;
use crate::domain::span::Span;
use crate::wire::error::ErrorKind;

/// How long people have in the first night.
const FIRST_GRACE: Span = Span::secs(6);
/// How long they have in the second; nothing new is shown by waiting again.
const SECOND_GRACE: Span = Span::secs(3);
/// How long the daemon and the application may take to come up.
const UP_MAX: Duration = Duration::from_secs(30);
/// How many lines of the daemon's log are shown when something went wrong.
const LOG_LINES: usize = 20;

/// See the whole night in half a minute, on a sample application.
///
/// Three people are logged in, a job falls due, they are warned and logged out, the new versions are fetched from the
/// vendor's signed feed and installed one after the other; then somebody breaks into the vendor's web server and is
/// refused; then a second night whose version fails its health check, and everything is put back. It needs no
/// configuration and touches nothing outside of a directory of its own and two ports that only this machine can reach.
///
/// What was seen is listed in the end. Exits with 0 when all of it is as it should be.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Work here, and keep it [default: a directory that is removed]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: DemoArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let began = Instant::now();
    let mut interrupt = Interrupt::listen()?;
    let stage = Stage::set(args.dir, context.now())?;
    let mut crew = Crew::new(&stage)?;
    let played = tokio::select! {
        biased;
        () = interrupt.came() => Err(CliError::failed("go on", &Interrupted)),
        played = play(&stage, &mut crew, context) => played,
    };
    let failed = !played.as_ref().is_ok_and(|parts| parts.iter().all(Part::holds));
    if failed {
        show_log(&stage, context.ui);
    }
    context.ui.say("Everybody goes home: workstations, daemon and application are ended.");
    let after = verdict::afterwards(crew.dismiss(&stage).await, stage.strike());
    let mut parts = played?;
    parts.push(after);
    let summary = Summary::new(parts, began.elapsed());
    summary.show(context.ui)?;
    Ok(if summary.holds() { Ending::Good } else { Ending::Bad(ErrorKind::Failed) })
}

/// Both nights.
async fn play(stage: &Stage, crew: &mut Crew, context: &Context<'_>) -> Result<Vec<Part>, CliError> {
    let ui = context.ui;
    ui.say("Order desk 1.0 is installed, the vendor has signed and published 2.0 and 3.0. The daemon is started.");
    let client = Client::new(&stage.socket())?;
    crew.start_daemon(stage, &client, UP_MAX).await?;
    crew.wait_for_version(stage, "1.0", UP_MAX).await?;
    crew.start_station("anna", Answer::Ok)?;
    crew.start_station("ben", Answer::NotNow)?;
    crew.start_station("rosa", Answer::RestartAfterwards)?;
    crew.wait_for_orders(stage, 3, UP_MAX).await?;
    ui.say("Three people enter orders at their workstations. Warned of an update, anna will say OK,");
    ui.say("ben \"not now\", and rosa \"restart afterwards\".");

    ui.say("\nThe first night: a job for two versions");
    let first = Night::live(1, FIRST_GRACE, stage, crew, &client, context).await?;
    let mut parts = vec![verdict::first_night(&first, stage, crew, &client).await?];

    if first.run.outcome != Some(Outcome::Succeeded) {
        return Ok(parts);
    }
    ui.say("\nIn the morning anna and ben log in again; then the vendor publishes 4.0, which does not work.");
    crew.start_station("anna", Answer::Ok)?;
    crew.start_station("ben", Answer::NotNow)?;
    crew.wait_for_orders(stage, 3, UP_MAX).await?;
    let old = stage.vendor().list()?;
    stage.vendor().publish(&FOURTH, context.now())?;
    parts.push(verdict::web_server(&old, stage, &client).await?);
    ui.say("Somebody broke into the vendor's web server meanwhile, and was refused.");
    ui.say("\nThe second night: the same job again");
    let second = Night::live(2, SECOND_GRACE, stage, crew, &client, context).await?;
    parts.push(verdict::second_night(&second, stage, crew, &client).await?);
    crew.end_stations().await;
    parts.push(verdict::morning(stage).await?);
    Ok(parts)
}

fn show_log(stage: &Stage, ui: &Ui) {
    let log = fs_err::read_to_string(stage.daemon_log()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    if !last.is_empty() {
        ui.say(format!("The last lines of the daemon's log:\n{last}"));
    }
}

/// Somebody does not want to see the rest.
#[derive(Debug, thiserror::Error)]
#[error("the demo was interrupted")]
struct Interrupted;

/// TERM or INT; from here on neither ends this process by itself.
struct Interrupt(Signal, Signal);

impl Interrupt {
    fn listen() -> Result<Self, CliError> {
        let listen = |kind| signal(kind).map_err(|error| CliError::failed("listen for signals", &error));
        Ok(Self(listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?))
    }

    async fn came(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}
