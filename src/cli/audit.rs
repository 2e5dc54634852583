//! `afterhours audit`: the history, proved and handed out.

use chrono::DateTime;
use chrono::Local;
use chrono::NaiveDate;
use chrono::NaiveDateTime;
use chrono::NaiveTime;
use chrono::TimeZone;
use chrono::Utc;
use clap::Args;
use clap::Subcommand;

use crate::cli::context::Context;
use crate::cli::doer::Doer;
use crate::cli::exit::CliError;
use crate::cli::exit::Ending;
use crate::cli::text;
use crate::domain::history::AnchorState;
use crate::wire::audit::EntriesQuery;
use crate::wire::audit::ProofView;
use crate::wire::audit::VerifyQuery;
use crate::wire::error::ErrorKind;

/// Prove that the history was not rewritten, and hand it out.
///
/// The history is the log of every run, and who changed what or was refused. Each entry has a number, and a hash that
/// covers everything before it. The newest entry is the head: it stands in every mail about a run, once a day in the
/// log of the daemon, and in `afterhours status`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Compute every hash anew; needs no daemon
    Verify(VerifyArgs),
    /// Write every entry to stdout, one JSON object a line; needs no daemon
    Export(ExportArgs),
}

/// Compute every hash anew; needs no daemon.
///
/// Says the first entry that was changed or taken out. Given the head from an old mail, it also says whether that entry is
/// still there with that hash. Only that shows that the end was cut off, or that everything was written anew.
///
/// Exits with 0 when the history is whole and the given entry in it, with 1 when not, and with 3 when retention has
/// removed the given entry.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours audit verify
  afterhours audit verify --number 1284 --head 4f2a9c4f2a9c4f2a")]
struct VerifyArgs {
    /// The hash of an old head: all of it, or its first digits, 16 at least
    #[arg(long, value_name = "HASH", requires = "number")]
    head: Option<String>,
    /// The number of that entry
    #[arg(long, value_name = "N", requires = "head")]
    number: Option<i64>,
}

/// Write every entry to stdout, one JSON object a line; needs no daemon.
///
/// Oldest first. `kind` is `event` for what happened in a run, and `audit` for what somebody changed or was refused; a
/// refusal has the action `refused`, and says in `times` how often it was repeated within a minute.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  afterhours audit export > history.jsonl
  afterhours audit export --since 2026-11-01")]
struct ExportArgs {
    /// Nothing from before: 2026-11-22, \"2026-11-22 06:00\", or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<DateTime<Utc>>,
}

/// Does what the arguments say.
pub(crate) async fn run(args: AuditArgs, context: &Context<'_>) -> Result<Ending, CliError> {
    let doer = Doer::find(context).await?;
    match args.command {
        AuditCommand::Verify(VerifyArgs { head, number }) => {
            let proof = doer.prove_history(VerifyQuery { number, head }).await?;
            context.ui.answer(&proof, |proof| text::audit::proof(proof, &context.times()))?;
            Ok(ending(&proof))
        }
        AuditCommand::Export(ExportArgs { since }) => {
            let mut query = EntriesQuery { after: 0, since };
            loop {
                let entries = doer.history(query.clone()).await?;
                let Some(last) = entries.last() else { return Ok(Ending::Good) };
                query.after = last.number;
                let mut lines = Vec::new();
                for entry in &entries {
                    serde_json::to_writer(&mut lines, entry).map_err(|error| CliError::failed("write JSON", &error))?;
                    lines.push(b'\n');
                }
                context.ui.raw(&lines)?;
            }
        }
    }
}

fn ending(proof: &ProofView) -> Ending {
    match proof.anchor.as_ref().map(|anchor| anchor.state) {
        _ if !proof.whole => Ending::Bad(ErrorKind::Failed),
        Some(AnchorState::Differs | AnchorState::Missing) => Ending::Bad(ErrorKind::Failed),
        Some(AnchorState::Removed) => Ending::Bad(ErrorKind::NotFound),
        Some(AnchorState::Held) | None => Ending::Good,
    }
}

/// Reads an instant of the past: a day, a local date and time, or RFC 3339.
fn since(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|day| day.and_time(NaiveTime::MIN));
    let local = day.or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M"));
    let at = local.ok().and_then(|local| Local.from_local_datetime(&local).earliest());
    at.map(|at| at.to_utc()).ok_or_else(|| format!("\"{text}\" is no time: write 2026-11-22 or \"2026-11-22 06:00\""))
}
