//! The step table and the state diagram of `ARCHITECTURE.md`, made from the code.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::domain::run::RunState;
use crate::domain::step::Leg;
use crate::domain::step::Repeat;
use crate::domain::step::Replay;
use crate::domain::step::TABLE;
use crate::domain::step::Undo;
use crate::generated::assert_region;
use crate::jobs::machine::Machine;
use crate::jobs::model_tests::walk;

const PAGE: &str = "ARCHITECTURE.md";

#[test]
fn the_step_table_is_that_of_the_code() {
    let mut page =
        "| step | does | stands | leg | tries | after a crash | undo | tries to undo | at every end |\n".to_owned();
    page += "|---|---|---|---|---|---|---|---|---|\n";
    for row in TABLE {
        let stands = match row.repeat {
            Repeat::Once => "once",
            Repeat::FirstBuild => "first build",
            Repeat::EachBuild => "each build",
        };
        let leg = match row.leg {
            Leg::Before => "before",
            Leg::Away => "away",
            Leg::After => "after",
        };
        let undo = match row.undo {
            Undo::Nothing => "–".to_owned(),
            Undo::EachBuild(undo, _) if row.repeat == Repeat::Once => undo.to_owned(),
            Undo::EachBuild(undo, _) => format!("{undo}, each build"),
            Undo::FirstBuild(undo, _) => format!("{undo}, once"),
        };
        let undo_tries = if row.undo == Undo::Nothing { String::new() } else { row.undo_attempts_max().to_string() };
        let replay = match row.replay {
            Replay::Again => "again",
            Replay::Probe => "probe",
            Replay::UndoThenAgain => "undo, then again",
        };
        let (step, does, tries) = (row.step, row.does, row.attempts_max);
        let always = if row.always { "yes" } else { "" };
        writeln!(
            page,
            "| `{step}` | {does} | {stands} | {leg} | {tries} | {replay} | {undo} | {undo_tries} | {always} |"
        )
        .unwrap();
    }
    assert_region(PAGE, "steps", &page);
}

/// The name of a state in the picture: a committed run is drawn apart, because it never goes back.
fn name(machine: &Machine) -> &'static str {
    match machine.state() {
        RunState::Running { .. } if machine.is_committed() => "committed",
        RunState::Waiting { .. } if machine.is_committed() => "waiting_committed",
        state => state.name(),
    }
}

#[test]
fn the_state_diagram_is_that_of_the_code() {
    let mut edges: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let states = ["queued", "running", "waiting", "committed", "waiting_committed", "unwinding", "stuck", "finished"];
    walk(|before, event, result| {
        let Ok(after) = result else { return };
        let label = match after.state().outcome() {
            Some(outcome) => outcome.to_string(),
            None => event.name().to_owned(),
        };
        let labels = edges.entry((name(before), name(after))).or_default();
        if !labels.contains(&label) {
            labels.push(label);
        }
    });
    let mut page = "```mermaid\nstateDiagram-v2\n".to_owned();
    page += "    waiting_committed : waiting (committed)\n    committed : running (committed)\n    [*] --> queued\n";
    for from in states {
        for to in states {
            let Some(mut labels) = edges.remove(&(from, to)) else { continue };
            labels.sort();
            writeln!(page, "    {from} --> {to} : {}", labels.join(", ")).unwrap();
        }
    }
    assert!(edges.is_empty(), "states that are not drawn: {edges:?}");
    page += "    finished --> [*]\n```\n";
    assert_region(PAGE, "states", &page);
}
