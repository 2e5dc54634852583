-- What retention took out of the chain, so that the rest still verifies. Whether these rows are true is said by the
-- newest checkpoint, which hangs on the chain itself (db/chain.rs).
CREATE TABLE chain_gaps (
    first  INTEGER PRIMARY KEY CHECK (first > 0),
    last   INTEGER NOT NULL UNIQUE CHECK (last >= first),
    -- The hash of the link before the gap, and of the gap's own last link.
    before TEXT    NOT NULL,
    after  TEXT    NOT NULL
) STRICT;

CREATE INDEX runs_finished_app ON runs (app, id) WHERE state = 'finished';
CREATE INDEX runs_finished_job ON runs (job_id, id) WHERE state = 'finished';
CREATE INDEX outbox_run ON outbox (run);
