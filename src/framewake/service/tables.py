"""Tables of the job database. Times are seconds since 1970, by the database's clock."""

from __future__ import annotations

from sqlalchemy import Column, Double, Index, Integer, MetaData, String, Table, Text

# A state is one of these for ever: nothing leaves the last three but an explicit retry.
STATES = ("queued", "in_progress", "paused", "completed", "failed", "cancelled")
WAITING = ("queued", "paused")  # no worker has them
FINAL = ("completed", "failed", "cancelled")

metadata = MetaData()

# One row: which version of these tables this is, and the id that the data folder carries too.
identity = Table(
    "framewake",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("folder", String(48)),
)

jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(48), nullable=False, unique=True),
    Column("owner", String(32), nullable=False),
    Column("state", String(12), nullable=False),
    Column("model", String(200), nullable=False),
    Column("request", Text, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("callback", Text),
    Column("created", Double, nullable=False),
    # The place in the queue: a number that only grows, so that no clock has a say. In databases of older versions it
    # began as a time, and goes on from there.
    Column("queued", Double, nullable=False),
    # 0, or when a job that was paused may be tried again.
    Column("due", Double, nullable=False),
    Column("started", Double),
    Column("ended", Double),
    Column("stage", String(20)),
    Column("step", Integer, nullable=False),
    Column("steps", Integer, nullable=False),
    Column("seconds_left", Double),
    Column("error_code", String(60)),
    Column("error", Text),
    # The lease counts claims: a worker that lost its job to another cannot write to it any more.
    Column("worker", String(100)),
    Column("lease", Integer, nullable=False),
    Column("heartbeat", Double),
    Column("deaths", Integer, nullable=False),
    Column("picture", String(64)),  # SHA-256 of what was handed in
    # The step behind which the job is to pause with a draft, 0 for the next one; how large drafts are; and the step of
    # the newest draft.
    Column("draft", Integer),
    Column("draft_size", String(8)),
    Column("drafted", Integer),
    Column("extends", String(48)),  # the job whose clip this one goes on from; that clip is this job's picture
    Index("jobs_by_queue", "state", "model", "queued", "number"),
    Index("jobs_by_owner", "owner", "number"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(100), primary_key=True),
    Column("model", String(200), nullable=False),
    Column("engine", String(60), nullable=False),
    Column("started", Double, nullable=False),
    Column("heartbeat", Double, nullable=False),
)

# What each worker says of its device, for forecasts; a table of its own, so that older databases can be used.
devices = Table(
    "devices",
    metadata,
    Column("worker", String(100), primary_key=True),
    Column("facts", Text, nullable=False),
)

# What a person should know of a job, as a JSON list of sentences.
notes = Table(
    "notes",
    metadata,
    Column("job", String(48), primary_key=True),
    Column("texts", Text, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String(48), nullable=False, unique=True),
    Column("url", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("due", Double, nullable=False, index=True),
    # Whom it is for, and about what: one receiver that is slow holds up no other, and each job's come in their order.
    Column("job", String(48)),
    Column("receiver", String(300)),
)

# What a client's Idempotency-Key made; the key and what was asked for are digests.
repeats = Table(
    "repeats",
    metadata,
    Column("owner", String(32), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("asked", String(64), nullable=False),
    Column("job", String(48), nullable=False, index=True),
)
