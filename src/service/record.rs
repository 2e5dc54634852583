//! What must be known of stopped units after we have died: `units.json`.
//!
//! Written before the effect: which units are kept down, before their drop-ins; what runs, before the first
//! stop of a run. Later stops of that run add what they find and forget nothing, since what ran before the run is
//! what has to run after it. Gone with the hold.
//!
//! A file that cannot be understood is an error, never an empty record.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::service::error::ServiceError;
use crate::service::files::absent_is_fine;
use crate::service::files::write_durably;
use crate::service::plan::Plan;
use crate::service::plan::Planned;
use crate::service::plan::Tie;
use crate::service::plan::is_trigger;
use crate::service::state::blocking;

/// What is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What the settings name; what was seen under other settings says nothing of these.
    pub(crate) settings: Vec<String>,
    /// The file that keeps the units down while it exists.
    pub(crate) hold: Option<PathBuf>,
    /// Whether it was written down what ran: a stop was begun.
    pub(crate) stopped: bool,
    /// In the order of starting.
    pub(crate) units: Vec<Kept>,
}

/// One unit of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) name: String,
    /// Whether it stands in the settings.
    pub(crate) is_named: bool,
    /// Whether it belongs to the application.
    pub(crate) is_ours: bool,
    /// Whether a drop-in of ours keeps it down.
    pub(crate) is_held: bool,
    /// Whether it ran before it was stopped.
    pub(crate) ran: bool,
    /// Whether its start is over only when its work is.
    pub(crate) is_at_once: bool,
    /// Its place in the order of starting.
    pub(crate) wave: u32,
}

impl Kept {
    /// Whether it starts others by itself.
    pub(crate) fn is_trigger(&self) -> bool {
        is_trigger(&self.name)
    }

    fn of(unit: &Planned) -> Self {
        Self {
            name: unit.name.clone(),
            is_named: unit.tie == Tie::Named,
            is_ours: unit.is_ours,
            is_held: false,
            ran: unit.returns,
            is_at_once: unit.is_at_once,
            wave: unit.wave,
        }
    }
}

impl Record {
    /// Takes in what is about to be stopped. What was taken in at an earlier stop stays as it was seen then.
    pub(crate) fn stop(&mut self, plan: &Plan) {
        if !self.stopped {
            self.stopped = true;
            let held = self.held();
            self.units = plan.units.iter().map(Kept::of).collect();
            for name in held {
                // One that was loaded then and is not any more.
                if !self.units.iter().any(|unit| unit.name == name) {
                    self.units.push(Kept { is_ours: true, ..Kept::bare(&name) });
                }
                self.mark_held(&name);
            }
            return;
        }
        for unit in &plan.units {
            if !self.units.iter().any(|known| known.name == unit.name) {
                self.units.push(Kept::of(unit));
            }
        }
    }

    /// Forgets an earlier run and takes in what is to be kept down; the units that have no drop-in yet.
    pub(crate) fn begin(&mut self, hold: &Path, plan: &Plan) -> Vec<String> {
        let held = self.held();
        self.hold = Some(hold.to_owned());
        self.stopped = false;
        self.units = plan.units.iter().map(|unit| Kept { ran: false, ..Kept::of(unit) }).collect();
        for name in held.iter().filter(|name| plan.units.iter().all(|unit| unit.name != **name)) {
            self.units.push(Kept::bare(name));
        }
        held.iter().for_each(|name| self.mark_held(name));
        self.hold_all(plan);
        self.held()
    }

    /// Marks all that can be kept down; the units that were not marked before.
    pub(crate) fn hold_all(&mut self, plan: &Plan) -> Vec<String> {
        let mut new = Vec::new();
        for unit in plan.units.iter().filter(|unit| unit.is_held()) {
            if let Some(kept) = self.units.iter_mut().find(|kept| kept.name == unit.name && !kept.is_held) {
                kept.is_held = true;
                new.push(unit.name.clone());
            }
        }
        new
    }

    /// The units that have a drop-in, or will have one now.
    pub(crate) fn held(&self) -> Vec<String> {
        self.units.iter().filter(|unit| unit.is_held).map(|unit| unit.name.clone()).collect()
    }

    /// What is started now: what ran before; the named units where none of them did, because somebody wants the
    /// application to run.
    pub(crate) fn to_start(&self) -> Vec<&Kept> {
        let no_named_ran = !self.units.iter().any(|unit| unit.is_named && unit.ran);
        let mut units: Vec<&Kept> =
            self.units.iter().filter(|unit| unit.ran || (unit.is_named && no_named_ran)).collect();
        units.sort_by_key(|unit| unit.wave);
        units
    }

    /// Whether nothing of the application ran when it was stopped.
    pub(crate) fn nothing_ran(&self) -> bool {
        !self.units.iter().any(|unit| unit.is_ours && unit.ran)
    }

    fn mark_held(&mut self, name: &str) {
        self.units.iter_mut().filter(|unit| unit.name == name).for_each(|unit| unit.is_held = true);
    }
}

impl Kept {
    fn bare(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_named: false,
            is_ours: false,
            is_held: false,
            ran: false,
            is_at_once: false,
            wave: 0,
        }
    }
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct RecordFile(PathBuf);

impl RecordFile {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("units.json"))
    }

    /// What is known of the units of these `settings`; of others only that they are held.
    pub(crate) async fn load(&self, settings: &[String]) -> Result<Record, ServiceError> {
        let path = self.0.clone();
        let mut record = match fs_err::tokio::read(&path).await {
            Ok(text) => serde_json::from_slice(&text).map_err(|source| ServiceError::Units { path, source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(source) => return Err(ServiceError::File { call: "read", path, source }),
        };
        if record.settings != settings {
            record.settings = settings.to_vec();
            record.stopped = false;
        }
        Ok(record)
    }

    /// Writes it; it survives a power cut.
    pub(crate) async fn save(&self, record: &Record) -> Result<(), ServiceError> {
        let (path, file) = (self.0.clone(), self.0.clone());
        let text =
            serde_json::to_vec_pretty(record).map_err(|source| ServiceError::Units { path: path.clone(), source })?;
        let written = blocking(move || {
            file.parent().map_or(Ok(()), fs_err::create_dir_all)?;
            write_durably(&file, &text, 0o600)
        });
        written.await.map_err(|source| ServiceError::File { call: "write", path, source })
    }

    /// Forgets everything.
    pub(crate) async fn remove(&self) -> Result<(), ServiceError> {
        let (path, file) = (self.0.clone(), self.0.clone());
        let removed = blocking(move || absent_is_fine(fs_err::remove_file(file)));
        removed.await.map_err(|source| ServiceError::File { call: "remove", path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str, tie: Tie, returns: bool, wave: u32) -> Planned {
        Planned { name: name.to_owned(), tie, is_ours: true, returns, is_at_once: false, wave }
    }

    fn plan(web: bool, worker: bool) -> Plan {
        let worker = unit("worker.service", Tie::PartOf("web.service".to_owned()), worker, 1);
        Plan { units: vec![unit("web.service", Tie::Named, web, 0), worker], ..Plan::default() }
    }

    fn starts(record: &Record) -> Vec<&str> {
        record.to_start().into_iter().map(|unit| unit.name.as_str()).collect()
    }

    #[test]
    fn the_first_look_counts() {
        for (web, worker, expected) in [
            (true, true, &["web.service", "worker.service"][..]),
            (true, false, &["web.service"]),
            // Whoever updates an application wants it to run.
            (false, false, &["web.service"]),
            (false, true, &["web.service", "worker.service"]),
        ] {
            let mut record = Record::default();
            record.stop(&plan(web, worker));
            // The stop is under way, or it is a later one of the same run.
            for now in [plan(false, false), plan(true, true)] {
                record.stop(&now);
                assert_eq!(starts(&record), expected, "{web} {worker}");
            }
            assert_eq!(record.nothing_ran(), !web && !worker);
        }
    }

    #[test]
    fn a_new_run_forgets_what_ran_but_no_drop_in() {
        let mut record = Record::default();
        let mut before = plan(true, true);
        before.units.push(unit("gone.service", Tie::PartOf("web.service".to_owned()), true, 1));
        assert_eq!(record.begin(Path::new("/hold"), &before), ["web.service", "worker.service", "gone.service"]);
        record.stop(&before);
        record.begin(Path::new("/hold"), &plan(true, false));
        assert!(!record.stopped && record.units.iter().all(|unit| !unit.ran));
        assert_eq!(record.held(), ["web.service", "worker.service", "gone.service"]);
        record.stop(&plan(true, false));
        assert_eq!(starts(&record), ["web.service"]);
        assert_eq!(record.held(), ["web.service", "worker.service", "gone.service"], "each drop-in is removed one day");
        let mut later = plan(true, false);
        later.units.push(unit("new.socket", Tie::Starts("web.service".to_owned()), true, 0));
        record.stop(&later);
        assert_eq!(record.hold_all(&later), ["new.socket"]);
    }

    #[tokio::test]
    async fn is_read_as_written_and_half_a_file_is_no_empty_record() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::new(&dir.path().join("apps/orders"));
        let named = ["web.service".to_owned()];
        let mut record = file.load(&named).await.unwrap();
        assert_eq!(record, Record { settings: named.to_vec(), ..Record::default() });
        record.stop(&plan(true, false));
        file.save(&record).await.unwrap();
        assert_eq!(file.load(&named).await.unwrap(), record);
        assert!(!file.load(&["other.service".to_owned()]).await.unwrap().stopped, "the settings were changed");
        fs_err::write(dir.path().join("apps/orders/units.json"), "{\"hold\": nu").unwrap();
        let error = file.load(&named).await.unwrap_err();
        assert!(matches!(error, ServiceError::Units { .. }), "{error}");
        assert!(error.hint().is_some());
        for _ in 0..2 {
            file.remove().await.unwrap();
        }
        assert!(file.load(&named).await.unwrap().units.is_empty());
    }
}
