"""Who may import whom, and what an import costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import procession

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "src"
OUTSIDE = [
    *sorted(ROOT.glob("backends/*")),
    *sorted(ROOT.glob("transports/*")),
    *sorted(ROOT.glob("plugins/*")),
    *sorted(ROOT.glob("serializers/*")),
    *sorted(path.parent for path in ROOT.glob("examples/*/pyproject.toml")),
]
HEAVY = {"attr", "attrs", "importlib.metadata", "multiprocessing", "pluggy", "socket", "subprocess"}


def _sources(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def _imported(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted name of everything *tree* imports absolutely, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_private(dotted: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in dotted.split("."))


def test_core_never_imports_a_plugin() -> None:
    """Core finds plugins by entry point; an import would make one of them special."""
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in _sources(CORE)
        for name in _imported(tree)
        if name.startswith("procession_")
    ]
    assert found == []


@pytest.mark.parametrize("folder", OUTSIDE, ids=lambda path: path.name)
def test_a_plugin_uses_public_names_only(folder: Path) -> None:
    """What our plugins may not use, nobody else's plugin needs."""
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in _sources(folder)
        for name in _imported(tree)
        if name.split(".")[0] == "procession" and _is_private(name)
    ]
    assert found == []


@pytest.mark.parametrize("folder", OUTSIDE, ids=lambda path: path.name)
def test_a_plugin_does_not_reach_into_another(folder: Path) -> None:
    """A plugin may build on another's class, never on its private modules."""
    own = {path.name for path in (folder / "src").iterdir()}
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in _sources(folder)
        for name in _imported(tree)
        if name.startswith("procession_") and name.split(".")[0] not in own and _is_private(name)
    ]
    assert found == []


def _loaded_by(code: str) -> set[str]:
    """Return the modules that *code* adds to a fresh interpreter's."""
    program = (
        "import sys; before = set(sys.modules)\n"
        f"{code}\n"
        "names = sorted(set(sys.modules) - before)\n"
        "import json; print(json.dumps(names))\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30
    ).stdout
    return set(json.loads(output))


@pytest.mark.parametrize("module", ["procession", "procession.plugin", "procession.errors"])
def test_the_front_doors_are_cheap(module: str) -> None:
    """Most programs import much that they do not use; these doors cost them nothing."""
    assert _loaded_by(f"import {module}") & HEAVY == set()


#: What no program needs for its first processes and queues, and what made them slow.
DEAR = HEAVY | {"dataclasses", "enum", "functools", "inspect", "pickle", "re", "typing"}
# In a forked child it copies 120 pages. The classes of errors derive from queue's in 3.13, which
# brings it.
THREADS = {"threading", "queue"}


@pytest.mark.parametrize(
    ("job", "unwanted"),
    [
        ("process = context.Process(target=print, daemon=True); process.start()", DEAR | THREADS),
        (
            "queue = context.Queue(); queue.put(1); assert queue.get() == 1",
            DEAR | THREADS if sys.version_info < (3, 13) else DEAR - {"enum", "functools", "re"},
        ),
        (
            "pool = context.Pool(); assert pool.apply(abs, (-1,)) == 1; pool.terminate()",
            DEAR | THREADS | {"pathlib", "tempfile"},
        ),
    ],
    ids=["process", "queue", "pool"],
)
def test_the_first_job_loads_what_it_needs(job: str, unwanted: set[str]) -> None:
    """It is as quick as the standard library's, and a small process is a cheap one to fork."""
    if "fork" not in procession.get_all_start_methods():
        pytest.skip("fork is not installed")
    if "pipe" not in procession.get_all_transports():
        pytest.skip("pipe is not installed")
    code = f"import procession; context = procession.get_context('fork', transport='pipe'); {job}"
    assert _loaded_by(code) & unwanted == set()


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the errors bring queue, and that enum")
def test_a_pool_over_sockets_loads_no_socket_module() -> None:
    """`socket` and what it needs would be a third of the time until the first result."""
    if "fork" not in procession.get_all_start_methods():
        pytest.skip("fork is not installed")
    if "socketpair" not in procession.get_all_transports():
        pytest.skip("socketpair is not installed")
    code = (
        "import procession; context = procession.get_context('fork', transport='socketpair'); "
        "pool = context.Pool(); assert pool.apply(abs, (-1,)) == 1; pool.terminate()"
    )
    assert _loaded_by(code) & (DEAR | THREADS | {"selectors", "socket"}) == set()


def test_looking_at_the_names_loads_nothing() -> None:
    """`dir()` is what completion in a shell calls."""
    assert _loaded_by("import procession; dir(procession); procession.__all__") & HEAVY == set()


@pytest.mark.parametrize("folder", OUTSIDE, ids=lambda path: path.name)
def test_a_plugin_s_package_is_cheap(folder: Path) -> None:
    """A child that attaches a channel imports the package around it."""
    package = next((folder / "src").iterdir())
    code = f"sys.path.insert(0, {str(package.parent)!r}); import {package.name}"
    assert {name for name in _loaded_by(code) if not name.startswith(package.name)} & HEAVY == set()
