//! What is known of an application: findings, releases, backups, snapshots.

use std::sync::Arc;

use chrono::DateTime;
use chrono::Utc;

use crate::backup::Verdict;
use crate::backup::judge;
use crate::control::Caller;
use crate::control::Control;
use crate::control::error::ControlError;
use crate::db::quarantine::Quarantined;
use crate::db::store::Store;
use crate::domain::clock::Clock;
use crate::domain::failure::Failure;
use crate::domain::finding::Finding;
use crate::domain::finding::Severity;
use crate::domain::held::HeldBack;
use crate::domain::held::HeldBy;
use crate::domain::name::AppName;
use crate::domain::progress::Silent;
use crate::domain::release::Release;
use crate::domain::release::Version;
use crate::domain::release::Word;
use crate::domain::run::RunId;
use crate::jobs::installed;
use crate::jobs::kit::Kit;
use crate::jobs::plan::self_update;
use crate::jobs::preflight::findings;
use crate::jobs::select::Wish;
use crate::jobs::steps::failed;
use crate::jobs::update_check::Looked;
use crate::jobs::update_check::look;
use crate::renewal::UPDATER;
use crate::wire::app::AllowedView;
use crate::wire::app::BackupView;
use crate::wire::app::DoctorView;
use crate::wire::app::EvidenceView;
use crate::wire::app::NotReachedView;
use crate::wire::app::QuarantinedView;
use crate::wire::app::ReleaseView;
use crate::wire::app::SnapshotView;
use crate::wire::app::UpdatesView;

impl Control {
    /// Checks everything a run of the application will need.
    ///
    /// # Errors
    /// There is no such application.
    pub async fn doctor(&self, app: &AppName) -> Result<DoctorView, ControlError> {
        let kit = match self.kit(app) {
            Err(ControlError::Unfit { unfit, .. }) => {
                let remedy = unfit.hint.unwrap_or_else(|| "correct it".to_owned());
                let text = format!("nothing is done with {app}: {}", unfit.why);
                return Ok(DoctorView {
                    app: app.clone(),
                    findings: vec![Finding::fatal("configuration", text, remedy)],
                });
            }
            kit => kit?,
        };
        let mut findings = findings(kit, &self.store, self.now(), &Wish::newest()).await;
        findings.extend(self.mail_findings(kit).await);
        Ok(DoctorView { app: app.clone(), findings })
    }

    /// Newer releases of an application; what came of looking is noted.
    ///
    /// # Errors
    /// There is no such application, or its feed cannot be read.
    pub async fn updates(&self, app: &AppName) -> Result<UpdatesView, ControlError> {
        let kit = self.kit(app)?;
        let looked = look(kit, &self.store, &*self.clock).await;
        // Whoever asks is told all the same.
        if let Err(error) = self.store.note_update_check(app, looked.check.clone()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, %app, "what was found is not noted");
        }
        updates_view(kit, &self.store, looked).await.map_err(ControlError::Failed)
    }

    /// What failed here and is not tried again by itself, ascending by build.
    ///
    /// # Errors
    /// There is no such application, or the store fails.
    pub async fn quarantined(&self, app: &AppName) -> Result<Vec<QuarantinedView>, ControlError> {
        self.must_be_app_or_ourselves(app)?;
        let shown = |it: Quarantined| QuarantinedView {
            app: app.clone(),
            version: it.version,
            build: it.build,
            run: it.run,
            failed_at: it.at,
            reason: it.reason,
        };
        Ok(self.store.quarantined(app).await?.into_iter().map(shown).collect())
    }

    /// A build of Afterhours itself is held back under its own name.
    fn must_be_app_or_ourselves(&self, app: &AppName) -> Result<(), ControlError> {
        if app.as_str() != UPDATER {
            self.kit(app)?;
        }
        Ok(())
    }

    /// Lets a release that failed here be tried again.
    ///
    /// # Errors
    /// There is no such application, or the store fails.
    pub async fn allow_release(
        &self,
        caller: &Caller,
        app: &AppName,
        version: Version,
    ) -> Result<AllowedView, ControlError> {
        Self::must_operate(caller)?;
        self.must_be_app_or_ourselves(app)?;
        self.audit(caller, "update.allow", app, &version).await?;
        let was_held_back = self.store.allow_release(app, &version).await?;
        Ok(AllowedView { app: app.clone(), version, was_held_back })
    }

    /// Tests the newest backup.
    ///
    /// # Errors
    /// There is no such application, or it has no backup settings.
    pub async fn check_backup(&self, app: &AppName) -> Result<BackupView, ControlError> {
        let kit = self.kit(app)?;
        let (Some(gate), Some(settings)) = (&kit.backup, &kit.app.backup) else {
            return Err(ControlError::NoBackup { app: app.clone() });
        };
        let now = self.now();
        let bare = BackupView {
            app: app.clone(),
            accepted: false,
            max_age: Some(settings.max_age),
            evidence: None,
            problem: None,
        };
        Ok(match gate.newest(now).await {
            Err(error) => BackupView { problem: Some(failed(&error, error.hint())), ..bare },
            Ok(evidence) => {
                let problem = match judge(&evidence, settings.max_age, now) {
                    Verdict::Fresh { .. } => None,
                    Verdict::TooOld { age } => Some(
                        Failure::new(format!("accept a backup that is {age} old; at most {}", settings.max_age))
                            .hint(format!("afterhours backup make {app}")),
                    ),
                    Verdict::FromTheFuture { by } => Some(
                        Failure::new(format!("accept a backup from {by} ahead of this clock"))
                            .hint("set the clock of this machine, or of the one that makes the backup"),
                    ),
                };
                BackupView { accepted: problem.is_none(), evidence: Some(evidence), problem, ..bare }
            }
        })
    }

    /// Makes a backup now and tests it.
    ///
    /// # Errors
    /// There is no such application, no backup settings, or it cannot be made.
    pub async fn make_backup(&self, caller: &Caller, app: &AppName) -> Result<BackupView, ControlError> {
        Self::must_operate(caller)?;
        let kit = self.kit(app)?;
        let gate = kit.backup.as_ref().ok_or_else(|| ControlError::NoBackup { app: app.clone() })?;
        self.audit(caller, "backup.make", app, ()).await?;
        let installed = kit.installed_as_it_stands().await.ok().flatten();
        let env = kit.hook_env(RunId(0), installed.as_ref().map(|installed| &installed.id), None);
        let made = gate.make(&env, Arc::new(Silent)).await;
        made.map_err(|error| ControlError::Failed(failed(&error, error.hint())))?;
        let rotated = gate.rotate(self.now()).await;
        rotated.map_err(|error| ControlError::Failed(failed(&error, error.hint())))?;
        self.check_backup(app).await
    }

    /// The backups there are, the newest first; listed, not tested.
    ///
    /// # Errors
    /// There is no such application, no backup settings, or they cannot be listed.
    pub async fn backups(&self, app: &AppName) -> Result<Vec<EvidenceView>, ControlError> {
        let gate = self.kit(app)?.backup.as_ref().ok_or_else(|| ControlError::NoBackup { app: app.clone() })?;
        let listed = gate.list(self.now()).await;
        let entries = listed.map_err(|error| ControlError::Failed(failed(&error, error.hint())))?;
        let shown = |entry: crate::backup::BackupEntry| EvidenceView {
            source: entry.source,
            made_at: entry.made_at,
            size_bytes: entry.size_bytes,
            tested: Vec::new(),
        };
        Ok(entries.into_iter().map(shown).collect())
    }

    /// Our own copies for rollback, the newest first.
    ///
    /// # Errors
    /// There is no such application, or they cannot be read.
    pub async fn snapshots(&self, app: &AppName) -> Result<Vec<SnapshotView>, ControlError> {
        let listed = self.kit(app)?.installer.snapshots().await;
        let snapshots = listed.map_err(|error| ControlError::Failed(failed(&error, error.hint())))?;
        let shown = |snapshot: crate::install::SnapshotInfo| SnapshotView {
            app: app.clone(),
            run: Some(snapshot.run),
            taken_at: snapshot.at.unwrap_or(DateTime::<Utc>::UNIX_EPOCH),
            version: None,
            size_bytes: Some(snapshot.bytes),
            path: snapshot.copies.first().map(|(_, copy)| copy.clone()).unwrap_or_default(),
        };
        Ok(snapshots.into_iter().map(shown).collect())
    }
}

/// What is installed and what is newer; of that, what is not taken now, and why.
///
/// # Errors
/// The feed or the installation cannot be read, or there is no path from one to the other.
pub async fn updates(kit: &Kit, store: &Store, clock: &dyn Clock) -> Result<UpdatesView, Failure> {
    updates_view(kit, store, look(kit, store, clock).await).await
}

async fn updates_view(kit: &Kit, store: &Store, looked: Looked) -> Result<UpdatesView, Failure> {
    let Looked { selection, check } = looked;
    let selection = selection?;
    let unverified = selection.word.is_some_and(Word::is_unverified);
    let doubt = installed::finding(kit, &selection).await.filter(|finding| finding.severity > Severity::Good);
    let not_reached = match check.failure {
        None => None,
        Some(failure) => {
            let before = store.update_check(&kit.app.name).await?.and_then(|check| check.offer);
            Some(NotReachedView { failure, seen_at: before.map(|offer| offer.at) })
        }
    };
    let shown = |release: &Release| {
        let why = |held: &[HeldBack]| held.iter().find(|held| held.release == release.id).map(|held| held.why.clone());
        let held = why(&selection.held);
        let failed_before = held == Some(HeldBy::FailedHere);
        ReleaseView { held, early: why(&selection.early), failed_before, ..ReleaseView::new(release) }
    };
    let pending = selection.path.iter().chain(&selection.rest).map(shown).collect();
    let self_update = self_update(kit, store, &selection.path, check.at).await;
    let (app, installed) = (kit.app.name.clone(), selection.from);
    Ok(UpdatesView { app, installed, unverified, doubt, pending, self_update, not_reached })
}
