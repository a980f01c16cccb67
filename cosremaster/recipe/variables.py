"""Variables of recipes: ``${NAME}`` in a string is a value, ``$$`` is a dollar, any other dollar stays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from cosremaster.errors import UsageError
from cosremaster.lazy_regex import lazy_regex
from cosremaster.recipe.document import VARIABLE_NAME, Variable, VariableTable
from cosremaster.recipe.faults import Faults, suggest_name

_SPECIAL = lazy_regex(r"\$\$|\$\{([^}]*)(\}?)")
_NAME = lazy_regex(VARIABLE_NAME)


MAX_FILLED = 1 << 24
"""Characters that the values of variables may add to a recipe; variables in variables may double at each step."""


class VariableError(Exception):
    """The variables of a string cannot be filled in; the message says why."""


def parse_settings(texts: Iterable[str]) -> dict[str, str]:
    """Return the values of variables that are given as ``NAME=VALUE``.

    :raises UsageError: one has no name or no equals sign; two are of one name, so that one of them would be lost.
    """
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise UsageError(f"--set {text!r}: NAME=VALUE is wanted")
        if name in values:
            raise UsageError(f"--set {name}: it is set twice, and only one of both can count")
        values[name] = value
    return values


def expand(text: str, value_of: Callable[[str], str]) -> str:
    """Return ``text`` with the values that ``value_of`` returns for its variables.

    :raises VariableError: ``value_of`` raises it, or ``${`` begins no variable.
    """

    def replace(match: re.Match[str]) -> str:
        """Return the text for one dollar expression."""
        if match[0] == "$$":
            return "$"
        if not match[2] or not _NAME.fullmatch(match[1]):
            raise VariableError("${ begins a variable as in ${NAME}; write $${ for a dollar and a brace")
        return value_of(match[1])

    return _SPECIAL.sub(replace, text)


class Variables:
    """The values of the variables that a recipe declares: from ``given``, else ``environ``, else their defaults.

    A default may contain other variables. :meth:`check` adds its faults to ``faults``.
    """

    def __init__(
        self, declared: Mapping[str, Variable], given: Mapping[str, str], environ: Mapping[str, str], faults: Faults
    ) -> None:
        """Keep the values. :raises UsageError: ``given`` names a variable that the recipe does not declare."""
        self._declared = {
            name: variable if isinstance(variable, VariableTable) else VariableTable(default=variable)
            for name, variable in declared.items()
        }
        for name in given:
            if name not in self._declared:
                raise UsageError(f"--set {name}: the recipe has no such variable{suggest_name(name, self._declared)}")
        self._assigned = {name: text for name, text in {**environ, **given}.items() if name in self._declared}
        self._faults = faults
        self._values: dict[str, str] = {}
        self._expanding: list[str] = []
        self._filled = 0

    def value_of(self, name: str) -> str:
        """Return the value of the variable ``name``.

        :raises VariableError: there is no such variable, or it has no value.
        """
        if name not in self._declared:
            raise VariableError(f"there is no variable {name}{suggest_name(name, self._declared)}")
        if name not in self._values:
            self._values[name] = self._compute_value(name)
        self._filled += len(self._values[name])
        if self._filled > MAX_FILLED:
            raise VariableError(f"the variables make more than {MAX_FILLED:,} characters; does {name} hold too many?")
        return self._values[name]

    def _compute_value(self, name: str) -> str:
        """Return the value of a declared variable. :raises VariableError: it has none."""
        if name in self._assigned:
            return self._assigned[name]  # dollars in it mean nothing
        declared = self._declared[name]
        if declared.default is None:
            purpose = f" ({declared.help})" if declared.help else ""
            raise VariableError(f"the variable {name}{purpose} has no value; give one with --set {name}=...")
        if name in self._expanding:
            raise VariableError(f"the variable {name} stands in its own value: {' -> '.join([*self._expanding, name])}")
        self._expanding.append(name)
        try:
            return expand(declared.default, self.value_of)
        finally:
            self._expanding.pop()

    def check(self) -> None:
        """Add the faults of all defaults in effect, used or not. A missing default is no fault."""
        for name, declared in self._declared.items():
            if name in self._assigned or declared.default is None:
                continue
            try:
                self.value_of(name)
            except VariableError as fault:
                self._faults.add(("variables", name), str(fault))
