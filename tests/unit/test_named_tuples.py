"""Named tuples of our own behave as those of typing do, however few or many values a class has."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import typing

import pytest

from cosremaster.records import FEW
from cosremaster.records.tuples import NamedTuple


class Pair(NamedTuple):
    """Two values, of which one has a default."""

    x: int
    name: str = "n"

    def doubled(self) -> int:
        """Return twice the number."""
        return 2 * self.x


class Longer(Pair):
    """A subclass, as a class of tuples may have."""

    __slots__ = ()

    def doubled(self) -> int:
        """Return one more than the class above."""
        return super().doubled() + 1


class Theirs(typing.NamedTuple):
    """As :class:`Pair`."""

    x: int
    name: str = "n"


@pytest.mark.parametrize("count", [1, FEW + 2])
def test_they_are_as_those_of_typing(count: int) -> None:
    for number in range(count):
        pair = Pair(number)
        assert pair == (number, "n") == Theirs(number) and hash(pair) == hash(Theirs(number))
        assert repr(pair).replace("Pair", "Theirs") == repr(Theirs(number))
        assert Pair(name="m", x=number) == Pair(number, "m") == pair._replace(name="m")
        assert (pair.x, pair.name, pair.doubled()) == (number, "n", 2 * number)
        assert pair._asdict() == Theirs(number)._asdict() and Pair._make(pair) == pair
        for made in (copy.copy(pair), copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
            assert made == pair and type(made) is Pair
        longer = Longer(number)
        assert type(longer) is Longer and longer.doubled() == 2 * number + 1
    for name in ("_fields", "_field_defaults", "__match_args__"):
        assert getattr(Pair, name) == getattr(Theirs, name)
    assert type(Pair) is type and Pair.__mro__[1:] == (tuple, object) and not hasattr(pair, "__dict__")


@pytest.mark.parametrize(
    "make",
    [
        lambda cls: cls(),
        lambda cls: cls(1, "n", 2),
        lambda cls: cls(1, y=2),
        lambda cls: cls(1, x=2),
        lambda cls: cls(name="n"),
        lambda cls: cls._make([1]),
    ],
)
def test_wrong_arguments_are_refused(make: typing.Callable[[typing.Any], object]) -> None:
    for _ in range(2):
        for cls in (Pair, Theirs):
            with pytest.raises(TypeError):
                make(cls)
    assert Pair(1) == (1, "n")


def test_other_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match="y"):
        Pair(1)._replace(y=2)  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Pair(1).x = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="default"):
        exec("class Wrong(NamedTuple):\n  x: int = 1\n  y: int", {"NamedTuple": NamedTuple, "__name__": __name__})


def test_to_define_one_compiles_nothing() -> None:
    """The first call of compile() makes some hundred classes for the nodes of a syntax tree."""
    program = (
        "import builtins; compile_source = compile\n"
        "def refuse(source, name, mode, *rest, **options):\n"
        "    assert mode == 'exec'  # a module without bytecode\n"
        "    return compile_source(source, name, mode, *rest, **options)\n"
        "builtins.compile = refuse; import cosremaster.api.image, cosremaster.browse.container, cosremaster.iso.read"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
