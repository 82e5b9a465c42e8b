"""The bounds that every part relies on, each with its reason."""

MAX_QTY = (1 << 39) - 1
"""Lots of one order. With MAX_ORDERS of them at one price a level's total stays below 2^63."""

MAX_ORDERS = (1 << 24) - 1
"""Resting orders of one instrument, and of one shard: a slot number is 24 bits."""

MAX_LADDER_TICKS = 1 << 30
"""Ticks of one instrument's ladder: five levels of a 64-ary bitmap."""

MAX_LEVELS = 1 << 32
"""Levels of one shard (both sides of every ladder): a level number is 32 bits."""

MAX_INSTRUMENTS = 4096
"""Instrument ids of a venue, from 1."""

MAX_ACCOUNTS = 1 << 20
"""Account ids, from 1: the tables that every report looks into are arrays by account."""

MAX_GATEWAYS = 32
"""Gateways of a venue, numbered from 0 (the venue's own): one bit each in a route."""

MAX_SHARDS = 16
"""Matchers of a venue."""

MAX_SLICE_IDS = 4096
"""Order ids that one slice of a mass cancel covers: what a matcher looks through without pause."""

FIRST_SEQUENCE = 1
"""Sequence of the first command of a new log."""
