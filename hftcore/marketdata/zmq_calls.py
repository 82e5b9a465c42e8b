"""libzmq's own functions, called from compiled loops.

A frame leaves (`zmq_send`) and arrives (`zmq_recv`) without Python in between: 88 ns a call against
307 from pyzmq. pyzmq makes, configures and closes the sockets; what a kernel gets is the address of
one (`Socket.underlying`), which is worth nothing once the socket is closed, in another thread at
the same time, or in a forked child.

The functions are those of the libzmq that pyzmq itself has loaded: two copies of it in one process
would not know each other's sockets. With the JIT off the same names are plain Python calls.

Comes before `publisher` and `subscriber`.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import zmq
from numba import types

from hftcore.errors import ConfigurationRefused
from ipc.intrinsics import address_of
from ipc.kernel import JIT, kernel

DONTWAIT = int(zmq.DONTWAIT)
AGAIN = int(zmq.EAGAIN)
INTERRUPTED = 4
_REALTIME = 0


def loaded_library() -> str:
    """Return the path of the libzmq in this process.

    Raises
    ------
    ConfigurationRefused
        When pyzmq has it built in, so that nobody else can call it.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[1] + line.partition("/")[2]
        if Path(path).name.startswith("libzmq"):
            return path
    raise ConfigurationRefused(
        "compiled code can't reach libzmq",
        expected="a pyzmq that loads libzmq as a shared library",
        found=f"pyzmq {zmq.pyzmq_version()} without one",
        remedy="install pyzmq from a wheel: pip install --force-reinstall pyzmq",
    )


zmq_send: Any
zmq_recv: Any
zmq_errno: Any
_clock_gettime: Any
if JIT:
    llvm.load_library_permanently(loaded_library())
    _word = types.uintp
    zmq_send = types.ExternalFunction("zmq_send", types.int32(_word, _word, _word, types.int32))
    zmq_recv = types.ExternalFunction("zmq_recv", types.int32(_word, _word, _word, types.int32))
    zmq_errno = types.ExternalFunction("zmq_errno", types.int32())
    _clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, _word))

    @kernel(inline=True)
    def utc_ns(timespec: Any) -> Any:
        """Return CLOCK_REALTIME in nanoseconds; `timespec` is int64[2], scratch."""
        _clock_gettime(_REALTIME, address_of(timespec, 0))
        return timespec[0] * 1_000_000_000 + timespec[1]

else:
    _library = ctypes.CDLL(loaded_library())

    def _declared(name: str) -> Any:
        function = _library[name]
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        function.restype = ctypes.c_int

        def call(socket: int, address: int, size: int, flags: int) -> int:
            return int(function(int(socket), int(address), int(size), int(flags)))

        return call

    zmq_send = _declared("zmq_send")
    zmq_recv = _declared("zmq_recv")
    zmq_errno = _library.zmq_errno

    def utc_ns(timespec: Any) -> Any:
        """Return CLOCK_REALTIME in nanoseconds."""
        return time.time_ns()
