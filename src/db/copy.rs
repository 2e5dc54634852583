//! Copies of the whole store, and putting one back in its place.
//!
//! A copy is of one moment, whoever writes meanwhile, and one file. Putting it back is for a store that nobody has open;
//! it can be repeated after a crash, since the copy is only read.
//!
//! Before its schema is upgraded a store is copied to `STORE.schema-N`, for whoever has to go back by hand. There are never
//! many of these: retention removes all but the newest.

use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::backup::Backup;
use rusqlite::backup::StepResult;

use crate::db::store::StoreError;

/// What the name of a copy from before an upgrade has after the store's.
const BEFORE_UPGRADE: &str = ".schema-";
/// How many copies from before an upgrade are kept.
const UPGRADES_KEPT: usize = 3;

/// Copies the store `from` into the file `to`, over what is there. Blocking; durable when it returns.
///
/// # Errors
/// There is no store, it cannot be read, or the copy cannot be written.
pub fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let bad = |source: rusqlite::Error| StoreError::Copy { from: from.to_owned(), to: to.to_owned(), source };
    let partial = beside(to, ".partial");
    remove(&partial).map_err(|source| StoreError::PutBack { path: partial.clone(), source })?;
    let reading = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(bad)?;
    let mut writing = Connection::open_with_flags(
        &partial,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )
    .map_err(bad)?;
    let step = {
        let backup = Backup::new(&reading, &mut writing).map_err(bad)?;
        // All pages in one step: so the copy is of one moment.
        backup.step(-1).map_err(bad)?
    };
    if step != StepResult::Done {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(bad(rusqlite::Error::SqliteFailure(busy, None)));
    }
    drop(writing);
    place(&partial, to)
}

/// Puts the copy `copy` in the place of the store `path`. Nobody may have the store open. Blocking.
///
/// # Errors
/// The copy cannot be read, or the store cannot be replaced.
pub fn put_back(copy: &Path, path: &Path) -> Result<(), StoreError> {
    let bad = |source| StoreError::PutBack { path: path.to_owned(), source };
    let partial = beside(path, ".partial");
    remove(&partial).map_err(bad)?;
    fs_err::copy(copy, &partial).map_err(bad)?;
    // First the log of the store that goes: it must never be read as that of the one that comes.
    for log in ["-wal", "-shm"] {
        remove(&beside(path, log)).map_err(bad)?;
    }
    place(&partial, path)
}

/// Keeps a copy of the store `path` as it is before it is upgraded from `schema`. What is there under this name is from an
/// upgrade that came to nothing, and older. Blocking.
///
/// # Errors
/// As for [`copy`].
pub(crate) fn keep_before_upgrade(path: &Path, schema: u32) -> Result<(), StoreError> {
    copy(path, &beside(path, &format!("{BEFORE_UPGRADE}{schema}")))
}

/// Removes the copies from before upgrades of the store `path`, except the newest few. How many went. Blocking.
///
/// # Errors
/// One of them cannot be removed; then the others are.
pub fn remove_old_copies(path: &Path) -> Result<usize, StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let unlisted = |source| StoreError::RemoveCopy { path: dir.to_owned(), source };
    let mut copies = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unlisted)? {
        let entry = entry.map_err(unlisted)?;
        copies.extend(schema_of(&entry.path(), path).map(|schema| (schema, entry.path())));
    }
    copies.sort();
    copies.truncate(copies.len().saturating_sub(UPGRADES_KEPT));
    let mut failed = None;
    for (_, copy) in &copies {
        if let Err(source) = remove(copy) {
            failed.get_or_insert(StoreError::RemoveCopy { path: copy.clone(), source });
        }
    }
    failed.map_or(Ok(copies.len()), Err)
}

/// The schema of which `copy` is a copy of the store `path`; nothing where it is another file.
fn schema_of(copy: &Path, path: &Path) -> Option<u32> {
    let name = copy.file_name()?.to_str()?.strip_prefix(path.file_name()?.to_str()?)?;
    let schema = name.strip_prefix(BEFORE_UPGRADE)?;
    schema.parse().ok().filter(|number: &u32| number.to_string() == schema)
}

/// Makes a written file durable under its name.
fn place(partial: &Path, path: &Path) -> Result<(), StoreError> {
    let durable = || {
        File::open(partial)?.sync_all()?;
        fs_err::rename(partial, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    durable().map_err(|source| StoreError::PutBack { path: path.to_owned(), source })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::store::Store;

    async fn note(store: &Store, app: &str) {
        let app = app.to_owned();
        let put = move |tx: &rusqlite::Transaction<'_>| {
            tx.execute("INSERT INTO gates VALUES (?1, '{}')", [app])?;
            Ok(())
        };
        store.write(put).await.unwrap();
    }

    async fn noted(store: &Store) -> Vec<String> {
        store
            .read(|tx| {
                let mut statement = tx.prepare("SELECT app FROM gates ORDER BY app")?;
                let apps = statement.query_map([], |row| row.get(0))?;
                Ok(apps.collect::<Result<_, _>>()?)
            })
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_copy_holds_what_was_written_and_can_be_put_back_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (path, kept) = (dir.path().join("store.db"), dir.path().join("kept"));
        let store = Store::open(&path).unwrap();
        note(&store, "a").await;
        copy(&path, &kept).unwrap();
        copy(&path, &kept).unwrap();
        note(&store, "b").await;
        drop(store);
        // A newer program was here, and ended in the middle.
        let newer = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        newer.execute_batch("DROP TABLE gates; PRAGMA user_version = 99").unwrap();
        std::mem::forget(newer);
        for _ in 0..2 {
            put_back(&kept, &path).unwrap();
            let store = Store::open(&path).unwrap();
            assert_eq!(noted(&store).await, ["a"]);
            note(&store, "c").await;
        }
    }

    #[test]
    fn of_the_copies_from_before_upgrades_the_newest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        drop(Store::open(&path).unwrap());
        let others = ["store.db.schema-", "store.db.schema-x", "store.db.schema-01", "other.db.schema-1"];
        for name in others {
            fs_err::write(dir.path().join(name), "").unwrap();
        }
        for schema in [9, 10, 2] {
            keep_before_upgrade(&path, schema).unwrap();
        }
        assert_eq!(remove_old_copies(&path).unwrap(), 0);
        // One that came to nothing before gives way, and so does what a crash left of a copy.
        fs_err::write(dir.path().join("store.db.schema-11"), "old").unwrap();
        fs_err::write(dir.path().join("store.db.schema-11.partial"), "half").unwrap();
        keep_before_upgrade(&path, 11).unwrap();
        assert_eq!(remove_old_copies(&path).unwrap(), 1);
        assert_eq!(remove_old_copies(&path).unwrap(), 0);
        let is_there = |name: &str| dir.path().join(name).exists();
        assert!(["9", "10", "11"].into_iter().all(|schema| is_there(&format!("store.db.schema-{schema}"))));
        assert!(!is_there("store.db.schema-2") && !is_there("store.db.schema-11.partial"));
        assert!(others.into_iter().all(is_there), "nothing else is ours to remove");
        Store::open(&dir.path().join("store.db.schema-11")).unwrap();
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let (path, kept) = (dir.path().join("store.db"), dir.path().join("kept"));
        assert!(matches!(copy(&path, &kept), Err(StoreError::Copy { .. })));
        assert!(matches!(put_back(&kept, &path), Err(StoreError::PutBack { .. })));
        assert!(!path.exists() && !kept.exists());
    }
}
