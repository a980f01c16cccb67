"""What a shell is offered: commands, options, files, and what is inside images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cosremaster.cli import main
from cosremaster.cli.shell_words import PartialWord, quote_text, split_line
from tests.support.small import write_small

BREAKS = " \t\n\"'><=;|&(:"
OUTER = "in.iso::debirf-live-demo.cgz"
LAYER = f"{OUTER}::rootfs.cxz"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an image and a few files."""
    path = tmp_path_factory.mktemp("files")
    write_small(path)
    (path / "folder").mkdir()
    (path / ".hidden").touch()
    (path / "a b.txt").touch()
    return path


@pytest.fixture
def offered(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., list[str]]:
    """Return what gives the candidates for a line, of bash with no character that ends words."""
    monkeypatch.chdir(folder)

    def complete(line: str, breaks: str = "") -> list[str]:
        """Return the candidates for ``line``."""
        monkeypatch.setenv("_COSREMASTER_COMPLETE", "bash_complete")
        monkeypatch.setenv("_COSREMASTER_LINE", line)
        monkeypatch.setenv("_COSREMASTER_BREAKS", breaks)
        with pytest.raises(SystemExit) as ended:
            main([])
        assert ended.value.code == 0
        out, err = capsysbinary.readouterr()
        assert err == b""
        return [text for text in out.decode().split("\n") if text]

    return complete


@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("cosremaster ver", ["verify "]),
        ("cosremaster -q ver", ["verify "]),
        ("cosremaster in", ["inspect ", "index ", "in.iso "]),
        ("cosremaster ls in", ["in.iso", "in.iso::"]),
        ("cosremaster ls f", ["folder/"]),
        ("cosremaster ls .h", [".hidden "]),
        ("cosremaster ls a", ["a\\ b.txt "]),
        ("cosremaster ls 'a", ["a b.txt"]),
        ("cosremaster ls in.iso::", ["in.iso::EFI/", "in.iso::boot/", f"{OUTER} ", "in.iso::vmlinuz "]),
        ("cosremaster cat in.iso::EFI", ["in.iso::EFI/"]),
        ("cosremaster cat in.iso::EFI/", ["in.iso::EFI/efiboot.img", "in.iso::EFI/efiboot.img::"]),
        ("cosremaster cat in.iso::/vm", ["in.iso::/vmlinuz "]),
        ("cosremaster stat in.iso::deb", [OUTER, f"{OUTER}::"]),
        (f"cosremaster stat {LAYER}::etc/host", [f"{LAYER}::etc/hostname "]),
        (f"cosremaster stat {LAYER}::bi", [f"{LAYER}::bin/"]),
        (f"cosremaster stat {LAYER}::bin/gu", [f"{LAYER}::bin/gunzip "]),
        ("cosremaster cat in.iso::@r", ["in.iso::@root::"]),
        ("cosremaster cat in.iso::@root::etc/host", ["in.iso::@root::etc/hostname "]),
        ("cosremaster diff in.iso in", ["in.iso", "in.iso::"]),
        ("cosremaster cat in.iso::nothing/", []),
        ("cosremaster cat missing.iso::", []),
        ("cosremaster cat https://example.invalid/x.iso::", []),
        ("cosremaster cat -::", []),
        ("cosremaster ls in.iso --rec", ["--recursive "]),
        ("cosremaster --kernel", ["--kernel-arg "]),
        ("cosremaster in.iso out.iso --remove-k", ["--remove-kernel-arg "]),
        ("cosremaster in.iso out.iso --digest ", ["sha256 ", "md5 "]),
        ("cosremaster in.iso out.iso --digest=m", ["--digest=md5 "]),
        ("cosremaster in.iso out.iso --add fo", ["folder/"]),
        ("cosremaster plan in.iso --layer deb", ["debirf-live-demo.cgz", "debirf-live-demo.cgz::"]),
        ("cosremaster plan in.iso --remove-iso /bo", ["/boot/"]),
        ("cosremaster plan --layer deb", []),
        ("cosremaster cache ", ["list ", "clear ", "path "]),
        ("cosremaster completion z", ["zsh "]),
        ("cosremaster build --schema ", ["a\\ b.txt ", "folder/", "in.iso "]),
    ],
)  # fmt: skip
def test_candidates(line: str, candidates: list[str], offered: Callable[..., list[str]]) -> None:
    assert offered(line) == candidates


def test_bash_replaces_what_stands_behind_a_colon(offered: Callable[..., list[str]]) -> None:
    assert offered("cosremaster ls in.iso::vm", BREAKS) == ["vmlinuz "]
    assert offered("cosremaster plan in.iso --layer=deb", BREAKS) == ["debirf-live-demo.cgz", "debirf-live-demo.cgz::"]
    assert offered("cosremaster ls in.iso\\:\\:vm", BREAKS) == ["in.iso::vmlinuz "]
    assert offered("cosremaster ls 'in.iso::vm", BREAKS) == ["in.iso::vmlinuz"]


def test_bash_replaces_an_at_sign_with_what_stands_behind_it(offered: Callable[..., list[str]]) -> None:
    breaks = f"{BREAKS}@"  # as bash has them from the start, for names of hosts
    assert offered("cosremaster ls in.iso::@r", breaks) == ["@root::"]
    assert offered("cosremaster ls in.iso::@root::etc/hostn", breaks) == ["etc/hostname "]
    assert split_line("a b@c", breaks) == (["a"], PartialWord("b@c", "", 1))
    assert split_line("a 'b@c", breaks) == (["a"], PartialWord("b@c", "'"))


@pytest.mark.parametrize(
    ("line", "words", "last"),
    [
        ("a b c", ["a", "b"], PartialWord("c")),
        ("a b ", ["a", "b"], PartialWord("")),
        (r"a\ b 'c d' ", ["a b", "c d"], PartialWord("")),
        ("a '' b", ["a", ""], PartialWord("b")),
        ('a "b c', ["a"], PartialWord("b c", '"')),
        (r'a "b\"c\d', ["a"], PartialWord(r'b"c\d', '"')),
        ("a b::c", ["a"], PartialWord("b::c", "", 3)),
        ("a 'b::c", ["a"], PartialWord("b::c", "'")),
        ("a 'b c'::d", ["a"], PartialWord("b c::d", "", 5)),
        (r"a b\:c", ["a"], PartialWord("b:c")),
    ],
)
def test_a_line_is_read_as_a_shell_does(line: str, words: list[str], last: PartialWord) -> None:
    assert split_line(line, BREAKS) == (words, last)


@pytest.mark.parametrize(
    "text", ["plain", "a b", "it's", 'say "x"', "$HOME`x`", "#1", "a&b;c|d", "(x)[y]{z}*?", "~x", "é"]
)
@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_a_quoted_word_is_read_back(text: str, quote: str) -> None:
    assert split_line(quote + quote_text(text, PartialWord("", quote)))[1].text == text
