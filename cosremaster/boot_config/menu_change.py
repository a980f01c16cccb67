"""The changes to a boot menu, as callers get them; a remaster that changes none goes without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosremaster.records.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from cosremaster.boot_config.menus.arguments import LineChange


@dataclass(frozen=True, slots=True)
class MenuChange:
    """The changes to a boot menu.

    :param label: the menu's path for people, with the FAT image in front of it.
    :param language: name of the language that the menu is written in.
    :param lines: a change for each of its kernel lines, in order; empty where no arguments were to change.
    :param retargeted: line number, old and new text of each place that now looks for the volume by its new name.
    """

    label: str
    language: str
    lines: tuple[LineChange, ...]
    retargeted: tuple[tuple[int, str, str], ...] = ()

    @property
    def changed_count(self) -> int:
        """Number of kernel lines whose arguments changed."""
        return sum(line.has_changed for line in self.lines)
