"""Fixtures that several test modules share, and the mark of each room: unit, tools, boot."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.fixtures import debirf, tools
from tests.support.apollo import example  # noqa: F401 - a fixture
from tests.support.debirf_site import base, remastered, user  # noqa: F401 - fixtures
from tests.support.family_edits import overlay  # noqa: F401 - a fixture
from tests.support.harmonic import harmonic  # noqa: F401 - a fixture
from tests.support.kernel_args import plain, with_fat_menu  # noqa: F401 - fixtures
from tests.support.live_discs import live_disc  # noqa: F401 - a fixture
from tests.support.platform_iso import platform  # noqa: F401 - a fixture
from tests.support.volume_ids import by_name  # noqa: F401 - a fixture

ROOMS = ("unit", "tools", "boot")

LONGEST_NAME = 16  # bytes of a parameter that are still worth reading in the name of a test

# How long an example takes decides no test: a loaded machine is no fault.
settings.register_profile("timeless", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("timeless")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every test the mark of the folder that it stands in, and leave slow tests out unless they are wanted."""
    if os.environ.get("COSREMASTER_SLOW_TESTS") != "1":
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    tests = Path(__file__).parent
    for item in items:
        room = item.path.relative_to(tests).parts[0]
        if room in ROOMS:
            item.add_marker(room)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long bytes by their argument: the workers must agree on names, and bytes may hold the time of packing."""
    return argname if isinstance(val, bytes) and len(val) > LONGEST_NAME else None


@pytest.fixture(scope="session")
def debirf_image() -> debirf.DebirfImage:
    """Return the vendor-shaped image, built once and kept in the fixture cache."""
    tools.require(*debirf.TOOLS)
    return debirf.build()


@pytest.fixture(autouse=True)
def own_index_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test remember indexes in a folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Let tests send SIGINT: a shell makes what it runs in the background ignore it, and so all that this starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def usual_umask() -> Iterator[None]:
    """Let the umask of who runs the tests decide no mode that they compare; tests/tools/test_umask.py sets others."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True, scope="session")
def unsynced() -> Iterator[None]:
    """Spare the disk in tests that run in this process; tests/tools/test_durability.py runs the program itself."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", lambda fd: None)
        yield
