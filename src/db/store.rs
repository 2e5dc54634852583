//! The store: one SQLite file, one writer thread, one reader thread.
//!
//! All writes pass through one thread in one `BEGIN IMMEDIATE` transaction each, committed with
//! `synchronous = FULL`: when a write returns, it survives a power cut. Reads have a connection of
//! their own and never wait for a commit (write-ahead log).
//!
//! A command that only looks opens it by [`Store::open_to_read`], beside whoever writes.
//!
//! Invariants: an unreadable file is an error, never an empty store; a store of a newer schema is
//! not touched; before a schema is upgraded a copy is put beside the file.

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::ErrorCode;
use rusqlite::OpenFlags;
use rusqlite::Transaction;
use rusqlite::TransactionBehavior;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use url::Url;

use crate::db::copy;
use crate::db::reserve::Reserve;
use crate::domain::failure::Scarce;
use crate::domain::name::JobName;
use crate::domain::run::RunId;

/// The schema, step by step; only ever appended to.
pub(crate) const MIGRATIONS: &[(u32, &str)] = &[
    (1, include_str!("migrations/0001_first.sql")),
    (2, include_str!("migrations/0002_retention.sql")),
    (3, include_str!("migrations/0003_gate_openings.sql")),
    (4, include_str!("migrations/0004_update_checks.sql")),
    (5, include_str!("migrations/0005_pass_uid.sql")),
    (6, include_str!("migrations/0006_outbox_recipients.sql")),
    (7, include_str!("migrations/0007_clock.sql")),
];
/// The schema this program writes.
const NEWEST: u32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// How many requests may wait for each thread; more wait outside.
const QUEUE_MAX: usize = 256;
/// How long a connection waits for another process that writes (`update now` beside the daemon).
const BUSY_WAIT: Duration = Duration::from_secs(30);
/// Pages that the writer keeps, in KiB: those of the indexes that every claim touches.
const WRITER_CACHE_KIB: i64 = 2048;
/// Pages that the reader keeps, in KiB. What is read once, such as all jobs at the start, is the kernel's to keep.
const READER_CACHE_KIB: i64 = 512;

/// The store could not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be opened or is no store.
    #[error("open the store {}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// It was written by a newer version.
    #[error("the store {} has schema {found}, this program knows {known} at most", .path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// There is none to read.
    #[error("there is no store at {}", .path.display())]
    Absent {
        /// The file that is not there.
        path: PathBuf,
    },
    /// We may not read it.
    #[error("the store {} may not be read by this user", .path.display())]
    Forbidden {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// It was written by an older version, and is only opened to read it.
    #[error("the store {} has schema {found}, this program reads {needed} only", .path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// Ours.
        needed: u32,
    },
    /// The schema could not be upgraded.
    #[error("upgrade the schema of the store to {to}")]
    Upgrade {
        /// The step that failed.
        to: u32,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// It could not be copied.
    #[error("copy the store {} to {}", .from.display(), .to.display())]
    Copy {
        /// The store.
        from: PathBuf,
        /// The copy.
        to: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A file of it could not be put in its place.
    #[error("put {} in its place", .path.display())]
    PutBack {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Copies that are not kept any longer stay all the same.
    #[error("remove old copies of the store: {}", .path.display())]
    RemoveCopy {
        /// The copy, or the directory they are in.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A statement failed.
    #[error("read or write the store")]
    Sql(#[from] rusqlite::Error),
    /// What is in the store is not what was put there.
    #[error("understand {what} in the store")]
    Corrupt {
        /// Which row.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A value has no JSON form.
    #[error("write {what} as JSON")]
    Encode {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The name is taken.
    #[error("a job named {0} exists already")]
    NameTaken(JobName),
    /// There is no such job.
    #[error("there is no job named {0}")]
    NoJob(JobName),
    /// There is no such run.
    #[error("there is no run {0}")]
    NoRun(RunId),
    /// Somebody else has taken the run over.
    #[error("run {0} was taken over by another process")]
    FenceLost(RunId),
    /// Another run of the same application is under way.
    #[error("another run of {app} is under way")]
    AnotherRun {
        /// The application.
        app: String,
    },
    /// The event cannot follow what is in the log.
    #[error("append to the log of run {run}")]
    Illegal {
        /// The run.
        run: RunId,
        /// Why, in words of the one who checked.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something is missing from the history, and nobody vouches for it. It is left as it is, as evidence.
    #[error("remove what is too old: from link {link} on, the history lacks what retention has not removed")]
    Unaccounted {
        /// Where the first gap begins.
        link: i64,
    },
    /// The store is shutting down.
    #[error("reach the store: it is closed")]
    Closed,
}

impl StoreError {
    /// What there was too little of, where it failed for that: nothing was written then, and it can be tried again.
    pub fn scarce(&self) -> Option<Scarce> {
        match self {
            Self::Sql(source) => match source.sqlite_error_code()? {
                ErrorCode::DiskFull => Some(Scarce::Room),
                ErrorCode::OutOfMemory => Some(Scarce::Memory),
                ErrorCode::CannotOpen => Some(Scarce::Descriptors),
                // A quota and a file system that became read-only are said so, too; only a full disk has a word of its own.
                ErrorCode::ReadOnly | ErrorCode::SystemIoFailure => Some(Scarce::Writable),
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(Scarce::Free),
                _ => None,
            },
            Self::PutBack { source, .. } | Self::RemoveCopy { source, .. } => Scarce::of(source),
            _ => None,
        }
    }
}

impl StoreError {
    /// Whether it may have failed for want of room; SQLite says so in more than one way.
    fn may_lack_room(&self) -> bool {
        let code = match self {
            Self::Sql(source) | Self::Open { source, .. } | Self::Upgrade { source, .. } => source.sqlite_error_code(),
            _ => None,
        };
        matches!(code, Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen))
    }
}

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the store; cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    writer: mpsc::Sender<Work>,
    reader: mpsc::Sender<Work>,
    path: Arc<Path>,
    reserve: Arc<Reserve>,
}

impl Store {
    /// Opens the store, creates it where there is none, and upgrades its schema.
    ///
    /// # Errors
    /// The file is unreadable, damaged, or of a newer schema.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connect = || {
            let mut writing = connect(path, WRITER_CACHE_KIB)?;
            upgrade(&mut writing, path)?;
            Ok((writing, connect(path, READER_CACHE_KIB)?))
        };
        let reserve = Arc::new(Reserve::beside(path));
        let (writing, reading) = match connect() {
            Err(error @ StoreError::TooNew { .. }) => return Err(error),
            Err(error) if error.may_lack_room() && reserve.give_up() => connect()?,
            connected => connected?,
        };
        if let Err(error) = reserve.make() {
            tracing::warn!(%error, "the store has no room of its own for the day when the disk is full");
        }
        let (reader, reading) = serve("store-reader", reading, None);
        // Who closes last clears the write-ahead log away; two that close at once would each leave it to the other.
        let (writer, _) = serve("store-writer", writing, reading);
        Ok(Self { writer, reader, path: path.into(), reserve })
    }

    /// Opens a store that is there, to look at it. Who writes goes on beside; an attempt to write is an error.
    ///
    /// SQLite keeps an index of the write-ahead log beside the file and makes it anew where it is gone.
    ///
    /// # Errors
    /// There is none, we may not read it, it is damaged, or of another schema.
    pub fn open_to_read(path: &Path) -> Result<Self, StoreError> {
        let forbidden = |source| StoreError::Forbidden { path: path.to_owned(), source };
        match std::fs::metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Err(forbidden(error)),
            Err(_) => return Err(StoreError::Absent { path: path.to_owned() }),
        }
        rustix::fs::access(path, rustix::fs::Access::READ_OK).map_err(|errno| forbidden(errno.into()))?;
        let (connection, found) = connect_to_read(path)?;
        match found {
            found if found > NEWEST => Err(StoreError::TooNew { path: path.to_owned(), found, known: NEWEST }),
            found if found < NEWEST => Err(StoreError::TooOld { path: path.to_owned(), found, needed: NEWEST }),
            _ => {
                let (reader, _) = serve("store-reader", connection, None);
                let reserve = Arc::new(Reserve::beside(path));
                Ok(Self { writer: reader.clone(), reader, path: path.into(), reserve })
            }
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in one immediate transaction; an error rolls it back.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        ask(&self.writer, move |connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        })
        .await
    }

    /// The same for what a run cannot go on without: where the disk is full, the room that is kept for it is given up.
    pub(crate) async fn write_in_need<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Clone + Send + 'static,
    {
        match self.write(work.clone()).await {
            Err(error) if error.may_lack_room() && self.reserve.give_up() => self.write(work).await,
            Ok(value) if self.reserve.may_be_missing() => {
                let reserve = Arc::clone(&self.reserve);
                // Where it cannot be made there is perhaps room the next time.
                let _ = ask(&self.writer, move |_| Ok(reserve.make())).await;
                Ok(value)
            }
            done => done,
        }
    }

    /// Runs `work` in one read transaction, so that all it sees is of one moment.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        ask(&self.reader, move |connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
            work(&tx)
        })
        .await
    }
}

async fn ask<T, F>(thread: &mpsc::Sender<Work>, work: F) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let work: Work = Box::new(move |connection| {
        // Whoever asked may have gone; the work is done all the same.
        let _ = reply.send(work(connection));
    });
    thread.send(work).await.map_err(|_| StoreError::Closed)?;
    answer.await.map_err(|_| StoreError::Closed)?
}

/// A thread that works upon a connection until nobody can ask any more, and closes it when `before` has ended.
fn serve(
    name: &str,
    mut connection: Connection,
    before: Option<JoinHandle<()>>,
) -> (mpsc::Sender<Work>, Option<JoinHandle<()>>) {
    let (sender, mut inbox) = mpsc::channel::<Work>(QUEUE_MAX);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        while let Some(work) = inbox.blocking_recv() {
            work(&mut connection);
        }
        // However it ended, it is over.
        let _ = before.map(JoinHandle::join);
    });
    // Without a thread every request answers `Closed`, because the inbox is dropped.
    let thread =
        thread.inspect_err(|error| tracing::error!(%error, thread = name, "cannot start a thread of the store"));
    (sender, thread.ok())
}

fn connect(path: &Path, cache_kib: i64) -> Result<Connection, StoreError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY_WAIT)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", "on")?;
        connection.pragma_update(None, "cache_size", -cache_kib)?;
        connection.pragma_update(None, "journal_size_limit", 16 * 1024 * 1024)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|source| StoreError::Open { path: path.to_owned(), source })
}

/// A connection that cannot write, and the schema it sees.
///
/// Where the folder may not be written and no log of writes is left, nobody can be writing, and the file is read
/// as one that never changes. In all other cases SQLite coordinates us with whoever writes.
fn connect_to_read(path: &Path) -> Result<(Connection, u32), StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let look = |connection: Connection| {
        connection.busy_timeout(BUSY_WAIT)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        connection.set_prepared_statement_cache_capacity(64);
        let schema = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((connection, schema))
    };
    let looked = Connection::open_with_flags(path, flags).and_then(look);
    let looked = match (looked, unchanging(path)) {
        (Err(_), Some(uri)) => {
            Connection::open_with_flags(uri.as_str(), flags | OpenFlags::SQLITE_OPEN_URI).and_then(look)
        }
        (looked, _) => looked,
    };
    looked.map_err(|source| {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            // What a crash has left beside it is taken in by who may write there.
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly) if !is_ours(&path) => {
                StoreError::Forbidden { path, source: std::io::ErrorKind::PermissionDenied.into() }
            }
            _ => StoreError::Open { path, source },
        }
    })
}

/// Whether we may make files beside it.
fn is_ours(path: &Path) -> bool {
    path.parent().is_some_and(|dir| rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok())
}

/// How SQLite is told that a file never changes, where that is true.
fn unchanging(path: &Path) -> Option<Url> {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let is_written = fs_err::metadata(PathBuf::from(log)).is_ok_and(|about| about.len() > 0);
    if is_written || is_ours(path) {
        return None;
    }
    let mut uri = Url::from_file_path(std::path::absolute(path).ok()?).ok()?;
    uri.set_query(Some("immutable=1"));
    Some(uri)
}

fn upgrade(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found: u32 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    if found > NEWEST {
        return Err(StoreError::TooNew { path: path.to_owned(), found, known: NEWEST });
    }
    if found > 0 && found < NEWEST {
        copy::keep_before_upgrade(path, found)?;
    }
    for &(to, sql) in MIGRATIONS.iter().filter(|(to, _)| *to > found) {
        let step = |connection: &mut Connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            // Another process may have been faster.
            let now: u32 = tx.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if now < to {
                tx.execute_batch(sql)?;
                tx.pragma_update(None, "user_version", to)?;
            }
            tx.commit()
        };
        step(connection).map_err(|source| StoreError::Upgrade { to, source })?;
    }
    Ok(())
}

/// Encodes a body column.
pub(crate) fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Encode { what, source })
}

/// Decodes a body column.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    what: impl FnOnce() -> String,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Corrupt { what: what(), source })
}

/// What of many rows can be understood. One that cannot must not hide the others; who lists what cannot be read is
/// [`Store::unreadable`].
pub(crate) fn readable<T>(rows: impl Iterator<Item = Result<T, StoreError>>) -> Result<Vec<T>, StoreError> {
    rows.filter(|row| !matches!(row, Err(StoreError::Corrupt { .. }))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unreadable_file_is_an_error_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        fs_err::write(&path, "this is no database, but somebody's only copy of something").unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
        assert!(fs_err::read_to_string(&path).unwrap().starts_with("this is no database"));
    }

    #[tokio::test]
    async fn a_newer_schema_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let connection = connect(&path, WRITER_CACHE_KIB).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        assert!(matches!(Store::open(&path), Err(StoreError::TooNew { found: 99, .. })));
    }

    #[tokio::test]
    async fn a_store_is_read_beside_whoever_writes_and_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        assert!(matches!(Store::open_to_read(&path), Err(StoreError::Absent { .. })));
        assert!(!path.exists(), "looking makes nothing");

        let store = Store::open(&path).unwrap();
        let insert =
            |app: &'static str| store.write(move |tx| Ok(tx.execute("INSERT INTO gates VALUES (?1, '{}')", [app])?));
        let count = async |store: &Store| -> i64 {
            store.read(|tx| Ok(tx.query_row("SELECT count(*) FROM gates", [], |row| row.get(0))?)).await.unwrap()
        };
        insert("a").await.unwrap();
        let looking = Store::open_to_read(&path).unwrap();
        assert_eq!(count(&looking).await, 1);
        insert("b").await.unwrap();
        assert_eq!(count(&looking).await, 2, "it sees what is committed meanwhile");
        let refused = looking.write(|tx| Ok(tx.execute("DELETE FROM gates", [])?)).await;
        assert!(matches!(refused, Err(StoreError::Sql(_))), "{refused:?}");
        assert_eq!(count(&store).await, 2);
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        fs_err::write(&path, "this is no database, but somebody's only copy of something").unwrap();
        assert!(matches!(Store::open_to_read(&path), Err(StoreError::Open { .. })));
        fs_err::write(&path, "").unwrap();
        assert!(matches!(Store::open_to_read(&path), Err(StoreError::TooOld { found: 0, .. })));
        connect(&path, WRITER_CACHE_KIB).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open_to_read(&path), Err(StoreError::TooNew { found: 99, .. })));
        let not_there = path.join("below a file");
        assert!(matches!(Store::open_to_read(&not_there), Err(StoreError::Absent { .. })));
    }

    #[tokio::test]
    async fn a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store.db")).unwrap();
        let result: Result<(), StoreError> = store
            .write(|tx| {
                tx.execute("INSERT INTO gates VALUES ('a', '{}')", [])?;
                Err(StoreError::Closed)
            })
            .await;
        assert!(result.is_err());
        let count: i64 =
            store.read(|tx| Ok(tx.query_row("SELECT count(*) FROM gates", [], |row| row.get(0))?)).await.unwrap();
        assert_eq!(count, 0);
    }
}
