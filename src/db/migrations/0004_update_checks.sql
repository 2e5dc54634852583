-- What came of the last look for newer releases, one row an application. Where it failed, what was offered before stays.
CREATE TABLE update_checks (
    app        TEXT PRIMARY KEY,
    checked_at TEXT NOT NULL,
    offer      TEXT CHECK (offer IS NULL OR json_valid(offer)),
    failure    TEXT CHECK (failure IS NULL OR json_valid(failure)),
    CHECK (offer IS NOT NULL OR failure IS NOT NULL)
) STRICT;
