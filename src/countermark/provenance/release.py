"""The one way out: every file that is made here is marked, signed, read back and registered before it exists.

Order: visible label (no default standard asks for one) > watermark > encode > metadata label > sign > read back and
verify > registry > rename. A failure at any step leaves no file behind, and a file that was there before stays; a
process that is killed leaves at worst a row without its file, or a hidden `.partial-` file that has no name yet.
"""

from __future__ import annotations

import datetime
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import sha256_hex, write_atomic
from countermark.core.media import MAX_PIXELS, MAX_SIDE, Image, decode_image
from countermark.core.video import frames as frames_of
from countermark.core.video import open_clip
from countermark.provenance import credentials, keys, labels, payload, registry, settings, watermark
from countermark.provenance.credentials import Origin
from countermark.provenance.encode import DEFAULT_QUALITY, encode, encode_video, format_of
from countermark.provenance.perceptual import perceptual_hash

ENLARGED_SIDE = 256
MIN_MARKED = 0.95  # of a clip's frames; benchmarks/video_marks.py finds the mark in more

__all__ = ["Origin", "Released", "release", "release_video", "released_size"]


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
    format = format_of(path)
    marks = _Marks.new(origin, policy)
    shown, enlargement, reason = _sized(image, native_size)
    if reason is None:
        shown = watermark.embed(shown, marks.payload)
    size = _Size((image.width, image.height), (shown.width, shown.height), enlargement, reason)
    signed = marks.put_on(encode(shown, format, quality=quality), format, size)
    _read_back(signed, format, shown, None if reason else marks.payload)
    return marks.write(signed, path, size, perceptual_hash(shown))


def release_video(
    frames: Iterable[Image],
    rate_fps: float,
    path: Path | str,
    *,
    origin: Origin,
    policy: settings.Settings | None = None,
) -> Released:
    """Write `frames`, as they come, to `path` (.mp4) with every mark on it, and the watermark in every frame.

    Frames are enlarged as pictures are, until their sides are even too. Of the frames that are read back, a part of
    MIN_MARKED must show the watermark. The registry keeps the first frame's look.
    Raises as `release` does.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"{path}: a clip named so cannot be written; use .mp4")
    marks = _Marks.new(origin, policy)
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise UsageError("a clip needs a frame")
    times = _times(first.width, first.height, even=True)
    shown = _enlarged(first, times)
    size = _Size((first.width, first.height), (shown.width, shown.height), times, None)
    marked = (watermark.embed(_enlarged(frame, times), marks.payload) for frame in chain([first], rest))
    signed = marks.put_on(encode_video(marked, rate_fps), "mp4", size)
    _read_back_video(signed, size, marks.payload)
    return marks.write(signed, path, size, perceptual_hash(shown))


@dataclass(frozen=True)
class _Size:
    """(width, height) as made and as released, with the enlargement; why there is no watermark at this size, or None"""

    native: tuple[int, int]
    released: tuple[int, int]
    enlargement: int
    reason: str | None


@dataclass(frozen=True)
class _Marks:
    """What the marks on one file say, and who signs them."""

    origin: Origin
    policy: settings.Settings
    own: keys.Installation
    number: int
    payload: bytes
    id: str
    created: str

    @staticmethod
    def new(origin: Origin, policy: settings.Settings | None) -> _Marks:
        policy = policy or settings.load()
        if "gb45438" in policy.standards:
            raise UsageError("standard gb45438: its labels are not written yet; leave it out of the standards")
        own, number = keys.installation(), registry.new_number()
        content = payload.pack(payload.Payload(payload.VERSION, origin.kind, number), own.watermark_key)
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return _Marks(origin, policy, own, number, content, str(uuid.uuid4()), created)

    def put_on(self, encoded: bytes, format: str, size: _Size) -> bytes:
        """The encoded file with its label and its signed credentials."""
        said = {
            "id": self.id,
            "provider": self.policy.provider,
            "standards": ", ".join(self.policy.standards),
            "watermark": {"present": not size.reason, "payload": self._payload_text(size), "reason": size.reason},
            "size": {
                "native": "{}x{}".format(*size.native),
                "released": "{}x{}".format(*size.released),
                "enlargement": size.enlargement,
            },
        }
        labelled = labels.write(encoded, format, self.origin.source_type, size.released)
        definition = credentials.manifest(self.origin, said, self.created)
        return credentials.sign(labelled, format, definition, _identity(self.policy, self.own), self.origin.parent)

    def write(self, signed: bytes, path: Path, size: _Size, look: bytes | None) -> Released:
        """Register the file, then give it its name."""
        digest = sha256_hex(signed)
        mark = None if size.reason else self.payload
        released = Released(path, signed, digest, self.id, mark, size.reason, size.enlargement)
        origin, text = self.origin, self._payload_text(size)
        row = registry.Row(
            self.id,
            self.number,
            digest,
            text,
            origin.kind,
            origin.model,
            origin.run,
            origin.seeds_text,
            self.created,
            look,
        )
        staged = path.with_name(f".partial-{self.id}")
        write_atomic(staged, signed)
        try:
            registry.add(row)
            os.replace(staged, path)
        except OSError as error:
            with suppress(CountermarkError):  # a row without its file misleads nobody
                registry.remove(self.id)
            raise CountermarkError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
        finally:
            staged.unlink(missing_ok=True)
        return released

    def _payload_text(self, size: _Size) -> str | None:
        return None if size.reason else self.payload.hex()


def _sized(image: Image, native_size: bool) -> tuple[Image, int, str | None]:
    """The picture at the size in which it leaves, its enlargement, and why it can't carry a watermark, or None."""
    if native_size and min(image.height, image.width) < watermark.MIN_SIDE:
        return image, 1, f"smaller than {watermark.MIN_SIDE} pixels, and the native size was asked for"
    try:
        times = _times(image.width, image.height)
    except UsageError as error:
        raise UsageError(f"{error}; ask for the native size") from error
    return _enlarged(image, times), times, None


def released_size(width: int, height: int, *, clip: bool = False) -> tuple[int, int]:
    """The size at which pictures, or frames of a clip, of this one leave.

    Raises UsageError where they cannot: for use before hours go into them.
    """
    times = _times(width, height, even=clip)
    return width * times, height * times


def _times(width: int, height: int, *, even: bool = False) -> int:
    """How often pixels are repeated so that a watermark fits and, for 4:2:0 clips, both sides are even."""
    side = min(width, height)
    times = 1 if side >= watermark.MIN_SIDE else -(-ENLARGED_SIDE // side)
    if even and (height % 2 or width % 2):
        times += times % 2
    if width * height * times**2 > MAX_PIXELS or max(width, height) * times > MAX_SIDE:
        what = f"enlarged {times} times" if times > 1 else "released"
        raise UsageError(f"a picture of {width} x {height} cannot be {what}")
    return times


def _enlarged(image: Image, times: int) -> Image:
    return Image(image.samples.repeat(times, axis=0).repeat(times, axis=1))


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
    _require_trust(data, format)


def _read_back_video(data: bytes, size: _Size, mark: bytes) -> None:
    clip = open_clip(data, name="the released clip")
    marked = [watermark.read(frame).payload == mark for frame in frames_of(clip)]
    if (clip.width, clip.height) != size.released or len(marked) != clip.num_frames:
        raise CountermarkError("the released clip reads back with another size or length; nothing was written")
    if np.mean(marked) < MIN_MARKED:
        raise CountermarkError(
            f"the watermark reads back from {sum(marked)} of {clip.num_frames} frames only; nothing was written"
        )
    _require_trust(data, "mp4")


def _require_trust(data: bytes, format: str) -> None:
    read = credentials.read(data, format, keys.trust_list())
    if read.state != "trusted":
        why = read.reasons[0] if read.reasons else read.state
        raise CountermarkError(
            f"the signature reads back as {read.state} ({why}); nothing was written "
            "(an own certificate needs its root in the trust folder)"
        )
