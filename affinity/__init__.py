"""Where processes and memory are: cpus, nodes, pages, and what the host allows.

This package knows no rings and no orders. Of `ipc` it may import the kernel decorator, the
intrinsics and the root of the exceptions; a test reads the imports and enforces this.
"""
