"""Set-user-ID and set-group-ID bits of what is added, as GNU tar and unsquashfs list them."""

from pathlib import Path

import pytest

from cosremaster.cli import main
from tests.fixtures.tools import require, run

KEPT = "set-user-ID and set-group-ID bits are kept (--no-setuid drops them): bin/passwd, bin/su"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a base, and a folder with such files that is an archive too."""
    require("tar", "unsquashfs")
    monkeypatch.chdir(tmp_path)
    Path("base/etc").mkdir(parents=True)
    run(["tar", "--owner=0", "--group=0", "--numeric-owner", "-C", "base", "-cf", "in.tar", "."])
    Path("root/bin").mkdir(parents=True)
    for name, mode in (("su", 0o4755), ("passwd", 0o2755), ("ls", 0o755)):
        Path("root/bin", name).write_text(name)
        Path("root/bin", name).chmod(mode)
    run(["tar", "--owner=0", "--group=0", "--numeric-owner", "-C", "root", "-cf", "root.tar", "bin"])
    return tmp_path


@pytest.mark.parametrize(
    ("words", "is_kept"),
    [
        (["root.tar"], True),
        (["root.tar", "--no-setuid"], False),
        (["root.tar", "--owner", "1000:1000"], False),  # a file of that user would become one of root
        (["root.tar", "--owner", "1000:1000", "--setuid"], True),
        (["root"], False),
        (["root", "--setuid"], True),
    ],
    ids=str,
)  # fmt: skip
def test_those_of_an_archive_are_kept_and_told(
    work: Path, words: list[str], is_kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody packed them on purpose; what stands on this machine may have them by accident."""
    assert main(["in.tar", "out.tar", "--quiet", "--add", *words]) == 0
    assert (f"{words[0]}: {KEPT}" in capsys.readouterr().err) == (words == ["root.tar"])
    lines = run(["tar", "-tvf", "out.tar"]).decode().splitlines()
    modes = {line.split()[-1].removeprefix("./"): line.split()[0] for line in lines}
    wanted = ("-rwsr-xr-x", "-rwxr-sr-x") if is_kept else ("-rwxr-xr-x",) * 2
    assert (modes["bin/su"], modes["bin/passwd"], modes["bin/ls"]) == (*wanted, "-rwxr-xr-x")


def test_a_root_that_is_packed_has_them(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", "root.tar", "root.squashfs", "--quiet"]) == 0
    assert KEPT in capsys.readouterr().err
    listed = run(["unsquashfs", "-lln", "root.squashfs"]).decode()
    assert "-rwsr-xr-x" in listed and "-rwxr-sr-x" in listed
