"""What the marks on a file say. Evidence only: what follows from it is decided elsewhere.

Every text that comes from the file is passed on as it is: escape it wherever it is shown.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

from countermark.core.errors import CountermarkError
from countermark.core.files import read_bounded, sha256_hex
from countermark.core.media import MAX_FILE_BYTES, decode_image, sniff
from countermark.core.video import Clip, frames, open_clip
from countermark.provenance import credentials, keys, labels, payload, registry, standards, watermark
from countermark.provenance.credentials import Credentials
from countermark.provenance.perceptual import perceptual_hash

MAX_READ_FRAMES = 48
_MAX_READ_PIXELS = 4 * 10**8  # of all of them: some seconds


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
    """The evidence on the bytes of one file, without its path. Raises CountermarkError for one that cannot be read.

    Of a clip at most MAX_READ_FRAMES frames are read, spread evenly; `clip` says how long it is.
    """
    container = sniff(data)
    if container is None:
        raise CountermarkError(f"{name}: not a PNG, JPEG or WebP picture, nor an MP4 clip")
    digest = sha256_hex(data)
    said = credentials.read(data, container, keys.trust_list())
    found = labels.read(data, container)
    if container == "mp4":
        clip = open_clip(data, name=name)
        mark, look = _watermark_of_clip(clip, said)
        about = {"media": "video", "clip": _about(clip)}
    else:
        image = decode_image(data, name=name)
        mark, look = _watermark(watermark.read(image), said), perceptual_hash(image)
        about = {"media": "image"}
    return {
        **about,
        "sha256": digest,
        "credentials": said.as_dict(),
        "watermark": mark,
        "fingerprint": {"present": False, "run": None, "bit_agreement": None},
        "labels": found,
        "registry": registry.lookup(digest, look, _number(mark)),
        "standards": standards.table(said, mark, found),
    }


def _number(mark: dict[str, Any]) -> int | None:
    """The registry's number in a watermark that this installation wrote."""
    content = payload.unpack(bytes.fromhex(mark["payload"])) if mark["authenticated"] else None
    return content.id if content else None


def _about(clip: Clip) -> dict[str, Any]:
    about = {name: getattr(clip, name) for name in ("width", "height", "num_frames", "rate_fps")}
    return {**about, "duration_s": clip.num_frames / clip.rate_fps}


def _watermark_of_clip(clip: Clip, said: Credentials) -> tuple[dict[str, Any], bytes | None]:
    """The watermark of the frames together, how many were read and show it alone; and the look of the first frame."""
    read = frames(clip, max(1, min(MAX_READ_FRAMES, _MAX_READ_PIXELS // (clip.width * clip.height))))
    first = next(read)
    found = watermark.read_clip(chain([first], read))
    mark = _watermark(found.reading, said)
    return {**mark, "frames_read": found.num_read, "frames_marked": found.num_marked}, perceptual_hash(first)


def _watermark(reading: watermark.Reading, said: Credentials) -> dict[str, Any]:
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
