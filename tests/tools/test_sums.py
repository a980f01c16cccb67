"""Lists of sums on the ISO stay true when it changes; GNU coreutils judges the files that xorriso takes out."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cosremaster import remaster
from cosremaster.checksums.draft import FileChanges
from cosremaster.checksums.lines import BLAKE2B, DIGESTS, pack_lines, parse_lines, parse_treeinfo
from cosremaster.checksums.lists import DigestCache, read_checksum_lists
from cosremaster.checksums.names import is_list
from cosremaster.checksums.renew import ListChange, renew_lists
from cosremaster.checksums.update import update_checksums
from cosremaster.checksums.values import RenewedLists
from cosremaster.cli import main
from cosremaster.demo.image import build_iso, debirf_files, initramfs
from cosremaster.errors import UnsupportedError
from cosremaster.io.pieces import Literal, PieceTable
from cosremaster.io.source import ByteSource, open_source
from cosremaster.iso.edits import IsoEdits
from cosremaster.iso.encode import ImagePlan
from cosremaster.iso.model import IsoImage
from cosremaster.iso.read import read_image
from cosremaster.progress import SilentProgress
from cosremaster.remastering.image import OpenedImage
from cosremaster.remastering.plan import with_checksum_lists
from cosremaster.remastering.request import Request
from cosremaster.remastering.write import plan_result
from cosremaster.verification.run import verify
from tests.fixtures import families, tools
from tests.fixtures.tools import EPOCH, run
from tests.support.small import write_small

TOOLS = ("md5sum", "sha1sum", "sha224sum", "sha256sum", "sha384sum", "sha512sum", "b2sum")


def table(data: bytes) -> PieceTable:
    return PieceTable([Literal(data)])


# Lines and lists of them


NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name)
SUMS = st.sampled_from([32, 40, 56, 64, 96, 128]).flatmap(
    lambda n: st.text("0123456789abcdefABCDEF", min_size=n, max_size=n)
)
SOME_LINES = st.one_of(
    st.binary(max_size=30),
    st.tuples(
        st.sampled_from([b"", b"\\", b" ", b"\t\\"]), SUMS.map(str.encode), st.sampled_from([b"  ", b" *", b" "]), NAMES
    ).map(b"".join),
    st.tuples(st.sampled_from([b"MD5 (", b"\\SHA256 (", b"SHA1("]), NAMES, st.just(b") = "), SUMS.map(str.encode)).map(
        b"".join
    ),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(SOME_LINES, st.sampled_from([b"\n", b"\r\n", b""])).map(b"".join), max_size=6).map(b"".join))
@example(b"# made by hand\r\n" + b"0" * 32 + b"  a\r\n")
@example(b"\n\n")
def test_a_list_is_packed_as_it_was(data: bytes) -> None:
    lines = parse_lines(data)
    assert pack_lines(lines) == data
    for line in lines:
        assert line.with_checksum("a" * len(line.checksum)).end == line.end
        if line.digest and not line.is_tagged:  # a name may hold what ends a tagged one
            again = parse_lines(line.with_name(b"./a\\b\nc\r").raw)
            assert [(one.name, one.checksum) for one in again] == [(b"./a\\b\nc\r", line.checksum)]


ODD = (b"plain", b" blank", b"*star", b"back\\slash", b"new\nline", b"return\r", b"a) = b", b"caf\xe9", b"\\", b"a  b")


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("options", [[], ["-b"], ["--tag"]])
def test_coreutils_lines_are_read_and_written(tmp_path: Path, tool: str, options: list[str]) -> None:
    for name in ODD:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    listed = run([tool, *options, *(os.fsdecode(name) for name in ODD)], cwd=tmp_path)
    is_blake = tool == "b2sum"
    lines = parse_lines(listed, BLAKE2B if is_blake else DIGESTS)
    digest = "blake2b" if is_blake else tool.removesuffix("sum")
    assert [(line.name, line.digest) for line in lines] == [(name, digest) for name in ODD]
    assert all(line.has_checksum(hashlib.new(digest, line.name).hexdigest()) for line in lines)
    # What we write in the place of what was written, coreutils would have written too.
    changed = [lines[0].with_name(name).with_checksum(hashlib.new(digest, name).hexdigest()) for name in ODD]
    assert pack_lines(changed) == listed
    checked = run([tool, "-c", "--strict", "-"], cwd=tmp_path, stdin=pack_lines(changed).replace(b"\n", b"\r\n"))
    assert checked.count(b": OK") == len(ODD)


def test_bsd_lines_with_one_blank_and_capitals(tmp_path: Path) -> None:
    for name in (b"new", b" new", b"*new"):
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    (line,) = parse_lines(hashlib.md5(b"old").hexdigest().upper().encode() + b" old\n")
    assert (line.name, line.digest) == (b"old", "md5")
    for name in (b"new", b" new", b"*new"):
        new = line.with_name(name).with_checksum(hashlib.md5(name).hexdigest())
        assert new.checksum.isupper()
        assert b": OK" in run(["md5sum", "-c", "--strict", "-"], cwd=tmp_path, stdin=new.raw)


@pytest.mark.parametrize(
    "text",
    [
        b"# comment",
        b"0" * 31 + b"  x",
        b"0" * 32,
        b"0" * 32 + b"  ",
        b"MD5 (x) = " + b"0" * 64,
        b"SHA256 (x = " + b"0" * 64,
    ],
)
def test_what_is_no_sum_of_a_file(text: bytes) -> None:
    (line,) = parse_lines(text + b"\n")
    named = line.name if line.digest else None
    assert named in (None, b" "), "coreutils takes two blanks for a name of one"


def test_names_of_lists() -> None:
    for name in ("md5sum.txt", "MD5SUMS", "SHA256SUMS", "sha256sum.txt", "sha1sums", "SHA512SUM.TXT", "CHECKSUM",
                 ".disk/md5sum.txt", "live/vmlinuz.sha256", "vmlinuz.md5sum", "md5sum", "md5.txt", ".md5", "SHA256",
                 "B2SUMS", "a.b2", "a.blake2b", "md5sum.lst", "live.DIGESTS", "airootfs.sha512", ".treeinfo",
                 "CHECKSUMS.md5"):  # fmt: skip
        assert is_list(name.encode()), name
    for name in ("README.txt", "SHA256SUMS.gpg", "sum.txt", "md5sum-x.txt", "treeinfo.txt", "libb2.so", "sha5"):
        assert not is_list(name.encode()), name


# Renewal, as values


def image_of(tmp_path: Path, files: Mapping[str, bytes]) -> tuple[IsoImage, ByteSource]:
    path = tmp_path / "image.iso"
    path.write_bytes(build_iso({**debirf_files(), **files}))
    source = open_source(path)
    return read_image(source), source


def made_image_of(tmp_path: Path, files: Mapping[str, bytes]) -> tuple[IsoImage, ByteSource]:
    """An image of ``files`` by genisoimage."""
    tools.require("genisoimage")
    for name, data in files.items():
        (tmp_path / "disc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "disc" / name).write_bytes(data)
    run(["genisoimage", "-quiet", "-R", "-o", tmp_path / "image.iso", tmp_path / "disc"])
    source = open_source(tmp_path / "image.iso")
    return read_image(source), source


def sums(files: Mapping[str, bytes], form: str = "{sum}  ./{name}\n", digest: str = "md5") -> bytes:
    """A list of ``files``, in their order."""
    return "".join(
        form.format(sum=hashlib.new(digest, data).hexdigest(), name=name) for name, data in files.items()
    ).encode()


def contents(image: IsoImage) -> dict[str, bytes]:
    return {os.fsdecode(file.path): b"".join(image.bytes_of(file).chunks()) for file in image.files}


def renew(image: IsoImage, changes: FileChanges) -> tuple[dict[str, bytes], RenewedLists]:
    """The renewed lists, where the files hold just what ``changes`` say."""
    old = {os.fsencode(path): table(data) for path, data in contents(image).items()}
    new = {changes.renamed.get(path, path): one for path, one in old.items() if path not in changes.removed}
    for path in old:
        if path in changes.replaced:
            new[changes.renamed.get(path, path)] = changes.replaced[path]
        elif path not in changes.removed:
            (file,) = (file for file in image.files if file.path == path)
            new[changes.renamed.get(path, path)] = image.bytes_of(file)
    new.update(changes.added)
    renewed = renew_lists(
        image, read_checksum_lists(image, changes.added), changes, new.__getitem__, DigestCache(SilentProgress())
    )
    return {os.fsdecode(path): b"".join(one.chunks()) for path, one in renewed.lists.items()}, renewed


def test_rewritten_dropped_renamed_and_added(tmp_path: Path) -> None:
    plain = debirf_files()
    files = {"a.txt": b"a", "b.txt": b"b", "c.txt": b"c", "e.txt": b"e"}
    form = "{sum}  ./{name}\r\n"
    everything = dict(sorted({**files, **plain}.items()))
    text = b"# all of it\r\n" + sums(everything, form)
    image, source = image_of(tmp_path, {**files, "md5sum.txt": text})
    with source:
        changes = FileChanges(
            replaced={b"a.txt": table(b"A")}, removed=frozenset((b"b.txt",)), renamed={b"c.txt": b"sub/c\\c.txt"},
            added={b"d.txt": table(b"d"), b"0.txt": table(b"0"), b"zzz.txt": table(b"z"), b"SHA1SUMS": table(b"")},
        )  # fmt: skip
        lists, renewed = renew(image, changes)
    expected = {**everything, "a.txt": b"A", "d.txt": b"d", "0.txt": b"0", "zzz.txt": b"z"}
    del expected["b.txt"]
    lines = [b"# all of it\r\n", *sums(dict(sorted(expected.items())), form).splitlines(keepends=True)]
    moved = next(number for number, line in enumerate(lines) if line.endswith(b"./c.txt\r\n"))
    lines[moved] = b"\\" + lines[moved].replace(b"./c.txt", b"./sub/c\\\\c.txt")
    assert lists == {"md5sum.txt": b"".join(lines)}
    assert renewed.changes == (ListChange(path=b"md5sum.txt", rewritten=1, added=3, dropped=1, renamed=1),)
    assert not renewed.warnings


@pytest.mark.parametrize(
    ("order", "end", "at_the_end"), [("sorted", b"\n", False), ("reversed", b"\n", True), ("reversed", b"", True)]
)
def test_where_added_lines_go(tmp_path: Path, order: str, end: bytes, at_the_end: bool) -> None:
    everything = dict(sorted(debirf_files().items(), reverse=order == "reversed"))
    text = sums(everything).removesuffix(b"\n") + end
    image, source = image_of(tmp_path, {"MD5SUMS": text})
    with source:
        lists, _ = renew(image, FileChanges(added={b"boot/new": table(b"new")}))
    new = sums({"boot/new": b"new"})
    if at_the_end:
        assert lists["MD5SUMS"] == sums(everything) + new.removesuffix(b"\n") + end
    else:
        lines = lists["MD5SUMS"].splitlines(keepends=True)
        assert new in lines
        names = [line[34:] for line in lines]
        assert names == sorted(names)


def test_a_list_that_is_not_complete_gets_no_line(tmp_path: Path) -> None:
    everything = debirf_files()
    some = {name: data for name, data in everything.items() if name != "vmlinuz"}
    texts = {
        "MD5SUMS": sums(some), "SHA1SUMS": sums(everything, digest="sha1"),
        "SHA1SUMS.gpg": b"x", "sha1sum.README": b"x", "vmlinuz.md5": sums({"vmlinuz": everything["vmlinuz"]}),
    }  # fmt: skip
    image, source = image_of(tmp_path, texts)
    with source:
        lists, renewed = renew(image, FileChanges(added={b"new": table(b"new"), b"new.sha1": table(b"")}))
    assert lists == {"SHA1SUMS": sums(dict(sorted({**everything, "new": b"new"}.items())), digest="sha1")}
    assert renewed.warnings == ("SHA1SUMS.gpg signs SHA1SUMS, which changes: the signature will not hold",)


def test_completeness_counts_below_the_lists_directory(tmp_path: Path) -> None:
    files = {"pool/a": b"a", "pool/b/c": b"c"}
    named = {"a": b"a", "b/c": b"c"}
    image, source = image_of(tmp_path, {**files, "pool/SHA256SUMS": sums(named, "{sum} *{name}\n", "sha256")})
    with source:
        lists, _ = renew(image, FileChanges(added={b"pool/n": table(b"n"), b"other": table(b"o")}))
    assert lists == {"pool/SHA256SUMS": sums({**named, "n": b"n"}, "{sum} *{name}\n", "sha256")}


def test_a_list_in_a_folder_may_count_from_the_root(tmp_path: Path) -> None:
    everything = debirf_files()
    image, source = image_of(tmp_path, {".disk/md5sum.txt": sums(everything)})
    with source:
        lists, _ = renew(image, FileChanges(replaced={b"vmlinuz": table(b"new")}, added={b"n": table(b"n")}))
    assert lists == {".disk/md5sum.txt": sums(dict(sorted({**everything, "vmlinuz": b"new", "n": b"n"}.items())))}


def test_a_loaders_folder_may_be_left_out_as_ubuntu_does(tmp_path: Path) -> None:
    everything = debirf_files()
    image, source = image_of(tmp_path, {"isolinux/isolinux.cfg": b"x", "md5sum.txt": sums(everything)})
    with source:
        lists, _ = renew(image, FileChanges(added={b"isolinux/more.cfg": table(b"n"), b"n": table(b"n")}))
    assert lists == {"md5sum.txt": sums(dict(sorted({**everything, "n": b"n"}.items())))}


def test_a_renamed_list_counts_from_its_new_place(tmp_path: Path) -> None:
    image, source = image_of(tmp_path, {"pool/a": b"a", "pool/b": b"b", "pool/MD5SUMS": sums({"a": b"a", "b": b"b"})})
    changes = FileChanges(renamed={b"pool/MD5SUMS": b"MD5SUMS", b"pool/b": b"b"})
    with source:
        lists, renewed = renew(image, changes)
    assert lists == {"MD5SUMS": sums({"pool/a": b"a", "b": b"b"})}
    assert renewed.changes[0].renamed == 1, "b is ./b as before"


def test_what_was_wrong_stays_with_a_warning(tmp_path: Path) -> None:
    text = sums({"a": b"a", "b": b"not b", "gone": b"gone"}) + b"0" * 32 + b"  md5sum.txt\n"
    image, source = image_of(tmp_path, {"a": b"a", "b": b"b", "md5sum.txt": text})
    with source:
        lists, renewed = renew(image, FileChanges(replaced={b"a": table(b"A"), b"b": table(b"B")}))
    assert lists == {"md5sum.txt": sums({"a": b"A", "b": b"not b", "gone": b"gone"}) + b"0" * 32 + b"  md5sum.txt\n"}
    assert renewed.warnings == ("md5sum.txt: its sums of b were wrong before, and stay so",)


def test_lists_of_lists_are_settled_in_order(tmp_path: Path) -> None:
    inner = sums({"a": b"a"})
    middle = sums({"a": b"a", "zz/md5sum.txt": inner}, digest="sha256")
    outer = sums({"SHA256SUMS": middle}, "SHA512 ({name}) = {sum}\n", digest="sha512")
    image, source = image_of(
        tmp_path, {"a": b"a", "zz/md5sum.txt": inner.replace(b"./a", b"../a"), "SHA256SUMS": middle, "AA.sha512": outer}
    )
    with source:
        assert [one.path for one in read_checksum_lists(image)] == [b"AA.sha512", b"SHA256SUMS", b"zz/md5sum.txt"]
    inner = inner.replace(b"./a", b"../a")
    middle = sums({"a": b"a", "zz/md5sum.txt": inner}, digest="sha256")
    outer = sums({"SHA256SUMS": middle}, "SHA512 ({name}) = {sum}\n", digest="sha512")
    image, source = image_of(tmp_path, {"a": b"a", "zz/md5sum.txt": inner, "SHA256SUMS": middle, "AA.sha512": outer})
    with source:
        lists, _ = renew(image, FileChanges(replaced={b"a": table(b"A")}))
    inner = sums({"a": b"A"}).replace(b"./a", b"../a")
    middle = sums({"a": b"A", "zz/md5sum.txt": inner}, digest="sha256")
    outer = sums({"SHA256SUMS": middle}, "SHA512 ({name}) = {sum}\n", digest="sha512")
    assert lists == {"zz/md5sum.txt": inner, "SHA256SUMS": middle, "AA.sha512": outer}


def test_two_lists_that_name_each_other(tmp_path: Path) -> None:
    """One of the two sums cannot be right, and stays; the other is settled after it."""
    first = sums({"a": b"a", "SHA1SUMS": b"as it was once"})
    second = sums({"MD5SUMS": first}, digest="sha1")
    image, source = image_of(tmp_path, {"a": b"a", "MD5SUMS": first, "SHA1SUMS": second})
    with source:
        lists, renewed = renew(image, FileChanges(replaced={b"a": table(b"A")}))
    first = sums({"a": b"A", "SHA1SUMS": b"as it was once"})
    assert lists == {"MD5SUMS": first, "SHA1SUMS": sums({"MD5SUMS": first}, digest="sha1")}
    assert not [one for one in renewed.warnings if "MD5SUMS: its" not in one]


def test_lists_of_the_user_and_removed_ones_are_left_alone(tmp_path: Path) -> None:
    text = sums({"a": b"a"})
    image, source = image_of(tmp_path, {"a": b"a", "MD5SUMS": text, "md5sum.txt": text})
    with source:
        lists, _ = renew(
            image,
            FileChanges(
                replaced={b"a": table(b"A"), b"MD5SUMS": table(b"the user's")}, removed=frozenset((b"md5sum.txt",))
            ),
        )
    assert not lists


def test_a_list_with_its_signature_around_it(tmp_path: Path) -> None:
    text = (
        b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n" + sums({"a": b"a"}) + b"-----BEGIN PGP SIGNATURE-----\n"
    )
    image, source = image_of(tmp_path, {"a": b"a", "CHECKSUM": text})
    with source:
        _, renewed = renew(image, FileChanges(replaced={b"a": table(b"A")}))
    assert renewed.warnings == ("CHECKSUM is signed, and changes: the signature in it will not hold",)


@given(st.lists(st.tuples(SOME_LINES, st.sampled_from([b"\n", b"\r\n", b""])).map(b"".join), max_size=6).map(b"".join))
@example(b"[checksums]\nimages/a = sha256:" + b"0" * 64 + b" \r\nb : md5:" + b"0" * 32)
def test_a_treeinfo_is_packed_as_it_was(data: bytes) -> None:
    assert pack_lines(parse_treeinfo(data)) == data


TREEINFO = """[general]
arch = x86_64
vmlinuz = sha256:{none}

[checksums]
; comment = sha256:{none}
vmlinuz = sha256:{kernel}
repodata/repomd.xml = sha256:{none}
boot/grub/grub.cfg=md5:{menu}
[images-x86_64]
kernel = vmlinuz
"""


def test_a_treeinfo(tmp_path: Path) -> None:
    """As lorax and pungi write it (productmd); names may be those of a repository that the ISO has no part of."""

    def text(kernel: bytes, menu: bytes) -> bytes:
        return TREEINFO.format(
            none="0" * 64, kernel=hashlib.sha256(kernel).hexdigest(), menu=hashlib.md5(menu).hexdigest()
        ).encode()

    menu = debirf_files()["boot/grub/grub.cfg"]
    image, source = made_image_of(
        tmp_path, {"vmlinuz": b"k", "boot/grub/grub.cfg": menu, ".treeinfo": text(b"k", menu)}
    )
    with source:
        lists, renewed = renew(image, FileChanges(replaced={b"vmlinuz": table(b"new")}, added={b"n": table(b"n")}))
        assert lists == {".treeinfo": text(b"new", menu)}
        assert not renewed.warnings
        lists, _ = renew(image, FileChanges(renamed={b"vmlinuz": b"images/k"}))
        assert lists == {".treeinfo": text(b"k", menu).replace(
            b"\nvmlinuz = sha256:%b" % hashlib.sha256(b"k").hexdigest().encode(),
            b"\nimages/k = sha256:%b" % hashlib.sha256(b"k").hexdigest().encode(),
        )}  # fmt: skip
    found = [one for one in verify(tmp_path / "image.iso", deep=True).findings if "sums" in one.check]
    assert [(one.level.value, one.check) for one in found] == [("note", "sums.missing"), ("holds", "sums.stale")]


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("arch/airootfs.sha512", "{sha512}  airootfs.sfs\n"),  # archiso
        ("arch/airootfs.sfs.b2", "{blake2b}  airootfs.sfs\n"),
        ("arch/airootfs.sfs.sha256", "{sha256}\n"),  # the checksum alone
        ("arch/airootfs.sfs.sha1", "{sha1}  -\n"),  # sha1sum < airootfs.sfs
        ("arch/airootfs.sfs.md5", "MD5(stdin)= {md5}\n"),  # openssl md5 < airootfs.sfs
        ("arch/airootfs.sfs.sha256sum", "{sha256} */tmp/work/x86_64/airootfs.sfs\r\n"),
        ("md5sum-x86_64.txt", "# all\n\n{md5}  arch/airootfs.sfs\n"),
        ("arch/SHA256", "SHA256 (airootfs.sfs) = {sha256}\n"),  # BSD
        ("arch/B2SUMS", "BLAKE2b (airootfs.sfs) = {blake2b}\n"),
        ("live.DIGESTS", "# SHA512 HASH\n{sha512}  arch/airootfs.sfs\n# BLAKE2B HASH\n{blake2b}  arch/airootfs.sfs\n"),
        ("content", "PRODUCT x y\nHASH SHA256 {sha256}  arch/airootfs.sfs\n"),  # SUSE
        ("CHECKSUMS", "{sha256}  arch/airootfs.sfs\n"),  # SUSE since 15
        ("arch/x.sha384.txt", "{sha384}  airootfs.sfs\n{sha224}  airootfs.sfs\n"),
    ],
)
def test_lists_of_all_makers(tmp_path: Path, name: str, form: str) -> None:
    def text(data: bytes) -> bytes:
        kinds = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b")
        return form.format(**{kind: hashlib.new(kind, data).hexdigest() for kind in kinds}).encode()

    image, source = made_image_of(tmp_path, {"arch/airootfs.sfs": b"root", "arch/o": b"o", name: text(b"root")})
    with source:
        changes = FileChanges(replaced={b"arch/airootfs.sfs": table(b"new")}, added={b"arch/n": table(b"n")})
        lists, renewed = renew(image, changes)
        assert not renewed.warnings
        assert lists == {name: text(b"new")}
    assert {one.check for one in verify(tmp_path / "image.iso", deep=True).findings if one.is_counted} == set()


def test_what_only_looks_like_a_list(tmp_path: Path) -> None:
    """A text about checksums in a file of an odd name, and a checksum alone without the file that it is of."""
    files = {"notes-md5.txt": sums({"vmlinuz": b"other"}) + b"and so on\n", "gone.sha256": b"0" * 64 + b"\n"}
    image, source = image_of(tmp_path, files)
    with source:
        assert read_checksum_lists(image) == ()


def test_a_list_that_lacks_what_was_made_after_it_is_complete(tmp_path: Path) -> None:
    """debian-cd writes .disk/mkisofs behind it; other files are told by their dates."""
    everything = debirf_files()
    complete = sums(dict(sorted({**everything, "n": b"n"}.items())))
    image, source = image_of(
        tmp_path, {".disk/mkisofs": b"xorriso", "md5sum.txt": sums(dict(sorted(everything.items())))}
    )
    with source:
        lists, _ = renew(image, FileChanges(added={b"n": table(b"n")}))
    assert lists == {"md5sum.txt": complete}
    tools.require("genisoimage")
    for age, is_complete in ((-100, False), (0, False), (100, True)):
        tree = tmp_path / f"tree{age}"
        tree.mkdir()
        files = {str(number): b"%d" % number for number in range(10)}
        for name, data in {**files, "md5sum.txt": sums(files), "later": b"l"}.items():
            (tree / name).write_bytes(data)
            os.utime(tree / name, (EPOCH, EPOCH + (age if name == "later" else 0)))
        iso = tmp_path / f"{age}.iso"
        run(["genisoimage", "-quiet", "-R", "-o", iso, tree])
        (tmp_path / "new").write_bytes(b"new")
        result = remaster(iso, tmp_path / f"{age}.out.iso", add_iso=[f"{tmp_path}/new:/new"])
        assert [one.added for one in result.sums] == ([1] if is_complete else [])


@pytest.mark.parametrize(
    ("index", "changed", "is_stale"),
    [
        ("dists/bookworm/Release", "pool/main/a.deb", True),
        ("dists/bookworm/Release", "dists/bookworm/main/binary-amd64/Packages.gz", True),
        ("dists/bookworm/Release", "live/vmlinuz", False),
        ("BaseOS/repodata/repomd.xml", "BaseOS/Packages/a.rpm", True),
        ("BaseOS/repodata/repomd.xml", "AppStream/Packages/a.rpm", False),
        ("apks/x86_64/APKINDEX.tar.gz", "apks/x86_64/a.apk", True),
        ("usr/freebsd-dist/MANIFEST", "usr/freebsd-dist/base.txz", True),
        ("usr/freebsd-dist/MANIFEST", "usr/freebsd-dist/other.txz", False),
    ],
)
def test_indexes_of_packages_are_warned_of(tmp_path: Path, index: str, changed: str, is_stale: bool) -> None:
    image, source = made_image_of(tmp_path, {index: b"base.txz\t%b\t1\n" % (b"0" * 64), changed: b"old"})
    edits = IsoEdits(replaced={changed.encode(): table(b"new")})
    with source:
        for keep in (False, True):
            renewed = update_checksums(
                image, edits, lambda _: plan_result(image, source, edits), SilentProgress(), keep=keep
            )
            assert [index in warning and changed in warning for warning in renewed.warnings] == [True] * is_stale
        removed = update_checksums(
            image, IsoEdits(removed=(index.partition("/")[0].encode(),)), lambda _: plan_result(image, source, edits),
            SilentProgress(),
        )  # fmt: skip
        assert not removed.warnings


def test_each_file_is_read_once(tmp_path: Path) -> None:
    image, source = image_of(
        tmp_path,
        {"a": b"a", "b": b"a", "MD5SUMS": sums({"a": b"a", "b": b"a"}), "SHA1SUMS": sums({"a": b"a"}, digest="sha1")},
    )

    class Once:
        name = "once"
        reads = 0

        def chunks(self, offset: int, length: int) -> list[bytes]:
            self.reads += 1
            return [b"new"[offset : offset + length]]

    from cosremaster.io.pieces import Range  # noqa: PLC0415

    once = Once()
    new = PieceTable([Range(once, 0, 3)])  # type: ignore[arg-type]
    with source:
        lists, _ = renew(image, FileChanges(replaced={b"a": new, b"b": new}))
    assert once.reads == 1
    assert lists["MD5SUMS"] == sums({"a": b"new", "b": b"new"})


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300), st.lists(st.sampled_from(["vmlinuz", "boot/grub/grub.cfg"]), unique=True))
@example(b"\\" + b"0" * 32 + b"  \\\\/../../..\n", ["vmlinuz"])
def test_any_list_is_survived(tmp_path_factory: pytest.TempPathFactory, data: bytes, paths: list[str]) -> None:
    files = debirf_files()
    image, source = image_of(tmp_path_factory.mktemp("any"), {"md5sum.txt": data + sums(files)})
    with source:
        lists, renewed = renew(image, FileChanges(replaced={path.encode(): table(b"new") for path in paths}))
    expected = data + sums({**files, **dict.fromkeys(paths, b"new")})
    if data[-1:] in (b"", b"\n"):
        assert lists.get("md5sum.txt", data + sums(files)) == expected
    assert len(renewed.changes) == len(lists)


# Lists against the plan of an image


def test_sums_that_cannot_be_rewritten_are_told(tmp_path: Path) -> None:
    image, source = image_of(tmp_path, {"a": b"a", "MD5SUMS": sums({"a": b"a"})})
    edits = IsoEdits(replaced={b"a": table(b"A")})

    def refuse(lists: Mapping[bytes, PieceTable]) -> ImagePlan:
        if lists:
            raise UnsupportedError("cannot be exchanged", image.place.inside(b"MD5SUMS"))
        return plan_result(image, source, edits)

    with source:
        renewed = update_checksums(image, edits, refuse, SilentProgress())
    assert not renewed.lists
    assert len(renewed.warnings) == 1
    assert re.fullmatch(
        r"MD5SUMS: cannot be rewritten \(.*MD5SUMS: cannot be exchanged\), so sums of changed files are stale now",
        renewed.warnings[0],
    )


def test_sums_that_do_not_settle_are_told(tmp_path: Path) -> None:
    """A plan that puts other bytes into a file each time it is made."""
    image, source = image_of(tmp_path, {"a": b"a", "MD5SUMS": sums({"a": b"a"})})
    rounds = 0

    def restless(lists: Mapping[bytes, PieceTable]) -> ImagePlan:
        nonlocal rounds
        rounds += 1
        return plan_result(image, source, IsoEdits(replaced={b"a": table(b"%d" % rounds), **lists}))

    with source:
        renewed = update_checksums(image, IsoEdits(replaced={b"a": table(b"A")}), restless, SilentProgress())
    assert renewed.warnings == (
        "MD5SUMS: cannot be rewritten (their sums do not settle), so sums of changed files are stale now",
    )


# Whole images, judged by coreutils on what xorriso takes out


def extracted(iso: Path, folder: Path) -> Path:
    run(["xorriso", "-osirrox", "on", "-indev", str(iso), "-extract", "/", str(folder)])
    run(["chmod", "-R", "u+rwX", str(folder)])
    return folder


def checked(folder: Path, name: str = "md5sum.txt") -> bytes:
    tool = "sha256sum" if "256" in name else "md5sum"
    return run([tool, "-c", "--strict", Path(name).name], cwd=(folder / name).parent)


def write_sums(tree: Path, tool: str = "md5sum", *, skip: tuple[str, ...] = ()) -> bytes:
    """As Debian and Ubuntu make them: find's names, some left out."""
    paths = sorted(
        f"./{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_file() and not path.is_symlink()
    )
    return run([tool, *(path for path in paths if not any(one in path for one in skip))], cwd=tree)


XORRISO = ("xorriso", "-as", "mkisofs", "-r", "-J", "-V", "SUMS")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tools.require("xorriso", *TOOLS)
    tree = tmp_path / "tree"
    for name, data in {
        "live/initrd": initramfs(), "vmlinuz": b"MZ" + bytes(70_000), "pool/a.deb": b"a" * 3000,
        ".disk/info": b"Debian\n", "pool/more/b.deb": b"b" * 30,
    }.items():  # fmt: skip
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    return tree


def overlay(tmp_path: Path) -> Path:
    (tmp_path / "overlay/root").mkdir(parents=True)
    (tmp_path / "overlay/root/noise").write_bytes(os.urandom(300_000))
    return tmp_path / "overlay"


def test_adding_to_a_layer_keeps_the_lists_true(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "md5sum.txt").write_bytes(write_sums(tree))
    (tree / "SHA256SUMS").write_bytes(write_sums(tree, "sha256sum"))
    (tree / "live/initrd.sha256").write_bytes(run(["sha256sum", "--tag", "initrd"], cwd=tree / "live"))
    before, after = tmp_path / "in.iso", tmp_path / "out.iso"
    run([*XORRISO, "-o", before, tree], env={"SOURCE_DATE_EPOCH": str(EPOCH)})
    assert main([str(before), str(after), "--add", str(overlay(tmp_path))]) == 0
    said = capsys.readouterr()
    assert (
        "sums in SHA256SUMS: 2 rewritten\nsums in live/initrd.sha256: 1 rewritten\nsums in md5sum.txt: 1 rewritten\n"
        in said.out
    )
    assert "stale" not in said.err
    taken = extracted(after, tmp_path / "taken")
    assert b"./live/initrd: OK" in checked(taken)
    assert checked(taken, "SHA256SUMS").count(b"OK") == 6
    assert checked(taken, "live/initrd.sha256") == b"initrd: OK\n"
    for name in ("md5sum.txt", "SHA256SUMS"):
        old, new = (folder.joinpath(name).read_bytes().splitlines() for folder in (tree, taken))
        assert [line.split()[1] for line in old] == [line.split()[1] for line in new]
        assert sum(one != other for one, other in zip(old, new, strict=True)) == (2 if "256" in name else 1)
    assert verify(after, deep=True).ok


def test_keep_sums(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "md5sum.txt").write_bytes(write_sums(tree))
    (tree / "pool/MD5SUMS").write_bytes(run(["md5sum", "a.deb"], cwd=tree / "pool"))
    before, after = tmp_path / "in.iso", tmp_path / "out.iso"
    run([*XORRISO, "-o", before, tree])
    assert main([str(before), str(after), "--add", str(overlay(tmp_path)), "--keep-sums"]) == 0
    said = capsys.readouterr()
    assert "sums in" not in said.out
    assert "md5sum.txt: sums of changed files are stale now" in said.err
    taken = extracted(after, tmp_path / "taken")
    assert (taken / "md5sum.txt").read_bytes() == (tree / "md5sum.txt").read_bytes()
    done = subprocess.run(["md5sum", "-c", "md5sum.txt"], cwd=taken, capture_output=True, check=False)
    assert b"./live/initrd: FAILED" in done.stdout
    assert {one.check for one in verify(after, deep=True).findings if one.is_counted} == {"sums.stale"}


def test_plan_tells_of_lists(tree: Path, tmp_path: Path) -> None:
    (tree / "md5sum.txt").write_bytes(write_sums(tree))
    run([*XORRISO, "-o", tmp_path / "in.iso", tree])
    with OpenedImage(tmp_path / "in.iso") as image:
        plan = image.plan(Request(add=[overlay(tmp_path)]))
        assert plan.sums == (ListChange(path=b"md5sum.txt", rewritten=1),)
        nothing = image.plan(Request(add_iso=[f"{tree}/vmlinuz:/vmlinuz"]))
        assert nothing.identical
        assert nothing.sums == ()


@pytest.fixture
def listed_boot(tmp_path: Path) -> Path:
    """An image like Ubuntu's whose list names all files, also the boot catalog, which tells where the appended
    partition is, and the boot image with what xorriso wrote into it."""
    tools.require(*families.TOOLS, "md5sum")
    image = tmp_path / "in.iso"
    work = tmp_path / "work"
    work.mkdir()
    families._ubuntu(work, image)
    disc = tools.Tree(work / "new")
    tree = extracted(image, disc.root)
    disc.file("live/initrd", initramfs())
    for number in range(400):
        disc.file(f"pool/many/{number}", b"%d" % number)

    def make() -> None:
        families._xorriso(
            image, disc, "-r", "-J", "-joliet-long", "-partition_offset", "16",
            "-append_partition", "2", families._ESP_GUID, work / "efi.img", "-appended_part_as_gpt",
            "-c", "boot.catalog", "-b", "boot/grub/i386-pc/eltorito.img", "-no-emul-boot", "-boot-load-size", "4",
            "-boot-info-table", "--grub2-boot-info", "-eltorito-alt-boot",
            "-e", "--interval:appended_partition_2:all::", "-no-emul-boot",
        )  # fmt: skip

    (tree / "boot.catalog").unlink()
    (tree / "md5sum.txt").write_bytes(write_sums(tree) + b"0" * 32 + b"  ./boot.catalog\n")
    make()
    # The sums of what xorriso has made of the boot image and the catalog; a list of the same length moves nothing.
    made = extracted(image, work / "made")
    (made / "md5sum.txt").unlink()
    (tree / "md5sum.txt").write_bytes(write_sums(made))
    make()
    checked(extracted(image, work / "checked"))
    return image


def test_boot_structures_in_lists_are_summed_as_they_are_written(listed_boot: Path, tmp_path: Path) -> None:
    after, again = tmp_path / "out.iso", tmp_path / "again.iso"
    result = remaster(listed_boot, after, add=[overlay(tmp_path)])
    assert [(one.path, one.rewritten) for one in result.sums] == [(b"md5sum.txt", 2)], "the initrd and the catalog"
    checked(extracted(after, tmp_path / "after"))
    new = (tmp_path / "work/checked/boot/grub/i386-pc/eltorito.img").read_bytes() + bytes(5000)
    (tmp_path / "new.img").write_bytes(new)
    result = remaster(listed_boot, again, add_iso=[f"{tmp_path}/new.img:/boot/grub/i386-pc/eltorito.img"])
    taken = extracted(again, tmp_path / "taken")
    checked(taken)
    assert (taken / "boot/grub/i386-pc/eltorito.img").read_bytes() != new, "the table was written into it"
    assert not result.warnings


def test_a_list_of_another_length_moves_what_it_sums(listed_boot: Path, tmp_path: Path) -> None:
    """Shorter by many blocks, it moves the partition behind it, so that the catalog changes, and its sum."""
    edits = IsoEdits(removed=tuple(b"pool/many/%d" % number for number in range(400)))
    with open_source(listed_boot) as source:
        image = read_image(source)
        rounds = list[tuple[bytes, ...]]()

        def make_plan(lists: Mapping[bytes, PieceTable]) -> ImagePlan:
            rounds.append(tuple(lists))
            return plan_result(image, source, with_checksum_lists(image, edits, lists))

        renewed = update_checksums(image, edits, make_plan, SilentProgress())
        (tmp_path / "out.iso").write_bytes(b"".join(make_plan(renewed.lists).table.chunks()))
    assert renewed.changes == (ListChange(path=b"md5sum.txt", rewritten=1, dropped=400),)
    assert rounds == [(), *[(b"md5sum.txt",)] * 3], "the last is this test's"
    said = checked(extracted(tmp_path / "out.iso", tmp_path / "taken"))
    assert b"./boot.catalog: OK" in said
    assert b"pool/many" not in said


def test_without_rock_ridge_names_are_what_people_see(tree: Path, tmp_path: Path) -> None:
    tools.require("genisoimage", "bsdtar")
    (tree / "pool/A-Long-Name-Indeed.txt").write_bytes(b"long")
    (tree / "md5sum.txt").write_bytes(write_sums(tree))
    before, after = tmp_path / "in.iso", tmp_path / "out.iso"
    run(["genisoimage", "-quiet", "-J", "-o", before, tree])
    (tmp_path / "new").write_bytes(b"something longer")
    with open_source(before) as source:
        (target,) = (file.path.decode() for file in read_image(source).files if file.size == 4)
    result = remaster(before, after, add_iso=[f"{tmp_path}/new:/{target}"])
    assert [one.rewritten for one in result.sums] == [1]
    (tmp_path / "taken").mkdir()
    run(["bsdtar", "-xf", after, "-C", tmp_path / "taken"])  # by Joliet's names
    assert b"./pool/A-Long-Name-Indeed.txt: OK" in checked(tmp_path / "taken")


@pytest.mark.parametrize("name", ["debian", "udf"])
def test_families(name: str, tmp_path: Path) -> None:
    """A list that takes README.txt's place, on images with Joliet, a GPT, a second file system."""
    tools.require(*families.TOOLS, "md5sum")
    before, middle, after = families.build(name), tmp_path / "middle.iso", tmp_path / "out.iso"
    taken = extracted(before, tmp_path / "taken")
    text = write_sums(taken, skip=("isolinux.bin", "boot.cat", "README"))
    with open_source(before) as source:
        image = read_image(source)
        paths = [file.path.decode() for file in image.files]
        assert "README.txt" in paths
        exchanged = {b"README.txt": table(text)}
        (tmp_path / "md5sum.txt").write_bytes(text)
        remaster(before, middle, add_iso=[f"{tmp_path}/md5sum.txt:/README.txt"])
        assert exchanged
    raw = middle.read_bytes()
    # The list by its name in every tree: ISO 9660, Rock Ridge, Joliet, UDF.
    for old, new in ((b"README.TXT", b"MD5SUM.TXT"), (b"README.txt", b"md5sum.txt")):
        raw = raw.replace(old, new)
        for code in ("utf-16-be", "utf-16-le"):
            raw = raw.replace(old.decode().encode(code), new.decode().encode(code))
    middle.write_bytes(raw)
    (tmp_path / "payload").write_bytes(os.urandom(200_000))
    result = remaster(middle, after, add_iso=[f"{tmp_path}/payload:/{families.PAYLOAD}"])
    assert [one.rewritten for one in result.sums] == [1]
    assert checked(extracted(after, tmp_path / "after")).count(b": OK") == len(text.splitlines())
    assert not [
        one
        for one in verify(after, against=middle, changed=[families.PAYLOAD.encode(), b"md5sum.txt"], deep=True).findings
        if one.is_counted and one.check.startswith("sums")
    ]


def test_recipe_keeps_sums(tmp_path: Path) -> None:
    from cosremaster.recipe.read import read_recipe  # noqa: PLC0415

    write_small(tmp_path)
    (tmp_path / "recipe.toml").write_text('input = "in.iso"\nkeep_sums = true\n')
    assert read_recipe(tmp_path / "recipe.toml").request.keep_sums


def test_verify_knows_all_kinds_of_lists(tmp_path: Path) -> None:
    files = {"a": b"a", "b": b"b"}
    image = write_small(
        tmp_path,
        extra={
            **files,
            "MD5SUMS": sums(files, "MD5 ({name}) = {sum}\n"),
            "pool/SHA512SUMS": sums(files, "{sum} */{name}\r\n", "sha512"),
            "a.sha1": sums({"a": b"not a"}, digest="sha1"),
            "sha224sum.txt": sums({"a": b"a", "lost": b"", "sha224sum.txt": b""}, digest="sha224"),
        },
    )  # fmt: skip
    found = [
        (one.level.value, one.check, one.place.parts[-1])
        for one in verify(image, deep=True).findings
        if one.check.startswith("sums")
    ]
    assert found == [
        ("holds", "sums.stale", "MD5SUMS"),
        ("fails", "sums.stale", "a.sha1"),
        ("holds", "sums.stale", "pool/SHA512SUMS"),
        ("fails", "sums.missing", "sha224sum.txt"),
        ("note", "sums.itself", "sha224sum.txt"),
    ]


def test_names_through_symlinks_are_noted(tree: Path, tmp_path: Path) -> None:
    (tree / "stable").symlink_to("pool")
    (tree / "link").symlink_to("vmlinuz")
    (tree / "md5sum.txt").write_bytes(run(["md5sum", "./stable/a.deb", "./link", "./vmlinuz"], cwd=tree))
    image = tmp_path / "in.iso"
    run([*XORRISO, "-o", image, tree])
    found = [(one.level.value, one.check) for one in verify(image, deep=True).findings if one.check.startswith("sums")]
    assert found == [("note", "sums.link"), ("note", "sums.link"), ("holds", "sums.stale")]
