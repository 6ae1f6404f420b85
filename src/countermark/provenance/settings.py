"""The user's provenance settings: who the producer is, with which certificate, under which standards."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import read_bounded
from countermark.core.home import home
from countermark.core.text import named

STANDARDS = ("eu-art50", "ca-sb942", "iptc", "gb45438")
DEFAULT_STANDARDS = ("eu-art50", "ca-sb942", "iptc")
UNNAMED_PROVIDER = "a user of Countermark (no provider name is set)"
_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Settings:
    """`certificate` (chain, leaf first) and `key`: PEM files of the user's own, or None for the installation's."""

    provider: str = UNNAMED_PROVIDER
    certificate: Path | None = None
    key: Path | None = None
    standards: tuple[str, ...] = DEFAULT_STANDARDS

    def __post_init__(self) -> None:
        unknown = set(self.standards) - set(STANDARDS)
        if unknown:
            raise UsageError(f"standard {named(unknown)} is unknown; choose from {named(STANDARDS)}")
        if (self.certificate is None) != (self.key is None):
            raise UsageError("certificate and key go together; give both or neither")


def load(certificate: str | Path | None = None, key: str | Path | None = None) -> Settings:
    """The settings in home()/settings.json, or the defaults; with these PEM files to sign with, if they are given.

    Raises CountermarkError for a damaged file, UsageError for one of certificate and key without the other.
    """
    found = _kept()
    if certificate is None and key is None:
        return found
    chain, private = (None if file is None else Path(file) for file in (certificate, key))
    return replace(found, certificate=chain, key=private)


def _kept() -> Settings:
    path = home() / "settings.json"
    if not path.exists():
        return Settings()
    try:
        fields = json.loads(read_bounded(path, _MAX_BYTES))
        return _from_fields(fields)
    except (ValueError, TypeError, RecursionError) as error:
        raise CountermarkError(f"{path}: not valid settings ({error}); mend it or move it away") from error


def _from_fields(fields: object) -> Settings:
    if not isinstance(fields, dict):
        raise TypeError("an object is expected")
    unknown = set(fields) - {"provider", "certificate", "key", "standards"}
    if unknown:
        raise TypeError(f"unknown entry {named(unknown)}")
    texts = {name: fields[name] for name in ("provider", "certificate", "key") if fields.get(name) is not None}
    if not all(isinstance(text, str) and text for text in texts.values()):
        raise TypeError("provider, certificate and key are text")
    standards = fields.get("standards", list(DEFAULT_STANDARDS))
    if not isinstance(standards, list) or not all(isinstance(name, str) for name in standards):
        raise TypeError("standards is a list of names")
    return Settings(
        provider=texts.get("provider", UNNAMED_PROVIDER),
        certificate=Path(texts["certificate"]) if "certificate" in texts else None,
        key=Path(texts["key"]) if "key" in texts else None,
        standards=tuple(standards),
    )
