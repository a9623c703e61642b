"""What a program does with multiprocessing, as far as its text says so."""

from __future__ import annotations

import ast
import warnings
from collections import defaultdict
from typing import Final

import attrs

from procession._commands.port.meanings import OBJECT, Meanings, join, within_package
from procession._commands.port.names import NAMES, WHOLE_MODULE, Name, Verdict

__all__ = ["Finding", "examine"]

_STARTERS: Final = {"Process", "Pool", "Manager", "context.Process", "pool.Pool"}

_STAR: Final = "The names cannot be followed; name what is imported"
_NO_SUCH: Final = "No documented name of multiprocessing, and nothing is promised in its place"
_PRIVATE: Final = "A private name of the standard library, and nothing is promised in its place"
_UNGUARDED: Final = (
    "Processes are made whenever the file is imported, and children import it: "
    'move that below `if __name__ == "__main__":`'
)
_LAMBDA: Final = "A lambda cannot be pickled, as every start method but `fork` has to"


@attrs.frozen
class Finding:
    """A name that a program uses, and where."""

    #: What is meant, and what becomes of it.
    name: Name
    #: The lines, in order, each once.
    lines: list[int]


def examine(source: bytes, filename: str) -> list[Finding]:
    """Return what *source* uses of multiprocessing, by the line where it does so first.

    Every name counts, those that stay the same included. What a variable holds is found out
    from the assignments of the file; what comes from elsewhere is not known. Raises
    `SyntaxError` or `ValueError` when it is no Python of this interpreter's version.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape is the program's business
        tree = ast.parse(source, filename)
    program = _Program(tree)
    program.find_uses()
    return sorted(program.findings(), key=lambda each: (each.lines, each.name.theirs))


class _Program:
    """A program, and what was found in it."""

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._meanings = Meanings(tree)
        self._nodes = self._meanings.nodes()
        self._lines: defaultdict[Name, set[int]] = defaultdict(set)

    def findings(self) -> list[Finding]:
        """Return what `find_uses` has found."""
        return [Finding(name, sorted(lines)) for name, lines in self._lines.items()]

    def find_uses(self) -> None:
        """Look at every name that the program mentions, and at what it does on import."""
        for node in self._nodes:
            if isinstance(node, ast.ImportFrom):
                self._use_import(node)
            elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
                for meaning in self._meanings.of(node):
                    self._use(meaning, node)
        if not self._chooses_fork():
            self._find_what_needs_fork()

    def _use_import(self, node: ast.ImportFrom) -> None:
        module = None if node.level else within_package(node.module or "")
        if module is None:
            return
        for alias in node.names:
            if alias.name == "*":
                self._note(Name(f"{node.module}.*", None, Verdict.MISSING, _STAR), node)
            else:
                self._use(join(module, alias.name), node)

    def _use(self, meaning: str, node: ast.AST) -> None:
        name = _look_up(meaning)
        if name is not None:
            self._note(name, node)

    def _note(self, name: Name, node: ast.AST) -> None:
        self._lines[name].add(getattr(node, "lineno", 0))

    # -- what only works with fork -----------------------------------------------------

    def _calls(self, nodes: list[ast.AST], names: set[str]) -> list[ast.Call]:
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        return [call for call in calls if self._meanings.of(call.func) & names]

    def _chooses_fork(self) -> bool:
        return any(
            isinstance(argument, ast.Constant) and argument.value == "fork"
            for call in self._calls(self._nodes, {"set_start_method", "get_context"})
            for argument in [*call.args, *(keyword.value for keyword in call.keywords)]
        )

    def _find_what_needs_fork(self) -> None:
        for call in self._calls(self._nodes, _STARTERS):
            if any(isinstance(keyword.value, ast.Lambda) for keyword in call.keywords):
                self._note(Name("lambda", None, Verdict.DIFFERS, _LAMBDA), call)
        for call in self._calls(list(_run_on_import(self._tree.body)), _STARTERS):
            self._note(Name("__main__", None, Verdict.DIFFERS, _UNGUARDED), call)


_DOCUMENTED: Final = {"_callmethod", "_getvalue"}
"""Names of proxies that are public in spite of their underscore."""

_MODULES: Final = {"", *(name.rpartition(".")[0] for name in NAMES)} - NAMES.keys()


def _look_up(meaning: str) -> Name | None:
    """Return what is known of a name; None for modules, objects, and most of what these have."""
    if meaning in NAMES:
        return NAMES[meaning]
    owner, _, last = meaning.rpartition(".")
    if meaning in _MODULES or meaning.endswith(OBJECT) or last.startswith("__"):
        return None
    if last in _DOCUMENTED or "._" in owner:
        return None
    theirs = f"multiprocessing.{meaning}"
    whole = NAMES.get(owner + WHOLE_MODULE)
    if whole is not None:
        return attrs.evolve(whole, theirs=theirs)
    if last.startswith("_"):
        return Name(theirs, None, Verdict.MISSING, _PRIVATE)
    if owner in _MODULES:
        return Name(theirs, None, Verdict.MISSING, _NO_SUCH)
    return None


def _run_on_import(body: list[ast.stmt]) -> list[ast.AST]:
    """Return what importing the program runs, as far as functions and the guard do not hide it."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [*body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        found.append(node)
        waiting += ast.iter_child_nodes(node)
    return found
