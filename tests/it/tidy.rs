//! The rules of the house that the compiler does not know.
//!
//! Each rule is a function from the sources to what breaks it. It is asked twice: of the sources as
//! they are, where it must find nothing, and of a planted offender, so that it is known to see.

use std::collections::BTreeSet;
use std::path::Path;

/// The floors of the house, the lowest first. A module uses its own floor's neighbours never, and what
/// is below freely.
// `generated` is a helper of unit tests and no part of the product.
const FLOORS: [&[&str]; 10] = [
    &["domain", "generated"],
    &["files"],
    &["db", "config", "wire", "exec"],
    &["feed", "install", "service", "backup", "sessions", "gate", "notify", "probe", "renewal", "client", "sample"],
    &["jobs"],
    &["scheduler"],
    &["control"],
    &["api"],
    &["daemon"],
    &["cli"],
];
/// Who may speak to the store: what decides and what composes. Adapters and edges go without.
const MAY_USE_DB: [&str; 4] = ["jobs", "scheduler", "control", "daemon"];
/// Crates that are named in one part of the house only, and where. The daemon binds the socket and hands
/// it to the server together with the router that `api` made: that call is the one use of axum outside.
const HOMES: [(&str, &[&str]); 6] = [
    ("rusqlite", &["src/db/"]),
    ("tokio_cron_scheduler", &["src/scheduler/chores.rs"]),
    ("axum", &["src/api/", "src/daemon.rs", "src/daemon/", "src/sample/"]),
    ("clap", &["src/cli/"]),
    ("reqwest", &["src/feed/transport/", "src/probe/", "src/client/", "src/sample/"]),
    ("anyhow", &["src/cli/", "src/daemon.rs", "src/daemon/"]),
];
const LINES_MAX: usize = 600;
const NEVER: [&str; 6] = ["#[allow", "#![allow", "#[ignore", "todo!", "dbg!", "unimplemented!"];

#[derive(Clone)]
struct Source {
    /// From the root of the repository.
    path: String,
    text: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// `feed` of `src/feed/dir.rs`, `daemon` of `src/daemon.rs`; nothing for what stands above all modules.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let module = inside.split('/').next()?.trim_end_matches(".rs");
        (module != "lib" && module != "main").then_some(module)
    }

    /// Its lines with their numbers, without what stands in comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().zip(1..).filter_map(|(line, number)| {
            let line = line.trim_start();
            (!line.starts_with("//")).then_some((number, line))
        })
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(dir: &Path, found: &mut Vec<Source>) {
    for entry in fs_err::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(repository()).unwrap().to_str().unwrap();
            found.push(Source::new(name, &fs_err::read_to_string(&path).unwrap()));
        }
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for dir in ["src", "tests", "benches", "examples"] {
        walk(&repository().join(dir), &mut found);
    }
    assert!(found.len() > 250, "{} files are not all", found.len());
    found
}

/// Asks `rule` of the sources as they are, and of the same with one `offender`.
#[track_caller]
fn holds(rule: impl Fn(&[Source]) -> Vec<String>, offender: Source) {
    let mut all = sources();
    let broken = rule(&all);
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
    all.push(offender);
    assert_eq!(rule(&all).len(), 1, "the rule does not see an offender");
}

/// A line without `pub` in any of its forms.
fn item(line: &str) -> &str {
    let line = line.strip_prefix("pub").unwrap_or(line);
    let line = if line.starts_with('(') { line.split_once(')').map_or(line, |(_, rest)| rest) } else { line };
    line.trim_start()
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Every `word` that follows `crate::` in a line.
fn uses(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").map(|(at, prefix)| {
        let rest = &line[at + prefix.len()..];
        &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

fn off_their_floor(all: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in all {
        let Some(module) = source.module() else { continue };
        let Some(own) = floor(module) else {
            broken.push(format!("{}: `{module}` has no floor", source.path));
            continue;
        };
        for (number, line) in source.code() {
            let upward = |used: &&str| *used != module && floor(used).is_none_or(|floor| floor >= own);
            for used in uses(line).filter(upward) {
                broken.push(format!("{}:{number}: `{module}` uses `{used}`, which is not below it", source.path));
            }
        }
    }
    broken
}

#[test]
fn a_module_uses_only_what_is_below_it() {
    holds(off_their_floor, Source::new("src/feed/new.rs", "use crate::install::Installer;\n"));
    holds(off_their_floor, Source::new("src/db/new.rs", "fn f() { crate::config::parse() }\n"));
    holds(off_their_floor, Source::new("src/attic/mod.rs", "//! Nobody said where this is.\n"));
}

fn around_the_engine(all: &[Source]) -> Vec<String> {
    let stranger =
        |source: &&Source| source.module().is_some_and(|module| module != "db" && !MAY_USE_DB.contains(&module));
    let mut broken = Vec::new();
    for source in all.iter().filter(stranger) {
        for (number, line) in source.code() {
            if uses(line).any(|used| used == "db") {
                broken.push(format!("{}:{number}: speaks to the store", source.path));
            }
        }
    }
    broken
}

#[test]
fn adapters_and_edges_do_not_speak_to_the_store() {
    holds(around_the_engine, Source::new("src/notify/new.rs", "use crate::db::store::Store;\n"));
}

/// The one module with unsafe code.
const UNSAFE_HOME: &str = "src/exec/system.rs";

fn unsafe_abroad(all: &[Source]) -> Vec<String> {
    // The rule itself has to spell it.
    let others = all.iter().filter(|source| source.path != UNSAFE_HOME && source.path != "tests/it/tidy.rs");
    others
        .flat_map(|source| source.code().map(move |(number, line)| (&source.path, number, line)))
        .filter(|(_, _, line)| line.contains("unsafe {") || line.contains("expect(unsafe_code"))
        .map(|(path, number, _)| format!("{path}:{number}: unsafe code lives in {UNSAFE_HOME}"))
        .collect()
}

#[test]
fn unsafe_code_lives_in_one_module() {
    holds(unsafe_abroad, Source::new("src/feed/new.rs", "fn f() { unsafe { g() } }\n"));
}

/// Where processes are started, and why it is not `exec`: what is started there is Afterhours itself, a supervised
/// application, or the user's own program.
const PROCESS_HOMES: [&str; 7] = [
    "src/exec/",
    "src/service/supervised.rs",
    "src/daemon/renew.rs",
    "src/renewal/mod.rs",
    "src/cli/update.rs",
    "src/cli/demo/crew.rs",
    "src/client/program.rs",
];

fn started_elsewhere(all: &[Source]) -> Vec<String> {
    let others = all.iter().filter(|source| source.path.starts_with("src/"));
    others
        .filter(|source| !PROCESS_HOMES.iter().any(|home| source.path.starts_with(home)))
        .flat_map(|source| source.code().map(move |(number, line)| (&source.path, number, line)))
        .filter(|(_, _, line)| line.contains("Command::new("))
        .map(|(path, number, _)| format!("{path}:{number}: starts a process without asking as whom"))
        .collect()
}

#[test]
fn a_command_is_run_by_exec_which_asks_as_whom() {
    holds(started_elsewhere, Source::new("src/gate/new.rs", "let child = Command::new(program).spawn();\n"));
}

/// Who may change what belongs to an entry: on its descriptor, or where nobody else can reach it.
const CHANGES_ENTRIES: [&str; 3] = ["src/install/tree.rs", "src/install/work.rs", "src/install/dumped.rs"];
/// Calls that change an entry by a name, which may be another's by then.
const BY_NAME: [&str; 7] = ["set_permissions", "chown", "hard_link", "linkat(", "xattr::", "utimensat", "fchmodat"];

fn changed_by_name(all: &[Source]) -> Vec<String> {
    let others = all.iter().filter(|source| source.path.starts_with("src/install/"));
    let others = others.filter(|source| !CHANGES_ENTRIES.contains(&source.path.as_str()));
    let mut broken = Vec::new();
    for source in others {
        let changes = |line: &str| {
            // To remove a name changes nothing of what had it.
            let line = line.replace("unlinkat(", "");
            BY_NAME.iter().any(|call| line.contains(call))
        };
        for (number, line) in source.code().filter(|(_, line)| changes(line)) {
            // What is told to people is no call.
            if !line.starts_with('"') {
                broken.push(format!("{}:{number}: changes an entry by name", source.path));
            }
        }
    }
    broken
}

#[test]
fn entries_are_changed_on_their_descriptors() {
    for call in BY_NAME {
        holds(changed_by_name, Source::new("src/install/new.rs", &format!("//! New.\nfn f() {{ {call}(path) }}\n")));
    }
}

fn up_the_stairs(all: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in all.iter().filter(|source| source.path.starts_with("src/")) {
        for (number, line) in source.code() {
            if line.contains("super::super") {
                broken.push(format!("{}:{number}: write the path from `crate`", source.path));
            }
        }
    }
    broken
}

#[test]
fn paths_do_not_climb() {
    holds(up_the_stairs, Source::new("src/feed/new.rs", "use super::super::install;\n"));
}

fn away_from_home(all: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in all.iter().filter(|source| source.path.starts_with("src/")) {
        for (name, homes) in HOMES {
            if homes.iter().any(|home| source.path.starts_with(home)) {
                continue;
            }
            let named = |line: &str| line.contains(&format!("{name}::")) || line.contains(&format!("use {name};"));
            let lines = source.code().filter(|(_, line)| named(line));
            broken.extend(lines.map(|(number, _)| format!("{}:{number}: names {name}", source.path)));
        }
    }
    broken
}

#[test]
fn a_crate_stays_where_it_belongs() {
    for (name, homes) in HOMES {
        let at_home =
            |source: &Source| homes.iter().any(|home| source.path.starts_with(home)) && source.text.contains(name);
        assert!(sources().iter().any(at_home), "{name} is not used at all");
        holds(away_from_home, Source::new("src/wire/new.rs", &format!("use {name}::Thing;\n")));
    }
}

fn grouped(all: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    for source in all {
        for (number, line) in source.code() {
            let ours =
                ["use crate::", "use afterhours::", "use super::"].iter().any(|ours| item(line).starts_with(ours));
            if ours && line.contains('{') {
                broken.push(format!("{}:{number}: one item, one `use`", source.path));
            }
        }
    }
    broken
}

#[test]
fn imports_of_ours_are_not_grouped() {
    holds(grouped, Source::new("src/cli/new.rs", "use crate::wire::{run, job};\n"));
}

fn overlong(all: &[Source]) -> Vec<String> {
    let lines = |source: &Source| source.text.lines().count();
    let long = all.iter().filter(|source| lines(source) > LINES_MAX);
    long.map(|source| format!("{}: {} lines", source.path, lines(source))).collect()
}

#[test]
fn no_file_is_overlong() {
    holds(overlong, Source::new("src/cli/new.rs", &"\n".repeat(LINES_MAX + 1)));
}

fn unfinished(all: &[Source]) -> Vec<String> {
    let mut broken = Vec::new();
    // This file has to spell them.
    for source in all.iter().filter(|source| source.path != "tests/it/tidy.rs") {
        for (number, line) in source.code() {
            broken.extend(
                NEVER
                    .iter()
                    .filter(|word| line.contains(**word))
                    .map(|word| format!("{}:{number}: {word}", source.path)),
            );
        }
        let wip = source.text.lines().zip(1..).filter(|(line, _)| {
            let line = line.to_lowercase();
            ["// wip", "// todo", "// fixme", "// xxx"].iter().any(|mark| line.contains(mark))
        });
        broken.extend(wip.map(|(_, number)| format!("{}:{number}: says that it is not done", source.path)));
    }
    broken
}

#[test]
fn nothing_is_silenced_or_left_for_later() {
    for word in NEVER {
        holds(unfinished, Source::new("src/cli/new.rs", &format!("{word}\n")));
    }
    holds(unfinished, Source::new("src/cli/new.rs", "fn f() {} // WIP\n"));
}

fn headless(all: &[Source]) -> Vec<String> {
    let headless = all.iter().filter(|source| !source.text.starts_with("//! "));
    headless.map(|source| format!("{}: no header", source.path)).collect()
}

#[test]
fn every_file_says_what_it_is() {
    holds(headless, Source::new("src/cli/new.rs", "use std::fmt;\n"));
}

/// Where `path` may be declared, and as what; nothing for the roots that cargo names itself.
fn declared_in(path: &str) -> Option<(Vec<String>, String)> {
    let (dir, file) = path.rsplit_once('/')?;
    let (dir, name) = match file.trim_end_matches(".rs") {
        "main" | "lib" => return None,
        "mod" => {
            let (above, name) = dir.rsplit_once('/')?;
            (above, name)
        }
        name => (dir, name),
    };
    let roots = ["main.rs", "lib.rs", "mod.rs"].map(|file| format!("{dir}/{file}"));
    Some((roots.into_iter().chain([format!("{dir}.rs")]).collect(), name.to_owned()))
}

fn forgotten(all: &[Source]) -> Vec<String> {
    let mut declarations = BTreeSet::new();
    for source in all {
        for (_, line) in source.code() {
            if let Some(name) = item(line).strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                declarations.insert((source.path.clone(), name.to_owned()));
            }
        }
    }
    let of_a_tree = all.iter().filter(|source| source.path.starts_with("src/") || source.path.starts_with("tests/it/"));
    of_a_tree
        .filter_map(|source| Some((source, declared_in(&source.path)?)))
        .filter(|(_, (places, name))| !places.iter().any(|place| declarations.contains(&(place.clone(), name.clone()))))
        .map(|(source, _)| format!("{}: declared nowhere, so it is never compiled", source.path))
        .collect()
}

#[test]
fn no_file_is_forgotten() {
    holds(forgotten, Source::new("tests/it/new.rs", "//! Never run.\n"));
    holds(forgotten, Source::new("src/feed/new/mod.rs", "//! Never run.\n"));
}

#[test]
fn every_exit_code_is_documented() {
    let of = |text: &str, before: &str, after: &str| -> BTreeSet<u8> {
        let rest = |line: &str| line.strip_prefix(before)?.split(after).next()?.parse().ok();
        text.lines().filter_map(rest).collect()
    };
    let all = sources();
    let exit = &all.iter().find(|source| source.path == "src/cli/exit.rs").unwrap().text;
    let in_code: BTreeSet<u8> = exit
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("ErrorKind::")?.split(" => ").nth(1)?.trim_end_matches(',').parse().ok()
        })
        .chain([0])
        .collect();
    assert!(in_code.len() > 5, "{in_code:?}");
    let read = |path: &str| fs_err::read_to_string(repository().join(path)).unwrap();
    assert_eq!(of(&read("README.md"), "| ", " |"), in_code, "README.md");
    let help = read("tests/it/snapshots/it__cli__help.snap");
    assert_eq!(of(&help, "  ", "  "), in_code, "afterhours --help");
}

#[test]
fn the_test_of_the_documented_keys_is_there() {
    // It needs what only `config` sees; here is looked after that nobody removes it.
    let text = fs_err::read_to_string(repository().join("src/config/tests.rs")).unwrap();
    assert!(text.contains("#[test]\nfn every_key_is_documented_in_the_reference()"));
}
