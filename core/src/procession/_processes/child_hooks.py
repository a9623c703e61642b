"""The hooks of plugins in a child: those that its parent names, and no others.

Imported in a child only when there are any. Neither pluggy nor metadata is needed here.
"""

from __future__ import annotations

import sys

from procession.errors import PluginHookError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeAlias

    # Of one plugin: its name, its hooks as "module:name" or None, and its baggage.
    ChildHooks: TypeAlias = tuple[str, str | None, str | None, Any]

# The plugins whose ending hooks are due, in the order of their starts.
_due: list[tuple[str, str, Any]] = []


def start(plugins: Sequence[ChildHooks]) -> None:
    """Call the starting hooks. Raises `PluginHookError`, which names the plugin."""
    for name, starting, ending, baggage in plugins:
        if starting is not None:
            try:
                _find(starting)(baggage=baggage)
            except Exception as error:
                raise PluginHookError(
                    f"the hook procession_child_starting of the plugin {name!r} ({starting}) "
                    f"failed: {type(error).__name__}: {error}",
                    kind="plugin",
                    plugin=name,
                ) from error
        if ending is not None:
            _due.append((name, ending, baggage))


def end() -> None:
    """Call the ending hooks that are due, the last one first; print what they raise."""
    while _due:
        name, ending, baggage = _due.pop()
        try:
            _find(ending)(baggage=baggage)
        except Exception:
            import traceback

            text = traceback.format_exc()
            print(
                f"procession: the hook procession_child_ending of the plugin {name!r} "
                f"({ending}) failed:\n{text}",
                end="",
                file=sys.stderr,
            )


def forget() -> None:
    """Begin anew in a forked child: what is due is its parent's."""
    _due.clear()


def _find(location: str) -> Any:
    module, _, qualified_name = location.partition(":")
    __import__(module)
    found: Any = sys.modules[module]
    for name in qualified_name.split("."):
        found = getattr(found, name)
    return found
