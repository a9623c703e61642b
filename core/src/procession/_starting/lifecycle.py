"""The hooks of plugins around a process, on the side of the parent.

Imported when a plugin is switched on.
"""

from __future__ import annotations

from procession._choosing import selection
from procession._starting.logging import get_logger
from procession.errors import PluginContractError, PluginHookError

TYPE_CHECKING = False  # every module of the parent makes a fork dearer
if TYPE_CHECKING:
    from typing import Any, Self

    from pluggy import PluginManager

    from procession._processes.child_hooks import ChildHooks
    from procession.process import Process

_CHILD_HOOKS = ("procession_child_starting", "procession_child_ending")


class HookedPlugin:
    """One plugin that is switched on. Threads: as its hooks allow."""

    def __init__(self, name: str, manager: PluginManager) -> None:
        self.name = name
        self._hook = manager.hook
        self.starting, self.ending = (self._location(hook) for hook in _CHILD_HOOKS)

    def _location(self, hook: str) -> str | None:
        """Return where a child finds a hook, None if the plugin does without."""
        implementations = getattr(self._hook, hook).get_hookimpls()
        if not implementations:
            return None
        function = implementations[0].function
        location = f"{function.__module__}:{function.__qualname__}"
        if "<" in location:
            raise PluginContractError(
                f"plugin {self.name!r} breaks the contract: {hook} must be a function of a "
                f"module, which children can import, not {location}",
                kind="plugin",
                plugin=self.name,
            )
        return location

    def launching(self, process: Process) -> ChildHooks | None:
        """Return what the child needs of this plugin, None for nothing."""
        try:
            baggage = self._hook.procession_launching(process=process)
        except Exception as error:
            raise PluginHookError(
                f"cannot start {process.name}: the hook procession_launching of the plugin "
                f"{self.name!r} failed: {type(error).__name__}: {error}",
                kind="plugin",
                plugin=self.name,
            ) from error
        if self.starting is None and self.ending is None:
            return None
        return self.name, self.starting, self.ending, baggage

    def note(self, hook: str, **arguments: Any) -> None:
        """Call a hook that nothing depends on."""
        try:
            getattr(self._hook, hook)(**arguments)
        except Exception:
            get_logger().exception("the hook %s of the plugin %r failed", hook, self.name)


class Lifecycle:
    """The hooks around one process, from its start to its end."""

    def __init__(self, plugins: tuple[HookedPlugin, ...], process: Process) -> None:
        self._plugins = plugins
        #: What the child does.
        self.child: tuple[ChildHooks, ...] = tuple(
            hooks for plugin in plugins if (hooks := plugin.launching(process)) is not None
        )

    @classmethod
    def of(cls, names: tuple[str, ...], process: Process) -> Self:
        """Return the lifecycle of *process*, with the plugins *names*; calls `launching`.

        Raises what `Registry.load_hooks` raises, and `PluginHookError`.
        """
        return cls(tuple(_load(name) for name in names), process)

    def started(self, process: Process) -> None:
        """Call `procession_started`."""
        for plugin in self._plugins:
            plugin.note("procession_started", process=process)

    def ended(self, process: Process, exit_code: int) -> None:
        """Call `procession_ended`."""
        failure = process.failure
        for plugin in self._plugins:
            plugin.note("procession_ended", process=process, exitcode=exit_code, failure=failure)


def _load(name: str) -> HookedPlugin:
    source = selection.plugins()[2]
    return HookedPlugin(name, selection.registry().load_hooks(name, source=source))
