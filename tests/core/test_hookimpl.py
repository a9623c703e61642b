"""Hooks that are called without pluggy, and those that are pluggy's business."""

from __future__ import annotations

import types
from collections.abc import Callable
from inspect import signature
from typing import Any

import pluggy
import pytest

from procession._contracts import hookspecs
from procession._contracts.hookimpl import PROJECT, WITHOUT_ARGUMENTS, hookimpl, plain_hook

HOOK = "procession_transport"


def hooks(**attributes: Any) -> types.ModuleType:
    """Return a module with these attributes, as a plugin's hooks are."""
    module = types.ModuleType("hooks")
    vars(module).update(attributes)
    return module


def offer() -> type:
    """Offer something, as a hook does."""
    return int


def found_by_pluggy(module: object) -> list[str]:
    """Return the names of what pluggy takes for hooks of ours."""
    manager = pluggy.PluginManager(PROJECT)
    return [name for name in dir(module) if manager.parse_hookimpl_opts(module, name) is not None]


def fresh(function: Callable[..., Any] = offer) -> Any:
    """Return a copy of a function, without marks."""
    assert isinstance(function, types.FunctionType)
    return types.FunctionType(function.__code__, globals(), function.__name__)


def test_pluggy_knows_our_mark() -> None:
    """What is marked without pluggy must be the same to it as what its own marker has marked."""
    ours, theirs = hookimpl(fresh()), pluggy.HookimplMarker(PROJECT)(fresh())

    assert [HOOK] == found_by_pluggy(hooks(**{HOOK: ours, "other": fresh()}))
    for function in (ours, theirs):
        manager = pluggy.PluginManager(PROJECT)
        manager.register(hooks(**{HOOK: function}), "plugin")
        (implementation,) = getattr(manager.hook, HOOK).get_hookimpls()
        assert not implementation.trylast
        assert not implementation.wrapper
        assert [int] == getattr(manager.hook, HOOK)()


def test_options_are_pluggy_s() -> None:
    """A hook can do all that hooks of pluggy can, by the same words."""
    marked = hookimpl(specname=HOOK)(fresh())

    assert "procession_impl" in vars(marked)
    assert HOOK == vars(marked)["procession_impl"]["specname"]
    assert vars(hookimpl(fresh(), trylast=True))["procession_impl"]["trylast"]
    with pytest.raises(TypeError, match="first"):
        hookimpl(first=True)


@pytest.mark.parametrize("marker", [hookimpl, pluggy.HookimplMarker(PROJECT)])
def test_a_function_without_arguments_is_called_as_it_is(marker: Callable[[Any], Any]) -> None:
    """That is what every hook of a start method, transport, serializer or primitive is."""
    module = hooks(**{HOOK: marker(fresh()), "other": fresh(), "constant": 3, "kind": dict})

    assert getattr(module, HOOK) is plain_hook(module, HOOK)
    more = hooks(**{name: marker(fresh()) for name in WITHOUT_ARGUMENTS})
    assert getattr(more, HOOK) is plain_hook(more, HOOK)


def test_hooks_without_arguments_are_those_of_the_specification() -> None:
    """Another argument, some day, must not be left out in silence."""
    specified = {
        name: not signature(value).parameters
        for name, value in vars(hookspecs).items()
        if hasattr(value, f"{PROJECT}_spec")
    }

    assert "procession_launching" in specified
    assert {name for name, has_none in specified.items() if has_none} == WITHOUT_ARGUMENTS


def with_argument(extra: object) -> object:
    """Want more than there is to be had."""
    return extra


def with_keyword(*, extra: object = None) -> object:
    """Want it by name."""
    return extra


def with_any(*extra: object) -> object:
    """Want whatever there is."""
    return extra


def generator() -> Any:
    """Wrap other hooks, as pluggy's wrappers do."""
    yield


class Plugin:
    """A plugin that is an object."""

    procession_transport = staticmethod(hookimpl(fresh()))

    def method(self) -> None:
        """Be bound."""


class Eager(types.ModuleType):
    """A module of a kind of its own."""


ODD = {
    "no hook": hooks(),
    "not marked": hooks(**{HOOK: fresh()}),
    "misspelt": hooks(procession_transprot=hookimpl(fresh())),
    "unknown one besides": hooks(**{HOOK: hookimpl(fresh()), "procession_x": hookimpl(fresh())}),
    "argument": hooks(**{HOOK: hookimpl(fresh(with_argument))}),
    "keyword": hooks(**{HOOK: hookimpl(fresh(with_keyword))}),
    "any arguments": hooks(**{HOOK: hookimpl(fresh(with_any))}),
    "generator": hooks(**{HOOK: hookimpl(fresh(generator))}),
    "option": hooks(**{HOOK: hookimpl(trylast=True)(fresh())}),
    "named otherwise": hooks(other=hookimpl(specname=HOOK)(fresh())),
    "method": hooks(**{HOOK: hookimpl(fresh()), "bound": Plugin().method}),
    "static method": hooks(**{HOOK: staticmethod(hookimpl(fresh()))}),
    "object": Plugin(),
    "class": Plugin,
    "with __dir__": hooks(**{HOOK: hookimpl(fresh()), "__dir__": list}),
    "kind of its own": Eager("hooks"),
    "None": None,
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_all_else_is_left_to_pluggy(odd: object) -> None:
    """What is wrong with a plugin, or uncommon in it, is pluggy's to judge, and to name."""
    assert plain_hook(odd, HOOK) is None
