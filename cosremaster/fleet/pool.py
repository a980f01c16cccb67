"""Processes that make the sites of a fleet, and can be told to leave them."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from cosremaster.api.many import start_worker, stop_worker


class SitePool(ProcessPoolExecutor):
    """``jobs`` worker processes, begun anew, that make sites."""

    def __init__(self, jobs: int) -> None:
        """Remember which child processes are of others."""
        self._others = set(multiprocessing.active_children())
        super().__init__(jobs, multiprocessing.get_context("spawn"), initializer=start_worker)

    def _list_workers(self) -> list[multiprocessing.process.BaseProcess]:
        """Return the processes of this pool."""
        return [process for process in multiprocessing.active_children() if process not in self._others]

    def stop_sites(self) -> None:
        """Let the workers leave their sites, and tell what they finished; they begin none any more."""
        for process in self._list_workers():
            stop_worker(process)

    def end_workers(self) -> None:
        """End the workers, which remove what is unfinished."""
        for process in self._list_workers():
            process.terminate()
        self.shutdown(wait=True, cancel_futures=True)
