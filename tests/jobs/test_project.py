"""`countermark project`: what leaves is an edit of its parent, with the code that makes it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from countermark.core.errors import UsageError
from countermark.core.files import sha256_hex
from countermark.core.media import Image, read_image
from countermark.core.pixels import to_uint8
from countermark.forensics.native import cell_means
from countermark.jobs.project import project_files
from countermark.jobs.sample import sample
from countermark.jobs.train import train_model
from countermark.provenance import credentials, keys
from countermark.provenance.encode import encode
from countermark.provenance.verify import verify
from countermark.training.trained import load_run

MODEL = f"{Path(__file__).parents[1] / 'training' / 'style.py'}:SPEC"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "style"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERMARK_HOME", str(folder.parent / "home"))
        return train_model(MODEL, data="digits", size=16, out=folder, images=64).parent


def code_in(path: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def test_a_made_picture_is_found_and_released_as_an_edit_of_it(run: Path, tmp_path: Path) -> None:
    parent = Path(sample(run, out=tmp_path / "made", seeds=[3], model=MODEL)[0]["path"])
    before = parent.read_bytes()
    (entry,) = project_files(run, [parent], out=tmp_path / "made", steps=200, model=MODEL)
    assert entry["psnr_db"] > 30
    assert parent.read_bytes() == before
    assert sorted(path.name for path in parent.parent.iterdir()) == [
        "seed0003.code.safetensors",
        "seed0003.png",
        "seed0003.projected.png",
    ]
    seen = verify(entry["picture"])
    assert seen["credentials"]["kind"] == seen["watermark"]["kind"] == seen["registry"]["kind"] == "edited"
    assert seen["credentials"]["digital_source_type"] == credentials.EDITED
    assert (seen["watermark"]["payload"], seen["sha256"]) == (entry["watermark"], entry["sha256"])
    said = credentials.read(Path(entry["picture"]).read_bytes(), "png", keys.trust_list()).generation
    assert said["parent_sha256"] == sha256_hex(before)

    trained = load_run(run, MODEL)
    tensors, about = code_in(entry["code"])
    assert about == {"model": "style", "run": trained.run_id, "space": "w", "parent_sha256": sha256_hex(before)}
    picture = to_uint8(trained.pictures(tensors["codes"], tensors.get("c")))[0]
    shown = cell_means(read_image(Path(entry["picture"])).samples, 16)
    assert np.abs(picture.astype(int) - shown).max() <= 24  # the watermark lies between them
    made = to_uint8(trained.sample([3]))[0]
    assert np.abs(made.astype(float) - picture).mean() < 8


def test_foreign_pictures_of_any_size_and_colour_are_taken_and_unreadable_ones_named(run: Path, tmp_path: Path) -> None:
    noise = Image(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    photograph, broken = tmp_path / "a.jpg", tmp_path / "b.png"
    photograph.write_bytes(encode(noise, "jpeg"))
    broken.write_text("no picture")
    files = [broken, photograph, tmp_path / "c.png"]
    unreadable, found, missing = project_files(run, files, out=tmp_path / "out", steps=2, space="w+", model=MODEL)
    assert set(unreadable) == set(missing) == {"path", "error"}
    assert found["psnr_db"] < 20
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.code.safetensors", "a.projected.png"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"steps": 0}, "steps: 0"),
        ({"features": "lpips"}, "features: lpips"),
        ({"classes": [10]}, "classes: 10"),
        ({"files": ["x/a.png", "y/a.jpg"]}, "2 files are called a"),
    ],
    ids=str,
)
def test_bad_use_is_one_line(run: Path, tmp_path: Path, changed: dict, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(encode(Image(np.zeros((16, 16, 1), np.uint8)), "png"))
    words = {"files": [tmp_path / "a.png"], "steps": 1, "model": MODEL, **changed}
    with pytest.raises(UsageError, match=reason):
        project_files(run, words.pop("files"), out=tmp_path / "out", **words)
    assert not list((tmp_path / "out").glob("*"))
