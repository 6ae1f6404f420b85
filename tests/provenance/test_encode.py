import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.media import Image, sniff
from countermark.provenance import encode as coding
from countermark.provenance.encode import encode, encode_video, format_of, roundtrip

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3]))


@given(arrays(np.uint8, SHAPES))
def test_png_is_lossless(samples):
    assert np.array_equal(roundtrip(Image(samples), "png").samples, samples)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_bytes_are_what_was_asked_for_and_repeat(format, channels):
    ramp = np.linspace(0, 255, 32 * 40).reshape(32, 40, 1).repeat(channels, axis=2).astype(np.uint8)
    data = encode(Image(ramp), format)
    assert sniff(data) == format
    assert data == encode(Image(ramp), format)
    back = roundtrip(Image(ramp), format)
    assert back.samples.shape[:2] == (32, 40)
    assert np.abs(back.samples.astype(int) - ramp).mean() < 3


def test_lower_quality_is_smaller():
    noise = Image(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for format in ("jpeg", "webp"):
        assert len(encode(noise, format, quality=30)) < len(encode(noise, format, quality=90))


@pytest.mark.parametrize(("format", "quality"), [("gif", 90), ("png", 0), ("jpeg", 101)])
def test_what_cannot_be_written_is_refused(format, quality):
    with pytest.raises(UsageError, match=str(quality) if format != "gif" else "gif"):
        encode(Image(np.zeros((4, 4, 3), np.uint8)), format, quality=quality)


def test_without_x264_the_remedy_is_one_line(monkeypatch):
    monkeypatch.setattr(coding, "_video_stream", lambda *asked: av.Codec("libx264-left-out", "w"))
    with pytest.raises(CountermarkError, match=r"UnknownCodecError.*pip install 'countermark\[video\]'") as caught:
        encode_video([Image(np.zeros((16, 16, 3), np.uint8))], 30)
    assert "\n" not in str(caught.value)


def test_sides_beyond_x264_are_one_line():
    with pytest.raises(CountermarkError, match="make smaller frames") as caught:
        encode_video([Image(np.zeros((2, 16390, 3), np.uint8))], 30)
    assert "\n" not in str(caught.value)


def test_the_suffix_names_the_format(tmp_path):
    assert [format_of(tmp_path / name) for name in ("a.png", "a.JPG", "a.jpeg", "a.webp")] == [
        "png",
        "jpeg",
        "jpeg",
        "webp",
    ]
    for name in ("a.gif", "a", ".png"):
        with pytest.raises(UsageError, match="named so"):
            format_of(tmp_path / name)
