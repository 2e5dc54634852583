//! Jobs: create, edit, enable, disable, delete, run now, plan, history.

use std::collections::BTreeMap;
use std::str::FromStr;

use chrono::DateTime;
use chrono::Days;
use chrono::NaiveDateTime;
use chrono::NaiveTime;
use chrono::Timelike;
use chrono::Utc;
use chrono_tz::Tz;

use crate::control::Caller;
use crate::control::Control;
use crate::control::error::ControlError;
use crate::db::runs::RunFilter;
use crate::db::store::StoreError;
use crate::domain::foreign;
use crate::domain::job::Job;
use crate::domain::job::JobSpec;
use crate::domain::job::MAX_RUNTIME_DEFAULT;
use crate::domain::job::MISFIRE_TOLERANCE_DEFAULT;
use crate::domain::job::StartCondition;
use crate::domain::name::JobName;
use crate::domain::run::Order;
use crate::domain::run::Trigger;
use crate::domain::session::Census;
use crate::domain::session::Session;
use crate::domain::span::Span;
use crate::jobs::plan::plan;
use crate::scheduler::resolve::Resolved;
use crate::scheduler::resolve::first_start;
use crate::wire::job::CreateJob;
use crate::wire::job::EditJob;
use crate::wire::job::JobChanged;
use crate::wire::job::JobView;
use crate::wire::job::LastRun;
use crate::wire::job::ResolvedKind;
use crate::wire::job::ResolvedView;
use crate::wire::job::RunJob;
use crate::wire::job::StartRequest;
use crate::wire::plan::PlanView;
use crate::wire::run::RunView;

/// How a local time may be written.
const LOCAL_FORMATS: [&str; 4] = ["%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"];
/// How a time of day may be written.
const TIME_FORMATS: [&str; 2] = ["%H:%M", "%H:%M:%S"];
/// Within these local hours people are thought to work, on weekdays.
const WORKING_HOURS: std::ops::Range<u32> = 8..18;

impl Control {
    /// Creates a job.
    ///
    /// # Errors
    /// The name is taken, something it names does not exist, or it makes no sense; nothing is stored.
    pub async fn create_job(&self, caller: &Caller, ask: CreateJob) -> Result<JobChanged, ControlError> {
        Self::must_operate(caller)?;
        let now = self.now();
        let spec = JobSpec {
            title: ask.title.unwrap_or_else(|| format!("Software update of {}", ask.app)),
            name: ask.name,
            kind: ask.kind,
            app: ask.app,
            remarks: ask.remarks,
            start: start_condition(ask.start, None, now)?,
            grace: ask.grace,
            max_runtime: ask.max_runtime.unwrap_or(MAX_RUNTIME_DEFAULT),
            misfire: ask.misfire,
            misfire_tolerance: ask.misfire_tolerance.unwrap_or(MISFIRE_TOLERANCE_DEFAULT),
            to_named_at: ask.to.as_ref().map(|_| now),
            to: ask.to,
            on_failure: ask.on_failure,
            mail: ask.mail,
            repair: ask.repair,
        };
        let resolved = self.check(&spec, None).await?;
        let job = Job {
            enabled: ask.enabled,
            due_at: resolved.filter(|_| ask.enabled).map(|resolved| resolved.at),
            missed_at: None,
            created_by: caller.who.clone(),
            created_at: now,
            updated_at: now,
            spec,
        };
        self.store.create_job(job.clone()).await?;
        self.audit(caller, "job.create", &job.spec.name, &job).await?;
        self.schedule_changed.notify_one();
        self.changed(job, resolved).await
    }

    /// Changes a job.
    ///
    /// # Errors
    /// As for [`Control::create_job`]; nothing is stored.
    pub async fn edit_job(&self, caller: &Caller, name: &JobName, edit: EditJob) -> Result<JobChanged, ControlError> {
        Self::must_operate(caller)?;
        let before = self.store.job(name).await?;
        let mut job = before.clone();
        let spec = &mut job.spec;
        let restarts = edit.start.is_some() || edit.zone.is_some() || edit.enabled == Some(true) && !before.enabled;
        if let Some(start) = edit.start {
            spec.start = start_condition(start, edit.zone.as_deref(), self.now())?;
        } else if let Some(zone) = edit.zone {
            move_to_zone(&mut spec.start, &zone)?;
        }
        spec.title = edit.title.unwrap_or_else(|| spec.title.clone());
        spec.app = edit.app.unwrap_or_else(|| spec.app.clone());
        spec.remarks = edit.remarks.unwrap_or_else(|| spec.remarks.clone());
        spec.grace = edit.grace.unwrap_or(spec.grace);
        spec.max_runtime = edit.max_runtime.unwrap_or(spec.max_runtime);
        spec.misfire = edit.misfire.unwrap_or(spec.misfire);
        spec.misfire_tolerance = edit.misfire_tolerance.unwrap_or(spec.misfire_tolerance);
        if let Some(to) = edit.to {
            spec.to_named_at = to.as_ref().map(|_| self.now());
            spec.to = to;
        }
        spec.on_failure = edit.on_failure.unwrap_or_else(|| spec.on_failure.clone());
        spec.mail = edit.mail.unwrap_or_else(|| spec.mail.clone());
        spec.repair = edit.repair.unwrap_or(spec.repair);
        job.enabled = edit.enabled.unwrap_or(job.enabled);
        self.replace(caller, "job.edit", &before, job, restarts).await
    }

    /// Lets a job start by itself.
    ///
    /// # Errors
    /// There is no such job, or its time is past.
    pub async fn enable_job(&self, caller: &Caller, name: &JobName) -> Result<JobChanged, ControlError> {
        self.set_enabled(caller, name, true).await
    }

    /// Keeps a job from starting by itself; also answers a missed start with no.
    ///
    /// # Errors
    /// There is no such job.
    pub async fn disable_job(&self, caller: &Caller, name: &JobName) -> Result<JobChanged, ControlError> {
        self.set_enabled(caller, name, false).await
    }

    async fn set_enabled(&self, caller: &Caller, name: &JobName, enabled: bool) -> Result<JobChanged, ControlError> {
        Self::must_operate(caller)?;
        let before = self.store.job(name).await?;
        let job = Job { enabled, ..before.clone() };
        let action = if enabled { "job.enable" } else { "job.disable" };
        let starts = enabled && !before.enabled;
        self.replace(caller, action, &before, job, starts).await
    }

    /// Stores `job` in place of `before`. With `restarts`, its next start is found anew.
    async fn replace(
        &self,
        caller: &Caller,
        action: &str,
        before: &Job,
        mut job: Job,
        restarts: bool,
    ) -> Result<JobChanged, ControlError> {
        let now = self.now();
        let needs_start = job.enabled && restarts;
        let resolved = if needs_start || job.spec != before.spec {
            self.check(&job.spec, Some(before).filter(|_| !restarts)).await?
        } else {
            None
        };
        if needs_start || !job.enabled {
            job.due_at = resolved.filter(|_| job.enabled).map(|resolved| resolved.at);
            job.missed_at = None;
        } else if job.due_at.is_none() {
            // A start that was queued ahead is taken back by the change; it stands in the calendar again.
            job.due_at = first_start_again(&job, now)?;
        }
        job.updated_at = now;
        self.store.replace_job(&before.spec.name, job.clone()).await?;
        self.audit(caller, action, &job.spec.name, serde_json::json!({ "before": before, "after": job })).await?;
        self.schedule_changed.notify_one();
        self.changed(job, resolved).await
    }

    /// Removes a job; its history stays.
    ///
    /// # Errors
    /// There is no such job, another one needs it, or it has a run under way.
    pub async fn delete_job(&self, caller: &Caller, name: &JobName) -> Result<(), ControlError> {
        Self::must_operate(caller)?;
        // One that cannot be read can be deleted all the same.
        let job = match self.store.job(name).await {
            Err(StoreError::Corrupt { .. }) => None,
            job => Some(job?),
        };
        let needed_by = self.store.jobs_naming(name).await?;
        if !needed_by.is_empty() {
            return Err(ControlError::Needed { job: name.clone(), needed_by });
        }
        self.must_be_idle(name).await?;
        self.store.delete_job(name, self.now()).await?;
        self.audit(caller, "job.delete", name, &job).await?;
        self.schedule_changed.notify_one();
        Ok(())
    }

    /// Starts a job now, beside its schedule.
    ///
    /// # Errors
    /// There is no such job, it is disabled, a run of it is under way, or there is no way to its version.
    pub async fn run_job(&self, caller: &Caller, name: &JobName, ask: RunJob) -> Result<RunView, ControlError> {
        Self::must_operate(caller)?;
        let job = self.store.job(name).await?;
        if !job.enabled {
            return Err(ControlError::Disabled { job: name.clone() });
        }
        self.must_be_idle(name).await?;
        let mut order = Order::of_job(&job.spec, Trigger::Manual, &caller.who);
        order.grace = ask.grace.or(order.grace);
        if let Some(missed_at) = job.missed_at {
            order.trigger = Trigger::Misfire { missed_at };
        }
        self.must_lead_somewhere(self.kit(&order.app)?, order.to.as_ref()).await?;
        let run = self.store.queue_run(order, self.now()).await?;
        self.audit(caller, "job.run", name, serde_json::json!({ "run": run })).await?;
        self.engine.take_up(run);
        self.run_view(run).await
    }

    /// What a run of the job would do, in order.
    ///
    /// # Errors
    /// There is no such job or application.
    pub async fn plan_job(&self, name: &JobName) -> Result<PlanView, ControlError> {
        let job = self.store.job(name).await?;
        let kit = self.kit(&job.spec.app)?;
        Ok(plan(kit, &self.store, self.now(), &job).await)
    }

    /// The runs of a job, the newest first.
    ///
    /// # Errors
    /// There is no such job, or the store fails.
    pub async fn job_history(&self, name: &JobName, limit: Option<u32>) -> Result<Vec<RunView>, ControlError> {
        self.store.job(name).await?;
        self.run_views(RunFilter { job: Some(name.clone()), limit, ..RunFilter::default() }).await
    }

    /// One job.
    ///
    /// # Errors
    /// There is no such job, or the store fails.
    pub async fn job(&self, name: &JobName) -> Result<JobView, ControlError> {
        let job = self.store.job(name).await?;
        let mut notices = self.idle_followers(&job).await?;
        if let Some(unfit) = self.settings.unfit.get(job.spec.app.as_str()) {
            notices.push(format!("no run of it starts: nothing is done with {}: {}", job.spec.app, unfit.why));
        }
        Ok(JobView { notices, ..self.job_view(job).await? })
    }

    /// All jobs.
    ///
    /// # Errors
    /// The store fails.
    pub async fn jobs(&self) -> Result<Vec<JobView>, ControlError> {
        let mut views = Vec::new();
        for job in self.store.jobs().await? {
            views.push(self.job_view(job).await?);
        }
        Ok(views)
    }

    async fn job_view(&self, job: Job) -> Result<JobView, ControlError> {
        let at = first_start(&job.spec.start, self.now()).ok().flatten().map(|resolved| resolved.at);
        let at = job.due_at.or(at.filter(|_| job.spec.start != StartCondition::Immediate));
        let filter = RunFilter { job: Some(job.spec.name.clone()), limit: Some(1), ..RunFilter::default() };
        let last =
            self.store.runs(filter).await?.into_iter().find(|run| run.started_at.is_some() || run.outcome.is_some());
        let last_run = last.map(|run| LastRun { id: run.id, outcome: run.outcome, finished_at: run.finished_at });
        Ok(JobView::new(job, at, last_run))
    }

    async fn changed(&self, job: Job, resolved: Option<Resolved>) -> Result<JobChanged, ControlError> {
        let mut warnings = self.warnings(&job, resolved.as_ref()).await;
        warnings.extend(self.idle_followers(&job).await?);
        Ok(JobChanged { job: self.job_view(job).await?, resolved: resolved.map(resolved_view), warnings })
    }

    /// What is to follow a job and will not, because it is disabled.
    async fn idle_followers(&self, job: &Job) -> Result<Vec<String>, ControlError> {
        let said = |name: &JobName, when: &str| {
            format!(
                "{name} is to follow when a run of this job {when}, but is disabled: `afterhours job enable {name}`"
            )
        };
        let mut idle = Vec::new();
        if let Some(name) = &job.spec.on_failure {
            match self.store.job(name).await {
                Ok(follower) if follower.enabled => {}
                Ok(_) => idle.push(said(name, "fails")),
                Err(StoreError::NoJob(_)) => {
                    idle.push(format!("{name} is to follow when a run of this job fails, but there is no such job"))
                }
                Err(error) => return Err(error.into()),
            }
        }
        let after = self.store.disabled_after(&job.spec.name).await?;
        idle.extend(after.iter().map(|name| said(name, "succeeds")));
        Ok(idle)
    }

    /// Whether a job makes sense; answers with its first start. With `unchanged`, its start is not looked at anew.
    async fn check(&self, spec: &JobSpec, unchanged: Option<&Job>) -> Result<Option<Resolved>, ControlError> {
        let kit = self.kit(&spec.app)?;
        let grace = spec.grace.unwrap_or(kit.app.grace);
        if grace >= spec.max_runtime {
            return Err(ControlError::GraceTooLong { grace, max_runtime: spec.max_runtime });
        }
        if let Some(bad) = spec.mail.iter().find(|address| !is_mail_address(address)) {
            return Err(ControlError::BadMail(bad.clone()));
        }
        self.check_followers(spec).await?;
        if unchanged.is_some_and(|before| before.spec.start == spec.start) {
            return Ok(None);
        }
        let now = self.now();
        let resolved = first_start(&spec.start, now)?;
        match (&spec.start, &resolved) {
            (StartCondition::Time { .. }, None) => Err(ControlError::Past { at: spec.start.to_string() }),
            _ => Ok(resolved),
        }
    }

    /// Jobs that are named must exist, and none may start itself in the end.
    async fn check_followers(&self, spec: &JobSpec) -> Result<(), ControlError> {
        if followers_of(spec).next().is_none() {
            return Ok(());
        }
        let mut specs: BTreeMap<JobName, JobSpec> =
            self.store.jobs().await?.into_iter().map(|job| (job.spec.name.clone(), job.spec)).collect();
        specs.insert(spec.name.clone(), spec.clone());
        if let Some(missing) = followers_of(spec).find(|named| !specs.contains_key(named)) {
            return Err(StoreError::NoJob(missing.clone()).into());
        }
        let Some(name) = specs.keys().find(|name| **name == spec.name) else { return Ok(()) };
        match circle(&specs, &mut vec![name]) {
            Some(way) => Err(ControlError::Cycle(way)),
            None => Ok(()),
        }
    }

    async fn must_be_idle(&self, name: &JobName) -> Result<(), ControlError> {
        let filter = RunFilter { job: Some(name.clone()), unfinished: true, ..RunFilter::default() };
        let now = self.now();
        // One that is queued ahead for an instant to come is not under way.
        let is_ahead = |due_at: Option<DateTime<Utc>>| due_at.is_some_and(|due_at| due_at > now);
        let runs = self.store.runs(filter).await?;
        let under_way = runs.into_iter().find(|run| run.begun || !is_ahead(run.due_at));
        match under_way {
            Some(run) => Err(ControlError::UnderWay { object: name.to_string(), run: run.id }),
            None => Ok(()),
        }
    }

    async fn warnings(&self, job: &Job, resolved: Option<&Resolved>) -> Vec<String> {
        let mut warnings = Vec::new();
        let Some(resolved) = resolved else { return warnings };
        match &job.spec.start {
            StartCondition::Time { zone, .. } | StartCondition::Series { zone, .. } => {
                use chrono::Datelike;
                let local = resolved.at.with_timezone(zone);
                let weekday = local.weekday().number_from_monday() <= 5;
                if weekday && WORKING_HOURS.contains(&local.hour()) {
                    warnings.push(format!("{} is within working hours", local.format("%A %H:%M")));
                }
            }
            StartCondition::Immediate => {
                if let Ok(kit) = self.kit(&job.spec.app) {
                    match kit.sessions.census().await {
                        Census::Known(sessions) if sessions.is_empty() => {}
                        Census::Known(sessions) => {
                            let users = foreign::names(sessions.iter().map(Session::who));
                            warnings.push(format!("logged in now: {users}"));
                        }
                        Census::Unknown(reason) => warnings.push(format!("who is logged in is not known: {reason}")),
                    }
                }
            }
            StartCondition::After { .. } => {}
        }
        warnings
    }
}

/// Whether the last job of `way` starts, in the end, a job of `way` again; each adds at most all jobs once.
fn circle<'a>(specs: &'a BTreeMap<JobName, JobSpec>, way: &mut Vec<&'a JobName>) -> Option<Vec<String>> {
    let last = *way.last()?;
    let starts = specs.values().filter(|other| {
        let follows = matches!(&other.start, StartCondition::After { job } if job == last);
        follows || specs.get(last).is_some_and(|spec| spec.on_failure.as_ref() == Some(&other.name))
    });
    for next in starts {
        let round = way.contains(&&next.name);
        way.push(&next.name);
        if round {
            return Some(way.iter().map(ToString::to_string).collect());
        }
        if let Some(found) = circle(specs, way) {
            return Some(found);
        }
        way.pop();
    }
    None
}

/// Every job that this one names.
fn followers_of(spec: &JobSpec) -> impl Iterator<Item = &JobName> {
    let after = match &spec.start {
        StartCondition::After { job } => Some(job),
        _ => None,
    };
    after.into_iter().chain(spec.on_failure.as_ref())
}

fn is_mail_address(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'))
        && !text.contains(char::is_whitespace)
}

/// The start that an edit has taken back: the next one, or for a single start the same.
fn first_start_again(job: &Job, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, ControlError> {
    match job.spec.start {
        StartCondition::Series { .. } | StartCondition::Time { .. } => {
            Ok(first_start(&job.spec.start, now)?.map(|resolved| resolved.at))
        }
        StartCondition::Immediate | StartCondition::After { .. } => Ok(None),
    }
}

fn start_condition(ask: StartRequest, zone: Option<&str>, now: DateTime<Utc>) -> Result<StartCondition, ControlError> {
    Ok(match ask {
        StartRequest::Immediate => StartCondition::Immediate,
        StartRequest::After { job } => StartCondition::After { job },
        StartRequest::Time { local, zone: own } => {
            let zone = parse_zone(own.as_deref().or(zone))?;
            StartCondition::Time { local: parse_local(&local, zone, now)?, zone }
        }
        StartRequest::Series { calendar, zone: own } => {
            StartCondition::Series { calendar, zone: parse_zone(own.as_deref().or(zone))? }
        }
    })
}

fn move_to_zone(start: &mut StartCondition, to: &str) -> Result<(), ControlError> {
    let to = parse_zone(Some(to))?;
    match start {
        StartCondition::Time { zone, .. } | StartCondition::Series { zone, .. } => *zone = to,
        StartCondition::Immediate | StartCondition::After { .. } => {}
    }
    Ok(())
}

/// A local time: with its date, or the next one of that time of day, or in so long.
fn parse_local(text: &str, zone: Tz, now: DateTime<Utc>) -> Result<NaiveDateTime, ControlError> {
    let here = now.with_timezone(&zone).naive_local();
    let wanted = text.trim();
    let (day, time) = match wanted.split_once(' ') {
        Some((day @ ("today" | "tomorrow"), time)) => (Some(day), time.trim()),
        _ => (None, wanted),
    };
    let read = |form: &&str| NaiveTime::parse_from_str(time, form).ok();
    if let Some(time) = TIME_FORMATS.iter().find_map(read) {
        let later = match day {
            Some(day) => day == "tomorrow",
            None => time <= here.time(),
        };
        return Ok((here.date() + Days::new(later.into())).and_time(time));
    }
    if let Ok(span) = wanted.parse::<Span>() {
        // To the second, as it is shown.
        let at = (now + span.delta()).with_timezone(&zone).naive_local();
        return Ok(at.with_nanosecond(0).unwrap_or(at));
    }
    LOCAL_FORMATS
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(wanted, format).ok())
        .ok_or_else(|| ControlError::BadTime { text: text.to_owned() })
}

/// A zone by name; the machine's own where none is named.
fn parse_zone(name: Option<&str>) -> Result<Tz, ControlError> {
    let local;
    let name = match name {
        Some(name) => name,
        None => {
            local = iana_time_zone::get_timezone().unwrap_or_else(|_| "UTC".to_owned());
            &local
        }
    };
    Tz::from_str(name).map_err(|_| {
        let near = chrono_tz::TZ_VARIANTS
            .iter()
            .map(|zone| (strsim::jaro_winkler(&zone.name().to_lowercase(), &name.to_lowercase()), zone.name()))
            .filter(|(likeness, _)| *likeness > 0.85)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, zone)| zone.to_owned());
        ControlError::BadZone { zone: name.to_owned(), near }
    })
}

fn resolved_view(resolved: Resolved) -> ResolvedView {
    use crate::scheduler::resolve::ResolvedKind as Kind;
    let (kind, first, second) = match resolved.kind {
        Kind::Exact => (ResolvedKind::Exact, None, None),
        Kind::Gap { .. } => (ResolvedKind::Gap, None, None),
        Kind::Overlap { first, second } => (ResolvedKind::Overlap, Some(first), Some(second)),
    };
    ResolvedView { at: resolved.at, kind, first, second }
}

#[cfg(test)]
mod tests {
    use chrono_tz::Europe::Berlin;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("02:30", "2026-11-22T02:30:00")]
    #[case("22:30", "2026-11-21T22:30:00")]
    #[case("21:00", "2026-11-22T21:00:00")]
    #[case("today 22:30", "2026-11-21T22:30:00")]
    #[case("tomorrow 22:30:15", "2026-11-22T22:30:15")]
    #[case("2h", "2026-11-21T23:00:00")]
    #[case("2026-12-01 02:30", "2026-12-01T02:30:00")]
    fn a_time_is_understood_as_people_say_it(#[case] text: &str, #[case] local: &str) {
        let now = "2026-11-21T20:00:00.5Z".parse().unwrap();
        assert_eq!(parse_local(text, Berlin, now).unwrap(), local.parse().unwrap());
    }

    #[rstest]
    fn what_is_no_time_is_refused(#[values("soon", "25:00", "yesterday 02:30", "tomorrow", "")] text: &str) {
        assert!(parse_local(text, Berlin, DateTime::UNIX_EPOCH).is_err());
    }
}
