"""Workers on other machines, by Dask: nothing but an executor of ``concurrent.futures``."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from cosremaster.errors import UsageError
from cosremaster.records import Struct

_SECONDS = 30
"""So long a scheduler may take to answer."""


class Cluster(Struct, frozen=True):
    """The ``executor`` of a cluster, and how many sites its workers can work on at once."""

    executor: Executor
    window: int


@contextmanager
def open_cluster(address: str) -> Iterator[Cluster]:
    """Give the cluster whose scheduler is at ``address``, such as ``tcp://10.0.0.1:8786``.

    Its workers need the same version of cosremaster, and have to reach base, overlays and outputs by the same paths.

    :raises UsageError: Dask is not installed, or no scheduler with workers answers.
    """
    try:
        from distributed import Client  # noqa: PLC0415 - an extra, which takes a second to load
    except ImportError as error:
        raise UsageError("--scheduler needs Dask: pip install 'cosremaster[dask]'") from error
    try:
        client = Client(address, timeout=_SECONDS)
    except (OSError, ValueError) as error:
        raise UsageError(f"--scheduler {address}: no scheduler answers: {error}") from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise UsageError(f"--scheduler {address}: the cluster has no workers")
        yield Cluster(client.get_executor(pure=False), threads)
