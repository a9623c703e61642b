"""What the expressions of a program stand for, as far as multiprocessing is concerned."""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import Final

from procession._commands.port.names import CLASSES

__all__ = ["OBJECT", "Meanings", "join", "within_package"]

OBJECT: Final = "()"
"""The end of what stands for an object; before it stands its class."""

_PACKAGE: Final = "multiprocessing"

_MADE_BY: Final = {
    **{name: (path + OBJECT,) for name, path in CLASSES.items()},
    "Manager": ("managers.SyncManager" + OBJECT,),
    "Pipe": ("connection.Connection" + OBJECT, "connection.Connection" + OBJECT),
    "connection.Client": ("connection.Connection" + OBJECT,),
    "current_process": ("Process" + OBJECT,),
    "parent_process": ("Process" + OBJECT,),
    "get_context": ("",),
}
"""What functions return. A context is the package again."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Meanings:
    """What every expression of a program stands for: a set of names of multiprocessing.

    They are without ``multiprocessing.``: modules, functions, classes, and classes with
    `OBJECT`; "" is the package, or a context. A variable means everything that is assigned to
    it in its scope, whenever that is; an attribute what is assigned to it anywhere in the file.
    """

    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        #: The scopes around each node: the innermost function first, the module last.
        self._scopes = _scopes(tree)
        #: In which scope a text means what. A name that means nothing hides others all the same.
        self._bound: defaultdict[tuple[ast.AST, str], set[str]] = defaultdict(set)
        self._globals = {
            (self._scopes[node][0], name)
            for node in self._scopes
            if isinstance(node, ast.Global)
            for name in node.names
        }
        for node in self._scopes:
            self._follow_import(node)
        size = -1
        # Again, until nothing is learned any more: a use may stand before what it depends on.
        while size != (size := sum(map(len, self._bound.values()))):
            for node in self._scopes:
                self._follow(node)

    def nodes(self) -> list[ast.AST]:
        """Return every node of the program, in any order."""
        return list(self._scopes)

    def of(self, node: ast.expr) -> set[str]:
        """Return what *node* stands for; nothing, if that is unknown or somebody else's."""
        if isinstance(node, ast.Name):
            return self._find(node, node.id)
        if isinstance(node, ast.Attribute):
            through = {join(owner, node.attr) for owner in self.of(node.value)}
            return through | self._bound.get((self._tree, ast.unparse(node)), set())
        if isinstance(node, ast.Call):
            return self._single(node.func)
        return set()

    def _find(self, node: ast.AST, name: str) -> set[str]:
        for scope in self._scopes[node]:
            if (scope, name) in self._bound:
                return self._bound[scope, name]
        return set()

    def _single(self, function: ast.expr) -> set[str]:
        return {made[0] for made in self._made_by(function) if len(made) == 1}

    def _made_by(self, function: ast.expr) -> list[tuple[str, ...]]:
        found = []
        for name in self.of(function):
            if name in _MADE_BY:
                found.append(_MADE_BY[name])
            elif name.rpartition(".")[2][:1].isupper():  # a class
                found.append((name + OBJECT,))
        return found

    # -- what binds names --------------------------------------------------------------

    def _bind(self, node: ast.AST, name: str, meanings: set[str]) -> None:
        scope = self._scopes[node][0]
        if (scope, name) in self._globals:
            scope = self._tree
        self._bound[scope, name] |= meanings

    def _follow_import(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                module = within_package(alias.name)
                if module is not None:
                    # "import a.b" binds a, and "import a.b as c" what b is.
                    self._bind(node, alias.asname or _PACKAGE, {module if alias.asname else ""})
        elif isinstance(node, ast.ImportFrom) and not node.level:
            module = within_package(node.module or "")
            if module is not None:
                for alias in node.names:
                    self._bind(node, alias.asname or alias.name, {join(module, alias.name)})

    def _follow(self, node: ast.AST) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.NamedExpr):
            self._assign(node.target, node.value)
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            self._assign(node.optional_vars, node.context_expr)
        elif isinstance(node, ast.AnnAssign):
            self._set(node.target, self._single(node.annotation))
        elif isinstance(node, ast.arg):
            annotation = node.annotation
            self._bind(node, node.arg, set() if annotation is None else self._single(annotation))
        elif isinstance(node, ast.ClassDef):
            self._bind(node, node.name, set().union(*map(self.of, node.bases)))

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Call):
            for made in self._made_by(value.func):
                for each, kind in zip(target.elts, made, strict=False):
                    self._set(each, {kind})
        else:
            self._set(target, self.of(value))

    def _set(self, target: ast.expr, meanings: set[str]) -> None:
        if isinstance(target, ast.Name):
            self._bind(target, target.id, meanings)
        elif isinstance(target, ast.Attribute):
            self._bound[self._tree, ast.unparse(target)] |= meanings


def join(owner: str, name: str) -> str:
    """Return the name of what *owner*, or an object of it, has by *name*."""
    owner = owner.removesuffix(OBJECT)
    return f"{owner}.{name}" if owner else name


def within_package(module: str) -> str | None:
    """Return *module* without ``multiprocessing.``, or None if it is in another package."""
    package, _, rest = module.partition(".")
    return rest if package == _PACKAGE else None


def _scopes(tree: ast.Module) -> dict[ast.AST, tuple[ast.AST, ...]]:
    found: dict[ast.AST, tuple[ast.AST, ...]] = {}
    waiting: list[tuple[ast.AST, tuple[ast.AST, ...]]] = [(tree, (tree,))]
    while waiting:
        node, around = waiting.pop()
        found[node] = around
        inside = (node, *around) if isinstance(node, _Function) else around
        waiting += ((child, inside) for child in ast.iter_child_nodes(node))
    return found
