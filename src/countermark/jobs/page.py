"""Documents from the templates beside this file: self-contained HTML pages, in which everything put in is escaped, and
Markdown."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from countermark.core.text import printable


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("countermark.jobs", "templates"),
        autoescape=jinja2.select_autoescape(),
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["printable"] = printable
    return environment


def render(template: str, **values: Any) -> str:
    """`template` with `values`; in pages, text from files goes through the filters `printable` and HTML escaping."""
    return _environment().get_template(template).render(**values)


def picture_url(data: bytes, format: str) -> Markup:
    """Encoded picture bytes as a data: address for an <img>."""
    return Markup(f"data:image/{format};base64,{base64.b64encode(data).decode('ascii')}")
