"""Scripts as items of an overlay: order, exact changes in every format of layers, outcomes, refusals."""

import json
import os
import pickle
from pathlib import Path

import pytest

import cosremaster
import cosremaster.recipe
from cosremaster import AddPath, InlineFile, OverlayError, Request, RunScript, ScriptError, UsageError
from cosremaster.cli import main
from cosremaster.overlay import run_script
from cosremaster.remastering.layer_index import LayerIndex
from cosremaster.sandbox.machine_boot import list_kernels
from tests.support import fake_session
from tests.support.overlays import file, symlink
from tests.support.small import CGZ, write_small

LAYER = f"{CGZ}::rootfs.cxz"


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run_script._RUNNERS, "namespace", ("tests.support.fake_session", "run_script", "check_run"))
    fake_session.RUNS.clear()


def paths_of(image: Path) -> list[str]:
    with cosremaster.open(image) as opened:
        return [os.fsdecode(entry.path) for entry in opened.ls(LAYER, recursive=True)]


def test_a_script_without_effect_leaves_the_image_as_it_is(tmp_path: Path) -> None:
    source = write_small(tmp_path)
    for command in ("print hello", "touch /etc/os-release", "touch /etc"):
        result = cosremaster.remaster(source, tmp_path / "out.iso", run=[command], force=True)
        assert result.identical
        assert (tmp_path / "out.iso").read_bytes() == source.read_bytes()


def test_a_script_runs_where_it_stands_among_what_is_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_small(tmp_path)
    (tmp_path / "one").write_text("1\n")
    (tmp_path / "two").write_text("2\n")
    script = tmp_path / "script.sh"
    script.write_text("need /opt/one\nwrite /opt/one changed\nprint has the first\n")
    arguments = [str(source), f"{tmp_path}/out.iso", "--remove", "/etc/hostname"]
    arguments += ["--add", f"{tmp_path}/one:/opt/", "--run", str(script), "--run", "write /etc/hostname new"]
    assert main([*arguments, "--add", f"{tmp_path}/two:/opt/one"]) == 0
    printed = capsys.readouterr()
    assert "script.sh | has the first\n" in printed.err
    assert "run script.sh: 1 changed (0.2 s, owners by a supervisor)\n" in printed.out
    assert "run write /etc/hostname new: 1 added (0.2 s" in printed.out
    with cosremaster.open(tmp_path / "out.iso") as image:
        assert image.read(f"{LAYER}::opt/one") == b"2\n"
        assert image.read(f"{LAYER}::etc/hostname") == b"new\n"
    with pytest.raises(ScriptError, match=r"^need /opt/one: it ended with exit code 1, so nothing is written$"):
        cosremaster.remaster(source, tmp_path / "no.iso", run=["need /opt/one"])
    added_later = [RunScript(command="need /opt/one"), AddPath(tmp_path / "one", "/opt/")]
    with pytest.raises(ScriptError):
        cosremaster.remaster(source, tmp_path / "no.iso", add=added_later)


def test_a_failing_script_leaves_no_output_but_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target, report = write_small(tmp_path), tmp_path / "out.iso", tmp_path / "report.json"
    command = "write /etc/x 1\nprint it broke\nexit 7"
    arguments = [str(source), str(target), "--report", str(report), "--run", "print well", "--run", command]
    assert main(arguments) == 11
    message = (
        "cosremaster: write /etc/x 1...: it ended with exit code 7, so nothing is written; its last line: it broke\n"
    )
    assert capsys.readouterr().err.endswith(message)
    assert sorted(os.listdir(tmp_path)) == sorted([source.name, "report.json"])
    values = json.loads(report.read_text())
    assert values["exit_code"] == 7 and "exit code 7" in values["error"]
    assert [run["script"] for run in values["runs"]] == ["print well"]


def test_a_script_error_survives_another_process() -> None:
    error = ScriptError("ended", None, 7)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.exit_status, again.exit_code) == ("ended", 7, 11)


def test_what_a_script_sets_is_exact(tmp_path: Path) -> None:
    source = write_small(tmp_path)
    commands = [
        "chmod 0700 /etc\nchmod 0444 /etc/os-release\nrm /usr/bin/gzip\nmkdir /usr/bin/gzip\nwrite /usr/bin/gzip/x 1",
        "chmod 1777 /var\nsymlink /var /srv",
    ]
    result = cosremaster.remaster(source, tmp_path / "out.iso", run=commands)
    with cosremaster.open(tmp_path / "out.iso") as image:
        assert image.stat(f"{LAYER}::etc").mode == 0o700
        assert image.stat(f"{LAYER}::etc/os-release").mode == 0o444
        assert image.stat(f"{LAYER}::var").mode == 0o1777
        assert image.stat(f"{LAYER}::srv").target == b"/var"
        assert image.read(f"{LAYER}::usr/bin/gzip/x") == b"1\n"
        before = [entry.path for entry in image.ls(f"{LAYER}::etc", recursive=True)]
    assert b"etc" in result.replaced and b"etc/hostname" not in result.replaced
    with cosremaster.open(source) as old:
        assert before == [entry.path for entry in old.ls(f"{LAYER}::etc", recursive=True)]
    assert cosremaster.verify(tmp_path / "out.iso", deep=True).ok
    again = cosremaster.remaster(tmp_path / "out.iso", tmp_path / "again.iso", run=["chmod 0700 /etc"])
    assert again.identical


def test_the_plan_tells_of_scripts_and_leftovers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_small(tmp_path)
    command = "mkdir /var/log\nwrite /var/log/dpkg.log lines\nmkdir /var/log/site\nwrite /etc/machine-id 1234"
    assert main(["plan", str(source), "--run", command]) == 0
    printed = capsys.readouterr()
    assert "  left behind: logs, 1 file, 6 B (--clean leaves them out)\n" in printed.out
    assert "+ var/log/dpkg.log\n" in printed.out
    assert "made etc/machine-id, by which machines are told apart" in printed.err
    assert main(["plan", str(source), "--json", "--clean", "--run", command]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["leftovers"] == [{"what": "logs", "paths": ["var/log/dpkg.log"], "bytes": 6, "left_out": True}]
    assert run["added"] == ["etc/machine-id", "var/log", "var/log/site"]
    assert (run["exit_code"], run["network"], run["remembered"]) == (0, False, False)
    assert os.listdir(tmp_path) == [source.name]


def test_no_compiled_file_of_an_older_source_stays(tmp_path: Path) -> None:
    before = [InlineFile("/opt/m.py", b"1\n"), InlineFile("/opt/__pycache__/m.cpython-311.pyc", b"of 1\n")]
    lines = ["write /opt/m.py 2", "write /opt/__pycache__/m.cpython-311.pyc of 2"]
    lines += ["write /opt/__pycache__/n.cpython-311.pyc new", "mkdir /srv", "mkdir /srv/__pycache__"]
    item = RunScript(command="\n".join([*lines, "write /srv/__pycache__/o.cpython-311.pyc new"]), clean=True)
    result = cosremaster.remaster(write_small(tmp_path), tmp_path / "out.iso", add=[*before, item])
    left_out = (b"opt/__pycache__/n.cpython-311.pyc", b"srv/__pycache__", b"srv/__pycache__/o.cpython-311.pyc")
    assert [leftover.paths for leftover in result.runs[0].leftovers] == [left_out]
    assert not {os.fsdecode(path) for path in left_out} & {*paths_of(tmp_path / "out.iso")}
    with cosremaster.open(tmp_path / "out.iso") as image:
        assert image.read(f"{LAYER}::opt/__pycache__/m.cpython-311.pyc") == b"of 2\n"


def test_options_reach_the_session(tmp_path: Path) -> None:
    source = write_small(tmp_path)
    (tmp_path / "debs").mkdir()
    options = ["--run-files", f"{tmp_path}/debs", "--run-env", "SITE=7=8", "--run-ids", "single", "--network"]
    assert main(["plan", str(source), "--run", "print x", *options, "--timeout", "9.5"]) == 0
    (run,) = fake_session.RUNS
    assert (run.files, run.environment, run.ids) == (tmp_path / "debs", (("SITE", "7=8"),), "single")
    assert (run.network, run.timeout, run.program, run.interactive) == (True, 9.5, b"print x\n", False)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (RunScript("missing.sh"), r"^missing\.sh: cannot be run: there is no such file$"),
        (RunScript(), r"^a run needs a script or a command, and not both$"),
        (RunScript(command="x", ids="root"), r"^x: ids are kept by auto, subuid, single, not by root$"),
        (RunScript(command="x", run_in="jail"), r"^x: a script runs in a namespace or vm, not in jail$"),
        (RunScript(command="x", timeout=0), r"^x: a time-out of 0 seconds makes no sense$"),
        (RunScript(command="x", files="gone"), r"^gone: cannot be shown to a script: it is not there$"),
        (RunScript(command="x", environment={"A B": ""}), r"^A B=: is no variable that a script can be given$"),
    ],
)
def test_faults_are_told_before_the_long_work(tmp_path: Path, item: RunScript, message: str) -> None:
    with pytest.raises((UsageError, OverlayError), match=message):
        cosremaster.remaster(write_small(tmp_path), tmp_path / "out.iso", add=[item])
    assert not fake_session.RUNS


def test_a_machine_that_runs_no_scripts_says_so_before_it_reads_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_layers(*_: object) -> None:
        raise AssertionError("the layers were looked for")

    monkeypatch.setattr(LayerIndex, "layers", no_layers)
    arguments = [str(write_small(tmp_path)), f"{tmp_path}/out.iso", "--run", "print x", "--run-ids", "subuid"]
    assert main(arguments) == 12
    assert capsys.readouterr().err.endswith("no ids are left to map (--run-ids single needs none)\n")


def test_faults_of_options_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_small(tmp_path)
    for arguments, message in (
        (["--network"], "--network is about scripts; --run says which"),
        (["--run", "./missing"], "--run ./missing: there is no file of that name"),
        (["--run", " "], "--run ' ': what should be run?"),
        (["--run-in", "vm"], "--run-in is about scripts; --run says which"),
        (["--run-ids", "auto"], "--run-ids is about scripts; --run says which"),
        (["--run", "x", "--run-env", "X"], "--run-env X: NAME=VALUE is wanted"),
    ):
        assert main(["plan", str(source), *arguments]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(UsageError, match="a script runs in a root file system, not where --add-iso adds files"):
        cosremaster.plan(source, Request(add_iso=[RunScript(command="x")]))


def test_a_remembered_run_is_believed_only_for_the_same_input(tmp_path: Path) -> None:
    source = write_small(tmp_path)
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs/a.deb").write_bytes(b"a")
    command = "write /opt 1\nlink /opt /new\nchmod 0600 /etc/hostname"
    item = RunScript(command=command, reuse=True, files=tmp_path / "debs")

    def run(*before: InlineFile) -> tuple[bytes, bool, int]:
        result = cosremaster.remaster(source, tmp_path / "out.iso", add=[*before, item], force=True)
        return (tmp_path / "out.iso").read_bytes(), result.runs[-1].is_remembered, len(fake_session.RUNS)

    first, is_remembered, count = run()
    assert (is_remembered, count) == (False, 1)
    assert run() == (first, True, 1)
    assert run(InlineFile("/etc/site", b"7"))[1:] == (False, 2)
    (tmp_path / "debs/a.deb").write_bytes(b"b")
    assert run()[1:] == (False, 3)
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "cosremaster/index"
    for remembered in folder.glob("*.run"):
        data = bytearray(remembered.read_bytes())
        data[-1] ^= 1
        remembered.write_bytes(data)
    assert run() == (first, False, 4)
    assert main(["cache", "clear"]) == 0
    assert not list(folder.glob("*.run"))


def test_a_remembered_run_is_not_believed_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_small(tmp_path)
    item = RunScript(command="write /opt 1", reuse=True)

    def is_remembered() -> bool:
        return cosremaster.plan(source, Request(run=[item])).runs[0].is_remembered

    assert [is_remembered(), is_remembered()] == [False, True]
    with monkeypatch.context() as patched:
        patched.setattr(fake_session, "check_run", lambda run: "subuid")
        assert not is_remembered(), "owners are kept otherwise"
    here = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*here[:2], "9.9.9", *here[3:])))
    assert not is_remembered(), "another kernel runs"


def test_a_remembered_run_of_a_machine_is_that_of_its_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = ("tests.support.fake_session", "run_in_machine", "check_machine_run")
    monkeypatch.setitem(run_script._RUNNERS, "vm", runner)
    item = RunScript(command="print booted", run_in="vm", reuse=True)
    menu = f"menuentry x {{\nlinux /vmlinuz\ninitrd /{CGZ}\n}}\n".encode()
    for kernel, is_remembered in ((b"one", False), (b"one", True), (b"two", False)):
        source = write_small(tmp_path, extra={"vmlinuz": kernel, "boot/grub/grub.cfg": menu})
        result = cosremaster.remaster(source, tmp_path / "out.iso", run=[item], force=True)
        assert result.runs[0].is_remembered is is_remembered
        with cosremaster.open(tmp_path / "out.iso") as image:
            assert image.read(f"{LAYER}::kernel").decode().strip() == kernel.hex()


RECIPE = """
input = "{source}"
output = "out.iso"

[variables]
SITE = "north"
SCRIPT = "first.sh"

[[run]]
script = "${{SCRIPT}}"
env = {{ SITE = "${{SITE}}", B = "$$1" }}
files = "debs"
timeout = 60
ids = "single"

[[add]]
file = "/etc/site"
content = "${{SITE}}\\n"

[[run]]
command = "need /etc/site\\nneed /first"
network = true

[[add]]
symlink = "/last"
target = "first"
"""


def test_a_recipe_runs_scripts_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "first.sh").write_text("write /first 1")
    (tmp_path / "debs").mkdir()
    recipe = tmp_path / "site.toml"
    recipe.write_text(RECIPE.format(source=write_small(tmp_path)))
    result = cosremaster.recipe.build(cosremaster.recipe.read_recipe(recipe))
    assert [run.name for run in result.runs] == ["first.sh", "need /etc/site..."]
    first, second = fake_session.RUNS
    assert first.environment == (("B", "$1"), ("SITE", "north")) and first.files == tmp_path / "debs"
    assert (first.timeout, first.ids, first.network, second.network) == (60, "single", False, True)
    assert result.added == (b"etc/site", b"first", b"last")
    (tmp_path / "late.toml").write_text(
        'input = "small.iso"\nadd = [{ file = "/x", content = "" }]\n[[run]]\ncommand = "need /x"\n[expect]\n'.replace(
            "small.iso", write_small(tmp_path).name
        )
    )
    read = cosremaster.recipe.read_recipe(tmp_path / "late.toml")
    assert [type(item).__name__ for item in read.request.add] == ["InlineFile", "RunScript"]


@pytest.mark.parametrize(("text", "seconds"), [('"1h"', 3600), ('"1.5m"', 90), ('"90s"', 90), ('"7"', 7), ("0.5", 0.5)])
def test_a_recipe_says_times_with_units(text: str, seconds: float, tmp_path: Path) -> None:
    recipe = tmp_path / "site.toml"
    recipe.write_text(f'input = "{write_small(tmp_path)}"\n[[run]]\ncommand = "x"\ntimeout = {text}\n')
    (run,) = cosremaster.recipe.read_recipe(recipe).request.add
    assert isinstance(run, RunScript)
    assert run.timeout == seconds


@pytest.mark.parametrize("text", ["soon", "0", "-1h", "1 year"])
def test_a_time_that_is_none_is_a_fault(text: str, tmp_path: Path) -> None:
    recipe = tmp_path / "site.toml"
    recipe.write_text(f'input = "{write_small(tmp_path)}"\n[[run]]\ncommand = "x"\ntimeout = "{text}"\n')
    with pytest.raises(cosremaster.RecipeError, match=r"site\.toml:4 » run\[0\]\.timeout: '.*' is no time"):
        cosremaster.recipe.read_recipe(recipe)


def test_no_script_runs_nothing(tmp_path: Path) -> None:
    recipe = tmp_path / "site.toml"
    recipe.write_text(f'input = "{write_small(tmp_path)}"\n[[run]]\nscript = ""\n[[run]]\nscript = "/dev/null"\n')
    assert cosremaster.recipe.read_recipe(recipe).request.add == ()


def test_faults_of_runs_in_a_recipe_have_their_lines(tmp_path: Path) -> None:
    recipe = tmp_path / "site.toml"
    recipe.write_text(
        f'input = "{write_small(tmp_path)}"\n[[run]]\nscript = "gone.sh"\ncommand = "x"\nids = "some"\n'
        '[[run]]\nenv = { "A B" = "1" }\ntimeout = 0\nnetwrk = true\n[[run]]\ncommand = "${NONE}"\nrun_in = "jail"\n'
    )
    with pytest.raises(cosremaster.RecipeError) as raised:
        cosremaster.recipe.read_recipe(recipe)
    faults = [problem.partition("site.toml")[2] for problem in raised.value.problems]
    assert faults == [
        ":2 » run[0]: needs a script or a command, and not both",
        f":3 » run[0].script: there is no file {tmp_path}/gone.sh",
        ":5 » run[0].ids: must be auto, subuid or single",
        ":6 » run[1]: needs a script or a command, and not both",
        ":7 » run[1].env.A B: is no name for a variable (letters, digits and _)",
        ":8 » run[1].timeout: must be more than 0",
        ":9 » run[1].netwrk: no such key; did you mean network?",
        ":11 » run[2].command: there is no variable NONE",
        ":12 » run[2].run_in: must be namespace or vm",
    ]


def test_the_kernel_of_a_root_is_found_by_its_name() -> None:
    paths = (b"boot/vmlinuz-6.1", b"boot/vmlinuz-6.9", b"boot/vmlinuz-notes/x", b"etc/vmlinuz")
    tree = {path: file(path, path) for path in paths} | {b"vmlinuz": symlink(b"vmlinuz", b"boot/vmlinuz-6.9")}
    assert next(list_kernels(tree)).kernel.read(0) == b"boot/vmlinuz-6.9"
    later = b"boot/vmlinuz-6.10"
    assert next(list_kernels({**tree, later: file(later, later)})).kernel.read(0) == later
    for path in (b"usr/lib/modules/6.6-arch/vmlinuz", b"bzImage", b"vmlinuz", b"boot/kernel-6.1-gentoo"):
        assert next(list_kernels({path: file(path)}), None) is not None
    assert next(list_kernels({b"etc/x": file(b"etc/x")}), None) is None
