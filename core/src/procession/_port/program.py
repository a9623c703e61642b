"""What a program does with multiprocessing, as far as its text says so."""

from __future__ import annotations

import ast
import warnings
from collections import defaultdict
from typing import Final

import attrs

from procession._port.names import CLASSES, NAMES, WHOLE_MODULE, Name, Verdict

__all__ = ["Finding", "examine"]

_PACKAGE: Final = "multiprocessing"

_OBJECT: Final = "()"
"""The end of what stands for an object; before it stands its class."""

_MADE_BY: Final = {
    **{name: (path + _OBJECT,) for name, path in CLASSES.items()},
    "Manager": ("managers.SyncManager" + _OBJECT,),
    "Pipe": ("connection.Connection" + _OBJECT, "connection.Connection" + _OBJECT),
    "connection.Client": ("connection.Connection" + _OBJECT,),
    "current_process": ("Process" + _OBJECT,),
    "parent_process": ("Process" + _OBJECT,),
    "get_context": ("",),
}
"""What functions return. A context is the package again."""

_STARTERS: Final = {"Process", "Pool", "Manager", "context.Process", "pool.Pool"}

_CONTEXT_KEYWORDS: Final = {"mp_context", "multiprocessing_context"}
"""Those of `concurrent.futures` and of torch."""

_STAR: Final = "The names cannot be followed; name what is imported"
_NO_SUCH: Final = "No documented name of multiprocessing, and nothing is promised in its place"
_PRIVATE: Final = "A private name of the standard library, and nothing is promised in its place"
_UNGUARDED: Final = (
    "Processes are made whenever the file is imported, and children import it: "
    'move that below `if __name__ == "__main__":`'
)
_PASSED_ON: Final = (
    "Other libraries need objects of multiprocessing: give them a context of multiprocessing"
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
    program.follow_assignments()
    program.find_uses()
    return sorted(program.findings(), key=lambda each: (each.lines, each.name.theirs))


class _Program:
    """A program, what its expressions stand for, and what was found in it.

    What an expression stands for is a set of names without ``multiprocessing.``: of modules,
    functions, classes, and of classes with `_OBJECT`; "" is the package, or a context. Scopes
    are not told apart: one text means the same wherever it stands in the file.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._nodes = list(ast.walk(tree))
        self._bound: defaultdict[str, set[str]] = defaultdict(set)
        self._lines: defaultdict[Name, set[int]] = defaultdict(set)

    def findings(self) -> list[Finding]:
        return [Finding(name, sorted(lines)) for name, lines in self._lines.items()]

    # -- what expressions stand for ----------------------------------------------------

    def follow_assignments(self) -> None:
        for node in self._nodes:
            self._follow_import(node)
        size = -1
        # Again, until nothing is learned any more: a use may stand before what it depends on.
        while size != (size := sum(map(len, self._bound.values()))):
            for node in self._nodes:
                self._follow(node)

    def _follow_import(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                package, _, module = alias.name.partition(".")
                if package == _PACKAGE:
                    # "import a.b" binds a, and "import a.b as c" what b is.
                    self._bound[alias.asname or package].add(module if alias.asname else "")
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            package, _, module = node.module.partition(".")
            if package == _PACKAGE:
                for alias in node.names:
                    self._bound[alias.asname or alias.name].add(_join(module, alias.name))

    def _follow(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._bind(target, node.value)
        elif isinstance(node, ast.NamedExpr):
            self._bind(node.target, node.value)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            self._bind(node.optional_vars, node.context_expr)
        elif isinstance(node, ast.AnnAssign):
            self._bound[ast.unparse(node.target)] |= self._single(node.annotation)
        elif isinstance(node, ast.arg) and node.annotation is not None:
            self._bound[node.arg] |= self._single(node.annotation)
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                self._bound[node.name] |= self._meaning(base)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, (ast.Name, ast.Attribute)):
            self._bound[ast.unparse(target)] |= self._meaning(value)
        elif isinstance(target, ast.Tuple) and isinstance(value, ast.Call):
            for made in self._made_by(value.func):
                for each, kind in zip(target.elts, made, strict=False):
                    self._bound[ast.unparse(each)].add(kind)

    def _meaning(self, node: ast.expr) -> set[str]:
        if isinstance(node, ast.Name):
            return self._bound.get(node.id, set())
        if isinstance(node, ast.Attribute):
            through = {_join(owner, node.attr) for owner in self._meaning(node.value)}
            return through | self._bound.get(ast.unparse(node), set())
        if isinstance(node, ast.Call):
            return self._single(node.func)
        return set()

    def _single(self, function: ast.expr) -> set[str]:
        return {made[0] for made in self._made_by(function) if len(made) == 1}

    def _made_by(self, function: ast.expr) -> list[tuple[str, ...]]:
        found = []
        for name in self._meaning(function):
            if name in _MADE_BY:
                found.append(_MADE_BY[name])
            elif name.rpartition(".")[2][:1].isupper():  # a class
                found.append((name + _OBJECT,))
        return found

    # -- what is used ------------------------------------------------------------------

    def find_uses(self) -> None:
        for node in self._nodes:
            if isinstance(node, ast.ImportFrom):
                self._use_import(node)
            elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
                for meaning in self._meaning(node):
                    self._use(meaning, node)
            elif isinstance(node, ast.keyword):
                self._use_keyword(node)
        if not self._chooses_fork():
            self._find_what_needs_fork()

    def _use_import(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if node.level or not node.module or node.module.partition(".")[0] != _PACKAGE:
                return
            if alias.name == "*":
                self._note(Name(f"{node.module}.*", None, Verdict.MISSING, _STAR), node)
            else:
                for meaning in self._bound[alias.asname or alias.name]:
                    self._use(meaning, node)

    def _use_keyword(self, node: ast.keyword) -> None:
        if node.arg in _CONTEXT_KEYWORDS and "" in self._meaning(node.value):
            self._note(Name(node.arg, None, Verdict.MISSING, _PASSED_ON), node)

    def _use(self, meaning: str, node: ast.AST) -> None:
        name = _look_up(meaning)
        if name is not None:
            self._note(name, node)

    def _note(self, name: Name, node: ast.AST) -> None:
        self._lines[name].add(getattr(node, "lineno", 0))

    # -- what only works with fork -----------------------------------------------------

    def _calls(self, nodes: list[ast.AST], names: set[str]) -> list[ast.Call]:
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        return [call for call in calls if self._meaning(call.func) & names]

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


def _join(owner: str, name: str) -> str:
    owner = owner.removesuffix(_OBJECT)
    return f"{owner}.{name}" if owner else name


_MODULES: Final = {"", *(name.rpartition(".")[0] for name in NAMES)} - NAMES.keys()


def _look_up(meaning: str) -> Name | None:
    """Return what is known of a name; None for modules, objects, and most of what these have."""
    if meaning in NAMES:
        return NAMES[meaning]
    owner, _, last = meaning.rpartition(".")
    if meaning in _MODULES or meaning.endswith(_OBJECT) or last.startswith("__"):
        return None
    theirs = f"multiprocessing.{meaning}"
    whole = NAMES.get(meaning.partition(".")[0] + WHOLE_MODULE)
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
