"""Boot an image in an emulated PC, without hardware help, and return its serial output."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

_OVMF = Path("/usr/share/OVMF")
TOOLS: Sequence[str] = ("qemu-system-x86_64", f"{_OVMF}/OVMF_CODE_4M.fd", f"{_OVMF}/OVMF_VARS_4M.fd")
SECURE_TOOLS: Sequence[str] = ("qemu-system-x86_64", f"{_OVMF}/OVMF_CODE_4M.secboot.fd", f"{_OVMF}/OVMF_VARS_4M.ms.fd")
NETBOOT_TOOLS: Sequence[str] = ("qemu-system-x86_64", "/usr/lib/ipxe/qemu/pxe-virtio.rom")

PROCESSOR: Sequence[str] = ("-accel", "tcg", "-cpu", "max,erms=off,fsrm=off")
"""All that can be emulated, but not the fast strings: a kernel that sees them copies byte by byte, which an emulated
processor does at a third of the speed."""

END = "COSREMASTER-END-OF-REPORT"
FINISH = f"echo {END}; sleep 60; poweroff -f"
"""The last commands of every system that the tests boot. A machine that powers off at once may lose its last lines on
their way through the journal or the serial port, so it says ``END``, waits, and is stopped by who hears that."""

# Once one of these shows, nothing more will come: why wait for the timeout.
_DEAD_ENDS = ("No bootable device", "grub rescue>", "grub> ", "UEFI Interactive Shell", "Kernel panic")


def boot(
    image: Path,
    *,
    firmware: Literal["bios", "uefi", "secure"],
    medium: Literal["disc", "disk", "scsi-disc"],
    memory_mb: int = 1024,
    timeout: float = 180,
    until: str = END,
    virtio: bool = False,
    processors: int = 1,
) -> str:
    """Boot an image, wait until the machine has said `until`, stop it, and return its serial output.

    The image is the machine's only medium: an optical disc (`disc`; `scsi-disc` behind a controller that Debian's
    cloud kernel has a driver for), or a disk such as a USB stick (`disk`), in which case the firmware sees sectors of
    512 bytes and no El Torito. It is not written to. Line ends are plain newlines; bytes that are not UTF-8 stand as
    surrogate escapes. `secure`: UEFI with Secure Boot and Microsoft's keys. `virtio`: the booted system can read the
    image as a virtio disk too, by a kernel that has no driver for the medium.

    :raises AssertionError: the machine ended, got stuck or ran for too long without saying `until`; its last lines
        are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="cosremaster-qemu-") as scratch:
        options = [*("-net", "none"), *_firmware(firmware, Path(scratch)), *_drive(image, medium, Path(scratch))]
        if virtio:
            again = f"if=none,id=again,format=raw,readonly=on,file={str(image).replace(',', ',,')}"
            options += ["-drive", again, "-device", "virtio-blk-pci,drive=again"]
        name = f"{image.name} ({firmware}, {medium})"
        options += ["-smp", str(processors)]
        return _run_machine(options, Path(scratch), name, memory_mb=memory_mb, timeout=timeout, until=until)


def netboot(
    folder: Path, script: str, *, memory_mb: int = 1024, timeout: float = 300, reaches_host: bool = False
) -> str:
    """Boot a machine without any medium: the iPXE in QEMU's network card fetches ``script`` from ``folder`` over TFTP.

    Returns the serial output and raises as :func:`boot`. There is no outside network; ``reaches_host``: but this
    machine's loopback, at 10.0.2.2.
    """
    restrict = "off" if reaches_host else "on"
    options = [
        *("-netdev", f"user,id=net,restrict={restrict},tftp={str(folder).replace(',', ',,')},bootfile={script}"),
        *("-device", "virtio-net-pci,netdev=net,bootindex=0"),
    ]
    with tempfile.TemporaryDirectory(prefix="cosremaster-qemu-") as scratch:
        return _run_machine(options, Path(scratch), script, memory_mb=memory_mb, timeout=timeout, until=END)


def boot_kernel(
    kernel: Path,
    initramfs: Path,
    arguments: str,
    *options: str,
    memory_mb: int = 512,
    timeout: float = 300,
    until: str = END,
) -> str:
    """Boot ``kernel`` with ``initramfs`` and kernel ``arguments``, with no firmware's or loader's help.

    ``options`` are further ones of QEMU. Returns the serial output and raises as :func:`boot`.
    """
    direct = ("-net", "none", "-kernel", str(kernel), "-initrd", str(initramfs), "-append", arguments, *options)
    with tempfile.TemporaryDirectory(prefix="cosremaster-qemu-") as scratch:
        return _run_machine(direct, Path(scratch), initramfs.name, memory_mb=memory_mb, timeout=timeout, until=until)


def _run_machine(
    options: Sequence[str], scratch: Path, name: str, *, memory_mb: int, timeout: float, until: str
) -> str:
    """Start the machine that ``options`` describe and return its serial output up to ``until``."""
    log = scratch / "serial.log"
    log.touch()
    errors_log = scratch / "errors.log"
    argv = [
        *("qemu-system-x86_64", *PROCESSOR, "-machine", "q35", "-m", str(memory_mb)),
        *("-nodefaults", "-nographic", "-no-reboot", "-serial", f"file:{log}", *options),
    ]
    with _process(argv, errors_log) as machine:
        _wait(machine, log, timeout, until)
        output = _read(log)
        if until not in output:
            errors = errors_log.read_bytes().decode(errors="replace")
            tail = "\n".join(output.splitlines()[-60:])
            state = "did not" if machine.returncode is None else f"ended with status {machine.returncode} and did not"
            raise AssertionError(f"{name} {state} say {until!r}: {errors}\n{tail}")
        return output


def _firmware(firmware: str, scratch: Path) -> list[str]:
    """The options for the firmware. QEMU's own is a BIOS; OVMF wants its variables in a file it may write."""
    if firmware == "bios":
        return []
    code, variables = "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"
    options: Sequence[str] = ()
    if firmware == "secure":
        code, variables = "OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"
        options = ("-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on")
    own = shutil.copy(_OVMF / variables, scratch / "vars.fd")
    return [
        *options,
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_OVMF}/{code}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={own}"),
    ]


def _drive(image: Path, medium: str, scratch: Path) -> list[str]:
    """The options for the one medium."""
    if medium == "disc":
        return _drive_options(image, "ide-cd", "readonly=on")
    if medium == "scsi-disc":
        return ["-device", "virtio-scsi-pci,id=scsi", *_drive_options(image, "scsi-cd", "readonly=on", bus="scsi.0")]
    disk = scratch / "disk.img"
    shutil.copyfile(image, disk)
    _forget_el_torito(disk)
    return _drive_options(disk, "ide-hd", "readonly=off")


def _drive_options(image: Path, device: str, mode: str, bus: str = "ide.0") -> list[str]:
    """The options that attach an image; QEMU wants a comma in its name written twice."""
    name = str(image).replace(",", ",,")
    return [
        *("-drive", f"if=none,id=medium,format=raw,{mode},file={name}"),
        *("-device", f"{device},drive=medium,bus={bus},bootindex=0"),
    ]


def _forget_el_torito(disk: Path) -> None:
    """Blank the name in each boot record among the ISO's volume descriptors, so that nobody reads it.

    OVMF looks for El Torito on disks too, and before it looks at the MBR's partitions. Many machines do not:
    there an image whose partition for UEFI got lost does not start, and that must not pass here.
    """
    with disk.open("r+b") as file:
        for block in range(16, 32):
            file.seek(block * 2048)
            head = file.read(7)
            if head[1:6] != b"CD001" or head[0] == 255:
                return
            if head[0] == 0:
                file.write(bytes(32))


@contextlib.contextmanager
def _process(argv: Sequence[str], errors_log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program in a process group of its own, which is gone at the end in any case. Its standard error
    goes to a file, because reading a pipe would wait for a machine that hangs."""
    with errors_log.open("wb") as errors:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _wait(machine: "subprocess.Popen[bytes]", log: Path, timeout: float, until: str) -> None:
    """Return when the machine has said `until`, or has ended, or cannot get any further, or has run for too long."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and machine.poll() is None:
        output = _read(log)
        if until in output or END in output:  # nothing comes behind the end
            return
        if any(words in output for words in _DEAD_ENDS):
            time.sleep(1)  # for the rest of its message
            return
        time.sleep(0.2)


def _read(log: Path) -> str:
    """What has come over the serial line so far."""
    return log.read_bytes().decode(errors="surrogateescape").replace("\r", "")
