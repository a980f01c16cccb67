"""Values of JSON as typed ones, checked strictly, and back. Files that somebody else may have written are read so.

Types are those of JSON (``None``, ``bool``, ``int``, ``float``, ``str``, ``list[X]``, ``dict[str, X]``, ``Any``), and
tuples, literals, unions, records (:mod:`cosremaster.records`), and ``bytes``, which are base64 in an object of one
name, :data:`BYTES`. A number may have bounds: ``Annotated[int, NumberRange(ge=0)]``.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar

from cosremaster.records import Factory, NumberRange, Struct, StructType, astuple

_T = TypeVar("_T")
_Reader = Callable[[Any], Any]

BYTES = "base64"
"""The name in an object that stands for bytes."""


class MismatchError(ValueError):
    """Values are not of the type that was asked for."""


def encode_json(value: object) -> bytes:
    """Return ``value`` as JSON in UTF-8, without spaces. :raises ValueError: a text holds lone surrogates."""
    import json  # noqa: PLC0415 - few runs read or write JSON

    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_simplify)
    return text.encode()


def _simplify(value: object) -> object:
    """Return ``value``, which JSON does not have, as what it has. :raises TypeError: that is not known."""
    if isinstance(value, Struct):
        cls = type(value)
        values: dict[str, Any] = dict(zip(cls.__struct_fields__, astuple(value), strict=True))
        if cls.__struct_options__.get("omit_defaults"):
            return {name: given for name, given in values.items() if not _is_default(cls, name, given)}
        return values
    if isinstance(value, bytes):
        from binascii import b2a_base64  # noqa: PLC0415 - as above

        return {BYTES: b2a_base64(value, newline=False).decode()}
    raise TypeError(f"JSON has no {type(value).__name__}")


def _is_default(cls: StructType, name: str, value: object) -> bool:
    """Return whether ``value`` is what the field ``name`` has by default."""
    if name not in cls.__struct_defaults__:
        return False
    default = cls.__struct_defaults__[name]
    return bool(value == (default.make() if isinstance(default, Factory) else default))


def decode_json(data: bytes | memoryview, kind: type[_T]) -> _T:
    """Return the value of type ``kind`` in the JSON ``data``. :raises MismatchError: it is none, or of another type."""
    import json  # noqa: PLC0415 - as above

    try:
        values = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise MismatchError(f"no JSON: {error}") from error
    return convert(values, kind)


@typing.overload
def convert(value: Any, kind: type[_T]) -> _T:
    """Return ``value`` as one of the class ``kind``."""


@typing.overload
def convert(value: Any, kind: Any) -> Any:
    """Return ``value`` as one of the type ``kind``."""


def convert(value: Any, kind: Any) -> Any:
    """Return ``value``, made of what JSON has, as one of type ``kind``. :raises MismatchError: it is of another."""
    return _reader(kind)(value)


@cache
def _reader(kind: Any) -> _Reader:
    """Return what reads a value of type ``kind``."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if isinstance(kind, StructType):
        return _record_reader(kind)
    if origin is typing.Annotated:
        return _bounded_reader(_reader(parts[0]), parts[1])
    if origin is typing.Literal:
        return _literal_reader(parts)
    if origin in (typing.Union, UnionType):
        return _union_reader([_reader(part) for part in parts])
    return _collection_reader(origin, parts)


def _collection_reader(origin: Any, parts: tuple[Any, ...]) -> _Reader:
    """Return what reads a list, a tuple or a dictionary. :raises TypeError: it is none."""
    if origin is list:
        items = _items_reader(_reader(parts[0]))
        return lambda value: list(items(value))
    if origin is dict and parts[0] is str:
        return _dictionary_reader(_reader(parts[1]))
    if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return _items_reader(_reader(parts[0]))
    if origin is tuple:
        return _tuple_reader([_reader(part) for part in parts])
    raise TypeError(f"no type of values: {origin}")


def _exact_reader(kind: type) -> _Reader:
    """Return what reads a value of exactly the class ``kind``: ``True`` is no number."""

    def read(value: Any) -> Any:
        """Return ``value``."""
        if type(value) is not kind:
            raise MismatchError(f"{type(value).__name__} where {kind.__name__} was expected")
        return value

    return read


def _read_float(value: Any) -> float:
    """Return the number ``value``."""
    if type(value) not in (int, float):
        raise MismatchError(f"{type(value).__name__} where a number was expected")
    try:
        return float(value)
    except OverflowError as error:
        raise MismatchError(str(error)) from error


def _read_bytes(value: Any) -> bytes:
    """Return the bytes in ``value``."""
    from binascii import a2b_base64  # noqa: PLC0415 - few runs have such values

    if type(value) is not dict or value.keys() != {BYTES} or type(value[BYTES]) is not str:
        raise MismatchError(f"{type(value).__name__} where bytes were expected")
    try:
        data = a2b_base64(value[BYTES])
    except ValueError as error:
        raise MismatchError(str(error)) from error
    return data


_SIMPLE: dict[Any, _Reader] = {
    Any: lambda value: value, None: _exact_reader(NoneType), NoneType: _exact_reader(NoneType),
    bool: _exact_reader(bool), int: _exact_reader(int), str: _exact_reader(str), float: _read_float, bytes: _read_bytes,
}  # fmt: skip
"""What reads values of types without parts."""


def _bounded_reader(read_number: _Reader, bounds: NumberRange) -> _Reader:
    """Return what reads a number within ``bounds``."""

    def read(value: Any) -> Any:
        """Return ``value``."""
        number = read_number(value)
        if not bounds.hold(number):
            raise MismatchError(f"{number} is out of bounds")
        return number

    return read


def _literal_reader(choices: tuple[Any, ...]) -> _Reader:
    """Return what reads one of ``choices``."""
    known = {(type(choice), choice): choice for choice in choices}

    def read(value: Any) -> Any:
        """Return ``value``."""
        if isinstance(value, (list, dict)) or (type(value), value) not in known:
            raise MismatchError(f"{value!r} is none of {choices}")
        return value

    return read


def _union_reader(readers: list[_Reader]) -> _Reader:
    """Return what reads what the first fitting one of ``readers`` does."""

    def read(value: Any) -> Any:
        """Return ``value`` as the first type that it fits."""
        for reader in readers:
            try:
                return reader(value)
            except MismatchError:
                continue
        raise MismatchError(f"{type(value).__name__} where another type was expected")

    return read


def _items_reader(read_item: _Reader) -> _Reader:
    """Return what reads an array as a tuple."""

    def read(value: Any) -> tuple[Any, ...]:
        """Return the items of ``value``."""
        if not isinstance(value, (list, tuple)):
            raise MismatchError(f"{type(value).__name__} where an array was expected")
        return tuple(map(read_item, value))

    return read


def _tuple_reader(readers: list[_Reader]) -> _Reader:
    """Return what reads an array of as many items as there are ``readers``, each by its own."""

    def read(value: Any) -> tuple[Any, ...]:
        """Return the items of ``value``."""
        if not isinstance(value, (list, tuple)) or len(value) != len(readers):
            raise MismatchError(f"no array of {len(readers)} items")
        return tuple([reader(item) for reader, item in zip(readers, value, strict=True)])

    return read


def _dictionary_reader(read_value: _Reader) -> _Reader:
    """Return what reads an object whose names may be any."""

    def read(value: Any) -> dict[str, Any]:
        """Return the entries of ``value``."""
        if not isinstance(value, dict) or not all(type(name) is str for name in value):
            raise MismatchError(f"{type(value).__name__} where an object was expected")
        return {name: read_value(item) for name, item in value.items()}

    return read


def _record_reader(cls: StructType) -> _Reader:
    """Return what reads an object as a record of ``cls``."""
    known: dict[str, _Reader] | None = None

    def read(value: Any) -> Any:
        """Return the record in ``value``."""
        nonlocal known
        readers = known
        if readers is None:  # later than the reader: a record may hold others of its class
            hints = typing.get_type_hints(cls, include_extras=True)
            known = readers = {name: _reader(hints[name]) for name in cls.__struct_fields__}  # whole: others read, too
        if not isinstance(value, Mapping):
            raise MismatchError(f"{type(value).__name__} where an object was expected")
        if cls.__struct_options__.get("forbid_unknown_fields") and not value.keys() <= readers.keys():
            raise MismatchError(f"{cls.__name__} has no {min(value.keys() - readers.keys())!r}")
        missing = readers.keys() - value.keys() - cls.__struct_defaults__.keys()
        if missing:
            raise MismatchError(f"{cls.__name__} without {min(missing)!r}")
        return cls(**{name: reader(value[name]) for name, reader in readers.items() if name in value})

    return read
