"""What is said on standard error: text, or JSON with an object on each line (``--progress json``). Without click."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cosremaster.cli.colors import paint
from cosremaster.cli.settings import Settings
from cosremaster.errors import CosremasterError
from cosremaster.progress.events import AnyEvent, ErrorPlace, Failed, Said, Warned

if TYPE_CHECKING:
    from click import ClickException


def describe_event(event: Any) -> dict[str, Any]:
    """Return ``event``, or a value in it, as plain values for JSON."""
    values = ((name, getattr(event, name)) for name in event.__struct_fields__)
    return {name: describe_event(value) if hasattr(value, "__struct_fields__") else value for name, value in values}


def write_event(event: AnyEvent) -> None:
    """Write ``event`` as a line of JSON."""
    import json  # noqa: PLC0415 - most runs write none

    sys.stderr.write(json.dumps(describe_event(event)) + "\n")
    sys.stderr.flush()


def say(text: str) -> None:
    """Write a line about what was done."""
    if Settings.progress == "json":
        write_event(Said(message=text))
    else:
        sys.stderr.write(f"{text}\n")


def warn(text: str) -> None:
    """Write a warning."""
    if Settings.progress == "json":
        write_event(Warned(message=text))
    else:
        sys.stderr.write(f"{paint('warning:', 'warning', sys.stderr)} {text}\n")


def explain_error(error: CosremasterError | str, code: int, kind: str = "") -> None:
    """Write why the program ends with the exit ``code``; ``kind``: of an error that is no :class:`CosremasterError`."""
    if Settings.progress == "json":
        write_event(describe_error(error, code, kind))
    else:
        sys.stderr.write(f"{paint('cosremaster:', 'error', sys.stderr)} {error}\n")


def show_usage_error(error: ClickException) -> None:
    """Write an error about the words that were typed as click does, with its first word in colour."""
    import io  # noqa: PLC0415 - few runs fail

    shown = io.StringIO()
    error.show(shown)
    head, label, message = f"\n{shown.getvalue()}".partition("\nError:")
    sys.stderr.write(f"{head}\n{paint(label.strip(), 'error', sys.stderr)}{message}".removeprefix("\n"))


def describe_error(error: CosremasterError | str, code: int, kind: str = "") -> Failed:
    """Return why the program ends with the exit ``code``, as values."""
    if isinstance(error, str):
        return Failed(code=code, kind=kind, message=error, place=None)
    place = error.place and ErrorPlace(parts=list(error.place.parts), offset=error.place.offset)
    return Failed(code=code, kind=type(error).__name__, message=error.message, place=place)
