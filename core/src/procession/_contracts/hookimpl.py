"""How a function is marked as a hook, and the hooks that can be called as they are.

pluggy checks and calls hooks. It takes several times as long to be imported as the module of a
start method or transport, whose hooks are nearly always functions without arguments in a module.
There is nothing to be checked about such a hook, and nothing to be added to a call of it:
`plain_hook` tells which they are, and all others are pluggy's.
"""

from __future__ import annotations

from types import FunctionType, MethodType, ModuleType

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeVar, overload

    Function = TypeVar("Function", bound=Callable[..., Any])

__all__ = ["PROJECT", "hookimpl", "plain_hook"]

PROJECT: Final = "procession"
"""The name under which pluggy knows hooks of ours from those of others."""

_MARK: Final = f"{PROJECT}_impl"
"""The attribute in which pluggy looks for the options of a hook; none given, all are off."""

#: The hooks whose specification has no arguments.
WITHOUT_ARGUMENTS: Final = frozenset(
    {
        "procession_primitive",
        "procession_serializer",
        "procession_start_method",
        "procession_transport",
    }
)

# Of a code object's flags: *args, **kwargs, and what makes generators and coroutines.
_NOT_PLAIN: Final = 0x04 | 0x08 | 0x20 | 0x80 | 0x200

if TYPE_CHECKING:

    @overload
    def hookimpl(function: Function, /, **options: Any) -> Function: ...
    @overload
    def hookimpl(**options: Any) -> Callable[[Function], Function]: ...


def hookimpl(function: Any = None, /, **options: Any) -> Any:
    """Mark a plugin's function as the implementation of the hook it is named after.

    *options* are those of `pluggy.HookimplMarker`, which does the same.
    """
    if function is not None and not options:
        setattr(function, _MARK, {})
        return function
    from pluggy import HookimplMarker

    return HookimplMarker(PROJECT)(function, **options)


def plain_hook(hooks: object, name: str) -> Callable[[], Any] | None:
    """Return the hook *name* of a module, if a call is all that pluggy would add to it.

    None if pluggy is to look at *hooks*: there is no such hook, or one of the hooks that there
    are has arguments or options, or a name that is not among those without, or it is no module.
    """
    if type(hooks) is not ModuleType or "__dir__" in vars(hooks):
        return None
    found = None
    for attribute, value in vars(hooks).items():
        if isinstance(value, staticmethod | classmethod | MethodType):
            return None  # which may be hooks, too
        if not isinstance(value, FunctionType) or _MARK not in vars(value):
            continue
        if attribute not in WITHOUT_ARGUMENTS or not _is_plain(value):
            return None
        if attribute == name:
            found = value
    return found


def _is_plain(function: FunctionType) -> bool:
    options, code = vars(function)[_MARK], function.__code__
    return (
        isinstance(options, dict)
        and not any(options.values())
        and "__wrapped__" not in vars(function)
        and not (code.co_argcount or code.co_kwonlyargcount or code.co_flags & _NOT_PLAIN)
    )
