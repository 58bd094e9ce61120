"""What all HTML reports share: the style, escaping, and pictures inside the page."""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup


def make_environment(**filters: Callable[..., Any]) -> Environment:
    """Templates of this folder by name; everything is escaped, and what is undefined is an error."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_text),
    )
    environment.filters.update(data_uri=data_uri, **filters)
    environment.globals["style"] = Markup(_text("report.css"))  # our own file
    return environment


def data_uri(image: bytes, kind: str = "png") -> Markup:
    """A picture as an address that holds it whole."""
    # Base64 has no character that HTML treats as special.
    return Markup(f"data:image/{kind};base64," + base64.b64encode(image).decode("ascii"))


def _text(name: str) -> str:
    return resources.files("cotray.evaluation").joinpath(name).read_text("utf-8")
