"""The decorator and its cache: an edit anywhere shows, and nobody else's pickles are loaded."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import numba
import pytest

from ipc.errors import KernelCacheRefused
from ipc.kernel import claim_cache_directory, source_hash
from tests.processes import ROOT, run_python

ANSWER = "from hftcore.answer import answer; import numpy; print(answer(numpy.zeros(4), 9))"
DIRECTORY = "import ipc.kernel; print(ipc.kernel.CACHE_DIRECTORY)"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Copy the decorator into a tree with one kernel, a constant and an inlined piece."""
    root = tmp_path / "tree"
    for name in ("__init__", "errors", "kernel"):
        (root / "ipc").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "ipc" / f"{name}.py", root / "ipc")
    (root / "hftcore").mkdir()
    (root / "hftcore" / "__init__.py").write_text("")
    (root / "hftcore" / "constant.py").write_text("BASE = 90\n")
    (root / "hftcore" / "piece.py").write_text(
        "from ipc.kernel import kernel\n@kernel(inline=True)\ndef piece(x):\n    return x + 1\n"
    )
    (root / "hftcore" / "answer.py").write_text(
        "from hftcore.constant import BASE\nfrom hftcore.piece import piece\n"
        "from ipc.kernel import kernel\n"
        "@kernel\ndef answer(array, index):\n    array[index & 3] = 1\n    return BASE + piece(0)\n"
    )
    return root


def answer_in(tree: Path, code: str = ANSWER, **environment: str) -> str:
    """Run the tree's kernel in a fresh interpreter."""
    finished = run_python(code, tree, HFT_CACHE_DIR=str(tree.parent / "cache"), **environment)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def compiled_files(tree: Path) -> dict[str, int]:
    """Return what the cache holds and when it was written."""
    return {
        str(path): path.stat().st_mtime_ns for path in (tree.parent / "cache").rglob("*.nb[ic]")
    }


def test_cached_kernel_after_an_edit_of_what_it_imports_answers_anew(tree: Path) -> None:
    assert answer_in(tree) == "91"
    warm = compiled_files(tree)
    assert warm
    assert answer_in(tree) == "91"
    assert compiled_files(tree) == warm, "an unchanged tree compiled again"
    (tree / "hftcore" / "constant.py").write_text("BASE = 908\n")
    assert answer_in(tree) == "909"
    piece = tree / "hftcore" / "piece.py"
    piece.write_text(piece.read_text().replace("x + 1", "x + 2"))
    assert answer_in(tree) == "910"


def test_bounds_checks_have_their_own_cache_and_work_on_a_warm_tree(tree: Path) -> None:
    answer = tree / "hftcore" / "answer.py"
    answer.write_text(answer.read_text().replace("index & 3", "index"))
    assert answer_in(tree, ANSWER.replace("9)", "1)")) == "91"
    plain = answer_in(tree, DIRECTORY)
    checked = answer_in(tree, DIRECTORY, NUMBA_BOUNDSCHECK="1")
    assert plain != checked
    refused = run_python(
        ANSWER, tree, HFT_CACHE_DIR=str(tree.parent / "cache"), NUMBA_BOUNDSCHECK="1"
    )
    assert "IndexError" in refused.stderr


def test_kernel_with_the_jit_off_is_the_plain_function(tree: Path) -> None:
    code = "from hftcore.answer import answer; print(type(answer).__name__, answer([0] * 4, 2))"
    assert answer_in(tree, code, NUMBA_DISABLE_JIT="1") == "function 91"
    assert compiled_files(tree) == {}


@pytest.mark.parametrize(("flags", "variable"), [(("-O",), {}), ((), {"PYTHONOPTIMIZE": "1"})])
@pytest.mark.parametrize("module", ["ipc.kernel", "ipc.region", "hftcore.messages", "affinity.pin"])
def test_python_without_assertions_is_refused(
    module: str, flags: tuple[str, ...], variable: dict[str, str]
) -> None:
    refused = run_python(f"import {module}", ROOT, flags, **variable)
    assert refused.returncode == 1
    assert refused.stderr.startswith("hft: hftcore does not run under python -O\n  expected: ")
    assert "  remedy:   start without -O and unset PYTHONOPTIMIZE" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_refusal_of_python_without_assertions_can_be_caught_as_any_other() -> None:
    code = "try:\n    import ipc\nexcept Exception as error:\n    print(error.expected)"
    assert run_python(code, ROOT, ("-O",)).stdout.startswith("assertions on: ")


def test_cache_directory_is_made_closed_to_others(tmp_path: Path) -> None:
    path = claim_cache_directory(tmp_path / "new", "abc")
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert claim_cache_directory(tmp_path / "new", "abc") == path


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_cache_directory_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "base" / "abc").mkdir(parents=True)
    (tmp_path / "base").chmod(0o700)
    (tmp_path / "base" / "abc").chmod(mode)
    with pytest.raises(KernelCacheRefused) as refused:
        claim_cache_directory(tmp_path / "base", "abc")
    path = tmp_path / "base" / "abc"
    assert str(refused.value) == (
        "the directory of compiled kernels can't be trusted; "
        f"expected: a directory of user {os.geteuid()} that no one else may write; "
        f"found: {stat.filemode(stat.S_IFDIR | mode)}, owner {os.geteuid()}; where: {path}; "
        f"remedy: chmod 700 {path}, or set HFT_CACHE_DIR to a directory of your own"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_cache_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir(mode=0o700)
    os.chown(tmp_path / "base", 12345, 12345)
    with pytest.raises(KernelCacheRefused, match="owner 12345"):
        claim_cache_directory(tmp_path / "base", "abc")


def test_cache_directory_that_others_may_replace_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "above"
    (above / "mine").mkdir(parents=True)
    above.chmod(0o777)
    with pytest.raises(KernelCacheRefused, match=f"replaced by others.*where: {above}; remedy:"):
        claim_cache_directory(above / "mine" / "base", "abc")
    above.chmod(0o1777)  # sticky: others can't rename what is ours
    claim_cache_directory(above / "mine" / "base", "abc")


def test_cache_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "base").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KernelCacheRefused, match="can't be trusted"):
        claim_cache_directory(tmp_path / "base", "abc")


def test_cache_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KernelCacheRefused, match="remedy: set HFT_CACHE_DIR"):
        claim_cache_directory(tmp_path / "file", "abc")


@pytest.mark.parametrize("flag", ["LOOP_VECTORIZE", "SLP_VECTORIZE", "ENABLE_AVX", "OPT"])
def test_source_hash_follows_the_flags_that_change_the_code(
    tree: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    before = source_hash(tree)
    monkeypatch.setattr(numba.config, flag, "another", raising=False)
    assert source_hash(tree) != before


def test_source_hash_follows_names_and_contents(tree: Path) -> None:
    first = source_hash(tree)
    assert first == source_hash(tree)
    path = tree / "hftcore" / "constant.py"
    path.rename(path.with_name("renamed.py"))
    renamed = source_hash(tree)
    (tree / "hftcore" / "renamed.py").write_text("BASE = 91\n")
    assert len({first, renamed, source_hash(tree)}) == 3
