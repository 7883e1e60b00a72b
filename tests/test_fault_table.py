"""The page of faults: each test that it names exists, each fault has one, and enough of them really kill."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.tests.waiting import DEADLINE

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "faults.md"

FAULTS = [
    *(f"R{number}" for number in (*range(1, 9), *range(13, 18), 20)),
    *(f"P{number}" for number in range(1, 10)),
    *(f"O{number}" for number in range(1, 10)),
    *(f"V{number}" for number in range(1, 13)),
    *("S2", "S4", "S5", "S6"),
    *(f"T{number}" for number in range(1, 9)),
    *(f"D{number}" for number in range(1, 17)),
]


def rows() -> list[tuple[str, list[str]]]:
    """The faults of the page and the tests behind them, a row each."""
    found: list[tuple[str, list[str]]] = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if re.fullmatch(r"[RPOSDVT]\d+", cells[0].removeprefix("| ").strip("| ")):
            assert len(cells) == 4, line
            found.append((cells[0].strip("| "), re.findall(r"`(\w+\.py::\w+)`", cells[-1])))
    return found


def defined(path: Path) -> set[str]:
    """Names at the top of a test file."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names


def test_every_fault_has_a_row_and_every_row_its_tests() -> None:
    """None is promised without being shown."""
    found = rows()
    assert {fault for fault, _ in found} == set(FAULTS)
    assert [fault for fault, tests in found if not tests] == []


def test_every_test_that_is_named_exists() -> None:
    """So that a renamed test does not leave the page behind."""
    named = sorted({test for _, tests in rows() for test in tests})
    files = {test.partition("::")[0] for test in named}
    there = {f"{file}::{name}" for file in files if (TESTS / file).is_file() for name in defined(TESTS / file)}
    assert [test for test in named if test not in there] == []


def killing(path: Path) -> list[str]:
    """The tests of a file that are marked as killing, by themselves or by their file."""
    body = ast.parse(path.read_text()).body
    whole = any(
        isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node) and "mark.kills" in ast.unparse(node)
        for node in body
    )
    tests = [node for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return [node.name for node in tests if whole or "pytest.mark.kills" in map(ast.unparse, node.decorator_list)]


def test_at_least_fifty_tests_kill() -> None:
    """Without counting their cases."""
    assert sum(len(killing(path)) for path in TESTS.glob("test_*.py")) >= 50


HANGS = """
import threading

def test_that_hangs():
    threading.Event().wait()
"""


@pytest.mark.slow
def test_a_test_that_hangs_ends_the_run(tmp_path: Path) -> None:
    """With the stacks of all threads; the project's settings do so after five minutes, here after a second."""
    (tmp_path / "test_hangs.py").write_text(HANGS)
    settings = (TESTS.parent / "pyproject.toml").read_text()
    assert "faulthandler_timeout = 300\n" in settings
    (tmp_path / "pyproject.toml").write_text(
        settings.replace("faulthandler_timeout = 300\n", "faulthandler_timeout = 1\n")
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", "test_hangs.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    assert "Timeout (0:00:01)!" in done.stderr + done.stdout
    assert "in test_that_hangs" in done.stderr + done.stdout
