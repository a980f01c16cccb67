"""inspect --html: the page is whole, safe whatever names stand in it, and what it says is what other tools say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cosremaster
from cosremaster.browse.compare import Difference
from cosremaster.cli import main
from cosremaster.demo.image import build_archive, initramfs, regular
from cosremaster.errors import printable
from cosremaster.io.source import open_source
from cosremaster.iso.read import read_image
from cosremaster.layers.address import format_address
from cosremaster.records import replace
from cosremaster.reports.build import write_overview
from cosremaster.reports.html.facts import Facts, Side
from cosremaster.reports.html.findings import DIFF_LINES
from cosremaster.reports.html.markup import LONGEST, element, text
from cosremaster.reports.html.page import page
from cosremaster.reports.html.treemap import Weight
from cosremaster.units import blocks_for
from cosremaster.verification.run import verify
from tests.fixtures import families, tools
from tests.fixtures.debirf import CGZ as REAL_CGZ
from tests.fixtures.debirf import DebirfImage
from tests.fixtures.tools import run
from tests.support.browser import DARK, measured, pdf_text, screenshot
from tests.support.small import write_overlay, write_small

HOSTILE = (
    b"<script>document.title='taken'</script>", b"\"><img src=x onerror=alert(1)>", b"&lt;&amp;", b"caf\xe9 \xff\xfe",
    b"</title></style><b>", b"javascript:alert(1)", b"new\nline\ttab\x1b[31m", "right\u202eto-left".encode(), b"'\"`=",
)  # fmt: skip
_VOID = {"meta"}
_REFERENCES = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href", "formaction", "ping"}


class Page(HTMLParser):
    """A page's elements and texts, as Python's parser finds them; complains of what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def _assert_alone(html: str) -> Page:
    """Nothing in the page leads out of it, and nothing in it runs."""
    found = Page(html)
    allowed = {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "h1", "h2", "h3"),
        *("p", "dl", "div", "dt", "dd", "ul", "li", "b", "i", "em", "span", "small", "strong", "mark", "code"),
        *("details", "summary", "table", "caption", "thead", "tbody", "tr", "th", "td"),
    }
    assert set(found.tags) <= allowed
    names = {name for name, _ in found.attributes}
    assert not names & _REFERENCES
    assert not any(name.startswith("on") for name in names)
    styles = [value for name, value in found.attributes if name == "style"]
    styles += re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert not any(re.search(r"url\(|@import|image-set|//", style) for style in styles)
    assert "default-src 'none'" in html
    return found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A small image, and what became of it when files with hostile names came."""
    source = write_small(tmp_path)
    overlay = write_overlay(tmp_path)
    for name in HOSTILE:
        (overlay / os.fsdecode(name.replace(b"/", b"_"))).write_bytes(b"x" * 60_000)
    cosremaster.remaster(source, tmp_path / "out.iso", add=[overlay])
    return source, tmp_path / "out.iso"


def _written(source: Path, against: Path | None = None, name: str = "page.html") -> Path:
    target = source.parent / name
    write_overview(source, target, against=against, force=True)
    return target


def test_the_page_leads_nowhere_and_runs_nothing(pair: tuple[Path, Path]) -> None:
    found = _assert_alone(_written(pair[1], pair[0]).read_text())
    assert "img" not in found.tags
    told = " ".join(found.texts)
    for name in HOSTILE:
        assert printable(name.replace(b"/", b"_")) in told.replace("\n", " ")


def test_chromium_runs_nothing_of_it_and_needs_no_more_than_a_phone_is_wide(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    html = _written(pair[1], pair[0])
    script = (
        "({title: d.title, scripts: d.scripts.length, images: d.images.length, wide: d.documentElement.scrollWidth,"
    )
    script += " map: d.querySelector('.map').clientHeight, cells: d.querySelectorAll('.map b').length})"
    narrow, wide = (measured(html, script, width, tmp_path) for width in (390, 1100))
    for told in (narrow, wide):
        assert (told["title"], told["scripts"], told["images"]) == ("out.iso", 0, 0)
        assert told["cells"] > 3
    assert narrow["wide"] == 390
    assert wide["wide"] == 1100
    assert narrow["map"] > 390  # higher than wide, so that names can be read


def test_light_and_dark_and_on_paper(pair: tuple[Path, Path], tmp_path: Path) -> None:
    html = _written(pair[1], pair[0])
    assert screenshot(html, tmp_path / "light.png", 1100, 900) == (1100, 900)
    assert screenshot(html, tmp_path / "dark.png", 1100, 900, scheme=DARK) == (1100, 900)
    assert (tmp_path / "light.png").read_bytes() != (tmp_path / "dark.png").read_bytes()
    paper = pdf_text(html, tmp_path / "page.pdf")
    for title in ("Along its blocks", "Layer by layer", "The root filesystem by size", "What changed", "Boot proof"):
        assert title in paper
    assert "Sound" in paper
    assert "Parts of the image in the order of their blocks" in paper  # what is folded on a screen is not on paper


def test_blocks_and_partitions_are_those_that_others_see(debirf_image: DebirfImage, tmp_path: Path) -> None:
    tools.require("isoinfo", "sfdisk")
    site = tmp_path / "site.iso"
    (tmp_path / "big").write_bytes(os.urandom(200_000))
    cosremaster.remaster(debirf_image.iso, site, add=[f"{tmp_path}/big:/root/"])
    told = " ".join(Page(_written(site, debirf_image.iso).read_text()).texts)
    starts = _extents(site)
    rows = {name: re.search(rf"{re.escape(name)} ([\d,]+)–([\d,]+)", told) for name in (REAL_CGZ, "vmlinuz")}
    for name, found in rows.items():
        assert found is not None, name
        lba, size = starts[name]
        assert [int(one.replace(",", "")) for one in found.groups()] == [lba, lba + blocks_for(size) - 1]
    sectors = re.findall(r"MBR partition (\d)", told)
    table = run(["sfdisk", "--dump", str(site)]).decode()
    assert set(sectors) == set(re.findall(r"site\.iso(\d) :", table))
    old, new = _extents(debirf_image.iso)["vmlinuz"], starts["vmlinuz"]
    assert (old[0] != new[0]) == (f"{old[0]:,}–" in told)
    assert "root/big" in told


def _extents(iso: Path) -> dict[str, tuple[int, int]]:
    """First block and bytes of each file in the root directory, as isoinfo lists them."""
    lines = run(["isoinfo", "-R", "-l", "-i", str(iso)]).decode(errors="replace").splitlines()
    pattern = re.compile(r"^-\S+\s+\d+\s+\d+\s+\d+\s+(\d+).*\[\s*(\d+)\s+\d+\]\s+(\S+)")
    return {hit[3]: (int(hit[2]), int(hit[1])) for line in lines if (hit := pattern.match(line))}


def test_an_exchanged_kernel_is_all_that_changed(debirf_image: DebirfImage, tmp_path: Path) -> None:
    grown = tmp_path / "vmlinuz"
    grown.write_bytes(os.urandom(400_000))
    site = tmp_path / "site.iso"
    cosremaster.remaster(debirf_image.iso, site, add_iso=[f"{grown}:/vmlinuz"])
    told = " ".join(Page(_written(site, debirf_image.iso).read_text()).texts)
    assert "Holds something else: 1" in told
    assert "Sound" in told


def test_a_boot_image_with_new_pointers_alone_is_told_apart(debirf_image: DebirfImage, tmp_path: Path) -> None:
    with open_source(debirf_image.iso) as source:
        boot = read_image(source).boot_images[0]
    assert boot.boot_info is not None
    bios = boot.entry.lba * 2048
    image = bytearray(debirf_image.iso.read_bytes())
    image[bios + 20] ^= 1  # the sum in its boot-info-table (mkisofs(8), "EL TORITO BOOT INFORMATION TABLE")
    (tmp_path / "old.iso").write_bytes(image)
    told = " ".join(Page(_written(tmp_path / "old.iso", debirf_image.iso).read_text()).texts)
    assert "Same but for the block numbers in it: 1" in told
    image[bios + 5000] ^= 1  # code
    (tmp_path / "old.iso").write_bytes(image)
    told = " ".join(Page(_written(tmp_path / "old.iso", debirf_image.iso).read_text()).texts)
    assert "Same but for" not in told
    assert "Not sound" in told


def test_a_boot_image_that_was_meant_to_change_must_be_named(debirf_image: DebirfImage, tmp_path: Path) -> None:
    site = tmp_path / "site.iso"
    fat = tmp_path / "efiboot.img"
    fat.write_bytes(_boot_file(debirf_image.iso, b"EFI/efiboot.img") + bytes(2048))
    cosremaster.remaster(debirf_image.iso, site, add_iso=[f"{fat}:/EFI/efiboot.img"])
    told = " ".join(Page(_written(site, debirf_image.iso).read_text()).texts)
    assert "Not sound" in told
    write_overview(site, tmp_path / "named.html", against=debirf_image.iso, changed=[b"EFI/efiboot.img"])
    told = " ".join(Page((tmp_path / "named.html").read_text()).texts)
    assert "against.boot" in told
    assert "Not sound" not in told


def _boot_file(iso: Path, path: bytes) -> bytes:
    with open_source(iso) as source:
        image = read_image(source)
        return b"".join(image.bytes_of(next(file for file in image.files if file.path == path)).chunks())


def test_an_unsound_image_is_not_called_sound(pair: tuple[Path, Path], tmp_path: Path) -> None:
    broken = bytearray(pair[1].read_bytes())
    with open_source(pair[1]) as source:
        image = read_image(source)
    entry = image.boot_images[0].entry
    broken[entry.offset + 8] ^= 1  # the boot image's block (El Torito, figure 3)
    (tmp_path / "broken.iso").write_bytes(broken)
    told = " ".join(Page(_written(tmp_path / "broken.iso", pair[0]).read_text()).texts)
    assert "Not sound" in told
    assert "✗" in told


def test_the_same_images_make_the_same_bytes(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _written(pair[1], pair[0]).read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for image in pair:
        shutil.copy(image, elsewhere)
    monkeypatch.chdir(elsewhere)
    env = {**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    words = ["inspect", "out.iso", "--against", "in.iso", "--html", "again.html"]
    subprocess.run([sys.executable, "-m", "cosremaster", *words], check=True, env=env, capture_output=True)
    assert Path("again.html").read_bytes() == first


def test_alone_bare_and_without_layers(tmp_path: Path) -> None:
    alone = Page(_written(write_small(tmp_path)).read_text())
    assert any("--against" in one for one in alone.texts)
    bare = tmp_path / "initrd"
    bare.write_bytes(initramfs())
    (tmp_path / "more").write_text("more")
    cosremaster.remaster(bare, tmp_path / "new", add=[f"{tmp_path}/more:/etc/more"])
    told = " ".join(_assert_alone(_written(tmp_path / "new", bare).read_text()).texts)
    assert "It is no ISO image" in told
    assert "etc/more" in told
    assert "new or changed" in told


def test_options_that_make_no_sense(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    html = str(tmp_path / "p.html")
    image = str(pair[1])
    for words in (
        ["--html", html, "--json"], ["--html", html, "--layer", "x"], ["--against", image], ["--force"],
        ["--html", html, "--changed", "x"],
    ):  # fmt: skip
        assert main(["inspect", image, *words]) == 2
    assert not Path(html).exists()
    capsys.readouterr()
    assert main(["inspect", image, "--html", html, "--against", str(pair[0])]) == 0
    assert html in capsys.readouterr().out
    before = Path(html).read_bytes()
    assert main(["inspect", str(pair[0]), "--html", html]) == 8
    assert main(["inspect", image, "--html", image, "--force"]) == 8
    assert main(["inspect", image, "--html", str(pair[0]), "--against", str(pair[0]), "--force"]) == 8
    assert Path(html).read_bytes() == before
    (tmp_path / "damaged.iso").write_bytes(Path(image).read_bytes()[:40_000])
    assert main(["inspect", str(tmp_path / "damaged.iso"), "--html", str(tmp_path / "none.html")]) != 0
    assert not (tmp_path / "none.html").exists()
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".cosremaster-*"))


@pytest.fixture(scope="module")
def bare_facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    """Facts about a small image, to be varied."""
    path = write_small(tmp_path_factory.mktemp("facts"))
    with open_source(path) as source:
        side = Side(name="in.iso", image=read_image(source), layers=(), chosen=None)
        yield Facts(new=side, old=side, differences=(), verified=verify(path), mapped=())


names = st.binary(min_size=1, max_size=30).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
hostile_names = st.one_of(names, st.sampled_from([name.replace(b"/", b"_") for name in HOSTILE]))
paths = st.lists(hostile_names, min_size=1, max_size=4).map(b"/".join)


@settings(max_examples=60, deadline=None)
@example(sizes={}, changed=[(b"_/.", "")])  # a name that only a hostile image has
@given(st.dictionaries(paths, st.integers(0, 1 << 40), max_size=12), st.lists(st.tuples(paths, st.text(max_size=20))))
def test_no_name_gets_out_of_its_place(
    bare_facts: Facts, sizes: dict[bytes, int], changed: list[tuple[bytes, str]]
) -> None:
    differences = tuple(Difference("content", format_address([path]), (detail,)) for path, detail in changed)
    nodes = [Weight(path, size) for path, size in sizes.items()]
    told = " ".join(_assert_alone(page(replace(bare_facts, differences=differences, mapped=nodes)).decode()).texts)
    for path, detail in changed[:100]:
        assert text(path) in told
        assert printable(detail)[:20] in told


@given(st.one_of(st.binary(max_size=400), st.text(max_size=400)), st.text(max_size=50))
def test_text_and_attributes_come_back_as_they_went_in(name: bytes | str, tip: str) -> None:
    found = Page(element("b", name, title=tip))
    assert found.tags == ["b"]
    shown = text(name) if isinstance(name, bytes) else printable(name)
    assert "".join(found.texts) == shown
    assert dict(found.attributes).get("title", "") == printable(tip)
    assert len(text(name)) <= LONGEST


def test_a_hundred_thousand_files_are_a_page_of_less_than_two_megabytes(bare_facts: Facts) -> None:
    nodes = [
        Weight(b"usr/share/%d/%d/%s-%d" % (n % 40, n % 900, b"a-rather-long-name" * 6, n), 1 + n * 7919 % 65_536)
        for n in range(100_000)
    ]
    where = [format_address([b"debirf.cgz", b"rootfs.cxz", node.path]) for node in nodes]
    differences = [Difference(what, one, ("x" * 4000,)) for what in ("added", "content", "metadata") for one in where]
    html = page(replace(bare_facts, differences=tuple(differences), mapped=nodes))
    assert len(html) < 2_000_000
    told = " ".join(_assert_alone(html.decode()).texts)
    assert "100,000 files" in told
    assert "Added: 100,000" in told


def test_the_image_of_an_archive_of_one_file_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(build_archive([regular(b"etc/<b>", b"data")]))
    _assert_alone(_written(tmp_path / "one").read_text())


def test_parts_of_one_label_are_told_apart(debirf_image: DebirfImage) -> None:
    """Nothing is moved between an image and itself, however many directories and gaps it has."""
    with open_source(debirf_image.iso) as source:
        side = Side(name="a.iso", image=read_image(source), layers=(), chosen=None)
        found = Page(page(Facts(new=side, old=side, differences=(), verified=None, mapped=())).decode())
    assert found.texts.count("directory") + found.texts.count("padding, or unreferenced") > 2
    assert "em" not in found.tags
    assert found.texts.count("same") == sum(one == "td" for one in found.tags) // 4


@pytest.mark.parametrize("family", ["data-zisofs", "fedora", "multi-session", "ubuntu", "udf"])
def test_other_families_have_a_page(family: str, tmp_path: Path) -> None:
    """Zisofs is what pycdlib cannot read; Fedora's has three partition tables, Ubuntu's ends with a backup GPT."""
    tools.require("sgdisk")
    image = tmp_path / f"{family}.iso"
    shutil.copy(families.build(family), image)
    told = " ".join(_assert_alone(_written(image).read_text()).texts)
    assert "The image's files by size" in told
    if family == "ubuntu":
        sectors = re.search(rb"Disk .+: (\d+) sectors", run(["sgdisk", "--print", str(image)]))
        assert sectors is not None
        last = int(sectors[1]) // 4 - 1  # of 512 bytes; blocks have four
        assert re.search(rf"backup GPT [\d,]+–{last:,} ", told)


def test_the_page_shows_how_text_differs_dates_and_a_verdict(tmp_path: Path) -> None:
    source = write_small(tmp_path)
    (tmp_path / "hostname").write_text("<b>site</b>\n")
    os.utime(tmp_path / "hostname", (86_400, 86_400))
    cosremaster.remaster(source, tmp_path / "out.iso", add=[f"{tmp_path}/hostname:/etc/hostname"])
    html = _written(tmp_path / "out.iso", source).read_text()
    found = _assert_alone(html)
    assert found.texts.count("Sound") == 1
    assert '<code class="minus">-debirf</code>' in html
    assert '<code class="plus">+&lt;b&gt;site&lt;/b&gt;</code>' in html
    assert "mtime 2023-11-14 22:13:20 -&gt; 1970-01-02 00:00:00 UTC" in html
    assert "--- a/" not in html


def test_a_long_diff_is_cut(tmp_path: Path) -> None:
    source = write_small(tmp_path)
    (tmp_path / "hostname").write_text("".join(f"{number}\n" for number in range(100)))
    cosremaster.remaster(source, tmp_path / "out.iso", add=[f"{tmp_path}/hostname:/etc/hostname"])
    html = _written(tmp_path / "out.iso", source).read_text()
    assert html.count('class="plus"') + html.count('class="minus"') + html.count('class="spot"') == DIFF_LINES
    assert "… and 62 more lines" in html


@pytest.mark.parametrize("kind", ["squashfs", "cpio"])
def test_a_file_system_has_no_codec_around_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It compresses its own blocks, and counts inodes: of them some may be left of files that were replaced."""
    monkeypatch.chdir(tmp_path)
    Path("root").mkdir()
    Path("root/hostname").write_text("one\n")
    cosremaster.pack("root", f"old.{kind}")
    Path("root/hostname").write_text("two\n")
    cosremaster.remaster(f"old.{kind}", f"new.{kind}", add=["root/"])
    assert main(["inspect", "--deep", f"new.{kind}"]) == 0
    told = capsys.readouterr().out
    page = " ".join(_assert_alone(_written(Path(f"new.{kind}"), Path(f"old.{kind}")).read_text()).texts)
    if kind == "squashfs":
        assert re.search(r"^  squashfs 4\.0, 4 inodes, [\d.]+ \w+$", told, re.MULTILINE)
        assert re.search(r"squashfs 4\.0, 2 → 4 inodes, [\d.]+ ", page)
    else:
        assert re.search(r"^  cpio 070701, 2 entries, none, 512 B packed, 512 B plain$", told, re.MULTILINE)
        assert "entries, none, 512 B packed" in page
