"""What the marks on a file say. Evidence only: what follows from it is decided elsewhere.

Every text that comes from the file is passed on as it is: escape it wherever it is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from countermark.core.errors import CountermarkError
from countermark.core.files import read_bounded, sha256_hex
from countermark.core.media import MAX_FILE_BYTES, Image, decode_image, sniff
from countermark.provenance import credentials, keys, labels, payload, registry, standards, watermark
from countermark.provenance.credentials import Credentials
from countermark.provenance.perceptual import perceptual_hash


def verify(path: Path | str) -> dict[str, Any]:
    """The evidence on one file, in the shape of one entry of `verify --json`; {path, error} when it can't be read.

    Never raises for what the file holds, whatever that is.
    """
    try:
        data = read_bounded(Path(path), MAX_FILE_BYTES)
        return {"path": str(path), **examine(data, name=str(path))}
    except CountermarkError as error:
        return {"path": str(path), "error": str(error)}
    except Exception as error:  # hostile files find errors that nobody thought of; one file must not stop the others
        what = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else type(error).__name__
        return {"path": str(path), "error": f"{path}: cannot be examined ({what})"}


def examine(data: bytes, *, name: str = "picture") -> dict[str, Any]:
    """The evidence on the bytes of one file, without its path. Raises CountermarkError for an unreadable picture."""
    container = sniff(data)
    if container is None:
        raise CountermarkError(f"{name}: not a PNG, JPEG or WebP picture")
    image = decode_image(data, name=name)
    digest = sha256_hex(data)
    said = credentials.read(data, container, keys.trust_list())
    mark = _watermark(image, said)
    found = labels.read(data, container)
    return {
        "media": "image",
        "sha256": digest,
        "credentials": said.as_dict(),
        "watermark": mark,
        "fingerprint": {"present": False, "run": None, "bit_agreement": None},
        "labels": found,
        "registry": registry.lookup(digest, perceptual_hash(image), _number(mark)),
        "standards": standards.table(said, mark, found),
    }


def _number(mark: dict[str, Any]) -> int | None:
    """The registry's number in a watermark that this installation wrote."""
    content = payload.unpack(bytes.fromhex(mark["payload"])) if mark["authenticated"] else None
    return content.id if content else None


def _watermark(image: Image, said: Credentials) -> dict[str, Any]:
    reading = watermark.read(image)
    mark = reading.payload if reading.present else None
    content = payload.unpack(mark) if mark else None
    own = keys.existing_installation()
    authenticated = bool(mark and own and payload.is_authentic(mark, own.watermark_key))
    return {
        "present": reading.present,
        "kind": content.kind if content else None,
        "payload": mark.hex() if mark else None,
        "authenticated": authenticated,
        "bit_agreement": reading.bit_agreement,
        "false_positive_rate": reading.false_positive_rate,
        "reason": _reason(reading, authenticated, said),
    }


def _reason(reading: watermark.Reading, authenticated: bool, said: Credentials) -> str | None:
    if reading.present:
        return None if authenticated else "its authentication code is not of this installation"
    stated = said.generation.get("watermark") if said.state in ("trusted", "valid") else None
    if isinstance(stated, dict) and isinstance(stated.get("reason"), str):
        return f"none was put in: {stated['reason'][:300]}"
    return reading.reason
