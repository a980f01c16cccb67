"""Records: classes that are nothing but their fields, and quick to define. The whole house takes them from here.

``dataclasses.dataclass`` compiles six functions for each class, before any value is made; a run defines some 300
classes and makes few values of most. Here nothing is compiled when a class is defined. The first values are filled in
field by field; the ``__init__`` of a class that gets many is compiled then.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

__all__ = ["NumberRange", "Struct", "astuple", "field", "replace"]

_T = TypeVar("_T")
_MISSING: Any = type("_Missing", (), {})()
_NO_KEYWORDS: frozenset[str] = frozenset()

FEW = 40
"""To compile an ``__init__`` takes as long as to fill in so many values without."""

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[type], type]:
        """Return a decorator that changes nothing: type checkers alone look at it (PEP 681)."""
        return lambda cls: cls


class Factory:
    """The default of a field that is made anew for each value."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Any]) -> None:
        """Remember what makes it."""
        self.make = make


class NumberRange:
    """What a number may be (:mod:`cosremaster.records.json`): ``ge`` at least, ``le`` at most, ``lt`` less than."""

    __slots__ = ("ge", "le", "lt")

    def __init__(self, *, ge: int | None = None, le: int | None = None, lt: int | None = None) -> None:
        """Remember the bounds; None: without."""
        self.ge, self.le, self.lt = ge, le, lt

    def hold(self, value: int) -> bool:
        """Return whether ``value`` is within."""
        return (
            (self.ge is None or value >= self.ge)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )


def field(*, default: Any = _MISSING, default_factory: Any = None) -> Any:
    """Return the default of a field, which ``default_factory`` makes anew for each value."""
    return Factory(default_factory) if default is _MISSING else default


@dataclass_transform(field_specifiers=(field,))
class StructType(type):
    """The class of classes of records.

    Options of a class, which its subclasses have too:

    - ``frozen``: fields cannot be assigned, and a value has a hash.
    - ``checked``: False leaves that to the type checker, and a value is made in half the time: for classes of which an
      image has hundreds of thousands of values.
    - ``eq``: False where a value equals itself alone.
    - ``dict``: values have a ``__dict__``, where cached properties are kept.
    - ``forbid_unknown_fields`` and ``omit_defaults``: for JSON (:mod:`cosremaster.records.json`).

    ``kw_only``: the fields of this class alone are keywords.
    """

    __struct_fields__: tuple[str, ...]
    __struct_defaults__: dict[str, Any]
    __struct_keywords__: frozenset[str]
    __struct_options__: dict[str, bool]

    def __new__(
        cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, kw_only: bool = False, **options: bool
    ) -> StructType:
        """Return a class whose fields are those of its bases and its own annotations."""
        fields: list[str] = []
        defaults: dict[str, Any] = {}
        keywords: frozenset[str] = _NO_KEYWORDS
        inherited: dict[str, bool] = {}
        for base in reversed(bases):
            if isinstance(base, StructType) and (base.__struct_fields__ or base.__struct_options__):
                fields += [field for field in base.__struct_fields__ if field not in fields]
                defaults.update(base.__struct_defaults__)
                keywords |= base.__struct_keywords__
                inherited.update(base.__struct_options__)
        own = [field for field, kind in annotations_in(namespace).items() if "ClassVar[" not in str(kind)]
        for field in own:
            if field in namespace:
                defaults[field] = _as_default(namespace.pop(field))
        slots = [field for field in own if field not in fields] if fields else own.copy()
        if inherited:
            options = {**inherited, **options}
        if "dict" in options and options["dict"] and not inherited.get("dict"):
            slots.append("__dict__")
        fields = [field for field in fields if field not in own] + own if fields else own
        if kw_only:
            keywords = keywords.union(own)
        if keywords:
            fields.sort(key=keywords.__contains__)
        namespace.update(
            __slots__=tuple(slots), __struct_fields__=tuple(fields), __struct_defaults__=defaults,
            __struct_keywords__=keywords, __struct_options__=options, __match_args__=tuple(fields),
        )  # fmt: skip
        _add_methods(namespace, options)
        made = super().__new__(cls, name, bases, namespace)
        if "__init__" not in namespace and fields:
            made.__init__ = _first_initializer(made)  # type: ignore[misc]
        return made

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **_: bool) -> None:
        """Take the options, which the class has."""
        super().__init__(name, bases, namespace)


_ANNOTATING = frozenset(("__annotate__", "__annotate_func__"))
"""What a class with annotations has without "from __future__ import annotations" (PEP 649)."""


def annotations_in(namespace: dict[str, Any]) -> dict[str, Any]:
    """Return the annotations in the ``namespace`` of a class, as text or as types."""
    annotations: dict[str, Any] | None = namespace.get("__annotations__")
    if annotations is None and sys.version_info >= (3, 14) and not _ANNOTATING.isdisjoint(namespace):
        import annotationlib  # noqa: PLC0415 - Python 3.14 has it

        annotate = annotationlib.get_annotate_from_class_namespace(namespace)
        if annotate is not None:
            annotations = annotationlib.call_annotate_function(annotate, annotationlib.Format.FORWARDREF)
    return annotations or {}


def _as_default(value: Any) -> Any:
    """Return the default ``value``; empty lists, dictionaries and sets are made anew for each value."""
    return Factory(type(value)) if type(value) in (list, dict, set) else value


def _add_methods(namespace: dict[str, Any], options: dict[str, bool]) -> None:
    """Add to the ``namespace`` of a class what its ``options`` ask for, unless it has its own."""
    is_frozen = options.get("frozen", False)
    if options.get("eq", True):
        if "__eq__" not in namespace:
            namespace["__eq__"] = _is_equal
        namespace.setdefault("__hash__", _hash if is_frozen else None)
    else:
        namespace.setdefault("__eq__", object.__eq__)
        namespace.setdefault("__hash__", object.__hash__)
    if is_frozen and options.get("checked", True):
        namespace["__setattr__"], namespace["__delattr__"] = _refuse_assignment, _refuse_deletion


def _first_initializer(cls: StructType) -> Callable[..., None]:
    """Return an ``__init__`` for ``cls`` that needs no compiling, and puts a compiled one in its place in time."""
    waiting = FEW

    def initialize(self: Any, *arguments: Any, **values: Any) -> None:
        """Set the fields of ``self``."""
        nonlocal waiting
        waiting -= 1
        if waiting < 0 or not _fill(cls, self, arguments, values):  # the compiled one says what is wrong
            cls.__init__ = compiled = _compile_initializer(cls)  # type: ignore[misc]
            compiled(self, *arguments, **values)

    initialize.__name__ = "__init__"
    initialize.__qualname__ = f"{cls.__qualname__}.__init__"
    return initialize


def _fill(cls: StructType, record: Any, arguments: tuple[Any, ...], values: dict[str, Any]) -> bool:
    """Set the fields of ``record``; return False where the arguments are not those of ``cls``."""
    fields, defaults, assign = cls.__struct_fields__, cls.__struct_defaults__, object.__setattr__
    if len(arguments) > len(fields) - len(cls.__struct_keywords__):
        return False
    count = len(arguments)
    for name, value in zip(fields, arguments, strict=False):
        assign(record, name, value)
    for name in fields[count:]:
        if name in values:
            value, count = values[name], count + 1
        elif (value := defaults.get(name, _MISSING)) is _MISSING:
            return False
        elif type(value) is Factory:
            value = value.make()
        assign(record, name, value)
    if count != len(arguments) + len(values):
        return False
    if hasattr(cls, "__post_init__"):
        record.__post_init__()
    return True


def _compile_initializer(cls: StructType) -> Callable[..., None]:
    """Return the ``__init__`` of ``cls``."""
    fields, defaults, keywords = cls.__struct_fields__, cls.__struct_defaults__, cls.__struct_keywords__
    is_checked = cls.__struct_options__.get("frozen", False) and cls.__struct_options__.get("checked", True)
    names: dict[str, Any] = {"_missing": _MISSING}
    parameters, lines = ["self"], list[str]()
    for name in fields:
        if name in keywords and "*" not in parameters:
            parameters.append("*")
        default, value = defaults.get(name, _MISSING), name
        if type(default) is Factory:
            names[f"_make_{name}"] = default.make
            parameters.append(f"{name}=_missing")
            value = f"_make_{name}() if {name} is _missing else {name}"
        elif default is _MISSING:
            parameters.append(name)
        else:
            names[f"_default_{name}"] = default
            parameters.append(f"{name}=_default_{name}")
        if is_checked:
            names[f"_set_{name}"] = getattr(cls, name).__set__
            lines.append(f"    _set_{name}(self, {value})")
        else:
            lines.append(f"    self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("    self.__post_init__()")
    source = "\n".join((f"def __init__({', '.join(parameters)}):", *lines))
    exec(source, names)  # noqa: S102 - made of the names of fields
    compiled: Callable[..., None] = names["__init__"]
    compiled.__qualname__ = f"{cls.__qualname__}.__init__"
    return compiled


@cache
def _values_of(cls: Any) -> Callable[[Any], Any]:
    """Return what returns the values of all fields of a record of ``cls``: a tuple, or the value of the only field."""
    return attrgetter(*cls.__struct_fields__) if cls.__struct_fields__ else lambda _: ()


def _is_equal(self: Any, other: Any) -> Any:
    """Return whether both have the same class and the same values."""
    if type(self) is not type(other):
        return NotImplemented
    values_of: Callable[[Any], Any] = _values_of(self.__class__)
    return values_of(self) == values_of(other)


def _hash(self: Any) -> int:
    """Return the hash of the values."""
    return hash(_values_of(self.__class__)(self))


def _refuse_assignment(self: Any, name: str, value: object) -> None:
    """Refuse to set a field. :raises AttributeError: always."""
    raise AttributeError(f"{type(self).__name__}.{name} cannot be assigned")


def _refuse_deletion(self: Any, name: str) -> None:
    """Refuse to delete a field. :raises AttributeError: always."""
    raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted")


def _load(cls: Any, values: tuple[Any, ...]) -> Any:
    """Return the record of ``cls`` with these ``values``."""
    record = cls.__new__(cls)
    for name, value in zip(cls.__struct_fields__, values, strict=True):
        object.__setattr__(record, name, value)
    return record


class Struct(metaclass=StructType):
    """A record: its subclasses name their fields by annotations, as dataclasses do; see :class:`StructType`."""

    if TYPE_CHECKING:
        __struct_fields__: ClassVar[tuple[str, ...]]

    def __repr__(self) -> str:
        """Return class, fields and values."""
        fields = ", ".join([f"{name}={getattr(self, name)!r}" for name in type(self).__struct_fields__])
        return f"{type(self).__name__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how pickle and copy make the same record."""
        return _load, (type(self), astuple(self))


def astuple(record: Struct) -> tuple[Any, ...]:
    """Return the values of the fields, in their order."""
    return tuple([getattr(record, name) for name in type(record).__struct_fields__])


_S = TypeVar("_S", bound=Struct)


def replace(record: _S, /, **changes: Any) -> _S:
    """Return a record like ``record`` with these fields changed. :raises TypeError: it has no such field."""
    cls: Any = type(record)
    values = [changes.pop(name) if name in changes else getattr(record, name) for name in cls.__struct_fields__]
    if changes:
        raise TypeError(f"{cls.__name__} has no field {min(changes)!r}")
    made: _S = _load(cls, tuple(values))
    if hasattr(cls, "__post_init__"):
        made.__post_init__()  # type: ignore[attr-defined]
    return made
