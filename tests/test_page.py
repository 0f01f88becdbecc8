"""The page of results: whole, by itself, and drawn by a browser where there is one."""

import base64
import html
import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from pictures import PIXELS, explained
from PIL import Image as Pillow

from randviz.experiments.claims import VERDICTS
from randviz.experiments.page import Section, format_page

HOSTILE = '<script>alert("1")</script>'
VOID = {"meta", "img", "input", "br", "hr", "link"}
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
# So that it neither looks for its maker's hosts nor needs a sandbox that containers lack.
BROWSER_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --enable-logging=stderr --virtual-time-budget=5000"
).split()


class Reader(html.parser.HTMLParser):
    """Collects a page's elements and its text, and refuses what is not closed in order."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def make_claim(verdict="supported", **changes):
    claim = {
        "statement": "Random weights rebuild the picture",
        "figure": "Figure 3",
        "measure": "distance",
        "groups": ["random", "trained"],
        "units": "pictures",
        "n": 12,
        "effect": -0.123456,
        "interval": [-3385.2, 1.0],
        "p": 0.00123,
        "corrected_p": 0.0456,
        "verdict": verdict,
        "why": "The interval is on one side of 0.",
        "post_hoc": False,
    }
    return {**claim, **changes}


def make_section(name="fig3", **changes):
    section = Section(
        name=name,
        title=f"Title of {name}",
        description="It does.\n\nClaim: as `conv1_1` goes.\nExpect: much.\n\nUsage: x [y]\n\n"
        "Examples:\n  run x",
        command=f"python -m {name} --seed=1",
        metadata={
            "settings": {"seed": 123456, "layers": ["a", "b"]},
            "device": "cpu",
            "none": None,
        },
        pictures=[],
        tables=[],
        claims=[],
    )
    return section._replace(**changes)


@pytest.fixture
def pictures(tmp_path):
    """A picture of each kind; the first has characters in its name that HTML gives a meaning."""
    paths = [tmp_path / 'a_"curve"&.png', tmp_path / "photo.jpg"]
    for path in paths:
        Pillow.fromarray(PIXELS).save(path)
    return paths


@pytest.fixture
def sections(tmp_path, pictures):
    table = tmp_path / "table.md"
    table.write_text(f"# Heads\n\n| size | {HOSTILE} |\n| --- | --- |\n| 64 | 2.5 |\n\nWords.\n")
    link = tmp_path / "link.md"
    link.write_text("[a](http://x.org) ![b](http://x.org/b.png) <http://x.org>\n\n<b>bold</b>\n")
    claims = [make_claim(), make_claim("contradicted"), make_claim(statement=HOSTILE, why=HOSTILE)]
    empty = {"effect": None, "interval": None, "p": None, "corrected_p": None}
    few = make_claim("inconclusive", post_hoc=True)
    not_run = make_claim("not run", n=0, **empty)
    return [
        make_section("fig3", pictures=pictures, tables=[table], claims=claims),
        make_section("speed", tables=[link], claims=[few, not_run]),
        make_section("gallery", title=HOSTILE, description=HOSTILE, command=HOSTILE, metadata={}),
    ]


@pytest.fixture
def page(sections):
    return format_page("All results", "Lead.\n\nMore of it.", sections)


def test_the_page_is_whole_and_for_telephones_too(page):
    reader = Reader(page)
    assert page.startswith("<!doctype html>")
    assert [x["content"] for x in reader.all("meta") if x.get("name") == "viewport"]
    assert "prefers-color-scheme: dark" in page
    assert "<p>Lead.</p>\n<p>More of it.</p>" in page
    assert "$" not in page


def test_pictures_are_embedded_and_named(page, pictures):
    images = Reader(page).all("img")
    kinds = ["image/png", "image/jpeg"]
    assert len(images) == len(pictures)
    for image, path, kind in zip(images, pictures, kinds, strict=True):
        prefix, _, data = image["src"].partition(",")
        assert prefix == f"data:{kind};base64"
        assert base64.b64decode(data, validate=True) == path.read_bytes()
        assert image["alt"] == f"Title of fig3: {path.stem.replace('_', ' ')}"


def test_nothing_is_fetched_or_run(page):
    reader = Reader(page)
    for tag, attributes in reader.elements:
        assert tag not in ("script", "link", "iframe", "object", "b")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert re.match(r"#|data:image/", attributes.get(name, "#"))
    assert "url(" not in page and "@import" not in page


def test_links_lead_to_ids_that_exist_once(page, sections):
    reader = Reader(page)
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"].removeprefix("#") for attributes in reader.all("a")]
    assert set(targets) <= set(ids)
    contents = page.split('aria-label="Contents"')[1].split("</nav>")[0]
    assert re.findall(r'href="#([^"]+)"', contents) == [section.name for section in sections]


def test_claims_are_counted_and_listed(page):
    overview = page.split('id="the-claims"')[1].split("</section>")[0]
    counted = re.findall(r"<li>(\d+) <strong[^>]*>([^<]+)</strong>", overview)
    assert counted == [
        ("2", "supported"), ("1", "contradicted"), ("1", "inconclusive"), ("1", "not run")
    ]  # fmt: skip
    summaries = re.findall(r"<summary>(.*?)</summary>", overview)
    assert [re.sub("<[^>]+>", "", summary) for summary in summaries] == [
        "Figure 3: 2 supported, 1 contradicted", "Figure 3: 1 inconclusive, 1 not run",
    ]  # fmt: skip
    tables = overview.split("<tbody>")[1:]
    rows = [row for table in tables for row in table.split("</tbody>")[0].split("<tr>")[1:]]
    assert len(rows) == 5
    assert ["post hoc" in row for row in rows] == [False, False, False, True, False]
    assert "0.046" in rows[0]
    for verdict in VERDICTS:
        assert page.count(f">{verdict}<") >= 3  # the count, the table, the section
    assert 'href="#fig3"' in tables[0] and 'href="#speed"' in tables[1]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (-0.123456, "−0.123"),
        (0, "0.00"),
        (1, "1.00"),
        (339.4, "339"),
        (3385.2, "3390"),
        (99999.9, "100000"),
        (5e8, "5.00e+08"),
        (1.234e-7, "1.23e−07"),
    ],
)
def test_numbers_have_three_digits(number, text):
    section = make_section(claims=[make_claim(effect=number, interval=[number, number])])
    shown = Reader(format_page("t", "", [section])).text
    assert shown.count(f"{text} [{text}, {text}]") == 2


def test_settings_keep_all_their_digits(page):
    text = Reader(page).text
    for name, value in (("settings.seed", "123456"), ("settings.layers", "a, b"), ("none", "null")):
        assert f"{name}{value}" in text


def test_hostile_text_comes_out_escaped(page):
    reader = Reader(page)
    assert not reader.all("script") and not reader.all("b")
    # In the overview, the claim and why; in a table; in the contents, the title, words, command.
    assert reader.text.count(HOSTILE) == 8
    assert "[a](http://x.org)" in reader.text and "<b>bold</b>" in reader.text


def test_words_are_paragraphs_and_examples_are_left_out(page):
    assert "<p><strong>Claim:</strong> as <code>conv1_1</code> goes.</p>" in page
    assert "<p><strong>Expect:</strong> much.</p>" in page
    assert "Example" not in page and "Usage" not in page


def test_tables_are_tables_below_the_section(page):
    reader = Reader(page)
    assert len(reader.all("h1")) == 1
    assert "<h3>Heads</h3>" in page and "<p>Words.</p>" in page
    assert "<td>2.5</td>" in page
    boxes = re.findall(r'<div class="box"[^>]*>(?=<table)', page)
    assert len(boxes) == len(reader.all("table"))


@pytest.mark.parametrize(("rows", "is_folded"), [(59, False), (60, True)])
def test_long_tables_are_folded(tmp_path, rows, is_folded):
    table = tmp_path / "long_<table>.md"
    table.write_text("| a |\n| --- |\n" + "| 1 |\n" * rows)
    page = format_page("t", "", [make_section(tables=[table], metadata={})])
    assert page.count("<tr>") == rows + 1
    assert ("<summary>long_&lt;table&gt;, in full</summary>" in page) == is_folded


def test_a_page_without_claims_has_no_table_of_them():
    page = format_page("t", "", [make_section("fig3"), make_section("speed")])
    reader = Reader(page)
    assert "Verdict" not in reader.text and 'id="the-claims"' not in page
    assert {x["href"] for x in reader.all("a")} == {"#fig3", "#speed", "#the-top"}
    Reader(format_page("t", "", []))


def test_mistakes_are_explained(tmp_path):
    with explained("fig3"):
        format_page("t", "", [make_section(), make_section()])
    with explained("perhaps", *VERDICTS):
        format_page("t", "", [make_section(claims=[make_claim("perhaps")])])
    with explained("a.svg"):
        format_page("t", "", [make_section(pictures=[tmp_path / "a.svg"])])


@pytest.mark.skipif(BROWSER is None, reason="no Chromium; apt-get install chromium")
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_draws_every_picture_and_complains_of_nothing(tmp_path, sections, width):
    wide = tmp_path / "wide.png"
    Pillow.fromarray(np.zeros((40, 2000, 3), np.uint8)).save(wide)
    sections[1] = sections[1]._replace(pictures=[wide], command="python -m " + 40 * "speed=1,")
    page = format_page("All results", "Lead.", sections)
    # A browser's window cannot be as narrow as a telephone, but a frame in it can.
    host = tmp_path / "host.html"
    host.write_text(
        f'<iframe width="{width}" height="800" style="border:0" srcdoc="{html.escape(page)}">'
        "</iframe><script>onload = () => { const page = frames[0].document;"
        " document.title = JSON.stringify({ pictures: [...page.images].map(x => x.complete &&"
        " x.naturalWidth), tooWide: page.documentElement.scrollWidth >"
        " page.documentElement.clientWidth }); };</script>",
        encoding="utf-8",
    )
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [BROWSER, *BROWSER_FLAGS, profile, "--dump-dom", host.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    seen = json.loads(re.search("<title>(.*)</title>", done.stdout)[1])
    assert seen == {"pictures": [PIXELS.shape[1]] * 2 + [2000], "tooWide": False}
