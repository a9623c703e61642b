"""A fresh interpreter gets its first modules, and the main script, from its parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import procession
from procession._processes import bundle as _bundle
from procession._processes import interpreter as _interpreter

pytestmark = pytest.mark.skipif(
    "spawn" not in procession.get_all_start_methods(), reason="spawn is not installed"
)

_DESCRIBE = """
import json
def describe(path):
    import importlib.util
    import sys
    seen = {}
    for name in {names}:
        module = sys.modules[name]
        told = [module.__name__, module.__file__, module.__cached__, module.__package__,
            getattr(module, "__path__", None), type(module.__loader__).__name__, module.__doc__]
        spec = module.__spec__
        told += [spec.name, spec.origin, spec.cached, spec.has_location,
            spec.submodule_search_locations, spec.loader is module.__loader__,
            spec.loader.get_filename()]
        package, _, last = name.rpartition(".")
        told.append(not package or getattr(sys.modules[package], last) is module)
        seen[name] = told
    with open(path, "w") as file:
        json.dump(seen, file)
"""


def _run(folder: Path, text: str, *args: str, env: dict[str, str] | None = None) -> str:
    """Run *text* as a script in *folder* and return what it prints, if it fails in nothing."""
    script = folder / "program.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, str(script), *args],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_the_list_is_what_a_child_imports() -> None:
    """What is missing from it is found slowly, and what is too much is unmarshalled in vain."""
    code = "import sys, procession.child; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {*done.stdout.split()}

    assert {*_bundle.MODULES} <= loaded
    ours = {name for name in _bundle.MODULES if name.startswith("procession")}
    assert ours == {name for name in loaded if name.startswith("procession")}


def test_modules_are_those_of_an_import(tmp_path: Path) -> None:
    """Who reloads one, looks for its source or its resources finds what an import leaves."""
    describe = _DESCRIBE.replace("{names}", repr(_bundle.MODULES))
    told, imported = tmp_path / "told", tmp_path / "imported"
    _run(
        tmp_path,
        f"{describe}\n"
        "if __name__ == '__main__':\n"
        "    import procession\n"
        f"    context = procession.get_context('spawn')\n"
        f"    process = context.Process(target=describe, args=({str(told)!r},))\n"
        "    process.start(); process.join(); assert process.exitcode == 0\n",
    )
    _run(
        tmp_path,
        f"{describe}\nimport {', '.join(_bundle.MODULES)}\ndescribe({str(imported)!r})\n",
    )

    assert json.loads(told.read_text()) == json.loads(imported.read_text())


@pytest.mark.parametrize("change", ["kind", "file"])
def test_an_interpreter_of_another_kind_looks_for_itself(change: str, tmp_path: Path) -> None:
    """Compiled code is for one version; and a method may send the data of a parcel alone."""
    path = tmp_path / "bundle"
    path.write_bytes(_bundle.bundle() if change == "kind" else b"")
    opening = _bundle.opening(0, 0)
    if change == "kind":
        opening = opening.replace(str(sys.hexversion), str(sys.hexversion + 1))
        assert str(sys.hexversion + 1) in opening
    code = f"import sys\n{opening}print('procession' in sys.modules)"
    with path.open("rb") as file:
        done = subprocess.run([sys.executable, "-c", code], stdin=file, capture_output=True)

    assert (done.stdout, done.stderr) == (b"False\n", b"")


def test_another_executable_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be another version, whose compiled code is another."""
    monkeypatch.setattr(_interpreter, "_executable", "/somewhere/else/python")

    assert (_bundle.bundle(), _bundle.opening(5, 0)) == (b"", "")


def test_a_limit_on_files_does_not_prevent_a_start(tmp_path: Path) -> None:
    """Where a parcel has room and the modules have not, the child looks for them itself."""
    output = _run(
        tmp_path,
        "import resource\n"
        "if __name__ == '__main__':\n"
        "    import procession\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (32768, resource.RLIM_INFINITY))\n"
        "    process = procession.get_context('spawn').Process(target=print, args=('here',))\n"
        "    process.start(); process.join(); print(process.exitcode)\n",
    )

    assert output == "here\n0\n"


_CHANGED = """
import pathlib, sys, threading
import procession

def tell():
    print("the old one" if __debug__ else "optimized")

def main():
    process = procession.get_context(sys.argv[1]).Process(target=tell)
    path = pathlib.Path(__file__)
    text = path.read_text()
    path.write_text(text.replace("the old" + " one", "the new one"))
    if sys.argv[2] == "thread":
        thread = threading.Thread(target=process.start)
        thread.start()
        thread.join()
    else:
        process.start()
    process.join()

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("where", ["here", "thread"])
def test_a_child_runs_the_script_that_its_parent_runs(tmp_path: Path, where: str) -> None:
    """Also when the file has changed meanwhile, and whichever thread starts the child."""
    assert _run(tmp_path, _CHANGED, "spawn", where) == "the old one\n"


def test_a_fork_server_runs_the_script_that_its_parent_runs(tmp_path: Path) -> None:
    """It may be started long after its parent."""
    if "forkserver" not in procession.get_all_start_methods():
        pytest.skip("forkserver is not installed")
    assert _run(tmp_path, _CHANGED, "forkserver", "here") == "the old one\n"


def test_a_script_is_compiled_where_code_differs(tmp_path: Path) -> None:
    """A child that optimizes, by its own variable, has no assertions."""
    text = _CHANGED.replace("target=tell)", "target=tell, env={'PYTHONOPTIMIZE': '1'})")

    assert _run(tmp_path, text, "spawn", "here") == "optimized\n"


def test_code_that_cannot_be_sent_is_compiled(tmp_path: Path) -> None:
    """Debuggers put objects of their own into the code of a frame."""
    (tmp_path / "inner.py").write_text(_CHANGED)
    text = (
        "import sys\n"
        "path = sys.modules['__main__'].__file__.replace('program', 'inner')\n"
        "__file__ = path\n"
        "code = compile(open(path).read(), path, 'exec')\n"
        "code = code.replace(co_consts=(*code.co_consts, object()))\n"
        "exec(code)\n"
    )

    assert _run(tmp_path, text, "spawn", "here") == "the new one\n"


def test_the_program_is_not_looked_for_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that has ended, or runs under another name, is compiled by its children."""
    from procession._processes import main_module

    main: Any = type(sys)("__main__")
    main.__file__ = __file__
    monkeypatch.setitem(sys.modules, "__main__", main)

    assert main_module.compiled() is None
