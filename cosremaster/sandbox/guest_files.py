"""The initramfs of our own virtual machine: this machine's Python with the few modules that the guest runs.

No tool of the image is relied on, and none is shipped: the interpreter that runs this program is there in any case. A
fresh interpreter loads the guest's module and says which files that took; they stand at the same paths in the guest.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable

from cosremaster.errors import SandboxError
from cosremaster.records.tuples import NamedTuple

INTERPRETER = b"python"
"""The symlink, in the guest's root, to the interpreter."""

PROGRAM = b"guest.py"
"""What the interpreter runs as process 1."""

MODULES = b"modules"
"""The directory of the kernel modules, whose names begin with their places in the order of loading."""

_LIST_FILES = """
import ctypes, importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2])
names = []
class Info(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]  # the beginning of dl_iterate_phdr(3)'s
def note(info, size, data):
    names.append(Info.from_address(info).name.decode("utf-8", "surrogateescape"))
    return 0
callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
ctypes.CDLL(None).dl_iterate_phdr(callback(note), None)
for module in list(sys.modules.values()):
    names += [getattr(module, name, None) for name in ("__file__", "__cached__")]
print(json.dumps([name for name in names if name and name.startswith("/")]))
"""


class GuestFile(NamedTuple):
    """A file of the initramfs; ``mode``: with the file type; ``data``: the text of a symlink, too."""

    path: bytes
    mode: int
    data: bytes = b""
    mtime: int = 0
    rdev: tuple[int, int] = (0, 0)


def list_python_files(module: str) -> list[GuestFile]:
    """Return the files that this machine's Python needs to run ``module``.

    :raises SandboxError: they cannot be listed.
    """
    interpreter = os.path.realpath(sys.executable)
    command = [interpreter, "-I", "-S", "-c", _LIST_FILES, json.dumps(_import_path()), module]
    try:
        listing = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL, env={}).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SandboxError("this machine's Python cannot be put into a virtual machine (--run-in vm)") from error
    paths = [interpreter, *json.loads(listing), *(path for path in _import_path() if os.path.isfile(path))]
    files: dict[bytes, GuestFile] = {}
    for path in paths:
        _add_path(os.fsencode(path), files)
    files[INTERPRETER] = GuestFile(INTERPRETER, stat.S_IFLNK | 0o777, os.fsencode(interpreter))
    return list(files.values())


def _import_path() -> list[str]:
    """Return the absolute paths of ``sys.path``, with that of this very package in front."""
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [own, *(os.path.abspath(path) for path in sys.path if path and os.path.exists(path))]


def program_text(module: str) -> bytes:
    """Return the program that runs ``run_guest`` of ``module``."""
    lines = ("import sys", f"sys.path[:] = {_import_path()!r}", f"from {module} import run_guest", "run_guest()", "")
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _add_path(path: bytes, files: dict[bytes, GuestFile]) -> None:
    """Add the file at ``path``, the directories it lies in, and every symlink on the way (path_resolution(7))."""
    current, waiting = b"", path.split(b"/")[::-1]
    for _ in range(4096):
        if not waiting:
            return
        part = waiting.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            current = current.rpartition(b"/")[0]
            continue
        name = current + b"/" + part
        try:
            status = os.lstat(name)
            added = _read_file(name, status)
        except OSError:  # __cached__ names files that may not be there
            return
        files[name[1:]] = added
        if stat.S_ISLNK(status.st_mode):
            waiting += added.data.split(b"/")[::-1]
            current = b"" if added.data.startswith(b"/") else current
        else:
            current = name


def _read_file(path: bytes, status: os.stat_result) -> GuestFile:
    """Return the file at ``path`` of this machine, readable and executable for the guest."""
    if stat.S_ISLNK(status.st_mode):
        return GuestFile(path[1:], stat.S_IFLNK | 0o777, os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        return GuestFile(path[1:], stat.S_IFDIR | 0o755)
    with open(path, "rb") as file:
        data = file.read()
    return GuestFile(path[1:], stat.S_IFREG | 0o755, data, int(status.st_mtime))  # bytecode names the time of its text


class InitramfsArchive:
    """A newc archive that is written to a descriptor (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        """Begin without files; ``write`` is called with what is to be written next."""
        self._write, self._count = write, 0
        self.size = 0

    def add(self, file: GuestFile) -> None:
        """Add ``file``."""
        self._count += 1
        links = 2 if stat.S_ISDIR(file.mode) else 1
        fields = (self._count, file.mode, 0, 0, links, file.mtime & 0xFFFFFFFF, len(file.data), 0, 0, *file.rdev)
        head = b"070701" + b"".join(b"%08X" % value for value in (*fields, len(file.path) + 1, 0)) + file.path + b"\0"
        for data in (head + bytes(-len(head) % 4), file.data, bytes(-len(file.data) % 4)):
            self._write(data)
            self.size += len(data)

    def finish(self) -> None:
        """Add the end of the archive."""
        self.add(GuestFile(b"TRAILER!!!", 0))
