"""Variables: ``${NAME}`` in a string is a value, ``$$`` a dollar, any other dollar itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from cosremaster.errors import UsageError
from cosremaster.recipe.document import VARIABLE_NAME, Variable, VariableTable
from cosremaster.recipe.faults import Faults, suggestion

_SPECIAL = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_NAME = re.compile(VARIABLE_NAME)


class VariableError(Exception):
    """A string whose variables cannot be filled in; the message says why."""


def parse_setting(text: str) -> tuple[str, str]:
    """``NAME=VALUE``. :raises UsageError: no name, or no equals sign."""
    name, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise UsageError(f"--set {text!r}: NAME=VALUE is wanted")
    return name, value


def expand(text: str, value_of: Callable[[str], str]) -> str:
    """``text`` with its variables filled in by ``value_of``. :raises VariableError: of it or of ``value_of``."""

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if not match[2] or not _NAME.fullmatch(match[1]):
            raise VariableError("${ begins a variable as in ${NAME}; write $${ for a dollar and a brace")
        return value_of(match[1])

    return _SPECIAL.sub(one, text)


class Variables:
    """The values of the variables that a recipe declares: from ``given``, else ``environ``, else their defaults.

    A default may name other variables. Faults of the defaults are told to ``faults``, once.

    :raises UsageError: ``given`` names a variable that the recipe does not declare.
    """

    def __init__(
        self, declared: Mapping[str, Variable], given: Mapping[str, str], environ: Mapping[str, str], faults: Faults
    ) -> None:
        self._declared = {
            name: one if isinstance(one, VariableTable) else VariableTable(default=one)
            for name, one in declared.items()
        }
        for name in given:
            if name not in self._declared:
                raise UsageError(f"--set {name}: the recipe has no such variable{suggestion(name, self._declared)}")
        self._outside = {name: text for name, text in {**environ, **given}.items() if name in self._declared}
        self._faults = faults
        self._known: dict[str, str] = {}
        self._open: list[str] = []

    def value_of(self, name: str) -> str:
        """:raises VariableError: there is no such variable, or it has no value."""
        if name not in self._declared:
            raise VariableError(f"there is no variable {name}{suggestion(name, self._declared)}")
        if name not in self._known:
            self._known[name] = self._value_of(name)
        return self._known[name]

    def _value_of(self, name: str) -> str:
        if name in self._outside:
            return self._outside[name]  # as it is: dollars in it mean nothing
        declared = self._declared[name]
        if declared.default is None:
            told = f" ({declared.help})" if declared.help else ""
            raise VariableError(f"the variable {name}{told} has no value; give one with --set {name}=...")
        if name in self._open:
            raise VariableError(f"the variable {name} stands in its own value: {' -> '.join([*self._open, name])}")
        self._open.append(name)
        try:
            return expand(declared.default, self.value_of)
        finally:
            self._open.pop()

    def check(self) -> None:
        """Tells the faults of defaults that the recipe falls back on, used or not, but a missing value."""
        for name, declared in self._declared.items():
            if name in self._outside or declared.default is None:
                continue
            try:
                self.value_of(name)
            except VariableError as fault:
                self._faults.add(("variables", name), str(fault))
