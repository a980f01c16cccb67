"""mtree files: what they say of a directory, in the forms that real programs write."""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosremaster.errors import CosremasterError, OverlayError, Place, UsageError
from cosremaster.overlay.mtree import Spec, parse_mtree
from cosremaster.overlay.request import AddPath, OwnershipRule
from cosremaster.tree.nodes import Node, NodeKind
from tests.fixtures.tools import require, run
from tests.support.additions import context, read_addition
from tests.support.layers import with_layer_of
from tests.support.small import write_small

PLACE = Place(("site.mtree",))


def parsed(text: str) -> dict[bytes, Spec]:
    return {spec.path: spec for spec in parse_mtree(text.encode(), PLACE)}


RELATIVE = r"""
#mtree v2.0
# a comment
/set type=file uid=0 gid=0 mode=0644 nlink=1
.               type=dir mode=0755
    motd        size=6 \
                time=1700000000.500000000
    .ssh        type=dir mode=0700
        keys    mode=0600 uid=1000
    ..
    /unset uid
    caf\351\040x
..
"""


def test_relative_names_lie_in_the_directory_that_is_open() -> None:
    found = parsed(RELATIVE)
    assert list(found) == [b"", b"motd", b".ssh", b".ssh/keys", b"caf\xe9 x"]
    keys, motd = found[b".ssh/keys"], found[b"motd"]
    assert keys.mode is not None and keys.mode.apply(0, directory=False) == 0o600
    assert (keys.kind, keys.uid, keys.gid) == (NodeKind.FILE, 1000, 0)
    assert (motd.size, motd.mtime, motd.line) == (6, 1700000000, 6)
    assert found[b"caf\xe9 x"].uid is None and found[b"caf\xe9 x"].gid == 0


FULL = r"""#mtree
./dev type=dir mode=755 uid=0 gid=0
./dev/console type=char device=native,5,1 mode=600 uname=root gname=tty gid=5
./dev/sda type=block device=8,0
./dev/old type=char device=0x103
./dev/log type=link link=/run/\163ystemd/log
x/y type=fifo optional
./dev/socket type=socket
a type=dir
"""


def test_full_names_lie_in_the_root_wherever_one_is() -> None:
    found = parsed(FULL)
    assert found[b"dev/console"].device == (5, 1) and found[b"dev/sda"].device == (8, 0)
    assert found[b"dev/old"].device == (1, 3)
    assert (found[b"dev/console"].uid, found[b"dev/console"].gid) == (0, 5)
    assert found[b"dev/log"].target == b"/run/systemd/log"
    assert found[b"x/y"].optional and not found[b"dev"].optional
    assert b"a" in found


def test_editors_of_windows_write_mtree_files() -> None:
    for text in ("\ufeff" + FULL.replace("\n", "\r\n"), "\ufeff" + FULL.lstrip()):
        found, plain = parsed(text), parsed(FULL)
        assert found.keys() == plain.keys() and found[b"dev/console"].device == plain[b"dev/console"].device
    assert parsed("\ufeff#mtree\r\n./a uid=7\r\n")[b"a"].uid == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x type=door", r"^site\.mtree: line 1: no type is called door$"),
        ("\n\nx mode=9", r"^site\.mtree: line 3: mode '9': "),
        ("x uid=root", r"line 1: uid=root is no number$"),
        ("x uid=4294967296", r"line 1: uid=4294967296 is too large$"),
        ("x uname=joe", r"line 1: uname=joe: the image's numbers are not known; say uid=$"),
        ("x device=native,1,2,3 type=char", r"line 1: device=native,1,2,3: two numbers"),
        ("x device=a,b type=char", r"line 1: device=a,b: two numbers"),
        ("./../x type=dir", r"line 1: \./\.\./x is a name with \.\."),
        (r"x\000y type=dir", r"is a name with \.\. or a zero byte$"),
        (r"x\q type=dir", r"line 1: \\q in x\\q is no escape"),
        ("/etc/x type=dir", r"line 1: /etc/x is neither /set nor /unset"),
    ],
)
def test_lines_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(OverlayError, match=message):
        parsed(text)


WORDS = (
    *(b"/set", b"/unset", b"x", b"..", b".", b"./a/b", b"type=dir", b"type=link", b"link=\\", b"mode=u+x", b"uid="),
    *(
        b"\\",
        b"\n",
        b" ",
        b"#",
        b"time=-1.5",
        b"device=1,,2",
        b"device=,",
        b"size=x",
        b"all",
        b"\\777",
        b"\\M-",
        b"\\^x",
    ),
    *(b"\xff", b"=", b"optional", b"nochange"),
)


@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_any_text_is_read_or_refused(words: list[bytes]) -> None:
    try:
        for spec in parse_mtree(b" ".join(words), PLACE):
            assert b".." not in spec.path.split(b"/") and not spec.path.startswith(b"/")
    except CosremasterError as error:
        assert str(error).startswith("site.mtree: line ")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    (site / "etc").mkdir(parents=True)
    (site / "etc/shadow").write_text("root:*:\n")
    (site / "etc/link").symlink_to("shadow")
    (site / "bin").mkdir()
    (site / "bin/su").write_text("#!\n")
    for path in (site / "bin/su", site / "etc/shadow"):
        path.chmod(0o755)
        os.utime(path, (50, 50))
    return site


def nodes(site: Path, text: str, **fields: object) -> dict[bytes, Node]:
    path = site / "site.mtree"
    path.write_text(text)
    add = AddPath(site, mtree=path, **fields)  # type: ignore[arg-type]
    return {node.path: node for node in read_addition(add, context(100))[0].nodes}


def test_it_gives_owners_modes_times_and_nodes(site: Path) -> None:
    found = nodes(
        site,
        """
        ./etc/shadow uid=0 gid=42 mode=0640 time=70
        ./bin/su mode=4755 time=9999
        ./dev/console type=char device=native,5,1 mode=0600 gid=5
        ./run/lock type=dir mode=1777
        ./run/queue type=fifo
        ./etc/alias type=link link=../x uid=3
        ./none type=file optional
        ./etc/link type=link link=shadow mode=0755
        """,
    )
    facts = {path: (node.kind, node.mode, node.uid, node.gid) for path, node in found.items()}
    assert facts == {
        b"bin": (NodeKind.DIRECTORY, 0o755, 0, 0),
        b"bin/su": (NodeKind.FILE, 0o4755, 0, 0),
        b"dev/console": (NodeKind.CHAR, 0o600, 0, 5),
        b"etc": (NodeKind.DIRECTORY, 0o755, 0, 0),
        b"etc/alias": (NodeKind.SYMLINK, 0o777, 3, 0),
        b"etc/link": (NodeKind.SYMLINK, 0o777, 0, 0),
        b"etc/shadow": (NodeKind.FILE, 0o640, 0, 42),
        b"run/lock": (NodeKind.DIRECTORY, 0o1777, 0, 0),
        b"run/queue": (NodeKind.FIFO, 0o600, 0, 0),
    }
    assert (found[b"etc/shadow"].mtime, found[b"bin/su"].mtime) == (70, 100)
    assert found[b"run/queue"].mtime == 100, "as what comes from no file"
    assert found[b"dev/console"].rdev == (5, 1) and found[b"etc/alias"].target == b"../x"


def test_it_may_name_whiteouts(site: Path) -> None:
    (site / "etc/.wh.hostname").write_text("")
    (site / "all.mtree").write_text("./etc/.wh.hostname type=file size=0\n")
    read, _ = read_addition(AddPath(site, mtree=site / "all.mtree"), context())
    assert read.hidden_paths == (b"etc/hostname",) and all(b".wh." not in node.path for node in read.nodes)


def test_it_is_stronger_than_the_owner_and_weaker_than_rules(site: Path) -> None:
    text = "./etc/shadow uid=1 gid=2\n./bin/su mode=0700\n"
    rules = (OwnershipRule("/opt/bin/*", mode=0o711), OwnershipRule("/opt/etc/none", mode=0))
    found = nodes(site, text, owner="7:8", mode=0o600, dest="/opt", rules=rules)
    assert (found[b"etc/shadow"].uid, found[b"etc/shadow"].mode) == (1, 0o600)
    assert (found[b"bin/su"].uid, found[b"bin/su"].mode) == (7, 0o711)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./etc/none type=file", r"site\.mtree: line 1: etc/none is not in the directory$"),
        ("./etc/none mode=0644", r"line 1: etc/none is not in the directory$"),
        ("./etc/shadow type=dir", r"line 1: etc/shadow is a directory here, but a file in the directory$"),
        ("./etc/shadow size=9,", r"size=9, is no number"),
        ("./etc/shadow size=9", r"etc/shadow has 8 bytes in the directory, not 9$"),
        ("./etc/link type=link link=x", r"etc/link leads to another target in the directory: shadow$"),
        ("./etc/l type=link", r"etc/l is a symlink without link=$"),
        ("./dev/x type=block", r"dev/x is a device without device=$"),
        ("./talk type=socket", r"talk cannot be added: it is a socket$"),
    ],
)
def test_what_it_says_must_be_true(site: Path, text: str, message: str) -> None:
    with pytest.raises(OverlayError, match=message):
        nodes(site, text)


def test_it_tells_of_a_directory(site: Path, tmp_path: Path) -> None:
    (tmp_path / "x.mtree").write_text("")
    with pytest.raises(UsageError, match=r"an mtree file tells of a directory, and .*shadow is none$"):
        read_addition(AddPath(site / "etc/shadow", "/etc/", mtree=tmp_path / "x.mtree"), context())
    with pytest.raises(OverlayError, match=r"none\.mtree: cannot be read: No such file"):
        read_addition(AddPath(site, mtree=tmp_path / "none.mtree"), context())


@pytest.mark.parametrize("packer", ["bsdtar", "mtree"])
def test_what_real_programs_write(tmp_path: Path, packer: str) -> None:
    """An ordinary user's copy of a tree and the mtree file of the tree make the tree."""
    require("bsdtar", "fakeroot", "bash", "mtree")
    top = tmp_path / "tree"
    (top / "etc").mkdir(parents=True)
    name = os.fsencode(top) + b"/etc/caf\xe9 # *"
    Path(os.fsdecode(name)).write_text("x")
    (top / "etc/link").symlink_to("a b")
    how = "bsdtar --format=mtree -cf ../tree.mtree ." if packer == "bsdtar" else "mtree -c -p . > ../tree.mtree"
    script = f"mknod -m 600 etc/null c 1 3; chown 3:4 etc; chown 5:6 etc/caf*; chmod 4711 etc/caf*; {how}"
    run(["fakeroot", "bash", "-euc", script], cwd=top)
    (top / "etc/null").unlink()
    if packer == "mtree":  # it knows no device numbers
        text = (tmp_path / "tree.mtree").read_text().replace("type=char", "type=char device=1,3")
        (tmp_path / "tree.mtree").write_text(text)
    found = {
        node.path: (node.kind, node.mode, node.uid, node.gid, node.rdev, node.target)
        for node in read_addition(AddPath(top, mtree=tmp_path / "tree.mtree"), context())[0].nodes
    }
    assert found == {
        b"etc": (NodeKind.DIRECTORY, 0o755, 3, 4, (0, 0), b""),
        b"etc/caf\xe9 # *": (NodeKind.FILE, 0o4711, 5, 6, (0, 0), b""),
        b"etc/link": (NodeKind.SYMLINK, 0o777, 0, 0, (0, 0), b"a b"),
        b"etc/null": (NodeKind.CHAR, 0o600, 0, 0, (1, 3), b""),
    }


def test_it_is_for_the_one_directory_of_the_command(site: Path, tmp_path: Path) -> None:
    source = write_small(tmp_path)
    (tmp_path / "site.mtree").write_text("./etc/shadow gid=42 mode=0640\n./dev/tape type=char device=9,0\n")

    def add(*adds: str) -> None:
        words = [word for one in adds for word in ("--add", one)]
        images = [os.fspath(source), os.fspath(tmp_path / "out.iso")]
        run([sys.executable, "-m", "cosremaster", *images, "--mtree", tmp_path / "site.mtree", *words])

    add(str(site), f"{site}/etc/shadow:/root/")
    found = with_layer_of(tmp_path / "out.iso")
    assert (found[b"etc/shadow"].gid, found[b"etc/shadow"].mode, found[b"root/shadow"].gid) == (42, 0o640, 0)
    assert found[b"dev/tape"].rdev == (9, 0)
    for adds in ((f"{site}/etc/shadow:/root/",), (str(site), str(site))):
        with pytest.raises(AssertionError, match=r"there must be one directory with --add that it tells of"):
            add(*adds)
