"""Notifications of a seccomp filter: received and answered, and the memory of the processes that they are about.

seccomp_unotify(2), linux/seccomp.h, process_vm_readv(2). What is read from a process may change at once, and so may the
file that a path names. That is no danger here: nothing is allowed by it. The supervisor has no rights that the script
lacks, and of a call that goes on, the kernel checks everything itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from cosremaster.records.tuples import NamedTuple
from cosremaster.sandbox.calls import find_architectures

RECEIVE = 0xC0502100
SEND = 0xC0182101
IS_VALID = 0x40082102
ADD_DESCRIPTOR = 0x40182103
SET_FLAGS = 0x40082104

_NOTIFICATION = struct.Struct("<QIIiIQ6Q")
_RESPONSE = struct.Struct("<QqiI")
_DESCRIPTOR = struct.Struct("<QIIII")
_CONTINUE = 1
_ADD_AND_SEND = 2
_WAKE_ON_THIS_PROCESSOR = 1

MAX_PATH = 4096
"""PATH_MAX of linux/limits.h, the zero at the end included"""


class Notification(NamedTuple):
    """A system call that waits.

    :ivar cookie: names it in answers.
    :ivar pid: the thread, as the supervisor's PID namespace has it; 0 for none in there.
    :ivar architecture: the AUDIT_ARCH number.
    """

    cookie: int
    pid: int
    architecture: int
    number: int
    arguments: tuple[int, ...]


class NotificationListener:
    """The descriptor where notifications come and answers go."""

    def __init__(self, descriptor: int) -> None:
        """Take ``descriptor``, and let the kernel wake the waiting process on the processor that answers, if it can."""
        self.descriptor = descriptor
        try:  # Linux 6.6
            fcntl.ioctl(descriptor, SET_FLAGS, _WAKE_ON_THIS_PROCESSOR)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTTY):
                raise

    def receive(self) -> Notification | None:
        """Return the next notification; None if its process is gone by now."""
        data = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self.descriptor, RECEIVE, data)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        fields = _NOTIFICATION.unpack(data)
        return Notification(fields[0], fields[1], fields[4], fields[3], fields[6:])

    def is_valid(self, cookie: int) -> bool:
        """Tell whether the call still waits, so that its process ID has not gone to another process."""
        try:
            fcntl.ioctl(self.descriptor, IS_VALID, struct.pack("<Q", cookie))
        except OSError:
            return False
        return True

    def let_continue(self, cookie: int) -> None:
        """Let the kernel do the call as if there were no filter."""
        self._send(_RESPONSE.pack(cookie, 0, 0, _CONTINUE))

    def answer(self, cookie: int, value: int) -> bool:
        """Let the call return ``value``, or fail with error ``-value``; return whether somebody got the answer."""
        return self._send(_RESPONSE.pack(cookie, max(value, 0), min(value, 0), 0))

    def answer_descriptor(self, cookie: int, descriptor: int, close_on_exec: bool) -> None:
        """Put a copy of ``descriptor`` into the process and let the call return its number.

        :raises OSError: the process cannot take it, or the kernel is older than Linux 5.14.
        """
        flags = os.O_CLOEXEC if close_on_exec else 0
        fcntl.ioctl(self.descriptor, ADD_DESCRIPTOR, _DESCRIPTOR.pack(cookie, _ADD_AND_SEND, descriptor, 0, flags))

    def _send(self, response: bytes) -> bool:
        """Send ``response``; return whether the call still waited."""
        try:
            fcntl.ioctl(self.descriptor, SEND, response)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """Let this thread run in short turns for a while, if the kernel can (Linux 6.12).

    On a busy machine it then runs soon after it was woken (sched_setattr(2), Documentation/scheduler/sched-eevdf.rst).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    number = find_architectures()[0].number_of("sched_setattr")
    nice = os.getpriority(os.PRIO_PROCESS, 0)

    def set_turn(nanoseconds: int) -> None:
        """Set the length of a turn; 0 is the kernel's own."""
        # struct sched_attr of linux/sched/types.h: size, SCHED_OTHER, flags, nice, priority, runtime, deadline, period
        attributes = struct.pack("<IIQiIQQQ", 48, 0, 0, nice, 0, nanoseconds, 0, 0)
        libc.syscall(ctypes.c_long(number), 0, attributes, 0)

    set_turn(100_000)
    try:
        yield
    finally:
        set_turn(0)


class _Span(ctypes.Structure):
    """``struct iovec``: an address and a length."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class ProcessMemory:
    """Reads and writes the memory of processes, within the rights that both the process and its pages give."""

    def __init__(self) -> None:
        """Make the buffer through which all bytes go."""
        libc = ctypes.PyDLL(None)  # which neither gives up the interpreter's lock nor keeps errno: this is called often
        self._read = libc.process_vm_readv
        self._write = libc.process_vm_writev
        for function in (self._read, self._write):
            function.restype = ctypes.c_ssize_t
            function.argtypes = (ctypes.c_long, *(ctypes.c_void_p, ctypes.c_ulong) * 2, ctypes.c_ulong)
        self._buffer = bytearray(1 << 16)
        self._address = ctypes.addressof((ctypes.c_char * len(self._buffer)).from_buffer(self._buffer))
        self._ours = _Span(self._address, 0)
        self._theirs = _Span(0, 0)
        self._spans = (ctypes.addressof(self._ours), 1, ctypes.addressof(self._theirs), 1, 0)
        self._page = os.sysconf("SC_PAGE_SIZE")

    def _transfer(self, pid: int, address: int, length: int, is_write: bool) -> None:
        """Copy ``length`` bytes between the buffer and ``address`` of process ``pid``.

        :raises OSError: the process is gone, or has no such memory.
        """
        self._ours.length = self._theirs.length = length
        self._theirs.base = address
        if (self._write if is_write else self._read)(pid, *self._spans) != length:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))

    def read(self, pid: int, address: int, length: int) -> bytes:
        """Return ``length`` bytes, which are at most 65,536, at ``address`` of process ``pid``."""
        self._transfer(pid, address, length, False)
        return bytes(self._buffer[:length])

    def read_path(self, pid: int, address: int) -> bytes:
        """Return the string at ``address`` of process ``pid``.

        :raises OSError: it is longer than a path may be (ENAMETOOLONG), or not to be read.
        """
        text = b""
        while len(text) < MAX_PATH:
            length = min(self._page - address % self._page, MAX_PATH)  # what is behind the page may not be memory
            self._transfer(pid, address, length, False)
            end = self._buffer.find(0, 0, length)
            if end >= 0:
                return text + self._buffer[:end]
            text += self._buffer[:length]
            address += length
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    def write(self, pid: int, address: int, data: bytes) -> None:
        """Put ``data``, at most 65,536 bytes, to ``address`` of process ``pid``."""
        self._buffer[: len(data)] = data
        self._transfer(pid, address, len(data), True)
