"""What happens in long work, as values: docs/json.md has their JSON Schema, which is made from these types."""

from __future__ import annotations

from typing import Literal

from cosremaster.records import Struct

Basis = Literal["measured", "remembered", "guessed"]


class StepBegan(Struct, frozen=True, kw_only=True):
    """A step begins. ``total``: its bytes, or null where nobody knows; ``kind``: of its work.

    Kinds: ``decode`` (packed bytes), ``encode`` (bytes fed to an encoder), ``copy`` (bytes of the output), ``proof``
    (bytes of it that are read again), ``sum`` (bytes of which a checksum is made), ``read`` (files of the user),
    ``sites`` (images of a fleet, not bytes), ``other``.
    """

    event: Literal["step"] = "step"
    title: str
    kind: str
    total: int | None


class Moved(Struct, frozen=True, kw_only=True):
    """The state of the run, once a second and when a step ends.

    ``title``, ``kind``, ``processed``, ``total``: of the step, in bytes; without one, of the last. ``total`` is without
    ``skipped`` bytes, which need no work, such as those that stay packed. ``rate``: bytes in a second; null until it is
    measured. ``seconds``: since the run began. ``percent`` and ``seconds_left``: of the whole run; estimates, null
    where there are none. ``basis``: of what these are made: rates ``measured`` in this run, ``remembered`` ones of an
    earlier run on this machine, or ``guessed`` from a measured one of other work; the worst that matters.
    ``is_planned``: all work is known.
    """

    event: Literal["progress"] = "progress"
    title: str
    kind: str
    processed: int
    skipped: int
    total: int | None
    rate: float | None
    seconds: float
    percent: float | None
    seconds_left: float | None
    basis: Basis | None
    is_planned: bool


class StepEnded(Struct, frozen=True, kw_only=True):
    """A step ended, which took ``seconds`` for ``processed`` bytes of work; ``skipped`` ones needed none."""

    event: Literal["end"] = "end"
    title: str
    kind: str
    processed: int
    skipped: int
    seconds: float


class Warned(Struct, frozen=True, kw_only=True):
    """A warning, which stops nothing; also in the result."""

    event: Literal["warning"] = "warning"
    message: str


class Printed(Struct, frozen=True, kw_only=True):
    """A line that a script printed which runs inside the image."""

    event: Literal["output"] = "output"
    script: str
    line: str


ProgressEvent = StepBegan | Moved | StepEnded | Warned | Printed


class Said(Struct, frozen=True, kw_only=True):
    """A line about what was done, for people."""

    event: Literal["message"] = "message"
    message: str


class SiteEnded(Struct, frozen=True, kw_only=True):
    """What became of a site of a fleet.

    ``number`` of ``total`` that are made; ``size``: bytes of its image; ``error``: why there is none, else empty;
    ``seconds_left``: about how long the others will take, by those so far.
    """

    event: Literal["site"] = "site"
    site: str
    number: int
    total: int
    size: int
    seconds: float
    error: str
    seconds_left: float


class ErrorPlace(Struct, frozen=True, kw_only=True):
    """Where an error is: ``parts`` are names of containers, the outermost first; ``offset``: bytes in the last."""

    parts: list[str]
    offset: int | None


class Failed(Struct, frozen=True, kw_only=True):
    """The program ends for an error; the last line.

    ``code``: the exit code (docs/exit-codes.md); ``kind``: name of the error's class; ``message``: without the place.
    """

    event: Literal["error"] = "error"
    code: int
    kind: str
    message: str
    place: ErrorPlace | None


AnyEvent = ProgressEvent | Said | SiteEnded | Failed
