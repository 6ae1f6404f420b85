"""The one way out: every file that is made here is marked, signed, read back and registered before it exists.

Order: visible label (no default standard asks for one) > watermark > encode > metadata label > sign > read back and
verify > registry > rename. A failure at any step leaves no file behind, and a file that was there before stays; a
process that is killed leaves at worst a row without its file, or a hidden `.partial-` file that has no name yet.
"""

from __future__ import annotations

import datetime
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import sha256_hex, write_atomic
from countermark.core.media import MAX_PIXELS, MAX_SIDE, Image, decode_image
from countermark.provenance import credentials, keys, labels, payload, registry, settings, watermark
from countermark.provenance.credentials import Origin
from countermark.provenance.encode import DEFAULT_QUALITY, encode, format_of
from countermark.provenance.perceptual import perceptual_hash

ENLARGED_SIDE = 256

__all__ = ["Origin", "Released", "release"]


@dataclass(frozen=True)
class Released:
    """A released file. id: the unique id in credentials and registry; payload: the watermark's 8 bytes, or None.

    reason: why there is no watermark, or None. enlargement: each pixel was repeated so often along both axes.
    """

    path: Path
    data: bytes
    sha256: str
    id: str
    payload: bytes | None
    reason: str | None
    enlargement: int


def release(
    image: Image,
    path: Path | str,
    *,
    origin: Origin,
    native_size: bool = False,
    quality: int = DEFAULT_QUALITY,
    policy: settings.Settings | None = None,
) -> Released:
    """Write `image` to `path`, whose suffix names the format (.png, .jpg, .jpeg, .webp), with every mark on it.

    A picture below 128 pixels is enlarged by whole-number pixel repetition until its shortest side is at least 256;
    `native_size` keeps it, without a watermark. quality: 1 to 100, not for PNG. policy: the user's settings if None.
    Raises UsageError for what can't be asked, CountermarkError for what fails; there is no new file then.
    """
    path = Path(path)
    released, row = _marked(image, format_of(path), origin, native_size, quality, policy, path)
    staged = path.with_name(f".partial-{released.id}")
    write_atomic(staged, released.data)
    try:
        registry.add(row)
        os.replace(staged, path)
    except OSError as error:
        raise CountermarkError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:
        staged.unlink(missing_ok=True)
    return released


def _marked(
    image: Image,
    format: str,
    origin: Origin,
    native_size: bool,
    quality: int,
    policy: settings.Settings | None,
    path: Path,
) -> tuple[Released, registry.Row]:
    policy = policy or settings.load()
    if "gb45438" in policy.standards:
        raise UsageError("standard gb45438: its labels are not written yet; leave it out of the standards")
    shown, enlargement, reason = _sized(image, native_size)
    own = keys.installation()
    number = registry.new_number()
    mark = None if reason else payload.pack(payload.Payload(payload.VERSION, origin.kind, number), own.watermark_key)
    if mark is not None:
        shown = watermark.embed(shown, mark)

    identifier = str(uuid.uuid4())
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    said = {
        "id": identifier,
        "provider": policy.provider,
        "standards": ", ".join(policy.standards),
        "watermark": {"present": mark is not None, "payload": mark.hex() if mark else None, "reason": reason},
        "size": {
            "native": f"{image.width}x{image.height}",
            "released": f"{shown.width}x{shown.height}",
            "enlargement": enlargement,
        },
    }
    encoded = encode(shown, format, quality=quality)
    labelled = labels.write(encoded, format, origin.source_type, (shown.width, shown.height))
    definition = credentials.manifest(origin, said, created)
    signed = credentials.sign(labelled, format, definition, _identity(policy, own), origin.parent)
    _read_back(signed, format, shown, mark)

    digest = sha256_hex(signed)
    released = Released(path, signed, digest, identifier, mark, reason, enlargement)
    look = perceptual_hash(shown)
    marked = mark.hex() if mark else None
    row = registry.Row(
        identifier, number, digest, marked, origin.kind, origin.model, origin.run, origin.seeds_text, created, look
    )
    return released, row


def _sized(image: Image, native_size: bool) -> tuple[Image, int, str | None]:
    """The picture at the size in which it leaves, its enlargement, and why it can't carry a watermark, or None."""
    side = min(image.height, image.width)
    if side >= watermark.MIN_SIDE:
        return image, 1, None
    if native_size:
        return image, 1, f"smaller than {watermark.MIN_SIDE} pixels, and the native size was asked for"
    times = -(-ENLARGED_SIDE // side)
    width, height = image.width * times, image.height * times
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise UsageError(
            f"a picture of {image.width} x {image.height} cannot be enlarged {times} times; ask for the native size"
        )
    return Image(image.samples.repeat(times, axis=0).repeat(times, axis=1)), times, None


def _identity(policy: settings.Settings, own: keys.Installation) -> keys.Identity:
    if policy.certificate is None or policy.key is None:
        return own.identity
    return keys.own_identity(policy.certificate, policy.key)


def _read_back(data: bytes, format: str, shown: Image, mark: bytes | None) -> None:
    decoded = decode_image(data, name="the released picture")
    if decoded.samples.shape[:2] != shown.samples.shape[:2]:
        raise CountermarkError("the released picture reads back with another size; nothing was written")
    if format == "png" and not np.array_equal(decoded.samples, shown.samples):
        raise CountermarkError("the released picture reads back with other pixels; nothing was written")
    if mark is not None and watermark.read(decoded).payload != mark:
        raise CountermarkError(
            "the watermark does not read back from this picture; nothing was written (raise the quality, or enlarge it)"
        )
    read = credentials.read(data, format, keys.trust_list())
    if read.state != "trusted":
        why = read.reasons[0] if read.reasons else read.state
        raise CountermarkError(
            f"the signature reads back as {read.state} ({why}); nothing was written "
            "(an own certificate needs its root in the trust folder)"
        )
