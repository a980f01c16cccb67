"""Named tuples that are quick to define, for the values that are made most often: a tuple takes least.

``typing.NamedTuple`` compiles every annotation, and a constructor before any value is made; that takes five times as
long, and the first compiling of an annotation as long as loading 30 modules. What callers see is the same.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from cosremaster.records import FEW, annotations_in

__all__ = ["NamedTuple"]

_make_getter: Any = getattr(collections, "_tuplegetter", lambda index, doc: property(itemgetter(index), doc=doc))
"""What makes the attribute of a field; Python's own is the quickest to read."""

if TYPE_CHECKING:
    from typing import NamedTuple
else:

    class _NamedTupleType(type):
        """What turns the body of a class, whose annotations are the fields, into a class of tuples."""

        def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
            """Return the class ``name``, which is an ordinary one: its subclasses are as their bodies say."""
            return _define(name, namespace) if bases else super().__new__(cls, name, bases, namespace)

    class NamedTuple(metaclass=_NamedTupleType):
        """A tuple whose items have names, those of the annotations, as :class:`typing.NamedTuple`."""


def _define(name: str, namespace: dict[str, Any]) -> type:
    """Return the class of tuples ``name``. :raises TypeError: a field without a default stands behind one with it."""
    fields = tuple(annotations_in(namespace))
    defaults = {field: namespace[field] for field in fields if field in namespace}
    if tuple(defaults) != fields[len(fields) - len(defaults) :]:
        raise TypeError(f"{name}: a field without a default follows one with a default")
    attributes = {field: _make_getter(index, f"Alias for field number {index}") for index, field in enumerate(fields)}
    made = type(name, (tuple,), {
        **_SHARED, **namespace, **attributes, "__slots__": (), "_fields": fields, "_field_defaults": defaults,
        "__match_args__": fields,
    })  # fmt: skip
    made.__new__ = _first_constructor(made)  # type: ignore[method-assign]
    return made


def _first_constructor(made: Any) -> Callable[..., Any]:
    """Return a ``__new__`` for the class ``made`` that needs no compiling, and puts a compiled one in its place."""
    waiting, fields, defaults = FEW, made._fields, made._field_defaults

    def construct(cls: Any, /, *values: Any, **named: Any) -> Any:
        """Return the tuple of ``values`` and ``named`` ones."""
        nonlocal waiting
        waiting -= 1
        missing = fields[len(values) :]
        known = {**defaults, **named}
        if waiting >= 0 and len(values) + len(missing) == len(fields) and named.keys() <= set(missing) <= known.keys():
            return tuple.__new__(cls, (*values, *[known[field] for field in missing]))
        made.__new__ = compiled = _compile_constructor(made)  # it says what is wrong
        return compiled(cls, *values, **named)

    construct.__name__ = "__new__"
    construct.__qualname__ = f"{made.__qualname__}.__new__"
    return construct


def _compile_constructor(made: Any) -> Callable[..., Any]:
    """Return the ``__new__`` of the class ``made``."""
    names = "".join(f"{field}, " for field in made._fields)
    compiled: Any = eval(f"lambda _cls, {names}: _new(_cls, ({names}))", {"_new": tuple.__new__})  # noqa: S307 - of names of fields
    compiled.__defaults__ = tuple(made._field_defaults.values())
    compiled.__name__ = "__new__"
    compiled.__qualname__ = f"{made.__qualname__}.__new__"
    constructor: Callable[..., Any] = compiled
    return constructor


def _make(cls: Any, values: Any) -> Any:
    """Return the tuple of all ``values``. :raises TypeError: there are more or fewer than fields."""
    made = tuple.__new__(cls, values)
    if len(made) != len(cls._fields):
        raise TypeError(f"Expected {len(cls._fields)} arguments, got {len(made)}")
    return made


def _replace(self: Any, /, **changes: Any) -> Any:
    """Return a tuple like ``self`` with these fields changed. :raises ValueError: it has no such field."""
    made = self._make([changes.pop(field, value) for field, value in zip(self._fields, self, strict=True)])
    if changes:
        raise ValueError(f"Got unexpected field names: {list(changes)!r}")
    return made


def _as_dictionary(self: Any) -> dict[str, Any]:
    """Return the values by the names of their fields."""
    return dict(zip(self._fields, self, strict=True))


def _represent(self: Any) -> str:
    """Return class, fields and values."""
    values = ", ".join([f"{field}={value!r}" for field, value in zip(self._fields, self, strict=True)])
    return f"{type(self).__name__}({values})"


def _new_arguments(self: Any) -> tuple[Any, ...]:
    """Return what pickle and copy make the same tuple of."""
    return tuple(self)


_SHARED: dict[str, Any] = {
    "_make": classmethod(_make), "_replace": _replace, "__replace__": _replace, "_asdict": _as_dictionary,
    "__repr__": _represent, "__getnewargs__": _new_arguments,
}  # fmt: skip
"""What each class gets that does not define it itself."""
