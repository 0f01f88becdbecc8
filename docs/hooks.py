"""Brings the results of experiments/ into the documentation, and keeps out what is elsewhere."""

import base64
import json
import pathlib
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
GALLERY = "experiments/gallery/painted/gallery.md"
# What Material loads from elsewhere, so that search works in a page that was opened from a file.
_SHIM = re.compile(r'<script src="https://[^"]*/iframe-worker/shim"></script>')
# In the repository experiments/ is beside docs/, in the documentation within it.
_BESIDE = re.compile(r"\]\(\.\./((?:\.\./)*experiments/)")
# A row of the gallery's table.
_ROW = re.compile(r"^\| (\w+) \| !\[\w+\]\((\S+)\) \| `(.*)` \|$", re.M)
_FIGURE = """
<figure markdown="span" class="painted">
![{name}]({picture}){{ loading=lazy }}
</figure>

```sh
{command}
```
"""


def on_files(files, config):
    """Adds the notebook as a page, and pages and pictures of experiments/ under their own paths."""
    notebook = "guides/notebook.ipynb"
    text, pictures = show_notebook(json.loads((ROOT / "docs" / notebook).read_text()))
    files.append(File.generated(config, notebook.replace("ipynb", "md"), content=text))
    for name, content in pictures.items():
        files.append(File.generated(config, f"guides/{name}", content=content))
    for path in sorted((ROOT / "experiments").rglob("*")):
        place = path.relative_to(ROOT)
        if path.suffix in (".md", ".jpg", ".png") and "runs" not in place.parts:
            files.append(File.generated(config, place.as_posix(), abs_src_path=str(path)))
    return files


def show_notebook(notebook):
    """A notebook as a page in Markdown, and its pictures: {name: bytes}."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            if "image/png" in data:
                name = f"notebook-{len(pictures)}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![What the cell shows]({name})")
            else:
                parts.append(f"```text\n{''.join(data['text/plain'])}\n```")
    parts.append("[The notebook itself](notebook.ipynb)")
    return "\n\n".join(parts), pictures


def on_page_markdown(markdown, page, config, files):
    """Leads links to where pages are in the documentation, and makes room for tables.

    The gallery's table becomes pictures, each above its command.
    """
    place = pathlib.PurePosixPath(page.file.src_uri)
    if place.parts[0] != "experiments":
        markdown = _BESIDE.sub(r"](\1", markdown)
    if place.stem != "notebook":
        markdown = markdown.replace("notebook.ipynb)", "notebook.md)")
    if place.parts[0] == "experiments":
        page.meta.setdefault("hide", ["toc"])  # tables are wider than what is left beside it
        if not markdown.startswith("# "):
            page.meta.setdefault("title", f"{place.parent.name}: {place.stem}")
    if page.file.src_uri != GALLERY:
        return markdown
    head, _, table = markdown.partition("| name |")
    figures = (
        _FIGURE.format(name=name, picture=picture, command=command)
        for name, picture, command in _ROW.findall(table)
    )
    return head + "".join(figures)


def on_post_page(output, page, config):
    """Takes our own script in place of one from elsewhere."""
    base = "../" * page.url.count("/")
    return _SHIM.sub(f'<script src="{base}worker.js"></script>', output)


def on_post_template(output, template_name, config):
    """Likewise in the page of errors."""
    return _SHIM.sub('<script src="worker.js"></script>', output)
