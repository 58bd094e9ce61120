"""Doors for ``ray job submit``: one per stage and one for the whole pipeline. See README.md."""
