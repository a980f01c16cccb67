"""A quick dataclass is to its callers what one of the standard library is."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import field
from typing import Any

import pytest

from cosremaster.lazy_dataclass import dataclass as quick
from cosremaster.overlay.request import AddPath


class Base:
    """A base without fields, as items of overlays have."""

    __slots__ = ()


def define(decorator: Callable[..., Any]) -> tuple[Any, Any]:
    """Return a class with positional fields, and one with fields by name that inherits others."""

    @decorator(frozen=True, slots=True)
    class Point(Base):
        """A point."""

        x: int
        y: int = 2
        names: list[str] = field(default_factory=list)
        note: str = field(default="n", repr=False, compare=False)

        def twice(self) -> int:
            """Return twice ``x``."""
            return 2 * self.x

    @decorator(frozen=True, slots=True, kw_only=True)
    class Named:
        """Named fields."""

        size: int
        label: str = ""

    @decorator(frozen=True, slots=True, kw_only=True)
    class Child(Named):
        """More of them."""

        points: tuple[int, ...] = ()

    return Point, Child


QUICK, STANDARD = define(quick), define(dataclasses.dataclass)


def outcome(function: Callable[[], Any]) -> Any:
    """Return what ``function`` returns, or the class of its error."""
    try:
        return function()
    except Exception as error:
        return type(error)


@pytest.mark.parametrize(
    "use",
    [
        lambda point, _: repr(point(1)),
        lambda point, _: repr(point(1, names=["a"])),
        lambda _, child: repr(child(size=1, points=(1,))),
        lambda point, _: (point(1) == point(1), point(1) == point(2), point(1, note="a") == point(1), point(1) != 1),
        lambda point, child: point(1) == child(size=1),
        lambda _, child: hash(child(size=1, label="a", points=(3,))),
        lambda point, _: hash(point(1)),
        lambda point, _: point(),
        lambda point, _: point(1, 2, [], "", 5),
        lambda point, _: point(1, x=2),
        lambda point, _: point(1, z=2),
        lambda _, child: child(1),
        lambda point, _: setattr(point(1), "x", 2),
        lambda point, _: delattr(point(1), "x"),
        lambda point, _: str(inspect.signature(point)),
        lambda _, child: str(inspect.signature(child)),
        lambda point, _: dataclasses.asdict(point(1)),
        lambda point, _: repr(dataclasses.replace(point(1), y=5)),
        lambda point, _: dataclasses.replace(point(1), z=5),
        lambda point, _: [entry.name for entry in dataclasses.fields(point)],
        lambda point, child: (point.__match_args__, child.__match_args__, point.__slots__, child.__slots__),
        lambda point, _: point(1).names is point(1).names,
        lambda point, _: point(4).twice(),
        lambda _, child: repr(copy.copy(child(size=1))),
        lambda point, _: repr(copy.deepcopy(point(1, names=["a"]))),
        lambda point, _: hasattr(point(1), "__dict__"),
        lambda point, _: (point.__doc__, point.__name__),
    ],
)
def test_a_quick_dataclass_does_what_a_standard_one_does(use: Callable[[Any, Any], Any]) -> None:
    assert outcome(lambda: use(*QUICK)) == outcome(lambda: use(*STANDARD))


def test_a_frozen_dataclass_of_the_standard_library_may_inherit_from_a_quick_one() -> None:
    @dataclasses.dataclass(frozen=True)
    class Tagged(AddPath):
        """An addition with a tag."""

        tag: str = ""

    tagged = Tagged("site", tag="a")
    assert (tagged.source, tagged.tag, tagged.dest) == ("site", "a", AddPath("site").dest)
    with pytest.raises(dataclasses.FrozenInstanceError):
        tagged.tag = "b"  # type: ignore[misc]


def test_a_plain_subclass_may_have_a_constructor_and_attributes_of_its_own() -> None:
    class Marked(AddPath):
        """An addition with a mark."""

        def __init__(self, mark: str) -> None:
            """Add ``site``."""
            super().__init__("site", owner="root")
            self.mark = mark

    marked = Marked("a")
    assert (marked.mark, marked.source, marked.owner) == ("a", "site", "root")
    assert list(inspect.signature(Marked).parameters) == ["mark"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        marked.source = "b"  # type: ignore[misc]


def test_errors_name_the_class() -> None:
    with pytest.raises(TypeError, match=r"^AddPath.__init__\(\) got an unexpected keyword argument 'destination'$"):
        AddPath("site", destination="/")  # type: ignore[call-arg]


def test_a_value_goes_through_pickle() -> None:
    item = AddPath("site", "/opt", owner="root")
    assert pickle.loads(pickle.dumps(item)) == item


def test_defining_a_class_compiles_no_method(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.13 on the standard library compiles a function that makes methods, here none, for each class."""
    compiled: list[str] = []
    compile_text = exec

    def note(text: str, *arguments: Any) -> None:
        """Compile ``text``, and note it."""
        compiled.append(text)
        compile_text(text, *arguments)

    monkeypatch.setattr("builtins.exec", note)
    quick(frozen=True, slots=True)(type("Quick", (), {"__annotations__": {"x": "int"}, "__doc__": "A class."}))
    assert not any("self" in text for text in compiled)
    dataclasses.dataclass(frozen=True)(type("Plain", (), {"__annotations__": {"x": "int"}, "__doc__": "A class."}))
    assert any("self" in text for text in compiled)
