//! Jobs on the wire.

use chrono::DateTime;
use chrono::NaiveDateTime;
use chrono::Utc;
use chrono_tz::Tz;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;

use crate::domain::job::Job;
use crate::domain::job::JobType;
use crate::domain::job::MisfirePolicy;
use crate::domain::job::StartCondition;
use crate::domain::name::AppName;
use crate::domain::name::JobName;
use crate::domain::release::Version;
use crate::domain::run::Outcome;
use crate::domain::run::RunId;
use crate::domain::span::Span;

/// A job as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Unique.
    pub name: JobName,
    /// For people.
    pub title: String,
    /// What it does.
    #[serde(rename = "type")]
    pub kind: JobType,
    /// The application.
    pub app: AppName,
    /// A disabled job never starts by itself.
    pub enabled: bool,
    /// When it starts.
    pub start: StartView,
    /// The next start; absent when disabled, when it is over, or when it follows another job.
    pub due_at: Option<DateTime<Utc>>,
    /// A start was missed, and it waits for somebody to decide.
    pub missed_at: Option<DateTime<Utc>>,
    /// The newest run.
    pub last_run: Option<LastRun>,
    /// Free text.
    pub remarks: String,
    /// How long users have; the application's own grace when absent.
    pub grace: Option<Span>,
    /// After this long a run is unwound, unless it is past the commit.
    pub max_runtime: Span,
    /// What happens to a missed start.
    pub misfire: MisfirePolicy,
    /// How late a missed start may run.
    pub misfire_tolerance: Span,
    /// Install no release beyond this version.
    pub to: Option<Version>,
    /// Started when a run of this job does not succeed.
    pub on_failure: Option<JobName>,
    /// Mail addresses beside the application's own.
    pub mail: Vec<String>,
    /// Whether the application may be down or ill when it starts: the update shall mend it.
    #[serde(default)]
    pub repair: bool,
    /// Who created it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// What somebody should know of what follows it, in sentences; not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

impl JobView {
    /// A job as it is shown; `at` is the instant its local time stands for, where it has one.
    pub fn new(job: Job, at: Option<DateTime<Utc>>, last_run: Option<LastRun>) -> Self {
        let spec = job.spec;
        Self {
            name: spec.name,
            title: spec.title,
            kind: spec.kind,
            app: spec.app,
            enabled: job.enabled,
            start: StartView::new(spec.start, at),
            due_at: job.due_at,
            missed_at: job.missed_at,
            last_run,
            remarks: spec.remarks,
            grace: spec.grace,
            max_runtime: spec.max_runtime,
            misfire: spec.misfire,
            misfire_tolerance: spec.misfire_tolerance,
            to: spec.to,
            on_failure: spec.on_failure,
            mail: spec.mail,
            repair: spec.repair,
            created_by: job.created_by,
            created_at: job.created_at,
            updated_at: job.updated_at,
            notices: Vec::new(),
        }
    }
}

/// The kind of a start condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// As soon as it is enabled.
    Immediate,
    /// Once, at a wall-clock time.
    Time,
    /// Again and again, by a calendar expression.
    Series,
    /// When another job's run has succeeded.
    After,
}

/// A start condition as it is shown: the same keys for every kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartView {
    /// Which of the four.
    pub kind: StartKind,
    /// The wall-clock time of `time`.
    pub local: Option<NaiveDateTime>,
    /// The zone that `time` and `series` are meant in.
    pub zone: Option<Tz>,
    /// The calendar expression of `series`.
    pub calendar: Option<String>,
    /// The job that `after` follows.
    pub job: Option<JobName>,
    /// The instant that `time` stands for.
    pub at: Option<DateTime<Utc>>,
}

impl StartView {
    /// A start condition as it is shown.
    pub fn new(start: StartCondition, at: Option<DateTime<Utc>>) -> Self {
        let bare = |kind| Self { kind, local: None, zone: None, calendar: None, job: None, at };
        match start {
            StartCondition::Immediate => bare(StartKind::Immediate),
            StartCondition::Time { local, zone } => {
                Self { local: Some(local), zone: Some(zone), ..bare(StartKind::Time) }
            }
            StartCondition::Series { calendar, zone } => {
                Self { calendar: Some(calendar), zone: Some(zone), ..bare(StartKind::Series) }
            }
            StartCondition::After { job } => Self { job: Some(job), ..bare(StartKind::After) },
        }
    }
}

/// The newest run of a job, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// Its number.
    pub id: RunId,
    /// How it ended; absent while it runs.
    pub outcome: Option<Outcome>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// The answer to everything that changes a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobChanged {
    /// The job as it is now.
    #[serde(flatten)]
    pub job: JobView,
    /// What its local time means; absent for kinds without one.
    pub resolved: Option<ResolvedView>,
    /// What somebody should think about, in sentences.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// What a local time means as an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedView {
    /// The instant that was chosen.
    pub at: DateTime<Utc>,
    /// Whether there was a choice.
    pub kind: ResolvedKind,
    /// In an overlap, the first of the two instants: the chosen one.
    pub first: Option<DateTime<Utc>>,
    /// In an overlap, the second.
    pub second: Option<DateTime<Utc>>,
}

/// How a local time relates to the clock of its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedKind {
    /// It exists once.
    Exact,
    /// It does not exist; the first instant after the gap was chosen.
    Gap,
    /// It exists twice; the first one was chosen.
    Overlap,
}

/// When a job is to start, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum StartRequest {
    /// As soon as it is enabled.
    Immediate,
    /// Once.
    Time {
        /// `2026-11-22 02:30`, with or without seconds.
        local: String,
        /// An IANA zone; the daemon's own when absent.
        #[serde(default)]
        zone: Option<String>,
    },
    /// Again and again.
    Series {
        /// systemd calendar syntax or five cron fields.
        calendar: String,
        /// An IANA zone; the daemon's own when absent.
        #[serde(default)]
        zone: Option<String>,
    },
    /// When another job's run has succeeded.
    After {
        /// That job.
        job: JobName,
    },
}

/// Asks for a new job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateJob {
    /// Unique.
    pub name: JobName,
    /// For people; the name when absent.
    #[serde(default)]
    pub title: Option<String>,
    /// What it does.
    #[serde(rename = "type", default)]
    pub kind: JobType,
    /// The application.
    pub app: AppName,
    /// Free text.
    #[serde(default)]
    pub remarks: String,
    /// When it starts.
    pub start: StartRequest,
    /// Whether it may start by itself from now on.
    #[serde(default)]
    pub enabled: bool,
    /// How long users have; the application's own grace when absent.
    #[serde(default)]
    pub grace: Option<Span>,
    /// The longest a run may take; the default when absent.
    #[serde(default)]
    pub max_runtime: Option<Span>,
    /// What happens to a missed start.
    #[serde(default)]
    pub misfire: MisfirePolicy,
    /// How late a missed start may run; the default when absent.
    #[serde(default)]
    pub misfire_tolerance: Option<Span>,
    /// Install no release beyond this version.
    #[serde(default)]
    pub to: Option<Version>,
    /// Started when a run of this job does not succeed.
    #[serde(default)]
    pub on_failure: Option<JobName>,
    /// Mail addresses beside the application's own.
    #[serde(default)]
    pub mail: Vec<String>,
    /// The application may be down or ill when it starts: the update shall mend it.
    #[serde(default)]
    pub repair: bool,
}

/// Changes a job. What is absent stays; what is `null` goes back to its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditJob {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// Free text; empty clears it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remarks: Option<String>,
    /// When it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartRequest>,
    /// A new zone for the time or series that the job has already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Whether it may start by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How long users have.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub grace: Option<Option<Span>>,
    /// The longest a run may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_runtime: Option<Span>,
    /// What happens to a missed start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misfire: Option<MisfirePolicy>,
    /// How late a missed start may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misfire_tolerance: Option<Span>,
    /// Install no release beyond this version.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub to: Option<Option<Version>>,
    /// Started when a run of this job does not succeed.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Option<JobName>>,
    /// All mail addresses beside the application's own; empty clears them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<Vec<String>>,
    /// Whether the application may be down or ill when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repair: Option<bool>,
}

/// Tells `null` from absent: only a key that is there comes this way.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Starts a job now.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunJob {
    /// How long users have this time; the job's own grace when absent.
    #[serde(default)]
    pub grace: Option<Span>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_tells_absent_from_null() {
        let edit: EditJob = serde_json::from_str(r#"{"grace": null, "to": "2.1"}"#).unwrap();
        assert_eq!(edit.grace, Some(None));
        assert_eq!(edit.to, Some(Some("2.1".parse().unwrap())));
        assert_eq!(edit.on_failure, None);
        assert_eq!(serde_json::to_value(&edit).unwrap(), serde_json::json!({"grace": null, "to": "2.1"}));
    }

    #[test]
    fn misspelt_keys_are_refused() {
        assert!(serde_json::from_str::<EditJob>(r#"{"titel": "x"}"#).is_err());
        let start = r#"{"kind": "time", "local": "2026-11-22 02:30", "zoen": "UTC"}"#;
        assert!(serde_json::from_str::<StartRequest>(start).is_err());
    }

    #[test]
    fn every_start_shows_the_same_keys() {
        let zone = Tz::Europe__Berlin;
        let local = NaiveDateTime::parse_from_str("2026-11-22 02:30", "%Y-%m-%d %H:%M").unwrap();
        for start in [
            StartCondition::Immediate,
            StartCondition::Time { local, zone },
            StartCondition::Series { calendar: "Tue *-*-8..14 02:30".to_owned(), zone },
            StartCondition::After { job: "nightly".parse().unwrap() },
        ] {
            let kind = start.kind();
            let shown = serde_json::to_value(StartView::new(start, None)).unwrap();
            assert_eq!(shown["kind"], kind);
            assert_eq!(shown.as_object().unwrap().len(), 6);
        }
    }
}
