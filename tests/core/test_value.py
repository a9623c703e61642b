"""Values with named fields: what attrs would make, without attrs."""

from __future__ import annotations

import copy
import pickle

import pytest

from procession._ground.value import Value


class Point(Value):
    """A value with a field that has to be given and one that need not be."""

    x: int
    y: int = 0

    def check(self) -> None:
        """Refuse what lies left of zero."""
        if self.x < 0:
            raise ValueError(f"x must be 0 or more, not {self.x}")


class Pixel(Point):
    """A value with a field more than its base."""

    colour: str = "black"


def test_fields_and_defaults() -> None:
    """A field that is not given is as the class says, for every instance."""
    assert {"x": 1, "y": 0} == Point(x=1).as_dict()
    assert {"x": 1, "y": 2, "colour": "red"} == Pixel(x=1, y=2, colour="red").as_dict()
    assert "Pixel(x=1, y=0, colour='black')" == repr(Pixel(x=1))


def test_wrong_fields_are_named() -> None:
    """A typing error in a plugin's declaration says what there is to declare."""
    with pytest.raises(TypeError, match=r"^Point needs x, and has no z; it has x, y$"):
        Point(z=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^Point needs x$"):
        Point(y=1)  # type: ignore[call-arg]


def test_values_are_checked_when_made_and_when_replaced() -> None:
    """No instance exists whose fields are not what the class promises."""
    with pytest.raises(ValueError, match="x must be 0 or more, not -1"):
        Point(x=-1)
    with pytest.raises(ValueError, match="x must be 0 or more, not -1"):
        Point(x=1).replace(x=-1)
    assert Point(x=3, y=2) == Point(x=1, y=2).replace(x=3)


def test_they_stay_as_they_are() -> None:
    """Whoever reads a value may keep it."""
    point = Point(x=1)

    with pytest.raises(AttributeError, match="'x' of a Point cannot be set"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="'y' of a Point cannot be deleted"):
        del point.y
    assert Point(x=1) == point


def test_they_are_compared_by_class_and_fields() -> None:
    """Two that say the same are one, whether a default was given or not; kinds never mix."""
    assert Point(x=1) == Point(x=1, y=0)
    assert 1 == len({Point(x=1), Point(x=1, y=0)})
    assert Point(x=1) != Point(x=2)
    assert Point(x=1) != Pixel(x=1)
    assert Point(x=1) != (1, 0)


def test_they_are_copied_and_pickled() -> None:
    """A copy is equal, and as constant as the original."""
    for copied in (copy.deepcopy(Pixel(x=1)), pickle.loads(pickle.dumps(Pixel(x=1)))):
        assert Pixel(x=1) == copied
        with pytest.raises(AttributeError):
            copied.x = 2  # type: ignore[misc]
