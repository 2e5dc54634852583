//! The schema: as committed, the same fresh and upgraded, and refusing what must never be.

use std::path::Path;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OpenFlags;

use crate::db::store::MIGRATIONS;
use crate::db::store::Store;
use crate::db::tests::fresh;
use crate::generated::assert_file;

const HEAD: &str =
    "-- What the migrations add up to: the schema of a fresh store, dumped by a test and compared by it.\n\n";

fn raw(path: &Path) -> Connection {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    connection.pragma_update(None, "foreign_keys", "on").unwrap();
    connection
}

/// Every table and index, as SQL.
fn dump(path: &Path) -> String {
    let connection = raw(path);
    let mut statement = connection
        .prepare(
            "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
             ORDER BY tbl_name, type DESC, name",
        )
        .unwrap();
    let rows = statement.query_map([], |row| row.get::<_, String>("sql")).unwrap();
    rows.map(|sql| sql.unwrap() + ";\n").collect()
}

#[test]
fn the_schema_is_as_committed() {
    assert_file("src/db/schema.sql", &(HEAD.to_owned() + &dump(fresh().store.path())));
}

#[test]
fn migrations_are_numbered_without_gaps() {
    let numbers: Vec<u32> = MIGRATIONS.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..).take(MIGRATIONS.len()).collect::<Vec<_>>());
}

#[test]
fn upgraded_from_any_schema_is_the_same_as_fresh() {
    let expected = dump(fresh().store.path());
    for known in 0..=MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let connection = Connection::open_in_memory().unwrap();
        for (number, sql) in &MIGRATIONS[..known] {
            connection.execute_batch(sql).unwrap();
            connection.pragma_update(None, "user_version", number).unwrap();
        }
        connection.execute("VACUUM INTO ?1", [path.to_str().unwrap()]).unwrap();
        Store::open(&path).unwrap();
        assert_eq!(dump(&path), expected, "from schema {known}");
        let copied = dir.path().join(format!("store.db.schema-{known}")).exists();
        assert_eq!(
            copied,
            known > 0 && known < MIGRATIONS.len(),
            "a copy is kept before an upgrade, from schema {known}"
        );
    }
}

fn run(state: &str, outcome: &str, away: i32, finished_at: &str) -> String {
    format!(
        "INSERT INTO runs (app, body, state, outcome, away, fence, queued_at, started_at, finished_at)
         VALUES ('orders', '{{}}', '{state}', {outcome}, {away}, 1, 'q', NULL, {finished_at})"
    )
}

fn job(start_kind: &str, after_job: &str, enabled: i32, due_at: &str) -> String {
    format!(
        "INSERT INTO jobs (name, app, start_kind, after_job, spec, enabled, due_at, created_by, created_at, updated_at)
         VALUES ('nightly', 'orders', '{start_kind}', {after_job}, '{{}}', {enabled}, {due_at}, 'anna', 'c', 'u')"
    )
}

fn mail(state: &str, next_at: &str) -> String {
    format!("INSERT INTO outbox (message_id, body, state, next_at) VALUES ('m', '{{}}', '{state}', {next_at})")
}

#[test]
fn what_must_never_be_is_refused() {
    let it = fresh();
    let mut connection = raw(it.store.path());
    let mut accepts = |sql: &str| {
        // Each alone: nothing stays.
        let tx = connection.transaction().unwrap();
        match tx.execute(sql, []) {
            Ok(_) => true,
            Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::ConstraintViolation => false,
            Err(error) => panic!("{error}: {sql}"),
        }
    };

    // Finished, an outcome, and the instant of the end: all or none.
    assert!(accepts(&run("finished", "'succeeded'", 0, "'f'")));
    assert!(accepts(&run("running", "NULL", 1, "NULL")));
    assert!(!accepts(&run("finished", "NULL", 0, "'f'")));
    assert!(!accepts(&run("finished", "'succeeded'", 0, "NULL")));
    assert!(!accepts(&run("running", "'succeeded'", 0, "NULL")));
    assert!(!accepts(&run("running", "NULL", 0, "'f'")));
    assert!(!accepts(&run("finished", "'well'", 0, "'f'")));
    assert!(!accepts(&run("asleep", "NULL", 0, "NULL")));
    // A run that is over has left no application away.
    assert!(!accepts(&run("finished", "'rolled_back'", 1, "'f'")));

    // Only what is enabled falls due, and what follows another job never does by itself.
    assert!(accepts(&job("time", "NULL", 1, "'d'")));
    assert!(accepts(&job("after", "'backup'", 1, "NULL")));
    assert!(!accepts(&job("time", "NULL", 0, "'d'")));
    assert!(!accepts(&job("after", "'backup'", 1, "'d'")));
    assert!(!accepts(&job("after", "NULL", 1, "NULL")));
    assert!(!accepts(&job("time", "'backup'", 1, "NULL")));
    assert!(!accepts(&job("sometimes", "NULL", 1, "NULL")));

    // What is to be sent knows when; what is not, never.
    assert!(accepts(&mail("pending", "'n'")));
    assert!(!accepts(&mail("pending", "NULL")));
    assert!(!accepts(&mail("sent", "'n'")));

    // Who has looked for newer releases has found something out, or failed.
    assert!(accepts("INSERT INTO update_checks VALUES ('orders', 'c', '{}', NULL)"));
    assert!(accepts("INSERT INTO update_checks VALUES ('orders', 'c', '{}', '{}')"));
    assert!(!accepts("INSERT INTO update_checks VALUES ('orders', 'c', NULL, NULL)"));
    assert!(!accepts("INSERT INTO update_checks VALUES ('orders', 'c', 'nothing new', NULL)"));

    // No event without its run, no body that is no JSON, one chain.
    assert!(!accepts("INSERT INTO run_events VALUES (99, 1, 'a', 'started', '{}', 1, 'h')"));
    assert!(!accepts("INSERT INTO gates VALUES ('orders', 'open')"));
    assert!(!accepts("INSERT INTO chain VALUES (2, 0, '')"));
}
