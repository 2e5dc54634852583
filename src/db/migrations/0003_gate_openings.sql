-- Gates that are open here and whose drivers (a file, commands) are not known to have followed. A row is there before
-- they are asked, and goes when all of them have opened or the gate is closed again.
CREATE TABLE gate_openings (
    app      TEXT    PRIMARY KEY,
    since    TEXT    NOT NULL,
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    next_at  TEXT    NOT NULL,
    failure  TEXT    CHECK (failure IS NULL OR json_valid(failure))
) STRICT;
