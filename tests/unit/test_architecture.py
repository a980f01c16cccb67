"""docs/architecture.md tells the truth: its table of rooms is that of the folders and of the import contracts."""

from __future__ import annotations

import re
import sys

import pytest

from tests.support.user import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE = REPOSITORY / "cosremaster"


def _rows() -> list[tuple[int, list[str], str]]:
    """Return the table's rows: rank, rooms, description."""
    text = (REPOSITORY / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d+) \| ((?:`\w+` ?)+) \| (.*) \|$", text, re.MULTILINE)
    return [(int(rank), re.findall(r"`(\w+)`", rooms), description) for rank, rooms, description in rows]


def _contract() -> list[list[str]]:
    """Return the rooms of each rank as the first import contract has them, the lowest rank first."""
    config = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    layers = config["tool"]["importlinter"]["contracts"][0]["layers"]
    return [[room.strip().removeprefix("cosremaster.") for room in layer.split("|")] for layer in reversed(layers)]


def test_the_table_has_every_room() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert sorted(room for _, rooms, _ in _rows() for room in rooms) == sorted(folders | modules)


def test_ranks_are_those_of_the_import_contract() -> None:
    ranks = {room: rank for rank, rooms, _ in _rows() for room in rooms}
    contract = {room: rank for rank, rooms in enumerate(_contract()) for room in rooms}
    assert ranks == contract


@pytest.mark.parametrize("room", sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()))
def test_every_module_is_named_in_the_row_of_its_room(room: str) -> None:
    (description,) = [text for _, rooms, text in _rows() if room in rooms]
    named = set(re.findall(r"`([\w/]+?)/?`", description))
    modules = {path.stem for path in (PACKAGE / room).rglob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in (PACKAGE / room).glob("*/__init__.py")}
    assert (modules | folders) - named == set(), "these are not in docs/architecture.md"
    assert named - modules - folders - {"--json"} == set(), "these are in docs/architecture.md alone"


@pytest.mark.parametrize("name", ["cpio", "squashfs", "tar", "ext4", "erofs"])
def test_the_contract_on_a_format_names_every_other_module_of_layers(name: str) -> None:
    config = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    (contract,) = [
        contract
        for contract in config["tool"]["importlinter"]["contracts"]
        if contract.get("forbidden_modules") == [f"cosremaster.layers.{name}"]
    ]
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"layers"}
    modules = {f"layers.{path.stem}" for path in (PACKAGE / "layers").glob("*.py")} - {"layers.__init__"}
    formats = {f"layers.{path.parent.name}" for path in (PACKAGE / "layers").glob("*/__init__.py")}
    assert set(contract["source_modules"]) == {f"cosremaster.{other}" for other in rooms | modules | formats} - {
        f"cosremaster.layers.{name}"
    }
