"""`python -m hftcore` is `hft`."""

from hftcore.cli import main

main()
