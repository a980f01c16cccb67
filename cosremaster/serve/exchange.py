"""A request, and what comes of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cosremaster.records.tuples import NamedTuple
from cosremaster.serve.access_log import AccessLog, format_members, quote
from cosremaster.serve.paths import ServedPath
from cosremaster.serve.ranges import Answer, Fields, has_unknown_position

if TYPE_CHECKING:
    from cosremaster.serve.metrics import Metrics

_LONGEST_VALUE = 200
"""Bytes of a field in the log."""
_HINT = (
    "bytes=u-u comes from an iPXE that was built for another platform: it cannot boot an image over HTTP"
    " (github.com/ipxe/ipxe/issues/767); /SITE/boot.ipxe may work with it"
)


class RefusalError(Exception):
    """A request that gets a plain answer instead of what it asked for."""

    def __init__(self, answer: Answer) -> None:
        """Keep the answer."""
        super().__init__(answer.status)
        self.answer = answer


class Reply(NamedTuple):
    """An answer all of whose body is at hand. ``fields``: those of its head."""

    status: int
    fields: Fields
    body: bytes


class Exchange:
    """A request, and what the log says of its answer.

    ``fields``: names in lower case; ``target``: what its path means; ``path``: how the log shows that.
    ``is_malformed``: it has no host, or several.
    """

    __slots__ = (
        "begun",
        "client",
        "error",
        "fields",
        "is_begun",
        "is_malformed",
        "method",
        "path",
        "sent",
        "status",
        "target",
    )

    def __init__(self, method: str, target: ServedPath, path: str, fields: Fields, client: str) -> None:
        """Begin with a request of ``client``."""
        self.method, self.target, self.path, self.fields, self.client = method, target, path, fields, client
        self.begun = time.perf_counter()
        self.status, self.sent, self.is_begun, self.is_malformed = 0, 0, False, False
        self.error: str | None = None

    def text_of(self, name: bytes) -> str | None:
        """Return the field ``name`` for the log, shortened; None without it."""
        values = [value for key, value in self.fields if key == name]
        if not values:
            return None
        value = values[0] if len(values) == 1 else b", ".join(values)
        return value[:_LONGEST_VALUE].decode("utf-8", "backslashreplace")

    def end(self, metrics: Metrics, log: AccessLog) -> None:
        """Count and log the answer."""
        method, status = self.method, self.status
        metrics.count_answer(method, status, self.sent)
        seconds = time.perf_counter() - self.begun
        range_text, agent = self.text_of(b"range"), self.text_of(b"user-agent")
        # by hand: most of the time of an answer would go into its line
        members = f',"client":{quote(self.client)},"method":{quote(method)},"path":{quote(self.path)},"status":{status}'
        if range_text is not None:
            members += f',"range":{quote(range_text)}'
        members += f',"sent":{self.sent},"seconds":{seconds:.6f}'
        if agent is not None:
            members += f',"agent":{quote(agent)}'
        if self.error is not None or status != 206:
            hint = _HINT if has_unknown_position(self.fields) else None
            members += format_members(error=self.error, hint=hint)
        log.add_members("answer", members)
