"""Lines of keys: found by our scan, judged by tomllib."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.recipe.toml_lines import KeyPath, find_lines, line_of
from tests.support.examples import examples

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _paths(value: Any, at: KeyPath = ()) -> set[KeyPath]:
    """Every key and every array element in ``value``."""
    pairs: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = list(enumerate(value))
    return {path for key, one in pairs for path in ({(*at, key)} | _paths(one, (*at, key)))}


EVERYTHING = (
    r'''
# "not a string
top = 1            # with a comment = "x"
"quoted key" = 'lit\eral'
'a.b'."c\u0041" . d-e_1 = """
many
lines with ""two"" and \""" inside
[not.a.table]
# not a comment
"""
'''
    + """\
lit = '''
x = 1
''two'' quotes'''''
array = [
  1, # one ]
  "two, ]",
  [3, 4], { five = 5, six.seven = [7] },
]
when = 1979-05-27 07:32:00Z
far = -inf

[table]
a = true
[table.deep."er"]
b = { c = "}", d = [] }

[[list]]
n = 1
[[list.inner]]
x = 1
[[list.inner]]
[list.inner.table]
y = 2
[[list]]
[[list.inner]]
x = 9
"""
)


def test_each_kind_of_line() -> None:
    lines = find_lines(EVERYTHING)
    assert set(lines) == _paths(tomllib.loads(EVERYTHING))
    text = EVERYTHING.splitlines()
    for path, starts in (
        (("top",), "top = 1"), (("quoted key",), '"quoted key"'), (("a.b", "cA", "d-e_1"), "'a.b'"), (("lit",), "lit"),
        (("array", 1), '  "two, ]"'), (("array", 3, "six", "seven"), "  [3, 4]"), (("far",), "far"),
        (("table", "deep", "er", "b", "d"), "b ="), (("list", 0), "[[list]]"), (("list", 0, "n"), "n = 1"),
        (("list", 0, "inner", 1, "table", "y"), "y = 2"), (("list", 1, "inner", 0, "x"), "x = 9"),
    ):  # fmt: skip
        assert text[lines[path] - 1].startswith(starts), path
    assert line_of(lines, ("list", 0, "nothing", "there")) == lines["list", 0]
    assert line_of(lines, ("nothing",)) is None


def test_windows_line_ends_count_once() -> None:
    assert find_lines(EVERYTHING.replace("\n", "\r\n")) == find_lines(EVERYTHING)


# Documents from pieces that look like what they are not.
_KEYS = st.sampled_from(["a", "b", '"c.d"', "'e f'", '"\\"g\\""', "1", "-", "a.b", "a . 'x'.b"])
_SCALARS = st.sampled_from([
    "1", "1e3", "true", "1979-05-27", "''", '""', '"#"', "'\"'", '"\\\\"', '"a\\"]}"', '"""\n"\n\n"""', "'''''a'''''",
    '"""""a\\"""""', "'''\n[x]\ny = 1\n'''", '"""a\\\n  b"""',
])  # fmt: skip
_GAPS = st.sampled_from(["", " ", "\t "])
_LINES = st.sampled_from(["", " ", "\n", " # [x] = '\n", "\n\n"])


def _arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    joined = st.lists(st.tuples(_LINES, values, _LINES), max_size=3).map(lambda parts: ",".join(map("".join, parts)))
    return st.tuples(joined, st.sampled_from(["", "\n"])).map(lambda both: f"[{both[0]}{both[1]}]")


def _tables(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(_KEYS, _GAPS, values).map(lambda one: f"{one[0]}{one[1]}={one[2]}")
    return st.lists(pairs, max_size=3).map(lambda parts: "{ " + " , ".join(parts) + "}")


_VALUES = st.recursive(_SCALARS, lambda inner: _arrays(inner) | _tables(inner), max_leaves=6)
_STATEMENTS = st.one_of(
    st.tuples(_KEYS, _GAPS, _VALUES).map(lambda one: f"{one[0]}{one[1]}={one[1]}{one[2]}"),
    _KEYS.map(lambda key: f"[{key}]"),
    _KEYS.map(lambda key: f"[[ {key} ]] # [["),
    st.sampled_from(["# a = [", "", "  "]),
)


@settings(max_examples=examples(600), deadline=None)
@given(st.lists(_STATEMENTS, max_size=8))
def test_finds_what_tomllib_finds_and_where_it_stands(statements: list[str]) -> None:
    sound: list[str] = []
    for statement in statements:  # only what tomllib takes after what stands there already
        try:
            tomllib.loads("\n".join([*sound, statement]))
        except tomllib.TOMLDecodeError:
            continue
        sound.append(statement)
    text = "\n".join(sound)
    lines = find_lines(text)
    assert set(lines) == _paths(tomllib.loads(text))
    # A key is not there yet in the document that ends before its line (between statements, where that is sound).
    first = 1
    for number, statement in enumerate(sound):
        before = _paths(tomllib.loads("\n".join(sound[:number])))
        after = _paths(tomllib.loads("\n".join(sound[: number + 1])))
        last = first + statement.count("\n")
        assert all(first <= lines[path] <= last for path in after - before), (text, lines)
        first = last + 1
