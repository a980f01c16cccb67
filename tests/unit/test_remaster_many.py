"""Many images of one base: what comes of each, on threads and processes, and where a worker dies."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

import cosremaster
from cosremaster import InlineFile, Request, Site
from cosremaster.api import many
from cosremaster.errors import ImageError, UsageError
from tests.support.small import write_small

NAMES = ("north", "south", "west")


def _site(folder: Path, name: str, request: Request | None = None) -> Site:
    made = Request(add=[InlineFile("/etc/site", name.encode() * 99)], source_date_epoch=1_700_000_000)
    return Site(name=name, target=folder / f"{name}.iso", request=request or made)


def _forked(workers: int) -> Executor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("fork"))


@pytest.mark.parametrize(
    "make", [lambda: None, lambda: ThreadPoolExecutor(2), lambda: _forked(2)], ids=["alone", "threads", "processes"]
)
def test_every_executor_makes_the_same_images(make: Callable[[], Executor | None], tmp_path: Path) -> None:
    base = write_small(tmp_path)
    (tmp_path / "out").mkdir()
    reported: list[str] = []
    sites = [_site(tmp_path / "out", name) for name in NAMES]
    executor = make()
    results = cosremaster.remaster_many(base, sites, executor, on_result=lambda result: reported.append(result.name))
    if executor is not None:
        executor.shutdown()
    assert [result.name for result in results] == list(NAMES) and sorted(reported) == sorted(NAMES)
    for site, result in zip(sites, results, strict=True):
        assert result.ok and result.result is not None and result.result.added == (b"etc/site",)
        assert result.sha256 == many.digest_file(site.target)
        assert pickle.loads(pickle.dumps(result)) == result
    cosremaster.remaster(base, tmp_path / "single.iso", add=sites[1].request.add, source_date_epoch=1_700_000_000)
    assert (tmp_path / "out/south.iso").read_bytes() == (tmp_path / "single.iso").read_bytes()
    assert not many._BASES._images, "no base stays open"
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix == ".part"]


def _enter(folder: str, environment: dict[str, str]) -> None:
    """Begin a worker as on another machine."""
    os.chdir(folder)
    os.environ.update(environment)


def _worker_in(folder: Path, **environment: str) -> Executor:
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(1, context, initializer=_enter, initargs=(str(folder), environment))


def test_a_worker_in_another_folder_makes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a cluster have folders and an environment of their own, perhaps with an older base in them."""
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    for folder, text in (("here", b"right"), ("there", b"wrong")):
        (tmp_path / folder).mkdir()
        write_small(tmp_path / folder, extra={"text": text})
        (tmp_path / folder / "added").write_bytes(text)
    monkeypatch.chdir(tmp_path / "here")
    request = Request(add=["added:/etc/", InlineFile("/etc/x", b"1")], add_iso=["added:/"])
    with _worker_in(tmp_path / "there") as executor:
        (result,) = cosremaster.remaster_many("in.iso", [Site(name="a", target="a.iso", request=request)], executor)
    assert result.ok and result.target == "a.iso"
    assert not (tmp_path / "there/a.iso").exists()
    cosremaster.remaster("in.iso", "b.iso", add=request.add, add_iso=request.add_iso)
    assert Path("a.iso").read_bytes() == Path("b.iso").read_bytes()

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    with _worker_in(tmp_path / "there", SOURCE_DATE_EPOCH="7") as executor:
        (result,) = cosremaster.remaster_many("in.iso", [Site(name="c", target="c.iso", request=request)], executor)
    cosremaster.remaster("in.iso", "d.iso", add=request.add, add_iso=request.add_iso)
    assert result.ok and Path("c.iso").read_bytes() == Path("d.iso").read_bytes() != Path("b.iso").read_bytes()
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    with _worker_in(tmp_path / "there", SOURCE_DATE_EPOCH="7") as executor:
        (result,) = cosremaster.remaster_many("in.iso", [Site(name="e", target="e.iso", request=request)], executor)
    assert (result.exit_code, result.error) == (2, "the worker has a SOURCE_DATE_EPOCH, and who asks it has none")


def test_a_worker_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = write_small(tmp_path)
    executor = _forked(1)
    executor.submit(os.getpid).result()  # the worker is forked with the version that is true
    monkeypatch.setattr(many, "__version__", "9.9")
    (result,) = cosremaster.remaster_many(base, [_site(tmp_path, "a")], executor)
    executor.shutdown()
    assert result.exit_code == 2 and "9.9 asks it" in result.error and not (tmp_path / "a.iso").exists()


def test_a_window_that_lets_none_begin_is_refused(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(UsageError, match="a window of -1 sites lets none begin"):
        cosremaster.remaster_many(write_small(tmp_path), [_site(tmp_path, "a")], executor, window=-1)


def test_a_site_that_fails_stops_no_other(tmp_path: Path) -> None:
    base = write_small(tmp_path)
    bad = _site(tmp_path, "bad", Request(remove=["/no/such/file"]))
    broken = Site(name="broken", target=tmp_path / "broken.iso", request=Request(remove=[7]))  # type: ignore[list-item]
    results = cosremaster.remaster_many(base, [bad, broken, _site(tmp_path, "good")])
    assert [(result.name, result.exit_code) for result in results] == [("bad", 7), ("broken", 70), ("good", 0)]
    assert "no/such/file" in results[0].error and not (tmp_path / "bad.iso").exists()


def test_a_name_or_a_target_twice_is_refused(tmp_path: Path) -> None:
    base, north = write_small(tmp_path), _site(tmp_path, "north")
    with pytest.raises(UsageError, match="the site north is there twice"):
        cosremaster.remaster_many(base, [north, north])
    with pytest.raises(UsageError, match="two sites are to be written there"):
        cosremaster.remaster_many(base, [north, Site(name="n", target=north.target, request=Request())])
    with pytest.raises(ImageError):
        cosremaster.remaster_many(tmp_path / "none.iso", [north])
    assert not (tmp_path / "north.iso").exists()


@pytest.mark.parametrize("delta", [False, True])
def test_a_killed_worker_names_its_sites_and_leaves_no_file(
    delta: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is killed while the image has its temporary name."""
    base, out = write_small(tmp_path), tmp_path / "out"
    out.mkdir()
    real = many._make_site

    def make(image: cosremaster.Image, site: Site, options: cosremaster.BaseOptions) -> cosremaster.SiteResult:
        if site.name == "south":
            real(image, site, options)  # it has its name, but nobody knows
            (out / ".cosremaster-0123456789abcdef.part").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return real(image, site, options)

    monkeypatch.setattr(many, "_make_site", make)
    executor = _forked(1)
    sites, options = [_site(out, name) for name in NAMES], cosremaster.BaseOptions(delta=delta)
    results = cosremaster.remaster_many(base, sites, executor, options=options)
    assert [(result.name, result.exit_code, result.begun) for result in results] == [
        ("north", 0, True), ("south", 8, True), ("west", 8, False)
    ]  # fmt: skip
    assert "a worker died" in results[1].error and "not begun" in results[2].error
    assert sorted(path.name for path in out.iterdir()) == ["north.iso", *(["north.iso.json"] if delta else [])]
