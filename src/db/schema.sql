-- What the migrations add up to: the schema of a fresh store, dumped by a test and compared by it.

CREATE TABLE audit (
    link   INTEGER PRIMARY KEY,
    at     TEXT NOT NULL,
    who    TEXT NOT NULL,
    via    TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    body   TEXT NOT NULL CHECK (json_valid(body)),
    hash   TEXT NOT NULL
) STRICT;
CREATE TABLE chain (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    link INTEGER NOT NULL,
    hash TEXT    NOT NULL
) STRICT;
CREATE TABLE chain_gaps (
    first  INTEGER PRIMARY KEY CHECK (first > 0),
    last   INTEGER NOT NULL UNIQUE CHECK (last >= first),
    -- The hash of the link before the gap, and of the gap's own last link.
    before TEXT    NOT NULL,
    after  TEXT    NOT NULL
) STRICT;
CREATE TABLE clock (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    body TEXT NOT NULL CHECK (json_valid(body))
) STRICT;
CREATE TABLE gate_openings (
    app      TEXT    PRIMARY KEY,
    since    TEXT    NOT NULL,
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    next_at  TEXT    NOT NULL,
    failure  TEXT    CHECK (failure IS NULL OR json_valid(failure))
) STRICT;
CREATE TABLE gates (
    app  TEXT PRIMARY KEY,
    body TEXT NOT NULL CHECK (json_valid(body))
) STRICT;
CREATE TABLE jobs (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE,
    app        TEXT    NOT NULL,
    start_kind TEXT    NOT NULL CHECK (start_kind IN ('immediate', 'time', 'series', 'after')),
    after_job  TEXT    CHECK ((start_kind = 'after') = (after_job IS NOT NULL)),
    on_failure TEXT,
    spec       TEXT    NOT NULL CHECK (json_valid(spec)),
    enabled    INTEGER NOT NULL DEFAULT 0 CHECK (enabled IN (0, 1)),
    due_at     TEXT    CHECK (due_at IS NULL OR (enabled = 1 AND start_kind <> 'after')),
    missed_at  TEXT,
    created_by TEXT    NOT NULL,
    created_at TEXT    NOT NULL,
    updated_at TEXT    NOT NULL
) STRICT;
CREATE INDEX jobs_after_job ON jobs (after_job) WHERE after_job IS NOT NULL;
CREATE INDEX jobs_due_at ON jobs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX jobs_missed_at ON jobs (missed_at) WHERE missed_at IS NOT NULL;
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    -- One report a run, whatever happens: writing it again changes nothing.
    message_id TEXT    NOT NULL UNIQUE,
    run        INTEGER REFERENCES runs (id),
    body       TEXT    NOT NULL CHECK (json_valid(body)),
    state      TEXT    NOT NULL CHECK (state IN ('pending', 'sent', 'dead')),
    attempts   INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_at    TEXT,
    last_error TEXT,
    CHECK ((state = 'pending') = (next_at IS NOT NULL))
) STRICT;
CREATE INDEX outbox_next_at ON outbox (next_at) WHERE state = 'pending';
CREATE INDEX outbox_run ON outbox (run);
CREATE TABLE outbox_recipients (
    mail    INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
    address TEXT    NOT NULL,
    state   TEXT    NOT NULL CHECK (state IN ('pending', 'sent', 'dead')),
    -- When it was last tried, and what the server said to that.
    at      TEXT,
    said    TEXT,
    PRIMARY KEY (mail, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_recipients_unsent ON outbox_recipients (state) WHERE state <> 'sent';
CREATE TABLE passes (
    id          INTEGER PRIMARY KEY,
    app         TEXT NOT NULL,
    user        TEXT,
    valid_until TEXT NOT NULL,
    given_by    TEXT NOT NULL
, uid INTEGER CHECK (uid >= 0)) STRICT;
CREATE TABLE quarantine (
    app     TEXT    NOT NULL,
    build   INTEGER NOT NULL,
    version TEXT    NOT NULL,
    run     INTEGER NOT NULL REFERENCES runs (id),
    at      TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    PRIMARY KEY (app, build)
) STRICT, WITHOUT ROWID;
CREATE TABLE run_events (
    run  INTEGER NOT NULL REFERENCES runs (id),
    seq  INTEGER NOT NULL CHECK (seq > 0),
    at   TEXT    NOT NULL,
    name TEXT    NOT NULL,
    body TEXT    NOT NULL CHECK (json_valid(body)),
    link INTEGER NOT NULL UNIQUE,
    hash TEXT    NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE runs (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id       INTEGER REFERENCES jobs (id) ON DELETE SET NULL,
    job          TEXT,
    app          TEXT    NOT NULL,
    due_at       TEXT,
    -- What the run was told. A run without events is armed: nothing has happened, and an edit of the job takes it back.
    body         TEXT    NOT NULL CHECK (json_valid(body)),
    state        TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'waiting', 'unwinding', 'stuck', 'finished')),
    outcome      TEXT    CHECK (outcome IN ('succeeded', 'rolled_back', 'failed', 'cancelled', 'skipped')),
    away         INTEGER NOT NULL DEFAULT 0 CHECK (away IN (0, 1)),
    fence        INTEGER NOT NULL CHECK (fence > 0),
    queued_at    TEXT    NOT NULL,
    started_at   TEXT,
    finished_at  TEXT,
    CHECK ((state = 'finished') = (outcome IS NOT NULL)),
    CHECK ((state = 'finished') = (finished_at IS NOT NULL)),
    CHECK (NOT (state = 'finished' AND away = 1))
) STRICT;
CREATE INDEX runs_armed ON runs (job_id) WHERE state = 'queued';
CREATE INDEX runs_finished_app ON runs (app, id) WHERE state = 'finished';
CREATE INDEX runs_finished_job ON runs (job_id, id) WHERE state = 'finished';
CREATE INDEX runs_job ON runs (job, id);
CREATE UNIQUE INDEX runs_job_due_at ON runs (job_id, due_at) WHERE job_id IS NOT NULL AND due_at IS NOT NULL;
CREATE UNIQUE INDEX runs_one_active ON runs (app)
    WHERE started_at IS NOT NULL AND state IN ('running', 'waiting', 'unwinding', 'stuck');
CREATE INDEX runs_unfinished ON runs (state) WHERE state <> 'finished';
CREATE TABLE sessions (
    app  TEXT NOT NULL,
    id   TEXT NOT NULL,
    body TEXT NOT NULL CHECK (json_valid(body)),
    PRIMARY KEY (app, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE update_checks (
    app        TEXT PRIMARY KEY,
    checked_at TEXT NOT NULL,
    offer      TEXT CHECK (offer IS NULL OR json_valid(offer)),
    failure    TEXT CHECK (failure IS NULL OR json_valid(failure)),
    CHECK (offer IS NOT NULL OR failure IS NOT NULL)
) STRICT;
