//! Every SQL text of `db/`, found in the sources and prepared against a fresh store.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::OpenFlags;

use crate::db::tests::fresh;

const VERBS: [&str; 6] = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "PRAGMA ", "VACUUM "];

/// The string literals of a source, as the compiler would read them. Knows `\"`, `\\` and line comments, which
/// is all that is used here.
fn literals(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut chars = source.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => while chars.next().is_some_and(|c| c != '\n') {},
            // A character, and no lifetime: '"' would begin a string that is none.
            '\'' if chars.peek() == Some(&'"') => drop(chars.next()),
            '"' => {
                let mut text = String::new();
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    text.push(if c == '\\' { chars.next().unwrap() } else { c });
                }
                found.push(text);
            }
            _ => {}
        }
    }
    found
}

/// Every statement of one source, as it is sent to SQLite.
fn statements(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap();
    let columns = code.split_once("const COLUMNS: &str = \"").and_then(|(_, rest)| rest.split('"').next());
    literals(code)
        .into_iter()
        .filter(|text| VERBS.iter().any(|verb| text.starts_with(verb)))
        .map(|text| text.replace("{COLUMNS}", columns.unwrap_or("{COLUMNS}")))
        .collect()
}

/// How often SQLite is handed a text, by the calls that take one.
fn handed_over(source: &str) -> usize {
    let code: String = source.split("#[cfg(test)]").next().unwrap().split_whitespace().collect();
    ["prepare(", "prepare_cached(", "execute(", "query_row("]
        .iter()
        .flat_map(|call| ["\"", "&format!(\""].map(|begin| format!(".{call}{begin}")))
        .map(|call| code.matches(&call).count())
        .sum()
}

#[test]
fn every_statement_can_be_prepared() {
    let it = fresh();
    let connection = Connection::open_with_flags(it.store.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut prepared = 0;
    for entry in fs_err::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/db")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = fs_err::read_to_string(&path).unwrap();
        let statements = statements(&source);
        assert_eq!(statements.len(), handed_over(&source), "{}: a statement escapes this test", path.display());
        for sql in statements {
            connection.prepare(&sql).unwrap_or_else(|error| panic!("{}: {error}\n{sql}", path.display()));
            prepared += 1;
        }
    }
    assert!(prepared > 35, "{prepared}");
}

#[test]
fn a_misspelt_column_would_be_seen() {
    let it = fresh();
    let connection = Connection::open_with_flags(it.store.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let source = "const COLUMNS: &str = \"id, nmae\";\n tx.prepare(&format!(\"SELECT {COLUMNS} FROM jobs\"))";
    let found = statements(source);
    assert_eq!((found.len(), handed_over(source)), (1, 1));
    assert!(connection.prepare(&found[0]).is_err());
}

#[test]
fn what_is_asked_often_is_found_by_an_index() {
    let it = fresh();
    let connection = Connection::open_with_flags(it.store.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let often = [
        ("SELECT id FROM jobs WHERE due_at IS NOT NULL AND due_at <= '2' ORDER BY due_at LIMIT 9", "jobs_due_at"),
        ("SELECT id FROM jobs WHERE after_job = 'backup' AND enabled ORDER BY name", "jobs_after_job"),
        ("SELECT id FROM outbox WHERE state = 'pending' AND next_at <= '2' ORDER BY next_at LIMIT 1", "outbox_next_at"),
        ("SELECT at FROM run_events WHERE run = 7 AND seq > 3 ORDER BY seq", "PRIMARY KEY"),
    ];
    for (sql, index) in often {
        let plan: Vec<String> = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap()
            .query_map([], |row| row.get("detail"))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(plan[0].starts_with("SEARCH") && plan[0].contains(index), "{sql}: {plan:?}");
    }
}
