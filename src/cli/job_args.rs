//! What can be said of a job on the command line, for `create` and `edit` alike.

use clap::ArgGroup;
use clap::Args;
use clap::ValueEnum;

use crate::cli::exit::CliError;
use crate::domain::job::JobType;
use crate::domain::job::MisfirePolicy;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::release::Version;
use crate::domain::span::Span;
use crate::wire::job::CreateJob;
use crate::wire::job::EditJob;
use crate::wire::job::StartRequest;

/// Create a job.
///
/// A job has a unique name, an application and a start condition. It is created disabled and never starts by itself
/// before it is enabled; --enabled does both at once. The instant that a local time stands for is printed, and both
/// instants where the clocks are set back and the time exists twice.
///
/// A job that starts immediately logs everybody out as soon as the grace period is over. Who is logged in is named, and
/// you are asked; --yes answers for scripts.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("condition").args(["start", "at", "every", "after"]).required(true),
    after_help = "\
Examples:
  afterhours job create nightly --app orders --at \"2026-11-22 02:30\" --zone Europe/Berlin --enabled
  afterhours job create tonight --app orders --at 02:30 --enabled
  afterhours job create patchday --app orders --every \"Tue *-*-8..14 02:30\" --misfire ask
  afterhours job create weekdays --app orders --every \"30 2 * * 1-5\"
  afterhours job create crm-next --app crm --after nightly --enabled
  afterhours job create now --app orders --start immediate --enabled --yes"
)]
pub(crate) struct CreateArgs {
    /// A unique name: letters, digits, '-', '_' and '.'
    name: JobName,
    /// The application, the NAME of `[app.NAME]` in the configuration
    #[arg(long)]
    app: AppName,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    spec: SpecArgs,
    /// Answer yes to every question
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Change a job.
///
/// What is not named stays as it is. The start condition is replaced as a whole; --zone alone moves the one there is to
/// another zone. A run that is under way goes on as it was told when it began.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("condition").args(["start", "at", "every", "after"]),
    after_help = "\
Examples:
  afterhours job edit nightly --at \"2026-11-29 03:00\"
  afterhours job edit nightly --grace 10m --mail it@example.com --mail boss@example.com
  afterhours job edit nightly --clear to --clear mail"
)]
pub(crate) struct EditArgs {
    /// The job
    pub(crate) name: JobName,
    /// Another application
    #[arg(long)]
    app: Option<AppName>,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    spec: SpecArgs,
    /// Go back to what is usual for this; may be repeated
    #[arg(long, value_name = "FIELD", value_enum)]
    clear: Vec<Clearable>,
    /// Answer yes to every question
    #[arg(long)]
    pub(crate) yes: bool,
}

/// When a job starts.
#[derive(Debug, Args)]
#[command(next_help_heading = "When")]
struct StartArgs {
    /// As soon as it is enabled
    #[arg(long, value_name = "immediate", value_enum, hide_possible_values = true)]
    start: Option<StartArg>,
    /// Once, at a local time: "2026-11-22 02:30", 02:30, "tomorrow 02:30"; or in so long: 2h
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Again and again: "Tue *-*-8..14 02:30", "Mon..Fri 22:00", or five cron fields
    #[arg(long, value_name = "CALENDAR")]
    every: Option<String>,
    /// When a run of another job has succeeded
    #[arg(long, value_name = "JOB")]
    after: Option<JobName>,
    /// The zone that --at and --every are meant in [default: the daemon's]
    #[arg(long, value_name = "ZONE", conflicts_with_all = ["start", "after"])]
    zone: Option<String>,
}

/// All else that can be said of a job.
#[derive(Debug, Args)]
#[command(next_help_heading = "What and how")]
struct SpecArgs {
    /// What people read [default: the name]
    #[arg(long)]
    title: Option<String>,
    /// What the job does [default: software-update]
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    kind: Option<TypeArg>,
    /// Let it start by itself from now on
    #[arg(long)]
    enabled: bool,
    /// How long users have to finish [default: the application's]
    #[arg(long, value_name = "SPAN")]
    grace: Option<Span>,
    /// After this long a run is put back, unless the new version is accepted already [default: 4h]
    #[arg(long, value_name = "SPAN")]
    max_runtime: Option<Span>,
    /// What happens to a start that was missed because the machine was off [default: run]
    #[arg(long, value_name = "POLICY", value_enum)]
    misfire: Option<MisfireArg>,
    /// How late a missed start may still run [default: 4h]
    #[arg(long, value_name = "SPAN")]
    misfire_tolerance: Option<Span>,
    /// Install nothing beyond this version [default: the newest]
    #[arg(long, value_name = "VERSION")]
    to: Option<Version>,
    /// Start this job when a run does not succeed
    #[arg(long, value_name = "JOB")]
    on_failure: Option<JobName>,
    /// Mail the report here, too; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    mail: Vec<String>,
    /// Start also where the application is down or does not pass its health check: the update shall mend it
    #[arg(long)]
    repair: bool,
    /// A note for whoever comes after you
    #[arg(long, value_name = "TEXT")]
    remarks: Option<String>,
}

/// The one word after `--start`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum StartArg {
    /// As soon as it is enabled.
    Immediate,
}

/// What a job does.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum TypeArg {
    /// Installs pending releases of an application.
    SoftwareUpdate,
}

impl From<TypeArg> for JobType {
    fn from(kind: TypeArg) -> Self {
        match kind {
            TypeArg::SoftwareUpdate => Self::SoftwareUpdate,
        }
    }
}

/// What happens to a missed start.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum MisfireArg {
    /// It is not made up for
    Skip,
    /// It runs late, within the tolerance
    Run,
    /// It waits until you say `job run` or `job disable`
    Ask,
}

impl From<MisfireArg> for MisfirePolicy {
    fn from(policy: MisfireArg) -> Self {
        match policy {
            MisfireArg::Skip => Self::Skip,
            MisfireArg::Run => Self::Run,
            MisfireArg::Ask => Self::Ask,
        }
    }
}

/// What `job edit` can take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clearable {
    /// The job's own grace
    Grace,
    /// The highest version
    To,
    /// The job that follows a failure
    OnFailure,
    /// The mail addresses
    Mail,
    /// The word that the application may be down or ill
    Repair,
    /// The remarks
    Remarks,
}

impl StartArgs {
    fn request(self) -> Option<StartRequest> {
        let Self { start, at, every, after, zone } = self;
        match (start, at, every, after) {
            (Some(StartArg::Immediate), ..) => Some(StartRequest::Immediate),
            (None, Some(local), ..) => Some(StartRequest::Time { local, zone }),
            (None, None, Some(calendar), _) => Some(StartRequest::Series { calendar, zone }),
            (None, None, None, Some(job)) => Some(StartRequest::After { job }),
            (None, None, None, None) => None,
        }
    }
}

impl CreateArgs {
    /// As the daemon is asked.
    pub(crate) fn request(self) -> Result<CreateJob, CliError> {
        let Self { name, app, start, spec, yes: _ } = self;
        let start = start.request().ok_or_else(|| {
            CliError::usage("a job needs a start condition", "add --at, --every, --after or --start immediate")
        })?;
        Ok(CreateJob {
            name,
            title: spec.title,
            kind: spec.kind.map(JobType::from).unwrap_or_default(),
            app,
            remarks: spec.remarks.unwrap_or_default(),
            start,
            enabled: spec.enabled,
            grace: spec.grace,
            max_runtime: spec.max_runtime,
            misfire: spec.misfire.map(MisfirePolicy::from).unwrap_or_default(),
            misfire_tolerance: spec.misfire_tolerance,
            to: spec.to,
            on_failure: spec.on_failure,
            mail: spec.mail,
            repair: spec.repair,
        })
    }
}

impl EditArgs {
    /// As the daemon is asked.
    pub(crate) fn request(self) -> Result<EditJob, CliError> {
        let Self { name: _, app, mut start, spec, clear, yes: _ } = self;
        // The type is named for completeness: there is one only, so nothing can change.
        let SpecArgs { kind: _, .. } = spec;
        let clears = |field| clear.contains(&field);
        let both = |is_set: bool, field, flag: &str| {
            if is_set && clears(field) {
                return Err(CliError::usage(format!("{flag} is set and cleared at once"), "leave one of them out"));
            }
            Ok(())
        };
        both(spec.grace.is_some(), Clearable::Grace, "--grace")?;
        both(spec.to.is_some(), Clearable::To, "--to")?;
        both(spec.on_failure.is_some(), Clearable::OnFailure, "--on-failure")?;
        both(!spec.mail.is_empty(), Clearable::Mail, "--mail")?;
        both(spec.repair, Clearable::Repair, "--repair")?;
        both(spec.remarks.is_some(), Clearable::Remarks, "--remarks")?;
        let zone = if start.at.is_none() && start.every.is_none() { start.zone.take() } else { None };
        let edit = EditJob {
            title: spec.title,
            app,
            remarks: spec.remarks.or_else(|| clears(Clearable::Remarks).then(String::new)),
            start: start.request(),
            zone,
            enabled: spec.enabled.then_some(true),
            grace: set_or_cleared(spec.grace, clears(Clearable::Grace)),
            max_runtime: spec.max_runtime,
            misfire: spec.misfire.map(MisfirePolicy::from),
            misfire_tolerance: spec.misfire_tolerance,
            to: set_or_cleared(spec.to, clears(Clearable::To)),
            on_failure: set_or_cleared(spec.on_failure, clears(Clearable::OnFailure)),
            mail: (!spec.mail.is_empty() || clears(Clearable::Mail)).then_some(spec.mail),
            repair: (spec.repair || clears(Clearable::Repair)).then_some(spec.repair),
        };
        if edit == EditJob::default() {
            return Err(CliError::usage("nothing to change", "see `afterhours job edit --help`"));
        }
        Ok(edit)
    }
}

fn set_or_cleared<T>(value: Option<T>, clear: bool) -> Option<Option<T>> {
    match value {
        Some(value) => Some(Some(value)),
        None => clear.then_some(None),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rstest::rstest;

    use super::*;

    #[derive(Debug, Parser)]
    enum Line {
        Create(CreateArgs),
        Edit(EditArgs),
    }

    fn parse(line: &[&str]) -> Result<Line, clap::Error> {
        Line::try_parse_from(["job"].iter().chain(line))
    }

    #[rstest]
    #[case(&["--start", "immediate"], StartRequest::Immediate)]
    #[case(&["--at", "2026-11-22 02:30"], StartRequest::Time { local: "2026-11-22 02:30".into(), zone: None })]
    #[case(&["--every", "Mon..Fri 22:00", "--zone", "UTC"],
        StartRequest::Series { calendar: "Mon..Fri 22:00".into(), zone: Some("UTC".into()) })]
    #[case(&["--after", "backup"], StartRequest::After { job: "backup".parse().unwrap() })]
    fn each_condition_is_understood(#[case] condition: &[&str], #[case] start: StartRequest) {
        let line: Vec<&str> = ["create", "nightly", "--app", "orders"].iter().chain(condition).copied().collect();
        let Ok(Line::Create(args)) = parse(&line) else { panic!("{line:?}") };
        let job = args.request().unwrap();
        assert_eq!(job.start, start);
        assert!(!job.enabled);
        assert_eq!((job.misfire, job.max_runtime), (MisfirePolicy::Run, None));
    }

    #[rstest]
    #[case(&["create", "nightly", "--app", "orders"])]
    #[case(&["create", "nightly", "--at", "2026-11-22 02:30"])]
    #[case(&["create", "night ly", "--app", "orders", "--at", "x"])]
    #[case(&["create", "nightly", "--app", "orders", "--at", "x", "--every", "y"])]
    #[case(&["create", "nightly", "--app", "orders", "--after", "x", "--zone", "UTC"])]
    #[case(&["create", "nightly", "--app", "orders", "--start", "later"])]
    #[case(&["create", "nightly", "--app", "orders", "--at", "x", "--grace", "5"])]
    #[case(&["create", "nightly", "--app", "orders", "--at", "x", "--misfire", "maybe"])]
    #[case(&["create", "nightly", "--app", "orders", "--at", "x", "--type", "backup"])]
    #[case(&["create", "nightly", "--app", "orders", "--at", "x", "--to", "../4"])]
    fn misuse_is_seen_before_anybody_is_asked(#[case] line: &[&str]) {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn an_edit_holds_only_what_was_named() {
        let line = ["edit", "nightly", "--zone", "UTC", "--clear", "to", "--clear", "mail", "--grace", "1m"];
        let Ok(Line::Edit(args)) = parse(&line) else { panic!() };
        let edit = serde_json::to_value(args.request().unwrap()).unwrap();
        assert_eq!(edit, serde_json::json!({"zone": "UTC", "to": null, "mail": [], "grace": "1m"}));
    }

    #[rstest]
    #[case(&["edit", "nightly"])]
    #[case(&["edit", "nightly", "--to", "4", "--clear", "to"])]
    fn an_edit_that_says_nothing_or_two_things_is_misuse(#[case] line: &[&str]) {
        let Ok(Line::Edit(args)) = parse(line) else { panic!() };
        assert_eq!(args.request().unwrap_err().kind(), crate::wire::error::ErrorKind::Usage);
    }
}
