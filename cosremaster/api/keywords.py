"""The functions that take the fields of a request as keywords."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from cosremaster.api.image import Image, StrPath
from cosremaster.io.urls import ImagePath
from cosremaster.layers.scan import MAX_EXPAND
from cosremaster.progress import Progress
from cosremaster.records.lazy_dataclass import dataclass
from cosremaster.remastering.request import Request

if TYPE_CHECKING:
    from cosremaster.api.results import Plan, Result

_P = ParamSpec("_P")
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemasterOptions(Request):
    """A :class:`Request` with the options of :class:`Image` and :meth:`Image.remaster`.

    The keywords of ``remaster``.
    """

    force: bool = False
    digest: str | None = None
    report: StrPath | None = None
    sync: bool = True
    read_back: bool = False
    expect: Iterable[str] = ()
    delta: bool = False
    plain: bool = False
    remember: bool = True
    check_index: bool = False
    max_expand: int = MAX_EXPAND
    progress: Progress | None = None


def _with_keywords(
    options: Callable[_P, _T], function: Callable[[ImagePath, StrPath, _T], _R]
) -> Callable[Concatenate[ImagePath, StrPath, _P], _R]:
    """Return ``function`` with the fields of the dataclass ``options`` as keywords, in place of a value of it."""

    def call(source: ImagePath, target: StrPath, /, *args: _P.args, **keywords: _P.kwargs) -> _R:
        """Make the options and call the function."""
        return function(source, target, options(*args, **keywords))

    call.__doc__, call.__name__, call.__qualname__ = function.__doc__, "remaster", "remaster"
    return call


def _remaster(source: ImagePath, target: StrPath, options: RemasterOptions) -> Result:
    """Write the image ``source`` to ``target`` with changes. The keywords are the fields of :class:`RemasterOptions`.

    >>> import cosremaster
    >>> result = cosremaster.remaster("vendor.iso", "out.iso", add=["site/"], kernel_args=["console=ttyS0"])
    >>> print(result.added)
    (b'etc/motd',)

    :raises CosremasterError: one of its kinds (docs/exit-codes.md); there is no target then.
    """
    with Image(
        source, remember=options.remember, check_index=options.check_index, max_expand=options.max_expand
    ) as image:
        return image.remaster(
            target, options, force=options.force, digest=options.digest, report=options.report, sync=options.sync,
            read_back=options.read_back, expect=options.expect, delta=options.delta, plain=options.plain,
            progress=options.progress,
        )  # fmt: skip


remaster = _with_keywords(RemasterOptions, _remaster)


def plan(
    source: ImagePath, request: Request, *, max_expand: int = MAX_EXPAND, progress: Progress | None = None
) -> Plan:  # fmt: skip
    """Return what a remaster of the image ``source`` by ``request`` would do; see :meth:`Image.plan`."""
    with Image(source, max_expand=max_expand) as image:
        return image.plan(request, progress=progress)
