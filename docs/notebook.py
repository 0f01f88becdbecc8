"""Executes the documentation's notebook: `make notebook` writes it with what came out."""

import pathlib

import nbformat
from nbclient import NotebookClient

PATH = pathlib.Path(__file__).parent / "guides" / "notebook.ipynb"


def execute() -> nbformat.NotebookNode:
    """The notebook, executed from its first cell; raises if a cell does."""
    notebook = nbformat.read(PATH, as_version=4)
    # Without times, so that only what changed differs from what was there.
    return NotebookClient(notebook, record_timing=False).execute()


if __name__ == "__main__":
    nbformat.write(execute(), PATH)
