"""Bytes and sequence numbers between processes: kernels, regions, rings, cells.

This package knows no orders. It gives the rest of the project one decorator for compiled code
(`ipc.kernel`), the processor's own operations as intrinsics (`ipc.intrinsics`), files of shared
memory with an identity (`ipc.region`), the ring (`ipc.ring`), the small shared cells (`latest`,
`counters`, `histogram`), ways to wait (`wait`), to know who lives (`liveness`), to say ready and
stop (`signals`), and the cycle counter as a clock (`clock`). Only `kernel`, `intrinsics` and
`errors` may be imported by the pure kernels of `matching` and `accounts`; a test reads the imports
and enforces this.
"""

import ipc.errors  # noqa: F401  refuses under python -O, whatever is imported of this package
