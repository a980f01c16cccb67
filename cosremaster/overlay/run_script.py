"""The item :class:`RunScript`: what a script changes in the file system becomes an addition.

Where and how it runs is the matter of :mod:`cosremaster.sandbox`; here its text and its options are checked before the
long work, and its changes are turned into nodes that lie over the file system.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosremaster.errors import OverlayError, Place, SandboxError, ScriptError, UsageError, printable
from cosremaster.overlay.addition import Addition
from cosremaster.overlay.exact_nodes import is_same_node
from cosremaster.overlay.items import ReadContext
from cosremaster.overlay.leftovers import Leftover, find_identities, find_leftovers
from cosremaster.overlay.request import ID_CHOICES, RunScript
from cosremaster.overlay.run_outcome import ScriptOutcome
from cosremaster.progress import ShowsOutput
from cosremaster.records import Struct, replace
from cosremaster.sandbox.model import ScriptChanges, ScriptRun, Way
from cosremaster.suggestions import suggest_file
from cosremaster.tree.nodes import Node

if TYPE_CHECKING:
    from cosremaster.sandbox.machine_boot import MachineBoot

_MAX_TEXT = 16 << 20
"""Bytes of a script that are read."""

_RUNNERS = {
    "namespace": ("cosremaster.sandbox.session", "run_script", "check_run"),
    "vm": ("cosremaster.sandbox.machine", "run_in_machine", "check_machine_run"),
}
"""Where a script runs: the module, the function of it that runs one, and the one that checks that it can, and returns
how owners are kept."""

_MAX_PREFIX = 24
"""Characters of a command in front of its lines."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_numbers = count()


def prepare_script(item: RunScript, context: ReadContext) -> PreparedScript:
    """Read the script of ``item`` and check that it can run on this machine.

    :raises UsageError: it is none, or an option makes no sense. :raises OverlayError: a file cannot be read.
    :raises ScriptError: this machine runs no scripts, for the reason that the message gives.
    """
    if context.option != "--add":
        raise UsageError(f"{item.name}: a script runs in a root file system, not where {context.option} adds files")
    _check_options(item)
    run = ScriptRun(
        program=b"" if item.is_shell else _read_program(item),
        name=item.name,
        environment=tuple(_check_environment(item.environment)),
        files=None if item.files is None else _check_files(Path(item.files)),
        network=item.network or bool(item.network_allow),
        network_allow=_parse_servers(item.network_allow),
        directory=None if item.directory is None else Path(item.directory).absolute(),
        ids=item.ids,  # type: ignore[arg-type]  # it is one of ID_CHOICES
        timeout=item.timeout,
        interactive=item.is_shell,
        max_mtime=context.max_mtime,
    )
    module, _, check = _RUNNERS[item.run_in]
    way = getattr(importlib.import_module(module), check)(run)
    return PreparedScript(item, run, context, way)


def _check_options(item: RunScript) -> None:
    """Check the options of ``item``. :raises UsageError: one makes no sense."""
    if item.is_shell + (item.script is not None) + (item.command is not None) != 1:
        raise UsageError("a run needs a script or a command, and not both")
    if item.command is not None and (not item.command.strip() or "\0" in item.command):
        raise UsageError("a command to run is empty, or holds a NUL")
    if item.ids not in ID_CHOICES:
        raise UsageError(f"{item.name}: ids are kept by {', '.join(ID_CHOICES)}, not by {item.ids}")
    if item.run_in not in _RUNNERS:
        raise UsageError(f"{item.name}: a script runs in a {' or '.join(_RUNNERS)}, not in {item.run_in}")
    if item.timeout is not None and not 0 < item.timeout < float("inf"):
        raise UsageError(f"{item.name}: a time-out of {item.timeout:g} seconds makes no sense")
    if item.is_shell and item.run_in == "vm":
        raise UsageError("a shell runs in a namespace, not in a vm")


def _check_environment(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the variables of ``environment``, sorted. :raises UsageError: one is none that can be set."""
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise UsageError(f"{printable(name)}={printable(value)}: is no variable that a script can be given")
    return sorted(environment.items())


def _read_program(item: RunScript) -> bytes:
    """Return the text of the script or command of ``item``. :raises OverlayError: it cannot be read."""
    if item.script is None:
        return os.fsencode(item.command or "") + b"\n"
    place = Place().inside(os.fsencode(item.script))
    try:
        if not os.path.isfile(item.script):
            reason = f"there is no such file{suggest_file(item.script)}"
            if os.path.isdir(item.script):
                reason = "is a directory"
            raise OverlayError(f"cannot be run: {reason}", place)
        with open(item.script, "rb") as file:
            program = file.read(_MAX_TEXT + 1)
    except OSError as error:
        raise OverlayError(f"cannot be run: {error.strerror}", place) from error
    if len(program) > _MAX_TEXT:
        raise OverlayError(f"cannot be run: it has more than {_MAX_TEXT >> 20} MiB", place)
    if program.startswith(b"\x7fELF"):
        raise OverlayError("cannot be run: it is a program, not a script; give a command that starts it", place)
    if b"\r\n" in program.partition(b"\n")[0] + b"\n" and program.startswith(b"#!"):
        raise OverlayError("cannot be run: its lines end as those of Windows, so no interpreter would be found", place)
    return program


def _parse_servers(servers: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Return hosts with their ports. :raises UsageError: one of ``servers`` is none."""
    if isinstance(servers, str):
        servers = (servers,)
    if not servers:
        return ()
    from cosremaster.sandbox.reach import parse_allowed  # noqa: PLC0415 - few scripts name one

    return tuple(parse_allowed(server) for server in servers)


def _check_files(path: Path) -> Path:
    """Return ``path``, which the script is to find. :raises OverlayError: it is not there."""
    if not path.exists():
        raise OverlayError("cannot be shown to a script: it is not there", Place().inside(os.fsencode(path)))
    return path.absolute()


class PreparedScript(Struct, frozen=True):
    """A script that runs when the file system is known.

    ``context``: takes its outcome, and holds its new files. ``way``: how owners are kept here.
    """

    item: RunScript
    run: ScriptRun
    context: ReadContext
    way: Way

    def additions(self, tree: Mapping[bytes, Node]) -> Sequence[Addition]:
        """Run the script in ``tree`` and return what it changed.

        :raises ScriptError: it failed, or ended otherwise than by itself.
        """
        changes, is_remembered = self._find_changes(tree)
        leftovers = find_leftovers(changes.nodes, tree)
        dropped = {path for leftover in leftovers for path in leftover.paths} if self.item.clean else set()
        number = next(_numbers)
        nodes = tuple(
            node if node.link is None else replace(node, link=("run", number, node.link))
            for node in changes.nodes
            if node.path not in dropped
        )
        self._report(tree, nodes, changes, leftovers, is_remembered=is_remembered)
        return [
            Addition(
                nodes, b"", False, False, self.run.name, hidden_paths=changes.removed, is_archive=True, is_exact=True
            )
        ]

    def _find_changes(self, tree: Mapping[bytes, Node]) -> tuple[ScriptChanges, bool]:
        """Return what the script changes in ``tree``, and whether an earlier run says so."""
        boot = self._find_boot(tree) if self.item.run_in == "vm" else None
        if not self.item.reuse or self.item.is_shell:
            return self._execute(tree, boot), False
        from cosremaster.overlay.remembered_runs import find_run, store_run, sum_run  # noqa: PLC0415 - few ask for it

        key = sum_run(tree, self.run, self.way, os.uname()[2:] if boot is None else boot.kernel)
        changes = find_run(key, self.context.spool)
        if changes is not None:
            return changes, True
        changes = self._execute(tree, boot)
        store_run(key, changes)
        return changes, False

    def _execute(self, tree: Mapping[bytes, Node], boot: MachineBoot | None) -> ScriptChanges:
        """Run the script in ``tree``, in a machine with ``boot``. Raises as :meth:`additions`."""
        module, name, _ = _RUNNERS[self.item.run_in]
        function: Any = getattr(importlib.import_module(module), name)
        output = _LastLine(self.run.name, self.context.progress)
        further = [] if boot is None else [boot]
        try:
            changes: ScriptChanges = function(
                tree, self.run, self.context.spool, self.context.progress, output, *further
            )
        except ScriptError as error:
            raise self._failure(error.message, error.exit_status, output.text) from error
        code = changes.report.exit_code
        if code:
            raise self._failure(f"it ended with exit code {code}", code, output.text)
        return changes

    def _failure(self, message: str, code: int | None, last_line: str) -> ScriptError:
        """Return the error for a script that failed, with the ``last_line`` that it printed."""
        last = f"; its last line: {last_line}" if last_line and not self.item.is_shell else ""
        return ScriptError(f"{message}, so nothing is written{last}", self._place, code)

    def _find_boot(self, tree: Mapping[bytes, Node]) -> MachineBoot:
        """Return what a machine boots to run the script in ``tree``. :raises SandboxError: there is no kernel."""
        from cosremaster.overlay.boot_files import BootFiles  # noqa: PLC0415 - few scripts run in one
        from cosremaster.sandbox.machine_boot import MachineBoot, list_kernels  # noqa: PLC0415 - the same

        files = BootFiles() if self.context.find_boot is None else self.context.find_boot()
        places = (tree, *files.trees)
        if files.kernel is not None:
            return MachineBoot(files.kernel, places)
        boot = next(list_kernels(tree), None)
        if boot is None:
            raise SandboxError("no machine can run it: the image has no kernel that is known", self._place)
        return replace(boot, places=places)

    @property
    def _place(self) -> Place:
        """What errors name: the path of the script, or the command."""
        return Place().inside(self.run.name if self.item.script is None else os.fsencode(self.item.script))

    def _report(
        self, tree: Mapping[bytes, Node], nodes: Sequence[Node], changes: ScriptChanges,
        leftovers: tuple[Leftover, ...], *, is_remembered: bool,
    ) -> None:  # fmt: skip
        """Note the outcome, and warn of what should not be in an image that many machines boot."""
        report = changes.report
        paths = [node.path for node in nodes]
        replaced = set(paths)
        outcome = ScriptOutcome(
            name=self.run.name, way=report.way, exit_code=report.exit_code, seconds=report.seconds,
            added=tuple(path for path in paths if path not in tree),
            changed=tuple(node.path for node in nodes if _is_changed(tree.get(node.path), node)),
            removed=tuple(path for path in changes.removed if path not in replaced), leftovers=leftovers,
            is_cleaned=self.item.clean, notes=report.notes, has_network=self.run.network, is_remembered=is_remembered,
        )  # fmt: skip
        if self.context.outcomes is not None:
            self.context.outcomes.append(outcome)
        identities = [printable(path) for path in find_identities(nodes)]
        if identities:
            self.context.warn(
                f"{self.run.name} made {', '.join(identities)}, by which machines are told apart: all that boot this"
                " image will have the same"
            )


def _is_changed(old: Node | None, new: Node) -> bool:
    """Return whether more than the time of ``old`` is another in ``new``."""
    return old is not None and not is_same_node(old, new)


class _LastLine:
    """Passes the lines of a script on to the user, and keeps the last one that says something."""

    def __init__(self, name: str, progress: object) -> None:
        """Begin without a line."""
        self.text = ""
        self._name = name if len(name) <= _MAX_PREFIX else name[: _MAX_PREFIX - 3].rstrip() + "..."
        self._progress = progress

    def __call__(self, line: str) -> None:
        """Take a line."""
        if line.strip():
            self.text = line.strip()
        if isinstance(self._progress, ShowsOutput):
            self._progress.show(self._name, line)
