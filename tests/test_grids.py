"""Grids of pictures: where everything stands, and that all of the text is there."""

import numpy as np
import pytest
from pictures import BLUE, GREEN, PIXELS, RED, YELLOW, explained, plain
from PIL import ImageFont

from randviz.host import grids
from randviz.host.grids import render_grid

TEXTS = {
    "title": "What a random network keeps",
    "row_labels": ["Random", "Trained"],
    "column_labels": ["conv1_1", "conv2_1"],
    "captions": [["loss 1.0\n2000 steps", "loss 2.0"], [None, "a long caption " * 8]],
}


def label(text):
    """The text in every place of a grid of one picture."""
    return {"title": text, "row_labels": [text], "column_labels": [text], "captions": [[text]]}


def find(grid, colour):
    """The box (top, bottom, left, right) that a colour fills, exactly and once."""
    rows, columns = np.nonzero(np.all(np.abs(grid - np.float32(colour)) < 1e-6, axis=-1))
    box = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    assert len(rows) == (box[1] - box[0]) * (box[3] - box[2])
    return tuple(int(side) for side in box)


def find_ink(grid):
    """Where the dark or grey strokes of text are, bool [H, W]."""
    spread = grid.max(axis=-1) - grid.min(axis=-1)
    return (spread < 1e-6) & (grid.max(axis=-1) < 0.9)


def test_pictures_stand_once_in_order_and_evenly():
    # Red is given as values outside the range, which are clipped.
    rows = [[plain((3, -1, 0)), plain(GREEN)], [plain(BLUE), plain(YELLOW)]]
    grid = render_grid(rows, cell=32, gap=10)
    assert grid.dtype == np.float32
    # Two margins of twice the gap around two cells of 24 × 32 with one gap between them.
    assert grid.shape == (20 + 24 + 10 + 24 + 20, 20 + 32 + 10 + 32 + 20, 3)
    assert find(grid, RED) == (20, 44, 20, 52)
    assert find(grid, GREEN) == (20, 44, 62, 94)
    assert find(grid, BLUE) == (54, 78, 20, 52)
    assert find(grid, YELLOW) == (54, 78, 62, 94)
    assert not find_ink(grid).any()


def test_small_pictures_grow_in_whole_squares():
    image = PIXELS.astype(np.float32) / 255
    grid = render_grid([[image]], cell=40, gap=5)  # 40 // 16 is 2
    np.testing.assert_array_equal(grid[10:-10, 10:-10], image.repeat(2, axis=0).repeat(2, axis=1))


def test_large_pictures_shrink_smoothly():
    image = plain(RED, 120, 160)
    image[::2] = BLUE
    grid = render_grid([[image]], cell=16, gap=5)
    assert grid.shape == (10 + 12 + 10, 10 + 16 + 10, 3)
    np.testing.assert_allclose(grid[16, 16], (0.5, 0, 0.5), atol=0.02)


@pytest.mark.parametrize(("longest", "shown"), [(16, 128), (200, 200), (1000, 512)])
def test_a_cell_has_the_size_of_the_largest_picture_within_limits(longest, shown):
    grid = render_grid([[plain(RED, longest, longest), plain(GREEN, 4, 4)]])
    top, bottom, left, right = find(grid, RED)
    assert (bottom - top, right - left) == (shown, shown)


def test_pictures_of_different_shapes_are_centred_in_their_cells():
    grid = render_grid([[plain(RED, 12, 16), plain(GREEN, 16, 12)]], cell=64, gap=8)
    assert find(grid, RED) == (16 + 8, 16 + 8 + 48, 16, 16 + 64)
    assert find(grid, GREEN) == (16, 16 + 64, 16 + 64 + 8 + 8, 16 + 64 + 8 + 8 + 48)


def test_text_stays_off_the_pictures_and_inside_the_margins():
    colours = [[RED, GREEN], [BLUE, YELLOW]]
    grid = render_grid([[plain(c) for c in row] for row in colours], **TEXTS)
    boxes = [find(grid, colour) for row in colours for colour in row]
    for top, bottom, left, right in boxes:  # a full box has no ink on it
        assert (bottom - top, right - left) == (96, 128)
    # Every row and column of pictures is in line, and everything has white around it.
    assert boxes[0][:2] == boxes[1][:2] and boxes[2][:2] == boxes[3][:2]
    assert boxes[0][2:] == boxes[2][2:] and boxes[1][2:] == boxes[3][2:]
    for edge in (grid[:25], grid[-25:], grid[:, :25], grid[:, -25:]):
        assert (edge == 1).all()
    ink = find_ink(grid)
    assert ink[: boxes[0][0]].any()  # title and column labels
    assert ink[boxes[0][0] : boxes[0][1], : boxes[0][2]].any()  # the first row's label
    assert ink[boxes[0][1] : boxes[2][0], boxes[0][2] : boxes[0][3]].any()  # the first caption
    assert ink[boxes[3][1] :, boxes[3][2] : boxes[3][3]].any()  # the last caption
    assert not ink[boxes[2][1] :, boxes[2][2] : boxes[2][3]].any()  # a picture without one


def test_lines_are_centred_under_pictures_and_flush_beside_them():
    text = "HHHHHHHH\nHH"
    grid = render_grid([[plain(RED)]], captions=[[text]], row_labels=[text], gap=16)
    _, bottom, left, right = find(grid, RED)

    def measure(ink):
        """The middle, the end and the length of each of two lines of text, in pixels."""
        filled = np.nonzero(ink.any(axis=1))[0]
        lines = np.split(filled, [np.argmax(np.diff(filled)) + 1])
        columns = [np.nonzero(ink[line].any(axis=0))[0][[0, -1]] for line in lines]
        return np.mean(columns, axis=1), np.max(columns, axis=1), np.ptp(columns, axis=1)

    middles, _, under = measure(find_ink(grid)[bottom:, left:right])
    _, ends, beside = measure(find_ink(grid)[:bottom, :left])
    assert under[0] > 3.5 * under[1] and beside[0] > 3.5 * beside[1]
    np.testing.assert_allclose(middles, (right - left) / 2, atol=1.5)
    np.testing.assert_allclose(ends, left - 16, atol=2)


def test_each_kind_of_text_makes_the_grid_larger():
    rows = [[plain(RED)] * 2] * 2
    height, width, _ = render_grid(rows).shape
    for name, text in TEXTS.items():
        labelled = render_grid(rows, **{name: text}).shape
        wider = name == "row_labels"  # all others make it higher
        assert (labelled[0] > height, labelled[1] > width) == (not wider, wider)


@pytest.mark.parametrize("name", TEXTS)
def test_a_word_wider_than_its_place_is_not_cut(name):
    word = "unbreakable" * 9
    grid = render_grid([[plain(RED)]], **{name: label(word)[name]})
    font = ImageFont.load_default(size=12)  # the smallest that is used
    columns = np.nonzero(find_ink(grid).any(axis=0))[0]
    assert columns.max() - columns.min() > 0.95 * font.getlength(word)
    assert (grid[:, :25] == 1).all() and (grid[:, -25:] == 1).all()
    find(grid, RED)


def test_an_empty_cell_says_so_unless_its_caption_does():
    rows = [[plain(RED), None]]
    empty = (245 / 255,) * 3

    def ink_in_cell(captions):
        grid = render_grid(rows, captions=captions)
        places = np.argwhere(np.all(np.abs(grid - empty) < 1e-6, axis=-1))
        (top, left), (bottom, right) = places.min(axis=0), places.max(axis=0) + 1
        assert (bottom - top, right - left) == (96, 128)
        return find_ink(grid)[top:bottom, left:right]

    words = ink_in_cell(None)
    rows_with_ink, columns_with_ink = np.nonzero(words)
    assert abs(rows_with_ink.mean() - 48) < 4 and abs(columns_with_ink.mean() - 64) < 4
    assert ink_in_cell([["fine", None]]).any()
    assert not ink_in_cell([["fine", "diverged"]]).any()


def test_a_grid_of_empty_cells_and_rows_of_different_lengths_can_be_drawn():
    assert (
        render_grid([[None, None], [None]]).shape == render_grid([[None, None], [None, None]]).shape
    )
    assert render_grid([[None]], cell=8).shape[1] > 64 + 8  # as wide as its words
    assert find(render_grid([[plain(RED), plain(GREEN)], [plain(BLUE)], []]), BLUE)


def test_letters_beyond_ascii_are_really_drawn_and_no_letter_fails():
    font = grids._choose_font("σéω", 24)
    missing = bytes(font.getmask("\U000fffff"))
    assert all(bytes(font.getmask(letter)) != missing for letter in "σéωμ×²ᵀ≥")
    for text in ("σ = 0.015", "café × ½ ≥ 1", "漢字", "\udcff", "\t\x00", ""):
        render_grid([[plain(RED)]], **label(text))


@pytest.mark.parametrize(
    ("rows", "texts", "part"),
    [
        ([], {}, "rows"),
        ([[]], {}, "rows"),
        ([[None]], {"row_labels": ["a", "b"]}, "row_labels"),
        ([[None]], {"column_labels": []}, "column_labels"),
        ([[None, None]], {"captions": [["a"]]}, "captions"),
        ([[None], [plain((np.nan, 0, 0))]], {}, "row 2, column 1"),
        ([[None, np.zeros((12, 16))]], {}, "row 1, column 2"),
    ],
)
def test_a_grid_that_cannot_be_drawn_is_explained(rows, texts, part):
    with explained(part):
        render_grid(rows, **texts)
