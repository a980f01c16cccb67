"""What came of a script that ran inside a file system, for reports."""

from __future__ import annotations

from cosremaster.overlay.leftovers import Leftover
from cosremaster.records.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptOutcome:
    """What came of a script that ran in the layer with the address ``layer``.

    ``name``: what messages call it. ``way``: how owners were kept (``subuid``, ``single``, ``root``), or ``vm``.
    ``exit_code``: the script's; ``seconds``: how long it took. ``added``, ``changed`` and ``removed``: paths, without
    those below a removed directory. ``leftovers``: what it left that nobody needs; ``is_cleaned``: which is left out.
    ``notes``: sentences on what differs from a real system. ``has_network``: it could reach servers. ``is_remembered``:
    the changes are those of an earlier run of the same script.
    """

    name: str
    way: str
    exit_code: int
    seconds: float
    added: tuple[bytes, ...]
    changed: tuple[bytes, ...]
    removed: tuple[bytes, ...]
    leftovers: tuple[Leftover, ...] = ()
    is_cleaned: bool = False
    notes: tuple[str, ...] = ()
    has_network: bool = False
    is_remembered: bool = False
    layer: str = ""
