"""Make the images of a fleet: what is common once, then each site's difference, and what is current not again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cosremaster.api.image import Image
from cosremaster.api.many import BaseOptions, Site, SiteResult, digest_file, remaster_many
from cosremaster.deltas.note import note_path
from cosremaster.errors import CosremasterError, ImageError, OutputError, OverlayError, Place, UsageError, printable
from cosremaster.fleet.base import FleetBase, SiteBase
from cosremaster.fleet.pool import SitePool
from cosremaster.fleet.read import Fleet, FleetSite, list_outputs
from cosremaster.fleet.split import SplitRequests, split_requests
from cosremaster.fleet.state import STATE, SUMS, DeltaRecord, FleetState, SiteKeys, SiteRecord, list_sources
from cosremaster.io.parallel import cpu_count
from cosremaster.io.part_files import is_locked_elsewhere, remove_stale_parts
from cosremaster.io.urls import Url
from cosremaster.progress import Progress, SilentProgress
from cosremaster.records import Struct
from cosremaster.records import replace as replace_record
from cosremaster.remastering.request import Request

if TYPE_CHECKING:
    from cosremaster.api.results import Result

_RECORD_SECONDS = 2.0
"""So often fleet.json is written while images are made, at most."""


class FleetOptions(Struct, frozen=True, kw_only=True):
    """How a fleet is made.

    ``jobs``: images at once, each by a process of its own; ``executor``: what makes them instead, with ``window`` at
    once. ``force``: make all anew, and replace what is not ours. ``check_index``, ``sync``, ``read_back``: as for a
    remaster.
    """

    jobs: int = 1
    executor: Executor | None = None
    window: int | None = None
    force: bool = False
    check_index: bool = False
    sync: bool = True
    read_back: bool = False


class FleetListener(Protocol):
    """Hears how the images of a fleet come along."""

    def begin(self, count: int, current: int, has_common: bool) -> None:
        """Hear that ``count`` images will be made, beside ``current`` ones; ``has_common``: behind what is common."""
        ...

    def add(self, record: SiteRecord) -> None:
        """Hear what became of a site; the warnings are its own, beside those of what is common to all."""
        ...


class FleetReport(Struct, frozen=True, kw_only=True):
    """What became of the sites that were asked for; ``folder``: where fleet.json is."""

    folder: Path
    records: tuple[SiteRecord, ...]

    @property
    def exit_code(self) -> int:
        """The worst exit code of all sites."""
        return max((record.exit_code for record in self.records), default=0)


class FleetPlan(Struct, frozen=True, kw_only=True):
    """What a run will do: ``pending`` sites with their keys and why, ``current`` ones, and what all have in common:
    the ``split`` of the requests of all sites, in their order.
    """

    folder: Path
    state: FleetState
    pending: tuple[tuple[FleetSite, str, str], ...]
    current: tuple[SiteRecord, ...]
    split: SplitRequests
    keys: SiteKeys

    @property
    def common(self) -> Request | None:
        """What all sites have in common, done once; None if that is nothing."""
        return self.split.common


def plan_fleet(
    fleet: Fleet, names: Sequence[str] = (), *, force: bool = False, base: FleetBase | None = None
) -> FleetPlan:
    """Return what :func:`run_fleet` would do for the sites called ``names``, or all; nothing is written.

    ``base``: that of the fleet, opened for a run; without it one that is far away is not read for its digest: all is
    to be made where the server tells of another version.

    :raises UsageError: there is no such site, fleet.json or SHA256SUMS is not ours, or images would be part of what is
        added. :raises ImageError: the base is unreadable, or not the one that is expected.
    """
    sites = fleet.select(names)
    _check_outputs(fleet)
    folder = _find_folder(fleet)
    state = FleetState(folder)
    if not force:
        _check_owner(fleet, state)
    with nullcontext(base) if base is not None else FleetBase(fleet.base) as opened:
        digest = opened.digest(state, reads=base is not None)
        keys = SiteKeys(digest, delta=fleet.delta)
        ending = opened.ending.lower()
    if digest:
        _check_expected(fleet, state.base_sha256)
    pending, current = list[tuple[FleetSite, str, str]](), list[SiteRecord]()
    for site in sites:
        try:
            key = keys.key_of(site)
        except OverlayError:  # a run tells why, and makes the others
            pending.append((site, "", UNREADABLE))
            continue
        reason = "--force" if force else _find_reason(state.records.get(site.name), site, key, delta=fleet.delta)
        if reason:
            pending.append((site, key, reason))
        else:
            current.append(replace_record(state.records[site.name], state="current"))
    split = split_requests([site.request for site in fleet.sites])
    if not fleet.delta and any(site.output.suffix.lower() != ending for site in fleet.sites):  # as another codec
        split = split_requests([fleet.sites[0].request])
        split = replace_record(split, rests=tuple(site.request for site in fleet.sites))
    return FleetPlan(
        folder=folder, state=state, pending=tuple(pending), current=tuple(current), split=split, keys=keys
    )  # fmt: skip


FOREIGN = "a file that no run wrote is there, and stays without --force"
UNREADABLE = "what it adds cannot be read"
"""Why a site will fail."""


def _check_owner(fleet: Fleet, state: FleetState) -> None:
    """Check that what tells of all sites is of ``fleet``. :raises UsageError: it is of another, or no fleet's."""
    if state.is_new and os.path.lexists(state.folder / SUMS):
        reason = f"is there without {STATE}, so no run of a fleet wrote it; move it away, or --force replaces it"
        raise UsageError(f"{state.folder / SUMS}: {reason}")
    if state.records and state.records.keys().isdisjoint(site.name for site in fleet.sites):
        name = printable(next(iter(state.records)))
        reason = "and of no site of this fleet; --output-dir is for another folder, or --force takes this one"
        raise UsageError(f"{state.folder / STATE}: tells of {name}, {reason}")


def _check_expected(fleet: Fleet, digest: str) -> None:
    """Check that the SHA-256 of the base, ``digest``, is the one that is expected. :raises ImageError: it is not."""
    for name, digits in fleet.expect:
        if name == "sha256" and digits != digest:
            raise ImageError(f"its sha256 is {digest}, and {digits} was expected", Place((str(fleet.base),)))


def _is_ours(record: SiteRecord | None, output: Path) -> bool:
    """Return whether the file ``output`` is one that a run of this fleet wrote, or may have written."""
    return record is not None and (record.state == "begun" or record.describes(output))


def _find_reason(record: SiteRecord | None, site: FleetSite, key: str, *, delta: bool) -> str:
    """Return why the image of ``site`` has to be made; empty where it is current."""
    if not os.path.lexists(site.output):
        return "new"
    if record is None or not _is_ours(record, site.output):
        return FOREIGN
    if not record.is_made:
        return "it failed" if record.state == "failed" else "it was not finished"
    if record.key != key:
        return "base, recipe or overlay changed"
    is_whole = record.describes(site.output) and (not delta or record.describes_note(site.output))
    return "" if is_whole else "the file changed"


def run_fleet(
    fleet: Fleet, names: Sequence[str] = (), *, options: FleetOptions | None = None,
    listener: FleetListener | None = None, progress: Progress | None = None,
) -> FleetReport:  # fmt: skip
    """Make the images of the sites called ``names``, or all, that are not current.

    Each is complete and proved, or is not there; one that fails does not stop the others. However the run ends,
    fleet.json and SHA256SUMS beside the images tell of those that are there.

    :raises CosremasterError: no site could be tried: as :func:`plan_fleet`; the base has not the digest that is
        expected, what is common to all sites cannot be done, or another run is in the folder.
    """
    settings = options or FleetOptions()
    if fleet.delta and settings.read_back:
        raise UsageError(f"{fleet.path}: writes deltas, which are proved as they are (--read-back is for images)")
    with FleetBase(fleet.base) as base, ExitStack() as stack:
        is_locked = _lock_folder(fleet, stack)
        plan = plan_fleet(fleet, names, force=settings.force, base=base)
        _make_folder(plan.folder)
        if not is_locked:
            _lock_folder(fleet, stack)
            if (plan.folder / STATE).exists():  # another run was here meanwhile
                plan = plan_fleet(fleet, names, force=settings.force, base=base)
        run = _FleetRun(fleet, plan, settings, listener)
        if plan.pending:
            run.make(base, progress)
            run.write_state()
        else:
            run.tell_current(progress)
    named = fleet.select(names)
    return FleetReport(folder=plan.folder, records=tuple(plan.state.records[site.name] for site in named))


class _FleetRun:
    """A run over the pending sites of ``plan``."""

    def __init__(self, fleet: Fleet, plan: FleetPlan, options: FleetOptions, listener: FleetListener | None) -> None:
        """Keep the arguments; records of sites that are in the fleet no more are dropped."""
        self._fleet, self._plan, self._options, self._listener = fleet, plan, options, listener
        self._keys = {site.name: key for site, key, _ in plan.pending}
        self._outputs = {site.name: site.output for site, _, _ in plan.pending}
        self._written_at = 0.0
        self._made_from = ""
        self._common_warnings: tuple[str, ...] = ()
        known = {site.name for site in fleet.sites}
        records = plan.state.records
        for name in [name for name in records if name not in known]:
            del records[name]
        records.update({record.site: record for record in plan.current})
        self._present = {
            site.name
            for site in fleet.sites
            if site.name in records and records[site.name].is_made and records[site.name].describes(site.output)
        }

    def write_state(self) -> None:
        """Write fleet.json and SHA256SUMS."""
        _make_folder(self._plan.folder)
        self._plan.state.write(sync=self._options.sync and self._fleet.sync)
        self._written_at = time.monotonic()

    def tell_current(self, progress: Progress | None) -> None:
        """Record that all images are current, which has to be written only where it is new."""
        self._check_digests([pair for pair in self._fleet.expect if pair[0] != "sha256"], progress)
        if self._listener is not None:
            self._listener.begin(0, len(self._plan.current), False)
        try:
            self.write_state()
        except OutputError:
            if not self._plan.state.is_written():
                raise

    def _check_digests(self, expected: Sequence[tuple[str, str]], progress: Progress | None) -> None:
        """Read the base, and compare its digests with those that are ``expected``. :raises ImageError: one differs."""
        if expected:
            with Image(self._fleet.base) as image:
                for name, digits in expected:
                    image.check_digest(name, digits, progress=progress)

    def make(self, base: FleetBase, progress: Progress | None) -> None:
        """Make the pending images. Raises as :func:`run_fleet`."""
        plan, options = self._plan, self._options
        self._check_digests(self._fleet.expect, progress)
        sites = list(self._make_sites())
        with (
            self._keeping_state(base, progress or SilentProgress()),
            base.make_site_base(
                plan.folder, plan.split, [site.request for site in self._fleet.sites], delta=self._fleet.delta,
                check_index=options.check_index, progress=progress,
                is_shared=options.executor is not None or options.jobs > 1,
            ) as site_base,
        ):  # fmt: skip
            if self._listener is not None:
                self._listener.begin(len(sites), len(plan.current), site_base.has_common)
            self._run(site_base, self._without_common(sites) if site_base.has_common else sites, options, progress)

    def _make_sites(self) -> Iterator[Site]:
        """Yield the pending sites as they are to be made, their folders made; they are recorded as begun."""
        for site, key, _ in self._plan.pending:
            with suppress(OutputError):  # the site tells that there is no folder
                _make_folder(site.output.parent)
            old = self._plan.state.records.get(site.name)
            is_ours = _is_ours(old, site.output)
            request = self._with_threads(site.request)
            if is_ours or not os.path.lexists(site.output):
                begun = SiteRecord(site=site.name, path=self._path_of(site.output), state="begun", key=key)
                self._record(begun if old is None else _with_image_of(begun, old))
            may_come_again = self._options.executor is not None and not os.path.lexists(site.output)
            is_replaced = is_ours or self._options.force or may_come_again  # a cluster tries again after a worker died
            yield Site(name=site.name, target=site.output, request=request, force=is_replaced)

    def _without_common(self, sites: Sequence[Site]) -> list[Site]:
        """Return ``sites`` with what is left of their requests where what is common is done."""
        names = (site.name for site in self._fleet.sites)
        rests = dict(zip(names, self._plan.split.rests, strict=True))
        return [replace(site, request=self._with_threads(rests[site.name])) for site in sites]

    def _with_threads(self, request: Request) -> Request:
        """Return ``request`` with its part of the threads where several images are made at once."""
        if self._options.jobs == 1 or request.threads is not None:
            return request
        return replace(request, threads=max(1, cpu_count() // self._options.jobs))

    def _path_of(self, output: Path) -> str:
        """Return the path of ``output`` from the folder of fleet.json."""
        return os.path.relpath(output, self._plan.folder)

    def _record(self, record: SiteRecord) -> None:
        """Keep ``record`` as what is known of its site."""
        self._plan.state.records[record.site] = record

    @contextmanager
    def _keeping_state(self, base: FleetBase, progress: Progress) -> Iterator[None]:
        """Write fleet.json before and after the context, however it ends; nothing half is left in the folders."""
        self.write_state()
        try:
            yield
        finally:
            for folder in {output.parent for output in self._outputs.values()}:
                remove_stale_parts(folder)
            self._doubt_changed(base, progress)
            self._check_present()
            with suppress(CosremasterError):
                self.write_state()

    def _doubt_changed(self, base: FleetBase, progress: Progress) -> None:
        """Take the keys of images away whose sources changed while they were made: nobody knows which state they have.

        Else an image with bytes that came and went would be current for good.
        """
        what, sites = "what is added", [site for site, _, _ in self._plan.pending]
        if base.is_replaced:
            what = "the base"
        else:
            sites = list(self._plan.keys.list_changed(sites))
        for site in sites:
            record = self._plan.state.records.get(site.name)
            if record is not None and record.state == "written":
                warning = f"{what} changed while images were made, and the next run makes this one anew"
                progress.warn(f"{printable(site.name)}: {warning}")
                self._record(replace_record(record, key="", warnings=(*record.warnings, warning)))

    def _check_present(self) -> None:
        """Record as failed whose image is another file than the one that was written, or gone.

        Another site wrote there where a file system takes both names for one, or where one is a symlink to the other.
        """
        watched = {*self._present, *self._keys}
        for site in self._fleet.sites:
            record = self._plan.state.records.get(site.name)
            if site.name not in watched or record is None or not record.is_made or record.describes(site.output):
                continue
            status = _stat_same(record, site.output)
            if status is not None:
                self._record(replace_record(record, mtime_ns=status.st_mtime_ns))
                continue
            error = OutputError("was written, and then another program, or another site, wrote there or removed it",
                                Place((str(site.output),)))  # fmt: skip
            self._record(replace_record(record, state="failed", key="", error=str(error), exit_code=error.exit_code))

    def _run(
        self, made_from: SiteBase, sites: Sequence[Site], options: FleetOptions, progress: Progress | None
    ) -> None:
        """Make ``sites`` from what they are ``made_from``; where workers died, others go on with what nobody had."""
        base = self._made_from = made_from.image
        self._common_warnings = made_from.warnings
        settings = BaseOptions(
            check_index=options.check_index, sync=options.sync and self._fleet.sync, read_back=options.read_back,
            delta=self._fleet.delta, base_delta=made_from.delta,
        )  # fmt: skip
        on_result = self._take_result
        if options.executor is not None:
            remaster_many(base, sites, options.executor, options=settings, window=options.window, on_result=on_result)
        elif options.jobs == 1:
            remaster_many(base, sites, options=settings, on_result=on_result)
        else:
            self._run_on_processes(base, sites, settings, progress)

    def _run_on_processes(
        self, base: str, sites: Sequence[Site], settings: BaseOptions, progress: Progress | None
    ) -> None:
        """Make ``sites`` on processes of our own, new ones where some died."""
        while sites:
            pool = SitePool(self._options.jobs)
            try:
                results = remaster_many(
                    base, sites, pool, options=settings, progress=progress,
                    on_result=lambda result: self._take_result(result) if result.begun else None,
                )  # fmt: skip
                pool.shutdown()
            except BaseException:
                pool.end_workers()
                raise
            lost = {result.name for result in results if not result.begun}
            sites = [site for site in sites if site.name in lost]

    def _name_base(self, message: str) -> str:
        """Return ``message`` with the name of the base in place of that of an inner one, which will be gone."""
        return message.replace(self._made_from, str(self._fleet.base)) if self._made_from else message

    def _take_result(self, result: SiteResult) -> None:
        """Record ``result``, and report it."""
        output = self._outputs[result.name]
        plain = SiteRecord(
            site=result.name, path=self._path_of(output), state="failed", key=self._keys[result.name],
            seconds=result.seconds, error=self._name_base(result.error), exit_code=result.exit_code,
        )  # fmt: skip
        if result.name in self._plan.state.records:  # an older image stays, and stays ours
            plain = _with_image_of(plain, self._plan.state.records[result.name])
        own: tuple[str, ...] = ()
        if result.result is not None:
            made = result.result
            own = tuple(map(self._name_base, made.warnings))
            counts = {kind: len(getattr(made, kind)) for kind in ("added", "replaced", "removed", "iso_added",
                                                                  "iso_removed", "iso_exchanged")}  # fmt: skip
            plain = replace_record(
                plain, state="written", size=result.size, sha256=result.sha256,
                warnings=tuple(dict.fromkeys((*self._common_warnings, *own))),
                changes={kind: count for kind, count in counts.items() if count},
                mtime_ns=_read_mtime(output), delta=_describe_delta(made, output),
            )  # fmt: skip
        self._record(plain)
        if self._listener is not None:
            self._listener.add(replace_record(plain, warnings=own))  # the others were told when the base was made
        if time.monotonic() - self._written_at > _RECORD_SECONDS:
            with suppress(OutputError):
                self.write_state()


def _with_image_of(record: SiteRecord, old: SiteRecord) -> SiteRecord:
    """Return ``record`` of a site with what tells the image of the ``old`` one."""
    return replace_record(record, size=old.size, sha256=old.sha256, mtime_ns=old.mtime_ns, delta=old.delta)


def _read_mtime(output: Path) -> int:
    """Return when ``output`` changed last, in nanoseconds; 0 where it is gone, which the end of the run tells."""
    with suppress(OSError):
        return os.stat(output).st_mtime_ns
    return 0


def _stat_same(record: SiteRecord, output: Path) -> os.stat_result | None:
    """Return the status of ``output`` if it has the bytes that ``record`` tells of; None if not."""
    try:
        status = os.stat(output)
        is_same = status.st_size == record.size and digest_file(output) == record.sha256
    except OSError:
        return None
    return status if is_same else None


def _describe_delta(result: Result, output: Path) -> DeltaRecord | None:
    """Return what fleet.json says of the delta ``output`` of a ``result``; None for an image."""
    if result.delta is None:
        return None
    note = ""
    with suppress(OSError):  # without a note the delta is not current
        note = digest_file(note_path(output))
    return DeltaRecord(
        base_sha256=result.delta.base_sha256, sha256=result.delta.sha256, size=result.output_size, note_sha256=note,
    )  # fmt: skip


def _make_folder(folder: Path) -> None:
    """Make ``folder``, if it is not there. :raises OutputError: it cannot be made."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be made: {error.strerror}", Place((str(folder),))) from error


def _lock_folder(fleet: Fleet, stack: ExitStack) -> bool:
    """Keep other runs out of the folder of ``fleet`` while ``stack`` is open; return False where there is no folder.

    :raises OutputError: another run is in it.
    """
    folder = _find_folder(fleet)
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # what is to be written there says why
        return False
    stack.callback(os.close, fd)
    if is_locked_elsewhere(fd):
        raise OutputError(
            "another run of a fleet writes there now, and each would forget the images of the other",
            Place((str(folder),)),
        )
    return True


def _find_folder(fleet: Fleet) -> Path:
    """Return the folder that all images of ``fleet`` have in common."""
    folders = [site.output.parent for site in fleet.sites]
    if any(folder.is_absolute() for folder in folders):
        folders = [Path(os.path.abspath(folder)) for folder in folders]
    return Path(os.path.commonpath(folders))


def _check_outputs(fleet: Fleet) -> None:
    """Check that no site is to be written over the base, the fleet's file or what tells of all sites.

    :raises UsageError: one is, or is below a folder that is added: each image would have the others in it.
    """
    folder = _find_folder(fleet)
    sources = {os.path.realpath(path): path for site in fleet.sites for path in list_sources(site.request)}
    for parent, site in {site.output.parent: site for site in reversed(fleet.sites)}.items():
        real = Path(os.path.realpath(parent))
        source = next((sources[name] for name in map(str, (real, *real.parents)) if name in sources), None)
        if source is not None:
            raise UsageError(f"{site.name}: {site.output} would be part of what is added ({source})")
    for site in fleet.sites:
        for output in list_outputs(site.output, delta=fleet.delta):
            if output in (folder / STATE, folder / SUMS):
                raise UsageError(f"{site.name}: {output} is where a run tells of all sites")
        for path in (fleet.base, fleet.path):
            if isinstance(path, Url):
                continue
            if os.path.exists(site.output) and os.path.exists(path) and os.path.samefile(site.output, path):
                raise UsageError(f"{site.name}: {site.output} is what it is made from, which is never changed")
