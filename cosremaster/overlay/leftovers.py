"""What scripts that build a system often leave behind, and no system needs: caches, lists, logs, backups."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator

from cosremaster.records.lazy_dataclass import dataclass
from cosremaster.tree.nodes import Node, NodeKind

_COMPILED = "compiled Python files"
_RULES = (
    ("caches of apt", rb"var/cache/apt/(.*\.bin|archives/.+)"),
    ("package lists of apt", rb"var/lib/apt/lists/.+"),
    (
        "caches of package managers",
        rb"var/cache/(dnf|yum|libdnf\d*|zypp|apk|xbps|PackageKit|pacman/pkg|eopkg)/.+|var/lib/(dnf|yum)/repos/.+",
    ),
    (_COMPILED, rb"(.+/)?__pycache__(/.+)?"),
    ("logs", rb"var/log/.+"),
    (
        "backups of databases",
        rb"var/lib/dpkg/[^/]+-old|var/cache/debconf/[^/]+-old|etc/(passwd|group|g?shadow|sub[ug]id)-",
    ),
    ("other caches", rb"var/cache/(man/.+|ldconfig/aux-cache)"),
    (
        "caches and histories of users",
        rb"(root|home/[^/]+)/(\.cache/.+|\.npm/_cacache/.+|\.(bash|python|ash)_history|\.wget-hsts|\.lesshst|\.viminfo)",
    ),
    ("temporary files", rb"var/tmp/.+"),
)
_KINDS = tuple((name, re.compile(pattern, re.DOTALL)) for name, pattern in _RULES)

_IDENTITY = re.compile(
    rb"etc/machine-id|var/lib/dbus/machine-id|var/lib/systemd/(random-seed|credential\.secret)"
    rb"|etc/ssh/ssh_host_[^/]*_key|etc/ssl/private/ssl-cert-snakeoil\.key|etc/(hostid|adjtime)|etc/iscsi/initiatorname\.iscsi"
)


@dataclass(frozen=True, slots=True)
class Leftover:
    """Files that a script made or changed and nobody needs.

    ``name``: what they are; ``size``: their bytes together.
    """

    name: str
    paths: tuple[bytes, ...]
    size: int


def find_leftovers(nodes: Iterable[Node], tree: Container[bytes]) -> tuple[Leftover, ...]:
    """Return what of the new and changed ``nodes`` of ``tree`` is known as a leftover, in the order of the kinds.

    Compiled Python files that were there already are none: without the new ones, Python could take the old ones for
    those of a changed source, as it may compare no more than time and size (PEP 552).
    """
    groups: dict[str, list[Node]] = {name: [] for name, _ in _RULES}
    for node in nodes:
        name = _kind_of(node)
        if name is not None and not (name == _COMPILED and node.path in tree):
            groups[name].append(node)
    return tuple(
        Leftover(name, tuple(node.path for node in group), sum(_size_of(node) for node in group))
        for name, group in groups.items()
        if group
    )


def find_identities(nodes: Iterable[Node]) -> Iterator[bytes]:
    """Yield the paths of ``nodes`` by which one machine is told from another: they should differ on each."""
    for node in nodes:
        if node.kind is NodeKind.FILE and _size_of(node) and _IDENTITY.fullmatch(node.path):
            yield node.path


def _kind_of(node: Node) -> str | None:
    """Return what ``node`` is left from; None where it is no leftover.

    Directories stay, as programs look for theirs, and so do empty files, which packages make for the sake of their
    owner.
    """
    name = next((name for name, pattern in _KINDS if pattern.fullmatch(node.path)), None)
    if name is None or name == _COMPILED:
        return name
    return name if node.kind is NodeKind.FILE and _size_of(node) else None


def _size_of(node: Node) -> int:
    """Return the bytes of a file, 0 for anything else."""
    return 0 if node.content is None else node.content.size
