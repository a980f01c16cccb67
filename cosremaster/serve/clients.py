"""The connections of each client, over all processes of a server: whether there is room for another."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b

from cosremaster.serve.listen import ServerLimits
from cosremaster.serve.metrics import Metrics


class Clients:
    """Counts connections within ``limits``.

    Those of other processes are counted by short hashes of addresses, so that two clients may rarely share what each
    has there. The hashes have a ``key`` of all processes: nobody can choose an address by which another has no room.
    """

    def __init__(self, metrics: Metrics, limits: ServerLimits, key: bytes = b"") -> None:
        """Begin without connections."""
        self._metrics, self._limits, self._key = metrics, limits, key
        self._own = Counter[str]()

    def add(self, address: str) -> bool:
        """Count a connection from ``address``; return whether there is room for it."""
        client = self._hash(address)
        self._own[address] += 1
        self._metrics.add_connection(client, 1)
        count = self._own[address] + self._metrics.count_elsewhere(client)
        if count <= self._limits.per_client and self._metrics.total("connections") <= self._limits.connections:
            return True
        self._metrics.refused_clients += 1
        return False

    def remove(self, address: str) -> None:
        """Count a connection from ``address`` no more."""
        self._metrics.add_connection(self._hash(address), -1)
        self._own[address] -= 1
        if not self._own[address]:
            del self._own[address]

    def _hash(self, address: str) -> int:
        """Return what stands for ``address`` in other processes."""
        return int.from_bytes(blake2b(address.encode(), digest_size=8, key=self._key).digest(), "big")
