"""The command line as people and programs meet it: one line and a status for every wrong word."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from countermark.apps.cli import main
from countermark.training.run import run_id


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    try:
        status = main([str(word) for word in words])
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "digits"
    os.environ["COUNTERMARK_HOME"] = str(tmp_path_factory.mktemp("home"))
    assert main(f"train dcgan:tiny --data digits --out {folder} --images 2000".split()) == 0
    return folder


@pytest.fixture
def own_pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(60):
        PIL.Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


BAD_USE = {
    "unknown model": "train dcgam --data digits --out {out}",
    "unknown preset": "train dcgan:huge --data digits --out {out}",
    "unknown source": "train dcgan --data mnist6k --out {out}",
    "empty folder": "train dcgan --data {empty} --out {out}",
    "no shard": "train dcgan --data {out}/{{00..09}}.tar --out {out}",
    "a range of nothing": "data {out}/{{9..0}}.tar",
    "a folder called tar": "data {out}/x.tar",
    "packing over something": "data digits --pack {pictures}/0.png",
    "packing into the source": "data {pictures} --pack {pictures}/x.zip",
    "packing what was made": "data faces64 --pack {out}.zip",
    "packing of no size": "data digits --pack {out}.zip --size 0",
    "a size without a pack": "data digits --size 8",
    "a sheet over a picture": "data digits --sheet {pictures}/0.png",
    "no memory": "train dcgan:tiny --data digits --out {out} --memory 0",
    "memory that is no number": "train dcgan:tiny --data digits --out {out} --memory nan",
    "memory below a picture": "train dcgan:tiny --data digits --out {out} --memory 1e-7",
    "mixed sizes": "train dcgan --data {mixed} --out {out}",
    "made pictures as real ones": "train npr --data faces64 --against {run} --out {out}",
    "unwritable output": "train dcgan --data digits --out /proc/countermark",
    "output is a file": "train dcgan --data digits --out {file}",
    "output holds other things": "train dcgan --data digits --out {mixed}",
    "run of another model": "train gan:tiny --data digits --out {run}",
    "run with another seed": "train dcgan:tiny --data digits --out {run} --seed 1",
    "unknown setting": "train dcgan:tiny --data digits --out {out} learning_rate=1",
    "setting of another type": "train dcgan:tiny --data digits --out {out} lr=fast",
    "batch not a multiple": "train dcgan:tiny --data digits --out {out} batch=10 accumulate=4",
    "schedule where none may be": "train dcgan:tiny --data digits --out {out} batch=2:4@100",
    "schedule over nothing": "train dcgan:tiny --data digits --out {out} lr=1:2@0",
    "no size": "train dcgan:tiny --data digits --out {out} size=0",
    "negative size": "train dcgan:tiny --data digits --out {out} --size -8",
    "half a latent": "train dcgan:tiny --data digits --out {out} num_z=1.5",
    "no width": "train dcgan:tiny --data digits --out {out} ngf=0",
    "not a number": "train dcgan:tiny --data digits --out {out} lr=nan",
    "the data's channels": "train dcgan:tiny --data digits --out {out} channels=3",
    "groups that do not divide": "train r3gan:tiny --data digits --out {out} cardinalities=3,3",
    "unknown augmentation": "train dcgan:tiny --data digits --out {out} augment=bcg",
    "no probability": "train dcgan:tiny --data digits --out {out} augment=bgc augment_p=30",
    "unknown cure": "train dcgan:tiny --data digits --out {out} --cures pacman",
    "a cure's number that is none": "train dcgan:tiny --data digits --out {out} --cures pacgan=two",
    "a cure that does not fit": "train sngan:tiny --data digits --out {out} --cures spectral_norm",
    "packs that do not divide": "train dcgan:tiny --data digits --out {out} --cures pacgan=3",
    "a cured detector": "train npr:tiny --data digits --out {out} --against {run} --cures r1",
    "no cure at all": "train dcgan:tiny --data digits --out {out} --cures lecam,,r1",
    "more than all of a batch": "train dcgan:tiny --data digits --out {out} --cures topk=2",
    "a number for what takes none": "train dcgan:tiny --data digits --out {out} --cures spectral_norm=2",
    "a sheet that is no page": "data digits --sheet {out}/x.zip",
    "cures as a setting": "train dcgan:tiny --data digits --out {out} cures=r1",
    "frozen layers of nothing": "train dcgan:tiny --data digits --out {out} --cures freeze_d",
    "frozen layers of a fresh D": "train dcgan --data avatars --out {out} --from dcgan@avatars --cures freeze_d",
    "augmented detector": "train npr:tiny --data digits --out {out} --against {run} augment=bgc",
    "weights of another shape": "train dcgan:tiny --data digits --out {out} --from {run} ngf=16",
    "weights of other cures": "train dcgan:tiny --data digits --out {out} --from {run} --cures spectral_norm",
    "weights of another size": "train dcgan --data digits --out {out} --from {run} --size 64 --images 16",
    "weights of another model": "train gan:tiny --data digits --out {out} --from {run}",
    "run inside its data": "train dcgan:tiny --data {pictures} --out {pictures}/run",
    "the same pictures on both sides": "train npr:tiny --data {pictures} --out {out} --against {pictures} --images 64",
    "nothing to train against": "train npr:tiny --data digits --out {out} --against {out}/nowhere",
    "a file for a model that is not there": "train dcgan:tiny --data digits --out {out} --against-model m.py:SPEC",
    "two lengths": "train dcgan:tiny --data digits --out {out} --images 9 --minutes 1",
    "negative length": "train dcgan:tiny --data digits --out {out} --images -5",
    "no length": "train dcgan:tiny --data digits --out {out} --images many",
    "detector without fakes": "train npr:tiny --data digits --out {out}",
    "generator with fakes": "train dcgan:tiny --data digits --out {out} --against {run}",
    "unknown metric": "train dcgan:tiny --data digits --out {out} --images 64 --metrics fid",
    "size that does not fit": "train dcgan:tiny --data digits --out {out} size=9",
    "no run to sample": "sample {empty} --out {out}",
    "no such run": "sample {out}/nowhere --out {out}",
    "bad seeds": "sample {run} --out {out} --seeds 5-1",
    "bad classes": "sample {run} --out {out} --seeds 0 --classes 10",
    "sampling into a run": "sample {run} --out {run}",
    "truncated to nothing": "sample {run} --out {out} --seeds 0 --truncation 0",
    "mixing without styles": "sample {run} --out {out} --seeds 0 --mix-seeds 1",
    "layers of nothing": "sample {run} --out {out} --seeds 0 --mix-layers 1",
    "a way from nowhere": "interpolate {run} --out {out}/a.mp4 --seeds 1",
    "a clip that is no clip": "interpolate {run} --out {out}/a.gif --seeds 1,2 --frames-per-seed 1",
    "a clip over a folder": "interpolate {run} --out {folder} --seeds 1,2 --frames-per-seed 1",
    "a clip into a run": "interpolate {run} --out {run}/a.mp4 --seeds 1,2 --frames-per-seed 1",
    "a clip of no rate": "interpolate {run} --out {out}/a.mp4 --seeds 1,2 --frames-per-seed 1 --fps 0",
    "projecting into a run": "project {run} {pictures}/0.png --out {run}",
    "no files to project": "project {run} --out {out}",
    "no steps": "project {run} {pictures}/0.png --out {out} --steps 0",
    "a space that there is not": "project {run} {pictures}/0.png --out {out} --space w+",
    "unknown space": "project {run} {pictures}/0.png --out {out} --space x",
    "directions into a run": "directions {run} --out {run}",
    "too many directions": "directions {run} --out {out} --num 1000",
    "directions of layers that there are not": "directions {run} --out {out} --layers 0",
    "a picture that is too large": "directions {run} --out {out} --seeds 0-99999",
    "no strengths": "directions {run} --out {out} --strengths -3,much",
    "endless strengths": "directions {run} --out {out} --strengths -3,inf",
    "strengths that are no numbers": "directions {run} --out {out} --strengths -3,nan",
    "exporting into a folder": "export {run} --out {empty}",
    "exporting over a config": "export {run} --out {run}/config.json",
    "exporting into a run": "export {run} --out {run}/g.onnx",
    "exporting a picture": "export {run} --out {out}/g.png",
    "exporting no run": "export {empty} --out {out}",
    "unknown format": "export {run} --out {out} --format tflite",
    "no files": "verify",
    "no files to detect": "detect",
    "no detector": "detect {file} --detector {run}",
    "report is a folder": "verify {file} --report {empty}",
    "report below a file": "verify {file} --report {file}/page.html",
    "report over a picture": "verify {file} --report {pictures}/0.png",
    "heat maps without a detector": "detect {file} --heatmap {out}",
    "no metric": "evaluate {run} --data digits --metrics ,",
    "too few pictures": "evaluate {run} --data {pictures} --num 20",
    "no such certificate": "sample {run} --out {out} --seeds 0 --certificate {out}/c.pem --key {out}/k.pem",
    "a demo of no length": "demo --out {out} --minutes nan",
    "a demo in a run": "demo --out {run}",
    "heat maps in a file": "detect {file} --heatmap {file}",
    "no source named": "train dcgan --data= --out {out}",
    "no features": "evaluate {run} --data digits --features clip",
    "unknown part": "evaluate {run} --data digits --part train",
    "no command": "",
    "unknown command": "paint",
}


@pytest.mark.parametrize("case", BAD_USE)
def test_bad_use_is_one_line_and_status_2(
    case: str, run: Path, own_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"run": run, "out": tmp_path / "out", "empty": tmp_path / "empty", "mixed": tmp_path / "mixed"}
    places["pictures"] = own_pictures
    places["folder"] = tmp_path / "folder.mp4"
    for name in ("empty", "folder"):
        places[name].mkdir()
    places["mixed"].mkdir()
    for side in (8, 9):
        PIL.Image.new("L", (side, side)).save(places["mixed"] / f"{side}.png")
    (tmp_path / "file").write_text("x")
    kept = [path for folder in (run, own_pictures) for path in folder.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in kept}
    status, out, err = call(capsys, *BAD_USE[case].format(**places, file=tmp_path / "file").split())
    assert (status, out) == (2, "")
    assert re.fullmatch(r"countermark[\w ]*: [^\n]+\n", err), err
    assert {path: path.read_bytes() for path in before} == before
    assert sum(path.is_file() for folder in (run, own_pictures) for path in folder.rglob("*")) == len(before)
    assert not (tmp_path / "out").exists()


def test_train_again_resumes_and_says_where_the_state_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "train", "dcgan:tiny", "--data", "digits", "--out", run, "--images", 2000)
    assert (status, out.strip()) == (0, str(run / "state-2000"))


def test_a_run_of_before_there_was_a_setting_goes_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(run, old)
    config = json.loads((old / "config.json").read_text())
    del config["settings"]["cures"]
    (old / "config.json").write_text(json.dumps(config))
    for sheet in (old / "samples").iterdir():
        sheet.unlink()
    words = ("train", "dcgan:tiny", "--data", "digits", "--out", old, "--images")
    assert call(capsys, *words, 2064)[0] == 0
    sheets = [sheet for sheet in (old / "samples").iterdir() if sheet.suffix == ".png"]
    found = json.loads(call(capsys, "verify", "--json", *sheets)[1])
    assert run_id(config) in json.dumps(found), "its pictures belong to the run that began"
    status, _, err = call(capsys, *words, 2128, "--cures", "r1")
    assert status == 2
    assert "another settings (cures: [] there, ['r1'] now)" in err


def test_own_pictures_take_the_preset_that_fits(
    own_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(capsys, "train", "dcgan", "--data", own_pictures, "--out", tmp_path / "run", "--images", 64)
    assert status == 0
    assert "dcgan:tiny at 8 px" in err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["settings"]["channels"], config["settings"]["num_classes"]) == (3, 0)


def test_from_starts_from_another_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "train",
        "dcgan:tiny",
        "--data",
        "digits",
        "--out",
        tmp_path / "next",
        "--from",
        run,
        "--images",
        32,
        "lr=1e-9",
    )
    assert call(capsys, *words)[0] == 0
    from countermark.training.trained import load_run

    one, other = (load_run(folder).networks["G"].main[0].weight for folder in (run, tmp_path / "next"))
    assert np.allclose(one, other, atol=2e-3)
    assert float(one.abs().mean()) > 1e-2


def test_a_cured_run_trains_resumes_samples_and_is_started_from(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cured"
    words = ("train", "dcgan:tiny", "--data", "digits", "--out", folder, "--cures", "pacgan=2,lecam=0.1", "lr=1e-4")
    for images in (64, 128):
        status, out, err = call(capsys, *words, "--images", images)
        assert (status, out.strip()) == (0, str(folder / f"state-{images}")), err
    assert json.loads((folder / "config.json").read_text())["settings"]["cures"] == ["pacgan=2", "lecam=0.1"]
    assert call(capsys, "sample", folder, "--out", tmp_path / "made", "--seeds", 0)[0] == 0
    status, _, err = call(capsys, *words[:-2], "lecam=0.1", "--images", 256)
    assert status == 2
    assert "another settings (cures: " in err
    frozen = ("train", "dcgan:tiny", "--data", "digits", "--out", tmp_path / "frozen", "--from", run)
    assert call(capsys, *frozen, "--cures", "freeze_d=1", "--images", 64)[0] == 0
    from countermark.core.checkpoint import load_state

    before, after = (load_state(place)[0]["networks"] for place in (run / "state-2000", tmp_path / "frozen/state-64"))
    assert (before["D.main.0.weight"] == after["D.main.0.weight"]).all()
    assert not (before["D.main.2.weight"] == after["D.main.2.weight"]).all()


def test_sample_releases_marked_pictures(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "samples"
    status, printed, _ = call(capsys, "sample", run, "--out", out, "--seeds", "3-5", "--json")
    assert status == 0
    assert [entry["seed"] for entry in json.loads(printed)] == [3, 4, 5]
    assert sorted(os.listdir(out)) == ["grid.png", "seed0003.png", "seed0004.png", "seed0005.png"]
    status, printed, _ = call(capsys, "verify", *sorted(out.iterdir()), "--json")
    entries = json.loads(printed)
    assert status == 0
    assert {entry["credentials"]["state"] for entry in entries} == {"trusted"}
    assert all(entry["watermark"]["authenticated"] for entry in entries)
    status, printed, _ = call(capsys, "detect", *sorted(out.iterdir()), "--json")
    assert {(entry["verdict"], entry["decided_by"]) for entry in json.loads(printed)} == {("synthetic", "credentials")}


def test_interpolate_releases_a_marked_clip(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--seeds", "1,5", "--frames-per-seed", 3, "--truncation", 1, "--no-loop", "--fps", 10)
    status, printed, _ = call(capsys, "interpolate", run, "--out", tmp_path / "a.mp4", *words, "--json")
    released = json.loads(printed)
    assert status == 0
    assert (released["frames"], released["seeds"], released["fps"]) == (4, [1, 5], 10)
    status, printed, _ = call(capsys, "verify", tmp_path / "a.mp4", "--json", "--report", tmp_path / "a.html")
    (entry,) = json.loads(printed)
    assert (status, entry["media"], entry["credentials"]["state"]) == (0, "video", "trusted")
    assert entry["watermark"]["payload"] == released["watermark"]
    assert "in 4 of 4 frames read" in (tmp_path / "a.html").read_text()
    status, printed, _ = call(capsys, "verify", tmp_path / "a.mp4")
    assert "authenticated, in 4 of 4 frames read" in printed
    status, printed, _ = call(capsys, "detect", tmp_path / "a.mp4", "--json")
    assert (json.loads(printed)[0]["verdict"], json.loads(printed)[0]["decided_by"]) == ("synthetic", "credentials")
    status, printed, _ = call(capsys, "interpolate", run, "--out", tmp_path / "b.mp4", *words)
    assert printed.startswith("4 frames, each marked")


def test_a_broken_clip_is_an_entry_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x14ftypisom\0\0\0\0isom")
    for command in ("verify", "detect"):
        status, printed, err = call(capsys, command, tmp_path / "a.mp4")
        assert (status, printed) == (1, "")
        assert err.count("\n") == 1
        assert "damaged or unsupported MP4" in err


def test_native_size_says_why_there_is_no_watermark(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        call(capsys, "sample", run, "--out", tmp_path / "s", "--seeds", 1, "--native-size", "--format", "webp")[0] == 0
    )
    _, printed, _ = call(capsys, "verify", tmp_path / "s" / "seed0001.webp", "--json")
    (entry,) = json.loads(printed)
    assert not entry["watermark"]["present"]
    assert "native size" in entry["watermark"]["reason"]
    assert entry["credentials"]["state"] == "trusted"


def test_a_missing_file_gets_its_entry_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PIL.Image.new("L", (40, 40), 99).save(tmp_path / "plain.png")
    for command in ("verify", "detect"):
        status, printed, _ = call(capsys, command, tmp_path / "plain.png", tmp_path / "gone.png", "--json")
        plain, gone = json.loads(printed)
        assert status == 1
        assert set(gone) == {"path", "error"}
        assert plain["credentials"]["state"] == "absent"
        assert call(capsys, command, tmp_path / "plain.png")[0] == 0


def test_names_from_files_are_escaped_in_terminal_and_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "\x1b[31m<script>alert(1)<\u202egnp.png"
    (tmp_path / name.replace("/", "_")).write_bytes(b"not a picture")
    PIL.Image.new("L", (9, 9)).save(tmp_path / "<b>\x07.png")
    files = sorted(tmp_path.iterdir())
    report = tmp_path / "report.html"
    _, out, err = call(capsys, "verify", *files, "--report", report)
    for character in "\x1b\x07\u202e":
        assert character not in out + err + report.read_text()
    assert "<script>" not in report.read_text()
    assert "<b>" not in report.read_text()


def test_evaluate_prints_intervals_and_what_was_compared(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("evaluate", run, "--data", "digits", "--metrics", "kid,dc", "--num", 100)
    status, printed, _ = call(capsys, *words, "--json")
    found = json.loads(printed)
    assert status == 0
    low, high = found["kid"]["ci95"]
    assert low < found["kid"]["value"] < high
    assert found["kid"]["features"] == "own"
    assert (found["num_fake"], found["real"]) == (100, "the part 'test' of digits")
    assert "100 made against" in call(capsys, *words)[1]


def test_models_and_data_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    models = {model["name"]: model for model in json.loads(call(capsys, "models", "--json")[1])}
    assert models["dcgan"]["presets"]["dcgan64"]["parameters"] == {"G": 3_576_704, "D": 2_765_568}
    found = json.loads(call(capsys, "data", "digits", "--json")[1])
    assert found["pictures"] == sum(found["parts"].values()) == sum(found["classes"].values()) == 1797


@pytest.mark.parametrize(
    "command",
    ["", "demo", "models", "data", "train", "sample", "interpolate", "evaluate", "import", "verify", "detect"],
)
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, *command.split(), "--help")
    assert status == 0
    assert f"countermark {command or 'demo'}" in out
    assert "example" in out


OWN_MODEL = """
import dataclasses
from countermark.models import find
SPEC = dataclasses.replace(find("dcgan"), name="mine", presets={"small": find("dcgan").presets["tiny"]})
DETECTOR = dataclasses.replace(find("npr"), name="my_npr", presets={"small": find("npr").presets["tiny"]})
open(WITNESS, "a").write("run ")
"""


def test_a_model_of_one_s_own_is_executed_only_when_its_user_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    witness, file = tmp_path / "witness", tmp_path / "my_model.py"
    file.write_text(OWN_MODEL.replace("WITNESS", repr(str(witness))))
    out = tmp_path / "run"
    assert call(capsys, "train", f"{file}:SPEC", "--data", "digits", "--out", out, "--images", 64)[0] == 0
    witness.unlink()
    status, _, err = call(capsys, "sample", out, "--out", tmp_path / "s", "--seeds", 1)
    assert (status, witness.exists()) == (2, False)
    assert "--model" in err
    assert call(capsys, "sample", out, "--out", tmp_path / "s", "--seeds", 1, "--model", f"{file}:SPEC")[0] == 0

    against = ("--data", "digits", "--against", out, "--out", tmp_path / "detector", "--images", 64)
    assert call(capsys, "train", f"{file}:DETECTOR", *against)[0] == 2
    assert call(capsys, "train", f"{file}:DETECTOR", *against, "--against-model", f"{file}:SPEC")[0] == 0
    asked = ("detect", "--detector", tmp_path / "detector", tmp_path / "s" / "seed0001.png")
    assert call(capsys, *asked)[0] == 2
    assert call(capsys, *asked, "--model", f"{file}:DETECTOR")[0] == 0


BROKEN_MODELS = {
    "build": 'SPEC = dataclasses.replace(find("dcgan"), name="mine", build=lambda s: {}["G"])',
    "phases": 'SPEC = dataclasses.replace(find("dcgan"), name="mine", phases=lambda s: s.nothing)',
    "no presets": 'SPEC = dataclasses.replace(find("dcgan"), name="mine", presets={})',
    "step": """
def step(step): return {"loss": step.x @ step.x.sum()}
SPEC = dataclasses.replace(find("dcgan"), name="mine", phases=lambda s: (Phase("G", Adam(1e-3), step),))""",
}


@pytest.mark.parametrize("case", BROKEN_MODELS)
def test_what_fails_in_a_model_of_one_s_own_is_one_line_that_names_the_file(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "my_model.py"
    file.write_text(
        f"import dataclasses\nfrom countermark.core.spec import Adam, Phase\n"
        f"from countermark.models import find\n{BROKEN_MODELS[case]}\n"
    )
    words = ("train", f"{file}:SPEC", "--data", "digits", "--out", tmp_path / "out", "--images", 64)
    status, _, err = call(capsys, *words)
    assert status == 2
    assert re.fullmatch(r"countermark: model file .*my_model\.py.*", err.splitlines()[-1]), err


def test_a_certificate_without_its_key_is_bad_use(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call(
        capsys, "sample", run, "--out", tmp_path / "s", "--seeds", 1, "--certificate", tmp_path / "c.pem"
    )
    assert status == 2
    assert "certificate and key go together" in err
    assert not list((tmp_path / "s").glob("*"))
