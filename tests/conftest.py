"""Fixtures that several test modules share."""

import pytest

from tests.fixtures import debirf, tools


@pytest.fixture(scope="session")
def debirf_image() -> debirf.DebirfImage:
    """The vendor-shaped image, built once and kept in the fixture cache."""
    tools.require(*debirf.TOOLS)
    return debirf.build()
