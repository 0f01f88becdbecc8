"""Lets Griffe read the package's docstrings: it knows sections of examples in the plural only."""

import griffe


class Plural(griffe.Extension):
    """Renames `Example:` to `Examples:`."""

    def on_instance(self, *, obj, **kwargs):
        """Called for each object that was found."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
