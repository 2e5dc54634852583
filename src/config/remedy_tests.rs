//! What a message tells people to write is what can be written: every key that one names exists.

use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use crate::config::input::Input;
use crate::config::schema::Schema;

/// Words in messages that look like keys and are none of ours: programs, functions of the system, keys of a signer.
const OTHERS: [&str; 3] = ["repquota", "pre_exec", "public_key"];

/// Every end of a path of keys: `backup.evidence.files`, `evidence.files` and `files`.
fn keys(schema: &Schema, above: &[&str], found: &mut BTreeSet<String>) {
    match schema {
        Schema::Value => {}
        Schema::Map(below) | Schema::List(below) => keys(below, above, found),
        Schema::Table(table) | Schema::Command(table) => {
            for (key, below) in table {
                let path = [above, &[key]].concat();
                found.extend((0..path.len()).map(|from| path[from..].join(".")));
                keys(below, &path, found);
            }
        }
    }
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs_err::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("remedy_tests.rs") {
            found.push(path);
        }
    }
}

/// The texts in a source file, but for its tests and comments.
fn texts(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let code: String =
        code.lines().filter(|line| !line.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
    let mut found = Vec::new();
    let mut chars = code.chars();
    while let Some(c) = chars.next() {
        match c {
            // A quotation mark as a character begins no text.
            '\'' if chars.as_str().starts_with("\"'") => drop(chars.nth(1)),
            '"' => {
                let mut text = String::new();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    text.push(c);
                    text.extend(if c == '\\' { chars.next() } else { None });
                }
                found.push(text);
            }
            _ => {}
        }
    }
    found
}

fn is_key(word: &str) -> bool {
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    word.split('.').all(is_name)
}

#[test]
fn every_key_that_a_message_names_exists() {
    let mut known = BTreeSet::new();
    keys(&Schema::of::<Input>(), &[], &mut known);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // What a release says of itself, and names that are documented beside the keys.
    let documented =
        ["config/default.toml", "config/examples/release.toml"].map(|name| fs_err::read_to_string(root.join(name)));
    let documented: BTreeSet<String> = documented
        .into_iter()
        .flat_map(|text| {
            let text = text.unwrap();
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            words.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let (mut checked, mut unknown) = (0, Vec::new());
    for file in files {
        for text in texts(&fs_err::read_to_string(&file).unwrap()) {
            for span in text.split('`').skip(1).step_by(2) {
                let word = span.split(" = ").next().unwrap_or_default();
                let is_known = || match word.contains('.') {
                    true => known.contains(word),
                    false => known.contains(word) || documented.contains(word) || OTHERS.contains(&word),
                };
                if is_key(word) {
                    checked += 1;
                    if !is_known() {
                        unknown.push(format!("{}: {word}", file.display()));
                    }
                }
            }
        }
    }
    assert!(checked > 50, "{checked}");
    assert_eq!(unknown, Vec::<String>::new());
}
