"""The helpers that every step of one remaster shares: the input, temporary files, progress and warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cosremaster.codecs.base import BlockCache
from cosremaster.io.source import ByteSource
from cosremaster.io.spool import Spool
from cosremaster.iso.ecma119.sections import MAX_EXTENT
from cosremaster.layers.address import Address, format_address
from cosremaster.progress import COPY, PLAN, Progress, SilentProgress, expect_work, running

if TYPE_CHECKING:
    from cosremaster.layers.boot_facts import BootFacts
    from cosremaster.layers.kept_plain import PlainKeeper
    from cosremaster.layers.remembered_parts import RememberedParts
    from cosremaster.overlay.boot_files import BootFiles
    from cosremaster.overlay.run_outcome import ScriptOutcome
    from cosremaster.remastering.front_packer import FrontPacker
    from cosremaster.remastering.request import NormalizedRequest


class Warnings:
    """The warnings of one remaster, in the order in which they were found."""

    def __init__(self) -> None:
        """Begin without warnings."""
        self._messages: list[str] = []

    def add(self, message: str) -> None:
        """Add one warning."""
        self._messages.append(message)

    def extend(self, messages: Iterable[str]) -> None:
        """Add several warnings."""
        self._messages.extend(messages)

    @property
    def messages(self) -> tuple[str, ...]:
        """All warnings."""
        return tuple(self._messages)


class RemasterContext:
    """The helpers of one remaster of the image in ``source``; a context manager that removes the temporary files.

    ``folder``: temporary files go here, without names. ``caches``: what an opened image keeps from one remaster for the
    next, by the address of a layer. ``parts``: what plans packed, where that is remembered. ``start_precopy`` is called
    once; it may begin to copy the input to the output, and returns whether it does.
    """

    def __init__(
        self, source: ByteSource, folder: Path, progress: Progress | None = None, *,
        caches: dict[Address, BlockCache] | None = None,
        parts: RememberedParts | None = None, start_precopy: Callable[[int | None], bool] = lambda limit: False,
    ) -> None:  # fmt: skip
        """Open the temporary files."""
        self.source = source
        self.folder = folder
        self.progress = progress or SilentProgress()
        self.caches = {} if caches is None else caches
        self._start_precopy: Callable[[int | None], bool] | None = start_precopy
        self.warnings = Warnings()
        self.outcomes: list[ScriptOutcome] = []
        """What came of each script that ran, in order."""
        self.find_boot: Callable[[], BootFiles] | None = None
        """Returns what the image boots, where that is known."""
        self.find_facts: Callable[[], BootFacts] | None = None
        """Returns what boot menus say, where the layers of the whole image can be opened."""
        self.fronts: FrontPacker | None = None
        """What packs fronts of containers while layers are indexed."""
        self._files = ExitStack()
        self.parts = None
        if parts is not None and not self._files.enter_context(parts).is_empty:
            self.parts = parts
        self.packed = self._files.enter_context(Spool(folder, MAX_EXTENT))
        self.contents = self._files.enter_context(Spool(folder))

    def make_keeper(self, request: NormalizedRequest) -> PlainKeeper:
        """Return what keeps plain bytes from indexing until they are packed, as ``request`` says.

        Under another codec nothing stays; and who names an archive file changes much of it, most likely.
        """
        from cosremaster.codecs.gzip.deflate import ISAL, NEW_LEVEL  # noqa: PLC0415 - an ISO goes without
        from cosremaster.layers.kept_plain import Deflating, PlainKeeper  # noqa: PLC0415 - the same

        deflating = None
        if request.codec == "gzip" and request.gzip == ISAL:  # which packs as fast as what is only kept
            deflating = Deflating(ISAL, NEW_LEVEL, request.threads)
        is_whole = request.codec is not None
        return self._files.enter_context(PlainKeeper(self.folder, is_whole=is_whole, deflating=deflating))

    def pack_fronts(self, request: NormalizedRequest) -> FrontPacker:
        """Return what packs fronts of containers as ``request`` says, while layers are indexed."""
        from cosremaster.remastering.front_packer import FrontPacker  # noqa: PLC0415 - imports this module
        from cosremaster.remastering.pack import Packing  # noqa: PLC0415 - the same

        self.fronts = self._files.enter_context(FrontPacker(Packing.of(request, self), self.folder))
        return self.fronts

    def note_layer(self, address: Address) -> None:
        """Note that the scripts which ran since the last call did so in the layer at ``address``."""
        if not self.outcomes:
            return
        from cosremaster.records.lazy_dataclass import replace  # noqa: PLC0415 - few remasters run scripts

        for number, outcome in enumerate(self.outcomes):
            if not outcome.layer:
                self.outcomes[number] = replace(outcome, layer=format_address(address))

    def start_precopy(self, limit: int | None = None) -> None:
        """Begin to copy the input to the output, unless that has begun; call it before layers are compressed.

        ``limit``: the bytes of its front that are likely to stay; None for all.
        """
        start, self._start_precopy = self._start_precopy, None
        if start is not None and start(limit):  # beside other work
            expect_work(self.progress, COPY, 0 if limit is None else max(self.source.size - limit, 0))

    def __enter__(self) -> RemasterContext:
        """Return the context itself; until the plan is made nobody knows all work."""
        self._files.enter_context(running(self.progress))
        expect_work(self.progress, PLAN, 1)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        self._files.close()
