"""Many images from one base, one after another or on the workers of an executor."""

from __future__ import annotations

import hashlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, cast

from cosremaster.__about__ import __version__
from cosremaster.api.image import Image, StrPath
from cosremaster.api.image import open as open_image
from cosremaster.deltas.note import note_path
from cosremaster.errors import CosremasterError, OutputError, UsageError, printable
from cosremaster.io.interruptions import finishing_names, hold_signals
from cosremaster.io.part_files import remove_stale_parts
from cosremaster.io.urls import is_url
from cosremaster.layers.scan import MAX_EXPAND
from cosremaster.overlay.request import STANDARD_INPUT, AddPath, OverlayItem, RunScript
from cosremaster.progress import Progress
from cosremaster.records.lazy_dataclass import dataclass
from cosremaster.remastering.request import Request, parse_item, parse_run, read_epoch

if TYPE_CHECKING:
    from cosremaster.api.results import Result
    from cosremaster.remastering.output_options import OutputKeywords

UNKNOWN_WINDOW = 32
"""Sites that an executor gets at once that does not say how many workers it has."""

_UNFORESEEN = 70
"""The exit code of what is a fault of cosremaster itself (docs/exit-codes.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An image that is to be made from a base: ``request`` written to ``target``.

    ``name``: what messages call it. ``force`` replaces an existing target.
    """

    name: str
    target: StrPath
    request: Request
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteResult:
    """What became of a :class:`Site`: plain values, which go from process to process.

    ``sha256``: of the finished file, in hexadecimal digits; ``size``: its bytes; ``seconds``: how long it took.
    ``result``: as of ``Image.remaster``; None where it failed. ``error``: why it failed, a sentence, with its
    ``exit_code`` (docs/exit-codes.md). ``begun``: whether a worker had it, before all workers were lost.
    """

    name: str
    target: str
    size: int = 0
    sha256: str = ""
    seconds: float = 0.0
    result: Result | None = None
    error: str = ""
    exit_code: int = 0
    begun: bool = True

    @property
    def ok(self) -> bool:
        """Whether the image is there, whole and proved."""
        return not self.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseOptions:
    """How the base of many remasters is opened, and how their images are written: the fields of the same names of
    :class:`Image` and ``Image.remaster``, so with ``delta`` as differences.
    """

    remember: bool = True
    check_index: bool = False
    max_expand: int = MAX_EXPAND
    sync: bool = True
    read_back: bool = False
    delta: bool = False
    base_delta: StrPath | None = None

    def of_output(self, *, force: bool) -> OutputKeywords:
        """Return the options of ``Image.remaster``; ``force`` is the site's."""
        return {
            "force": force, "sync": self.sync, "read_back": self.read_back, "sha256": not self.delta,
            "delta": self.delta, "base_delta": self.base_delta,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _SiteTask:
    """A site for a worker. ``run``: a name of the whole run, so that no worker takes a base of an earlier one.

    ``folder``, ``version`` and ``epoch``: the working directory, the cosremaster and the SOURCE_DATE_EPOCH of the
    process that asks. A worker of a cluster may have others, which must make no other image.
    """

    run: str
    base: str
    site: Site
    options: BaseOptions
    folder: str
    version: str
    epoch: int | None


class _OpenedBases:
    """The bases that this process has open, for tasks on any of its threads; those of earlier runs are closed."""

    def __init__(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._images: dict[str, Image] = {}
        self._users: dict[str, int] = {}

    @contextmanager
    def using(self, task: _SiteTask) -> Iterator[Image]:
        """Give the base of ``task``, which stays open while its run lasts."""
        with self._lock:
            if task.run not in self._images:
                self._close_idle()
                self._images[task.run] = _open_base(task.base, task.options)
            self._users[task.run] = self._users.get(task.run, 0) + 1
            image = self._images[task.run]
        try:
            yield image
        finally:
            with self._lock:
                self._users[task.run] -= 1

    def _close_idle(self) -> None:
        """Close the bases that no task uses."""
        for run in [run for run in self._images if not self._users.get(run)]:
            self._users.pop(run, None)
            self._images.pop(run).close()

    def close(self) -> None:
        """Close the bases that no task uses, at the end of a run."""
        with self._lock:
            self._close_idle()


_BASES = _OpenedBases()


def remaster_many(
    base: StrPath, sites: Iterable[Site], executor: Executor | None = None, *, options: BaseOptions | None = None,
    window: int | None = None, on_result: Callable[[SiteResult], None] | None = None,
    progress: Progress | None = None,
) -> tuple[SiteResult, ...]:  # fmt: skip
    """Make the images of ``sites`` from the image ``base``. Return what became of each, in their order.

    Each image is complete and proved, or it is not there; one that fails does not stop the others. ``executor``: of
    ``concurrent.futures`` or alike; its workers have to reach the same paths. The base is indexed before they begin,
    and each opens it once. Without an executor one image is made after another.

    ``on_result`` is called with each result when it is there. ``window``: how many sites the executor gets at once;
    None for one for each of its workers. Where workers die (``BrokenExecutor``), the sites that they had fail, the
    executor is shut down, and what is left over of their files is removed; those that nobody had are not ``begun``.

    >>> import cosremaster
    >>> from cosremaster import InlineFile, Request, Site
    >>> sites = [
    ...     Site(name=name, target=f"{name}.iso", request=Request(add=[InlineFile("/etc/site", name.encode())]))
    ...     for name in ("north", "south")
    ... ]
    >>> print([(result.name, result.ok) for result in cosremaster.remaster_many("vendor.iso", sites)])
    [('north', True), ('south', True)]

    :raises UsageError: two sites have one name or target, or ``window`` is less than 1.
    :raises ImageError: the base cannot be opened.
    """
    listed = tuple(sites)
    _check_sites(listed)
    if window is not None and window < 1:
        raise UsageError(f"a window of {window} sites lets none begin")
    settings = options or BaseOptions()
    results: dict[str, SiteResult] = {}

    def record(result: SiteResult) -> None:
        """Keep ``result`` and report it."""
        results[result.name] = result
        if on_result is not None:
            on_result(result)

    if executor is None:
        _make_in_turn(base, listed, settings, record)
    else:
        _index_base(base, settings, progress)
        run = os.urandom(8).hex()
        tasks = [
            _SiteTask(
                run=run, base=os.fspath(base), site=site, options=settings, folder=os.path.abspath("."),
                version=__version__, epoch=read_epoch(),
            )
            for site in listed
        ]  # fmt: skip
        try:
            at_once = window or int(getattr(executor, "_max_workers", None) or UNKNOWN_WINDOW)
            _TaskRun(executor, tasks, at_once, record).finish()
        finally:
            _BASES.close()
    return tuple(results[site.name] for site in listed)


def _make_in_turn(
    base: StrPath, sites: Sequence[Site], options: BaseOptions, record: Callable[[SiteResult], None]
) -> None:
    """Make ``sites`` one after another; ``record`` gets the results. :raises ImageError: the base cannot be opened."""
    with _open_base(base, options) as image:
        for site in sites:
            with finishing_names():  # an image that has its name is recorded, too
                record(_make_site(image, site, options))


def _check_sites(sites: Sequence[Site]) -> None:
    """Check that names and targets of ``sites`` differ. :raises UsageError: two are the same."""
    names, targets = set[str](), set[str]()
    for site in sites:
        target = os.path.realpath(site.target)
        if site.name in names:
            raise UsageError(f"the site {printable(site.name)} is there twice")
        if target in targets:
            raise UsageError(f"{printable(os.fspath(site.target))}: two sites are to be written there")
        names.add(site.name)
        targets.add(target)


def _open_base(base: StrPath, options: BaseOptions) -> Image:
    """Open the image ``base``. Raises as ``cosremaster.open``."""
    return open_image(
        base, remember=options.remember, check_index=options.check_index, max_expand=options.max_expand
    )  # fmt: skip


def _index_base(base: StrPath, options: BaseOptions, progress: Progress | None) -> None:
    """Index ``base`` and keep the index, so that workers need not decode it. :raises ImageError: it is no image."""
    with _open_base(base, options) as image, suppress(CosremasterError):  # each site tells what is wrong with a layer
        image.layers(progress=progress)


class _TaskRun:
    """Lets ``executor`` work on ``tasks``, of which it has ``window`` at once; ``record`` gets the results."""

    def __init__(
        self, executor: Executor, tasks: Sequence[_SiteTask], window: int, record: Callable[[SiteResult], None]
    ) -> None:
        """Keep the arguments, and what is at the targets before."""
        self._executor, self._window, self._record = executor, window, record
        self._waiting = deque(tasks)
        self._running: dict[Future[SiteResult], Site] = {}
        self._before = {task.site.name: _stamp_of(task.site) for task in tasks}
        self._lost: list[Site] = []
        self._is_broken = False
        self._is_delta = any(task.options.delta for task in tasks)

    def finish(self) -> None:
        """Work until there is a result for each task; where that is interrupted, none more begins."""
        try:
            while self._running or (self._waiting and not self._is_broken):
                self._submit()
                self._take_results()
        except BaseException:
            begun = [future for future in self._running if not future.cancel()]
            stop_sites = getattr(self._executor, "stop_sites", None)
            if stop_sites is not None:
                stop_sites()
                wait(begun)
            for future in begun:
                if future.done() and _error_of(future) is None and future.result().begun:
                    self._record(future.result())  # it is there, and was finished
            raise
        if self._is_broken:
            self._clear_up()

    def _submit(self) -> None:
        """Give the executor as many tasks as it may have at once."""
        while self._waiting and len(self._running) < self._window and not self._is_broken:
            try:
                self._running[self._executor.submit(_remaster_site, self._waiting[0])] = self._waiting[0].site
                self._waiting.popleft()
            except BrokenExecutor:
                self._is_broken = True

    def _take_results(self) -> None:
        """Wait for a result, and record all that are there; an interruption comes before or behind that."""
        ended = wait(self._running, return_when=FIRST_COMPLETED).done if self._running else ()
        with finishing_names():
            hold_signals()
            for future in ended:
                site = self._running.pop(future)
                error = _error_of(future)
                if isinstance(error, BrokenExecutor):
                    self._is_broken = True
                    self._lost.append(site)
                else:
                    self._record(future.result() if error is None else _failure(site, _explain(error), 0.0))

    def _clear_up(self) -> None:
        """Remove what dead workers left, and record the sites that they had, and those that nobody had."""
        self._executor.shutdown(wait=True)
        sites = [*self._lost, *(task.site for task in self._waiting)]
        for folder in {Path(os.path.realpath(site.target)).parent for site in sites}:
            remove_stale_parts(folder)
        for site in self._lost:
            if _stamp_of(site) != self._before[site.name]:  # it got its name, and the worker died before it could tell
                for path in (Path(site.target), *self._notes_of(site)):
                    path.unlink(missing_ok=True)
            self._record(_failure(site, OutputError("a worker died while it was made: killed, or out of memory"), 0.0))
        for task in self._waiting:
            error = OutputError("was not begun, as the workers died")
            self._record(_failure(task.site, error, 0.0, is_begun=False))

    def _notes_of(self, site: Site) -> Iterator[Path]:
        """Yield the note beside the target of ``site``, where that is a delta."""
        if self._is_delta:
            yield note_path(Path(site.target))


def _stamp_of(site: Site) -> tuple[int, int, int] | None:
    """Return what tells the file at the target of ``site`` from another; None without one."""
    try:
        status = os.stat(site.target)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _error_of(future: Future[SiteResult]) -> BaseException | None:
    """Return why the executor has no result in ``future``; None where it has one."""
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _explain(error: BaseException) -> BaseException:
    """Return ``error`` of an executor, or what it means for a site."""
    if isinstance(error, CancelledError):
        return OutputError("was not begun, as the executor was told to stop")
    return error


class _WorkerStopped(SystemExit):
    """A signal asks this worker to end; unwinding removes what is unfinished."""


class _TaskStopped(BaseException):
    """The parent gives up the run; unwinding removes what is unfinished, and the worker tells what it finished."""


class _Worker:
    """What this process does as a worker: whether it is at a site, and whether it shall begin none any more."""

    is_busy = False
    is_stopping = False


def start_worker() -> None:
    """Prepare a process to be a worker: Ctrl-C is its parent's, SIGTERM and the end of its parent end it.

    It then removes what is unfinished. For the ``initializer`` of a ``ProcessPoolExecutor``.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_worker)
    signal.signal(signal.SIGUSR1, _stop_task)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow_parent, args=(parent,), daemon=True).start()


def stop_worker(process: multiprocessing.process.BaseProcess) -> None:
    """Let the worker ``process``, which :func:`start_worker` prepared, leave its site and begin none any more.

    Other than by SIGTERM it lives on, and its pool gets what it finished. So that pool is to be shut down.
    """
    if process.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGUSR1)


def _stop_task(_number: int, _frame: FrameType | None) -> None:
    """Let the site that the worker is at end: what it does unwinds first."""
    is_first, _Worker.is_stopping = not _Worker.is_stopping, True
    if _Worker.is_busy and is_first:
        raise _TaskStopped


def _end_worker(number: int, _: FrameType | None) -> None:
    """Let the worker end: what it does unwinds first."""
    raise _WorkerStopped(128 + number)


def _follow_parent(parent: multiprocessing.process.BaseProcess) -> None:
    """End this worker when its parent has ended."""
    multiprocessing.connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _remaster_site(task: _SiteTask) -> SiteResult:
    """Make the image of ``task`` in a worker; the base stays open for the next task."""
    start, target = time.monotonic(), os.fspath(task.site.target)
    stopped = _failure(task.site, OutputError("was not finished, as the run was interrupted"), 0.0, is_begun=False)
    if _Worker.is_stopping:
        return stopped
    result: SiteResult | None = None
    try:
        _Worker.is_busy = True
        with finishing_names():  # who asks hears of an image that has its name
            task = _adapt_task(task)
            with _BASES.using(task) as image:
                result = replace(_make_site(image, task.site, task.options), target=target)
    except _WorkerStopped:
        os._exit(128 + signal.SIGTERM)  # a pool would take it for a result, and give this worker another task
    except _TaskStopped:
        return result or stopped
    except Exception as error:
        return _failure(task.site, error, time.monotonic() - start)
    finally:
        _Worker.is_busy = False
    return result


def _adapt_task(task: _SiteTask) -> _SiteTask:
    """Return ``task`` so that this process makes of it what the one that asks would.

    :raises UsageError: that is not possible.
    """
    if task.version != __version__:
        raise UsageError(f"the worker has cosremaster {__version__}, and {task.version} asks it")
    request, epoch = task.site.request, read_epoch()
    if request.source_date_epoch is None and epoch != task.epoch:
        if task.epoch is None:
            raise UsageError("the worker has a SOURCE_DATE_EPOCH, and who asks it has none")
        request = replace(request, source_date_epoch=task.epoch)
    folder, base, options = task.folder, task.base, task.options
    target = task.site.target
    if os.path.abspath(".") != folder:
        base = base if is_url(base) else os.path.join(folder, base)
        request, target = _anchor_request(request, folder), os.path.join(folder, target)
        if options.base_delta is not None:
            options = replace(options, base_delta=os.path.join(folder, options.base_delta))
    return replace(task, base=base, options=options, site=replace(task.site, request=request, target=target))


def _anchor_request(request: Request, folder: str) -> Request:
    """Return ``request`` with the paths of this machine that are relative to ``folder`` made absolute."""

    def anchor(path: StrPath | None) -> StrPath | None:
        """Return the absolute path."""
        return path if path is None or os.fsencode(path) == STANDARD_INPUT else os.path.join(folder, path)

    def anchor_item(item: str | os.PathLike[str] | OverlayItem, option: str) -> OverlayItem:
        """Return ``item`` with absolute paths."""
        parsed = parse_item(item, option)
        if isinstance(parsed, AddPath):
            return replace(parsed, source=anchor(parsed.source) or "", mtree=anchor(parsed.mtree))
        if isinstance(parsed, RunScript):
            return replace(
                parsed, script=anchor(parsed.script), files=anchor(parsed.files), directory=anchor(parsed.directory)
            )
        return parsed

    def anchor_run(run: str | os.PathLike[str] | RunScript) -> RunScript:
        """Return ``run`` with absolute paths; a text is a script's path where that is a file."""
        if isinstance(run, str) and os.path.isfile(os.path.join(folder, run)):
            run = RunScript(run)
        return cast("RunScript", anchor_item(parse_run(run), "--run"))

    return replace(
        request,
        add=tuple(anchor_item(item, "--add") for item in request.add),
        add_iso=tuple(anchor_item(item, "--add-iso") for item in request.add_iso),
        run=tuple(anchor_run(run) for run in request.run),
    )


def _make_site(image: Image, site: Site, options: BaseOptions) -> SiteResult:
    """Make ``site`` from ``image``, and return what became of it."""
    start = time.monotonic()
    try:
        result = image.remaster(site.target, site.request, **options.of_output(force=site.force))
        digest = result.sha256 if result.delta is None else digest_file(site.target)
    except Exception as error:  # whatever it is, it stops no other site
        return _failure(site, error, time.monotonic() - start)
    return SiteResult(
        name=site.name, target=os.fspath(site.target), sha256=digest,
        size=result.output_size if result.delta is None else result.delta.size,
        seconds=time.monotonic() - start, result=result,
    )  # fmt: skip


def _failure(site: Site, error: BaseException, seconds: float, *, is_begun: bool = True) -> SiteResult:
    """Return that ``site`` failed with ``error`` after ``seconds``."""
    is_ours = isinstance(error, CosremasterError)
    return SiteResult(
        name=site.name, target=os.fspath(site.target), seconds=seconds, begun=is_begun,
        error=str(error) if is_ours else f"{type(error).__name__}: {error}",
        exit_code=error.exit_code if isinstance(error, CosremasterError) else _UNFORESEEN,
    )  # fmt: skip


def digest_file(path: StrPath) -> str:
    """Return the SHA-256 of the file ``path`` in hexadecimal digits. :raises OSError: it cannot be read."""
    digest, buffer = hashlib.sha256(), bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    return digest.hexdigest()
