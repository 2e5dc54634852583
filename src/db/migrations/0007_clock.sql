-- When the clock was believed the last time: by that it is known whether it can be believed now.
CREATE TABLE clock (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    body TEXT NOT NULL CHECK (json_valid(body))
) STRICT;
