-- A log.db of format 1 as it lies on disks. Never edited: a change of the format gets a version,
-- an upgrade step and a file of its own.
CREATE TABLE format (kind TEXT NOT NULL, version INTEGER NOT NULL) STRICT;
INSERT INTO format VALUES ('config-center log', 1);
CREATE TABLE entries (
    log_index INTEGER PRIMARY KEY,
    term INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE TABLE marks (
    name TEXT PRIMARY KEY,
    term INTEGER NOT NULL,
    log_index INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE vote (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    term INTEGER NOT NULL,
    node_id INTEGER NOT NULL,
    committed INTEGER NOT NULL
) STRICT;
CREATE TABLE identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    member_id INTEGER NOT NULL,
    cluster_id INTEGER NOT NULL
) STRICT;
INSERT INTO identity VALUES (1, -2, 7);
INSERT INTO vote VALUES (1, 3, -2, 1);
INSERT INTO marks VALUES ('purged', 1, 4), ('committed', 3, 6);
INSERT INTO entries VALUES (5, 3, 0, X''), (6, 3, 1, X'080152060a016b120176'), (7, 3, 2, X'0a030a01011201');
