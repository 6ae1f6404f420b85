"""`countermark directions`: a picture for each, and the directions in a file that Python can use."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from countermark.core.errors import UsageError
from countermark.core.media import read_image
from countermark.core.pixels import to_uint8
from countermark.forensics.native import cell_means
from countermark.jobs.directions import release_directions
from countermark.jobs.train import train_model
from countermark.jobs.watch import tiled
from countermark.provenance.verify import verify
from countermark.training.trained import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "dcgan"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUNTERMARK_HOME", str(folder.parent / "home"))
        return train_model("dcgan:tiny", data="digits", out=folder, images=640).parent


@pytest.mark.parametrize("method", ["sefa", "ganspace"])
def test_rows_are_seeds_and_columns_strengths(method: str, run: Path, tmp_path: Path) -> None:
    seeds, strengths = [4, 9, 2], [-3.0, 0.0]
    released = release_directions(
        run, out=tmp_path, method=method, num=2, strengths=strengths, seeds=seeds, classes=[1, 5]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "direction00.png",
        "direction01.png",
        "directions.safetensors",
    ]
    trained = load_run(run)
    with safe_open(tmp_path / "directions.safetensors", "pt") as file:
        directions = file.get_tensor("directions")
        assert file.metadata() == {"model": "dcgan", "run": trained.run_id, "method": method}
    codes, c = trained.codes(seeds), trained.conditions(seeds, [1, 5])
    for entry, direction in zip(released, directions, strict=True):
        seen = verify(entry["path"])
        assert (seen["credentials"]["kind"], seen["credentials"]["state"]) == ("made", "trusted")
        assert seen["watermark"]["payload"] == entry["watermark"]
        columns = [to_uint8(trained.pictures(codes + strength * direction, c)) for strength in strengths]
        expected = tiled(np.stack(columns, 1).reshape(-1, 8, 8, 1), 2)
        shown = cell_means(read_image(Path(entry["path"])).samples, 16)
        assert shown.shape == expected.shape == (24, 16, 1)
        assert np.abs(shown.astype(int) - expected).max() <= 24  # the watermark lies between them
        assert np.abs(columns[0].astype(int) - columns[1]).max() > 0


def test_bad_use_is_one_line_and_no_file(run: Path, tmp_path: Path) -> None:
    for changed, reason in (
        ({"seeds": []}, "seeds"),
        ({"strengths": []}, "strengths"),
        ({"method": "pca"}, "method"),
        ({"num": 10**4}, "num"),
        ({"layers": [0]}, "layers"),
        ({"classes": [10]}, "classes"),
        ({"out": run}, "out"),
    ):
        with pytest.raises(UsageError, match=reason):
            release_directions(run, **{"out": tmp_path, **changed})
    assert not list(tmp_path.iterdir())
