"""Fixtures that several test modules share."""

import pytest

from tests.fixtures import debirf, tools


@pytest.fixture(scope="session")
def debirf_image() -> debirf.DebirfImage:
    """The vendor-shaped image, built once and kept in the fixture cache."""
    tools.require(*debirf.TOOLS)
    return debirf.build()


@pytest.fixture(autouse=True)
def own_index_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test remembers indexes in a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
