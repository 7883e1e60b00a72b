"""Every folder says what is in it: a README that names each module, at most a page long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import penstock

ROOT = Path(penstock.__file__).parent
FLOORS = ("engine", "object_stores", "shm", "preprocess", "sinks", "bench", "testing")
MODULES = [path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")]
FOLDERS = sorted({path.parent for path in MODULES if path.parent.name != "models"})
"""But those of models for Triton, which the folder above names."""

NAMES = {path.name for path in (*MODULES, *ROOT.glob("*.py"))}
PAGE = 130
"""Lines."""


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_folder_has_a_readme_that_names_what_is_in_it(folder: Path) -> None:
    """Its modules, and its folders."""
    text = (folder / "README.md").read_text()
    named = set(re.findall(r"[\w./-]+", text))
    there = {path.name for path in folder.glob("*.py") if not path.name.startswith("__")}
    there |= {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    assert sorted(there - named) == []
    assert sorted(name for name in named if re.fullmatch(r"\w+\.py", name) and name not in NAMES) == []
    assert text.count("\n") <= PAGE
