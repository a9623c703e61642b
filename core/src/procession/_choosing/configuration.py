"""What a configuration file says: about the selection, and limits of connections and queues.

The file that ``PROCESSION_CONFIG`` names, or else the nearest ``pyproject.toml``, upwards
from the current directory, may have a table::

    [tool.procession]
    start-method = "forkserver"
    transport = "socketpair"
    serializer = "pickle"
    plugins = ["logging"]
    silence = 60
    recv-limit = 1000000
    lease-budget = 1000000000
    ring-size = 262144

All keys are optional. The nearest ``pyproject.toml`` is the only one that counts, also
when it has no such table: a program in a directory of its own must not be ruled by what
lies above it. A file named by ``PROCESSION_CONFIG`` may instead have the keys at its top
level, unless it is called ``pyproject.toml``.
"""

from __future__ import annotations

import os

from procession._choosing.limits import KEYS as LIMIT_KEYS
from procession.errors import ConfigurationError

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from typing import Final

    from procession._choosing.registry import Kind

__all__ = ["KEYS", "VARIABLE", "ConfigurationReader", "Settings"]

VARIABLE: Final = "PROCESSION_CONFIG"

KEYS: Final[dict[Kind, str]] = {
    "start_method": "start-method",
    "transport": "transport",
    "serializer": "serializer",
}
"""The keys of the table, by what they choose."""

PLUGINS_KEY: Final = "plugins"
"""The key of the plugins that are switched on."""

_ALL_KEYS: Final = (*KEYS.values(), PLUGINS_KEY, *LIMIT_KEYS)

_PYPROJECT: Final = "pyproject.toml"


class Settings:
    """The contents of one configuration file."""

    __slots__ = ("file", "limits", "names", "plugins")

    def __init__(
        self,
        file: str,
        names: dict[Kind, str],
        plugins: tuple[str, ...] | None = None,
        limits: dict[str, float] | None = None,
    ) -> None:
        self.file = file
        #: The names that the file chooses; a kind that it leaves open is missing.
        self.names = names
        #: The plugins that the file switches on; None if it does not mention them.
        self.plugins = plugins
        #: By their keys; see `procession._choosing.limits`.
        self.limits = limits or {}


class ConfigurationReader:
    """Finds the configuration file, and reads it again only when it has changed.

    Threads may share one; the worst that can happen is that two read the same file.
    """

    def __init__(self) -> None:
        # Of the file that was read last: its path, time of change and size.
        self._last: tuple[tuple[str, int, int], Settings] | None = None

    def read(self, named: str | None = None) -> Settings | None:
        """Return what the file *named* (or, without a name, the nearest one) says.

        None if there is no file, or nothing for us in a file that was found rather than
        named. Raises `ConfigurationError` if the named file is missing, or if the file
        cannot be read, is not TOML, or has an unknown key or a wrong value in our table.
        A ``pyproject.toml`` that cannot have our table is not parsed: what is wrong with it
        is then none of our business.
        """
        path = os.path.abspath(named) if named else _nearest_pyproject()
        if path is None:
            return None
        try:
            status = os.stat(path)
            # Taken before the contents: what is written in between is read again next time.
            key = (path, status.st_mtime_ns, status.st_size)
            if self._last is not None and self._last[0] == key:
                return self._last[1]
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            because = f", which {VARIABLE} names," if named else ""
            raise ConfigurationError(
                f"the configuration file {path}{because} cannot be read: {error.strerror or error}",
                file=path,
            ) from error
        settings = _parse(path, data, named=bool(named))
        self._last = (key, settings)
        return settings


def _nearest_pyproject() -> str | None:
    try:
        directory = os.getcwd()
    except FileNotFoundError:  # it has been removed under us, so nothing is in it
        return None
    while True:
        path = os.path.join(directory, _PYPROJECT)
        if os.path.isfile(path):
            return path
        above = os.path.dirname(directory)
        if above == directory:
            return None
        directory = above


def _parse(path: str, data: bytes, *, named: bool) -> Settings:
    is_pyproject = os.path.basename(path) == _PYPROJECT
    if is_pyproject and not _may_have_our_table(data):
        return Settings(path, {})
    import tomllib

    try:
        document = tomllib.loads(data.decode())
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigurationError(
            f"the configuration file {path} is not valid TOML: {error}", file=path
        ) from error
    tools = document.get("tool")
    if isinstance(tools, dict) and "procession" in tools:
        return _settings(path, tools["procession"], "tool.procession.")
    if named and not is_pyproject:
        return _settings(path, document, "")
    return Settings(path, {})


def _may_have_our_table(data: bytes) -> bool:
    """Return whether ``tool.procession`` can be anywhere in a ``pyproject.toml``.

    Programs that depend on procession mention it there, and most of them have no such table:
    to parse the file would take longer than to start a process.
    """
    if b"procession" not in data:
        return False
    # All the ways of writing it: [tool.procession], tool.procession.x = 1, and procession (by
    # whatever of these) inside of [tool] or tool = { }; with blanks and quotes in between.
    bare = data.translate(None, b" \t\"'")
    return any(way in bare for way in (b"tool.procession", b"[tool]", b"tool={"))


def _settings(path: str, table: object, prefix: str) -> Settings:
    if not isinstance(table, dict):
        return Settings(path, _names(path, table, prefix))
    others = {PLUGINS_KEY, *LIMIT_KEYS}
    names = _names(path, {key: table[key] for key in table if key not in others}, prefix)
    limits = {key: _limit(path, key, table[key], prefix) for key in LIMIT_KEYS if key in table}
    if PLUGINS_KEY not in table:
        return Settings(path, names, limits=limits)
    plugins = table[PLUGINS_KEY]
    if not isinstance(plugins, list) or not all(name and isinstance(name, str) for name in plugins):
        raise ConfigurationError(
            f'{prefix}{PLUGINS_KEY} in {path} must be a list of names, such as ["logging"], '
            f"not {plugins!r}",
            file=path,
            key=PLUGINS_KEY,
        )
    return Settings(path, names, tuple(plugins), limits)


def _limit(path: str, key: str, value: object, prefix: str) -> float:
    least = LIMIT_KEYS[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= least:
        raise ConfigurationError(
            f"{prefix}{key} in {path} must be a number, {least:g} or more, not {value!r}",
            file=path,
            key=key,
        )
    return value


def _names(path: str, table: object, prefix: str) -> dict[Kind, str]:
    *most, last = _ALL_KEYS
    allowed = f"{', '.join(most)} and {last}"
    if not isinstance(table, dict):
        raise ConfigurationError(
            f"{prefix.rstrip('.')} in {path} must be a table with the keys {allowed}, "
            f"not {table!r}",
            file=path,
            key=prefix.rstrip("."),
        )
    kinds = {key: kind for kind, key in KEYS.items()}
    names: dict[Kind, str] = {}
    for key, value in table.items():
        if key not in kinds:
            raise ConfigurationError(
                f"unknown key {prefix}{key} in {path}{_suggestion(key)}; allowed are {allowed}",
                file=path,
                key=key,
            )
        if not isinstance(value, str) or not value:
            raise ConfigurationError(
                f"{prefix}{key} in {path} must be a name in quotes, not {value!r}",
                file=path,
                key=key,
            )
        names[kinds[key]] = value
    return names


def _suggestion(key: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(key.lower().replace("_", "-"), _ALL_KEYS, n=1)
    return f"; did you mean {near[0]}?" if near else ""
