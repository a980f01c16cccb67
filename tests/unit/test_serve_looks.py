"""What several sites are made of is looked at once for all, and each change of it is seen as soon as before."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cosremaster.serve import looks
from cosremaster.serve import sites as site_images
from cosremaster.serve.access_log import AccessLog
from cosremaster.serve.app import ServeApp
from cosremaster.serve.catalogs import open_catalog
from cosremaster.serve.fingerprint import Fingerprint, take_fingerprint
from cosremaster.serve.looks import Pace, WatchedFiles, join_looks
from cosremaster.serve.sites import ServedSite, SiteImages
from cosremaster.serve.tokens import Tokens
from tests.support.small import write_small

FLEET = """base = "in.iso"
output = "out/${NAME}.iso"
[[add]]
source = "common"
[sites]
directory = "sites"
"""
SITES = 5


class Clock:
    """A clock that a test turns, and how often each path was looked at."""

    def __init__(self) -> None:
        self.now = 1024.0
        self.slow = 0.0
        self.counts = Counter[str]()

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        """Long before any file changed, so that nothing is waited for."""
        return 0.0

    def take_fingerprint(self, paths: Iterable[Path]) -> Fingerprint:
        (path,) = paths
        self.counts[path.name] += 1
        self.now += self.slow
        return take_fingerprint([path])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(looks, "time", clock)
    monkeypatch.setattr("cosremaster.serve.sites.time", clock)
    monkeypatch.setattr(looks, "take_fingerprint", clock.take_fingerprint)
    return clock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_small(tmp_path)
    (tmp_path / "fleet.toml").write_text(FLEET)
    for name in ["common", *(f"sites/site-{number}" for number in range(SITES))]:
        (tmp_path / name / "etc").mkdir(parents=True)
        (tmp_path / name / "etc" / Path(name).name).write_text(name)
    return tmp_path


@pytest.fixture
def sites(folder: Path, clock: Clock) -> Iterator[SiteImages]:
    images = SiteImages(open_catalog([folder / "fleet.toml"]), 10)
    yield images
    images.close()


NAMES = [f"site-{number}" for number in range(SITES)]


def plan(sites: SiteImages) -> list[ServedSite]:
    return [sites.find_site(name) for name in NAMES]


def test_what_sites_have_in_common_is_looked_at_once(sites: SiteImages, clock: Clock) -> None:
    plan(sites)
    clock.counts.clear()
    for _ in range(10):
        clock.now += 1.0
        assert [sites.fresh_site(name) for name in NAMES] == [None] * SITES
        assert None not in [sites.check_site(name) for name in NAMES]
        assert None not in [sites.fresh_site(name) for name in NAMES]
        assert None not in [sites.check_site(name) for name in NAMES]
    assert clock.counts == dict.fromkeys(("in.iso", "fleet.toml", "common", *NAMES), 10)


CHANGES: list[tuple[Callable[[Path], object], list[bool]]] = [
    (lambda folder: (folder / "common/etc/new").write_text(""), [True] * SITES),
    (lambda folder: (folder / "fleet.toml").write_text(FLEET + "\n"), [True] * SITES),
    (lambda folder: (folder / "in.iso").touch(), [True] * SITES),
    (lambda folder: (folder / "sites/site-1/etc/site-1").write_text("other"), [False, True, False, False, False]),
    (lambda folder: (folder / "sites/site-1").rename(folder / "gone"), [False, True, False, False, False]),
]


@pytest.mark.parametrize("change", CHANGES, ids=["common", "fleet", "base", "own", "gone"])
def test_a_change_is_seen_by_the_sites_that_it_concerns(
    sites: SiteImages, clock: Clock, folder: Path, change: tuple[Callable[[Path], object], list[bool]]
) -> None:
    """An image that counts a little longer does not, once somebody saw that it changed."""
    plan(sites)
    change[0](folder)
    clock.now += 0.9
    assert None not in [sites.fresh_site(name) for name in NAMES]
    assert [sites.check_site(name) is None for name in NAMES] == change[1]
    assert [sites.fresh_site(name) is None for name in NAMES] == change[1]
    clock.now += 0.99
    assert [sites.check_site(name) is None for name in NAMES] == change[1]


def test_no_look_counts_longer_than_its_time(sites: SiteImages, clock: Clock, folder: Path) -> None:
    """Whoever looked at a part of a site's sources meanwhile."""
    first, *_ = plan(sites)
    clock.now += 0.8
    assert sites.check_site("site-1") is not None  # looks at what they have in common too
    clock.now += 0.2
    (folder / "common/etc/new").write_text("")
    assert sites.check_site("site-0") is first
    clock.now += 0.8  # a second after that look of the other site
    assert sites.fresh_site("site-0") is None
    assert sites.check_site("site-0") is None


def test_a_look_is_renewed_before_anybody_waits(sites: SiteImages, clock: Clock) -> None:
    first, *_ = plan(sites)
    clock.now += 0.7
    assert not sites.is_due(first)
    clock.now += 0.1
    assert sites.is_due(first) and not sites.is_due(first)
    assert sites.check_site("site-0") is first
    clock.now += 0.9
    assert sites.fresh_site("site-0") is first and sites.is_due(first)
    clock.now += 0.2
    assert sites.fresh_site("site-0") is None


def test_a_request_has_a_look_renewed(sites: SiteImages, clock: Clock) -> None:
    first, *_ = plan(sites)
    log = AccessLog(lambda _: None)
    app = ServeApp(sites, log, Tokens())
    clock.now += 0.8
    clock.counts.clear()
    assert app.answer_at_once("GET", "/site-0.iso", [(b"range", b"bytes=0-9")], "") is not None
    app._checkers.shutdown()
    assert clock.counts["common"] == 1 and first.fresh_until == clock.now + 1
    app.close()
    clock.now += 0.8
    assert app.answer_at_once("GET", "/site-0.iso", [(b"range", b"bytes=0-9")], "") is not None
    log.close()


def test_a_slow_look_is_not_taken_early(tmp_path: Path, clock: Clock) -> None:
    """It takes at most a part of the time."""
    (file,) = WatchedFiles().find([tmp_path])
    clock.slow = 0.125
    look = file.look(Pace(1.0, 50))
    assert look.renewal == look.until == clock.now + 6.25
    clock.slow = 1 / 128
    again = file.look_again(Pace(1.0, 50))
    assert (again.renewal, again.until) == (clock.now + 0.75, clock.now + 1)
    assert join_looks([look, again])[1:] == (again.renewal, again.until)
    assert join_looks([look, again]).state == join_looks([again, again]).state


def test_files_that_nobody_holds_are_forgotten(tmp_path: Path) -> None:
    files = WatchedFiles()
    first, second = files.find([tmp_path / "a", tmp_path / "b"])
    assert files.find([tmp_path / "b"]) == (second,)
    del second
    gc.collect()
    assert list(files._files.values()) == [first]


def test_what_plans_leave_is_collected(sites: SiteImages, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(site_images, "gc", SimpleNamespace(collect=lambda: counts.append(sites.metrics.plans_made)))
    monkeypatch.setattr(site_images, "COLLECTION", 2)
    plan(sites)
    assert counts == [2, 4]
