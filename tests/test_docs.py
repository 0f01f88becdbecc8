"""The README and the documentation: Python runs, links lead somewhere, no name is forgotten."""

import html.parser
import os
import pathlib
import re
import subprocess
import sys

import pytest

import randviz

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {"README": ROOT / "README.md"} | {
    str(path.relative_to(DOCS).with_suffix("")): path for path in sorted(DOCS.rglob("*.md"))
}
BLOCKS = {
    name: re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)
    for name, path in PAGES.items()
}
# What only makes a block take less time.
SMALLER = (
    (r"image_size=\d+", "image_size=24"),
    (r"num_steps=\d+", "num_steps=3"),
    (r"(random_weights\(\w+, rv\.VGG19)\)", r"\1, last_layer='conv2_1')"),
    (r'layer="pool4"', 'layer="pool1"'),
    (r"every=\d+", "every=2"),
    (r"rv\.Style\(", "rv.Style(content_layers='conv1_1', style_layers=('conv1_1', 'conv2_1'), "),
    (r"sizes=\(.*?\)", "sizes=(24,)"),
    (r"steps=\(.*?\)", "steps=(3,)"),
    (r"strength=0.6", "strength=0.6, num_steps=3"),
    (r"shape=\(64, 96\)", "shape=(20, 24), num_steps=3"),
)


@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks])
def test_the_blocks_of_a_page_run_one_after_another(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for index, block in enumerate(BLOCKS[page]):
        if "vgg19.h5" in block:
            continue  # needs a file of trained weights
        for pattern, smaller in SMALLER:
            block = re.sub(pattern, smaller, block)
        names.pop("result", None)
        exec(compile(block, f"{page}, block {index}", "exec"), names)
        if "result" in names:
            image = names["result"].image
            assert image.shape[2] == 3 and bool((image != 0).any())


def test_there_are_blocks_for_each_kind_of_network():
    blocks = "".join(map("".join, BLOCKS.values()))
    for name in ("from_function", "from_linen", "from_nnx", "RandomNetwork", "iterate", "paint"):
        assert f"rv.{name}(" in blocks


@pytest.mark.parametrize("page", PAGES)
def test_links_in_the_repository_lead_to_files(page):
    path = PAGES[page]
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)|src=\"([^\":]+)\"", path.read_text())
    assert len(targets) > 10 or page != "README"
    for target in map("".join, targets):
        assert (path.parent / target).exists(), target


class Links(html.parser.HTMLParser):
    """What a page loads, where it leads, and the places in it."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.links, self.places = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.places |= {attributes.get("id"), attributes.get("name")}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        elif tag == "link" and attributes.get("rel") != "canonical":
            self.loaded.append(attributes["href"])
        elif attributes.get("src"):
            self.loaded.append(attributes["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built as `make docs` does: a warning, such as of a link that leads nowhere, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    return {path: Links(path.read_text()) for path in folder.rglob("*.html")}


def test_every_page_loads_only_what_is_beside_it_and_every_link_leads_somewhere(site):
    assert len(site) > 20
    for path, page in site.items():
        if path.name == "404.html":
            continue  # its links are those of a server's root
        for target in page.loaded:
            assert "//" not in target and (path.parent / target.split("?")[0]).exists(), target
        for link in page.links:
            target, _, place = link.partition("#")
            if target.startswith(("http:", "https:", "mailto:")):
                continue
            reached = (path.parent / target).resolve() if target else path
            assert reached.exists(), f"{path}: {link}"
            if place and reached in site:
                assert place in site[reached].places, f"{path}: {link}"


def test_every_public_name_has_an_entry_in_the_reference(site):
    places = set().union(*(page.places for path, page in site.items() if "reference" in path.parts))
    assert {f"randviz.{name}" for name in randviz.__all__} <= places
