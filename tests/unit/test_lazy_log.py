"""Messages of the log go to the standard library's loggers, if those are loaded."""

from __future__ import annotations

import logging
import sys
import types

import pytest

from cosremaster.lazy_log import LazyLogger


def test_a_message_comes_while_another_thread_loads_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "logging", types.ModuleType("logging"))
    LazyLogger("cosremaster.test").info("half loaded: %d", 1)
    LazyLogger("cosremaster.test").debug("half loaded: %d", 2)


def test_messages_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "cosremaster.test"):
        LazyLogger("cosremaster.test").info("opened %d", 1)
        LazyLogger("cosremaster.test").debug("read %d", 2)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "opened 1"), ("DEBUG", "read 2"),
    ]  # fmt: skip
