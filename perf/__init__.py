"""Benchmarks that import the product, check its answers, and print the machine's own floor beside.

`perf.bench` holds the registry of suites and is what `hft bench` calls. A suite is one module with
`CASES`, `warm` and `run`; what all suites share lies beside it: `results` (rows, verdicts, JSON),
`host` (which machine), `children` (pinned processes), `floor` (what the machine can do at all),
`harness` (options, repeats by regime), `report` (tables). Nothing imports this package except
`hftcore/cli.py`. What was tried, and what it was worth, stands in LEDGER.md.
"""
