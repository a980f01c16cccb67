"""Completion for bash, zsh and fish: click's, with scripts that know addresses (``x.iso::live``).

A shell's script runs the program with ``_COSREMASTER_COMPLETE`` and the line in the environment, and gets a candidate
on each line. Colons end words for bash, and the space behind a word that may go on is not for the shell to add.
"""

from __future__ import annotations

import os
from typing import ClassVar

from click.shell_completion import CompletionItem, ShellComplete, add_completion_class

from cosremaster.cli.candidates import FINAL, PARTIAL, list_files
from cosremaster.cli.shell_words import PartialWord, quote_text, split_line, unquote

_LINE, _BREAKS, _WORDS, _CURRENT, _QUOTE = (
    f"_COSREMASTER_{name}" for name in ("LINE", "BREAKS", "WORDS", "CURRENT", "QUOTE")
)

_BASH = """\
# bash completion of cosremaster: cosremaster completion bash
_cosremaster_completion() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        [ -n "$line" ] && COMPREPLY+=("$line")
    done < <(_COSREMASTER_LINE="${COMP_LINE:0:COMP_POINT}" _COSREMASTER_BREAKS="$COMP_WORDBREAKS" \\
        _COSREMASTER_COMPLETE=bash_complete "${1/#\\~/$HOME}" 2>/dev/null)
}
complete -o nospace -F _cosremaster_completion cosremaster
"""

_ZSH = """\
#compdef cosremaster
# zsh completion of cosremaster: cosremaster completion zsh
_cosremaster_completion() {
    local line kind text shown
    local -a final final_shown partial partial_shown
    while IFS=$'\\t' read -r kind text shown; do
        if [[ $kind == partial ]]; then
            partial+=("$text")
            partial_shown+=("$shown")
        elif [[ -n $kind ]]; then
            final+=("$text")
            final_shown+=("$shown")
        fi
    done < <(_COSREMASTER_WORDS="${(pj:\\n:)${(@Q)words[1,CURRENT-1]}}" _COSREMASTER_CURRENT="$PREFIX" \\
        _COSREMASTER_QUOTE="${compstate[quote]}" _COSREMASTER_COMPLETE=zsh_complete \\
        ${(Q)words[1]/#\\~/$HOME} 2>/dev/null)
    (( $#final )) && compadd -Q -U -l -V commands -d final_shown -a final
    (( $#partial )) && compadd -Q -U -S '' -V files -d partial_shown -a partial
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _cosremaster_completion "$@"
else
    compdef _cosremaster_completion cosremaster
fi
"""

_FISH = """\
# fish completion of cosremaster: cosremaster completion fish
function _cosremaster_completion
    set -lx _COSREMASTER_WORDS (commandline -opc | string join \\n | string collect)
    set -lx _COSREMASTER_CURRENT (commandline -ct)
    set -lx _COSREMASTER_COMPLETE fish_complete
    set -l words (commandline -opc)
    set -l program (string replace -r '^~' $HOME -- $words[1])
    $program 2>/dev/null
end
complete --keep-order --no-files --command cosremaster --arguments '(_cosremaster_completion)'
"""


class _Completion(ShellComplete):
    """Candidates for what stands at the cursor, whatever the shell is."""

    script: ClassVar[str]
    word = PartialWord("")

    def source(self) -> str:
        """Return the script for the shell."""
        return self.script

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one at the cursor, without the program, and that."""
        words = os.environ.get(_WORDS, "").split("\n")
        self.word = unquote(os.environ.get(_CURRENT, ""))
        return words[1:], self.word.text

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Return what may stand for ``incomplete`` behind ``args``: whole words, files by name."""
        option = ""
        if incomplete.startswith("--") and "=" in incomplete:
            option = incomplete[: incomplete.index("=") + 1]
        items = []
        for item in super().get_completions(list(args), incomplete):
            if item.type in ("file", "dir"):  # the words of click for its own scripts
                items += list_files(str(item.value), folders_only=item.type == "dir")
            else:
                items.append(item)
        if option:
            return [CompletionItem(f"{option}{item.value}", item.type, item.help) for item in items]
        return items

    @staticmethod
    def describe(item: CompletionItem) -> str:
        """Return the first sentence about ``item``; empty where there is none."""
        return " ".join((item.help or "").split()).partition(". ")[0].removesuffix(".")


class BashCompletion(_Completion):
    """Completion for bash, whose words end at colons."""

    name = "bash"
    script = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one at the cursor, without the program, and that."""
        words, self.word = split_line(os.environ.get(_LINE, ""), os.environ.get(_BREAKS, ""))
        return words[1:], self.word.text

    def format_completion(self, item: CompletionItem) -> str:
        """Return what replaces the end of the word, with a space where the word is whole."""
        text = quote_text(item.value, self.word)
        return text if item.type == PARTIAL or self.word.quote else f"{text} "


class ZshCompletion(_Completion):
    """Completion for zsh."""

    name = "zsh"
    script = _ZSH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one at the cursor, without the program, and that."""
        args, text = super().get_completion_args()
        quote = os.environ.get(_QUOTE, "")
        if quote:  # the part of the word in it stands as it is
            text = os.environ.get(_CURRENT, "")
        self.word = PartialWord(text, quote)
        return args, text

    def format_completion(self, item: CompletionItem) -> str:
        """Return kind, word and what is shown for it."""
        about = self.describe(item)
        shown = f"{item.value}  -- {about}" if about else str(item.value)
        return f"{item.type if item.type == PARTIAL else FINAL}\t{quote_text(item.value, self.word)}\t{shown}"


class FishCompletion(_Completion):
    """Completion for fish, which quotes words itself."""

    name = "fish"
    script = _FISH

    def format_completion(self, item: CompletionItem) -> str:
        """Return the word, and what it is."""
        about = self.describe(item)
        return f"{item.value}\t{about}" if about else str(item.value)


SHELLS = {shell.name: shell for shell in (BashCompletion, ZshCompletion, FishCompletion)}


def register_shells() -> None:
    """Let click complete for our shells in our way."""
    for shell in SHELLS.values():
        add_completion_class(shell)
