"""Documents from the templates beside this file: self-contained HTML pages, in which everything put in is escaped, and
Markdown."""

from __future__ import annotations

import base64
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from countermark.core.errors import UsageError
from countermark.core.text import printable

PAGE_START = b"<!doctype html>"


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


def check_page(path: Path, argument: str = "report") -> None:
    """Find out before the work whether its page, which `argument` names, can be written. Raises UsageError if not."""
    try:
        if path.is_dir():
            raise UsageError(f"{argument}: {path} is a folder; give the name of a file, such as report.html")
        if path.exists() and not _is_page(path):  # such as the first of the files, where the name was forgotten
            raise UsageError(f"{argument}: {path} is there and is no page; give another name, such as report.html")
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UsageError(f"{argument}: {path} cannot be written ({error.strerror}); choose another place") from error


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(PAGE_START)).lower() == PAGE_START
