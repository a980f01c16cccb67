"""Read a recipe file as a request, and report all of its faults at once."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from cosremaster.boot_config.menus.arguments import ArgumentReplacement, KernelArgument
from cosremaster.browse.export import MaasResource, names_gzip_tar
from cosremaster.errors import CosremasterError, RecipeError, UsageError, printable
from cosremaster.io.urls import Url, is_url, parse_image_path
from cosremaster.iso.volume_id import encode_volume_id, parse_volume_date
from cosremaster.layers.layer_names import check_layer_name
from cosremaster.lazy_regex import lazy_regex
from cosremaster.overlay.patterns import parse_inner_pattern
from cosremaster.overlay.request import OverlayItem, names_directory, parse_dest
from cosremaster.recipe.document import Document, IsoItemTable, ItemTable, RunTable
from cosremaster.recipe.faults import Faults, to_key_path
from cosremaster.recipe.items import FilledTable, find_absence, make_items
from cosremaster.recipe.toml_lines import KeyPath, find_lines
from cosremaster.recipe.variables import VariableError, Variables, expand
from cosremaster.records import Struct
from cosremaster.remastering.request import Request, parse_alignment
from cosremaster.remastering.select_layers import LayerSelector
from cosremaster.suggestions import suggest_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DIGITS = {"sha256": 64, "md5": 32}
_TOML_PLACE = lazy_regex(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_Table = TypeVar("_Table", bound=BaseModel)


class Recipe(Struct, frozen=True, kw_only=True):
    """A recipe without faults: only the image itself can still show one.

    ``expect``: names of digests and the hexadecimal digits that ``input`` must have. ``sync``: the output is to be on
    the disk at the end. ``maas``: how MAAS imports the output, a .tar.gz. ``delta``: the output is the difference from
    ``input``.
    """

    path: Path
    input: Path | Url
    output: Path | None
    expect: tuple[tuple[str, str], ...]
    sync: bool
    request: Request
    maas: MaasResource | None = None
    delta: bool = False


def read_recipe(
    path: str | Path,
    variables: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    threads: int | None = None,
) -> Recipe:
    """Read the recipe in the TOML file ``path`` (docs/recipe.md). Paths in it are relative to it.

    ``variables`` take precedence over ``environ`` (that of the process when None), which takes precedence over the
    defaults in the recipe. ``threads``: as in ``Request``.

    :raises RecipeError: the recipe has faults: it cannot be read, is no TOML, has unknown keys, wrong types, unknown
        variables or values that make no sense, or names files that do not exist. All faults of a valid TOML file are
        reported together.
    :raises UsageError: ``variables`` has a name that the recipe does not declare.
    """
    path = Path(path)
    text = read_text(path)
    try:
        raw = parse_toml(path, text)
        faults = Faults(str(path), find_lines(text))
        document, tables = validate_document(raw, faults)
        values = Variables(document.variables, variables or {}, os.environ if environ is None else environ, faults)
        reader = RecipeReader(path, document, faults, values)
        if isinstance(raw.get("input"), str):
            reader.check_input()
        recipe = reader.make_recipe(tables, threads)
    except RecursionError as error:
        raise RecipeError(str(path), [f"{printable(str(path))}: is nested too deep"]) from error
    faults.raise_if_any()
    return recipe


def read_text(path: Path) -> str:
    """Return the text of the file ``path``, without a byte order mark, which editors of Windows write before it.

    :raises RecipeError: it is unreadable, or not UTF-8.
    """
    name = printable(str(path))
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\N{BYTE ORDER MARK}")
    except OSError as error:
        raise RecipeError(name, [f"{name}: cannot be read: {error.strerror}{suggest_file(path, error)}"]) from error
    except UnicodeDecodeError as error:
        raise RecipeError(name, [f"{name} @0x{error.start:X}: is not UTF-8, as TOML must be"]) from error


def parse_toml(path: Path, text: str) -> dict[str, Any]:
    """Return the document ``text``. :raises RecipeError: it is no TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _TOML_PLACE.search(str(error))
        place = f"{path}:{match[1] or len(text.splitlines())}" if match else str(path)
        message = _TOML_PLACE.sub("", str(error))
        raise RecipeError(str(path), [f"{printable(place)}: is no TOML: {message[:1].lower()}{message[1:]}"]) from error


PlacedTables: TypeAlias = list[tuple[KeyPath, Any]]
"""Tables of an array, each with its place in the document."""


_ARRAYS: Mapping[str, Any] = {"add": ItemTable, "add_iso": IsoItemTable, "run": RunTable}
"""The arrays of tables that add something, with the kinds of their tables."""


def validate_document(raw: dict[str, Any], faults: Faults) -> tuple[Document, dict[str, PlacedTables]]:
    """Return the document without its additions, and the tables of each of :data:`_ARRAYS`.

    Values with faults are left out, and the faults are added to ``faults``.
    """
    try:
        Document.model_validate(raw)
    except ValidationError as validation:
        for error in validation.errors(include_url=False, include_context=False):
            faults.add_validation_error(error, raw)
    rest = {"input": "", **{key: value for key, value in raw.items() if key not in _ARRAYS}}
    document = _salvage(Document.model_validate, rest, ()) or Document(input="")
    return document, {key: _salvage_array(raw, key, kind) for key, kind in _ARRAYS.items()}


def _salvage_array(raw: dict[str, Any], key: str, kind: Any) -> PlacedTables:
    """Return the valid parts of the tables in the array ``key``, each a ``kind``."""
    adapter, elements = TypeAdapter[Any](kind), raw.get(key, [])
    return [
        ((key, number), table)
        for number, element in enumerate(elements if isinstance(elements, list) else [])
        if (table := _salvage(adapter.validate_python, element, (key, number))) is not None
    ]


def _salvage(validate: Callable[[Any], _Table], value: Any, path: KeyPath) -> _Table | None:
    """Return ``value``, which is at ``path``, without the keys that do not fit; None when nothing is left."""
    value = _copy(value)
    while True:
        try:
            return validate(value)
        except ValidationError as error:
            faulty_paths = {
                (to_key_path((*path, *fault["loc"]))[len(path) :], fault["type"] == "missing")
                for fault in error.errors()
            }
            if sum(_mend(value, faulty_path, is_missing) for faulty_path, is_missing in faulty_paths) == 0:
                return None


def _copy(value: Any) -> Any:
    """Return a deep copy of the tables and arrays in ``value``."""
    if isinstance(value, dict):
        return {key: _copy(element) for key, element in value.items()}
    return [_copy(element) for element in value] if isinstance(value, list) else value


def _mend(value: Any, path: KeyPath, is_missing: bool) -> bool:
    """Make the part of ``value`` at ``path`` fit, and return whether that changed anything.

    A key is removed. An element of an array becomes an empty text, so that the others keep their indexes, and so does
    a missing key of an inner table.
    """
    container = value
    try:
        for part in path[:-1]:
            container = container[part]
    except (KeyError, IndexError, TypeError):
        return False  # it was removed together with its container
    if not path:
        return False
    last = path[-1]
    if isinstance(container, list) and isinstance(last, int):
        is_changed = bool(container[last] != "")
        container[last] = ""
        return is_changed
    if is_missing and len(path) > 1:
        container[last] = ""
        return True
    return not is_missing and container.pop(last, None) is not None


class RecipeReader:
    """Fills in the variables of a document and makes the checks that a single value does not allow."""

    def __init__(
        self, path: Path, document: Document, faults: Faults, variables: Variables, *, makes_folders: bool = False
    ) -> None:
        """Fill in the variables of ``document``; faults are added to ``faults``.

        ``makes_folders``: the folder of the output will be made.
        """
        self._path = path
        self._makes_folders = makes_folders
        self._faults = faults
        self._variables = variables
        variables.check()
        self._document, self._has_input = self._fill(document, ())

    def check_input(self) -> None:
        """Check that the input exists."""
        path = self._input_path(self._document.input) if self._has_input else None
        absence = find_absence(path) if isinstance(path, Path) else ""
        if absence:
            self._faults.add(("input",), absence)

    def make_recipe(self, tables: Mapping[str, PlacedTables], threads: int | None) -> Recipe:
        """Return the recipe with the ``tables`` that add something, by their arrays, and add faults."""
        document = self._document
        output = None if document.output is None else self._host_path(document.output)
        if document.output is not None and names_directory(document.output):
            self._faults.add(("output",), "ends in a slash, and has to name a file")
        elif document.output is not None and "\0" in document.output:
            self._faults.add(("output",), "has a zero byte, which no path can have")
        elif output is not None and not self._makes_folders and not os.path.isdir(output.parent):
            self._faults.add(("output",), f"there is no folder {printable(str(output.parent))}")
        layers = document.layer
        if isinstance(layers, list):
            for number, text in enumerate(layers):
                if not self._faults.has_fault_at(("layer", number)):
                    self._check(("layer", number), LayerSelector.parse, text)
        elif layers is not None:
            self._check(("layer",), LayerSelector.parse, layers)
        self._check_layer_name(document)
        self._check_paths(document)
        self._check_boot_settings(document)
        return Recipe(
            path=self._path,
            input=self._input_path(document.input),
            output=output,
            expect=self._check_digests(document),
            sync=document.sync,
            delta=document.delta,
            maas=self._make_maas(document, output),
            request=Request(
                add=self._make_ordered(tables, ("add", "run")),
                remove=tuple(document.remove),
                add_iso=self._make_ordered(tables, ("add_iso",)),
                remove_iso=tuple(document.remove_iso),
                rename_iso=tuple((rename.old, rename.new) for rename in document.rename_iso),
                drop_hfsplus=document.drop_hfsplus,
                allow_missing=document.allow_missing,
                force_type=document.force_type,
                maas_clean=document.maas_clean,
                keep_sums=document.keep_sums,
                repack=document.repack,
                repack_metadata=document.repack_metadata,
                supersede=document.supersede,
                align=document.align,
                keep_fat_copies=document.keep_fat_copies,
                drop_signatures=document.drop_signatures,
                layer=tuple(layers) if isinstance(layers, list) else layers,
                as_layer=document.as_layer,
                threads=threads,
                xz_preset=document.xz.preset,
                always_compress=document.xz.always_compress,
                gzip=document.gzip,
                source_date_epoch=document.source_date_epoch,
                kernel_args=tuple(document.kernel_args.add),
                remove_kernel_args=tuple(document.kernel_args.remove),
                replace_kernel_args=tuple(document.kernel_args.replace),
                volume_id=document.volume_id,
                volume_date=document.volume_date,
                retarget=document.retarget,
            ),
        )

    def _make_maas(self, document: Document, output: Path | None) -> MaasResource | None:
        """Return how MAAS imports the ``output``; None where that is not asked for, or has faults, which are added."""
        table = document.maas
        if table is None:
            return None
        if output is not None and not names_gzip_tar(output.name):
            self._faults.add(("output",), "MAAS takes a .tar.gz")
        try:
            return MaasResource(
                name=table.name, title=table.title or "", architecture=table.architecture or "",
                base_image=table.base_image or "", profile=table.profile,
            )  # fmt: skip
        except UsageError as error:
            self._faults.add(("maas",), error.message)
            return None

    def _check_layer_name(self, document: Document) -> None:
        """Add faults of the name of a new layer."""
        if document.as_layer is not None:
            self._check(("as_layer",), check_layer_name, document.as_layer)
            if document.layer is not None:
                self._faults.add(("as_layer",), "makes a new layer over the root, so layer cannot choose another")

    def _check_paths(self, document: Document) -> None:
        """Check the patterns to remove and the paths to rename."""
        for key, patterns in (("remove", document.remove), ("remove_iso", document.remove_iso)):
            for number, pattern in enumerate(patterns):
                if not self._faults.has_fault_at((key, number)):  # else it became an empty text
                    self._check((key, number), parse_inner_pattern, os.fsencode(pattern))
        for number, rename in enumerate(document.rename_iso):
            path: KeyPath = ("rename_iso", number)
            if self._faults.has_fault_at(path):
                continue
            if self._check_path((*path, "old"), "/" + rename.old) == b"":
                self._faults.add((*path, "old"), "the root directory cannot be renamed")
            self._check_path((*path, "new"), rename.new)

    def _check_path(self, key_path: KeyPath, path: str) -> bytes | None:
        """Return ``path`` as a normal path, None with a fault where it is not absolute or holds ``..``."""
        try:
            return parse_dest(path, "")
        except UsageError:
            self._faults.add(key_path, "must be an absolute path without ..")
            return None

    def _check_boot_settings(self, document: Document) -> None:
        """Check the kernel arguments, the volume id and the volume date."""
        arguments = document.kernel_args
        for key, parse in (
            ("add", KernelArgument.parse),
            ("remove", KernelArgument.parse),
            ("replace", ArgumentReplacement.parse),
        ):
            for number, text in enumerate(getattr(arguments, key)):
                self._check(("kernel_args", key, number), parse, text)
        if document.align is not None:
            self._check(("align",), parse_alignment, document.align)
        if document.volume_id is not None:
            self._check(("volume_id",), encode_volume_id, document.volume_id)
        if document.volume_date is not None:
            self._check(("volume_date",), parse_volume_date, document.volume_date)
        if document.retarget and document.volume_id is None and document.volume_date is None:
            self._faults.add(("retarget",), "follows volume_id or volume_date, which are missing")

    def _check_digests(self, document: Document) -> tuple[tuple[str, str], ...]:
        """Return the names and digits of the expected digests."""
        digests: list[tuple[str, str]] = []
        for name, digits in _DIGITS.items():
            value = getattr(document.expect, name)
            if value is not None and not re.fullmatch(f"[0-9A-Fa-f]{{{digits}}}", value):
                self._faults.add(("expect", name), f"must be {digits} hexadecimal digits")
            elif value is not None:
                digests.append((name, value.lower()))
        return tuple(digests)

    def _make_ordered(self, tables: Mapping[str, PlacedTables], keys: Iterable[str]) -> tuple[OverlayItem, ...]:
        """Return the items of the ``tables`` in the arrays ``keys``, in the order of their lines in the recipe.

        Those of a single site of a fleet come last.
        """
        made = [(path, items) for key in keys for path, items in self._make_items(tables[key])]
        made.sort(key=lambda table: (table[0][0] not in _ARRAYS, self._faults.line_of(table[0])))
        return tuple(item for _, items in made for item in items)

    def _make_items(self, tables: PlacedTables) -> Iterator[tuple[KeyPath, list[OverlayItem]]]:
        """Yield the place and the items of each of the ``tables`` of an array.

        A table without a required value adds none.
        """
        filled_tables: list[FilledTable] = []
        for path, table in tables:
            filled, is_complete = self._fill(table, path)
            if is_complete:
                filled_tables.append(FilledTable(filled, path, self._host_path, self._variables.value_of))
        for filled in filled_tables:
            yield filled.key_path, list(make_items(filled, filled_tables, self._faults))

    def _fill(self, table: _Table, path: KeyPath) -> tuple[_Table, bool]:
        """Return ``table`` with its variables filled in, without values that have faults.

        The second value is whether all required values are there.
        """
        changes: dict[str, Any] = {}
        is_complete = True
        for name, field in type(table).model_fields.items():
            value = getattr(table, name)
            is_literal = name == "variables" or (name == "content" and not getattr(table, "expand", True))
            try:
                changes[name] = value if is_literal else self._fill_value(value, (*path, name))
            except VariableError:
                if field.is_required():
                    is_complete = False
                else:
                    changes[name] = field.get_default()
        return table.model_copy(update=changes), is_complete

    def _fill_value(self, value: Any, path: KeyPath) -> Any:
        """Return ``value`` with its variables filled in. :raises VariableError: it has a fault, which was added."""
        if isinstance(value, BaseModel):
            return self._fill(value, path)[0]
        if isinstance(value, list):
            return [self._fill_element(element, (*path, number)) for number, element in enumerate(value)]
        if isinstance(value, dict):
            return {key: self._fill_value(element, (*path, key)) for key, element in value.items()}
        if not isinstance(value, str):
            return value
        try:
            text = expand(value, self._variables.value_of)
            # TOML is UTF-8, and so are the names in it, whatever locale os.fsencode uses.
            return text if path[-1] == "content" else os.fsdecode(text.encode("utf-8", "surrogateescape"))
        except VariableError as fault:
            self._faults.add(path, str(fault))
            raise

    def _fill_element(self, value: Any, path: KeyPath) -> Any:
        """Return an element of an array, unchanged if it has a fault, so that the others keep their indexes."""
        try:
            return self._fill_value(value, path)
        except VariableError:
            return value

    def _check(self, path: KeyPath, parse: Callable[[Any], object], value: Any) -> None:
        """Add a fault at ``path`` if ``parse`` refuses ``value``."""
        try:
            parse(value)
        except CosremasterError as error:
            self._faults.add(path, error.message)

    def _input_path(self, name: str) -> Path | Url:
        """Return where the input is: the URL ``name``, or a path on this machine; a malformed URL is a fault."""
        if not is_url(name):
            return self._host_path(name)
        self._check(("input",), parse_image_path, name)
        try:
            return parse_image_path(name)
        except UsageError:
            return self._host_path(name)

    def _host_path(self, name: str) -> Path:
        """Return the path on this machine for a path in the recipe, which is relative to the recipe."""
        return self._path.parent / name
