"""The sentences for refusals that this machine cannot show: they depend on settings of other systems."""

from __future__ import annotations

import errno

import pytest

from cosremaster.sandbox import refusals
from cosremaster.sandbox.lines import LineSplitter
from cosremaster.sandbox.refusals import describe_refusal

APPARMOR = {"kernel/apparmor_restrict_unprivileged_userns": "1"}
DEBIAN = {"kernel/unprivileged_userns_clone": "0"}


@pytest.mark.parametrize(
    ("settings", "step", "number", "start"),
    [
        (APPARMOR, "map", errno.EPERM, "AppArmor forbids user namespaces here"),
        (APPARMOR, "map", errno.EACCES, "AppArmor forbids user namespaces here"),
        (APPARMOR, "mount", errno.EACCES, "AppArmor forbids user namespaces here"),
        (APPARMOR, "network", errno.EPERM, "AppArmor forbids user namespaces here"),
        (APPARMOR, "unshare", errno.EPERM, "AppArmor forbids user namespaces here"),
        (DEBIAN, "unshare", errno.EPERM, "this system allows user namespaces to root alone: an administrator"),
        ({}, "unshare", errno.EPERM, "this system forbids user namespaces (perhaps by SELinux"),
        ({"user/max_net_namespaces": "0"}, "unshare", errno.ENOSPC, "this system allows no more namespaces: an"),
        ({}, "proc", errno.EPERM, "parts of /proc are hidden here, as in a container"),
        ({}, "filter", errno.ENOSYS, "this kernel has no seccomp filters with a listener"),
        ({}, "mount", errno.EPERM, "this machine does not let a script run apart from it: a file system in memory: O"),
        ({}, "unpack", errno.ENOSPC, "the image's files do not fit into the file system in memory"),
        ({}, "exec", errno.ENOEXEC, "it cannot be started: its interpreter is no program of this architecture"),
    ],
)
def test_each_refusal_has_its_sentence(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], step: str, number: int, start: str
) -> None:
    monkeypatch.setattr(refusals, "_read_setting", lambda name: settings.get(name, ""))
    monkeypatch.setattr(refusals, "is_chrooted", lambda: False)
    monkeypatch.setattr(refusals, "read_status_field", lambda name: "0")
    sentence = describe_refusal(step, number, "")
    assert sentence.startswith(start)
    assert "--run-in vm" in sentence or step in ("exec", "unpack")
    if step == "unshare" and number == errno.ENOSPC:
        assert "(sysctl user.max_net_namespaces=10000)" in sentence


def test_lines_are_cut_wherever_they_come_from() -> None:
    """In parts, with escape sequences and characters split between them, and without an end for long."""
    data = "\x1b[1;31mé\x1b[m ok\nnext\r\n".encode() + b"x" * 9000 + b"\nend"
    whole = LineSplitter()
    expected = [*whole.take(data), *whole.finish()]
    assert expected == ["é ok", "next", "x" * 8192, "x" * 808, "end"]
    parts = LineSplitter()
    lines = [line for byte in data for line in parts.take(bytes((byte,)))]
    assert [*lines, *parts.finish()] == expected
