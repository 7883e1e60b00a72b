"""What no module of the package may contain: S1, S2, S7, S9, S10 and the rules of living in somebody else's process.

Read as syntax trees, so that a comment or a message may speak of what the code must not do. Each rule is shown to catch
what it is for.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOT_THE_PACKAGE = {"tests", "build", "dist", "examples", "docs"}
LOOPBACK = {"127.0.0.1", "::1", "localhost"}

UNPICKLERS = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
PICKLER = "engine/workers/pickle_codec.py"
"""The one place: between a parent and the children it has forked, over a socket nobody else has."""

FORBIDDEN_MODULES = {
    **dict.fromkeys(UNPICKLERS, "S1: unpickling runs code"),
    "multiprocessing.shared_memory": "any stranger that attaches and exits destroys the segment",
    "tarfile.TarFile": "S2",
    "pty": "S9",
}
FORBIDDEN_CALLS = {
    "eval": "S9",
    "exec": "S9",
    "compile": "S9",
    "os.system": "S9",
    "os.popen": "S9",
    "os.startfile": "S9",
    "subprocess.getoutput": "S9",
    "subprocess.getstatusoutput": "S9",
    "asyncio.create_subprocess_shell": "S9",
    "yaml.load": "S7",
    "yaml.load_all": "S7",
    "yaml.full_load": "S7",
    "yaml.unsafe_load": "S7",
    "yaml.Loader": "S7",
    "yaml.UnsafeLoader": "S7",
    "yaml.FullLoader": "S7",
    "gevent.monkey.patch_all": "patches the host",
}
FORBIDDEN_METHODS = {
    "extractall": "S2: members may leave the folder",
    "extract": "S2: members may leave the folder",
    "unpack_archive": "S2: members may leave the folder",
    "init_gevent": "global to the host's process",
    "async_infer": "sleeps 10 ms a call",
    "load_compat": "S1",
}
STARTERS = {"run", "Popen", "call", "check_call", "check_output"}


def modules() -> list[Path]:
    """Every module of the package."""
    found = [path.relative_to(ROOT) for path in ROOT.rglob("*.py")]
    return sorted(path for path in found if path.parts[0] not in NOT_THE_PACKAGE and not path.parts[0].startswith("."))


def violations(source: str, name: str = "some/module.py") -> list[str]:
    """What in a module breaks a rule, each with its line."""
    tree = ast.parse(source)
    names = _imported_names(tree)
    functions = [tree, *(node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))]
    built = {id(call): names for function in functions for call, names in _built_texts(function)}
    found: list[str] = []
    for node in ast.walk(tree):
        said = [*_imports(node, name), *_calls(node, built.get(id(node), set()), names)]
        found += [f"{name}:{getattr(node, 'lineno', 0)}: {words}" for words in said]
    return found


def _imported_names(tree: ast.AST) -> dict[str, str]:
    """What the names mean that a module imports: ``run`` may be ``subprocess.run``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _full_name(node: ast.expr, names: dict[str, str]) -> str:
    head, dot, rest = ast.unparse(node).partition(".")
    return names.get(head, head) + dot + rest


def _imports(node: ast.AST, name: str) -> Iterator[str]:
    imported: list[str] = []
    if isinstance(node, ast.Import):
        imported = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        imported = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    for module in imported:
        if module.split(".")[0] in UNPICKLERS and name == PICKLER:
            continue
        for forbidden, why in FORBIDDEN_MODULES.items():
            if module == forbidden or module.startswith(forbidden + "."):
                yield f"import of {module} ({why})"
        if module in FORBIDDEN_CALLS:
            yield f"import of {module} ({FORBIDDEN_CALLS[module]})"


def _calls(node: ast.AST, built: set[str], names: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Attribute) and (name := _full_name(node, names)) in FORBIDDEN_CALLS and "yaml." in name:
        yield f"{name} (S7: only safe_load)"
    if not isinstance(node, ast.Call):
        return
    called = _full_name(node.func, names)
    method = called.rpartition(".")[2]
    if called in FORBIDDEN_CALLS:
        yield f"{called}() ({FORBIDDEN_CALLS[called]})"
    if method in FORBIDDEN_METHODS and "." in called:
        yield f"{called}() ({FORBIDDEN_METHODS[method]})"
    if called.startswith(("gevent.monkey.patch", "monkey.patch")):
        yield f"{called}() (patches the host)"
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    if "allow_pickle" in given and not _is_false(given["allow_pickle"]):
        yield "allow_pickle (S1)"
    if "shell" in given and not _is_false(given["shell"]):
        yield "shell= (S9)"
    if called in {f"subprocess.{starter}" for starter in STARTERS} and node.args and _is_text(node.args[0]):
        yield f"{called}() of a string (S9)"
    yield from _filters(node, method, given, built)
    yield from _addresses(node, method)


def _filters(node: ast.Call, method: str, given: dict[str | None, ast.expr], built: set[str]) -> Iterator[str]:
    expressions = [given[name] for name in ("filter", "expr", "filter_expression") if name in given]
    if method in {"query", "delete", "query_iterator"}:
        expressions += node.args[1:2]
    for expression in expressions:
        if _is_built(expression) or (isinstance(expression, ast.Name) and expression.id in built):
            yield f"a filter put together from pieces: {ast.unparse(expression)} (S10: use filter_params)"


def _addresses(node: ast.Call, method: str) -> Iterator[str]:
    if method in {"bind", "create_server", "start_server"} or method.endswith(("HTTPServer", "TCPServer")):
        host = node.args[0].elts[0] if node.args and isinstance(node.args[0], ast.Tuple) else None
        if host is not None and not (isinstance(host, ast.Constant) and host.value in LOOPBACK):
            yield f"listens on {ast.unparse(host)} (S11: loopback only)"
    texts = [*node.args, *(keyword.value for keyword in node.keywords)]
    if any(isinstance(text, ast.Constant) and text.value in {"0.0.0.0", "::", "[::]"} for text in texts):
        yield "an address of every interface (S11: loopback only)"


def _built_texts(function: ast.AST) -> Iterator[tuple[ast.Call, set[str]]]:
    """Each call in a function, with the local names that hold text put together from pieces."""
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _is_built(node.value):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) and _is_built(node.value):
            names.add(node.target.id)
    yield from ((node, names) for node in ast.walk(function) if isinstance(node, ast.Call))


def _is_built(node: ast.expr) -> bool:
    """Text made of pieces: an f-string, ``%``, ``+``, ``.format`` or ``.join``; CONSTANTS in an f-string are ours."""
    if isinstance(node, ast.JoinedStr):
        pieces = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        return not all(isinstance(piece, ast.Name) and piece.id.isupper() for piece in pieces)
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, (ast.Mod, ast.Add)) and _holds_text(node)
    if isinstance(node, ast.IfExp):
        return _is_built(node.body) or _is_built(node.orelse)
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"format", "join", "format_map"}
    )


def _holds_text(node: ast.expr) -> bool:
    return any(
        isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and isinstance(part.value, str))
        for part in ast.walk(node)
    )


def _is_text(node: ast.expr) -> bool:
    return _is_built(node) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


@pytest.mark.parametrize("path", modules(), ids=str)
def test_a_module_keeps_the_rules(path: Path) -> None:
    """No unpickling, no shell, no code from text, no unsafe YAML, no filter from pieces, no archive unpacked, no
    monkey patching, no address but loopback."""
    assert violations((ROOT / path).read_text(), path.as_posix()) == []


def test_all_of_the_package_is_read() -> None:
    """Modules of every room are among those looked at, and the one that may pickle does."""
    names = {path.as_posix() for path in modules()}
    assert {
        "errors.py",
        "shm/frames.py",
        "preprocess/worker/worker.py",
        "sinks/milvus/sink.py",
        "engine/cli/commands.py",
        PICKLER,
    } <= names
    assert "import pickle" in (ROOT / PICKLER).read_text()
    assert violations((ROOT / PICKLER).read_text(), "elsewhere.py")


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import marshal, json",
        "from joblib import load",
        "import cloudpickle as cp",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "from multiprocessing import shared_memory",
        "import multiprocessing.shared_memory",
        "archive.extractall(folder)",
        "archive.extract(member, folder)",
        "shutil.unpack_archive(name)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.unsafe_load(text)",
        "yaml.compose(text, yaml.Loader)",
        "subprocess.run(command, shell=True)",
        "subprocess.run(f'ls {name}')",
        "subprocess.Popen('ls')",
        "os.system(name)",
        "os.popen(name)",
        "from os import system",
        "from os import popen as start\nstart(name)",
        "import os as o\no.system(name)",
        "from subprocess import run\nrun('ls')",
        "from subprocess import run as start\nstart(f'ls {name}')",
        "import subprocess as sp\nsp.Popen('ls')",
        "from subprocess import getoutput",
        "from yaml import load\nload(text)",
        "import yaml as y\ny.compose(text, y.Loader)",
        "from gevent import monkey as m\nm.patch_all()",
        "from gevent.monkey import patch_socket\npatch_socket()",
        "eval(text)",
        "exec(text)",
        "client.query(name, filter=f'id == {key}')",
        "client.query(name, 'id == ' + key)",
        "client.delete(name, filter='id == %s' % key)",
        "client.search(name, expr='id == {}'.format(key))",
        "def f(key):\n    text = f'id == \"{key}\"'\n    client.query(name, filter=text)",
        "def f(keys):\n    text = ' or '.join(keys)\n    client.delete(name, filter=text)",
        "gevent.monkey.patch_all()",
        "monkey.patch_socket()",
        "grpc.experimental.gevent.init_gevent()",
        "client.async_infer(model)",
        "sock.bind(('0.0.0.0', 80))",
        "sock.bind((host, 80))",
        "ThreadingHTTPServer(('', 80), Handler)",
        "serve(host='0.0.0.0')",
    ],
)
def test_each_rule_catches_what_it_is_for(source: str) -> None:
    """A line of each forbidden kind is found."""
    assert violations(source)


@pytest.mark.parametrize(
    "source",
    [
        "yaml.safe_load(text)",
        "yaml.compose(text, yaml.SafeLoader)",
        "subprocess.run([sys.executable, '-c', code], check=True)",
        "client.query(name, filter='')",
        "client.search(name, filter=filter, filter_params=params)",
        "client.query(name, filter='id in {keys}', filter_params={'keys': keys})",
        "client.query(name, filter=f'{KEY} != 1')",
        "signature.bind(None)",
        "sock.bind(('127.0.0.1', port))",
        "gevent.monkey.is_module_patched('threading')",
        "re.compile(pattern)",
        "from re import compile\ncompile(pattern)",
        "from subprocess import run\nrun(['ls'])",
        "from .places import run\nrun('preprocess')",
        "from yaml import safe_load\nsafe_load(text)",
        "np.load(path, allow_pickle=False)",
        "'never pickle, never eval(text), never shell=True'",
    ],
)
def test_what_is_allowed_is_not_caught(source: str) -> None:
    """The rules leave the right way of doing it alone."""
    assert violations(source) == []
