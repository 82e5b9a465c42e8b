"""Market data that others recorded, turned into commands of this venue."""
