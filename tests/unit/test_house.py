"""The language and the shape of the code, as far as a machine can hold them."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.user import REPOSITORY

PACKAGE = REPOSITORY / "cosremaster"
MODULES = sorted(PACKAGE.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef

VAGUE = frozenset(
    ("one", "told", "found", "there", "done", "left", "known", "kept", "asked", "said", "came", "looked", "wanted")
)
"""Words that stand in the place of a noun."""
VAGUE_LIMIT = 3
"""Vague names for each 1,000 lines. Codebases that people hold up as models have 0 to 2.5."""

NOT_A_VERB = frozenset(
    (
        *("the", "a", "an", "what", "how", "where", "when", "who", "whose", "which", "true", "false", "whether"),
        *("each", "every", "all", "see", "as", "of", "those", "that", "this", "these", "nothing", "no", "none"),
        *("with", "without", "to", "from", "by", "in", "on", "at", "for", "and", "or", "not", "if", "it", "its"),
        *("returns", "reads", "writes", "makes", "gives", "takes", "packs", "decodes", "begins", "finds", "checks"),
    )
)
"""First words of docstrings that say no deed. A docstring begins with a verb in the imperative: Return, Replace."""

MAX_LINES = 60
MAX_PARAMETERS = 7
CONSTRUCTORS = ("__init__", "__new__")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _functions() -> Iterator[tuple[str, Function]]:
    """Yield every function of the package with its place, nested ones too."""
    for path in MODULES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, Function):
                yield f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}", node


def _is_property(function: Function) -> bool:
    """Tell whether ``function`` is a property, whose docstring may be a noun."""
    return any("property" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_names_are_nouns_and_verbs() -> None:
    count, lines = Counter[str](), 0
    for path in MODULES:
        text = path.read_text()
        lines += text.count("\n")
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and token.string in VAGUE:
                count[f"{path.relative_to(REPOSITORY)}: {token.string}"] += 1
    assert 1000 * count.total() / lines < VAGUE_LIMIT, count.most_common(20)


def test_a_class_name_means_one_thing() -> None:
    places = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(REPOSITORY)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_every_function_has_a_docstring() -> None:
    assert [place for place, function in _functions() if not ast.get_docstring(function)] == []


def test_docstrings_begin_with_a_verb() -> None:
    bad = []
    for place, function in _functions():
        first = (ast.get_docstring(function) or "Return").split()[0]
        if (first.startswith("`") or first.strip("*.,:;()").lower() in NOT_A_VERB) and not _is_property(function):
            bad.append(f"{place}: {first}")
    assert bad == []


def test_functions_are_short() -> None:
    long = {place: function.end_lineno - function.lineno + 1 for place, function in _functions() if function.end_lineno}
    assert {place: lines for place, lines in long.items() if lines > MAX_LINES} == {}


def test_functions_have_few_parameters() -> None:
    bad = {}
    for place, function in _functions():
        parameters = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        names = [parameter.arg for parameter in parameters if parameter.arg not in ("self", "cls")]
        if len(names) > MAX_PARAMETERS and function.name not in CONSTRUCTORS:
            bad[place] = len(names)
    assert bad == {}


@pytest.mark.parametrize("room", ["unit", "tools", "boot", "support", "fixtures"])
def test_no_test_file_is_imported(room: str) -> None:
    """Helpers that several tests share stand in tests/support."""
    imports = []
    for path in sorted((REPOSITORY / "tests" / room).glob("*.py")):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ImportFrom) and ".test_" in (node.module or ""):
                imports.append(f"{path.relative_to(REPOSITORY)}: {node.module}")
    assert imports == []


def test_tests_build_their_input() -> None:
    suffixes = {path.suffix for path in (REPOSITORY / "tests").rglob("*") if path.is_file()}
    assert suffixes <= {".py", ".pyc", ".c", ".sh"}, "no file of others is committed"
