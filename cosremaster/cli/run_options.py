"""The options about scripts that run inside an image (docs/run.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click
from click.core import ParameterSource

from cosremaster.cli.options import FileText, LocalPath
from cosremaster.errors import UsageError
from cosremaster.overlay.request import ID_CHOICES, RUN_PLACES, AddPath, OverlayItem, RunScript
from cosremaster.records.lazy_dataclass import replace

RUN_OPTIONS = (
    click.option(
        "--run", "scripts", multiple=True, type=FileText(), metavar="FILE|COMMAND",
        help="Run a script, or a command for /bin/sh, inside the root filesystem as the options before it leave it;"
        " what it changes is added. May be given again.",
    ),
    click.option(
        "--run-files", metavar="DIR", help="Show DIR, or a file, to scripts at /run/cosremaster.",
        type=LocalPath(),
    ),
    click.option(
        "--run-env", multiple=True, metavar="NAME=VALUE", help="Set a variable for scripts. May be given again."
    ),
    click.option(
        "--run-ids", type=click.Choice(ID_CHOICES), default="auto",
        help="How scripts keep owners: by the ids of /etc/subuid, by a single id with a supervisor, or by the first"
        " that works.",
    ),
    click.option(
        "--run-in", type=click.Choice(RUN_PLACES), default="namespace",
        help="Where scripts run: in namespaces of this system, or in QEMU.",
    ),
    click.option("--network", is_flag=True, help="Let scripts reach HTTP and HTTPS servers, through a proxy."),
    click.option(
        "--network-allow", multiple=True, metavar="HOST:PORT",
        help="Let scripts reach a server on this machine, or at another port, too: localhost:3142. May be given again.",
    ),
    click.option(
        "--run-dir", metavar="DIR", type=LocalPath(),
        help="Let DIR hold the root filesystem while scripts run; else memory does.",
    ),
    click.option(
        "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="End a script after SECONDS."
    ),
    click.option(
        "--clean", is_flag=True,
        help="Leave out what builds are known to leave behind: caches and lists of apt, logs, compiled Python files.",
    ),
    click.option(
        "--reuse-runs", is_flag=True,
        help="Take what a script changed the last time it ran in the same root filesystem with the same files.",
    ),
)  # fmt: skip

_ALONE = {"run_files": "--run-files", "run_env": "--run-env", "run_ids": "--run-ids", "run_in": "--run-in",
          "network": "--network", "network_allow": "--network-allow", "run_dir": "--run-dir", "timeout": "--timeout",
          "clean": "--clean", "reuse_runs": "--reuse-runs"}  # fmt: skip
"""Options that say nothing without a script."""


def pop_scripts(options: dict[str, Any], *, is_shell: bool = False) -> list[RunScript]:
    """Take the options of :data:`RUN_OPTIONS` out of ``options`` and return the scripts that they make, in order.

    ``is_shell``: the last of them is a shell on the terminal.

    :raises UsageError: an option is about scripts, and there is none.
    """
    scripts = [RunScript.parse(text) for text in options.pop("scripts")]
    if is_shell:
        scripts.append(RunScript(is_shell=True))
    source_of = click.get_current_context().get_parameter_source
    useless = [option for name, option in _ALONE.items() if source_of(name) is not ParameterSource.DEFAULT]
    if useless and not scripts:
        raise UsageError(f"{useless[0]} is about scripts; --run says which")
    rules = {
        "files": options.pop("run_files"), "environment": _parse_variables(options.pop("run_env")),
        "ids": options.pop("run_ids"), "run_in": options.pop("run_in"), "network": options.pop("network"),
        "network_allow": options.pop("network_allow"), "directory": options.pop("run_dir"),
        "timeout": options.pop("timeout"), "clean": options.pop("clean"), "reuse": options.pop("reuse_runs"),
    }  # fmt: skip
    return [replace(script, **rules) for script in scripts]


def _parse_variables(texts: Iterable[str]) -> dict[str, str]:
    """Return the variables that ``texts`` set. :raises UsageError: one has no ``=``, or two are of one name."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--run-env {text}: NAME=VALUE is wanted")
        if name in values:
            raise UsageError(f"--run-env sets {name} twice, and only one of both can count")
        values[name] = value
    return values


def order_items(
    order: Iterable[str], paths: Sequence[AddPath], archives: Sequence[AddPath], scripts: Sequence[RunScript]
) -> Iterator[OverlayItem]:
    """Yield what is added, in the order of the options, of which ``order`` has the names.

    Between two scripts, ``archives`` (of ``--add-file``) come after ``paths`` (of ``--add``).
    """
    remaining = {"add": list(paths), "add_file": list(archives)}
    waiting: dict[str, list[AddPath]] = {"add": [], "add_file": []}
    pending = list(scripts)
    for name in order:
        if name in waiting:
            waiting[name].append(remaining[name].pop(0))
        elif name == "scripts":
            for items in waiting.values():
                yield from items
                items.clear()
            yield pending.pop(0)
    for name, items in waiting.items():
        yield from (*items, *remaining[name])
    yield from pending
