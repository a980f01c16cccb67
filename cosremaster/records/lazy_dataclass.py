"""Frozen dataclasses that are quick to define, for values that a run makes few of.

``dataclasses.dataclass(frozen=True, slots=True)`` compiles six functions for each class, which takes 1.2 ms; here all
classes share the same, and that is 0.03 ms. ``dataclasses`` itself, and ``inspect``, take as long to load as a listing
of a small image: they are loaded when somebody asks for what they alone know (:class:`_Standard`,
:class:`_Signature`). What callers see is the same: fields, signature, equality, hash, pickling, and errors. Making a
value takes some 3 µs more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from cosremaster.records import annotations_in

if TYPE_CHECKING:
    from inspect import Signature

__all__ = ["dataclass", "field", "field_names", "replace"]

_T = TypeVar("_T")
_MISSING: Any = type("_Missing", (), {})()
_MADE_BY_FACTORY = type("_Factory", (), {"__repr__": lambda _: "<factory>"})()
"""The default of a parameter in a signature, where each value gets a default of its own."""

_FIELDS = "__lazy_fields__"
"""The attribute of a class that has its fields by name, with those that it inherits."""


class _Field:
    """A field: its annotation, and what :func:`dataclasses.field` takes."""

    __slots__ = ("default", "default_factory", "is_compared", "is_shown", "kind", "kw_only", "name")

    def __init__(self, default: Any, default_factory: Any, *, is_shown: bool, is_compared: bool) -> None:
        """Remember them; ``default`` and ``default_factory`` are _MISSING where there is none."""
        self.name, self.kind, self.kw_only = "", None, False
        self.default, self.default_factory = default, default_factory
        self.is_shown, self.is_compared = is_shown, is_compared


if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
else:

    def field(
        *, default: Any = _MISSING, default_factory: Any = _MISSING,
        repr: bool = True, compare: bool = True,  # noqa: A002 - as dataclasses
    ) -> Any:  # fmt: skip
        """Return a field, as :func:`dataclasses.field` does."""
        return _Field(default, default_factory, is_shown=repr, is_compared=compare)

    def dataclass(*, frozen: bool, slots: bool, kw_only: bool = False) -> Callable[[type[_T]], type[_T]]:
        """Return what makes a class a dataclass, as :func:`dataclasses.dataclass` does, which type checkers see.

        ``frozen`` and ``slots`` are always true.
        """
        return lambda cls: _define(cls, kw_only)

    def replace(value: _T, /, **changes: Any) -> _T:
        """Return a value like ``value`` with these fields changed, as :func:`dataclasses.replace` does."""
        if type(value).__init__ is _initialize:
            return value.__class__(**{name: getattr(value, name) for name in _fields_of(value)} | changes)
        import dataclasses  # noqa: PLC0415 - a subclass with a constructor of its own may have fields of its own

        return dataclasses.replace(value, **changes)


def _define(cls: type[_T], kw_only: bool) -> type[_T]:
    """Return ``cls`` as a dataclass: a new class, as slots cannot be added. :raises TypeError: it is not for this."""
    namespace = dict(vars(cls))
    fields: dict[str, _Field] = {}
    for base in reversed(cls.__mro__[1:]):
        fields.update(vars(base).get(_FIELDS, {}))
    own = {name: kind for name, kind in annotations_in(namespace).items() if "ClassVar[" not in str(kind)}
    slots = tuple(name for name in own if name not in fields)
    for name, kind in own.items():
        fields[name] = _complete(namespace.pop(name, _MISSING), name, kind, kw_only)
    for name in ("__dict__", "__weakref__"):
        namespace.pop(name, None)
    namespace = {
        **_SHARED, "__dataclass_fields__": _Standard(kw_only), "__dataclass_params__": _Standard(kw_only), **namespace,
        "__slots__": slots, _FIELDS: fields,
        "__match_args__": tuple(name for name, value in fields.items() if not value.kw_only),
    }  # fmt: skip
    made: type[_T] = type.__call__(type(cls), cls.__name__, cls.__bases__, namespace)
    made.__qualname__ = cls.__qualname__
    return made


def _complete(value: Any, name: str, kind: Any, kw_only: bool) -> _Field:
    """Return the field that is called ``name``; ``value`` stands behind it in the body of the class, or _MISSING."""
    made = value if isinstance(value, _Field) else _Field(value, _MISSING, is_shown=True, is_compared=True)
    if type(made.default).__hash__ is None or type(made.default).__module__ == "dataclasses":
        raise TypeError(f"{name}: {made.default!r} is no default here; use field() of this module")
    made.name, made.kind, made.kw_only = name, kind, kw_only
    return made


def _fields_of(cls: Any) -> dict[str, _Field]:
    """Return the fields of ``cls`` by name."""
    fields: dict[str, _Field] = getattr(cls, _FIELDS)
    return fields


def field_names(cls: type) -> tuple[str, ...]:
    """Return the names of the fields of ``cls``, which is a class of this module's."""
    return tuple(_fields_of(cls))


class _Standard:
    """An attribute of a class where ``dataclasses`` looks; it becomes what they would have set, when somebody looks."""

    def __init__(self, kw_only: bool) -> None:
        """Remember how the class was made."""
        self._kw_only = kw_only

    def __set_name__(self, owner: Any, name: str) -> None:
        """Remember the class that has it under this ``name``."""
        self._owner, self._name = owner, name

    def __get__(self, _: object, __: type) -> Any:
        """Return it; from then on it is an ordinary attribute of the class, as are its siblings."""
        twin = _standard_twin(self._owner, self._kw_only)
        for name in ("__dataclass_fields__", "__dataclass_params__"):
            setattr(self._owner, name, getattr(twin, name))
        return getattr(self._owner, self._name)


def _standard_twin(cls: Any, kw_only: bool) -> type:
    """Return a dataclass of the standard library that has the fields of ``cls``."""
    import dataclasses  # noqa: PLC0415 - as the module says; who looks has loaded it

    def twin_of(value: _Field) -> Any:
        """Return the field ``value`` as the standard library has it."""
        default = dataclasses.MISSING if value.default is _MISSING else value.default
        factory: Any = dataclasses.MISSING if value.default_factory is _MISSING else value.default_factory
        options: Any = {"repr": value.is_shown, "compare": value.is_compared, "kw_only": value.kw_only}
        return dataclasses.field(default=default, default_factory=factory, **options)

    fields = [(value.name, value.kind, twin_of(value)) for value in _fields_of(cls).values()]
    return dataclasses.make_dataclass(cls.__name__, fields, frozen=True, slots=True, kw_only=kw_only)


@cache
def _signature_of(cls: type) -> Signature:
    """Return the signature of ``cls``."""
    import inspect  # noqa: PLC0415 - as the module says

    parameters = []
    for value in sorted(_fields_of(cls).values(), key=lambda value: value.kw_only):
        kind = inspect.Parameter.KEYWORD_ONLY if value.kw_only else inspect.Parameter.POSITIONAL_OR_KEYWORD
        default = inspect.Parameter.empty if value.default is _MISSING else value.default
        if value.default_factory is not _MISSING:
            default = _MADE_BY_FACTORY
        parameters.append(inspect.Parameter(value.name, kind, default=default, annotation=value.kind))
    return inspect.Signature(parameters, return_annotation=None)


class _Signature:
    """The attribute of a class where :func:`inspect.signature` looks."""

    def __get__(self, _: object, owner: type) -> Signature:
        """Return the signature of ``owner``. :raises AttributeError: it has a constructor of its own."""
        if owner.__init__ is not _initialize:  # type: ignore[misc]
            raise AttributeError("__signature__")
        return _signature_of(owner)


def _initialize(self: Any, /, *arguments: Any, **values: Any) -> None:
    """Set all fields. :raises TypeError: the arguments do not fit the signature."""
    cls: Any = type(self)
    fields = _fields_of(cls)
    names = [name for name, value in fields.items() if not value.kw_only]
    given = {**dict(zip(names, arguments, strict=False)), **values}
    if len(given) < len(arguments) + len(values):
        raise _argument_error(cls, arguments, values)
    for name, value in fields.items():
        if name in given:
            chosen = given.pop(name)
        elif value.default_factory is not _MISSING:
            chosen = value.default_factory()
        elif value.default is not _MISSING:
            chosen = value.default
        else:
            raise _argument_error(cls, arguments, values)
        object.__setattr__(self, name, chosen)
    if given:
        raise _argument_error(cls, arguments, values)
    if hasattr(cls, "__post_init__"):
        self.__post_init__()


def _argument_error(cls: type, arguments: tuple[Any, ...], values: dict[str, Any]) -> TypeError:
    """Return what is wrong with the arguments of a constructor, in the words of the standard library."""
    try:
        _signature_of(cls).bind(*arguments, **values)
    except TypeError as error:
        return TypeError(f"{cls.__qualname__}.__init__() {error}")
    return TypeError(f"{cls.__qualname__}.__init__() does not take these arguments")


def _represent(self: Any) -> str:
    """Return the value as Python text."""
    shown = (f"{name}={getattr(self, name)!r}" for name, value in _fields_of(self).items() if value.is_shown)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _compared(self: Any) -> tuple[Any, ...]:
    """Return the fields of a value that make it equal to another one."""
    return tuple([getattr(self, name) for name, value in _fields_of(self).items() if value.is_compared])


def _is_equal(self: Any, other: object) -> bool:
    """Return whether ``other`` is of the same class and has equal fields."""
    return _compared(self) == _compared(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    """Return the hash of the fields."""
    return hash(_compared(self))


def _is_field(self: Any, name: str) -> bool:
    """Return whether ``name`` may not be set; where no subclass allows others, none may."""
    return _FIELDS in vars(type(self)) or name in _fields_of(self)


def _refuse_assignment(self: Any, name: str, value: object) -> None:
    """Set what is no field, where a subclass allows it. :raises FrozenInstanceError: ``name`` is a field."""
    if _is_field(self, name):
        raise _frozen_error(f"cannot assign to field {name!r}")
    object.__setattr__(self, name, value)


def _refuse_deletion(self: Any, name: str) -> None:
    """Delete what is no field, where a subclass allows it. :raises FrozenInstanceError: ``name`` is a field."""
    if _is_field(self, name):
        raise _frozen_error(f"cannot delete field {name!r}")
    object.__delattr__(self, name)


def _frozen_error(message: str) -> Exception:
    """Return the error of the standard library for what cannot be changed."""
    from dataclasses import FrozenInstanceError  # noqa: PLC0415 - as the module says

    return FrozenInstanceError(message)


def _state(self: Any) -> dict[str, Any]:
    """Return what pickle keeps: the fields, and the attributes of a subclass that allows others."""
    return {**{name: getattr(self, name) for name in _fields_of(self)}, **getattr(self, "__dict__", {})}


def _restore(self: Any, state: dict[str, Any]) -> None:
    """Set what :func:`_state` returned."""
    for name, value in state.items():
        object.__setattr__(self, name, value)


_SHARED = {
    "__init__": _initialize, "__repr__": _represent, "__eq__": _is_equal, "__hash__": _hash,
    "__setattr__": _refuse_assignment, "__delattr__": _refuse_deletion, "__getstate__": _state,
    "__setstate__": _restore, "__replace__": replace, "__signature__": _Signature(),
}  # fmt: skip
"""What each class gets that does not define it itself."""
