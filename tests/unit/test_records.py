"""Records behave as frozen dataclasses do, however few or many values a class has."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from functools import cached_property
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.records import FEW, Struct, StructType, astuple, field, replace


class Point(Struct, frozen=True):
    """Two numbers and a name."""

    x: int
    y: int = 7
    name: str = "p"
    count: ClassVar[int] = 3


class Labelled(Point, frozen=True, kw_only=True):
    """A point with keywords."""

    label: bytes
    tags: list[int] = field(default_factory=lambda: [1])


class Quick(Struct, frozen=True, checked=False):
    """As a class of many values."""

    x: int
    y: int = 7


class Open(Struct):
    """A value that changes."""

    x: int
    seen: set[int] = field(default_factory=set)
    names: list[int] = []  # noqa: RUF012 - each value gets its own


class Alone(Struct, frozen=True, eq=False):
    """A value that equals itself."""

    x: int


class Kept(Struct, frozen=True, dict=True):
    """A value with a cached property."""

    x: int

    @cached_property
    def double(self) -> int:
        """Twice the number."""
        return 2 * self.x


class Checked(Struct):
    """A value that looks at its fields."""

    x: int

    def __post_init__(self) -> None:
        """Refuse numbers below 0."""
        if self.x < 0:
            raise ValueError("below 0")


ROUNDS = [pytest.param(0, id="few"), pytest.param(FEW, id="many")]
"""How many values there are before."""


@pytest.mark.parametrize("before", ROUNDS)
def test_fields_defaults_and_keywords(before: int) -> None:
    class Fresh(Struct, frozen=True):
        """A class without values."""

        x: int
        y: int = 7
        tags: list[int] = field(default_factory=list)

    class FreshLabelled(Fresh, frozen=True, kw_only=True):
        """One with a keyword in front of defaults."""

        label: bytes
        z: int = 1

    for _ in range(before):
        Fresh(1)
        FreshLabelled(1, label=b"")
    assert astuple(Fresh(1)) == (1, 7, [])
    assert astuple(Fresh(1, 2, [3])) == astuple(Fresh(tags=[3], y=2, x=1)) == (1, 2, [3])
    assert Fresh(1).tags is not Fresh(1).tags
    assert astuple(FreshLabelled(1, label=b"l")) == (1, 7, [], b"l", 1)
    make: Any = Fresh
    make_labelled: Any = FreshLabelled
    wrong_arguments: tuple[Any, ...] = ((), (1, 2, [], 4))
    for wrong in wrong_arguments:
        with pytest.raises(TypeError):
            make(*wrong)
    with pytest.raises(TypeError):
        make(1, x=1)
    with pytest.raises(TypeError):
        make(1, w=1)
    with pytest.raises(TypeError):
        make_labelled(1, 2, [], b"l")
    with pytest.raises(AttributeError):
        Fresh(1).x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del Fresh(1).x


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.sampled_from([Point, Quick, Open, Alone]))
def test_equality_and_hash(left: int, right: int, cls: Any) -> None:
    first, second = cls(left), cls(right)
    assert (first == second) == (cls is not Alone and left == right)
    assert first == first  # noqa: PLR0124 - that is the question
    if cls is Open:
        with pytest.raises(TypeError):
            hash(first)
    elif first == second:
        assert hash(first) == hash(second)
    assert Point(left) != object()
    quick: Any = Quick(left)
    assert Point(left) != quick


@pytest.mark.parametrize(
    "value", [Point(1), Labelled(1, label=b"x"), Quick(1, 2), Open(3), Kept(4)], ids=lambda value: type(value).__name__
)
def test_copies_are_equal(value: Struct) -> None:
    for same in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value), replace(value)):
        assert same == value
        assert type(same) is type(value)
        assert repr(same) == repr(value)


def test_replace_changes_fields_and_checks_them() -> None:
    assert replace(Point(1), y=9) == Point(1, 9)
    assert replace(Labelled(1, label=b"x"), label=b"y").label == b"y"
    with pytest.raises(TypeError, match="Point has no field 'z'"):
        replace(Point(1), z=9)
    with pytest.raises(ValueError, match="below 0"):
        replace(Checked(1), x=-1)
    for _ in range(FEW + 2):
        with pytest.raises(ValueError, match="below 0"):
            Checked(-1)


def test_annotations_may_be_types() -> None:
    names = {"__annotations__": {"x": int, "count": ClassVar[int]}, "__module__": __name__}
    cls: Any = StructType("Typed", (Struct,), names, frozen=True)
    assert astuple(cls(5)) == (5,)


def test_what_a_class_has() -> None:
    assert Point.__struct_fields__ == Point.__match_args__ == ("x", "y", "name")
    assert Labelled.__struct_fields__ == ("x", "y", "name", "label", "tags")
    assert Point.count == 3
    assert not hasattr(Point(1), "__dict__")
    assert repr(Point(1)) == "Point(x=1, y=7, name='p')"
    kept = Kept(4)
    assert kept.double == 8
    with pytest.raises(AttributeError):
        kept.x = 5  # type: ignore[misc]
    opened = Open(1)
    opened.x = 2
    opened.names.append(1)
    assert opened.x == 2
    assert Open(1).names == []


def test_a_class_without_fields_loads_no_annotations() -> None:
    """Python 3.14 reads annotations with a module that loads `ast`."""
    program = (
        "import sys\nfrom cosremaster.records import Struct\nclass Mark(Struct): 'Nothing.'\n"
        "print({'annotationlib', 'ast'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
