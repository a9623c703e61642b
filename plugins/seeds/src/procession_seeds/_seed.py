"""The root seed of a family of processes, and what each process makes of it."""

from __future__ import annotations

import itertools
import os
import sys

TYPE_CHECKING = False  # importing typing would bring `re` and more into every child
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, TypeAlias

    # The root seed, and the numbers of the ancestors and of the process itself.
    Baggage: TypeAlias = tuple[int, tuple[int, ...]]

VARIABLE = "PROCESSION_SEEDS_ROOT"
_ROOT_BYTES = 16
_NUMPY_WORDS = 8


class _Place:
    """The place of this process in its family. Threads: any."""

    def __init__(self) -> None:
        self.root: int | None = None
        self.key: tuple[int, ...] = ()
        self.numbers = itertools.count()


_place = _Place()


def set_root(seed: int) -> None:
    """Derive the seeds of all children that are started from now on from *seed*.

    They are counted from 0 again. Without it the root is what the variable
    ``PROCESSION_SEEDS_ROOT`` says, or a random number. Raises `TypeError` or `ValueError` for
    what is not a whole number from 0 on.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"a seed is a whole number, not {seed!r}")
    if seed < 0:
        raise ValueError(f"a seed is not negative: {seed}")
    _place.root = seed
    _place.numbers = itertools.count()


def root() -> int:
    """Return the root seed: write it down to have the same numbers again."""
    if _place.root is None:
        given = os.environ.get(VARIABLE)
        if given is None:
            _place.root = int.from_bytes(os.urandom(_ROOT_BYTES), "little")
        elif given.isdecimal():
            _place.root = int(given)
        else:
            raise ValueError(f"{VARIABLE}={given!r}: a whole number from 0 on is needed")
    return _place.root


def spawn_key() -> tuple[int, ...]:
    """Return the place of this process in its family, empty for the first one.

    With numpy, ``SeedSequence(root(), spawn_key=spawn_key())`` is the sequence of this
    process; generators are made from its children, which ``spawn`` gives.
    """
    return _place.key


def next_child() -> Baggage:
    """Return the root and the place of the next child of this process."""
    return root(), (*_place.key, next(_place.numbers))


def begin(baggage: Baggage) -> None:
    """Take this place, in a child, and seed what is loaded now or will be later."""
    _place.root, _place.key = baggage
    _place.numbers = itertools.count()
    # A forked child has a copy of what its parent left there.
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Seeder)]
    later: dict[str, Callable[[ModuleType], None]] = {}
    for name, seed in (("random", _seed_random), ("numpy.random", _seed_numpy)):
        if name in sys.modules:
            seed(sys.modules[name])
        else:
            later[name] = seed
    if later:
        sys.meta_path.insert(0, _Seeder(later))


def _seed_random(module: ModuleType) -> None:
    module.seed(f"{_place.root}:{_place.key}")


def _seed_numpy(module: ModuleType) -> None:
    sequence = module.SeedSequence(_place.root, spawn_key=_place.key)
    module.seed(sequence.generate_state(_NUMPY_WORDS))


class _Seeder:
    """Seeds modules right after they are imported; finds nothing by itself."""

    def __init__(self, seeds: dict[str, Callable[[ModuleType], None]]) -> None:
        self._seeds = seeds

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders have, with seeding added."""
        seed = self._seeds.get(name)
        if seed is None:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, target)) is not None:
                if spec.loader is not None:
                    spec.loader = _SeedingLoader(spec.loader, seed)  # type: ignore[assignment]
                return spec
        return None


class _SeedingLoader:
    """Loads a module as another loader does, and seeds it."""

    def __init__(self, loader: Any, seed: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._seed = seed

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as the loader does."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module, and seed what it has now."""
        self._loader.exec_module(module)
        self._seed(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
