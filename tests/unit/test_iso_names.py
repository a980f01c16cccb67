"""Identifiers for new names: legal, unlike each other, always the same, in the standard's order."""

from __future__ import annotations

import re
from functools import cmp_to_key
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosremaster.errors import Place
from cosremaster.iso.ecma119.identifiers import (
    IdentifierAllocator,
    IdentifierRules,
    IdentifierScheme,
    UdfIdentifierRules,
    infer_joliet_rules,
    infer_rules,
)
from tests.support.examples import examples

ROOM = 254 - 33 - 28
"""Bytes for an identifier in a record that needs a field leading to more fields."""
PLAIN_ROOM = 254 - 33

LEVEL_1 = infer_rules([b"FILE.TXT;1", b"NODOT.;1"], [b"DIR"], enhanced=False, room=ROOM)
LEVEL_3 = infer_rules([b"A_NAME_OF_MORE.TXT;1"], [b"DIR"], enhanced=False, room=ROOM)
LOWER = infer_rules([b"readme.txt;1"], [b"pool"], enhanced=False, room=ROOM)
RELAXED = infer_rules([b"linux-6.1.0+git~1.tar.gz", b"vmlinuz"], [b"dists.d"], enhanced=False, room=ROOM)
LONGER = infer_rules([b"x" * 37 + b".deb;1"], [], enhanced=False, room=ROOM)
ENHANCED = infer_rules([b"Some name.txt", b"README"], [b"x"], enhanced=True, room=ROOM)
ENHANCED_PLAIN = infer_rules([b"Some name.txt"], [], enhanced=True, room=PLAIN_ROOM)
JOLIET = infer_joliet_rules(["a.txt;1".encode("utf-16-be")], ["pool".encode("utf-16-be")])
JOLIET_LONG = infer_joliet_rules([("n" * 80).encode("utf-16-be")], [])
UDF = UdfIdentifierRules()
STYLES: dict[str, IdentifierScheme] = {
    "level 1": LEVEL_1, "level 3": LEVEL_3, "lower": LOWER, "relaxed": RELAXED, "longer": LONGER,
    "1999": ENHANCED, "1999 plain": ENHANCED_PLAIN, "joliet": JOLIET, "long joliet": JOLIET_LONG, "udf": UDF,
}  # fmt: skip

D, PUNCTUATION = "A-Z0-9_", r"!-.0-:<-~"
LEGAL_FILES = {
    "level 1": rf"[{D}]{{1,8}}\.[{D}]{{0,3}};1",
    "level 3": rf"(?=.{{1,33}}$)[{D}]+\.[{D}]*;1",
    "lower": r"(?=.{1,14}$)[A-Za-z0-9_]{1,8}\.[A-Za-z0-9_]{0,3};1",
    "relaxed": rf"[{PUNCTUATION}]{{1,31}}",
    "longer": rf"(?=.{{1,44}}$)[{PUNCTUATION}]+\.[{PUNCTUATION}]*;1",
    "1999": rf"[{PUNCTUATION}]{{1,191}}",
    "1999 plain": rf"[{PUNCTUATION}]{{1,207}}",
}
"""ECMA-119, 7.5.1 and 10; genisoimage's relaxations."""

ODD = [
    b".hidden", b"...", b"....txt", b"a.", b"a..", b".a.", b"a b", b"\xff" * 255, b"\xed\xa0\x80", b"A", b"a",
    b"a;1", b"a;1.txt", b";1", b"x" * 251 + b".img", b"x." + b"y" * 253, b"CON", b"\xf0\x9f\x98\x80" * 63,
    b"n." + b"\xf0\x9f\x98\x80" * 30, b"name.tar.gz", b"\\back?*:", b"\x01", b"-", b"_", b"~", b"AAAAAAAA.BBB",
]  # fmt: skip
PARTS = st.binary(min_size=1, max_size=255).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_"))
READABLE = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
NAMES = st.one_of(PARTS, st.sampled_from(ODD), READABLE.map(lambda text: text.encode()[:255])).filter(
    lambda name: name not in (b".", b"..")
)


def made(style: IdentifierScheme, names: list[tuple[bytes, bool]]) -> list[bytes]:
    identifiers = IdentifierAllocator(style, [], Place())
    return [identifiers.allocate(name, directory=directory) for name, directory in names]


@pytest.mark.parametrize("name", STYLES)
@settings(max_examples=examples(60), deadline=None)
@given(names=st.lists(st.tuples(NAMES, st.booleans()), max_size=30, unique=True))
def test_identifiers_are_legal_and_unlike(name: str, names: list[tuple[bytes, bool]]) -> None:
    style = STYLES[name]
    found = made(style, names)
    assert found == made(style, names), "the same each time"
    assert len({seen_by_a_reader(name, one) for one in found}) == len(names)
    for one, (_, directory) in zip(found, names, strict=True):
        assert legal(name, one, directory), one
        assert seen_by_a_reader(name, one) not in (b"", b".", b"..")
        assert one not in (b"\0", b"\1")


def seen_by_a_reader(style: str, identifier: bytes) -> bytes:
    """As Linux' isofs shows it: without version and last dot; our own statement."""
    if style == "udf":
        return identifier
    if "joliet" in style:
        return re.sub(r";1$", "", identifier.decode("utf-16-be")).encode()
    name = re.sub(rb";1$", b"", identifier)
    return name.removesuffix(b".")


def legal(style: str, identifier: bytes, directory: bool) -> bool:
    if style == "udf":
        text = identifier[1:].decode("utf-16-be" if identifier[0] == 16 else "latin-1")
        return len(identifier) <= 255 and identifier[0] in (8, 16) and bool(text)
    if "joliet" in style:
        text = identifier.decode("utf-16-be")  # strictly: no half of a character
        text = text if directory else text.removesuffix(";1")
        most = 64 if style == "joliet" else 103
        return 0 < len(text.encode("utf-16-be")) <= 2 * most and not re.search(r"[\0-\x1f*/:;?\\]", text)
    pattern = LEGAL_FILES[style]
    if directory and not pattern.endswith("}"):
        pattern = pattern.removesuffix(";1").replace(r"\.", r"\.?")
    return re.fullmatch(pattern, identifier.decode("ascii")) is not None


@pytest.mark.parametrize("style", ["level 1", "level 3", "lower", "relaxed", "longer", "1999", "joliet", "udf"])
@pytest.mark.parametrize("count", [1, 1500])
def test_the_extension_stays_however_many_look_alike(style: str, count: int) -> None:
    names = [
        (b"a-name-of-some-length-which-goes-on-and-on-" * 5 + b"-%06d.img" % number, False) for number in range(count)
    ]
    for one in made(STYLES[style], names):
        shown = STYLES[style].display_name(one)
        assert shown.lower().endswith(b".img")


def test_no_more_work_than_names() -> None:
    """Names that look alike take turns; the work, counted in identifiers that were tried, grows with their number."""
    for spread in (1, 500):
        tried = 0

        class Counting(IdentifierRules, frozen=True):
            def make_identifier(self, name: bytes, directory: bool, mark: str) -> bytes:
                nonlocal tried
                tried += 1
                return super().make_identifier(name, directory, mark)

        names = [(b"abcde%03d+%06d.bin" % (number % spread, number), False) for number in range(6000)]
        names += [(b"abcde%03d+%06d.BIN" % (number % spread, number), False) for number in range(6000)]
        found = made(Counting(), names)
        assert len(set(found)) == len(names)
        assert len(names) <= tried < 8 * len(names)


def test_names_alone_are_made_as_the_volume_has_them() -> None:
    for style, name, directory, wanted in (
        (LEVEL_1, b"platform image-7.iso", False, b"PLATFORM.ISO;1"),
        (LEVEL_1, b"name", False, b"NAME.;1"),
        (LEVEL_1, b".profile", False, b"_PROFILE.;1"),
        (LEVEL_1, b"conf.d", True, b"CONF_D"),
        (LEVEL_3, b"name.tar.gz", False, b"NAME_TAR.GZ;1"),
        (LOWER, b"Mixed.Case", False, b"Mixed.Cas;1"),
        (RELAXED, b"name-1.tar.gz", False, b"name-1.tar.gz"),
        (RELAXED, b"conf.d", True, b"conf.d"),
        (RELAXED, b"...", False, b"__"),
        (ENHANCED, b"with space", False, b"with_space"),
    ):
        assert style.make_identifier(name, directory, "") == wanted
    assert JOLIET.make_identifier("Ünï;code?.txt".encode(), False, "").decode("utf-16-be") == "Ünï_code_.txt;1"
    assert UDF.make_identifier("Ünï.txt".encode(), False, "") == b"\x08" + "Ünï.txt".encode("latin-1")
    assert UDF.make_identifier("日本".encode(), False, "") == b"\x10" + "日本".encode("utf-16-be")


def test_a_file_and_a_directory_do_not_look_the_same() -> None:
    identifiers = IdentifierAllocator(LEVEL_1, [b"POOL", b"README.;1"], Place())
    assert identifiers.allocate(b"pool", directory=False) == b"POOL000.;1"
    assert identifiers.allocate(b"readme", directory=True) == b"READM000"


@settings(max_examples=examples(200), deadline=None)
@given(
    st.lists(
        st.from_regex(r"[A-Z0-9_]{1,9}(\.[A-Z0-9_]{0,4};1)?", fullmatch=True),
        max_size=12,
        unique_by=lambda name: LEVEL_1.display_name(name.encode()),  # as IdentifierAllocator sees to it
    )
)
def test_the_order_is_that_of_the_standard(names: list[str]) -> None:
    found = sorted((one.encode() for one in names), key=LEVEL_1.sort_key)
    for one, other in pairwise(found):
        assert compared(one, other) <= 0
    assert [LEVEL_1.sort_key(one) for one in found] == [
        LEVEL_1.sort_key(one) for one in sorted(found, key=cmp_to_key(compared))
    ]


def compared(one: bytes, other: bytes) -> int:
    """ECMA-119, 9.3, word by word: names, the shorter padded with spaces; then extensions; then versions, which are
    padded in front with zeros and descend."""
    (name, extension, version), (name_2, extension_2, version_2) = parts(one), parts(other)
    for left, right in ((name, name_2), (extension, extension_2)):
        size = max(len(left), len(right))
        for a, b in zip(left.ljust(size), right.ljust(size), strict=True):
            if a != b:
                return -1 if a < b else 1
    return int(version_2 or b"0") - int(version or b"0")


def parts(identifier: bytes) -> tuple[bytes, bytes, bytes]:
    whole, _, version = identifier.partition(b";")
    name, _, extension = whole.partition(b".")
    return name, extension, version


_LIKE_NAMES = st.text(alphabet=st.sampled_from("AB_.; \0é𝄞"), min_size=1, max_size=5)
_IDENTIFIERS = st.lists(st.binary(min_size=1, max_size=4) | _LIKE_NAMES.map(str.encode), max_size=6)
_JOLIET_IDENTIFIERS = st.lists(
    _LIKE_NAMES.map(lambda name: name.encode("utf-16-be")) | st.binary(min_size=1, max_size=4), max_size=6
)


@pytest.mark.parametrize("style", [LEVEL_1, JOLIET, UDF], ids=["plain", "joliet", "udf"])
@given(st.data())
def test_identifiers_are_sorted_together_as_one_by_one(style: IdentifierScheme, data: st.DataObject) -> None:
    identifiers = data.draw(_JOLIET_IDENTIFIERS if style is JOLIET else _IDENTIFIERS)
    keys, expected = list(style.sort_keys(identifiers)), [style.sort_key(identifier) for identifier in identifiers]
    for at, key in enumerate(keys):
        for other, other_key in enumerate(keys):
            pair, other_pair = (key, other_key), (expected[at], expected[other])
            assert (pair[0] < pair[1], pair[0] == pair[1]) == (
                other_pair[0] < other_pair[1],
                other_pair[0] == other_pair[1],
            )


UNITS = st.characters(max_codepoint=0xFFFF, exclude_characters=";/\0", exclude_categories=["Cs"])


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.text(UNITS, min_size=1, max_size=8), max_size=8, unique=True))
def test_joliet_is_sorted_by_its_characters(names: list[str]) -> None:
    found = sorted(((one + ";1").encode("utf-16-be") for one in names), key=JOLIET.sort_key)
    units = [[ord(letter) for letter in one.decode("utf-16-be").removesuffix(";1")] for one in found]
    assert units == sorted(units)


@pytest.mark.parametrize("room", [40, 60, ROOM, PLAIN_ROOM])
@pytest.mark.parametrize("enhanced", [False, True])
def test_an_identifier_fits_a_record(room: int, enhanced: bool) -> None:
    style = infer_rules([b"n" * 200], [], enhanced=enhanced, room=room)
    for name in ODD:
        assert len(style.make_identifier(name, False, "")) <= room
        assert len(style.make_identifier(name, True, "123456")) <= room
