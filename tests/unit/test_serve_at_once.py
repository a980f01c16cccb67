"""Answers for which nothing has to be waited: they are those of the application, counted and logged as all."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosremaster.errors import UsageError
from cosremaster.serve import paths
from cosremaster.serve.access_log import AccessLog
from cosremaster.serve.app import CHUNK, ServeApp
from cosremaster.serve.catalogs import RecipeCatalog
from cosremaster.serve.exchange import Reply
from cosremaster.serve.paths import PathReader, ServedPath
from cosremaster.serve.sites import ServedSite, SiteImages
from cosremaster.serve.tokens import Tokens
from tests.support.serving import write_images, write_recipes
from tests.support.small import write_small

TOKEN = "0123456789abcdef"


class Served:
    """An application with a site, and what it logs."""

    def __init__(self, folder: Path, tokens: str = "") -> None:
        base = write_small(folder, extra={"pad": bytes(range(256)) * 2000})
        recipes = write_recipes(folder, base, 1)
        self.image = write_images(recipes)["site-0"].read_bytes()
        self.lines: list[str] = []
        self.log = AccessLog(self.lines.append)
        self.sites = SiteImages(RecipeCatalog(recipes), 10)
        self.app = ServeApp(self.sites, self.log, Tokens(tokens.splitlines()))

    def ask(self, path: str = "/site-0.iso", method: str = "GET", **fields: bytes) -> Reply | None:
        names = [(name.replace("_", "-").encode(), value) for name, value in fields.items()]
        return self.app.answer_at_once(method, path, names, "127.0.0.1")

    def stop(self) -> str:
        """Ends, and returns the log."""
        self.app.close()
        self.sites.close()
        self.log.close()
        return "".join(self.lines)


def test_few_bytes_of_a_site_that_is_planned(tmp_path: Path) -> None:
    served = Served(tmp_path)
    assert served.ask(range=b"bytes=0-9") is None  # it is not planned
    site = served.sites.find_site("site-0")
    parts = [served.ask(range=b"bytes=%d-%d" % (start, start + 9999)) for start in (0, 5, 100_000)]
    bodies = [None if part is None else part.body for part in parts]
    assert bodies == [served.image[start : start + 10_000] for start in (0, 5, 100_000)]
    assert served.ask(range=b"bytes=0-%d" % CHUNK) is None  # too many at once
    assert served.ask("/site-0.iso.sha256") is None and served.ask("/") is None and served.ask("/healthz") is None
    whole = served.ask(method="HEAD")
    assert whole is not None and (whole.status, whole.body) == (200, b"")
    gone = served.ask("/gone.iso", "HEAD")
    assert gone is not None and (gone.status, gone.body) == (404, b"")
    site.fresh_until = 0.0
    assert served.ask(range=b"bytes=0-9") is None  # its sources are to be looked at
    assert sorted(served.app.metrics.answers.items()) == [(("GET", 206), 3), (("HEAD", 200), 1), (("HEAD", 404), 1)]
    assert served.app.metrics.sent_bytes == 30_000
    assert served.stop().count("\n") == 5


def test_what_cannot_be_read_is_left_to_the_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(tmp_path)
    site = served.sites.find_site("site-0")
    with (tmp_path / "in.iso").open("r+b") as file:
        file.write(b"changed")
    assert served.ask(range=b"bytes=0-9") is None
    site.close()
    assert served.ask(range=b"bytes=0-9") is None
    with pytest.raises(UsageError, match="is closed"):
        site.image.read(0, 10)
    monkeypatch.setattr(ServedSite, "using", None)
    monkeypatch.setattr(SiteImages, "fresh_site", None)  # a fault of ours
    assert served.ask(range=b"bytes=0-9") is None
    assert served.app.metrics.answers.total() == 0
    assert served.stop() == ""


def test_a_token_counts_for_each_answer(tmp_path: Path) -> None:
    served = Served(tmp_path, TOKEN)
    served.sites.find_site("site-0")
    wrong = TOKEN[:-1] + "X"
    words = [f"/s/{TOKEN}/site-0.iso", f"/s/{wrong}/site-0.iso", "/site-0.iso"] * 2
    assert [(reply := served.ask(word, "HEAD")) and reply.status for word in words] == [200, 404, 401] * 2
    assert served.app.metrics.refused_tokens == 2
    log = served.stop()
    assert TOKEN not in log and wrong not in log and log.count('"path":"/s/***/site-0.iso"') == 4


def test_paths_are_remembered_up_to_a_number() -> None:
    reader = PathReader(Tokens([TOKEN]))
    for _ in range(2):
        assert reader.read(f"/s/{TOKEN}/a.iso") == (ServedPath("image", "a", token=TOKEN), "/s/***/a.iso")
        assert reader.read("/a.iso") == (ServedPath("image", "a"), "/a.iso")
        assert reader.read(f"/{TOKEN}/a.iso")[1] == "/***/a.iso"
        for ending in ("", ".iso", ".iso.sha256", ".sha256"):
            assert reader.read(f"/s/a/{TOKEN}{ending}")[1] == f"/s/***/***{ending}"
        assert reader.read("/" + "a" * 9000)[1] == "/..."
    for number in range(3 * paths.REMEMBERED):
        reader.read(f"/{number}.iso")
    info = reader._read_remembered.cache_info()
    assert info.currsize == paths.REMEMBERED
    assert reader.read(f"/s/{TOKEN}/a.iso")[1] == "/s/***/a.iso"
