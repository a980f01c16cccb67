"""What is common to the sites of a fleet is done once only where each image stays what a single run makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, Request
from cosremaster.cli import main
from cosremaster.fleet import read_fleet
from cosremaster.fleet.split import split_requests
from tests.fixtures.tools import require, run
from tests.support.small import CGZ, packed_root, write_small

SITES = """
[[add]]
file = "/etc/motd"
content = "for all"
[[site]]
name = "plain"
[[site]]
name = "own"
"""
MENU = """[[site.add_iso]]
file = "/boot/grub/grub.cfg"
content = '''
search --label DEBIRF_DEMO
menuentry x {
 linux /vmlinuz
 initrd /debirf-live-demo.cgz
}
'''
"""


def _make_fleet(folder: Path, head: str, own: str) -> int:
    (folder / "fleet.toml").write_text(f'base = "in.iso"\noutput = "out/${{NAME}}.iso"\n{head}{SITES}{own}')
    return main(["fleet", str(folder / "fleet.toml"), "--quiet"])


def _menu_of(image: Path) -> str:
    """The boot menu as bsdtar takes it out."""
    return run(["bsdtar", "-xOf", image, "boot/grub/grub.cfg"]).decode()


def test_common_arguments_are_in_a_menu_that_a_site_brings(tmp_path: Path) -> None:
    require("bsdtar")
    write_small(tmp_path)
    head = 'kernel_args.add = ["site.common=1"]\nvolume_id = "NEW_NAME"\nretarget = true\n'
    assert _make_fleet(tmp_path, head, MENU) == 0
    for site in read_fleet(tmp_path / "fleet.toml").sites:
        menu = _menu_of(site.output)
        assert "linux /vmlinuz site.common=1\n" in menu and "DEBIRF_DEMO" not in menu
        with cosremaster.open(tmp_path / "in.iso") as image:
            image.remaster(tmp_path / f"{site.name}.single.iso", site.request)
        assert menu == _menu_of(tmp_path / f"{site.name}.single.iso")
    assert "search --label NEW_NAME" in _menu_of(tmp_path / "out/own.iso")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (f'[[site.add_iso]]\nsource = "other.cgz"\ndest = "/{CGZ}"\n', "changed inside and be exchanged as a whole"),
        (f'remove_iso = ["/{CGZ}"]\n', "cannot be changed inside and be removed"),
    ],
    ids=["exchanged", "removed"],
)
@pytest.mark.parametrize("delta", [False, True])
def test_a_site_loses_nothing_common_with_a_layer_that_it_exchanges(
    own: str, message: str, delta: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_small(tmp_path)
    (tmp_path / "other.cgz").write_bytes(packed_root())
    assert _make_fleet(tmp_path, "delta = true\n" if delta else "", own) == 2
    assert f"own: {CGZ} cannot be" in (printed := capsys.readouterr().err) and message in printed
    (plain, other) = json.loads((tmp_path / "out/fleet.json").read_text())["sites"]
    assert (plain["state"], other["state"]) == ("written", "failed") and not (tmp_path / "out/own.iso").exists()
    if delta:
        cosremaster.apply(tmp_path / "in.iso", tmp_path / "out/plain.iso", tmp_path / "plain.iso")
    made = tmp_path / ("plain.iso" if delta else "out/plain.iso")
    assert cosremaster.read(f"{made}::@root::etc/motd") == b"for all"


def test_files_of_sites_beside_the_layer_leave_what_is_common(tmp_path: Path) -> None:
    require("bsdtar")
    write_small(tmp_path)
    (tmp_path / "note").write_text("own")
    own = '[[site.add_iso]]\nsource = "note"\ndest = "/note"\n'
    (tmp_path / "fleet.toml").write_text(f'base = "in.iso"\noutput = "out/${{NAME}}.iso"\n{SITES}{own}')
    assert main(["fleet", str(tmp_path / "fleet.toml"), "--no-sync"]) == 0
    assert run(["bsdtar", "-xOf", tmp_path / "out/own.iso", "note"]) == b"own"
    for name in ("plain", "own"):
        assert cosremaster.read(f"{tmp_path}/out/{name}.iso::@root::etc/motd") == b"for all"
    changes = [site["changes"] for site in json.loads((tmp_path / "out/fleet.json").read_text())["sites"]]
    assert changes == [{}, {"iso_added": 1}], "the rest was done once"


def test_what_menus_follow_is_each_sites_own_where_one_changes_the_tree() -> None:
    common = Request(add=(InlineFile("/a", b"a"),), kernel_args=["x"], volume_id="V")
    own = Request(add=common.add, kernel_args=["x"], volume_id="V", add_iso=(InlineFile("/b", b"b"),))
    split = split_requests([common, own])
    assert split.common == Request(add=common.add)
    assert [(rest.kernel_args, rest.volume_id) for rest in split.rests] == [(["x"], "V")] * 2
    assert split_requests([own, own]).common == Request(
        add=common.add, kernel_args=["x"], volume_id="V", add_iso=own.add_iso
    )
    signed = [Request(add=common.add, drop_signatures=True, add_iso=add) for add in ((), own.add_iso)]
    assert split_requests(signed).common is None, "menus that a site brings may demand what is dropped"
