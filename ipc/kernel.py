"""The one decorator for compiled code, and the directory that keeps what it compiled.

Every compiled function of the project is a `kernel`: a module-level function over arrays and
scalars. Numba's disk cache looks at the edited file only: after an edit in an imported constant or
helper a cached kernel went on answering with the old value (91 for 909 in the probe). So the cache
directory is named by a hash over all sources of the project and over every flag that changes the
code; an edit anywhere starts an empty directory, an unchanged tree starts warm. Cached kernels are
pickles, so the directory must belong to this user and be closed to others.

Comes before everything else; `hft warm` fills the directory from one process, because parallel cold
compilation can crash (numba#4807).
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, overload

import llvmlite
import numba
import numpy as np

from ipc.errors import KernelCacheRefused

config: Any = numba.config  # numba makes its attributes at run time
Function = TypeVar("Function", bound=Callable[..., Any])

JIT: bool = not config.DISABLE_JIT
"""False when NUMBA_DISABLE_JIT=1: kernels then run as the plain Python that they are."""

PACKAGES = ("ipc", "affinity", "hftcore", "perf")


def source_hash(root: Path) -> str:
    """Hash every source file of the project and every flag that changes compiled code.

    Parameters
    ----------
    root : Path
        The directory that holds the packages of the project.

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    digest = hashlib.blake2b(digest_size=16)
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0")
            digest.update(path.read_bytes() + b"\0")
    flags = {
        "python": platform.python_version(),
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "numpy": np.__version__,
        "bounds check": config.BOUNDSCHECK,
        "debug info": config.DEBUGINFO_DEFAULT,
        "opt": repr(config.OPT),
        "loop vectorizer": getattr(config, "LOOP_VECTORIZE", None),
        "slp vectorizer": getattr(config, "SLP_VECTORIZE", None),
        "avx": getattr(config, "ENABLE_AVX", None),
        "cpu name": config.CPU_NAME,
        "cpu features": config.CPU_FEATURES,
        "root": str(root),
    }
    digest.update(repr(sorted(flags.items())).encode())
    return digest.hexdigest()


def claim_cache_directory(base: Path, name: str) -> Path:
    """Create or check the cache directory: owned by this user, closed to everybody else.

    Parameters
    ----------
    base : Path
        The directory that holds one cache per state of the sources.
    name : str
        The hash that names this state.

    Raises
    ------
    KernelCacheRefused
        When the directory is a link, somebody else's, or writable by others, or one above it lets
        others put another in its place: kernels are loaded from pickles there, so whoever writes
        into it runs code as this user.
    """
    path = base / name
    for directory in (base, path):
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = os.lstat(directory)
        except OSError as error:
            raise KernelCacheRefused(
                "the directory of compiled kernels can't be made",
                expected="a directory that this user may write",
                found=str(error),
                where=str(directory),
                remedy="set HFT_CACHE_DIR to a directory of your own",
            ) from error
        mode = stat.S_IMODE(status.st_mode)
        safe = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not mode & 0o022
        if not safe:
            raise KernelCacheRefused(
                "the directory of compiled kernels can't be trusted",
                expected=f"a directory of user {os.geteuid()} that no one else may write",
                found=f"{stat.filemode(status.st_mode)}, owner {status.st_uid}",
                where=str(directory),
                remedy=f"chmod 700 {directory}, or set HFT_CACHE_DIR to a directory of your own",
            )
    _check_above(base)
    return path


def _check_above(base: Path) -> None:
    """Refuse a directory below one in which others may rename things (unless it is sticky)."""
    for directory in base.resolve().parents:
        status = os.stat(directory)
        mode = stat.S_IMODE(status.st_mode)
        # a group of one's own (umask 002 is common) is no other
        open_to_group = mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid())
        if (mode & stat.S_IWOTH or open_to_group) and not mode & stat.S_ISVTX:
            raise KernelCacheRefused(
                "the directory of compiled kernels can be replaced by others",
                expected="no directory above it in which others may write, or a sticky one",
                found=f"{stat.filemode(status.st_mode)}, owner {status.st_uid}",
                where=str(directory),
                remedy="set HFT_CACHE_DIR to a directory below your home directory",
            )


def _cache_base() -> Path:
    chosen = os.environ.get("HFT_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hftcore"


ROOT = Path(__file__).resolve().parent.parent
CACHE_DIRECTORY: Path | None = None
if JIT:
    CACHE_DIRECTORY = claim_cache_directory(_cache_base(), source_hash(ROOT))
    # Numba reads this when a function is decorated, so it must be set before the first kernel.
    config.CACHE_DIR = str(CACHE_DIRECTORY)

KERNELS: list[Any] = []
"""Every kernel that has been decorated in this process, in order; `hft warm` counts them."""


@overload
def kernel(function: Function) -> Function: ...
@overload
def kernel(*, inline: bool = False) -> Callable[[Function], Function]: ...
def kernel(function: Any = None, *, inline: bool = False) -> Any:
    """Compile a module-level function over arrays and scalars; with the JIT off leave it as it is.

    Parameters
    ----------
    function : Callable
        Reads nothing but its arguments and module constants; returns scalars or tuples of them.
    inline : bool
        Compile into every caller (LLVM's alwaysinline). For the small pieces of a hot loop.

    Notes
    -----
    Kernels release the GIL and divide as the processor does (`error_model="numpy"`). Bounds checks
    follow NUMBA_BOUNDSCHECK, which has its own cache directory.

    Kernels don't allocate: Numba's reference counting is off (`_nrt`), so an allocation is an error
    at compile time ("NRT required but not enabled"). Left on, it counted references to every array
    of every named tuple with locked instructions: 1,758 of them in the matcher's poll, 0.9 million
    commands a second instead of tens of millions.
    """

    def compile_(function: Function) -> Any:
        if not JIT:
            return function
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}
        if inline:
            options["forceinline"] = True
        else:
            options["cache"] = True
        compiled = numba.njit(**options)(function)
        KERNELS.append(compiled)
        return compiled

    return compile_ if function is None else compile_(function)
