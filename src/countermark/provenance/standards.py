"""Which marks the standards ask for, and which of them a file lacks.

The table says what is in the file. That a standard's marks are there is not proof that a law is complied with.

eu-art50: EU AI Act article 50 with its Code of Practice, measures 1.1.1 and 1.1.2. ca-sb942: California SB 942, section
22757.3(b). iptc: IPTC DigitalSourceType. gb45438: GB 45438-2025, explicit and implicit label.
"""

from __future__ import annotations

from typing import Any

from countermark.provenance.credentials import EDITED, MADE, Credentials

_SIGNED = ("trusted", "valid")
_SYNTHETIC = (MADE, EDITED)


def table(credentials: Credentials, watermark: dict[str, Any], labels: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{standard: {met, missing[]}} for the evidence on one file, as `verify` collects it."""
    missing = {
        "eu-art50": _eu_art50(credentials, watermark),
        "ca-sb942": _ca_sb942(credentials),
        "iptc": [] if labels["iptc"]["value"] in _SYNTHETIC else ["exactly one DigitalSourceType that says synthetic"],
        "gb45438": _gb45438(labels["gb45438"]),
    }
    return {name: {"met": not lacks, "missing": lacks} for name, lacks in missing.items()}


def _eu_art50(credentials: Credentials, watermark: dict[str, Any]) -> list[str]:
    signed = credentials.state in _SIGNED
    asked = {
        "signed metadata that say synthetic": signed and credentials.digital_source_type in _SYNTHETIC,
        "a trusted time stamp on the signature": signed and credentials.time_stamped,
        "an imperceptible watermark": watermark["present"],
    }
    return [mark for mark, there in asked.items() if not there]


def _ca_sb942(credentials: Credentials) -> list[str]:
    if credentials.state not in _SIGNED:
        return ["a signed latent disclosure"]
    asked = {
        "the provider's name": credentials.generation.get("provider") or credentials.issuer,
        "the system's name and version": credentials.generator,
        "the date and time": credentials.time,
        "a unique identifier": credentials.identifier,
    }
    return [mark for mark, said in asked.items() if not said]


def _gb45438(label: dict[str, Any]) -> list[str]:
    implicit = [] if label["valid"] else ["a valid implicit label"]
    return [*implicit, "an explicit label (whether one can be seen is not checked)"]
