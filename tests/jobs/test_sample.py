"""Truncation and style mixing, as they reach the files."""

import numpy as np
import pytest
import torch

from countermark.core.errors import UsageError
from countermark.core.media import read_image
from countermark.core.pixels import to_uint8
from countermark.jobs import sample as job
from countermark.jobs.sample import mix, sample
from countermark.provenance import credentials, keys
from countermark.training.trained import Trained
from tests.jobs.test_interpolate import dcgan
from tests.training.style import NUM_WS
from tests.training.style import trained as style_trained


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    def give(trained: Trained) -> Trained:
        monkeypatch.setattr(job, "load_run", lambda run, model: trained)
        return trained

    return give


def said(path) -> dict:
    return credentials.read(path.read_bytes(), "png", keys.trust_list()).generation


@pytest.mark.parametrize("make", [style_trained, dcgan])
def test_truncation_is_in_pictures_grid_and_credentials(tmp_path, run, make) -> None:
    trained = run(make())
    for truncation in (None, 0.5):
        folder = tmp_path / str(truncation)
        sample("r", out=folder, seeds=[4, 7], truncation=truncation, native_size=True)
        stills = to_uint8(trained.sample([4, 7], None, truncation))
        for seed, still in zip((4, 7), stills, strict=True):
            assert np.array_equal(read_image(folder / f"seed{seed:04d}.png").samples, still)
            assert said(folder / f"seed{seed:04d}.png")["truncation"] == truncation
        assert said(folder / "grid.png")["truncation"] == truncation
    names = ("seed0004.png", "grid.png")
    for name in names:
        with_it, without = (read_image(tmp_path / folder / name).samples for folder in ("0.5", "None"))
        assert not np.array_equal(with_it, without)


def test_pictures_and_grid_are_signed_by_the_given_certificate(tmp_path, run, home, monkeypatch) -> None:
    monkeypatch.setenv("COUNTERMARK_HOME", str(tmp_path / "studio"))
    keys.installation()
    monkeypatch.setenv("COUNTERMARK_HOME", str(home))
    studio = tmp_path / "studio" / "keys"
    (home / "trust").mkdir()
    (home / "trust" / "studio.pem").write_bytes((studio / "root.pem").read_bytes())
    run(style_trained())
    own = {"certificate": studio / "leaf.pem", "key": studio / "leaf-key.pem"}
    sample("r", out=tmp_path / "a", seeds=[4, 7], native_size=True, **own)
    root = (studio / "root.pem").read_text()
    for name in ("seed0004.png", "grid.png"):
        data = (tmp_path / "a" / name).read_bytes()
        assert credentials.read(data, "png", root).state == "trusted"


def test_coarse_styles_are_of_rows_and_fine_ones_of_columns(tmp_path, run) -> None:
    trained = run(style_trained())
    entries = mix("r", out=tmp_path, seeds=[1, 2], mix_seeds=[8, 9, 10], native_size=True)
    assert [entry["seed"] for entry in entries] == [[1, 8], [1, 9], [1, 10], [2, 8], [2, 9], [2, 10]]
    rows, columns = trained.codes([1, 2]), trained.codes([8, 9, 10])
    coarse = NUM_WS // 2
    for row, seed in enumerate((1, 2)):
        for column, other in enumerate((8, 9, 10)):
            ws = torch.cat([rows[row, :coarse], columns[column, coarse:]])
            made = read_image(tmp_path / f"seed{seed:04d}-{other:04d}.png")
            assert np.array_equal(made.samples, to_uint8(trained.pictures(ws[None], None))[0])
            assert said(tmp_path / f"seed{seed:04d}-{other:04d}.png")["seeds"] == f"{seed},{other}"
    grid = read_image(tmp_path / "grid.png")
    assert (grid.width, grid.height) == (4 * grid.width // 4, 3 * grid.height // 3)
    assert grid.width * 3 == grid.height * 4
    assert said(tmp_path / "grid.png")["seeds"] == "1,2,8,9,10"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"grid.png", *(f"seed{row:04d}-{column:04d}.png" for row in (1, 2) for column in (8, 9, 10))}


def test_the_grid_shows_what_was_mixed_of_what(tmp_path, run, monkeypatch) -> None:
    trained = run(style_trained())
    seen = {}
    monkeypatch.setattr(job._Shelf, "release", lambda self, samples, name, seeds, **more: seen.update({name: samples}))
    monkeypatch.setattr(job._Shelf, "put", lambda self, samples, *seeds: {})
    mix("r", out=tmp_path, seeds=[1, 2], mix_seeds=[8, 9], mix_layers=[0, 2])
    cells = seen["grid.png"].reshape(3, 16, 3, 16, 1).transpose(0, 2, 1, 3, 4)
    rows, columns = to_uint8(trained.sample([1, 2])), to_uint8(trained.sample([8, 9]))
    assert not cells[0, 0].any()
    assert np.array_equal(cells[0, 1:], columns)
    assert np.array_equal(cells[1:, 0], rows)
    ws = trained.codes([1, 2])[1].clone()
    ws[[0, 2]] = trained.codes([8, 9])[0][[0, 2]]
    assert np.array_equal(cells[2, 1], to_uint8(trained.pictures(ws[None], None))[0])


def test_a_large_mixture_has_a_small_grid(tmp_path, run, monkeypatch) -> None:
    run(style_trained())
    seen = {}
    monkeypatch.setattr(job._Shelf, "release", lambda self, samples, name, seeds, **more: seen.update({name: samples}))
    monkeypatch.setattr(job._Shelf, "put", lambda self, samples, *seeds: {})
    assert len(mix("r", out=tmp_path, seeds=range(12), mix_seeds=range(20, 31))) == 12 * 11
    assert seen["grid.png"].shape == (10 * 16, 10 * 16, 1)


@pytest.mark.parametrize(
    ("make", "words", "message"),
    [
        (dcgan, {}, "dcgan has no styles to mix"),
        (style_trained, {"mix_layers": [NUM_WS]}, f"layers 0-{NUM_WS - 1}"),
        (style_trained, {"mix_layers": []}, "mix-layers"),
        (style_trained, {"mix_seeds": []}, "mix-seeds"),
        (style_trained, {"classes": [0]}, "classes"),
        (style_trained, {"truncation": 0}, "truncation"),
    ],
)
def test_what_cannot_be_mixed_is_one_line(tmp_path, run, make, words, message) -> None:
    run(make())
    with pytest.raises(UsageError, match=message) as caught:
        mix("r", **{"out": tmp_path / "out", "seeds": [1], "mix_seeds": [2], **words})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
