"""Every bad file of the fuzzer's corpus ends with a right result or one of our errors, whatever is done with it."""

from functools import cache
from pathlib import Path

import pytest

from tests.fixtures import tools
from tests.fuzz.corpus import CORPUS, make_corpus
from tests.fuzz.mutate import mutate
from tests.fuzz.seeds import SEEDS, TOOLS, make_seeds
from tests.fuzz.targets import (
    CHANGES,
    LAYER_CHANGES,
    TARGETS,
    FindingError,
    bounded,
    check_layer,
    check_result,
    compare_layers,
    run_program,
    run_remaster,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the seeds."""
    tools.require(*TOOLS)
    return tmp_path_factory.mktemp("fuzz")


@cache
def bad_files(target: str, folder: Path) -> dict[str, bytes]:
    """The corpus of a target."""
    return make_corpus(target, folder / target)


@pytest.mark.parametrize("name", CORPUS)
def test_a_bad_file_makes_no_finding(name: str, folder: Path, tmp_path: Path) -> None:
    target = CORPUS[name].target
    data = bad_files(target, folder)[name]
    TARGETS[target][0](data, tmp_path)
    if target in ("image", "layer"):
        path = tmp_path / "bad"
        path.write_bytes(data)
        with bounded():
            for command in ("ls -lR", "verify --deep", "inspect --json"):
                run_program(*command.split(), path)
            for number in range(len(CHANGES)) if target == "image" else (4, 7):
                words, changed = CHANGES[number]
                out = run_remaster(path, tmp_path, words)
                if target == "image" and out is not None:
                    check_result(path, out, changed)


@pytest.mark.parametrize("target", SEEDS)
def test_seeds_are_sound(target: str, folder: Path, tmp_path: Path) -> None:
    for name, data in make_seeds(target, folder / f"{target}-seeds").items():
        (tmp_path / name).mkdir()
        TARGETS[target][0](data, tmp_path / name)
        if target == "image":
            (tmp_path / "sound.iso").write_bytes(data)
            assert run_program("verify", tmp_path / "sound.iso") == 0


def test_mutations_depend_on_their_seed_alone() -> None:
    data = bytes(range(256)) * 8
    assert mutate(data, 4000, 7) == mutate(data, 4000, 7)
    assert len({mutate(data, 4000, seed) for seed in range(50)}) > 40
    assert all(len(mutate(data, 100, seed)) <= 100 for seed in range(50))


def test_a_traceback_and_an_endless_run_are_findings() -> None:
    with pytest.raises(FindingError, match=r"ValueError: no"), bounded():
        raise ValueError("no")


@pytest.mark.parametrize("number", [0, 1, 7])
def test_a_result_with_a_fault_that_the_input_has_not_is_a_finding(number: int, folder: Path, tmp_path: Path) -> None:
    words, changed = CHANGES[number]
    for name, data in make_seeds("image", folder / f"results-{number}").items():
        path = tmp_path / f"{name}.iso"
        path.write_bytes(data)
        out = run_remaster(path, tmp_path, words)
        assert out is not None
        raw = bytearray(out.read_bytes())
        raw[16 * 2048 + 84] ^= 1  # the volume's size in one byte order
        out.write_bytes(raw)
        with pytest.raises(FindingError, match=r"fails volume\.both-endian"):
            check_result(path, out, changed)


@pytest.mark.parametrize("target", ["squashfs", "erofs", "tar"])
def test_a_layer_that_differs_elsewhere_is_a_finding(target: str, folder: Path, tmp_path: Path) -> None:
    for name, data in make_seeds(target, folder / f"{target}-layers").items():
        path = tmp_path / f"{name}.sqfs"
        path.write_bytes(data)
        for words, changed in LAYER_CHANGES[: 6 if target == "squashfs" else 3]:
            out = run_remaster(path, tmp_path, words)
            if out is None:  # some forms of EROFS are read alone
                assert target == "erofs"
                continue
            compare_layers(path, out, changed)
            check_layer(path, out)
            if changed:
                with pytest.raises(FindingError, match="the result differs"):
                    compare_layers(path, out, ())


def test_a_disk_becomes_a_tar_archive_of_the_same(folder: Path, tmp_path: Path) -> None:
    for name, data in make_seeds("disk", folder / "disks").items():
        path, words = tmp_path / name, ("--add", "NEW:/etc/new")
        path.write_bytes(data)
        address = "@gpt1" if name in ("gpt", "qcow2") else "@root"
        out = run_remaster(path, tmp_path, (*words, "--layer", "@gpt1") if address == "@gpt1" else words, "out.tar")
        assert out is not None
        compare_layers(path, out, ("etc",), address)
        with pytest.raises(FindingError, match="added of etc"):
            compare_layers(path, out, (), address)
