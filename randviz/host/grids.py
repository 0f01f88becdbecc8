"""Labelled panels of pictures.

`render_grid` puts images side by side, with text around them, into one image that can be saved like
any other. Everything here is numpy and Pillow on the host.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont, ImageOps

from randviz.host.images import scale_size, to_8_bits, to_array
from randviz.types import UserError

_PAPER, _EMPTY_PAPER = (255, 255, 255), (245, 245, 245)
_INK, _SOFT_INK, _FAINT_INK = (45, 45, 45), (90, 90, 90), (140, 140, 140)


def render_grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    captions: Sequence[Sequence[str | None]] | None = None,
    title: str | None = None,
    cell: int | None = None,
    gap: int = 16,
) -> np.ndarray:
    """Draws pictures of any sizes in rows and columns, with text around them, on white.

    A picture larger than its cell is shrunk; a smaller one is enlarged by a whole factor where it
    fits, with square pixels, so that nothing is seen that is not there. Text is wrapped to the
    width of a cell, and cells grow for a word that is wider, so no text is cut.

    Args:
      rows: images [H, W, 3], clipped to [0, 1]; rows may differ in length. None is an empty cell,
        marked "not run" unless it has a caption to say otherwise.
      row_labels: a text to the left of each row.
      column_labels: a text above each column.
      captions: a text under each picture, in the shape of `rows`; None or "" for none.
      title: a text above everything.
      cell: the longest side of the largest picture, in pixels; None takes that of the largest
        image, but at least 128 and at most 512.
      gap: the space between neighbours, in pixels.

    Returns:
      float32 [H, W, 3], RGB, in [0, 1].

    Raises:
      UserError: there are no cells, labels or captions do not match `rows`, or an image cannot be
        drawn (see `images.save_image`).

    Example:
      >>> render_grid([[np.zeros((12, 16, 3))]], cell=32, gap=10).shape
      (64, 72, 3)
    """
    _check_texts(rows, row_labels, column_labels, captions)
    if cell is None:
        longest = max((max(x.shape[:2]) for row in rows for x in row if x is not None), default=0)
        cell = min(max(longest, 128), 512)
    tiles = [
        [None if x is None else _fit(x, cell, f"row {i}, column {j}") for j, x in enumerate(row, 1)]
        for i, row in enumerate(rows, 1)
    ]
    width = max((tile.width for row in tiles for tile in row if tile), default=cell)
    height = max((tile.height for row in tiles for tile in row if tile), default=cell)
    captions = captions or [[None] * len(row) for row in rows]

    texts = [title, *(row_labels or ()), *(column_labels or ()), *itertools.chain(*captions)]
    letters = "".join(text or "" for text in texts)
    size = min(max(cell // 14, 13), 28)
    font, small_font = _choose_font(letters, size), _choose_font(letters, size - 1)
    ranks = []
    if column_labels:
        blocks = [_write(label, font, width) for label in column_labels]
        ranks.append(_Rank(None, blocks, align=1.0, space=gap // 2))
    for i, (row, notes) in enumerate(zip(tiles, captions, strict=True)):
        side = _write(row_labels[i], font, cell, align=1.0) if row_labels else None
        row_height = max((tile.height for tile in row if tile), default=height)
        blocks = [
            tile or _draw_empty("" if note else "not run", font, width, row_height)
            for tile, note in zip(row, notes, strict=True)
        ]
        ranks.append(_Rank(side, blocks, align=0.5, space=gap // 2 if any(notes) else gap))
        if any(notes):
            blocks = [_write(note or "", small_font, width, ink=_SOFT_INK) for note in notes]
            ranks.append(_Rank(None, blocks, align=0.0, space=gap))
    sheet = _lay_out(ranks, gap)
    if title:
        heading = _write(title, _choose_font(letters, size * 4 // 3), sheet.width)
        sheet = _lay_out([_Rank(None, [block], 0.0, gap) for block in (heading, sheet)], gap)
    return to_array(ImageOps.expand(sheet, 2 * gap, _PAPER))


def _check_texts(rows, row_labels, column_labels, captions):
    """Refuses a grid without cells, and texts that do not match its rows and columns."""
    columns = max((len(row) for row in rows), default=0)
    if columns == 0:
        raise UserError("rows has no pictures; give at least one, or None for an empty cell.")
    labels = {"row_labels": (row_labels, len(rows)), "column_labels": (column_labels, columns)}
    for name, (texts, count) in labels.items():
        if texts is not None and len(texts) != count:
            raise UserError(f"{name} must have {count} texts, one each, not {len(texts)}.")
    if captions is not None and [len(row) for row in captions] != [len(row) for row in rows]:
        raise UserError("captions must have one text, or None, for each picture of each row.")


def _fit(image: np.ndarray, cell: int, name: str) -> Pillow.Image:
    """Shrinks an image smoothly to `cell` pixels, or enlarges it by whole squares up to that."""
    picture = to_8_bits(image, name)
    factor = cell // max(picture.size)
    if factor == 0:
        return picture.resize(scale_size(picture.size, cell), Pillow.Resampling.LANCZOS)
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Pillow.Resampling.NEAREST)


def _choose_font(letters: str, size: int) -> ImageFont.FreeTypeFont:
    """Loads Pillow's own font, or where it lacks letters (it knows ASCII only) DejaVu Sans."""
    if letters.isascii():
        return ImageFont.load_default(size=size)
    import matplotlib  # here, because only this needs it, and only for its font

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def _write(text, font, width, *, ink=_INK, align=0.5) -> Pillow.Image:
    """Writes text, wrapped at `width` pixels, on a block just large enough for all of it."""
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".lstrip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    widths = [math.ceil(font.getlength(line)) for line in lines]
    step = sum(font.getmetrics())
    block = Pillow.new("RGB", (max(widths), step * len(lines)), _PAPER)
    pen = ImageDraw.Draw(block)
    for i, line in enumerate(lines):
        pen.text((int(align * (block.width - widths[i])), i * step), line, fill=ink, font=font)
    return block


def _draw_empty(text, font, width, height) -> Pillow.Image:
    """Draws a faint cell with a text in its middle, no smaller than the text."""
    size = max(width, math.ceil(font.getlength(text))), max(height, sum(font.getmetrics()))
    block = Pillow.new("RGB", size, _EMPTY_PAPER)
    middle = (block.width / 2, block.height / 2)
    ImageDraw.Draw(block).text(middle, text, fill=_FAINT_INK, font=font, anchor="mm")
    return block


class _Rank(NamedTuple):
    """Blocks of a grid that stand side by side: a label's, and one for each column."""

    side: Pillow.Image | None
    blocks: list[Pillow.Image]
    align: float  # where blocks stand in the rank's height: 0 at its top, 1 at its bottom
    space: int  # between this rank and the next, in pixels


def _lay_out(ranks: list[_Rank], gap: int) -> Pillow.Image:
    """Stacks ranks; every column is as wide as the widest block in any of them."""
    column = max(block.width for rank in ranks for block in rank.blocks)
    columns = max(len(rank.blocks) for rank in ranks)
    margin = max((rank.side.width + gap for rank in ranks if rank.side), default=0)
    heights = [max((x.height for x in (*rank.blocks, rank.side) if x), default=0) for rank in ranks]
    total = sum(heights) + sum(rank.space for rank in ranks[:-1])
    sheet = Pillow.new("RGB", (margin + columns * (column + gap) - gap, total), _PAPER)
    y = 0
    for rank, height in zip(ranks, heights, strict=True):
        placed = [
            (block, margin + j * (column + gap) + (column - block.width) // 2)
            for j, block in enumerate(rank.blocks)
        ]
        if rank.side:
            placed.append((rank.side, margin - gap - rank.side.width))
        for block, x in placed:
            sheet.paste(block, (x, y + round(rank.align * (height - block.height))))
        y += height + rank.space
    return sheet
