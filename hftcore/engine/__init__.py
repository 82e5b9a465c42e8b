"""Roles: agents of state arrays and one compiled `poll` that does a bounded amount of work.

Roles never import each other; they meet on rings. Who runs which roles in which process is decided
in `exchange` and `ops`.
"""
