"""A recipe file made into a request; everything that is wrong with it told at once."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from msgspec import Struct
from pydantic import BaseModel, TypeAdapter, ValidationError

from cosremaster.boot_config.menus.arguments import ArgumentReplacement, KernelArgument
from cosremaster.errors import CosremasterError, RecipeError, UsageError, printable
from cosremaster.iso.ecma119.volume_id import encode_volume_id, parse_volume_date
from cosremaster.layers.address import parse_address
from cosremaster.overlay.patterns import Pattern
from cosremaster.overlay.request import OverlayItem, parse_dest
from cosremaster.recipe.document import Document, IsoItemTable, ItemTable
from cosremaster.recipe.faults import Faults, key_path
from cosremaster.recipe.items import Made, absence, make_item
from cosremaster.recipe.toml_lines import Path as KeyPath
from cosremaster.recipe.toml_lines import find_lines
from cosremaster.recipe.variables import VariableError, Variables, expand
from cosremaster.remastering.request import Request

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DIGITS = {"sha256": 64, "md5": 32}
_WHERE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_Table = TypeVar("_Table", bound=BaseModel)


class Recipe(Struct, frozen=True, kw_only=True):
    """A recipe that was read: nothing in it is left to be found out but what the image says.

    ``expect``: names of digests and the hexadecimal digits that ``input`` must have.
    """

    path: Path
    input: Path
    output: Path | None
    expect: tuple[tuple[str, str], ...]
    request: Request


def read_recipe(
    path: str | Path, variables: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Recipe:
    """The recipe in the TOML file ``path`` (docs/recipe.md). Paths in it are relative to it.

    ``variables`` overrule ``environ`` (the process's when None), which overrules the recipe's defaults.

    :raises RecipeError: it has faults: it cannot be read, is no TOML, has unknown keys, wrong types, unknown
        variables, values that make no sense, or names files that are not there. All faults of a sound TOML file
        are told together.
    :raises UsageError: ``variables`` has a name that the recipe does not declare.
    """
    path = Path(path)
    text = _read(path)
    try:
        return _recipe_of(path, text, variables or {}, os.environ if environ is None else environ)
    except RecursionError as error:
        raise RecipeError(str(path), [f"{printable(str(path))}: is nested too deep"]) from error


def _recipe_of(path: Path, text: str, variables: Mapping[str, str], environ: Mapping[str, str]) -> Recipe:
    """Raises as :func:`read_recipe`. :raises RecursionError: it is nested too deep."""
    raw = _parse(path, text)
    faults = Faults(str(path), find_lines(text))
    document, items, iso_items = _shaped(raw, faults)
    reader = _Reader(path, document, faults, Variables(document.variables, variables, environ, faults))
    if isinstance(raw.get("input"), str):
        reader.check_input()
    recipe = reader.recipe(items, iso_items)
    faults.raise_any()
    return recipe


def _read(path: Path) -> str:
    """:raises RecipeError: unreadable, or not UTF-8."""
    name = printable(str(path))
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise RecipeError(name, [f"{name}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise RecipeError(name, [f"{name} @0x{error.start:X}: is not UTF-8, as TOML must be"]) from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    """:raises RecipeError: no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        told = str(error)
        where = _WHERE.search(told)
        place = f"{path}:{where[1] or len(text.splitlines())}" if where else str(path)
        message = _WHERE.sub("", told)
        raise RecipeError(str(path), [f"{printable(place)}: is no TOML: {message[:1].lower()}{message[1:]}"]) from error


_Items: TypeAlias = list[tuple[int, Any]]
"""Tables of an array, with their numbers."""


def _shaped(raw: dict[str, Any], faults: Faults) -> tuple[Document, _Items, _Items]:
    """The document without its additions, those of ``add`` and those of ``add_iso``; what is faulty left out and
    told."""
    try:
        Document.model_validate(raw)
    except ValidationError as error:
        for one in error.errors(include_url=False, include_context=False):
            faults.add_shape(one, raw)
    rest = {"input": "", **{key: value for key, value in raw.items() if key not in ("add", "add_iso")}}
    document = _salvaged(Document.model_validate, rest, ()) or Document(input="")
    return document, _sound(raw, "add", ItemTable), _sound(raw, "add_iso", IsoItemTable)


def _sound(raw: dict[str, Any], key: str, kind: Any) -> _Items:
    """What is sound of the tables in the array ``key``, each a ``kind``."""
    items, found = TypeAdapter[Any](kind), raw.get(key, [])
    return [
        (number, item)
        for number, one in enumerate(found if isinstance(found, list) else [])
        if (item := _salvaged(items.validate_python, one, (key, number))) is not None
    ]


def _salvaged(validate: Callable[[Any], _Table], value: Any, at: KeyPath) -> _Table | None:
    """``value``, which stands at ``at``, without the keys in it that do not fit; None when nothing is left of it."""
    value = _copied(value)
    while True:
        try:
            return validate(value)
        except ValidationError as error:
            wrong = {(key_path((*at, *one["loc"]))[len(at) :], one["type"] == "missing") for one in error.errors()}
            if sum(_mended(value, path, missing) for path, missing in wrong) == 0:
                return None


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value


def _mended(value: Any, path: KeyPath, missing: bool) -> bool:
    """Makes what ``path`` names in ``value`` fit: a key goes, an element of an array becomes an empty text, so that the
    others keep their numbers, and so does what is ``missing`` in a table inside. False: that cannot be."""
    around = value
    try:
        for part in path[:-1]:
            around = around[part]
    except (KeyError, IndexError, TypeError):
        return False  # it went with what held it
    if not path:
        return False
    last = path[-1]
    if isinstance(around, list) and isinstance(last, int):
        fits = bool(around[last] != "")
        around[last] = ""
        return fits
    if missing and len(path) > 1:
        around[last] = ""
        return True
    return not missing and around.pop(last, None) is not None


class _Reader:
    """Fills in variables, and looks at what one value alone does not tell."""

    def __init__(self, path: Path, document: Document, faults: Faults, variables: Variables) -> None:
        self._path = path
        self._faults = faults
        self._variables = variables
        variables.check()
        self._document, self._input_known = self._filled(document, ())

    def check_input(self) -> None:
        """The input is there."""
        told = absence(self._host(self._document.input)) if self._input_known else ""
        if told:
            self._faults.add(("input",), told)

    def recipe(self, items: _Items, iso_items: _Items) -> Recipe:
        """The recipe with ``items`` for the layer and ``iso_items`` for the ISO's own tree; faults are told to
        ``faults``."""
        document = self._document
        output = None if document.output is None else self._host(document.output)
        if output is not None and not os.path.isdir(output.parent):
            self._faults.add(("output",), f"there is no folder {printable(str(output.parent))}")
        if document.layer is not None:
            self._check(("layer",), parse_address, document.layer)
        self._check_names(document)
        self._check_settings(document)
        return Recipe(
            path=self._path,
            input=self._host(document.input),
            output=output,
            expect=self._expected(document),
            request=Request(
                add=self._items(items, "add"),
                remove=tuple(document.remove),
                add_iso=self._items(iso_items, "add_iso"),
                remove_iso=tuple(document.remove_iso),
                rename_iso=tuple((one.old, one.new) for one in document.rename_iso),
                drop_hfsplus=document.drop_hfsplus,
                allow_missing=document.allow_missing,
                force_type=document.force_type,
                keep_sums=document.keep_sums,
                layer=document.layer,
                xz_preset=document.xz.preset,
                always_compress=document.xz.always_compress,
                source_date_epoch=document.source_date_epoch,
                kernel_args=tuple(document.kernel_args.add),
                remove_kernel_args=tuple(document.kernel_args.remove),
                replace_kernel_args=tuple(document.kernel_args.replace),
                volume_id=document.volume_id,
                volume_date=document.volume_date,
                retarget=document.retarget,
            ),
        )

    def _check_names(self, document: Document) -> None:
        """Patterns and paths outside of the additions."""
        for key, patterns in (("remove", document.remove), ("remove_iso", document.remove_iso)):
            for number, pattern in enumerate(patterns):
                self._check((key, number), Pattern, os.fsencode(pattern))
        for number, rename in enumerate(document.rename_iso):
            at: KeyPath = ("rename_iso", number)
            if self._faults.told(at):
                continue
            if self._checked((*at, "old"), "/" + rename.old) == b"":
                self._faults.add((*at, "old"), "the root directory cannot be renamed")
            self._checked((*at, "new"), rename.new)

    def _checked(self, at: KeyPath, path: str) -> bytes | None:
        """The normal path of ``path``; None where it is none that a tree could have."""
        try:
            return parse_dest(path, "")
        except UsageError:
            self._faults.add(at, "must be an absolute path without ..")
            return None

    def _check_settings(self, document: Document) -> None:
        arguments = document.kernel_args
        for key, parse in (
            ("add", KernelArgument.parse),
            ("remove", KernelArgument.parse),
            ("replace", ArgumentReplacement.parse),
        ):
            for number, text in enumerate(getattr(arguments, key)):
                self._check(("kernel_args", key, number), parse, text)
        if document.volume_id is not None:
            self._check(("volume_id",), encode_volume_id, document.volume_id)
        if document.volume_date is not None:
            self._check(("volume_date",), parse_volume_date, document.volume_date)
        if document.retarget and document.volume_id is None and document.volume_date is None:
            self._faults.add(("retarget",), "follows volume_id or volume_date, which are missing")

    def _expected(self, document: Document) -> tuple[tuple[str, str], ...]:
        found: list[tuple[str, str]] = []
        for name, digits in _DIGITS.items():
            value = getattr(document.expect, name)
            if value is not None and not re.fullmatch(f"[0-9A-Fa-f]{{{digits}}}", value):
                self._faults.add(("expect", name), f"must be {digits} hexadecimal digits")
            elif value is not None:
                found.append((name, value.lower()))
        return tuple(found)

    def _items(self, items: _Items, key: str) -> tuple[OverlayItem, ...]:
        made: list[Made] = []
        for number, table in items:
            at: KeyPath = (key, number)
            filled, whole = self._filled(table, at)
            if whole:
                made.append(Made(filled, at, self._host))
        return tuple(item for one in made for item in make_item(one, made, self._faults))

    def _filled(self, table: _Table, at: KeyPath) -> tuple[_Table, bool]:
        """``table`` with its variables filled in; what has a fault is left out. False: something that must be there."""
        changes: dict[str, Any] = {}
        whole = True
        for name, field in type(table).model_fields.items():
            value = getattr(table, name)
            literal = name == "variables" or (name == "content" and not getattr(table, "expand", True))
            try:
                changes[name] = value if literal else self._filled_value(value, (*at, name))
            except VariableError:
                if field.is_required():
                    whole = False
                else:
                    changes[name] = field.get_default()
        return table.model_copy(update=changes), whole

    def _filled_value(self, value: Any, at: KeyPath) -> Any:
        """:raises VariableError: it has been told."""
        if isinstance(value, BaseModel):
            return self._filled(value, at)[0]
        if isinstance(value, list):
            return [self._filled_element(one, (*at, number)) for number, one in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            text = expand(value, self._variables.value_of)
            # TOML is UTF-8, and so are the names in it, whatever the locale that os.fsencode goes by.
            return text if at[-1] == "content" else os.fsdecode(text.encode("utf-8", "surrogateescape"))
        except VariableError as fault:
            self._faults.add(at, str(fault))
            raise

    def _filled_element(self, value: Any, at: KeyPath) -> Any:
        """As it is when it has a fault, so that the others keep their numbers."""
        try:
            return self._filled_value(value, at)
        except VariableError:
            return value

    def _check(self, at: KeyPath, parse: Callable[[Any], object], value: Any) -> None:
        try:
            parse(value)
        except CosremasterError as error:
            self._faults.add(at, error.message)

    def _host(self, name: str) -> Path:
        """A path of this machine, seen from the recipe."""
        return self._path.parent / name
