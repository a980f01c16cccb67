"""Files beside a changed file that tell of its old bytes: dm-verity hashes, signatures, sizes."""

from __future__ import annotations

from collections.abc import Iterator

from cosremaster.errors import UnsupportedError, printable
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.model import SourceImage

_VERITY = (b".verity", b".roothash", b".verity.roothash", b".verity.sig")
"""What live-build puts beside a squashfs (its script binary_dm-verity), and systemd (veritysetup) beside an image."""

_SIGNATURES = (b".sig", b".cms.sig", b".gpg", b".asc", b".p7s", b".sign", b".minisig", b".roothash.p7s")
_SIZES = (b".size",)
"""live-build and casper: the size of the unpacked tree, for installers (``filesystem.size``)."""


def check_companions(image: SourceImage, edits: IsoEdits) -> Iterator[str]:
    """Yield a warning for each signature or size that ``edits`` make untrue.

    :raises UnsupportedError: hashes of dm-verity would not fit any more, so that the file could not be mounted.
    """
    changed = {path for path in edits.replaced if edits.new_path(path) is not None}
    if not changed:
        return
    present = {file.path for file in image.files if edits.new_path(file.path) is not None} - set(edits.replaced)
    for path in sorted(changed):
        stem = path[: path.rindex(b".")] if b"." in path.rpartition(b"/")[2] else path
        verity = [path + end for end in _VERITY if path + end in present]
        if verity:
            listed = ", ".join(map(printable, verity))
            removals = " ".join(f"--remove-iso /{printable(name)}" for name in verity)
            raise UnsupportedError(
                f"has hashes of dm-verity beside it ({listed}), with which the changed file could not be mounted;"
                f" {removals} takes them away, and the image then boots without that check",
                image.place.inside(path),
            )
        for end in _SIGNATURES:
            if path + end in present:
                yield f"{printable(path + end)} signs the old bytes of {printable(path)}, and cannot be made anew"
        for end in _SIZES:
            if stem + end in present:
                yield f"{printable(stem + end)} tells the size of the old {printable(path)}, as installers read it"
