"""A new kind of overlay item: a class, a function that prepares it, and one line in the registry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, OverlayError, OverlayItem, UsageError
from cosremaster.cli import main
from cosremaster.overlay.addition import Addition
from cosremaster.overlay.items import PREPARERS, ReadContext
from cosremaster.records import Struct, replace
from cosremaster.remastering.layer_index import LayerIndex
from cosremaster.tree.nodes import Node
from tests.support.overlays import directory, file, folder_of, merged, reasons
from tests.support.small import CGZ, write_small


@dataclass(frozen=True)
class CopyOf(OverlayItem):
    """A copy of a file of the image under another name."""

    source: bytes
    target: bytes


class PreparedCopy(Struct, frozen=True):
    """The copy, before the file system is known."""

    item: CopyOf

    def additions(self, tree: Mapping[bytes, Node]) -> Sequence[Addition]:
        node = tree.get(self.item.source)
        if node is None:
            raise OverlayError(f"cannot copy {self.item.source.decode()}: it is not there")
        copy = replace(node, path=self.item.target, link=None)
        return [Addition((copy,), b"", True, True, self.item.source.decode())]


def prepare_copy(item: CopyOf, context: ReadContext) -> PreparedCopy:
    if not item.target:
        raise UsageError("a copy needs a name")
    context.warn(f"{item.target.decode()} is a copy")
    return PreparedCopy(item)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PREPARERS, CopyOf, f"{__name__}:prepare_copy")


def test_an_item_copies_a_file_of_the_layer(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    items = [CopyOf(b"usr/bin/gzip", b"opt/gz"), InlineFile("/etc/site", b"7\n"), CopyOf(b"etc/site", b"etc/copy")]
    result = cosremaster.remaster(write_small(tmp_path), tmp_path / "out.iso", add=items)
    assert result.warnings == ("opt/gz is a copy", "etc/copy is a copy")
    for path, content in (("opt/gz", b"\x7fELF gzip " * 400), ("etc/copy", b"7\n")):
        assert main(["cat", f"{tmp_path}/out.iso::{CGZ}::rootfs.cxz::{path}"]) == 0
        assert capsysbinary.readouterr().out == content


def test_an_item_copies_a_file_of_the_isos_own_tree(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    source = write_small(tmp_path, extra={"notes.txt": b"hello\n"})
    cosremaster.remaster(source, tmp_path / "out.iso", add_iso=[CopyOf(b"notes.txt", b"site/copy.txt")])
    assert main(["cat", f"{tmp_path}/out.iso::site/copy.txt"]) == 0
    assert capsysbinary.readouterr().out == b"hello\n"


def test_faults_that_need_no_image_are_reported_before_the_long_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_layers(*_: object) -> None:
        raise AssertionError("the layers were looked for")

    monkeypatch.setattr(LayerIndex, "layers", no_layers)
    with pytest.raises(UsageError, match=r"^a copy needs a name$"):
        cosremaster.remaster(write_small(tmp_path), tmp_path / "out.iso", add=[CopyOf(b"etc/motd", b"")])


def test_faults_that_need_the_image_leave_no_output(tmp_path: Path) -> None:
    with pytest.raises(OverlayError, match=r"^cannot copy gone: it is not there$"):
        cosremaster.remaster(write_small(tmp_path), tmp_path / "out.iso", add=[CopyOf(b"gone", b"new")])
    assert not (tmp_path / "out.iso").exists()


def test_a_value_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be added: it is no kind of item that is known$"):
        cosremaster.remaster(write_small(tmp_path), tmp_path / "out.iso", add=[OverlayItem()])


def test_an_item_sees_removals_and_the_items_before_it() -> None:
    class Spy(Struct):
        seen: dict[bytes, Node]

        def additions(self, tree: Mapping[bytes, Node]) -> Sequence[Addition]:
            self.seen |= tree
            assert len(tree) == len(self.seen) and b"gone" not in tree
            return ()

    image = [directory(b"etc"), file(b"etc/motd"), file(b"etc/old"), directory(b"var"), file(b"var/log")]
    spy = Spy({})
    edits = merged(
        folder_of(file(b"new"), file(b"etc/motd", b"other")), spy, image=image, remove=[b"/etc/old", b"/var"]
    )
    assert set(spy.seen) == {b"etc", b"etc/motd", b"new"} and spy.seen[b"etc/motd"].content is not image[1].content
    assert set(reasons(edits)) == {b"etc/motd", b"new"}
