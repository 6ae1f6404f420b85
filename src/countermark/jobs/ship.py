"""A finished run becomes a trained model that ships: `weights/MODEL@SET`, by which name it is then sampled.

The folder is a run: the run's own config.json, one state with the averaged networks in bfloat16 (no discriminator, no
optimisers), a model card, and a released grid of samples, which stays out of the package. The card's figures are
those of the weights as they ship. For developers:

python -m countermark.jobs.ship RUN --machine "2 cores of an AMD EPYC 7B13" --limits "Glasses and hands fail."
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from countermark.core.checkpoint import flat, save_state
from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import write_atomic
from countermark.core.text import named, printable
from countermark.data.image import PictureSet, load
from countermark.data.packaged import PACKAGED, SYNTHETIC
from countermark.jobs.evaluate import evaluate
from countermark.jobs.page import render
from countermark.jobs.watch import GRID_SEEDS, grid_classes, release_grid
from countermark.provenance import watermark
from countermark.training.run import Journal, write_config
from countermark.training.shipped import WEIGHTS
from countermark.training.trained import Trained, load_run

MAX_BYTES = 20_000_000
FEATURES = "efflite0"


def ship(run: str | Path, *, machine: str, limits: str, num: int = 1000, weights: Path = WEIGHTS) -> Path:
    """Put the averages of a run's newest state into `weights`, in place of an earlier version; returns the folder.

    machine: what the run was trained on; limits: what its samples are seen to get wrong, in sentences. Both are for the
    card. num: samples that its figures are of. Raises UsageError for a run that makes no pictures, that was not trained
    on a packaged set as it is on this machine, or of more than MAX_BYTES; else as `evaluate` does. The earlier version
    stays then.
    """
    trained = load_run(run)
    if trained.spec.kind != "image":
        raise UsageError(f"{run}: {trained.spec.name} makes no pictures; generators ship")
    averages = _averages(trained)
    num_bytes = sum(tensor.nbytes for tensor in averages.values())
    if num_bytes > MAX_BYTES:
        raise UsageError(
            f"{run}: {num_bytes / 1e6:.1f} MB in bf16, at most {MAX_BYTES / 1e6:g} ship; train a narrower one"
        )
    pictures, hours = _data(trained, run), _hours(trained, Path(run))
    name = f"{trained.spec.name}@{pictures.name}"
    weights.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=weights, prefix=".partial-") as temporary:
        folder = Path(temporary) / name
        folder.mkdir()
        write_config(folder, trained.config)
        save_state(folder, trained.nimg, {"averages": averages}, {})
        shown = load_run(folder)
        release_grid(shown, GRID_SEEDS, grid_classes(shown, len(GRID_SEEDS)), folder / "grid.png")
        found = evaluate(folder, data=pictures.name, features=FEATURES, num=num)
        said = {"machine": machine, "limits": limits, "hours": hours, "megabytes": num_bytes / 1e6}
        card = _card(shown, pictures, found, name=name, **said)
        write_atomic(folder / "card.md", f"{card}\n".encode())
        shutil.rmtree(weights / name, ignore_errors=True)
        os.replace(folder, weights / name)
    return weights / name


def _averages(trained: Trained) -> dict[str, Tensor]:
    """The averaged networks' tensors as a state names them, in bfloat16 where they are not whole numbers."""
    tensors = flat({name: trained.networks[name].state_dict() for name in trained.spec.averaged})
    return {key: tensor.bfloat16() if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}


def _data(trained: Trained, run: str | Path) -> PictureSet:
    """The set that the run was trained on."""
    data = trained.config["data"]
    if data is None or data["name"] not in PACKAGED:
        raise UsageError(f"{run}: not trained on a packaged set ({named(PACKAGED)}), whose licence the card names")
    pictures = load(PACKAGED[data["name"]](), trained.settings.size)
    if pictures.fingerprint != data["fingerprint"]:
        raise UsageError(f"{run}: trained on other pictures than {data['name']} now has; install the version of then")
    return pictures


def _hours(trained: Trained, run: Path) -> float:
    """How long the run was trained up to its newest state."""
    rows = [row for row in Journal(run / "timing.jsonl").rows() if row["nimg"] <= trained.nimg]
    if not rows:
        raise UsageError(f"{run}: timing.jsonl does not say how long it was trained; the card has to")
    return float(rows[-1]["elapsed_s"]) / 3600


def _card(trained: Trained, pictures: PictureSet, found: Mapping[str, Any], **said: Any) -> str:
    """The model card, in Markdown; said: what the template asks for beside what the run and its data tell."""
    described = PACKAGED[pictures.name].__doc__ or ""
    return render(
        "card.md",
        spec=trained.spec,
        settings=trained.settings,
        config=trained.config,
        nimg=trained.nimg,
        num_parameters=sum(parameter.numel() for parameter in trained.generator.parameters()),
        data=" ".join(described.split("\n\n")[0].split()),
        synthetic=pictures.name in SYNTHETIC,
        num_pictures=len(pictures.images),
        num_trained_on=len(pictures.part("generator").images),
        found=found,
        min_side=watermark.MIN_SIDE,
        **said,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--machine", required=True, help="what it was trained on, for the card")
    parser.add_argument("--limits", required=True, help="what its samples are seen to get wrong, for the card")
    parser.add_argument("--num", type=int, default=1000, help="samples that the figures are of (default: 1000)")
    try:
        print(ship(**vars(parser.parse_args())))
    except CountermarkError as error:
        sys.exit(f"ship: {printable(error)}")


if __name__ == "__main__":
    main()
