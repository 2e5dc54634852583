//! The whole at a glance.

use std::sync::PoisonError;

use chrono::DateTime;
use chrono::TimeDelta;
use chrono::Utc;

use crate::config::places::Unfit;
use crate::control::Caller;
use crate::control::Control;
use crate::control::error::ControlError;
use crate::db::runs::RunFilter;
use crate::domain::doubt::REMEDY;
use crate::domain::doubt::Seen;
use crate::domain::session::Census;
use crate::wire::job::LastRun;
use crate::wire::run::RunStateName;
use crate::wire::status::AppView;
use crate::wire::status::DaemonView;
use crate::wire::status::LastCheck;
use crate::wire::status::NEXT_JOBS_MAX;
use crate::wire::status::NextJob;
use crate::wire::status::StatusView;
use crate::wire::status::UnfitView;

/// What is shown first: what waits for a person, then what is under way.
fn urgency(state: RunStateName) -> u8 {
    match state {
        RunStateName::Stuck => 0,
        RunStateName::Running | RunStateName::Waiting | RunStateName::Unwinding => 1,
        RunStateName::Queued | RunStateName::Finished => 2,
    }
}

/// How long it is told that a clock was wrong.
const CLOCK_NEWS: TimeDelta = TimeDelta::days(7);

impl Control {
    /// Daemon, applications, gates, next jobs, running runs. Changes nothing.
    ///
    /// # Errors
    /// The store fails.
    pub async fn status(&self) -> Result<StatusView, ControlError> {
        let next = self.store.next_jobs(None, NEXT_JOBS_MAX).await?;
        let next = next
            .into_iter()
            .filter_map(|job| Some(NextJob { due_at: job.due_at?, job: job.spec.name, app: job.spec.app }));
        let missed = self.store.missed_jobs().await?;
        let mut notices: Vec<String> = missed
            .iter()
            .filter_map(|job| job.missed_at.map(|at| (at, &job.spec.name)))
            .map(|(at, name)| {
                format!(
                    "{name} missed its start of {at}: `afterhours job run {name}` or `afterhours job disable {name}`"
                )
            })
            .collect();
        if let Some(seen) = self.store.clock_seen().await? {
            notices.extend(seen.doubt.map(|doubt| format!("{doubt}: {REMEDY}")));
            let is_news = |(at, _): &(DateTime<Utc>, String)| (self.now() - *at).abs() < CLOCK_NEWS;
            notices.extend(seen.mended.filter(is_news).map(|(_, text)| text));
        }
        for bad in self.store.unreadable().await? {
            notices.push(format!("{} cannot be read ({}): {}", bad.what, bad.why, bad.remedy));
        }
        let unfit: Vec<UnfitView> = self.unfit();
        notices.extend(unfit.iter().map(|unfit| {
            let remedy = unfit.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            match &unfit.app {
                Some(app) => format!("nothing is done with {app}: {}{remedy}", unfit.why),
                None => format!("no mail is sent: {}{remedy}", unfit.why),
            }
        }));
        notices.extend(self.config_notice.lock().unwrap_or_else(PoisonError::into_inner).clone());
        for (app, kit) in &self.night.kits {
            notices.extend(kit.sessions.in_doubt().into_iter().map(|session| {
                format!(
                    "session {session} of {app} cannot be read, so it is not known who is logged in: look whether somebody works there, then `afterhours session end {app} {session}`"
                )
            }));
        }
        let (mail, in_trouble) = self.unsent_mail().await?;
        notices.extend(in_trouble);
        let mut apps = Vec::new();
        for app in self.night.kits.keys() {
            apps.push(self.app_view(app).await?);
        }
        for view in &apps {
            if let Some(failure) = view.gate.opening.as_ref().and_then(|opening| opening.failure.as_ref()) {
                let app = &view.app;
                let remedy = failure.hint.as_ref().map(|hint| format!("{hint}, or ")).unwrap_or_default();
                notices.push(format!(
                    "the gate of {app} is open, but failed to {failure}: {remedy}try again with `afterhours gate open {app}`"
                ));
            }
        }
        let jobs = self.store.count_jobs().await?.into();
        let daemon = self.serving_since.map(|started_at| DaemonView {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at,
            now_at: self.now(),
            zone: iana_time_zone::get_timezone().unwrap_or_else(|_| "UTC".to_owned()),
            jobs,
            config: Some(self.settings.digest.clone()),
        });
        Ok(StatusView {
            daemon,
            apps,
            next: next.collect(),
            runs: {
                let mut runs = self.run_views(RunFilter { unfinished: true, ..RunFilter::default() }).await?;
                runs.sort_by_key(|run| urgency(run.state));
                runs
            },
            mail,
            history: Some(self.store.chain_head().await?),
            unfit,
            notices,
        })
    }

    /// Believes the clock as it stands, because an operator has looked.
    ///
    /// # Errors
    /// The store fails.
    pub async fn accept_clock(&self, caller: &Caller) -> Result<(), ControlError> {
        Self::must_operate(caller)?;
        let now = self.clock.moment();
        let mended = self.store.clock_seen().await?.and_then(|seen| seen.mended);
        self.audit(caller, "clock.accept", "clock", now).await?;
        self.store.note_clock(Seen { mended, ..Seen::at(now) }).await?;
        self.schedule_changed.notify_one();
        Ok(())
    }

    /// What of the configuration is left out, and why.
    fn unfit(&self) -> Vec<UnfitView> {
        let view = |app: Option<&str>, unfit: &Unfit| UnfitView {
            app: app.map(str::to_owned),
            why: unfit.why.clone(),
            hint: unfit.hint.clone(),
        };
        let apps = self.settings.unfit.iter().map(|(app, unfit)| view(Some(app), unfit));
        apps.chain(self.settings.mail_unfit.iter().map(|unfit| view(None, unfit))).collect()
    }

    async fn app_view(&self, app: &crate::domain::name::AppName) -> Result<AppView, ControlError> {
        let kit = self.kit(app)?;
        let filter = RunFilter { app: Some(app.clone()), limit: Some(5), ..RunFilter::default() };
        let last = self.store.runs(filter).await?.into_iter().find(|run| run.outcome.is_some());
        let installed = kit.installed_as_it_stands().await.ok().flatten();
        let unverified = installed.as_ref().is_some_and(|installed| installed.word.is_unverified());
        let installed = installed.map(|installed| installed.id);
        let last_check = self.store.update_check(app).await?;
        Ok(AppView {
            app: app.clone(),
            title: kit.app.title.clone(),
            last_check: last_check.map(|check| LastCheck::new(check, installed.as_ref())),
            installed,
            unverified,
            gate: self.gate(app).await?,
            sessions: match kit.sessions.census().await {
                Census::Known(sessions) => Some(sessions.len() as u64),
                Census::Unknown(_) => None,
            },
            last_run: last.map(|run| LastRun { id: run.id, outcome: run.outcome, finished_at: run.finished_at }),
        })
    }
}
