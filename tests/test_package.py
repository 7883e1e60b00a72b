"""The package as a user installs it: its surface, its files, what it imports."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import penstock

ROOT = Path(penstock.__file__).parent
FLOORS = ("engine", "object_stores", "shm", "preprocess", "sinks", "bench", "testing")
GROUND = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
"""The modules beside the floors; which there are says `test_floors`."""


def sources() -> list[Path]:
    return [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]


def imports(path: Path) -> list[str]:
    """Absolute names of what a module imports from penstock, relative imports resolved."""
    found: list[str] = []
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = ".".join((*base, *([node.module] if node.module else [])))
            found += [module] if module else [alias.name for alias in node.names]  # as in ``from .. import errors``
        elif isinstance(node, ast.ImportFrom):
            found.append(f"absolute:{node.module}")
        elif isinstance(node, ast.Import):
            found.extend(f"absolute:{alias.name}" for alias in node.names)
    return found


def test_the_public_surface_is_what_it_says() -> None:
    """``__all__`` is sorted, complete, and each name is there."""
    assert list(penstock.__all__) == sorted(penstock.__all__)
    for name in penstock.__all__:
        assert getattr(penstock, name) is not None
    assert set(penstock.__all__) == {
        "ConfigError",
        "Fail",
        "ImageEmbeddingPipeline",
        "PenstockError",
        "PipelineBuilder",
        "PipelineFailure",
        "PreprocessSpec",
        "Report",
        "Retry",
        "ServiceConfig",
        "Skip",
        "StreamingMultiprocessPreprocessor",
        "WorkerPool",
        "__version__",
        "embed",
        "embed_images",
    }


def test_modules_import_one_another_relatively() -> None:
    """An absolute ``penstock.`` import would load a second copy in a checkout under another name."""
    wrong = [
        (str(path), name)
        for path in sources()
        for name in imports(path)
        if name.startswith(("absolute:penstock", *(f"absolute:{floor}." for floor in FLOORS)))
    ]
    assert not wrong


def check_imports(code: str, heavy: set[str], check: str = "True") -> None:
    """A process of its own that runs the code has imported none of these modules, and passes the check."""
    code = f"import sys; {code}; heavy = {heavy} & set(sys.modules); assert not heavy, heavy; assert {check}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_importing_penstock_is_light() -> None:
    """``import penstock`` starts no JAX, no Milvus client, no thread."""
    heavy = {"jax", "pymilvus", "milvus_lite", "onnxruntime", "matplotlib", "torch"}
    check_imports("import threading, penstock", heavy, "threading.active_count() == 1")


def test_the_parts_of_a_volume_worker_are_there_without_jax() -> None:
    """Whoever makes tasks in one process and runs workers in another does not pay for both."""
    code = "import penstock.volumes as volumes; found = {name: getattr(volumes, name) for name in volumes.__all__}"
    check_imports(code, {"jax", "cv2", "scipy", "pymilvus", "obstore"}, "dir(volumes) == sorted(found)")


def test_workers_are_asked_for_before_anything_large_is_imported() -> None:
    """Their fork server imports JAX for half a second: what this process needs is imported beside it, not before."""
    code = "import penstock; penstock.StreamingMultiprocessPreprocessor(num_workers=1)"
    check_imports(code, {"numpy", "gevent", "pydantic", "PIL", "jax", "asyncio"})
    check_imports("import penstock.engine.jobs.images.inputs", {"pydantic"})  # nor does the first batch


def test_milvus_lite_is_started_before_anything_large_is_imported() -> None:
    """Its process imports for longer than anything else that a search waits for."""
    check_imports("import penstock.sinks.milvus.lite", {"numpy", "PIL", "pyarrow", "pymilvus", "gevent"})


def test_embedders_need_nothing_that_a_server_of_models_lacks() -> None:
    """A Triton server that is to serve GIST has JAX and NumPy."""
    check_imports("import penstock.engine.embedders.registry", {"PIL", "gevent", "onnxruntime", "pymilvus", "jax"})


@pytest.mark.slow
def test_the_wheel_holds_every_module(tmp_path: Path) -> None:
    """The explicit list of packages forgets nothing, and ships nothing else."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    # From a copy: setuptools leaves a folder "build" beside the sources, which mypy then takes for sources.
    for name in (name for name in listed if (ROOT / name).is_file()):
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "-w",
            str(tmp_path),
            str(tmp_path / "copy"),
        ],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith((".py", ".html", "py.typed"))}
    expected = {
        f"penstock/{name}"
        for name in listed
        if name in {"__init__.py", "__main__.py", "py.typed", *(f"{module}.py" for module in GROUND)}
        or (name.startswith(tuple(f"{floor}/" for floor in FLOORS)) and name.endswith((".py", ".html")))
    }
    assert shipped == expected
