"""One page of all experiments' results, to be opened from a file.

`format_page` puts everything into one HTML text: pictures are embedded and nothing is fetched or
run, so the page can be sent to somebody and looks the same there.
"""

import base64
import collections
import html
import json
import mimetypes
import pathlib
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markdown_it import MarkdownIt

from randviz.experiments.claims import VERDICTS
from randviz.types import UserError

# Words that open a paragraph of a docstring, whether or not an empty line stands before them.
_LEFT_OUT = ("Usage", "Examples", "Example")
_HEADS = ("Claim", "Expect", *_LEFT_OUT, "References")
_LONGEST_TABLE = 60  # rows that are shown before one asks for them
_TO_THE_TOP = '<p class="soft"><a href="#the-top">to the top</a></p>'


class Section(NamedTuple):
    """One experiment's part of the page.

    Attributes:
      name: its module's name, which links go to.
      title: what was done, in short.
      description: the module's docstring; its usage and examples are left out, for the command is
        shown.
      command: the command that made it.
      metadata: settings and machine as in run.json, plain values, which may be nested.
      pictures: PNG or JPEG files.
      tables: Markdown files of tables and paragraphs; links and HTML in them stay text.
      claims: mappings with the attributes of `claims.Claim`; an interval is [low, high] or None.
    """

    name: str
    title: str
    description: str
    command: str
    metadata: Mapping[str, Any]
    pictures: Sequence[pathlib.Path]
    tables: Sequence[pathlib.Path]
    claims: Sequence[Mapping[str, Any]]


def format_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Writes the page: all claims in one table, a list of the sections, and the sections.

    Args:
      title: what stands above everything.
      lead: paragraphs below it, with an empty line between two.
      sections: in the order of the page, each with a name of its own.

    Returns:
      A whole HTML document.

    Raises:
      UserError: if two sections have one name, a verdict is unknown, or a picture is neither PNG
        nor JPEG.
      OSError: if a picture or a table cannot be read.
    """
    names = collections.Counter(section.name for section in sections)
    for name, count in names.items():
        if count > 1:
            raise UserError(f"{count} sections are named {name!r}; give each its own name.")
    return _PAGE.substitute(
        title=html.escape(title),
        lead=_format_description(lead),
        overview=_format_overview(sections),
        contents="\n".join(f"<li>{_link(section, section.title)}</li>" for section in sections),
        sections="\n".join(_format_section(section) for section in sections),
    )


def _link(section: Section, text: str) -> str:
    return f'<a href="#{html.escape(section.name)}">{html.escape(text)}</a>'


def _format_overview(sections: Sequence[Section]) -> str:
    """Counts of verdicts, in all and of each section; nothing where there are no claims."""
    claims = [claim for section in sections for claim in section.claims]
    if not claims:
        return ""
    tables = "".join(_format_claims_table(section) for section in sections if section.claims)
    totals = "".join(f"<li>{words}</li>" for words in _count_verdicts(claims, VERDICTS))
    return (
        f'<section id="the-claims"><h2>Claims</h2><ul class="totals">{totals}</ul>'
        f"{tables}</section>"
    )


def _count_verdicts(claims: Sequence[Mapping[str, Any]], verdicts: Iterable[str]) -> list[str]:
    counts = collections.Counter(claim["verdict"] for claim in claims)
    return [f"{counts[verdict]} {_format_verdict(verdict)}" for verdict in verdicts]


def _format_claims_table(section: Section) -> str:
    """A section's claims, a row each, below their counts."""
    rows = "".join(
        f"<tr><td>{_format_judgement(claim)}</td>"
        '<th scope="row">'
        f"{html.escape(claim['statement'])}</th><td>{html.escape(claim['measure'])}</td>"
        f'<td class="number">{claim["n"]}</td><td class="number">{_format_effect(claim)}</td>'
        f'<td class="number">{_format_p(claim["corrected_p"])}</td></tr>'
        for claim in section.claims
    )
    header = (
        '<tr><th scope="col">Verdict</th><th scope="col">Claim</th><th scope="col">Measure</th>'
        '<th scope="col" class="number">n</th><th scope="col" class="number">Effect, 95 %</th>'
        '<th scope="col" class="number">Corrected p</th></tr>'
    )
    present = [v for v in VERDICTS if any(claim["verdict"] == v for claim in section.claims)]
    counts = ", ".join(_count_verdicts(section.claims, present))
    name = html.escape(section.claims[0]["figure"] or section.title)
    return (
        f"<details><summary>{name}: {counts}</summary>{_open_box(f'Claims of {name}')}"
        f'<table class="overview"><thead>{header}</thead><tbody>{rows}</tbody></table></div>'
        f"<p>{_link(section, 'Where they are shown')}</p></details>"
    )


def _format_verdict(verdict: str) -> str:
    if verdict not in VERDICTS:
        raise UserError(f"verdict {verdict!r} is unknown; use one of {', '.join(VERDICTS)}.")
    return f'<strong class="{verdict.replace(" ", "-")}">{verdict}</strong>'


def _format_judgement(claim: Mapping[str, Any]) -> str:
    return _format_verdict(claim["verdict"]) + ", post hoc" * claim["post_hoc"]


def _format_effect(claim: Mapping[str, Any]) -> str:
    """The effect and, in brackets, its interval."""
    if claim["effect"] is None:
        return "–"
    effect = _format_number(claim["effect"])
    if claim["interval"] is None:
        return effect
    # Each number is kept in one line; the interval may go below the effect.
    low, high = map(_format_number, claim["interval"])
    return f"<span>{effect}</span> <span>[{low}, {high}]</span>"


def _format_p(p: float | None) -> str:
    return "–" if p is None else f"{p:.2g}"


def _format_number(number: float) -> str:
    """Three significant digits, with an exponent only where there would be many zeros."""
    text = f"{number:#.3g}"
    if "e+0" in text and abs(number) < 1e6:
        text = f"{float(text):.0f}"
    return text.removesuffix(".").replace("-", "−")


def _open_box(label: str) -> str:
    """A box that scrolls what is wider than the page, with the keyboard too."""
    return f'<div class="box" role="region" tabindex="0" aria-label="{html.escape(label)}">'


def _format_section(section: Section) -> str:
    parts = [
        f'<section id="{html.escape(section.name)}"><h2>{html.escape(section.title)}</h2>',
        _format_description(section.description),
        *(_format_picture(section, path) for path in section.pictures),
        *(_format_markdown_file(section, path) for path in section.tables),
    ]
    if section.claims:
        claims = "".join(f"<li>{_format_claim(claim)}</li>" for claim in section.claims)
        parts.append(f'<h3>What it says about the claims</h3><ul class="claims">{claims}</ul>')
    # Each word is kept in one line where it fits: browsers would break it after a hyphen.
    command = re.sub(r"\S+", r"<span>\g<0></span>", html.escape(section.command))
    parts.append(f"<h3>How it was made</h3><pre><code>{command}</code></pre>")
    if section.metadata:
        rows = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'
            for name, value in _list_metadata(section.metadata)
        )
        parts.append(
            f"<details><summary>Settings and machine</summary>{_open_box('Settings and machine')}"
            f"<table><tbody>{rows}</tbody></table></div></details>"
        )
    return "\n".join([*parts, f"{_TO_THE_TOP}</section>"])


def _format_description(description: str) -> str:
    """Paragraphs of a docstring, with its first words bold and its names in code letters."""
    heads = "|".join(_HEADS)
    paragraphs = []
    for text in re.split(rf"\n\s*\n|\n(?=(?:{heads}):)", description.strip()):
        head = re.match(rf"({heads}):", text)
        if head and head[1] in _LEFT_OUT:
            continue
        text = re.sub(r"`+([^`]+)`+", r"<code>\1</code>", html.escape(text))
        if head:
            text = f"<strong>{head[0]}</strong>{text.removeprefix(head[0])}"
        paragraphs.append(f"<p>{text}</p>")
    return "\n".join(paragraphs)


def _format_picture(section: Section, path: pathlib.Path) -> str:
    """An embedded picture and a box to tick that enlarges it."""
    kind = mimetypes.guess_type(path.name)[0]
    if kind not in ("image/png", "image/jpeg"):
        raise UserError(f"picture {str(path)!r} is neither PNG nor JPEG; convert it.")
    data = base64.b64encode(path.read_bytes()).decode()
    caption = html.escape(path.stem.replace("_", " "))
    alt = f"{html.escape(section.title)}: {caption}"
    return (
        f'<figure>{_open_box(path.name)}<img src="data:{kind};base64,{data}" alt="{alt}"></div>'
        f'<figcaption>{caption} <label><input type="checkbox"> enlarge</label></figcaption>'
        "</figure>"
    )


def _format_markdown_file(section: Section, path: pathlib.Path) -> str:
    """A Markdown file as HTML: its headings below the section's, its tables in boxes."""
    # Links and pictures would reach for the network, and HTML could hold anything.
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.disable(["link", "image", "autolink", "reference"])
    tokens = parser.parse(path.read_text(encoding="utf-8"))
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + 2, 6)}"
        elif token.type == "th_open":
            token.attrSet("scope", "col")
    text = parser.renderer.render(tokens, parser.options, {})
    box = _open_box(f"{section.title}: {path.stem}")
    text = text.replace("<table>", f"{box}<table>").replace("</table>", "</table></div>")
    if text.count("<tr>") <= _LONGEST_TABLE:
        return text
    return f"<details><summary>{html.escape(path.stem)}, in full</summary>{text}</details>"


def _format_claim(claim: Mapping[str, Any]) -> str:
    metadata = {
        "Shown in": html.escape(claim["figure"]),
        "Measure": html.escape(claim["measure"]),
        "Groups": html.escape(", ".join(claim["groups"])),
        "Units": f"{claim['n']} ({html.escape(claim['units'])})",
        "Effect, 95 %": _format_effect(claim),
        "p": _format_p(claim["p"]),
        "Corrected p": _format_p(claim["corrected_p"]),
    }
    listed = "".join(
        f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in metadata.items() if text
    )
    return (
        f"<p>{_format_judgement(claim)} {html.escape(claim['statement'])}</p>"
        f"<details><summary>{html.escape(claim['why'])}</summary><dl>{listed}</dl></details>"
    )


def _list_metadata(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, those of a mapping within with its name before theirs."""
    for name, value in metadata.items():
        if isinstance(value, Mapping):
            yield from _list_metadata(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(map(_spell, value))
        else:
            yield f"{prefix}{name}", _spell(value)


def _spell(value: Any) -> str:
    """A value as it is, all digits of it, so that a setting can be used again."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_PAGE = string.Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
:root { --paper: #fff; --ink: #2d2d2d; --soft: #5c6168; --line: #d5d8dc; --shade: #f4f5f6;
  --link: #0b57a4; --supported: #1a7335; --contradicted: #b3261e; --not-run: #5c6168; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17191c; --ink: #e3e5e8; --soft: #a4abb3; --line: #3b4047; --shade: #22252a;
    --link: #8ab8f0; --supported: #62c983; --contradicted: #ff8f85; --not-run: #a4abb3; }
}
* { box-sizing: border-box; }
body { font: 17px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto;
  padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  overflow-wrap: break-word; -webkit-text-size-adjust: 100%; }
h1, h2, h3, h4 { line-height: 1.25; margin: 2rem 0 0.75rem; }
h1 { margin-top: 0; }
h3 { font-size: 1.1rem; }
h4, h5, h6 { font-size: 1rem; }
p { max-width: 46rem; }
a { color: var(--link); }
section { border-top: 1px solid var(--line); margin-top: 3rem; }
code { font-size: 0.88em; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--shade);
  padding: 0.75rem; border-radius: 4px; }
pre span { display: inline-block; max-width: 100%; }
.box { overflow-x: auto; max-width: 100%; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.9rem 0.4rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: normal; }
.overview { min-width: 50rem; width: 100%; }
.overview tbody th { min-width: 15rem; }
.number { text-align: right; }
.number span, strong { white-space: nowrap; }
.supported { color: var(--supported); }
.contradicted { color: var(--contradicted); }
.not-run { color: var(--not-run); }
/* On a telephone the verdict and the whole statement are seen before one scrolls. */
@media (max-width: 40rem) {
  .overview { min-width: 42rem; }
  .overview tbody th { min-width: 13rem; max-width: 13rem; }
  .overview strong { white-space: normal; }
  .overview tbody td:first-child { min-width: 6.2rem; }
}
.soft, figcaption, dt { color: var(--soft); font-size: 0.9rem; }
.totals { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.25rem 1.5rem; }
.claims { list-style: none; padding: 0; }
.claims li { background: var(--shade); border-radius: 4px; padding: 0.75rem; margin: 0.75rem 0; }
.claims p { margin: 0; }
.claims summary { color: var(--soft); font-size: 0.9rem; }
dl { display: flex; flex-wrap: wrap; gap: 0.5rem 1.5rem; margin: 0; }
dd { margin: 0; }
figure { margin: 1.5rem 0; }
img { display: block; max-width: 100%; height: auto; background: #fff; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0.25rem 1rem;
  margin-top: 0.5rem; }
figure:has(:checked) img { max-width: none; min-width: max(150%, 70rem); }
summary { cursor: pointer; padding: 0.5rem 0; }
</style>
</head>
<body>
<header id="the-top">
<h1>$title</h1>
$lead
</header>
<main>
$overview
<nav aria-label="Contents"><h2>Contents</h2>
<ul>
$contents
</ul></nav>
$sections
</main>
</body>
</html>
""")
