"""The interpreter's own tests of multiprocessing, as a program that procession can run.

They come with most interpreters (the package ``test``), and are read where they are. What they use
of multiprocessing's insides is replaced by stand-ins, so that the tests themselves can run; a test
that is about these insides fails, and `deviations` has it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

NAME = "_test_multiprocessing"
MODULE = "adapted"

_INSIDES = '''\
"""Stand-ins for what the tests use of multiprocessing's insides."""

import tempfile

from multiprocessing import util as _util

SUBWARNING = 25
_finalizer_registry = {}
_afterfork_registry = {}
abstract_sockets_supported = True


def get_temp_dir():
    return tempfile.gettempdir()


def _do_nothing(*args):
    pass


_run_finalizers = _exit_function = _do_nothing


def __getattr__(name):
    return getattr(_util, name)
'''

_PROGRAM = f'''\
"""Runs the tests with the start method, and writes what has become of each."""

import json
import sys
import unittest

import {MODULE}

{MODULE}.install_tests_in_module_dict(globals(), sys.argv[1])


class Result(unittest.TextTestResult):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.outcomes = {{}}

    def note(self, test, outcome):
        self.outcomes[test.id().removeprefix(__name__ + ".")] = outcome

    def addSuccess(self, test):
        super().addSuccess(test)
        self.outcomes.setdefault(test.id().removeprefix(__name__ + "."), "passed")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped")

    def addError(self, test, error):
        super().addError(test, error)
        self.note(test, "failed")

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self.note(test, "failed")

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.note(test, "failed")


if __name__ == "__main__":
    runner = unittest.TextTestRunner(verbosity=2, resultclass=Result)
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    result = runner.run(suite)
    with open(sys.argv[2], "w") as file:
        json.dump(result.outcomes, file)
'''

#: What is replaced, and by what.
_REPLACED = (
    # Modules of multiprocessing that have no counterpart.
    ("import multiprocessing.heap\n", ""),
    ("from multiprocessing import util\n", "import insides as util\n"),
    ("    from multiprocessing import resource_tracker\n\n", "    resource_tracker = None\n\n"),
    (
        "    from multiprocessing import reduction\n",
        "    import procession.reduction as reduction\n",
    ),
    # Collecting children, and which are there.
    ("multiprocessing.process._cleanup()", "multiprocessing.active_children()"),
    ("multiprocessing.process._dangling", "set(multiprocessing.active_children())"),
    ("multiprocessing.util._cleanup_tests()", "None"),
    # A counter that is shared, and families of addresses.
    (
        "multiprocessing.heap.BufferWrapper(struct.calcsize('i'))",
        "multiprocessing.RawArray('i', 1)",
    ),
    ("self._wrapper.create_memoryview().cast('i')", "self._wrapper"),
    ("self.connection.families", "['AF_INET', 'AF_UNIX']"),
    # What a condition has inside is looked at where it can be.
    (
        "            except NotImplementedError:\n                pass\n\n    def test_notify",
        "            except (NotImplementedError, AttributeError):\n                pass\n\n"
        "    def test_notify",
    ),
)


def source() -> Path | None:
    """Return the file of the interpreter's tests; None if they were not installed with it."""
    package = importlib.util.find_spec("test")
    for place in package.submodule_search_locations or () if package is not None else ():
        file = Path(place) / f"{NAME}.py"
        if file.exists():
            return file
    return None


def write(directory: Path) -> Path:
    """Write the program to *directory*, and return its file; its arguments are a start method and
    the file for what has become of each test."""
    found = source()
    assert found is not None
    text = found.read_text()
    for old, new in _REPLACED:
        assert old in text, f"{found} has no {old!r} any more: see what it has instead"
        text = text.replace(old, new)
    # Programs that tests start are beside the original.
    text = text.replace("os.path.dirname(__file__)", repr(str(found.parent)))
    (directory / f"{MODULE}.py").write_text(text)
    (directory / "insides.py").write_text(_INSIDES)
    program = directory / "program.py"
    program.write_text(_PROGRAM)
    return program
