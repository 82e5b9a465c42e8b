"""Pure kernels: books, orders, levels, matching. They read their arrays and the command only.

In the order of reading: `state` (what a shard remembers), `bitmap` (next occupied level),
`order_index` (order_id to slot), `book` (link, unlink), `emit` (events), `sweep` (an aggressor
against the book), `verbs` (what each command does), `dispatch`, `listing`, `depth`, `state_hash`.
"""
