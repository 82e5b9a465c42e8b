"""The README is true: its example prints what it shows, and what it names exists."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

from hftcore import cli

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_the_example_prints_what_the_readme_shows() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert blocks
    for block in blocks:
        example = doctest.DocTestParser().get_doctest(block, {}, "README.md", "README.md", 0)
        assert example.examples
        said: list[str] = []
        doctest.DocTestRunner().run(example, out=said.append)
        assert said == [], "".join(said)


def test_every_file_that_the_readme_links_exists() -> None:
    linked = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", TEXT)
    assert len(linked) >= 7
    assert [path for path in linked if not (ROOT / path).is_file()] == []


def test_every_command_that_the_readme_names_exists() -> None:
    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands
             if command.callback}  # fmt: skip
    named = set(re.findall(r"(?:`|, |/)hft (\w+)", TEXT))
    assert named
    assert named <= known, named - known
