"""Commands that only look, run without click where their arguments are one address and plain flags.

Loading click takes as long as all else that such a command does. Any other arguments are for the command's own parser,
which also reports their faults.
"""

from __future__ import annotations

from collections.abc import Sequence

FLAGS: dict[str, dict[str, tuple[str, ...]]] = {
    "ls": {
        "-l": ("long",), "--long": ("long",), "-R": ("recursive",), "--recursive": ("recursive",),
        "--json": ("as_json",), "-lR": ("long", "recursive"), "-Rl": ("long", "recursive"),
    },
    "cat": {},
    "inspect": {"--json": ("as_json",)},
}  # fmt: skip
"""The flags of each command that runs here, and the keyword arguments that they set."""


def run_plainly(command: str, words: Sequence[str]) -> bool:
    """Run ``command`` with the arguments ``words``, if they are one address and plain flags; else return False."""
    values: dict[str, bool] = {}
    addresses = []
    for word in words:
        if not word.startswith("-"):
            addresses.append(word)
        elif word in FLAGS[command]:
            values.update(dict.fromkeys(FLAGS[command][word], True))
        else:
            return False
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
