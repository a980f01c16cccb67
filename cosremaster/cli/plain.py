"""Commands that only look, run without click where their arguments are one address and plain flags.

Loading click takes as long as all else that such a command does. Any other arguments are for the command's own parser,
which has its flags from here (``options.takes_flags``), and also reports faults.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

JSON = (("--json",), "as_json", "Print JSON (docs/json.md).")

FLAGS: dict[str, tuple[tuple[tuple[str, ...], str, str], ...]] = {
    "ls": (
        (("-l", "--long"), "long", "Mode, owner, size, time (UTC) and symlink target."),
        (("-h", "--human-readable"), "human", "With -l: sizes as 1.5K or 20M."),
        (("-R", "--recursive"), "recursive", "Everything below, not into archives."),
        JSON,
    ),
    "cat": (),
    "inspect": (JSON,),
}
"""The flags of each command that runs here: their names, the keyword argument that they set, and their help."""


def run_plainly(command: str, words: Sequence[str]) -> bool:
    """Run ``command`` with the arguments ``words``, if they are one address and plain flags; else return False."""
    fields = {name: field for names, field, _ in FLAGS[command] for name in names}
    values: dict[str, bool] = {}
    addresses = []
    for word in words:
        if not word.startswith("-"):
            addresses.append(word)
            continue
        for name in _names_in(word):
            if name not in fields:
                return False
            values[fields[name]] = True
    if len(addresses) != 1:
        return False
    if command == "ls":
        from cosremaster.cli.listing import list_directory  # noqa: PLC0415 - loads next to nothing

        list_directory(addresses[0], **values)
    elif command == "cat":
        from cosremaster.cli.facts import write_file  # noqa: PLC0415 - a listing needs less

        write_file(addresses[0])
    else:
        from cosremaster.cli.facts import print_facts  # noqa: PLC0415 - the same

        print_facts(addresses[0], as_json="as_json" in values)
    return True


def _names_in(word: str) -> Iterator[str]:
    """Yield the names of the flags in ``word``, of which ``-lR`` has two; what is no flag is itself."""
    if word.startswith("--") or len(word) == 1:
        yield word
    else:
        yield from (f"-{letter}" for letter in word[1:])
