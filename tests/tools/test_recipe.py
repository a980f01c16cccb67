"""Recipes: what they come to, what is wrong with them, variables, services, and their schema."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import cosremaster
from cosremaster import AddPath, Directory, ImageError, InlineFile, OwnershipRule, RecipeError, Symlink, UsageError
from cosremaster.cli import main
from cosremaster.recipe import build, read_recipe
from cosremaster.recipe.document import Document
from cosremaster.recipe.schema import make_schema, shipped_schema
from cosremaster.recipe.services import parse_install
from tests.fixtures import tools
from tests.support.small import write_overlay, write_small
from tests.support.user import REPOSITORY, open_folder, without_root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an image and an overlay for recipes to name; it is not the working directory."""
    write_small(tmp_path)
    write_overlay(tmp_path)
    return tmp_path


def recipe_in(folder: Path, text: str, name: str = "site.toml") -> Path:
    """The recipe ``text`` as a file; an input and an output go in front."""
    path = folder / name
    path.write_text(f'input = "in.iso"\noutput = "out.iso"\n{text}')
    return path


def faults_of(folder: Path, text: str, **given_: Any) -> list[str]:
    """What is wrong with a recipe, without the folder's name."""
    with pytest.raises(RecipeError) as raised:
        read_recipe(recipe_in(folder, text), **given_)
    assert raised.value.exit_code == 2
    return [problem.replace(f"{folder}/", "") for problem in raised.value.problems]


EVERY_KEY = """\
layer = "debirf-live-demo.cgz::rootfs.cxz"
remove = ["/etc/os-*", "nothing/**"]
allow_missing = true
force_type = true
source_date_epoch = 1700000000
remove_iso = ["/doc/**"]
rename_iso = [{ old = "/old.cfg", new = "/boot/new.cfg" }, { old = "pool", new = "/data/" }]
drop_hfsplus = true

[xz]
preset = 1
always_compress = true

[[add]]
source = "overlay"
dest = "/opt/site"
owner = "1000:1000"
mode = "u+x"
setuid = true
rules = [{ pattern = "/opt/**", owner = "source", mode = "0640", directory_mode = "0750" }]

[[add]]
source = "overlay/site.sh"
dest = "/root/"
unpack = false

[[add]]
source = "-"

[[add]]
file = "/etc/motd"
content = "hello\\n"
mode = "0600"
owner = "1:2"

[[add]]
symlink = "/etc/localtime"
target = "/usr/share/zoneinfo/UTC"

[[add]]
directory = "/data"
mode = "0700"

[[add]]
service = "ssh.service"
wanted_by = "multi-user.target"

[[add_iso]]
source = "overlay"
dest = "/site"
owner = "1000:1000"
rules = [{ pattern = "/site/*", mode = "0600" }]

[[add_iso]]
file = "/site.cfg"
content = "set site=7\\n"

[[add_iso]]
symlink = "/latest"
target = "site"

[[add_iso]]
directory = "/data/empty"
"""


def test_every_key_comes_to_what_it_says(folder: Path) -> None:
    recipe = read_recipe(recipe_in(folder, EVERY_KEY), environ={})
    assert (recipe.input, recipe.output) == (folder / "in.iso", folder / "out.iso")
    rule = OwnershipRule("/opt/**", "source", "0640", "0750")
    assert recipe.request == cosremaster.Request(
        add=(
            AddPath(
                str(folder / "overlay"), "/opt/site", owner="1000:1000", mode="u+x", rules=(rule,), setuid=True
            ),
            AddPath(str(folder / "overlay/site.sh"), "/root/", unpack=False),
            AddPath("-"),
            InlineFile("/etc/motd", b"hello\n", "0600", "1:2"),
            Symlink("/etc/localtime", "/usr/share/zoneinfo/UTC"),
            Directory("/data", "0700"),
            Symlink("/etc/systemd/system/multi-user.target.wants/ssh.service", "/lib/systemd/system/ssh.service"),
        ),
        remove=("/etc/os-*", "nothing/**"),
        add_iso=(
            AddPath(
                str(folder / "overlay"), "/site", owner="1000:1000", rules=(OwnershipRule("/site/*", mode="0600"),)
            ),
            InlineFile("/site.cfg", b"set site=7\n", "0644"),
            Symlink("/latest", "site"),
            Directory("/data/empty", "0755"),
        ),
        remove_iso=("/doc/**",),
        rename_iso=(("/old.cfg", "/boot/new.cfg"), ("pool", "/data/")),
        drop_hfsplus=True,
        allow_missing=True,
        force_type=True,
        layer="debirf-live-demo.cgz::rootfs.cxz",
        xz_preset=1,
        always_compress=True,
        source_date_epoch=1700000000,
    )  # fmt: skip


def test_the_command_does_what_the_library_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recipe_in(
        folder,
        '[[add]]\nsource = "overlay"\n[[add]]\nfile = "/etc/motd"\ncontent = "later\\n"\n'
        '[[add]]\nfile = "/etc/issue"\ncontent = "earlier\\n"\n[[add]]\nsource = "issue"\ndest = "/etc/issue"\n',
    )
    (folder / "issue").write_text("later\n")
    os.utime(folder / "issue", (1, 1))
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert (
        main(["build", os.path.relpath(path), "--digest", "sha256", "--report", "report.json", "--threads", "1"]) == 0
    )
    assert capsys.readouterr().out.startswith("../out.iso: ")
    # Relative to the recipe what stands in it, to the working directory what stands on the command line.
    assert sorted(one.name for one in elsewhere.iterdir()) == ["report.json"]
    assert (folder / "out.iso.sha256").exists()
    result = build(path, output="second.iso")
    assert (elsewhere / "second.iso").read_bytes() == (folder / "out.iso").read_bytes()
    assert set(result.added) == {b"etc/motd", b"etc/issue", b"site.sh"}
    # Of two things at one path the later one stays.
    for name in ("etc/motd", "etc/issue"):
        digest = hashlib.sha256(b"later\n").hexdigest()
        assert any(digest in json.dumps(one) for one in _told(elsewhere / "report.json", name))
    assert main(["build", str(path)]) == 8
    assert main(["build", str(path), "--force", "--quiet"]) == 0
    assert main(["build", str(path), "--output", "third.iso", "--quiet"]) == 0
    assert (elsewhere / "third.iso").exists()


def _told(report: Path, name: str) -> list[Any]:
    """What a report says of one path."""
    return [one for one in json.loads(report.read_text())["paths"] if one["path"] == name]


def test_expected_digests(folder: Path) -> None:
    data = (folder / "in.iso").read_bytes()
    sha256, md5 = hashlib.sha256(data).hexdigest(), hashlib.md5(data).hexdigest()
    path = recipe_in(folder, f'[expect]\nsha256 = "{sha256.upper()}"\nmd5 = "{md5}"\n')
    assert build(path).identical
    (folder / "out.iso").unlink()
    for line in (f'sha256 = "{"0" * 64}"', f'sha256 = "{sha256}"\nmd5 = "{"0" * 32}"'):
        with pytest.raises(ImageError, match=r"in\.iso: its (sha256|md5) is [0-9a-f]+, and 0+ was expected"):
            build(recipe_in(folder, f"[expect]\n{line}\n"))
        assert not (folder / "out.iso").exists()


def test_all_faults_at_once_each_with_its_place(folder: Path) -> None:
    text = """\
outputt = "x"
layer = 7
remove = ["/etc/../x", 5]
[xz]
preset = 12
lvel = 1
[expect]
sha256 = "abc"
[variables]
A = "${B}"
B = "${A}"
"bad-name" = "x"
N = 5
[[add]]
source = "missing"
mod = "0644"
owner = "bob"
[[add]]
file = "/etc/x"
content = "${NOPE}"
mode = 644
[[add]]
source = "overlay"
content = "x"
rules = [
  { pattern = "/x/*", owner = 5 },
  { patern = "/y", mode = "rw" },
]
[[add]]
service = "ssh.service"
[[add]]
foo = 1
[[add]]
symlink = "etc/x"
target = ""
[[add]]
directory = "/"
mode = "999"
[[add]]
source = "overlay/site.sh"
[[add]]
source = "overlay"
mtree = "gone.mtree"
dest = "/${NOPE}"
[[add]]
file = "/opt/"
content = "x"
"""
    assert faults_of(folder, text, environ={}) == [
        "site.toml:3 » outputt: no such key; did you mean output?",
        "site.toml:4 » layer: must be text in quotes",
        "site.toml:5 » remove[0]: pattern /etc/../x: a path without .. is wanted, and a \\ must be followed by"
        " something",
        "site.toml:5 » remove[1]: must be text in quotes",
        "site.toml:7 » xz.preset: must lie in 0 to 9",
        "site.toml:8 » xz.lvel: no such key",
        "site.toml:10 » expect.sha256: must be 64 hexadecimal digits",
        "site.toml:12 » variables.A: the variable A stands in its own value: A -> B -> A",
        "site.toml:13 » variables.B: the variable B stands in its own value: B -> A -> B",
        "site.toml:14 » variables.bad-name: is no name for a variable (letters, digits and _)",
        "site.toml:15 » variables.N: must be text in quotes",
        "site.toml:17 » add[0].source: there is no file missing",
        "site.toml:18 » add[0].mod: no such key; did you mean mode?",
        "site.toml:19 » add[0].owner: owner 'bob': root, source or two numbers as in 1000:1000 are wanted",
        "site.toml:22 » add[1].content: there is no variable NOPE",
        'site.toml:23 » add[1].mode: must be text in quotes, as in "0644"',
        "site.toml:26 » add[2].content: does not go together with source; it belongs to file",
        "site.toml:28 » add[2].rules[0].owner: must be text in quotes",
        "site.toml:29 » add[2].rules[1]: pattern is missing",
        'site.toml:29 » add[2].rules[1].mode: must be octal digits as in "0644", or clauses like "u+x,go-w"',
        "site.toml:29 » add[2].rules[1].patern: no such key; did you mean pattern?",
        "site.toml:31 » add[3]: wanted_by is missing: nothing here adds ssh.service, so its [Install] is not known",
        "site.toml:33 » add[4]: must be a table with what to add: source, file, symlink, directory, service",
        "site.toml:36 » add[5].symlink: etc/x: DEST must be an absolute path without ..",
        "site.toml:37 » add[5].target: must not be empty, nor hold a NUL",
        "site.toml:39 » add[6].directory: the root directory cannot be made",
        'site.toml:40 » add[6].mode: must be octal digits as in "0644", or clauses like "u+x,go-w"',
        "site.toml:41 » add[7]: dest is missing: where does this file go?",
        "site.toml:45 » add[8].mtree: there is no file gone.mtree",
        "site.toml:46 » add[8].dest: there is no variable NOPE",
        "site.toml:48 » add[9].file: only the path of a directory ends in a slash",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('a = 1\n\n"x', r"^bad\.toml:3: is no TOML: "),
        ("a = 1\na = 2", r"^bad\.toml:2: is no TOML: "),
        ("a = " + "[" * 100_000, r"^bad\.toml: is nested too deep$"),
        ("a = " + "[" * 400 + "]" * 400, r"^bad\.toml(: is nested too deep|:1 » a: no such key|: 2 faults)"),
        ('input = "a\\u0000b"', r"^bad\.toml:1 » input: there is no file "),
        ('output = "${A}/x"\ninput = "${X}"\nvariables.A = "."', r"^bad\.toml:2 » input: there is no variable X$"),
        ('input = "${X}"', r"^bad\.toml:1 » input: there is no variable X$"),
        ("a = '\udcff'", r"^bad\.toml @0x5: is not UTF-8"),
        ("", r"^bad\.toml: input is missing$"),
        ("input = 5", r"^bad\.toml:1 » input: must be text in quotes$"),
        ("add = 5\ninput = ''", r"bad\.toml:1 » add: must be an array"),
        ("input = 'gone.iso'", r"^bad\.toml:1 » input: there is no file "),
        ("input = 'in.iso'\noutput = 'no/where.iso'", r"^bad\.toml:2 » output: there is no folder no$"),
        ("input = 'in.iso'\nlayer = 'a::'", r"^bad\.toml:2 » layer: address 'a::' has an empty part$"),
        ("input = 'in.iso'\nxz = 5", r"^bad\.toml:2 » xz: must be a table$"),
        ("input = 'in.iso'\nsource_date_epoch = -1", r"^bad\.toml:2 » source_date_epoch: must lie in 0 to "),
    ],
)
def test_single_faults(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str) -> None:
    monkeypatch.chdir(folder)
    Path("bad.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RecipeError, match=told):
        read_recipe("bad.toml")


def test_editors_of_windows_write_recipes(folder: Path) -> None:
    """A byte order mark and CRLF are no part of it; places are those of the text."""
    text = 'input = "in.iso"\n[[add]]\nfile = "/etc/motd"\ncontent = """\nä\nb"""\n'
    path = folder / "windows.toml"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (item,) = read_recipe(path).request.add
    assert isinstance(item, InlineFile) and item.content == "ä\nb".encode()
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("content", "contet").replace("\n", "\r\n").encode())
    with pytest.raises(RecipeError, match=r"windows\.toml:4 » add\[0\]\.contet: no such key"):
        read_recipe(path)
    path.write_bytes(b"\xef\xbb\xbfa = '\xff'")
    with pytest.raises(RecipeError, match="@0x8: is not UTF-8"):
        read_recipe(path)


def test_a_recipe_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(folder / "none.toml")]) == 2
    assert "none.toml: cannot be read: No such file or directory" in capsys.readouterr().err
    (folder / "site.toml").write_text('input = "in.iso"\n')
    assert main(["build", str(folder / "site.toml")]) == 2
    assert "has no output, so --output must say where the image goes" in capsys.readouterr().err


VARIABLES = """\
[variables]
BASE = "from recipe"
NAME = "${BASE} and $$"
NEEDED = { help = "what it is for" }
[[add]]
file = "/etc/a"
content = "${NAME}|$$x|$y|$(z)|$"
[[add]]
file = "/etc/b"
content = "${NAME} $$"
expand = false
"""


@pytest.mark.parametrize(
    ("given_", "environ", "content"),
    [
        ({}, {}, "from recipe and $|$x|$y|$(z)|$"),
        ({}, {"BASE": "env $$ ${X}", "OTHER": "x"}, "env $$ ${X} and $|$x|$y|$(z)|$"),
        ({"BASE": "set"}, {"BASE": "env"}, "set and $|$x|$y|$(z)|$"),
        ({"NAME": ""}, {}, "|$x|$y|$(z)|$"),
    ],
)
def test_variables(folder: Path, given_: Mapping[str, str], environ: Mapping[str, str], content: str) -> None:
    request = read_recipe(recipe_in(folder, VARIABLES), given_, environ).request
    assert [item.content for item in request.add if isinstance(item, InlineFile)] == [content.encode(), b"${NAME} $$"]


def test_variables_without_a_value_or_a_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = VARIABLES + '[[add]]\ndirectory = "/${NEEDED}/${NAM}"\n[[add]]\ndirectory = "/x${"\n'
    assert faults_of(folder, text, environ={"NAM": "not declared"}) == [
        "site.toml:15 » add[2].directory: the variable NEEDED (what it is for) has no value; give one with"
        " --set NEEDED=...",
        "site.toml:17 » add[3].directory: ${ begins a variable as in ${NAME}; write $${ for a dollar and a brace",
    ]
    assert faults_of(folder, text, variables={"NEEDED": "x"}, environ={})[0] == (
        "site.toml:15 » add[2].directory: there is no variable NAM; did you mean NAME?"
    )
    lists = (
        'remove = ["${X}", "/a/../b"]\n[[add]]\nsource = "overlay"\n'
        'rules = [{ pattern = "${X}" }, { pattern = "/a", mode = "${X}", owner = "me" }]\n'
    )
    assert [fault.partition(": ")[0] for fault in faults_of(folder, lists)] == [
        f"site.toml:{place}"
        for place in (
            "3 » remove[0]", "3 » remove[1]", "6 » add[0].rules[0].pattern", "6 » add[0].rules[1].mode",
            "6 » add[0].rules[1].owner",
        )
    ]  # fmt: skip
    path = recipe_in(folder, VARIABLES)
    for setting, told in (("NAMES=1", "no such variable; did you mean NAME?"), ("NAME", "NAME=VALUE is wanted")):
        assert main(["build", str(path), "--set", setting]) == 2
        assert told in capsys.readouterr().err
    with pytest.raises(UsageError, match="no such variable"):
        read_recipe(path, {"X": "1"})


def test_names_and_values_are_utf8_or_bytes_whatever_the_locale(folder: Path) -> None:
    (folder / "caf\u00e9").mkdir()
    (folder / "caf\u00e9/x").write_text("x")
    path = recipe_in(
        folder,
        '[variables]\nRAW = ""\n[[add]]\nsource = "caf\u00e9"\ndest = "/gr\u00fcn"\n'
        '[[add]]\nfile = "/etc/stra\u00dfe"\ncontent = "\u00e9${RAW}"\n',
    )
    seen = set()
    for number, locale in enumerate(({"LC_ALL": "C.UTF-8"}, {"LC_ALL": "C", "PYTHONUTF8": "0"})):
        environ = {b"PATH": b"", b"RAW": b"\xff\xfe", b"PYTHONCOERCECLOCALE": b"0"}
        environ |= {key.encode(): value.encode() for key, value in locale.items()}
        target = folder / f"{number}.iso"
        subprocess.run(
            [sys.executable, "-m", "cosremaster", "build", path, "--output", target, "--report", f"{target}.json"],
            env=environ, check=True, cwd=REPOSITORY, capture_output=True,
        )  # fmt: skip
        told = {one["path"]: one for one in json.loads((folder / f"{number}.iso.json").read_text())["paths"]}
        assert {"gr\u00fcn/x", "etc/stra\u00dfe"} <= told.keys()
        digest = hashlib.sha256("\u00e9".encode() + b"\xff\xfe").hexdigest()
        assert digest in json.dumps(told["etc/stra\u00dfe"])
        seen.add(target.read_bytes())
    assert len(seen) == 1


def test_a_plan_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recipe_in(folder, '[[add]]\nsource = "overlay"\n')
    before = sorted(folder.iterdir())
    assert main(["build", str(path), "--plan"]) == 0
    assert "  + etc/motd" in capsys.readouterr().out.splitlines()
    assert sorted(folder.iterdir()) == before


UNIT = """\
# a comment
[Unit]
WantedBy=not.this.target
[Install]
WantedBy=forgotten.target
WantedBy=
WantedBy=multi-user.target \\
; a comment in between
  graphical.target
RequiredBy = site.target
Alias=other.service
"""


def _links(folder: Path, text: str) -> list[tuple[str, str]]:
    items = read_recipe(recipe_in(folder, text), environ={}).request.add
    return [(item.dest, item.target) for item in items if isinstance(item, Symlink)]


def test_a_service_is_enabled_as_its_unit_says(folder: Path) -> None:
    units = folder / "units/system"
    units.mkdir(parents=True)
    (units / "my.service").write_text(UNIT)
    wanted = [
        (f"/etc/systemd/system/{link}", "/etc/systemd/system/my.service")
        for link in (
            "multi-user.target.wants/my.service", "graphical.target.wants/my.service",
            "site.target.requires/my.service", "other.service",
        )
    ]  # fmt: skip
    service = '[[add]]\nservice = "my.service"\n'
    for where in (
        '[[add]]\nsource = "units"\ndest = "/etc/systemd"\n',
        '[[add]]\nsource = "units/system/my.service"\ndest = "/etc/systemd/system/"\n',
        '[[add]]\nsource = "units/system/my.service"\ndest = "/etc/systemd/system/my.service"\n',
        f"[[add]]\nfile = '/etc/systemd/system/my.service'\ncontent = '''{UNIT}'''\n",
    ):
        assert _links(folder, where + service) == wanted
        assert _links(folder, service + where) == wanted, "the unit may stand behind the service"
    # The later one of two units counts, as it will in the image; what is said counts more.
    inline = "[[add]]\nfile = '/etc/systemd/system/my.service'\ncontent = '''[Install]\nWantedBy=a.target'''\n"
    copied = '[[add]]\nsource = "units"\ndest = "/etc/systemd"\n'
    assert [one for one, _ in _links(folder, copied + inline + service)] == [
        "/etc/systemd/system/a.target.wants/my.service"
    ]
    assert _links(folder, copied + service + 'wanted_by = "b.target c.target"\nunit = "/opt/my.service"\n') == [
        (f"/etc/systemd/system/{one}.target.wants/my.service", "/opt/my.service") for one in "bc"
    ]


def test_services_that_cannot_be_enabled(folder: Path) -> None:
    unit = "[[add]]\nfile = '/etc/systemd/system/{}'\ncontent = '''{}'''\n[[add]]\nservice = '{}'\n"
    told = "site.toml:{} » add[{}]: "
    for (file, content, service), (line, fault) in {
        ("a.service", "[Service]", "a.service"):
            (6, "wanted_by is missing: a.service has none in an [Install] section"),
        ("a.service", "[Install]\nWantedBy=%i.target", "a.service"):
            (7, "%i.target is no name of a unit; say with wanted_by what is meant"),
        ("a.service", "[Install]\nWantedBy=x.target\nAlso=b.socket", "a.service"):
            (8, "a.service has Also=b.socket: give that service, too, or this one a wanted_by"),
    }.items():  # fmt: skip
        assert faults_of(folder, unit.format(file, content, service)) == [told.format(line, 1) + fault]
    for name in ("a", "a@.service", "../a.service", "a b.service"):
        (fault,) = faults_of(folder, f"[[add]]\nservice = '{name}'\nwanted_by = 'x.target'\n")
        assert fault == f"site.toml:4 » add[0].service: {name} is no name of a unit, as site.service would be"


def test_a_drop_in_that_would_enable_a_service_is_no_silent_loss(folder: Path) -> None:
    """systemctl enable reads [Install] of drop-ins too; what they say was left out."""
    units = folder / "units"
    (units / "my@.service.d").mkdir(parents=True)
    (units / "my@.service").write_text("[Install]\nWantedBy=a.target\n")
    drop_in = units / "my@.service.d/x.conf"
    drop_in.write_text("[Service]\nNice=1\n")
    copied = "[[add]]\nsource = 'units'\ndest = '/etc/systemd/system'\n"
    service = "[[add]]\nservice = 'my@1.service'\n"
    links = [("/etc/systemd/system/a.target.wants/my@1.service", "/etc/systemd/system/my@.service")]
    assert _links(folder, copied + service) == links
    inline = "[[add]]\nfile = '/etc/systemd/system/my@1.service.d/y.conf'\ncontent = '[Install]\\nWantedBy=b.target'\n"
    (fault,) = faults_of(folder, copied + service + inline.replace("'[", '"[').replace("t'\n", 't"\n'))
    told = "has an [Install] section, which is not read: say with wanted_by what is meant"
    assert fault.endswith(f"/etc/systemd/system/my@1.service.d/y.conf {told}")
    drop_in.write_text("[Install]\nWantedBy=b.target\n")
    (fault,) = faults_of(folder, copied + service)
    assert fault.endswith(f"/etc/systemd/system/my@.service.d/x.conf {told}")
    assert [link for link, _ in _links(folder, copied + service + "wanted_by = 'c.target'\n")] == [
        "/etc/systemd/system/c.target.wants/my@1.service"
    ]


def test_files_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_folder() as folder:
        write_small(folder)
        for name in ("closed", "units"):
            (folder / name).mkdir()
            (folder / name / "a.service").write_text("[Install]\nWantedBy=x.target\n")
        (folder / "units/a.service").chmod(0)
        (folder / "closed").chmod(0)
        recipe_in(
            folder,
            "[[add]]\nsource = 'units'\ndest = '/etc/systemd/system'\n[[add]]\nservice = 'a.service'\n"
            "[[add]]\nsource = 'closed/a.service'\ndest = '/x'\n",
        )
        monkeypatch.chdir(folder)
        with without_root(), pytest.raises(RecipeError) as raised:
            read_recipe("site.toml")
        (folder / "closed").chmod(0o755)
        assert raised.value.problems == (
            "site.toml:6 » add[1]: the unit units/a.service cannot be read: Permission denied",
            "site.toml:9 » add[2].source: the file closed/a.service cannot be reached: Permission denied",
        )
        Path("site.toml").chmod(0)
        with without_root(), pytest.raises(RecipeError, match=r"^site\.toml: cannot be read: Permission denied$"):
            read_recipe("site.toml")


def test_a_template_is_enabled_by_its_instance(folder: Path) -> None:
    text = "[[add]]\nfile = '/etc/systemd/system/port@.service'\ncontent = '''[Install]\nWantedBy=x.target'''\n"
    assert _links(folder, text + "[[add]]\nservice = 'port@eth0.service'\n") == [
        ("/etc/systemd/system/x.target.wants/port@eth0.service", "/etc/systemd/system/port@.service")
    ]


def test_systemctl_makes_the_same_links(tmp_path: Path) -> None:
    """systemctl --root is the judge."""
    tools.require("systemctl")
    write_small(tmp_path)
    folder = tmp_path / "root/etc/systemd/system"
    folder.mkdir(parents=True)
    (folder / "my.service").write_text(f"[Service]\nExecStart=/bin/true\n{UNIT}")
    (folder / "port@.service").write_text("[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=x.target\n")
    names = ("my.service", "port@eth0.service")
    services = "".join(f"[[add]]\nservice = '{name}'\n" for name in names)
    ours = _links(tmp_path, '[[add]]\nsource = "root"\n' + services)
    subprocess.run(["systemctl", f"--root={tmp_path / 'root'}", "enable", *names], check=True, capture_output=True)
    theirs = [
        (f"/{path.relative_to(tmp_path / 'root')}", os.readlink(path))
        for path in folder.rglob("*")
        if path.is_symlink()
    ]
    assert sorted(ours) == sorted(theirs)


def test_install_sections() -> None:
    install = parse_install(UNIT)
    assert install.links == (
        ("multi-user.target", "wants"), ("graphical.target", "wants"), ("site.target", "requires"),
    )  # fmt: skip
    assert install.aliases == ("other.service",)
    assert parse_install("\ufeff[Install]\r\nAlias=a.service\r\n").aliases == ("a.service",)


def _documented(name: str) -> str:
    """The first recipe in a document of ours."""
    found = re.search(r"^```toml\n(.*?)^```$", (REPOSITORY / name).read_text(), re.S | re.M)
    assert found
    return found[1]


@pytest.fixture
def site(folder: Path) -> Path:
    """What the documented recipes ask for."""
    (folder / "in.iso").rename(folder / "debirf-live.iso")
    units = folder / "site/etc/systemd/system"
    units.mkdir(parents=True)
    (units / "install.service").write_text("[Install]\nWantedBy=multi-user.target\n")
    (folder / "install.service").write_text("[Install]\nWantedBy=multi-user.target\n")
    (folder / "keys").mkdir()
    (folder / "keys/operators.pub").write_text("ssh-ed25519 AAAA\n")
    return folder


def test_the_recipe_of_the_readme(site: Path) -> None:
    (site / "site.toml").write_text(_documented("README.md"))
    assert main(["build", str(site / "site.toml"), "--set", "SITE=headend-8"]) == 0
    assert (site / "headend-8.iso").exists()


def test_the_recipe_of_its_page(site: Path) -> None:
    (site / "site.toml").write_text(_documented("docs/recipe.md"))
    recipe = read_recipe(site / "site.toml", {"KEYS": "keys"}, {})
    assert [type(item) for item in recipe.request.add] == [AddPath, AddPath, InlineFile, AddPath, Symlink]
    with pytest.raises(ImageError, match="was expected"):
        build(recipe)


def test_the_page_names_every_key() -> None:
    text = (REPOSITORY / "docs/recipe.md").read_text()
    schema = json.loads(shipped_schema())
    tables = [schema, *schema["$defs"].values()]
    assert [key for table in tables for key in table["properties"] if not re.search(rf"\b{key}\b", text)] == []


def test_kernel_arguments_and_the_volumes_name(folder: Path) -> None:
    text = """\
volume_id = "SITE_${N}"
volume_date = "2026-11-26T12:00:00Z"
retarget = true
[kernel_args]
add = ["site=${N}"]
remove = ["quiet"]
replace = ["panic=-1=30"]
[variables]
N = "7"
"""
    request = read_recipe(recipe_in(folder, text)).request
    assert (request.volume_id, request.volume_date, request.retarget) == ("SITE_7", "2026-11-26T12:00:00Z", True)
    assert request.kernel_args == ("site=7",)
    assert (request.remove_kernel_args, request.replace_kernel_args) == (("quiet",), ("panic=-1=30",))


def test_faults_in_kernel_arguments_have_their_lines(folder: Path) -> None:
    text = """\
retarget = true
[kernel_args]
add = ["fine", "--"]
replace = ["a=b"]
"""
    told = faults_of(folder, text)
    assert [one.split(": ")[0] for one in told] == [
        "site.toml:3 » retarget", "site.toml:5 » kernel_args.add[1]", "site.toml:6 » kernel_args.replace[0]"
    ]  # fmt: skip
    (fault,) = faults_of(folder, 'volume_id = " x"\n')
    assert "site.toml:3 » volume_id: volume id ' x' must be of printable ASCII" in fault


def test_the_tree_of_the_iso(folder: Path) -> None:
    (folder / "platform.iso").write_bytes(bytes(5000))
    text = """\
remove_iso = ["/boot/grub/*.${KIND}"]
rename_iso = [{ old = "/vmlinuz", new = "/boot/linux-${N}" }]
[variables]
KIND = "cfg"
N = "7"
[[add_iso]]
source = "platform.iso"
dest = "/data/"
unpack = false
[[add_iso]]
file = "/data/${N}.cfg"
content = "site=${N}\\n"
"""
    result = build(recipe_in(folder, text))
    assert (result.iso_removed, result.iso_renamed) == ((b"boot/grub/grub.cfg",), ((b"vmlinuz", b"boot/linux-7"),))
    assert result.iso_added == (b"data", b"data/7.cfg", b"data/platform.iso")
    assert cosremaster.read(folder / "out.iso::data/7.cfg") == b"site=7\n"


def test_faults_in_what_the_iso_gets_have_their_lines(folder: Path) -> None:
    text = """\
remove_iso = ["/a/../b", 7]
drop_hfsplus = 1
[[rename_iso]]
old = "/x"
[[rename_iso]]
old = "/x"
new = "y"
nwe = "/y"
[[rename_iso]]
old = "/"
new = "/../y"
[[add_iso]]
source = "gone"
mod = "0644"
[[add_iso]]
service = "x.service"
[[add_iso]]
file = "/x"
content = "${NOPE}"
unit = "x"
[[add_iso]]
source = "overlay/site.sh"
"""
    assert faults_of(folder, text, environ={}) == [
        "site.toml:3 » remove_iso[0]: pattern /a/../b: a path without .. is wanted, and a \\ must be followed by"
        " something",
        "site.toml:3 » remove_iso[1]: must be text in quotes",
        "site.toml:4 » drop_hfsplus: must be true or false",
        "site.toml:5 » rename_iso[0]: new is missing",
        "site.toml:9 » rename_iso[1].new: must be an absolute path without ..",
        "site.toml:10 » rename_iso[1].nwe: no such key; did you mean new?",
        "site.toml:12 » rename_iso[2].old: the root directory cannot be renamed",
        "site.toml:13 » rename_iso[2].new: must be an absolute path without ..",
        "site.toml:15 » add_iso[0].source: there is no file gone",
        "site.toml:16 » add_iso[0].mod: no such key; did you mean mode?",
        "site.toml:17 » add_iso[1]: must be a table with what to add: source, file, symlink, directory",
        "site.toml:21 » add_iso[2].content: there is no variable NOPE",
        "site.toml:22 » add_iso[2].unit: no such key",
        "site.toml:23 » add_iso[3]: dest is missing: where does this file go?",
    ]


# --- the schema -------------------------------------------------------------------------------------------------


def test_the_shipped_schema_is_what_the_types_make(capsys: pytest.CaptureFixture[str]) -> None:
    assert shipped_schema() == make_schema(), "python -m cosremaster.recipe.schema writes it anew"
    assert main(["build", "--schema"]) == 0
    assert capsys.readouterr().out == shipped_schema()


@cache
def _schema() -> Any:
    """What judges documents by the schema, if that is one."""
    jsonschema = tools.load_module("jsonschema")
    schema = json.loads(shipped_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


_WORDS = st.sampled_from(["", "a", "0644", "u+x", "0999", "${A}", "9" * 64, "f" * 32, "root", "/etc/x"])
_MODES = st.sampled_from(["0644", "u+x", "${A}"])
_ANY = st.recursive(
    st.one_of(_WORDS, st.booleans(), st.integers(-1, 12), st.just(1 << 33), st.just(1.5)),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_WORDS, inner, max_size=2),
    max_leaves=4,
)


def _table(*needed: str, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(dict.fromkeys(needed, _WORDS), optional=optional)


_RULE = _table("pattern", owner=_WORDS, mode=_MODES, directory_mode=_MODES)
_ITEM = st.one_of(
    _table(
        "source", dest=_WORDS, owner=_WORDS, mode=_MODES, mtree=_WORDS, setuid=st.booleans(), unpack=st.booleans(),
        rules=st.lists(_RULE, max_size=2),
    ),
    _table("file", "content", expand=st.booleans(), mode=_MODES, owner=_WORDS),
    _table("symlink", "target", owner=_WORDS),
    _table("directory", mode=_MODES, owner=_WORDS),
    _table("service", wanted_by=_WORDS, unit=_WORDS),
)  # fmt: skip
_SOUND = _table(
    "input", output=_WORDS, layer=_WORDS, allow_missing=st.booleans(), force_type=st.booleans(),
    source_date_epoch=st.integers(0, 9),
    remove=st.lists(_WORDS, max_size=2),
    expect=_table(sha256=st.sampled_from(["A" * 64, "${A}"]), md5=st.just("0" * 32)),
    xz=_table(preset=st.integers(0, 9), always_compress=st.booleans()),
    variables=st.dictionaries(st.sampled_from(["A", "_b1"]), _WORDS | _table(default=_WORDS, help=_WORDS), max_size=2),
    add=st.lists(_ITEM, max_size=3), add_iso=st.lists(_ITEM, max_size=3), drop_hfsplus=st.booleans(),
    remove_iso=st.lists(_WORDS, max_size=2), rename_iso=st.lists(_table("old", "new"), max_size=2),
)  # fmt: skip
_STRANGE_KEYS = st.sampled_from(["sorce", "file", "source", "mode", "a-b", "1", "", "A", "preset"])


@st.composite
def _documents(draw: st.DrawFn) -> dict[str, Any]:
    """A sound document with up to two changes anywhere in it."""
    document = draw(_SOUND)
    for _ in range(draw(st.integers(0, 2))):
        tables = _inside(document)
        if not tables:
            break
        table = draw(st.sampled_from(tables))
        key = draw(st.sampled_from(sorted(table) if isinstance(table, dict) else range(len(table))))
        change = draw(st.sampled_from(["replace", "drop", "add"]))
        if change == "replace":
            table[key] = draw(_ANY)
        elif change == "drop":
            del table[key]
        elif isinstance(table, dict):
            table[draw(_STRANGE_KEYS)] = draw(_ANY)
        else:
            table.append(draw(_ANY))
    return document


def _inside(value: Any) -> list[Any]:
    """Every table and array in ``value`` that is not empty, itself first."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    itself = [value] if isinstance(value, dict | list) and value else []
    return itself + [inner for one in parts for inner in _inside(one)]


def _accepted(document: Any) -> bool:
    try:
        Document.model_validate(document)
    except ValidationError:
        return False
    return True


@settings(max_examples=1000, deadline=None)
@given(_documents())
def test_the_schema_and_the_parser_accept_the_same_documents(document: dict[str, Any]) -> None:
    assert _schema().is_valid(document) == _accepted(document), list(_schema().iter_errors(document))


def test_the_schema_accepts_the_sound_and_rejects_the_rest(folder: Path) -> None:
    """Both of what the property test compares do happen."""
    sound: dict[str, Any] = {"input": "x", "add": [{"file": "/a", "content": ""}], "variables": {"A": {}}}
    assert _schema().is_valid(sound) and _accepted(sound)
    for bad in ({}, {"input": 1}, {"input": "x", "add": [{"file": "/a"}]}, {**sound, "variables": {"a-b": "x"}},
                {**sound, "add": [{"file": "/a", "content": "", "source": "x"}]}, {**sound, "more": 1}):  # fmt: skip
        assert not _schema().is_valid(bad) and not _accepted(bad), bad


@settings(max_examples=300, deadline=None)
@given(_documents())
def test_whatever_fits_the_types_is_read_or_refused_with_faults(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("recipe")
    path = folder / "any.toml"
    path.write_text("\n".join(f"{json.dumps(key)} = {_toml(value)}" for key, value in document.items()))
    try:
        read_recipe(path, environ={})
    except RecipeError as error:
        assert error.problems
    else:
        assert _accepted(document)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_recipes_are_read_or_refused_with_faults(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = bytearray(f'input = "x"\n{EVERY_KEY}{VARIABLES}'.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        put = data.draw(
            st.sampled_from([b"", b'"', b"'", b"[", b"]", b"{", b"}", b"=", b".", b"\\", b"\n", b"#", b"\xff"])
        )
        text[at : at + data.draw(st.integers(0, 2))] = put
    if data.draw(st.booleans()):
        del text[data.draw(st.integers(0, len(text))) :]
    path = tmp_path_factory.mktemp("recipe") / "any.toml"
    path.write_bytes(text)
    with pytest.raises(RecipeError) as raised:  # at the least, there is no such input
        read_recipe(path, environ={})
    assert all(str(path) in problem for problem in raised.value.problems)


def _toml(value: Any) -> str:
    """``value`` as TOML; JSON's strings, numbers and booleans are TOML's."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
