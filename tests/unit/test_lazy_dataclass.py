"""A quick dataclass is to its callers what one of the standard library is."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import subprocess
import sys
import typing
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from cosremaster.overlay.request import AddPath
from cosremaster.records import lazy_dataclass
from cosremaster.records.lazy_dataclass import dataclass as quick


class Base:
    """A base without fields, as items of overlays have."""

    __slots__ = ()


def define(decorator: Callable[..., Any], field: Callable[..., Any]) -> tuple[Any, Any]:
    """Return a class with positional fields, and one with fields by name that inherits others."""

    @decorator(frozen=True, slots=True)
    class Point(Base):
        """A point."""

        kinds: ClassVar[tuple[str, ...]] = ("point",)
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

        kinds: ClassVar[tuple[str, ...]] = ("named",)
        size: int
        label: str = ""

    @decorator(frozen=True, slots=True, kw_only=True)
    class Child(Named):
        """More of them."""

        points: tuple[int, ...] = ()

    return Point, Child


REPLACE: Callable[..., Any] = getattr(copy, "replace", dataclasses.replace)
"""From Python 3.13 on there is a protocol for it."""

QUICK, STANDARD = define(quick, lazy_dataclass.field), define(dataclasses.dataclass, dataclasses.field)


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
        lambda point, child: (point.__match_args__, child.__match_args__),
        lambda point, child: (point.__slots__, child.__slots__[-1:]),  # Python 3.10 repeats those of the base
        lambda _, child: [
            (entry.name, entry.type, entry.default, entry.kw_only, entry.init, entry.hash, dict(entry.metadata))
            for entry in dataclasses.fields(child(size=1))
        ],
        lambda point, _: [
            (entry.default, entry.default_factory, entry.repr, entry.compare, entry.kw_only)
            for entry in dataclasses.fields(point)
        ],
        lambda point, child: (dataclasses.is_dataclass(point), dataclasses.is_dataclass(child(size=1))),
        lambda point, child: dataclasses.astuple(point(1, names=[child(size=1)])),
        lambda point, _: point(1, 2, x=1),
        lambda point, _: point(y=1),
        lambda _, child: typing.get_type_hints(child),
        lambda point, child: (point.kinds, child.kinds, hasattr(point, "x"), hasattr(point, "y")),
        lambda point, _: point.__annotations__,
        lambda point, _: repr(REPLACE(point(1, note="b"), y=5)),
        lambda point, _: REPLACE(point(1), z=5),
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


@dataclasses.dataclass(frozen=True)
class Tagged(AddPath):
    """An addition with a tag."""

    tag: str = ""


@pytest.mark.parametrize("item", [AddPath("site", "/opt", owner="root"), Tagged("site", tag="a")])
def test_a_value_goes_through_pickle(item: AddPath) -> None:
    again = pickle.loads(pickle.dumps(item))
    assert again == item and repr(again) == repr(item)


def test_a_value_with_changes_keeps_what_a_subclass_adds() -> None:
    assert lazy_dataclass.replace(Tagged("site", tag="a"), dest="/opt") == Tagged("site", "/opt", tag="a")
    assert lazy_dataclass.replace(AddPath("site", owner="root"), dest="/") == AddPath("site", "/", owner="root")
    with pytest.raises(TypeError, match="destination"):
        lazy_dataclass.replace(AddPath("site"), destination="/")  # type: ignore[call-arg]


def test_what_runs_after_the_constructor_runs() -> None:
    @quick(frozen=True, slots=True)
    class Checked:
        """A number that is not negative."""

        number: int

        def __post_init__(self) -> None:
            """Check it."""
            if self.number < 0:
                raise ValueError("negative")

    assert Checked(1).number == 1
    with pytest.raises(ValueError, match="negative"):
        Checked(-1)


@pytest.mark.parametrize("default", [[], {}, dataclasses.field(default=1)], ids=["list", "dictionary", "field"])
def test_a_default_that_is_none_is_refused(default: Any) -> None:
    with pytest.raises(TypeError, match=r"^names: .* is no default here; use field\(\) of this module$"):
        quick(frozen=True, slots=True)(type("Quick", (), {"__annotations__": {"names": "list"}, "names": default}))


def test_values_need_no_dataclasses_of_the_standard_library() -> None:
    """They take as long to load as a listing of a small image; whoever asks for the fields has them."""
    program = """
import sys
from cosremaster.records.lazy_dataclass import dataclass, field, field_names, replace

@dataclass(frozen=True, slots=True)
class Point:
    x: int
    names: list[str] = field(default_factory=list)

point = replace(Point(1, names=["a"]), x=2)
match point:
    case Point(x, names):
        assert (x, names) == (2, ["a"])
assert point == Point(2, ["a"]) != Point(2) and repr(point) == "Point(x=2, names=['a'])"
assert field_names(Point) == ("x", "names")
print(sorted({"dataclasses", "inspect", "copy"} & set(sys.modules)))
import dataclasses
print(*(entry.name for entry in dataclasses.fields(point)), dataclasses.asdict(point))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nx names {'x': 2, 'names': ['a']}\n"


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
