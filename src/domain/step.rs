//! The steps of a run, in order: **the one table**.
//!
//! To add a step, add a row here and follow the compiler: it asks for the step's act and its undo in
//! `jobs/steps/mod.rs`, and for its name in the mails in `notify/template/`. Nothing else names the order;
//! the engine, the plan, the history and the table in `ARCHITECTURE.md` are made from this one.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

/// How often a step stands in a run that installs several pending builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Once in a run.
    Once,
    /// Once, with the first build of the path.
    FirstBuild,
    /// Once for every pending build, ascending.
    EachBuild,
}

/// What is at stake while a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leg {
    /// Before the service is stopped; may be interrupted at any moment.
    Before,
    /// Between stop and commit: the application is away, and a failure puts everything back.
    Away,
    /// After the commit: the run only goes forward.
    After,
}

/// The way one step back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    /// There is nothing to put back.
    Nothing,
    /// Undone for every build it was done for: how, and how often it is tried before the run is stuck.
    EachBuild(&'static str, u32),
    /// Undone once, for the first build: it brings back the state before the run. The same two.
    FirstBuild(&'static str, u32),
}

/// What happens when a crash left the result of a step unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// It is done again: doing it twice is the same as once.
    Again,
    /// It is looked up whether it was done; only if not, it is done again.
    Probe,
    /// What it may have done is undone first. Only the state before the run can be restored, so for
    /// a later build an interruption counts as a failure.
    UndoThenAgain,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The step.
    pub step: Step,
    /// How often it stands in a run.
    pub repeat: Repeat,
    /// What is at stake.
    pub leg: Leg,
    /// The way back.
    pub undo: Undo,
    /// After a crash.
    pub replay: Replay,
    /// How often it is tried before it counts as failed; at least 1.
    pub attempts_max: u32,
    /// Done at the end of a run that was put back, too.
    pub always: bool,
    /// What it does, for people.
    pub does: &'static str,
}

macro_rules! steps {
    ($($step:ident $name:literal { $repeat:ident, $leg:ident, undo: $undo:expr, replay: $replay:ident, attempts: $attempts:literal, always: $always:literal } $does:literal)+) => {
        /// One unit of a run. Its order, undo and replay stand in [`TABLE`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Step {
            $(#[doc = $does] $step,)+
        }

        /// Every step in the order of a run.
        pub const TABLE: &[Row] = &[
            $(Row {
                step: Step::$step,
                repeat: Repeat::$repeat,
                leg: Leg::$leg,
                undo: { use Undo::*; $undo },
                replay: Replay::$replay,
                attempts_max: $attempts,
                always: $always,
                does: $does,
            },)+
        ];

        impl Step {
            /// The name, spelt the same in SQL, JSON and text.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$step => $name,)+ }
            }
        }
    };
}

steps! {
    Preflight     "preflight"      { Once,       Before, undo: Nothing, replay: Again, attempts: 1, always: false }
        "checks everything the run will need"
    SelfUpdate    "self_update"    { Once,       Before, undo: Nothing, replay: Probe, attempts: 1, always: false }
        "updates Afterhours itself first, where the feed has a newer one"
    Select        "select"         { Once,       Before, undo: Nothing, replay: Again, attempts: 3, always: false }
        "decides which releases are installed, in ascending order"
    Download      "download"       { Once,       Before, undo: Nothing, replay: Again, attempts: 3, always: false }
        "fetches, verifies and unpacks them beside the installation"
    Backup        "backup"         { Once,       Before, undo: Nothing, replay: Probe, attempts: 1, always: false }
        "accepts the evidence of a fresh backup or makes one"
    SnapshotAhead "snapshot_ahead" { Once,       Before, undo: Nothing, replay: Again, attempts: 1, always: false }
        "copies the data for rollback while people still work"
    CloseGate     "close_gate"     { Once,       Before, undo: EachBuild("open the gate", 6), replay: Again, attempts: 3, always: false }
        "refuses new logins"
    Announce      "announce"       { Once,       Before, undo: EachBuild("withdraw the announcement", 6), replay: Again, attempts: 1, always: false }
        "tells everybody who is logged in"
    Grace         "grace"          { Once,       Before, undo: Nothing, replay: Again, attempts: 1, always: false }
        "counts down and reminds; ends early when nobody is left"
    LogOut        "log_out"        { Once,       Before, undo: Nothing, replay: Again, attempts: 1, always: false }
        "closes the sessions that are left, first politely, then by force"
    Stop          "stop"           { EachBuild,  Away,   undo: FirstBuild("start the old version and check it", 5), replay: Probe, attempts: 1, always: false }
        "stops the service and verifies that it is down"
    Snapshot      "snapshot"       { FirstBuild, Away,   undo: Nothing, replay: Again, attempts: 1, always: false }
        "brings the copy of the data up to the moment of the stop"
    Swap          "swap"           { EachBuild,  Away,   undo: EachBuild("exchange the directories back", 6), replay: Probe, attempts: 1, always: false }
        "carries kept files over and exchanges the directories"
    MigrateData   "migrate_data"   { EachBuild,  Away,   undo: FirstBuild("restore the data from the snapshot", 6), replay: UndoThenAgain, attempts: 1, always: false }
        "runs the release's own migration"
    Start         "start"          { EachBuild,  Away,   undo: EachBuild("stop the new version", 6), replay: Probe, attempts: 1, always: false }
        "starts the new version"
    CheckHealth   "check_health"   { EachBuild,  Away,   undo: Nothing, replay: Again, attempts: 1, always: false }
        "waits until the new version answers, several times in a row"
    OpenGate      "open_gate"      { Once,       After,  undo: Nothing, replay: Again, attempts: 5, always: false }
        "admits users again, by the application's policy"
    Report        "report"         { Once,       After,  undo: Nothing, replay: Again, attempts: 5, always: true }
        "writes the one mail and brings the workstations back"
    CleanUp       "clean_up"       { Once,       After,  undo: Nothing, replay: Again, attempts: 2, always: true }
        "removes what retention does not keep"
}

impl Step {
    /// Whether it works on a program or data that nobody may be using.
    pub const fn needs_rest(self) -> bool {
        matches!(self, Self::Snapshot | Self::Swap | Self::MigrateData)
    }

    /// The step's row of [`TABLE`].
    pub fn row(self) -> &'static Row {
        // The table is made by the same macro as the enum, in the same order.
        &TABLE[self as usize]
    }
}

impl Row {
    /// How often the undo is tried before the run is stuck; once where there is nothing to put back.
    pub const fn undo_attempts_max(&self) -> u32 {
        match self.undo {
            Undo::Nothing => 1,
            Undo::EachBuild(_, attempts_max) | Undo::FirstBuild(_, attempts_max) => attempts_max,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no step.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("\"{0}\" is no step")]
pub struct UnknownStep(String);

impl FromStr for Step {
    type Err = UnknownStep;

    fn from_str(text: &str) -> Result<Self, UnknownStep> {
        TABLE.iter().map(|row| row.step).find(|step| step.name() == text).ok_or_else(|| UnknownStep(text.to_owned()))
    }
}

/// A step within a run: which one, and for which build of the version path, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct At {
    /// The step.
    pub step: Step,
    /// The index into the version path; 0 for steps that stand once.
    #[serde(default)]
    pub build: u32,
}

impl At {
    /// A step for the first build, or one that stands once.
    pub const fn first(step: Step) -> Self {
        Self { step, build: 0 }
    }

    /// Whether there is anything to undo for this step and build.
    pub fn has_undo(self) -> bool {
        match self.step.row().undo {
            Undo::Nothing => false,
            Undo::EachBuild(..) => true,
            Undo::FirstBuild(..) => self.build == 0,
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.build {
            0 => self.step.fmt(f),
            build => write!(f, "{}[{}]", self.step, build + 1),
        }
    }
}

/// All steps of a run over a version path of `builds` releases, in order.
pub fn sequence(builds: u32) -> Vec<At> {
    let repeats = |row: &&Row| row.repeat != Repeat::Once;
    let once = |row: &Row| At::first(row.step);
    let head = TABLE.iter().take_while(|row| row.repeat == Repeat::Once);
    let tail = TABLE.iter().skip_while(|row| row.repeat == Repeat::Once).skip_while(repeats);
    let middle = (0..builds).flat_map(|build| {
        TABLE
            .iter()
            .filter(repeats)
            .filter(move |row| build == 0 || row.repeat == Repeat::EachBuild)
            .map(move |row| At { step: row.step, build })
    });
    head.map(once).chain(middle).chain(tail.map(once)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_own_place() {
        for (place, row) in TABLE.iter().enumerate() {
            assert_eq!(row.step as usize, place);
            assert_eq!(row.step.row().step, row.step);
            assert_eq!(row.step.name().parse::<Step>(), Ok(row.step));
            assert_eq!(serde_json::to_value(row.step).unwrap(), row.step.name());
            assert!(row.attempts_max >= 1 && row.undo_attempts_max() >= 1);
        }
    }

    #[test]
    fn legs_never_go_back() {
        assert!(TABLE.windows(2).all(|pair| pair[0].leg <= pair[1].leg));
    }

    #[test]
    fn builds_repeat_between_stop_and_commit_only() {
        for row in TABLE {
            assert_eq!(row.leg == Leg::Away, row.repeat != Repeat::Once, "{}", row.step);
        }
    }

    #[test]
    fn the_snapshot_is_taken_once_and_before_any_swap() {
        let steps = sequence(2);
        let places =
            |step| steps.iter().enumerate().filter(move |(_, at)| at.step == step).map(|(i, _)| i).collect::<Vec<_>>();
        assert_eq!(places(Step::Snapshot).len(), 1);
        assert_eq!(places(Step::Swap).len(), 2);
        assert!(places(Step::Snapshot)[0] < places(Step::Swap)[0]);
        assert_eq!(steps.last(), Some(&At::first(Step::CleanUp)));
    }
}
