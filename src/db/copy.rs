//! Copies of the whole store, and putting one back in its place.
//!
//! A copy is of one moment, whoever writes meanwhile, and one file. Putting it back is for a store that nobody has open;
//! it can be repeated after a crash, since the copy is only read.

use std::fs::File;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use rusqlite::backup::Backup;
use rusqlite::backup::StepResult;

use crate::db::store::StoreError;

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
    fn what_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let (path, kept) = (dir.path().join("store.db"), dir.path().join("kept"));
        assert!(matches!(copy(&path, &kept), Err(StoreError::Copy { .. })));
        assert!(matches!(put_back(&kept, &path), Err(StoreError::PutBack { .. })));
        assert!(!path.exists() && !kept.exists());
    }
}
