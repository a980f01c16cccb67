"""The name of a layer that is laid over a root: so that the boot mounts it, on top of all others."""

from __future__ import annotations

import re
from collections.abc import Collection

from cosremaster.errors import UnsupportedError, UsageError, printable
from cosremaster.iso.model import SourceImage
from cosremaster.layers.root_stacks import SQUASHFS_END, RootChain, StackRule, number_key
from cosremaster.lazy_regex import lazy_regex

_NAME = lazy_regex(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_MAX_NAME = 64
_BUNDLES = (b".sb", b".xzm")
_PREFIX = b"z"
_FURTHER = (b".squashfs", b".erofs", b".ext2", b".ext3", b".ext4", b".xfs", b".jffs2", b".dir", b".sb", b".xzm")
"""Ends of names that live systems mount: a new layer has to come behind all of them."""


def check_layer_name(name: str) -> bytes:
    """Return ``name`` as bytes. :raises UsageError: it is no name for a layer: casper takes names apart at dots."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise UsageError(
            f"{name!r} is no name of a layer (as_layer): it has letters, digits, - and _, at most {_MAX_NAME} of them"
        )
    return name.encode()


def name_layer(image: SourceImage, chain: RootChain, name: bytes) -> bytes:
    """Return the path of a new layer over ``chain``, called ``name`` as far as its order allows.

    :raises UnsupportedError: the boot would not mount it. :raises UsageError: there is a file of that path.
    """
    top = chain.paths[-1]
    if chain.rule is StackRule.FIXED:
        reason = f"{chain.scheme.value} mounts {', '.join(map(printable, chain.paths))} and nothing else"
        raise UnsupportedError(
            f"no layer can be laid over the root, since {reason} ({chain.order}); without --as-layer"
            f" {printable(top)} itself is changed",
            image.place,
        )
    present = {file.path for file in image.files}
    end = top[top.rindex(b".") :]
    if chain.rule is not StackRule.TOP and end not in _BUNDLES:
        end = SQUASHFS_END  # the uppermost may be an ext4
    if chain.rule is StackRule.TOP:
        path = top.removesuffix(end) + b"." + name + end
    elif chain.rule is StackRule.LIST:
        path = chain.folder + b"/" + name + end
    elif chain.rule is StackRule.NUMBERS:
        path = _number_name(chain, name, end)
    else:
        path = _sort_behind(present, chain.folder, name, end)
    if path in present:
        raise UsageError(f"--as-layer {name.decode()}: {printable(path)} is there already; choose another name")
    return path


def _number_name(chain: RootChain, name: bytes, end: bytes) -> bytes:
    """Return a path in the folder of ``chain`` whose number is above all others."""
    beside = [path for path in chain.paths if path.rpartition(b"/")[0] == chain.folder]
    last = max(number_key(path)[0] for path in beside)
    if number_key(name)[0] <= last:
        width = max((len(digits[0]) for path in beside if (digits := re.match(rb"\d+", path.rpartition(b"/")[2]))),
                    default=2)  # fmt: skip
        name = b"%0*d-" % (width, last + 1) + name
    return chain.folder + b"/" + name + end


def _sort_behind(present: Collection[bytes], folder: bytes, name: bytes, end: bytes) -> bytes:
    """Return a path in ``folder`` that sorts behind the file systems and directories in it."""
    inside = [path[len(folder) + 1 :].partition(b"/")[0] for path in present if path.startswith(folder + b"/")]
    last = max((other for other in inside if other.endswith(_FURTHER)), default=b"")
    prefix = b""
    while prefix + name + end <= last:
        prefix = _PREFIX * len(prefix.rstrip(b"-")) + _PREFIX + b"-"
    return folder + b"/" + prefix + name + end
