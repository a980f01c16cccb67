"""What an image boots, as far as it says which file systems become the root: kernel arguments, and an initramfs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from cosremaster.errors import CorruptError, ImageError, LayerError, UnsupportedError
from cosremaster.layers.model import Layer
from cosremaster.lazy_regex import lazy_regex
from cosremaster.records import Struct
from cosremaster.tree.nodes import Node

_CONFIGURATIONS = lazy_regex(rb"conf/initramfs\.conf|conf/conf\.d/[^/]+|etc/casper\.conf")
"""Shell files that initramfs-tools' ``/init`` and casper source in this order, those of a directory by name."""
_ORDER = (b"conf/initramfs.conf", b"conf/conf.d/", b"etc/casper.conf")
_MAX_CONFIGURATION = 1 << 16
_CASPER = b"scripts/casper"


class BootLine(Struct, frozen=True, kw_only=True):
    """An entry of a boot menu.

    ``title``: for people; ``kernel``: its path on the image, empty where it is not there; ``arguments``: of its kernel;
    ``initrds``: paths on the image of what is unpacked for it, in that order. ``lacks_initrd``: it loads more, which is
    not on the image's tree or is put into the initramfs as a file (``newc:`` of GRUB).
    """

    title: str = ""
    kernel: bytes = b""
    arguments: tuple[bytes, ...] = ()
    initrds: tuple[bytes, ...] = ()
    lacks_initrd: bool = False

    def value(self, *names: bytes) -> bytes | None:
        """Return the value of the argument called one of ``names``; of several the last counts. None for none."""
        found = [
            value.strip(b'"')
            for name, equals, value in (word.removeprefix(b'"').partition(b"=") for word in self.arguments)
            if equals and name in names
        ]  # fmt: skip
        return found[-1] if found else None


class ShellVariable(Struct, frozen=True):
    """A variable that the file ``path`` of an initramfs sets; bytes ``start`` to ``end`` of that file are ``value``.

    ``initrd``: the path on the image of the file that holds the initramfs.
    """

    initrd: bytes
    path: bytes
    start: int
    end: int
    value: bytes


class BootFacts:
    """What an image boots; read when it is needed.

    ``read_lines``: returns the entries of boot menus, the one that starts by itself first. ``open_file``: returns the
    layers in the file of the image at a path.
    """

    def __init__(
        self, read_lines: Callable[[], Sequence[BootLine]], open_file: Callable[[bytes], Sequence[Layer]]
    ) -> None:
        """Begin without having read anything."""
        self._read_lines, self._open_file = read_lines, open_file
        self._trees: dict[bytes, Mapping[bytes, Node]] = {}

    @cached_property
    def lines(self) -> tuple[BootLine, ...]:
        """The entries of boot menus, the one that starts by itself first; an empty one where there are none."""
        return tuple(self._read_lines()) or (BootLine(),)

    def layers(self, initrd: bytes) -> Sequence[Layer]:
        """Return the layers in the file ``initrd`` of the image; nothing where it cannot be read."""
        try:
            return self._open_file(initrd)
        except (CorruptError, ImageError, LayerError, UnsupportedError):
            return ()

    def tree(self, initrd: bytes) -> Mapping[bytes, Node]:
        """Return what the file ``initrd`` of the image unpacks to; nothing where it cannot be read."""
        if initrd not in self._trees:
            outer = [layer for layer in self.layers(initrd) if layer.parent is None]
            is_archive = bool(outer) and not outer[-1].format.random_access
            self._trees[initrd] = outer[-1].tree() if is_archive else {}
        return self._trees[initrd]

    def has_casper(self, initrds: Sequence[bytes]) -> bool:
        """Return whether casper runs in one of ``initrds``."""
        return any(_CASPER in self.tree(initrd) for initrd in initrds)

    def find_variable(self, initrds: Sequence[bytes], name: bytes) -> ShellVariable | None:
        """Return the shell variable ``name`` of the initramfs in ``initrds``; of several the last counts."""
        pattern = re.compile(rb"^[ \t]*(?:export[ \t]+)?%b=(\"[^\"\n]*\"|'[^'\n]*'|[^\s;#\"']*)" % name, re.MULTILINE)
        result = None
        for path, initrd in self._list_configurations(initrds):
            content = self.tree(initrd)[path].content
            data = b"" if content is None or content.size > _MAX_CONFIGURATION else content.table().read(0)
            for match in pattern.finditer(data):
                quotes = 1 if match[1][:1] in (b'"', b"'") else 0
                start, end = match.start(1) + quotes, match.end(1) - quotes
                result = ShellVariable(initrd, path, start, end, data[start:end])
        return result

    def _list_configurations(self, initrds: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        """Return path and initramfs of each file that sets shell variables, in the order in which they are read."""
        homes = {path: initrd for initrd in initrds for path in self.tree(initrd) if _CONFIGURATIONS.fullmatch(path)}
        rank = {path: next(at for at, start in enumerate(_ORDER) if path.startswith(start)) for path in homes}
        return sorted(homes.items(), key=lambda pair: (rank[pair[0]], pair[0]))


NO_FACTS = BootFacts(tuple, lambda _: ())
"""Of an image of which nobody looks at menus and initramfs."""
