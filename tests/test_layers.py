"""Who may import whom: DESIGN.md section 7, read from the imports of every source file.

An import counts wherever it stands: at the top, within a function, under TYPE_CHECKING, relative,
or through `import_module("...")` with a literal name. The rules are one table, longest prefix
first; the tests below it plant violations, because a checker that finds nothing proves nothing.
"""

from __future__ import annotations

import ast
import fnmatch
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hftcore", "ipc", "affinity", "perf", "tests")
TOP_LEVEL = {*PACKAGES, "hosts.yaml", "pyproject.toml", "README.md"}
NOT_YET = {"hosts.yaml"}
"""Names of the design that may still be missing."""

VOCABULARY = ("hftcore.messages", "hftcore.limits", "hftcore.errors", "hftcore.instruments")
SEEN = "hftcore.reports"
"""What people see of events; the wiring hands it out, nothing inside uses it."""
ARGUMENTS = "hftcore.arguments"
"""What people pass in, checked; the wiring asks it, nothing inside uses it."""
PURE = (*VOCABULARY, "hftcore.matching", "hftcore.accounts")
OPEN_TO_ALL = ("ipc.kernel", "ipc.intrinsics", "ipc.errors")
ORDERS = "hftcore.orders"
"""The calls that make commands of arguments, shared by the exchange and the on-host client."""
CLIENT = ("hftcore.client", "hftcore.session")
"""The on-host client: it attaches to what `ops` laid out, and calls the role's kernels."""
PLAY = "hftcore.play"
"""The compiled loop of the exchange, in a file of its own: it wires as the exchange does."""
PARTS = ("engine", "marketdata", "gateways", "history", "analytics", "ops", "exchange")
WIRED = (*(f"hftcore.{part}" for part in PARTS), SEEN, ARGUMENTS, ORDERS, *CLIENT, PLAY)

MACHINE = ("numpy", "numba", "llvmlite", "psutil", "posix_ipc")
CORE = (*MACHINE, "msgspec", "zmq", "yaml")
ROLES = tuple(
    f"hftcore.engine.{role}"
    for role in ("client", "sequencer", "matcher", "journal", "reporter", "archivist", "replay")
)


@dataclass(frozen=True)
class Layer:
    """What the modules under one prefix may import, besides the standard library."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]


LAYERS = {
    "ipc": Layer(("ipc",), MACHINE),
    "affinity": Layer(("affinity", *OPEN_TO_ALL), MACHINE),
    # the vocabulary and the pure kernels
    **{name: Layer((*VOCABULARY, *OPEN_TO_ALL), ("numpy",)) for name in VOCABULARY},
    "hftcore.matching": Layer(("hftcore.matching", *VOCABULARY, *OPEN_TO_ALL), ("numpy",)),
    "hftcore.accounts": Layer(("hftcore.accounts", *VOCABULARY, *OPEN_TO_ALL), ("numpy",)),
    # roles and projections: pure kernels and rings, never each other
    "hftcore.engine": Layer((*PURE, "hftcore.engine", "ipc", "affinity"), CORE),
    "hftcore.marketdata": Layer((*PURE, "hftcore.marketdata", "ipc", "affinity"), CORE),
    "hftcore.gateways": Layer((*PURE, "hftcore.gateways", "ipc", "affinity"), CORE),
    "hftcore.history": Layer((*PURE, "hftcore.history", "ipc", "affinity"), CORE),
    "hftcore.analytics": Layer((*PURE, "hftcore.analytics", "ipc", "affinity"), CORE),
    # wiring
    ARGUMENTS: Layer((*VOCABULARY, *OPEN_TO_ALL), ()),
    SEEN: Layer((*VOCABULARY, *OPEN_TO_ALL), ("numpy",)),
    **{
        name: Layer((*PURE, *WIRED, "hftcore.engine", "hftcore.ops", "ipc"), CORE)
        for name in CLIENT
    },
    ORDERS: Layer((*VOCABULARY, SEEN, ARGUMENTS, *OPEN_TO_ALL), ("numpy",)),
    PLAY: Layer((*PURE, "hftcore.engine", "ipc"), ("numpy",)),
    "hftcore.exchange": Layer((*PURE, *WIRED, "hftcore", "ipc", "affinity"), CORE),
    "hftcore.ops": Layer((*PURE, *WIRED, "hftcore", "ipc", "affinity"), (*CORE, "rich")),
    "hftcore.cli": Layer(
        (*PURE, *WIRED, "hftcore", "ipc", "affinity", "perf"), (*CORE, "rich", "typer")
    ),
    "hftcore.__main__": Layer(("hftcore.cli",), ()),
    "hftcore": Layer(
        ("hftcore.exchange", "hftcore.client", "hftcore.instruments", "ipc.errors"), ()
    ),
    "perf": Layer((*PURE, *WIRED, "hftcore", "perf", "ipc", "affinity"), (*CORE, "rich")),
}
NEVER = {
    "hftcore.exchange": ("hftcore.ops", *CLIENT),
    "hftcore.client": ("hftcore.exchange",),
    "hftcore.session": ("hftcore.exchange",),
}
"""Taken away again from what a layer is given."""


@dataclass(frozen=True)
class Import:
    """One module that one source file asks for."""

    importer: str
    imported: str
    where: str


def module_name(path: Path, root: Path) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str, root: Path) -> bool:
    """Return whether the tree has this module or package."""
    path = root.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def imports_of(path: Path, root: Path) -> list[Import]:
    """Read every import of a source file; `from p import m` is p.m when that is a module."""
    importer = module_name(path, root)
    package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
    found = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                names.append(full if is_module(full, root) else base)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            named = node.args[0]
            if called in ("import_module", "__import__") and isinstance(named, ast.Constant):
                names = [str(named.value)]
        where = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
        found += [Import(importer, name, where) for name in names]
    return found


def is_within(name: str, prefix: str) -> bool:
    """Return whether a dotted name is the prefix or lies below it."""
    return name == prefix or name.startswith(prefix + ".")


def may_import(importer: str, imported: str) -> bool:
    """Apply the table to one import of one module."""
    top = imported.partition(".")[0]
    home = max((prefix for prefix in LAYERS if is_within(importer, prefix)), key=len)
    layer = LAYERS[home]
    if top not in PACKAGES:
        return top in sys.stdlib_module_names or top in layer.theirs
    if any(is_within(imported, prefix) for prefix in NEVER.get(home, ())):
        return False
    if imported == "hftcore":  # what it offers is the exchange and the instruments
        return "hftcore" in layer.ours
    if home == "hftcore.engine" and any(is_within(imported, role) for role in ROLES):
        return any(is_within(importer, role) and is_within(imported, role) for role in ROLES)
    return any(prefix != "hftcore" and is_within(imported, prefix) for prefix in layer.ours)


def violations(root: Path) -> list[str]:
    """Return every import of the tree that its layer does not allow."""
    return [
        f"{found.where}: {found.importer} may not import {found.imported}"
        for package in PACKAGES
        if package != "tests"
        for path in sorted((root / package).rglob("*.py"))
        for found in imports_of(path, root)
        if not may_import(found.importer, found.imported)
    ]


def strangers(root: Path) -> list[str]:
    """Return names at the top of the tree that are not the design's, and those it lacks."""
    ignored = (root / ".gitignore").read_text().split()
    here = {
        path.name
        for path in root.iterdir()
        if not path.name.startswith(".")
        and not any(fnmatch.fnmatch(path.name, pattern.rstrip("/")) for pattern in ignored)
    }
    return sorted((here - TOP_LEVEL) | (TOP_LEVEL - here - NOT_YET))


def plant(root: Path, module: str, source: str) -> None:
    """Write one module into a tree of packages."""
    path = root.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)


def test_imports_of_every_source_file_keep_the_layers() -> None:
    assert violations(ROOT) == []


def test_every_module_of_the_engine_is_a_role() -> None:
    modules = {
        module_name(path, ROOT)
        for path in (ROOT / "hftcore" / "engine").glob("*.py")
        if path.name != "__init__.py"
    }
    assert modules <= set(ROLES)


def test_top_level_of_the_repository_holds_exactly_the_names_of_the_design() -> None:
    assert strangers(ROOT) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ipc.ring", "import hftcore.messages"),
        ("ipc.ring", "def f():\n    from affinity import cpus"),
        ("ipc.ring", "import zmq"),
        ("affinity.cpus", "from ipc.ring import Ring"),
        ("affinity.cpus", "from ipc import ring"),
        ("hftcore.messages", "from hftcore.matching import book"),
        ("hftcore.matching.book", "from ipc.ring import Ring"),
        ("hftcore.matching.book", "from ..accounts import ledger"),
        ("hftcore.matching.book", "import numba"),
        ("hftcore.matching.book", "from hftcore import Exchange"),
        ("hftcore.accounts.ledger", "from hftcore.engine import sequencer"),
        ("hftcore.engine.matcher", "from hftcore.engine.journal import Journal"),
        ("hftcore.engine.matcher", "from . import journal"),
        ("hftcore.engine.matcher", "from hftcore.engine.client import send"),
        ("hftcore.engine.agent", "from hftcore.engine import matcher"),
        ("hftcore.engine.matcher", "if TYPE_CHECKING:\n    from hftcore.ops import replay"),
        ("hftcore.engine.matcher", "from importlib import import_module\nimport_module('perf')"),
        ("hftcore.marketdata.depth", "import hftcore.engine.matcher"),
        ("hftcore.marketdata.depth", "from hftcore.exchange import Exchange"),
        ("hftcore.engine.matcher", "from hftcore.reports import Report"),
        ("hftcore.engine.matcher", "from hftcore.play import run"),
        ("hftcore.play", "from hftcore.exchange import Exchange"),
        ("hftcore.exchange", "from hftcore.ops import replay"),
        ("hftcore.exchange", "import perf"),
        ("hftcore.ops.warm", "from perf import bench"),
        ("hftcore.ops.warm", "from hftcore import cli"),
        ("hftcore.ops.warm", "import tests.reference"),
        ("hftcore.cli", "from tests.reference import book"),
        ("hftcore.ops.warm", "import sqlalchemy"),
        ("perf.bench", "from hftcore.cli import main"),
    ],
)
def test_a_planted_violation_is_named_with_its_line(
    tmp_path: Path, module: str, source: str
) -> None:
    for neighbour in (
        "engine/journal",
        "engine/client",
        "engine/matcher",
        "ops/replay",
        "accounts/ledger",
        "cli",
    ):
        plant(tmp_path, f"hftcore.{neighbour.replace('/', '.')}", "")
    plant(tmp_path, "ipc.ring", "")
    plant(tmp_path, "affinity.cpus", "")
    plant(tmp_path, module, source)
    found = violations(tmp_path)
    assert len(found) == 1, found
    assert found[0].startswith(module.replace(".", "/") + ".py:")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ipc.ring", "import os\nimport numpy as np\nfrom ipc.kernel import kernel"),
        ("affinity.cpus", "import psutil\nfrom ipc.errors import Refused"),
        ("hftcore.matching.book", "from hftcore.limits import MAX_QTY\nfrom ipc import kernel"),
        ("hftcore.engine.matcher", "from hftcore.matching import book\nfrom ipc import ring"),
        ("hftcore.engine.matcher", "from hftcore.engine import agent"),
        ("hftcore.exchange", "from hftcore.engine import matcher, sequencer"),
        ("hftcore.ops.replay", "from hftcore import Exchange\nimport rich"),
        ("hftcore.cli", "from perf import bench\nimport typer\nfrom hftcore.ops import replay"),
        ("perf.bench", "from hftcore.exchange import Exchange"),
    ],
)
def test_an_import_that_the_design_allows_is_not_named(
    tmp_path: Path, module: str, source: str
) -> None:
    plant(tmp_path, "ipc.kernel", "")
    plant(tmp_path, "hftcore.engine.agent", "")
    plant(tmp_path, module, source)
    assert violations(tmp_path) == []


def test_a_stranger_and_a_missing_name_at_the_top_level_are_named(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("build/\n*.egg-info/\n")
    for name in TOP_LEVEL - {"README.md"}:
        (tmp_path / name).mkdir()
    for name in ("build", "hftcore.egg-info", ".ci", "scripts"):
        (tmp_path / name).mkdir()
    assert strangers(tmp_path) == ["README.md", "scripts"]
