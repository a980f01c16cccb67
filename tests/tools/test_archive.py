"""Archives as overlays: what the real packers wrote comes as it was, and hostile ones are refused by name."""

import gzip
import io
import json
import os
import random
import re
import socket
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster.demo.image import DemoEntry, build_archive
from cosremaster.errors import CosremasterError, OutputError, OverlayError, SizeError, UnsupportedError
from cosremaster.io.spool import Spool
from cosremaster.io.streams import ByteReader
from cosremaster.layers import streamed
from cosremaster.overlay import archive as archives
from cosremaster.overlay.archive import read_archive
from cosremaster.overlay.request import is_archive_name
from cosremaster.records import replace
from cosremaster.tree.nodes import Node, NodeKind
from tests.fixtures.tools import EPOCH, require, require_libarchive, run
from tests.support.additions import context
from tests.support.archives import read, warned
from tests.support.layers import with_layer_of
from tests.support.small import write_small

LATIN = b"caf\xe9"
UTF8 = "naïve".encode()


def data(node: Node) -> bytes:
    assert node.content is not None
    whole = b"".join(node.content.table().chunks())
    assert len(whole) == node.content.size and node.content.head(3) == whole[:3]
    return whole


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with everything that tar and cpio can hold."""
    top = tmp_path / "tree"
    (top / "etc").mkdir(parents=True)
    (top / "etc").chmod(0o1771)
    (top / "etc/motd").write_bytes(b"hello\n")
    (top / "etc/motd").chmod(0o4750)
    os.link(top / "etc/motd", top / "zz-same")
    (top / "empty").write_bytes(b"")
    (top / "large").write_bytes(random.Random(3).randbytes(700_001))
    os.symlink("/a/../b", top / "link")
    for name in (LATIN, UTF8):
        Path(os.fsdecode(os.fsencode(top) + b"/" + name)).write_bytes(name)
    for file in (top / "empty", top / "large", *(top / os.fsdecode(name) for name in (LATIN, UTF8))):
        file.chmod(0o644)  # whatever the umask
    os.mkfifo(top / "pipe", 0o600)
    (top / "own").mkdir()
    (top / "own").chmod(0o755)
    return top


def pack(tree: Path, target: Path, how: str) -> Path:
    """The tree packed by a real packer, with devices and owners made under fakeroot."""
    require("fakeroot", "tar", "cpio", "bsdtar", "find", "bash")
    script = f"""
        mknod -m 640 null c 1 3; mknod -m 644 disk b 259 1000; chown 1000:1234567 own; chown -h 7:8 link
        find . -exec touch -h -d @{EPOCH} {{}} +
        {how}
    """
    run(["fakeroot", "bash", "-euc", script], cwd=tree, env={"OUT": os.fspath(target)})
    return target


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("a.tar", "tar --format=gnu -cf $OUT ."),
        ("a.tar.gz", "tar --format=ustar -czf $OUT *"),
        ("a.tar.xz", "tar --format=pax -cJf $OUT ."),
        ("a.tar.zst", "bsdtar --format=pax --zstd -cf $OUT ."),
        ("a.tar.bz2", "bsdtar --format=gnutar --bzip2 -cf $OUT *"),
        ("a.tar.lz4", "bsdtar --format=gnutar --lz4 -cf $OUT *"),
        ("newc.cpio", "find . | cpio --quiet -o -H newc > $OUT"),
        ("crc.cpio", "find . | cpio --quiet -o -H crc > $OUT"),
        ("bsd.cpio", "bsdtar --format=newc -cf $OUT *"),
        ("packed.cpio.gz", "find . | sort -r | cpio --quiet -o -H newc | gzip > $OUT"),
    ],
)
def test_what_real_packers_wrote(
    tree: Path, tmp_path: Path, name: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "cpio" in name:
        require_libarchive()
    found, _ = warned(pack(tree, tmp_path / name, how))
    facts = {
        path: (node.kind, node.mode, node.uid, node.gid, node.mtime, node.target, node.rdev)
        for path, node in found.items()
    }
    file, none = NodeKind.FILE, (b"", (0, 0))
    assert facts == {
        b"etc": (NodeKind.DIRECTORY, 0o1771, 0, 0, EPOCH, *none),
        b"etc/motd": (file, 0o4750, 0, 0, EPOCH, *none),
        b"zz-same": (file, 0o4750, 0, 0, EPOCH, *none),
        b"empty": (file, 0o644, 0, 0, EPOCH, *none),
        b"large": (file, 0o644, 0, 0, EPOCH, *none),
        b"link": (NodeKind.SYMLINK, 0o777, 7, 8, EPOCH, b"/a/../b", (0, 0)),
        LATIN: (file, 0o644, 0, 0, EPOCH, *none),
        UTF8: (file, 0o644, 0, 0, EPOCH, *none),
        b"pipe": (NodeKind.FIFO, 0o600, 0, 0, EPOCH, *none),
        b"null": (NodeKind.CHAR, 0o640, 0, 0, EPOCH, b"", (1, 3)),
        b"disk": (NodeKind.BLOCK, 0o644, 0, 0, EPOCH, b"", (259, 1000)),
        b"own": (NodeKind.DIRECTORY, 0o755, 1000, 1234567, EPOCH, *none),
    }
    for path, text in ((LATIN, LATIN), (UTF8, UTF8), (b"empty", b""), (b"etc/motd", b"hello\n")):
        assert data(found[path]) == text
    assert data(found[b"large"]) == (tree / "large").read_bytes()
    assert data(found[b"zz-same"]) == b"hello\n"
    assert found[b"zz-same"].link is not None and found[b"zz-same"].link == found[b"etc/motd"].link
    assert found[b"large"].link is None


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX"])
def test_names_do_not_depend_on_the_locale(tree: Path, tmp_path: Path, locale: str) -> None:
    require("tar", "bsdtar")
    require_libarchive()
    for name, packer in (("a.tar", ["tar", "--format=pax"]), ("b.tar", ["tar", "--format=gnu"])):
        run([*packer, "-cf", tmp_path / name, "."], cwd=tree)
    run(["bsdtar", "--format=7zip", "-cf", tmp_path / "c.7z", UTF8.decode()], cwd=tree, env={"LC_ALL": "C.UTF-8"})
    run(["bsdtar", "--format=zip", "-cf", tmp_path / "d.zip", UTF8.decode()], cwd=tree, env={"LC_ALL": "C.UTF-8"})
    script = """if True:
        import sys
        from pathlib import Path
        from tests.support.archives import warned
        for name in sys.argv[1:]:
            print(sorted(warned(Path(name))[0]))
    """
    names = [os.fspath(tmp_path / name) for name in ("a.tar", "b.tar", "c.7z", "d.zip")]
    said = run([sys.executable, "-c", script, *names], env={"LC_ALL": locale, "PYTHONUTF8": "0"}).decode()
    whole = sorted([b"etc", b"etc/motd", b"zz-same", b"empty", b"large", b"link", LATIN, UTF8, b"pipe", b"own"])
    assert said.splitlines() == [str(whole), str(whole), str([UTF8]), str([UTF8])]


def test_zip_and_7z(tree: Path, tmp_path: Path) -> None:
    require("bsdtar")
    require_libarchive()
    (tree / "etc/motd").chmod(0o750)
    run(["bsdtar", "--format=zip", "-cf", tmp_path / "a.zip", "etc", "empty", "large", "link"], cwd=tree)
    run(["bsdtar", "--format=7zip", "-cf", tmp_path / "a.7z", "etc", "empty", "large", "link"], cwd=tree)
    for name in ("a.zip", "a.7z"):
        found = read(tmp_path / name)
        assert sorted(found) == [b"empty", b"etc", b"etc/motd", b"large", b"link"]
        assert found[b"link"].target == b"/a/../b" and found[b"etc/motd"].mode == 0o750
        assert data(found[b"large"]) == (tree / "large").read_bytes() and data(found[b"empty"]) == b""


def test_a_debian_package_gives_its_data_alone(tmp_path: Path) -> None:
    require("dpkg-deb")
    top = tmp_path / "package"
    (top / "DEBIAN").mkdir(parents=True)
    (top / "DEBIAN/control").write_text("Package: site\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n")
    (top / "DEBIAN/postinst").write_text("#!/bin/sh\nexit 1\n")
    (top / "DEBIAN/postinst").chmod(0o755)
    (top / "usr/share/site").mkdir(parents=True)
    (top / "usr/share/site/data").write_bytes(random.Random(1).randbytes(600_000))
    for compression in ("xz", "gzip", "zstd", "none"):
        target = tmp_path / f"{compression}.deb"
        run(["dpkg-deb", f"-Z{compression}", "--root-owner-group", "-b", top, target])
        found, warnings = warned(target)
        assert sorted(found) == [b"usr", b"usr/share", b"usr/share/site", b"usr/share/site/data"]
        assert data(found[b"usr/share/site/data"]) == (top / "usr/share/site/data").read_bytes()
        assert len(warnings) == 1 and "its control scripts are not run" in warnings[0]
    report = tmp_path / "out.json"
    cosremaster.remaster(write_small(tmp_path), tmp_path / "out.iso", add=[target], report=report)
    assert json.loads(report.read_bytes())["warnings"] == warnings
    target.write_bytes(target.read_bytes()[:-200_000])
    with pytest.raises(OverlayError, match=r"none\.deb » data\.tar.* cannot be read as an archive: "):
        warned(target)
    other = tmp_path / "other.deb"
    other.write_bytes(b"!<arch>\n")
    with pytest.raises(OverlayError, match=r"no Debian package with a data\.tar"):
        read(other)


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **fields: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for field, value in fields.items():
        setattr(info, field, value)
    return info


HOSTILE = {
    "absolute": (member("/etc/x"), r"» /etc/x: cannot be added: it has an absolute name$"),
    "dot dot": (member("a/../../x"), r"» a/\.\./\.\./x: cannot be added: it has a name with \.\.$"),
    "dot dot at the end": (member("a/.."), r"a name with \.\.$"),
    "hard link out": (member("x", tarfile.LNKTYPE, "../../etc/shadow"), r"» x: .* is a hard link to has a name with"),
    "absolute hard link": (member("x", tarfile.LNKTYPE, "/etc/shadow"), r"» x: .*/etc/shadow it is a hard link to has"),
    "hard link to nothing": (member("x", tarfile.LNKTYPE, "y"), r"» x: cannot be added: it is a hard link to y, no"),
    "hard link to a directory": (member("x", tarfile.LNKTYPE, "."), r"» x: cannot be added: it is a hard link to \."),
    "owner": (member("x", uid=1 << 40), r"» x: cannot be added: a cpio archive has no owner 1099511627776:0$"),
    "the root as a file": (member("./."), r"the root is a directory$"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_entries_are_refused_by_name(case: str, tmp_path: Path) -> None:
    info, sentence = HOSTILE[case]
    path = tar_of(tmp_path / "bad.tar", (member("fine"), b"x"), (info, b""))
    with pytest.raises(
        OverlayError, match=rf"^{re.escape(str(path))} {sentence}" if sentence.startswith("»") else sentence
    ):
        read(path)


def test_a_socket_is_refused_by_name(tmp_path: Path) -> None:
    require_libarchive()
    path = tmp_path / "socket.cpio"
    path.write_bytes(build_archive([DemoEntry(b"run/talk", 0o140777, b"")]))
    with pytest.raises(OverlayError, match=r"» run/talk: cannot be added: it is a socket$"):
        read(path)


def sparse_tar(path: Path, size: int) -> Path:
    """A file of ``size`` bytes that is all one hole, as GNU tar's old sparse format writes it."""
    header = bytearray(member("hole").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    number = b"\x80" + size.to_bytes(11, "big")
    header[386:398], header[398:410] = number, b"%011o\0" % 0
    header[483:495] = number
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + bytes(1024))
    return path


def test_endless_sparse_files_count_as_they_would_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SizeError, match=r"» hole: 1,152,921,504,606,846,976 bytes do not fit a cpio archive"):
        read(sparse_tar(tmp_path / "a.tar", 1 << 60))
    found = read(sparse_tar(tmp_path / "b.tar", 1_000_000))
    assert data(found[b"hole"]) == bytes(1_000_000)
    monkeypatch.setattr(archives, "MAX_CONTENT", 900_000)
    with pytest.raises(SizeError, match=r"^/.*b\.tar: the archive's files come to more than 900,000 bytes$"):
        read(tmp_path / "b.tar")


@pytest.mark.parametrize("how", ["--format=gnu", "--format=pax"])
def test_holes_are_zeros(tmp_path: Path, how: str) -> None:
    require("tar")
    with (tmp_path / "holes").open("wb") as file:
        file.seek(300_000)
        file.write(b"middle")
        file.truncate(2_000_000)
    run(["tar", how, "--sparse", "-cf", tmp_path / "a.tar", "holes"], cwd=tmp_path)
    assert (tmp_path / "a.tar").stat().st_size < 100_000
    assert data(read(tmp_path / "a.tar")[b"holes"]) == (tmp_path / "holes").read_bytes()


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_CONTENT", 1 << 20)
    monkeypatch.setattr(archives, "MAX_ENTRIES", 50)
    path = tar_of(tmp_path / "many.tar", *((member(f"f{i}"), b"") for i in range(51)))
    with pytest.raises(SizeError, match=r"many\.tar: an archive of more than 50 entries is not added$"):
        read(path)
    path = tar_of(tmp_path / "large.tar", *((member(f"f{i}"), bytes(300_000)) for i in range(5)))
    packed = tmp_path / "large.tar.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(SizeError, match=r"large\.tar\.gz: the archive's files come to more than 1,048,576 bytes$"):
        read(packed)


def test_huge_headers_are_refused(tmp_path: Path) -> None:
    """A pax header of 64 MiB: nobody has such names, and nobody should need the memory."""
    path = tmp_path / "huge.tar"
    with path.open("wb") as file:
        size = 64 << 20
        file.write(member("x", tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT)[:124])
        header = bytearray(member("x", tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT))
        header[124:136] = b"%011o\0" % size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        file.seek(0)
        file.write(header)
        text = b"%d path=" % size
        file.write(text + b"a" * (size - len(text) - 1) + b"\n")
        file.write(member("short").tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(CosremasterError, match=r"^/.*huge\.tar"):
        read(path)


def test_an_archive_keeps_its_order_and_the_last_of_one_name(tmp_path: Path) -> None:
    path = tar_of(
        tmp_path / "a.tar",
        (member("b"), b"first"), (member("a"), b"a"), (member("./b"), b"second"), (member("c", mtime=50), b""),
    )  # fmt: skip
    found = read(path, newest=20)
    assert list(found) == [b"b", b"a", b"c"] and data(found[b"b"]) == b"second" and found[b"c"].mtime == 20


def test_names_of_files_that_had_one_name_after_another_stay_apart(tmp_path: Path) -> None:
    """An archive to which a newer file was appended: links before it are names of the older one."""
    require("tar")
    tree, path, out = tmp_path / "tree", tmp_path / "a.tar", tmp_path / "out.tar"
    tree.mkdir()
    for number, link in enumerate(("old", "new")):
        (tree / "a").unlink(missing_ok=True)
        (tree / "a").write_text(link)
        os.link(tree / "a", tree / link)
        os.utime(tree / "a", (EPOCH, EPOCH))
        run(["tar", "-rf" if number else "-cf", path, "-C", tree, "a", link])
    assert cosremaster.pack(path, out).added
    for archive in (path, out):
        folder = tmp_path / f"from-{archive.name}"
        folder.mkdir()
        run(["tar", "-xpf", archive, "-C", folder])
        assert [(folder / name).read_text() for name in ("a", "new", "old")] == ["new", "new", "old"]
        assert os.path.samefile(folder / "a", folder / "new")


@pytest.mark.parametrize("name", ["two.cpio", "two.cpio.gz"])
def test_several_cpio_archives_in_a_row_are_refused(tmp_path: Path, name: str) -> None:
    require_libarchive()
    one = build_archive([DemoEntry(b"x", 0o100644, b"x" * 300_000)])
    pack = gzip.compress if name.endswith("gz") else bytes
    (tmp_path / name).write_bytes(pack(one + bytes(512) + build_archive([DemoEntry(b"y", 0o100644, b"y")])))
    with pytest.raises(UnsupportedError, match=rf"{name}: data follows the end of the cpio archive \(several"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(pack(one + bytes(700_000)))
    assert list(read(tmp_path / name)) == [b"x"]


def test_a_signal_inside_a_debian_package_ends_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is raised while the data of the package are read is not taken for damage of the package."""
    require("dpkg-deb")
    (tmp_path / "p/DEBIAN").mkdir(parents=True)
    (tmp_path / "p/DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    )
    (tmp_path / "p/large").write_bytes(bytes(3_000_000))
    run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", tmp_path / "p", tmp_path / "x.deb"])

    real = ByteReader.read_some
    calls: list[int] = []

    def read_then_stop(self: ByteReader, *arguments: Any) -> bytes:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(ByteReader, "read_some", read_then_stop)
    with pytest.raises(KeyboardInterrupt):
        read(tmp_path / "x.deb")


def test_an_archive_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", (member("x"), b"x" * 1000))

    def touch(_: int) -> None:
        os.utime(path, (5, 5))

    with pytest.raises(OverlayError, match=r"a\.tar: changed while it was being read$"):
        read_archive(os.fsencode(path), context(spool=Spool(tmp_path)), touch)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.fail("/dev/full is part of Linux")
    path = tar_of(tmp_path / "a.tar", (member("x"), b"x" * 1000))
    spool = Spool(tmp_path)
    spool._file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115
    with pytest.raises(OutputError, match=r"cannot write temporary data: No space left on device$"):
        read_archive(os.fsencode(path), context(spool=spool), lambda _: None)


def test_names_of_archives() -> None:
    for name in (
        b"a.tar",
        b"a.TGZ",
        b"x/a.tar.zst",
        b"a.b.tar.xz",
        b"a.zip",
        b"a.7z",
        b"a.cpio",
        b"a.cpio.gz",
        b"a.deb",
    ):
        assert is_archive_name(name), name
    for name in (b"tar", b"a.jar", b"a.gz", b"a.xz", b"initrd.gz", b"a.tar/", b"a.iso", b"deb", b"a.tar.txt", b"a.cgz"):
        assert not is_archive_name(name), name
    assert is_archive_name(b"-")


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100, bytes(100_000)])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    if not content.strip(b"\0") and content:
        assert read(path) == {}, "two blocks of zeros are an empty tar"
        return
    require_libarchive()
    with pytest.raises(OverlayError, match=r"x\.tar: cannot be read as an archive: Unrecognized archive format$"):
        read(path)


def test_unreadable_archives_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OverlayError, match=r"none\.tar: cannot be opened: No such file or directory$"):
        read(tmp_path / "none.tar")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "talk.tar"))
        with pytest.raises(OverlayError, match=r"talk\.tar: cannot be opened: "):
            read(tmp_path / "talk.tar")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("samples")
    path = tar_of(
        folder / "a.tar",
        (member("d", tarfile.DIRTYPE), b""), (member("d/x"), b"x" * 3000), (member("l", tarfile.SYMTYPE, "x"), b""),
        (member("h", tarfile.LNKTYPE, "d/x"), b""), (member("n" * 200), b"long"),
    )  # fmt: skip
    plain = path.read_bytes()
    cpio = build_archive(
        [DemoEntry(b"d", 0o40755, b""), DemoEntry(b"d/x", 0o100644, b"x" * 3000), DemoEntry(b"l", 0o120777, b"x")]
    )
    return [plain, gzip.compress(plain, mtime=0), cpio]


@settings(max_examples=150, deadline=None)
@given(
    which=st.integers(0, 2),
    cut=st.integers(0, 1 << 20),
    flips=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), max_size=4),
)
def test_damaged_archives_are_read_or_refused(
    samples: list[bytes], which: int, cut: int, flips: list[tuple[int, int]]
) -> None:
    sample = bytearray(samples[which])
    for at, bits in flips:
        sample[at % len(sample)] ^= bits
    if cut % 2:
        del sample[cut % len(sample) :]
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"cosremaster-damaged-{os.getpid()}.tar"
    path.write_bytes(sample)
    try:
        for name, node in warned(path)[0].items():
            assert b".." not in name.split(b"/") and not name.startswith(b"/")
            assert node.content is None or len(data(node)) == node.content.size
    except CosremasterError as error:
        assert str(path) in str(error) and str(error).isprintable()
    finally:
        path.unlink()


def test_without_the_c_library_it_is_said_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.7z"
    path.write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    monkeypatch.setitem(sys.modules, "libarchive", None)
    with pytest.raises(
        UnsupportedError, match=r"a\.7z: such archives are read by libarchive, which is not installed here"
    ):
        read(path)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without libarchive."""
    monkeypatch.setitem(sys.modules, "libarchive", None)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.zst", "a.tar.bz2", "a.tar.lz4", "a.tgz"])
def test_tar_needs_no_c_library(tree: Path, tmp_path: Path, name: str) -> None:
    require("tar", "gzip", "xz", "zstd", "bzip2", "lz4")
    found, _ = warned(pack(tree, tmp_path / name, "tar --format=gnu -acf $OUT ."))
    assert data(found[b"large"]) == (tree / "large").read_bytes()
    assert (found[b"null"].rdev, found[b"own"].gid, found[b"etc"].mode) == ((1, 3), 1234567, 0o1771)


@pytest.mark.usefixtures("bare")
def test_zip_needs_no_c_library(tree: Path, tmp_path: Path) -> None:
    require("bsdtar")
    check_zip_of_another_system(tmp_path / "python.zip")
    run(["bsdtar", "--format=zip", "-cf", tmp_path / "a.zip", "etc", "empty", "large", "link"], cwd=tree)
    found = read(tmp_path / "a.zip")
    assert found[b"link"].target == b"/a/../b" and found[b"etc"].mode == 0o1771
    assert data(found[b"large"]) == (tree / "large").read_bytes()


def check_zip_of_another_system(path: Path) -> None:
    """A zip archive of another system: no modes, and times without a zone."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (("d/", ""), ("d/\u00e4", "umlaut"), ("x", "y" * 100_000)):
            info = zipfile.ZipInfo(name, (2024, 2, 29, 12, 0, 0))
            info.create_system = info.external_attr = 0
            archive.writestr(info, text)
    found = read(path)
    assert {name: node.mode for name, node in found.items()} == {b"d": 0o755, "d/\u00e4".encode(): 0o644, b"x": 0o644}
    assert found[b"x"].mtime == 1709208000


def test_a_zip_of_windows_has_folders_and_attributes(tmp_path: Path) -> None:
    """Its backslashes were parts of names, and what was read-only was writable."""
    require("bsdtar")
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, system, attributes in (
            ("site\\etc\\a", 0, 0x20), ("site\\etc\\ro", 10, 0x21), ("e/b\\c", 0, 0x20), ("u\\v", 3, 0o100640 << 16),
        ):  # fmt: skip
            info = zipfile.ZipInfo("x", (2024, 2, 29, 12, 0, 0))
            info.filename, info.create_system, info.external_attr = name, system, attributes
            archive.writestr(info, name)
    modes = {os.fsdecode(name): node.mode for name, node in read(path).items()}
    assert modes == {"site/etc/a": 0o644, "site/etc/ro": 0o444, "e/b\\c": 0o644, "u\\v": 0o640}
    theirs = run(["bsdtar", "-tf", path], env={"LC_ALL": "C.UTF-8"}).decode().splitlines()
    assert theirs[:2] == ["site/etc/a", "site/etc/ro"]


def test_a_7z_of_windows_gives_nobody_else_rights_to_write(tmp_path: Path) -> None:
    """libarchive says 0666 and 0777 where there are no modes, and so it was in the image."""
    require("7z")
    require_libarchive()
    for name, mode in {"w/d/a": 0o644, "w/ro": 0o444, "w/open": 0o666}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(mode)
    run(["7z", "a", "-mhc=off", "-m0=copy", "../a.7z", "."], cwd=tmp_path / "w")
    data = bytearray((tmp_path / "a.7z").read_bytes())
    start, size = struct.unpack_from("<QQ", data, 12)
    attributes = rb"([\x10\x20\x21])\x80.[\x81\x41]"  # of DOS, the mark of Unix modes, and the mode
    header, count = re.subn(attributes, rb"\1\0\0\0", bytes(data[32 + start :]), flags=re.DOTALL)
    assert (count, len(header)) == (4, size)
    data[32 + start :] = header
    struct.pack_into("<I", data, 28, zlib.crc32(header))
    struct.pack_into("<I", data, 8, zlib.crc32(data[12:32]))
    (tmp_path / "windows.7z").write_bytes(data)
    modes = {os.fsdecode(name): node.mode for name, node in read(tmp_path / "windows.7z").items()}
    assert modes == {"d": 0o755, "d/a": 0o644, "ro": 0o444, "open": 0o644}


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("compression", ["xz", "gzip", "zstd", "none"])
def test_a_debian_package_needs_no_c_library(tmp_path: Path, compression: str) -> None:
    require("dpkg-deb")
    top = tmp_path / "package"
    (top / "DEBIAN").mkdir(parents=True)
    (top / "DEBIAN/control").write_text("Package: s\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n")
    (top / "usr").mkdir()
    (top / "usr/data").write_bytes(random.Random(1).randbytes(600_001))
    run(["dpkg-deb", f"-Z{compression}", "--root-owner-group", "-b", top, tmp_path / "x.deb"])
    found, _ = warned(tmp_path / "x.deb")
    assert sorted(found) == [b"usr", b"usr/data"]
    assert data(found[b"usr/data"]) == (top / "usr/data").read_bytes()


def _flip(path: Path) -> None:
    """Change a bit of a file in ``path`` that is stored as it is, so that only a checksum tells."""
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.xz", "a.cpio.gz", "a.cpio.xz", "a.tar.lz4", "a.tar.zst"])
def test_the_checksum_behind_an_archive_is_compared(tmp_path: Path, name: str) -> None:
    """It stands behind the blocks of zeros, or the trailer, at which the archive ends."""
    require("xz", "zstd", "lz4", "bsdtar")
    if "cpio" in name:
        require_libarchive()
    (tmp_path / "top").mkdir()
    (tmp_path / "top/noise").write_bytes(random.Random(2).randbytes(200_001))
    kind, _, codec = name[2:].partition(".")
    plain = run(["bsdtar", "--format", "newc" if kind == "cpio" else "gnutar", "-cf", "-", "-C", tmp_path / "top", "."])
    packers = {"gz": ["gzip", "-1"], "xz": ["xz", "-0"], "lz4": ["lz4", "-1"], "zst": ["zstd", "-1"]}
    (tmp_path / name).write_bytes(run([*packers[codec], "-c"], stdin=plain))
    assert data(warned(tmp_path / name)[0][b"noise"]) == (tmp_path / "top/noise").read_bytes()
    whole = (tmp_path / name).read_bytes()
    _flip(tmp_path / name)
    with pytest.raises(OverlayError, match=r"CRC32|check"):
        warned(tmp_path / name)
    (tmp_path / name).write_bytes(whole[:-2])
    with pytest.raises(OverlayError, match="cannot be read as an archive"):
        warned(tmp_path / name)


@pytest.mark.parametrize("compression", ["xz", "gzip"])
def test_the_checksum_in_a_debian_package_is_compared(tmp_path: Path, compression: str) -> None:
    require("dpkg-deb")
    top = tmp_path / "package"
    (top / "DEBIAN").mkdir(parents=True)
    (top / "DEBIAN/control").write_text("Package: s\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n")
    (top / "noise").write_bytes(random.Random(1).randbytes(600_001))
    run(["dpkg-deb", f"-Z{compression}", "--root-owner-group", "-b", top, tmp_path / "x.deb"])
    _flip(tmp_path / "x.deb")
    with pytest.raises(OverlayError, match=r"CRC32|check"):
        warned(tmp_path / "x.deb")


def test_endless_bytes_behind_an_archive_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "MAX_REST", 1 << 20)
    plain = tar_of(tmp_path / "a.tar", (member("x"), b"x")).read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(plain + bytes(3 << 20)))
    with pytest.raises(OverlayError, match="GiB stand behind the end of the archive"):
        warned(tmp_path / "a.tar.gz")


@pytest.mark.usefixtures("bare")
def test_standard_input_needs_no_c_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = gzip.compress(tar_of(tmp_path / "a.tar", (member("x"), b"x" * 200_000)).read_bytes())
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe, os.fdopen(reading, "rb") as source:
        pipe.write(packed)
        pipe.close()
        real = os.read
        monkeypatch.setattr(os, "read", lambda fd, size: real(source.fileno() if fd == 0 else fd, size))
        scan = read_archive(b"-", context(spool=Spool(tmp_path)), lambda _: None)
    assert [data(node) for node in scan.nodes] == [b"x" * 200_000]


@pytest.mark.parametrize(
    "how",
    [
        "tar --format=gnu -S", "tar --format=pax --xattrs --acls", "tar --format=ustar", "bsdtar --format=pax",
        "tar --format=v7 --exclude=pipe --exclude=null --exclude=disk", "bsdtar --format=zip",
    ],
)  # fmt: skip
def test_both_readers_agree(tree: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """libarchive, which reads the same archives where it may."""
    require_libarchive()
    with (tree / "holes").open("wb") as file:
        file.seek(300_000)
        file.write(b"middle")
        file.truncate(900_000)
    os.setxattr(tree / "large", "user.note", b"text")
    for name in (LATIN, UTF8) if "zip" in how else ():
        Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).unlink()
    if "zip" in how:
        (tree / "pipe").unlink()
        require("bsdtar")
        run(["bsdtar", "--format=zip", "-cf", tmp_path / "a.bin", "."], cwd=tree)
    else:
        pack(tree, tmp_path / "a.bin", f"{how} -cf $OUT .")
    own, _ = warned(tmp_path / "a.bin")
    monkeypatch.setattr(archives, "open_stream", lambda _: None)
    monkeypatch.setattr(archives, "_ZIP_MAGICS", (b"none",))
    other, _ = warned(tmp_path / "a.bin")
    assert list(own) == list(other)
    for path, node in own.items():
        assert replace(node, content=None, link=None) == replace(other[path], content=None, link=None)
        assert (node.link is None) == (other[path].link is None)
        assert node.content is None or data(node) == data(other[path])


def test_damaged_zip_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "whole.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", b"".join(b"%d" % number for number in range(2000)))
    whole, path = (tmp_path / "whole.zip").read_bytes(), tmp_path / "a.zip"
    for at in range(0, len(whole), 41):
        sample = bytearray(whole)
        sample[at] ^= 0xFF
        for bad in (bytes(sample), whole[: at or 1]):
            path.write_bytes(bad)
            try:
                warned(path)
            except CosremasterError as error:
                assert str(path) in str(error) and str(error).isprintable()


def test_the_c_library_is_loaded_for_archives_alone(tmp_path: Path) -> None:
    source = write_small(tmp_path)
    (tmp_path / "note").write_text("x")
    script = """if True:
        import sys
        import cosremaster
        cosremaster.remaster(sys.argv[1], sys.argv[2], add=[sys.argv[3] + ":/etc/"])
        assert "libarchive" not in sys.modules
    """
    run([sys.executable, "-c", script, source, tmp_path / "out.iso", tmp_path / "note"])


def test_an_archive_in_the_image(tree: Path, tmp_path: Path) -> None:
    source = write_small(tmp_path)
    path = pack(tree, tmp_path / "site.tar.xz", "tar --format=gnu -cJf $OUT --exclude=./etc .")
    result = cosremaster.remaster(source, tmp_path / "out.iso", add=[f"{path}:/opt/site"])
    assert b"opt/site/null" in result.added and b"opt/site" in result.parents
    found = with_layer_of(tmp_path / "out.iso")
    assert found[b"opt/site/null"].rdev == (1, 3) and found[b"opt/site/own"].gid == 1234567
    assert data(found[b"opt/site/large"]) == (tree / "large").read_bytes()
    again = cosremaster.remaster(tmp_path / "out.iso", tmp_path / "again.iso", add=[f"{path}:/opt/site"])
    assert again.identical and (tmp_path / "again.iso").read_bytes() == (tmp_path / "out.iso").read_bytes()
    owned = cosremaster.AddPath(path, "/opt/site", owner="root")
    result = cosremaster.remaster(tmp_path / "out.iso", tmp_path / "root.iso", add=[owned])
    assert result.replaced == (b"opt/site/link",), "a directory that is there keeps its owner"


def test_an_archive_may_be_added_as_the_file_it_is(tmp_path: Path) -> None:
    source = write_small(tmp_path)
    path = tar_of(tmp_path / "a.tar", (member("x"), b"x"))
    cosremaster.remaster(source, tmp_path / "out.iso", add=[cosremaster.AddPath(path, "/etc/", unpack=False)])
    found = with_layer_of(tmp_path / "out.iso")
    assert data(found[b"etc/a.tar"]) == path.read_bytes()
    words = ["--add", f"{path}:/opt", "--add-file", f"{path}:/opt/"]
    run([sys.executable, "-m", "cosremaster", source, tmp_path / "both.iso", *words])
    both = with_layer_of(tmp_path / "both.iso")
    assert data(both[b"opt/a.tar"]) == path.read_bytes() and data(both[b"opt/x"]) == b"x"
    odd = tmp_path / "a.image"
    odd.write_bytes(path.read_bytes())
    cosremaster.remaster(source, tmp_path / "two.iso", add=[cosremaster.AddPath(odd, "/etc/", unpack=True)])
    assert data(with_layer_of(tmp_path / "two.iso")[b"etc/x"]) == b"x"


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_tar_on_standard_input(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    source = write_small(tmp_path)
    path = tar_of(tmp_path / "a.tar", (member("x", mtime=7), b"from a pipe"))

    def add(target: str, stdin: bytes) -> None:
        run([sys.executable, "-m", "cosremaster", source, tmp_path / target, "--add", "-:/data"], stdin=stdin)

    add("out.iso", compress(path.read_bytes()))
    assert data(with_layer_of(tmp_path / "out.iso")[b"data/x"]) == b"from a pipe"


def test_what_is_no_tar_on_standard_input(tmp_path: Path) -> None:
    require_libarchive()
    source = write_small(tmp_path)
    words = [sys.executable, "-m", "cosremaster", str(source), str(tmp_path / "no.iso"), "--add", "-:/data"]
    with pytest.raises(AssertionError, match=r"standard input: cannot be read as an archive: Unrecognized"):
        run(words, stdin=build_archive([DemoEntry(b"x", 0o100644, b"x")]))
    assert not (tmp_path / "no.iso").exists()


def test_memory_stays_flat_while_an_archive_passes_through(tmp_path: Path) -> None:
    """Two archives, the second with a file sixteen times as large: the peak differs by little."""
    peaks = []
    for size in (8 << 20, 128 << 20):
        path = tmp_path / "a.tar.gz"
        with gzip.open(path, "wb", 1) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
            info = member("zeros")
            info.size = size
            with open("/dev/zero", "rb") as zeros:
                tar.addfile(info, zeros)
        script = f"""if True:
            from pathlib import Path
            from tests.support.archives import read
            assert read(Path({str(path)!r}))[b"zeros"].content.size == {size}
            print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
        """
        peaks.append(int(run([sys.executable, "-c", script])) << 10)
    assert peaks[1] - peaks[0] < 8 << 20, peaks
