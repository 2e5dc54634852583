//! What a run would do, in order, before anything is done. Nothing is changed to find out.

use chrono::DateTime;
use chrono::Utc;

use crate::db::runs::RunFilter;
use crate::db::store::Store;
use crate::domain::finding::Finding;
use crate::domain::job::Job;
use crate::domain::release::Release;
use crate::domain::run::Outcome;
use crate::domain::step::Step;
use crate::domain::step::Undo;
use crate::domain::step::sequence;
use crate::install::Listing;
use crate::jobs::history::downtime_ms;
use crate::jobs::kit::Kit;
use crate::jobs::machine::Machine;
use crate::jobs::preflight::findings;
use crate::jobs::select::Wish;
use crate::jobs::select::select;
use crate::jobs::self_update::CHECK;
use crate::jobs::self_update::Outlook;
use crate::jobs::self_update::outlook;
use crate::renewal::Offer;
use crate::wire::app::ReleaseView;
use crate::wire::people::SessionsView;
use crate::wire::plan::FilesView;
use crate::wire::plan::PlanView;
use crate::wire::plan::PlannedStep;
use crate::wire::plan::SelfUpdateView;
use crate::wire::plan::SpaceView;

/// From how many past runs the downtime is learnt.
const LEARN_FROM: u32 = 9;

/// Plans a run of `job`.
pub async fn plan(kit: &Kit, store: &Store, now: DateTime<Utc>, job: &Job) -> PlanView {
    let mut findings = findings(kit, store, now, &Wish::of_job(job)).await;
    let (from, path, held, early) = match select(kit, store, &Wish::of_job(job), now).await {
        Ok(selection) => (selection.from, selection.path, selection.held, selection.early),
        // The findings say so already.
        Err(_) => (None, Vec::new(), Vec::new(), Vec::new()),
    };
    let files = match path.last() {
        Some(release) => preview(kit, release, &mut findings).await,
        None => None,
    };
    let space = files.as_ref().map(|(_, free_bytes)| SpaceView {
        needed_bytes: path.iter().map(|release| release.size_bytes() + release.unpacked_bytes()).sum(),
        free_bytes: *free_bytes,
    });
    let self_update = self_update(kit, store, &path, now).await;
    let mut mail: Vec<String> = kit.app.report.group.iter().chain(&job.spec.mail).cloned().collect();
    mail.dedup();
    PlanView {
        job: Some(job.spec.name.clone()),
        app: kit.app.name.clone(),
        due_at: job.due_at,
        from,
        steps: steps(&path),
        path: path.iter().map(ReleaseView::new).collect(),
        held,
        early,
        self_update,
        repair: job.spec.repair,
        grace: job.spec.grace.unwrap_or(kit.app.grace),
        files: files.map(|(files, _)| files),
        space,
        downtime_ms: learnt_downtime_ms(kit, store).await,
        sessions: SessionsView::new(kit.app.name.clone(), kit.sessions.census().await),
        mail,
        findings,
    }
}

/// What Afterhours does for itself before; what keeps it from that is among the findings.
pub(crate) async fn self_update(
    kit: &Kit,
    store: &Store,
    path: &[Release],
    now: DateTime<Utc>,
) -> Option<SelfUpdateView> {
    let outlook = outlook(kit, store, path, now).await.ok()?;
    let Outlook { own, offer: Offer::Newer(release), .. } = outlook else { return None };
    let free = kit.renewal.obstacle(CHECK).await.is_none();
    free.then(|| SelfUpdateView { from: own.to_string(), to: release.id })
}

fn steps(path: &[Release]) -> Vec<PlannedStep> {
    let builds = u32::try_from(path.len()).unwrap_or(u32::MAX);
    let planned = |at: crate::domain::step::At| {
        let row = at.step.row();
        let undo = match row.undo {
            Undo::EachBuild(undo, _) | Undo::FirstBuild(undo, _) if at.has_undo() => Some(undo.to_owned()),
            _ => None,
        };
        let repeats = row.repeat != crate::domain::step::Repeat::Once;
        let release = path.get(at.build as usize).filter(|_| repeats);
        let version = release.map(|release| release.id.version.clone());
        let as_root = at.step == Step::MigrateData && release.is_some_and(|release| release.migrate_as_root);
        PlannedStep { step: at.step, build: at.build, version, does: row.does.to_owned(), as_root, undo }
    };
    if builds == 0 { Vec::new() } else { sequence(builds).into_iter().map(planned).collect() }
}

/// The files a swap would change, when the release is staged already.
async fn preview(kit: &Kit, release: &Release, findings: &mut Vec<Finding>) -> Option<(FilesView, u64)> {
    if !kit.installer.staged_path(&release.id).is_dir() {
        return None;
    }
    match kit.installer.preview(&release.id).await {
        Ok(preview) => {
            let paths = |listing: &Listing| listing.paths.iter().map(|path| path.display().to_string()).collect();
            let files = FilesView {
                added: preview.added.count,
                changed: preview.changed.count,
                removed: preview.removed.count,
                kept: paths(&preview.kept),
                conflicts: paths(&preview.conflicts),
            };
            Some((files, preview.free_bytes))
        }
        Err(error) => {
            let remedy = error.hint().unwrap_or_else(|| "see the daemon's log".to_owned());
            findings.push(Finding::warning("preview", error.to_string(), remedy));
            None
        }
    }
}

/// The median of the last successful runs.
pub(crate) async fn learnt_downtime_ms(kit: &Kit, store: &Store) -> Option<u64> {
    let filter = RunFilter { app: Some(kit.app.name.clone()), limit: Some(LEARN_FROM * 3), ..RunFilter::default() };
    let mut learnt = Vec::new();
    for run in store.runs(filter).await.ok()? {
        if run.outcome == Some(Outcome::Succeeded) && learnt.len() < LEARN_FROM as usize {
            let events = store.events(run.id, 0).await.ok()?;
            // One that was stuck waited for a person; that teaches nothing.
            let machine = Machine::fold(&events).ok().filter(|machine| machine.known().reports == 0);
            learnt.extend(machine.and_then(|machine| downtime_ms(machine.known())));
        }
    }
    learnt.sort_unstable();
    learnt.get(learnt.len() / 2).copied()
}
