"""Which machine, which software, which state of the sources: the header of every report.

A number without this is worth nothing to somebody else. Only what describes the class of the
machine is told, no host name and no path, so that a report can be shown around.

Comes before the rows in `bench`.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np

from ipc.errors import Refused
from ipc.kernel import JIT, ROOT
from perf.floor import Floor

CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Host:
    """The header of a report.

    Attributes
    ----------
    host : str
        The class of machine: bare metal, virtual machine or container, and its cpu count.
    caches : mapping of str to str
        Cache name to its size and the cpus that share one.
    commit : str
        The git commit, null outside a repository; `modified` when files differ from it.
    config : mapping
        The parameters of the suite, and the environment that changes compiled code.
    """

    host: str
    kernel: str
    cpu_model: str
    cpus: int
    cpus_used: tuple[int, ...]
    caches: Mapping[str, str]
    python: str
    numpy: str
    numba: str
    commit: str | None
    modified: bool | None
    date: str
    floor: Floor | None
    config: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the header as plain JSON values."""
        header = asdict(self)
        if header["floor"] is not None:
            header["floor"] = _rounded(header["floor"])
        return header


def describe_host(cpus: tuple[int, ...], floor: Floor | None, config: Mapping[str, Any]) -> Host:
    """Describe this machine, for the header of a report."""
    commit, modified = git_commit()
    return Host(
        host=host_class(),
        kernel=f"{platform.system()} {platform.release()}",
        cpu_model=_cpuinfo("model name") or platform.machine(),
        cpus=os.cpu_count() or 1,
        cpus_used=cpus,
        caches=caches(),
        python=platform.python_version(),
        numpy=np.__version__,
        numba=numba.__version__,
        commit=commit,
        modified=modified,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        floor=floor,
        config={"jit": JIT, **config},
    )


def choose_cpus(count: int = 2) -> tuple[int, ...]:
    """Choose cpus to measure on: isolated ones first, one a core before siblings.

    Raises
    ------
    Refused
        When this process may run on fewer than two: spinning peers would share one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Refused(
            "a benchmark of two processes needs two cpus",
            expected="at least 2 cpus in this process's affinity mask",
            found=f"cpu {', '.join(map(str, allowed))}",
            remedy="widen it: taskset -c 0,1 hft bench ...",
        )
    isolated = _cpu_list(_read(CPUS / "isolated"))

    def rank(cpu: int) -> tuple[bool, bool, int]:
        siblings = _cpu_list(_read(CPUS / f"cpu{cpu}/topology/thread_siblings_list"))
        return cpu not in isolated, cpu != min(siblings, default=cpu), cpu

    return tuple(sorted(allowed, key=rank)[:count])


def host_class() -> str:
    """Name the class of this machine."""
    guest = "hypervisor" in (_cpuinfo("flags") or "").split()
    kind = "virtual machine" if guest else "bare metal"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        kind = f"container on a {kind}" if guest else "container"
    return f"{kind}, {os.cpu_count()} cpus, {platform.machine()}"


def caches() -> dict[str, str]:
    """Return each cache that cpu 0 sees: its size, and how many cpus share one."""
    found = {}
    for index in sorted((CPUS / "cpu0/cache").glob("index*")):
        kind = {"Data": "d", "Instruction": "i"}.get(_read(index / "type"), "")
        sharers = len(_cpu_list(_read(index / "shared_cpu_list")))
        size = _read(index / "size")
        found[f"L{_read(index / 'level')}{kind}"] = f"{size} for {sharers} cpu(s)"
    return found


def git_commit() -> tuple[str | None, bool | None]:
    """Return the commit of the sources and whether they differ from it."""
    if not (ROOT / ".git").exists():
        return None, None
    commit = _git("rev-parse", "--verify", "--quiet", "--short=12", "HEAD")
    if not commit:
        return None, None
    return commit, bool(_git("status", "--porcelain"))


def _git(*arguments: str) -> str:
    # no optional locks: a benchmark must not write into the index
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _cpuinfo(key: str) -> str | None:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _cpu_list(text: str) -> set[int]:
    """Read a list as Linux writes it: `0-3,8`."""
    cpus: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 1) if isinstance(value, float) else value
