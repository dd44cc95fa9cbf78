-- A state.db of format 4 as it lies on disks. Never edited: a change of the format gets a version,
-- an upgrade step and a file of its own.
CREATE TABLE format (kind TEXT NOT NULL, version INTEGER NOT NULL) STRICT;
INSERT INTO format VALUES ('config-center state', 4);
CREATE TABLE revisions (
    id INTEGER PRIMARY KEY,
    main INTEGER NOT NULL,
    sub INTEGER NOT NULL,
    create_revision INTEGER NOT NULL,
    version INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    tombstone INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL
) STRICT;
CREATE TABLE leases (
    id INTEGER PRIMARY KEY,
    ttl_s INTEGER NOT NULL,
    remaining_s INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE alarms (
    kind INTEGER NOT NULL,
    member_id INTEGER NOT NULL,
    PRIMARY KEY (kind, member_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE members (
    id INTEGER PRIMARY KEY,
    member BLOB NOT NULL
) STRICT;
CREATE TABLE progress (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    compacted INTEGER NOT NULL,
    purged INTEGER NOT NULL,
    applied_term INTEGER,
    applied_index INTEGER,
    membership_term INTEGER,
    membership_index INTEGER,
    membership BLOB
) STRICT;
INSERT INTO progress VALUES (1, 9, 0, 0, 3, 6, 1, 0, X'0a030a0101');
INSERT INTO leases VALUES (77, 60, 45);
INSERT INTO alarms VALUES (1, -2);
INSERT INTO members VALUES (-2, X'08feffffffffffffffff01120764656661756c74');
INSERT INTO revisions VALUES
    (1, 2, 0, 2, 1, 77, 0, X'61', X'31'),
    (2, 3, 0, 2, 2, 77, 0, X'61', X'32'),
    (3, 4, 0, 4, 1, 0, 0, X'62', X'33'),
    (4, 5, 0, 0, 0, 0, 1, X'62', X'');
CREATE TABLE v2_nodes (
    path BLOB PRIMARY KEY,
    node BLOB NOT NULL
) STRICT;
CREATE TABLE v2_events (
    event_index INTEGER PRIMARY KEY,
    event BLOB NOT NULL
) STRICT;
INSERT INTO v2_nodes VALUES (X'2f64', X'0a022f64100118062006');
INSERT INTO v2_events VALUES (6, X'080612037365741a0a0a022f64100118062006');
CREATE TABLE auth_users (
    name TEXT PRIMARY KEY,
    user BLOB NOT NULL
) STRICT;
CREATE TABLE auth_roles (
    name TEXT PRIMARY KEY,
    role BLOB NOT NULL
) STRICT;
CREATE TABLE auth_status (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    enabled INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO auth_status VALUES (1, 1, 8);
INSERT INTO auth_users VALUES
    ('root', X'0a04726f6f74120568617368311a04726f6f742200'),
    ('ann', X'0a03616e6e1a0672656164657222020801');
INSERT INTO auth_roles VALUES
    ('reader', X'0a067265616465721203120161');
