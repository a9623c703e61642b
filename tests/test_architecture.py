"""The picture of the architecture is the code's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core" / "src" / "procession"
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\w+) \| .* \| (`.*`) \| (.*) \|$", re.MULTILINE)
PLUGIN_FOLDERS = ("backends", "transports", "plugins", "serializers")

#: The modules of each part, as patterns, and the parts that the page says it imports.
PARTS: dict[str, tuple[list[str], set[str]]] = {
    part: (re.findall(r"`(.+?)`", modules), set(re.findall(r"\w+", imports)))
    for part, modules, imports in ROW.findall(PAGE)
}
#: The lines of the picture below the plugins, from the top, each with its parts.
LINES = [
    line.split()
    for line in PAGE.split("```")[1].splitlines()
    if line.split() and line.split()[0] in PARTS
]

#: What ``procession.`` may be followed by to name a module.
TOPS = {path.stem for path in CORE.iterdir() if path.is_dir() or path.suffix == ".py"}


def part_of(module: str) -> str:
    """Return the part of a module of core, by its name without ``procession.``; "" without one."""
    top = module.partition(".")[0]
    for part, (patterns, _) in PARTS.items():
        if any(fnmatchcase(top, pattern) for pattern in patterns):
            return part
    return ""


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the modules of core that belong to a part, without ``procession.``."""
    for path in sorted(CORE.rglob("*.py")):
        name = ".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__" and not name.startswith("testing"):
            yield name, path


def run_on_import(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that importing a module runs: not those of functions and type checkers."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from run_on_import(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody"):
                yield from run_on_import(getattr(node, field, []))
            for handler in getattr(node, "handlers", []):
                yield from run_on_import(handler.body)


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of core that importing *path* imports, without ``procession.``."""
    for node in run_on_import(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            first = rest.partition(".")[0]
            if package == "procession" and first in TOPS:
                yield rest


def test_every_module_belongs_to_one_part() -> None:
    """A new module has a place, or the page has a new part."""
    assert [name for name, _ in modules() if not part_of(name)] == [], "see architecture.md"
    tops = {name.partition(".")[0] for name, _ in modules()}
    patterns = [pattern for patterns, _ in PARTS.values() for pattern in patterns]
    for pattern in patterns:
        assert any(fnmatchcase(top, pattern) for top in tops), pattern
    for top in tops:
        assert sum(fnmatchcase(top, pattern) for pattern in patterns) == 1, top


@pytest.mark.parametrize("part", PARTS)
def test_a_folder_says_what_the_page_says(part: str) -> None:
    """Who comes from the code learns the same as who comes from the page."""
    (said,) = re.findall(rf"^\| {part} \| (.+?) \| `", PAGE, re.MULTILINE)
    folder = CORE / f"_{part}"
    if not folder.is_dir():
        assert part == "contexts", "its one module is public"
        return
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert docstring == f"{said[0].upper()}{said[1:]}."


def test_the_picture_has_every_part_once() -> None:
    """What is not in the picture is not checked against it."""
    assert sorted(part for line in LINES for part in line) == sorted(PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_what_the_page_says(part: str) -> None:
    """Too much would be a surprise for a reader, too little a part that can be taken out."""
    found: dict[str, set[str]] = {}
    for name, path in modules():
        if part_of(name) == part:
            for imported in imports(path):
                found.setdefault(part_of(imported), set()).add(f"{name} -> {imported}")
    found.pop(part, None)
    assert found.keys() == PARTS[part][1], found


def test_parts_import_lower_lines_only() -> None:
    """That is what the picture says: the page's words are those of the code, by the test above."""
    height = {part: index for index, line in enumerate(LINES) for part in line}
    wrong = [
        f"{part} imports {other}"
        for part, (_, others) in PARTS.items()
        for other in others
        if height[other] <= height[part]
    ]
    assert wrong == []


def test_the_picture_has_every_plugin_of_the_repository() -> None:
    """By kind, as the folders have them."""
    (line,) = [line for line in PAGE.splitlines() if line.split()[:1] == ["fork"]]
    folders = [
        sorted(path.parent.name for path in ROOT.glob(f"{kind}/*/pyproject.toml"))
        for kind in PLUGIN_FOLDERS
    ]
    assert line.split() == [name for folder in folders for name in folder]
