"""Checks that take longer than tests: kills, hostile files, other versions of what is used."""
