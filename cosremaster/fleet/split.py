"""What the requests of all sites have in common, so that it is done once. Pure.

What comes first in a remaster and is the same for all sites can be done in advance; what each site asks for by itself
is done behind it, with the same outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cosremaster.records import Struct
from cosremaster.remastering.request import Request

_ARGUMENTS = ("kernel_args", "remove_kernel_args", "replace_kernel_args")
_VOLUME = ("volume_id", "volume_date", "retarget")
_WHOLE = ("as_layer", "repack", "repack_metadata")
"""What has to be done with all changes at once."""


class SplitRequests(Struct, frozen=True):
    """``common``: what is done once, with the base; None if that is nothing. ``rests``: what is left for each site."""

    common: Request | None
    rests: tuple[Request, ...]


def split_requests(requests: Sequence[Request]) -> SplitRequests:
    """Return what ``requests`` have in common, and what is left of each.

    Things are added in order, so only a common beginning of them counts; and where sites remove or rename each their
    own, which comes before anything is added, no addition does. Kernel arguments and names of the volume go to the boot
    menus that are there in the end, as does what demands dropped signatures: where a site changes the ISO's tree by
    itself, those are each site's own, and with such signatures everything is.
    """
    first = requests[0]
    if len(requests) < 2 or any(getattr(request, name) for request in requests for name in _WHOLE):
        return SplitRequests(None, tuple(requests))
    common: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    if _agree(requests, ("remove", "maas_clean")):
        common |= {"remove": tuple(first.remove), "maas_clean": first.maas_clean}
        rest |= {"remove": (), "maas_clean": False}
        common["add"] = _common_beginning([tuple(request.add) for request in requests])
    if _agree(requests, ("remove_iso", "rename_iso")):
        common |= {"remove_iso": tuple(first.remove_iso), "rename_iso": tuple(first.rename_iso)}
        rest |= {"remove_iso": (), "rename_iso": ()}
        common["add_iso"] = _common_beginning([tuple(request.add_iso) for request in requests])
    is_tree_common = _agree(requests, ("remove_iso", "rename_iso", "add_iso"))
    if first.drop_signatures and not is_tree_common:
        return SplitRequests(None, tuple(requests))
    for names in (_ARGUMENTS, _VOLUME) if is_tree_common else ():
        if _agree(requests, names):
            common |= {name: getattr(first, name) for name in names}
            rest |= dict.fromkeys(names, () if names is _ARGUMENTS else None)
    if "retarget" in rest:
        rest["retarget"] = False
    if not any(common.values()):
        return SplitRequests(None, tuple(requests))
    empty: dict[str, Any] = {
        "add": (), "add_iso": (), "remove": (), "remove_iso": (), "rename_iso": (), "run": (), "maas_clean": False,
        **dict.fromkeys(_ARGUMENTS, ()), "volume_id": None, "volume_date": None, "retarget": False,
    }  # fmt: skip
    rests = []
    for request in requests:
        own = {key: tuple(getattr(request, key))[len(common.get(key, ())) :] for key in ("add", "add_iso")}
        rests.append(replace(request, **{**rest, **own}))
    return SplitRequests(replace(first, **{**empty, **common}), tuple(rests))


def _agree(requests: Sequence[Request], names: Sequence[str]) -> bool:
    """Return whether all ``requests`` have the same values of the fields ``names``."""
    first = [getattr(requests[0], name) for name in names]
    return all([getattr(request, name) for name in names] == first for request in requests[1:])


def _common_beginning(lists: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return what all ``lists`` begin with."""
    count = 0
    for items in zip(*lists, strict=False):
        if any(item != items[0] for item in items[1:]):
            break
        count += 1
    return lists[0][:count]
