-- What became of a mail for each of its recipients: one that is put off or turned away holds back nobody else.
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
INSERT OR IGNORE INTO outbox_recipients (mail, address, state, said)
SELECT outbox.id, recipient.value, outbox.state, outbox.last_error
FROM outbox, json_each(outbox.body, '$.to') AS recipient
WHERE typeof(recipient.value) = 'text';
