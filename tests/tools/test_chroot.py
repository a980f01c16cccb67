"""Symlinks are followed as in a chroot: the kernel itself is asked where a path leads inside a folder."""

import ctypes
import errno
import os
import platform
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from cosremaster.errors import OverlayError
from cosremaster.tree.nodes import Action, Node, NodeKind
from tests.fixtures import tools
from tests.support.overlays import directory, file, folder_of, merged, reasons, symlink

OPENAT2 = 437
RESOLVE_IN_ROOT = 0x10


class _How(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def leads_to(top: bytes, path: bytes) -> bytes | int:
    """The directory that ``path`` leads to when ``top`` is the root, by openat2(2); an error number if to none."""
    library = ctypes.CDLL(None, use_errno=True)
    how = _How(os.O_PATH | os.O_DIRECTORY, 0, RESOLVE_IN_ROOT)
    root = os.open(top, os.O_PATH | os.O_DIRECTORY)
    try:
        fd = library.syscall(OPENAT2, root, path, ctypes.byref(how), ctypes.sizeof(how))
        if fd < 0:
            return ctypes.get_errno()
        found = os.readlink(b"/proc/self/fd/%d" % fd)
        os.close(fd)
    finally:
        os.close(root)
    return os.path.relpath(found, os.path.realpath(top)).removeprefix(b".")


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    """openat2 came with Linux 5.6."""
    with TemporaryDirectory() as folder:
        if platform.system() != "Linux" or leads_to(os.fsencode(folder), b".") == errno.ENOSYS:
            tools.leave_out("the kernel does not know openat2 (Linux 5.6)")


NAMES = (b"a", b"b", b"c")
PATHS = (*NAMES, *(one + b"/" + two for one in NAMES for two in NAMES), b"a/b/c", b"b/c/a")
TARGETS = st.lists(st.sampled_from([*NAMES, b"..", b".", b""]), min_size=1, max_size=4).map(b"/".join).filter(bool)
THINGS = st.dictionaries(
    st.sampled_from(PATHS), st.one_of(st.just(b"d"), st.just(b"f"), TARGETS.map(lambda to: b"l" + to))
)
CHAIN = {b"l%02d" % n: b"ll%02d" % (n + 1) for n in range(45)} | {b"l45": b"d"}


def _leads_to_when_made(top: bytes, path: bytes) -> bytes | int:
    """What the kernel says of ``path`` once its missing parts are directories."""
    parts = path.split(b"/")
    for count in range(1, len(parts) + 1):
        if leads_to(top, b"/".join(parts[:count])) == errno.ENOENT:
            parent = leads_to(top, b"/".join(parts[: count - 1]) or b".")  # which ".." never leads out of ``top``
            assert isinstance(parent, bytes)
            os.mkdir(b"/".join((top, parent, parts[count - 1])))
    return leads_to(top, path)


@settings(max_examples=400, deadline=None)
@given(things=THINGS, path=st.lists(st.sampled_from([*NAMES, b".."]), min_size=1, max_size=5).map(b"/".join))
@example(things=CHAIN, path=b"l06")
@example(things=CHAIN, path=b"l05")
@example(things={b"c": b"lc"}, path=b"../a/../c")
@example(things={b"a": b"la"}, path=b"b/../a")
def test_a_path_leads_where_the_kernel_says(things: dict[bytes, bytes], path: bytes) -> None:
    nodes: dict[bytes, Node] = {}
    with TemporaryDirectory() as temporary:
        top = os.fsencode(temporary)
        for name, what in sorted(things.items()):
            above = name.rpartition(b"/")[0]
            if above and (above not in nodes or nodes[above].kind is not NodeKind.DIRECTORY):
                continue
            full = top + b"/" + name
            if what == b"d":
                nodes[name] = directory(name)
                os.mkdir(full)
            elif what == b"f":
                nodes[name] = file(name)
                Path(os.fsdecode(full)).touch()
            else:
                nodes[name] = symlink(name, what[1:])
                os.symlink(what[1:], full)
        want = leads_to(top, path)
        new = folder_of(file(path + b"/new"))
        if isinstance(want, bytes):
            event("leads somewhere")
            assert reasons(merged(new, image=nodes.values())) == {
                want + b"/new" if want else b"new": Action.ADDED.value
            }
        elif want == errno.ENOENT:
            event("leads to nothing")
            try:
                assert Action.PARENT.value in reasons(merged(new, image=nodes.values())).values()
            except OverlayError as error:
                if "symlinks lead in a loop" in str(error):  # behind a part that is missing, and would be made
                    assert _leads_to_when_made(top, path) == errno.ELOOP
                else:
                    assert "is not there" in str(error) or "no directory" in str(error)
        else:
            event(errno.errorcode[want])
            assert want in (errno.ELOOP, errno.ENOTDIR)
            with pytest.raises(
                OverlayError, match="symlinks lead in a loop" if want == errno.ELOOP else "no directory"
            ):
                merged(new, image=nodes.values())
