"""docs/api.md, made from the docstrings: ``python -m tests.support.api_page`` writes it anew."""

from __future__ import annotations

import dataclasses
import doctest
import enum
import inspect
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import cosremaster
import cosremaster.recipe
from tests.support.user import REPOSITORY

PAGE = REPOSITORY / "docs" / "api.md"
HEAD = """\
# The Python package

This page is made from the docstrings (`python -m tests.support.api_page`). The tests check that it is up to date, and
run its examples in a folder with the demo's image as `vendor.iso` and a folder `site` with the file `etc/motd`.

**What is public:** the names on this page, which are those of `cosremaster.__all__` and `cosremaster.recipe.__all__`;
the commands with their options, [exit codes](exit-codes.md) and [JSON](json.md); recipes. Until version 1.0, a new
minor version (0.2) may change what is public, and [CHANGELOG.md](../CHANGELOG.md) says how; a patch version (0.1.1)
does not. Everything else, [the steps](steps.md) included, may change in any version.

Paths on this machine are `str` or `os.PathLike[str]`. Paths inside an image are `bytes`, for Linux allows any byte in
them; `os.fsdecode` makes them text. Values that functions return are frozen dataclasses.
"""


class Section(NamedTuple):
    """A part of the page, with names of one module."""

    title: str
    names: tuple[str, ...]
    module: Any = cosremaster


SECTIONS = (
    Section("An image", ("open", "Image")),
    Section("An image that is not written", ("Prepared", "BaseRange", "OriginSizes")),
    Section(
        "Functions for one-off use",
        (
            "remaster",
            "RemasterOptions",
            "plan",
            "apply",
            "inspect",
            "verify",
            "diff",
            "extract",
            "export",
            "pack",
            "ls",
            "read",
            "remaster_many",
            "Site",
            "SiteResult",
            "BaseOptions",
        ),
    ),
    Section(
        "Changes",
        ("Request", "AddPath", "InlineFile", "Symlink", "Directory", "OwnershipRule", "RunScript", "OverlayItem"),
    ),
    Section(
        "Results of a remaster",
        (
            "Changes",
            "ChangedLayer",
            "Plan",
            "Result",
            "PackedLayer",
            "Preparation",
            "PreparedLayer",
            "DeltaFacts",
            "EarlyChange",
            "Applied",
            "MenuChange",
            "LineChange",
            "ListChange",
            "SizeChange",
            "MemoryEstimate",
            "LiveMemory",
            "ScriptOutcome",
            "Leftover",
        ),
    ),
    Section(
        "Facts about an image", ("ImageInfo", "ArchiveInfo", "FilesystemInfo", "LayerInfo", "FileEntry", "Difference")
    ),
    Section("Verification", ("VerificationReport", "Finding", "Level")),
    Section(
        "Extraction and export", ("Extraction", "Export", "RootArchive", "MaasResource", "LxdImage", "ContainerImage")
    ),
    Section("Recipes", tuple(cosremaster.recipe.__all__), cosremaster.recipe),
    Section("Progress", ("Progress", "MeasuredProgress")),
    Section(
        "Errors",
        (
            *("CosremasterError", "UsageError", "RecipeError", "ImageError", "LayerError", "CorruptError"),
            *(
                "UnsupportedError",
                "OverlayError",
                "SizeError",
                "OutputError",
                "ProofError",
                "ScriptError",
                "SandboxError",
                "Place",
            ),
        ),
    ),
)


def api_page() -> str:
    """The page."""
    parts = [HEAD]
    for section in SECTIONS:
        parts.append(f"## {section.title}\n")
        for name in section.names:
            parts += _describe(f"{section.module.__name__}.{name}", getattr(section.module, name))
    return "\n".join(parts)


def documented(section: Section) -> Iterator[tuple[str, Any]]:
    """The names of ``section`` and the methods of its classes, each with its object."""
    for name in section.names:
        value = getattr(section.module, name)
        yield name, value
        if inspect.isclass(value):
            yield from ((f"{name}.{method}", function) for method, function in _methods(value))


def _describe(name: str, value: Any) -> Iterator[str]:
    """A function or class in Markdown."""
    if not inspect.isclass(value):
        yield f"### `{name}`\n"
        yield f"```text\n{_signature(value, name.rpartition('.')[2])}\n```\n"
        yield _text(value)
        return
    bases = [base.__name__ for base in value.__bases__ if base.__name__ in cosremaster.__all__]
    yield f"### `{name}`\n"
    if bases:
        yield f"A kind of `{bases[0]}`.\n"
    yield _text(value)
    fields = list(_fields(value))
    if fields:
        yield "```text\n" + "\n".join(fields) + "\n```\n"
    for method, function in _methods(value):
        short = name.rpartition(".")[2]
        if isinstance(function, property):
            yield f"#### `{short}.{method}`\n\nA property. {_text(function)}"
        else:
            yield f"#### `{short}.{method}`\n"
            yield f"```text\n{_signature(function, method)}\n```\n"
            yield _text(function)


def _fields(value: Any) -> Iterator[str]:
    """The fields of a dataclass or a named tuple, the members of an enumeration, what an image is opened with."""
    bases: tuple[type, ...] = value.__bases__
    if dataclasses.is_dataclass(value):
        inherited = {name for base in bases for name in getattr(base, "__dataclass_fields__", ())}
        for field in dataclasses.fields(value):
            if field.name not in inherited:
                default = "" if field.default is dataclasses.MISSING else f" = {_default(field.name, field.default)}"
                yield f"{field.name}: {field.type}{default}"
    elif issubclass(value, enum.Enum):
        yield from (f"{member.name} = {member.value!r}" for member in value)
    elif issubclass(value, tuple) and hasattr(value, "_fields"):
        for name, kind in value.__annotations__.items():
            yield f"{name}: {getattr(kind, '__forward_arg__', kind)}"
    elif value in (cosremaster.Image, cosremaster.MeasuredProgress):
        yield _signature(value, value.__name__)


def _default(name: str, value: object) -> str:
    """A default as people write it: modes are octal."""
    return oct(value) if isinstance(value, int) and name.endswith("mode") else repr(value)


def _methods(value: Any) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that the class ``value`` defines."""
    fields = {*getattr(value, "__dataclass_fields__", ()), *(value._fields if issubclass(value, tuple) else ())}
    for name, member in vars(value).items():
        if name.startswith("_") or name in fields:
            continue
        if isinstance(member, (classmethod, staticmethod)):
            yield name, member.__func__
        elif isinstance(member, property) or inspect.isfunction(member):
            yield name, member


def _signature(value: Any, name: str) -> str:
    """How ``value`` is called, broken where it is long."""
    if value is cosremaster.remaster:
        return "remaster(source: StrPath, target: StrPath, /, **fields of RemasterOptions) -> Result"
    signature = inspect.signature(value)
    parameters: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        if parameter.name not in ("self", "cls"):
            default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
            prefix = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else ""
            prefix = "**" if parameter.kind is inspect.Parameter.VAR_KEYWORD else prefix
            parameters.append(f"{prefix}{parameter.name}: {parameter.annotation}{default}")
    is_made = inspect.isclass(value) or signature.return_annotation is inspect.Signature.empty
    result = "" if is_made else f" -> {signature.return_annotation}"
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {parameter},\n" for parameter in parameters) + f"){result}"


def _text(value: Any) -> str:
    """A docstring as Markdown: paragraphs, lists of parameters and errors, examples."""
    lines: list[str] = []
    in_example = False
    for line in (inspect.getdoc(value) or "").split("\n"):
        if line.startswith(">>>") and not in_example:
            lines.append("```pycon")
            in_example = True
        elif in_example and not line.strip():
            lines.append("```")
            in_example = False
        lines.append(re.sub(r"\s*# doctest:.*", "", line) if in_example else _markdown(line))
    if in_example:
        lines.append("```")
    return "\n".join(lines).strip().replace("\n\n\n", "\n\n") + "\n"


def _markdown(line: str) -> str:
    """A line of a docstring, outside examples, as Markdown."""
    for pattern, new in (
        (r":(?:class|meth|func|data|mod):`[~.]?([^`<]*?)(?: <[^`]*>)?`", r"`\1`"),
        (r"``", "`"),
        (r"\s*:raises (\w+): ", r"\n- raises `\1`: "),
        (r"^\s*:(?:param|ivar) (\w+): ", r"- `\1`: "),
    ):
        line = re.sub(pattern, new, line)
    return line


def examples() -> Iterator[doctest.DocTest]:
    """The examples on the page, each with the name of the function or class that it belongs to."""
    parser = doctest.DocTestParser()
    for section in SECTIONS:
        for name, value in documented(section):
            text = inspect.getdoc(value) or ""
            if ">>>" in text:
                names = {public: getattr(section.module, public) for public in section.names}
                yield parser.get_doctest(text, names, name, None, None)


if __name__ == "__main__":
    PAGE.write_text(api_page())
