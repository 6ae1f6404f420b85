"""The command line: words in, one call of a job, words out. Nothing heavy is imported before a command is chosen."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from countermark.core.errors import CountermarkError
from countermark.core.text import printable

EXAMPLES = """examples:
  countermark demo
  countermark train dcgan --data mnist5k --out runs/digits --minutes 3
  countermark train r3gan --data my_photos/ --size 64 --out runs/photos --images 500000
  countermark train r3gan --data my_photos/ --size 64 --out runs/photos --images 500000 --devices 2
  countermark sample runs/digits --out samples --seeds 0-63
  countermark evaluate runs/digits --data mnist5k --metrics fd,kid,pr,dc
  countermark import network-snapshot-final.pkl --model r3gan --out runs/faces
  countermark project runs/faces photo.jpg --out projected
  countermark directions runs/faces --method sefa --out directions
  countermark export runs/faces --format onnx --out faces.onnx
  countermark verify samples/*.png
  countermark train npr --data mnist5k --against runs/digits --out runs/detector --images 40000
  countermark detect --detector runs/detector picture.png
"""
RUN_HELP = "a run folder or a trained model that ships, as MODEL@SET (see: countermark models)"
PACKAGED_HELP = "digits, mnist5k, avatars, emoji, faces64"
SOURCE_HELP = f"a folder, a zip, tar shards ('shards/{{000..099}}.tar'), or a packaged set ({PACKAGED_HELP})"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit status 0, 1 for a failure, 2 for bad use, 130 for an interruption."""
    # Torch's threads otherwise burn a core while they wait; on a busy machine that makes training ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Large pages: a training step's memory comes with a few hundred faults in place of a hundred thousand.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show a name's letters gets their escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a queue's or a container's end is an interruption
    arguments = _parse(argv)
    try:
        return int(arguments.run(arguments) or 0)
    except CountermarkError as error:
        print(f"countermark: {printable(error)}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from the last state" if arguments.command in ("train", "demo") else ""
        print(f"countermark: interrupted{goes_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output closed it: `countermark models | head`
        sys.stderr.close()
        return 1
    except OSError as error:  # a home, a run or an output that the system does not let us into
        print(f"countermark: {printable(error.filename or 'output')}: {error.strerror or error}", file=sys.stderr)
        return 1
    except MemoryError:
        print("countermark: out of memory; give smaller pictures or settings", file=sys.stderr)
        return 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """argparse takes NAME=VALUE words only where the first positional stands; here they may follow options too."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if any("=" not in word or word.startswith("-") for word in rest) or (rest and arguments.command != "train"):
        parser.error(f"{' '.join(rest)} is not understood")
    if rest:
        arguments.settings += rest
    return arguments


class _Parser(argparse.ArgumentParser):
    """argparse with one line for an error, as everywhere else, and lists that begin with a negative number."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> Any:
        print(f"{self.prog}: {printable(message)} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="countermark",
        description="Train GANs, mark all that they make, verify marks, detect what is unmarked.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for add in (
        _demo,
        _models,
        _data,
        _train,
        _sample,
        _interpolate,
        _evaluate,
        _import,
        _project,
        _directions,
        _export,
        _verify,
        _detect,
    ):
        add(commands)
    return parser


def _version() -> str:
    from countermark import __version__

    return f"countermark {__version__}"


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], Any], text: str, example: str) -> Any:
    command = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  countermark {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, ensure_ascii=True))


def _numbers(text: str) -> list[int]:
    """'0-3,7' as [0, 1, 2, 3, 7]."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            low, high = int(first), int(last) if dash else int(first)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list like 0-63 or 1,5,9") from None
        if not 0 <= low <= high < 2**62 or high - low >= 10**6:
            raise argparse.ArgumentTypeError(f"{part!r} is not a range of at most a million numbers from 0 up")
        found += range(low, high + 1)
    return found


def _reals(text: str) -> list[float]:
    """'-3,0,3' as [-3.0, 0.0, 3.0]."""
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like -3,0,3") from None
    if not all(abs(number) <= 1000 for number in found):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from -1000 to 1000 like -3,0,3")
    return found


def _names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _cures(text: str) -> list[str]:
    if not all(parts := text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of cures like pacgan=2,dragan")
    return parts


def _add_json(command: Any) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def _add_model(command: Any) -> None:
    command.add_argument("--model", metavar="FILE.py:SPEC", help="the model's file, for a run of a model of your own")


def _demo(commands: Any) -> None:
    command = _command(
        commands, "demo", _run_demo, "train, sample, mark, verify and detect, with a report", "demo --out demo"
    )
    command.add_argument("--out", default="demo", help="folder of the report (default: demo)")
    command.add_argument("--minutes", type=float, default=3.0, help="length of the training (default: 3)")


def _run_demo(arguments: argparse.Namespace) -> None:
    from countermark.apps.progress import TrainingBar
    from countermark.jobs.demo import Show, demo

    with TrainingBar() as bar:
        demo(arguments.out, minutes=arguments.minutes, show=Show(bar.say, bar.update, bar.track))


def _models(commands: Any) -> None:
    command = _command(
        commands, "models", _run_models, "list the models, their presets and parameter counts", "models --json"
    )
    _add_json(command)


def _run_models(arguments: argparse.Namespace) -> None:
    from countermark.jobs.models import list_models

    models = list_models()
    if arguments.json:
        _print_json(models)
        return
    for model in models:
        print(f"{model['name']}  ({model['kind']}, {model['year']}: {model['paper']})")
        for name, preset in model["presets"].items():
            counts = "  ".join(f"{network} {count:,}" for network, count in preset["parameters"].items())
            print(f"  {model['name']}:{name:<12} {preset['size']:>4} px  {counts}")
        for name in model["trained"]:
            print(f"  {name}  ready to sample: countermark sample {name} --out samples")


def _data(commands: Any) -> None:
    text = "inspect a source of pictures: counts, duplicates, broken files (listed; the status stays 0); pack it"
    command = _command(commands, "data", _run_data, text, "data my_photos/ --pack 'shards/{000..009}.tar' --size 64")
    command.add_argument("source", metavar="SOURCE", help=SOURCE_HELP)
    command.add_argument(
        "--pack",
        metavar="OUT",
        help="write the sound pictures as x.zip (StyleGAN's), x.tar or 'shards/{000..009}.tar' (webdataset's)",
    )
    command.add_argument(
        "--size", type=int, help="for --pack: centre crop and resize to this side, as PNG (default: files as they are)"
    )
    command.add_argument("--sheet", metavar="FILE.html", help="write a page with pictures, counts and duplicates")
    _add_json(command)


def _run_data(arguments: argparse.Namespace) -> None:
    from countermark.apps.progress import track
    from countermark.jobs.data import as_lines, inspect_data

    found = inspect_data(arguments.source, out=arguments.pack, size=arguments.size, page=arguments.sheet, track=track)
    if arguments.json:
        _print_json(found)
        return
    for line in as_lines(found):
        print(printable(line))


def _train(commands: Any) -> None:
    text = "train a model; the same command again resumes"
    command = _command(
        commands, "train", _run_train, text, "train dcgan:mnist32 --data mnist5k --out runs/digits lr=1e-4"
    )
    command.add_argument("model", help="MODEL, MODEL:PRESET, or my_model.py:SPEC (see: countermark models)")
    command.add_argument("--data", required=True, metavar="SOURCE", help=SOURCE_HELP)
    command.add_argument("--out", required=True, help="the run's folder")
    command.add_argument("--images", type=_count, help="stop after so many real images shown")
    command.add_argument("--minutes", type=float, help="stop after so many minutes of training")
    command.add_argument("--seed", type=int, default=0, help="(default: 0)")
    command.add_argument("--size", type=int, help="centre crop and resize the pictures to this side")
    command.add_argument("--from", dest="start", metavar="RUN", help=f"start from its weights; {RUN_HELP}")
    command.add_argument("--against", metavar="RUN|DIR", help="for a detector: where synthetic pictures come from")
    command.add_argument("--against-model", metavar="FILE.py:SPEC", help="its model's file, if it is your own")
    command.add_argument("--metrics", type=_names, default=[], help="figures to follow: fd,kid,pr,dc")
    command.add_argument(
        "--cures", type=_cures, default=[], metavar="NAME[=NUMBER],...", help="such as pacgan=2,dragan (docs/cures.md)"
    )
    command.add_argument(
        "--memory",
        type=float,
        default=2.0,
        metavar="GIB",
        help="for decoded pictures (default: 2); a set over half of it is streamed, in the same order",
    )
    command.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="processes that share each batch; docs/scale.md (default: 1)",
    )
    command.add_argument(
        "--accelerator", choices=("cpu", "cuda"), default="cpu", help="what they run on (default: cpu)"
    )
    command.add_argument(
        "--compile", action="store_true", help="compile the networks first, which takes minutes; docs/scale.md"
    )
    command.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="settings of the preset to change")


def _count(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of images like 200000 or 2e5") from None
    if not 1 <= value < 1e15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of images")
    return int(value)


def _run_train(arguments: argparse.Namespace) -> None:
    from countermark.training.distributed import launch

    last = launch(partial(_train_as, arguments), arguments.devices, arguments.accelerator)
    if last:
        print(printable(last))


def _train_as(arguments: argparse.Namespace, ranks: Any) -> Any:
    """Train as one of the processes; the last state where it is the first of them, which alone shows anything."""
    from countermark.apps.progress import TrainingBar
    from countermark.jobs.train import train_model

    with TrainingBar(silent=ranks.rank > 0) as bar:
        last = train_model(
            arguments.model,
            data=arguments.data,
            out=arguments.out,
            images=arguments.images,
            minutes=arguments.minutes,
            seed=arguments.seed,
            size=arguments.size,
            start=arguments.start,
            against=arguments.against,
            against_model=arguments.against_model,
            metrics=arguments.metrics,
            cures=arguments.cures,
            settings=arguments.settings,
            memory_gib=arguments.memory,
            track=bar.track,
            say=bar.say,
            progress=bar.update,
            ranks=ranks,
            compiled=arguments.compile,
        )
    return last if ranks.rank == 0 else None


def _sample(commands: Any) -> None:
    command = _command(
        commands,
        "sample",
        _run_sample,
        "make pictures, each marked and registered",
        "sample runs/digits --out samples --seeds 0-63",
    )
    command.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    command.add_argument("--out", required=True, help="folder for the pictures")
    _add_model(command)
    command.add_argument("--seeds", type=_numbers, default=list(range(64)), help="such as 0-63 (the default)")
    _add_codes(command)
    command.add_argument(
        "--mix-seeds",
        type=_numbers,
        metavar="SEEDS",
        help="a grid: each of --seeds (rows) in the styles of each of these",
    )
    command.add_argument(
        "--mix-layers",
        type=_numbers,
        metavar="LAYERS",
        help="the layers mixed in (default: the second half, fine detail)",
    )
    command.add_argument("--format", choices=("png", "jpeg", "webp"), default="png", help="(default: png)")
    _add_certificate(command)
    command.add_argument(
        "--native-size", action="store_true", help="keep small pictures small (no watermark fits them)"
    )
    _add_json(command)


def _run_sample(arguments: argparse.Namespace) -> None:
    from countermark.apps.progress import track
    from countermark.core.errors import UsageError
    from countermark.jobs.sample import mix, sample

    make: Callable[..., list[dict]] = sample
    if arguments.mix_seeds:
        make = partial(mix, mix_seeds=arguments.mix_seeds, mix_layers=arguments.mix_layers)
    elif arguments.mix_layers:
        raise UsageError("mix-layers: whose styles? give --mix-seeds too, such as 100-103")
    released = make(
        arguments.run_folder,
        out=arguments.out,
        seeds=arguments.seeds,
        classes=arguments.classes,
        truncation=arguments.truncation,
        format=arguments.format,
        native_size=arguments.native_size,
        model=arguments.model,
        certificate=arguments.certificate,
        key=arguments.key,
        track=track,
    )
    if arguments.json:
        _print_json(released)
    else:
        print(f"{len(released)} pictures, marked, signed and registered, in {printable(arguments.out)}")


def _add_codes(command: Any) -> None:
    command.add_argument("--classes", type=_numbers, help="classes to make, in turn, such as 0-9")
    command.add_argument("--truncation", type=float, metavar="PSI", help="less variety, more quality, such as 0.7")


def _add_certificate(command: Any) -> None:
    command.add_argument("--certificate", metavar="PEM", help="sign with this chain (leaf first) instead of your own")
    command.add_argument("--key", metavar="PEM", help="the private key of --certificate")


def _interpolate(commands: Any) -> None:
    text = "make a clip that walks from seed to seed, every frame marked"
    command = _command(
        commands, "interpolate", _run_interpolate, text, "interpolate runs/digits --out walk.mp4 --seeds 1,5,9"
    )
    command.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    command.add_argument("--out", required=True, metavar="FILE.mp4")
    _add_model(command)
    command.add_argument("--seeds", type=_numbers, default=list(range(6)), help="such as 0-5 (the default)")
    _add_codes(command)
    command.add_argument("--frames-per-seed", type=int, default=60, metavar="N", help="(default: 60)")
    command.add_argument("--fps", type=float, default=30.0, help="frames a second (default: 30)")
    command.add_argument("--no-loop", dest="loop", action="store_false", help="end at the last seed, not at the first")
    _add_certificate(command)
    _add_json(command)


def _run_interpolate(arguments: argparse.Namespace) -> None:
    from countermark.apps.progress import track
    from countermark.jobs.interpolate import interpolate

    released = interpolate(
        arguments.run_folder,
        out=arguments.out,
        seeds=arguments.seeds,
        frames_per_seed=arguments.frames_per_seed,
        fps=arguments.fps,
        loop=arguments.loop,
        classes=arguments.classes,
        truncation=arguments.truncation,
        model=arguments.model,
        certificate=arguments.certificate,
        key=arguments.key,
        track=track,
    )
    if arguments.json:
        _print_json(released)
    else:
        print(f"{released['frames']} frames, each marked, signed and registered as {printable(released['path'])}")


def _evaluate(commands: Any) -> None:
    text = "measure how close made pictures are to real ones, with intervals"
    command = _command(
        commands, "evaluate", _run_evaluate, text, "evaluate runs/digits --data mnist5k --metrics fd,kid,pr,dc"
    )
    command.add_argument("made", metavar="RUN|DIR", help=f"{RUN_HELP}, or a folder of pictures")
    command.add_argument("--data", required=True, metavar="SOURCE", help=f"the real pictures: {SOURCE_HELP}")
    command.add_argument("--metrics", type=_names, default=["fd", "kid", "pr", "dc"], help="(default: fd,kid,pr,dc)")
    command.add_argument("--features", default=None, help="own, efflite0 or inception (default: own for labelled sets)")
    _add_model(command)
    command.add_argument("--num", type=int, default=1000, help="pictures to sample from a run (default: 1000)")
    command.add_argument(
        "--part", default="test", help="part of the real set: generator, detector, calibration, test, all"
    )
    _add_json(command)


def _run_evaluate(arguments: argparse.Namespace) -> None:
    from countermark.jobs.evaluate import evaluate

    found = evaluate(
        arguments.made,
        data=arguments.data,
        metrics=arguments.metrics,
        features=arguments.features,
        num=arguments.num,
        part=arguments.part,
        model=arguments.model,
    )
    if arguments.json:
        _print_json(found)
        return
    for name, figure in found.items():
        if isinstance(figure, dict) and "value" in figure:
            low, high = figure["ci95"]
            print(f"{name:<10} {figure['value']:.4g}  [{low:.4g}, {high:.4g}]  on {figure['features']}")
    print(f"{found['num_fake']} made against {found['num_real']} real pictures")


def _import(commands: Any) -> None:
    text = "turn an official checkpoint into a run, without executing it; weights keep their licence"
    command = _command(
        commands, "import", _run_import, text, "import netG_epoch_24.pth netD_epoch_24.pth --model dcgan --out runs/old"
    )
    command.add_argument(
        "files", nargs="+", metavar="FILE", help=".pth or .pkl; G and D may come apart, D may be missing"
    )
    command.add_argument("--model", required=True, help="the model that the networks are of (see: countermark models)")
    command.add_argument("--out", required=True, help="the run's folder")


def _run_import(arguments: argparse.Namespace) -> None:
    from countermark.jobs.importing import import_run

    def say(line: str) -> None:
        print(printable(line), file=sys.stderr)

    print(import_run(arguments.files, model=arguments.model, out=arguments.out, say=say))


def _project(commands: Any) -> None:
    text = "find the codes whose pictures come closest to given ones; what is released is an edit of its parent"
    command = _command(commands, "project", _run_project, text, "project runs/faces photo.jpg --out projected")
    command.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    command.add_argument("files", nargs="+", metavar="FILE", help="pictures: PNG, JPEG or WebP")
    command.add_argument("--out", required=True, help="folder for the pictures and their codes (.code.safetensors)")
    _add_model(command)
    command.add_argument("--steps", type=int, default=1000, help="of the search (default: 1000)")
    command.add_argument("--seed", type=int, default=0, help="of the codes that it starts from (default: 0)")
    command.add_argument(
        "--space", choices=("w", "w+", "z"), help="of a style-based generator: w (the default), w+ comes closer, or z"
    )
    command.add_argument("--classes", type=_numbers, help="classes to try, such as 0-9 (default: all)")
    command.add_argument(
        "--features", choices=("efflite0",), help="compare by a network's features too (the extra `features`)"
    )
    _add_json(command)


def _run_project(arguments: argparse.Namespace) -> int:
    from countermark.apps.progress import track
    from countermark.jobs.project import as_lines, project_files

    entries = project_files(
        arguments.run_folder,
        arguments.files,
        out=arguments.out,
        steps=arguments.steps,
        seed=arguments.seed,
        space=arguments.space,
        classes=arguments.classes,
        features=arguments.features,
        model=arguments.model,
        track=track,
    )
    return _show_entries(entries, arguments.json, as_lines)


def _directions(commands: Any) -> None:
    text = "find ways to edit a run's pictures without labels, and show what each does"
    command = _command(
        commands,
        "directions",
        _run_directions,
        text,
        "directions runs/faces --method sefa --out directions --strengths -3,0,3",
    )
    command.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    command.add_argument("--out", required=True, help="folder for directions.safetensors and a picture a direction")
    _add_model(command)
    command.add_argument("--method", choices=("sefa", "ganspace"), default="sefa", help="(default: sefa)")
    command.add_argument("--num", type=int, default=8, help="how many directions (default: 8)")
    command.add_argument(
        "--strengths", type=_reals, default=[-3.0, 0.0, 3.0], help="columns, in standard deviations (default: -3,0,3)"
    )
    command.add_argument("--seeds", type=_numbers, default=[0, 1, 2, 3], help="rows (default: 0-3)")
    command.add_argument("--classes", type=_numbers, help="of the rows, in turn; the first is the one that is searched")
    command.add_argument("--layers", type=_numbers, help="of a style-based generator: edit these only, such as 0-3")
    _add_json(command)


def _run_directions(arguments: argparse.Namespace) -> None:
    from countermark.jobs.directions import release_directions

    released = release_directions(
        arguments.run_folder,
        out=arguments.out,
        method=arguments.method,
        num=arguments.num,
        strengths=arguments.strengths,
        seeds=arguments.seeds,
        classes=arguments.classes,
        layers=arguments.layers,
        model=arguments.model,
    )
    if arguments.json:
        _print_json(released)
    else:
        print(f"{len(released)} directions, each with a picture, in {printable(arguments.out)}")


def _export(commands: Any) -> None:
    text = "write a run's generator as a file for other programs; what they make with it carries no marks"
    command = _command(commands, "export", _run_export, text, "export runs/faces --format onnx --out faces.onnx")
    command.add_argument("run_folder", metavar="RUN", help=RUN_HELP)
    command.add_argument("--out", required=True, metavar="FILE", help="the file, such as faces.onnx")
    command.add_argument("--format", choices=("onnx",), default="onnx", help="(default: onnx)")
    _add_model(command)
    _add_json(command)


def _run_export(arguments: argparse.Namespace) -> None:
    from countermark.jobs.export import export_run

    written = export_run(arguments.run_folder, out=arguments.out, model=arguments.model)
    if arguments.json:
        _print_json(written)
    else:
        same = f"within {written['max_difference']:.1g} of torch"
        print(f"{printable(written['path'])}: {written['bytes']:,} bytes, {same}; its pictures carry no marks")


def _verify(commands: Any) -> None:
    text = "show the marks of files: signature, watermark, labels, registry; evidence, no verdict"
    command = _command(commands, "verify", _run_verify, text, "verify samples/*.png")
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument("--report", metavar="FILE.html", help="write a page that shows the evidence")
    _add_json(command)


def _run_verify(arguments: argparse.Namespace) -> int:
    from countermark.jobs.verify import as_lines, verify_files

    entries = verify_files(arguments.files, report=arguments.report)
    return _show_entries(entries, arguments.json, as_lines)


def _detect(commands: Any) -> None:
    text = "decide whether files are synthetic: marks first, then calibrated detectors, else unknown"
    command = _command(commands, "detect", _run_detect, text, "detect --detector runs/detector picture.png")
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument(
        "--detector", action="append", default=[], metavar="RUN", help="a trained detector (may be given several times)"
    )
    _add_model(command)
    command.add_argument("--heatmap", metavar="DIR", help="write a picture of where each detector found its evidence")
    _add_json(command)


def _run_detect(arguments: argparse.Namespace) -> int:
    from countermark.jobs.detect import as_lines, detect_files

    entries = detect_files(
        arguments.files, detectors=arguments.detector, model=arguments.model, heatmap=arguments.heatmap
    )
    return _show_entries(entries, arguments.json, as_lines)


def _show_entries(entries: list[dict], as_json: bool, as_lines: Callable[[dict], list[str]]) -> int:
    """Every file's entry; status 1 when one could not be read, else 0."""
    if as_json:
        _print_json(entries)
    for entry in entries:
        if as_json:
            break
        if "error" in entry:
            print(f"countermark: {printable(entry['error'])}", file=sys.stderr)
            continue
        for line in as_lines(entry):
            print(printable(line))
    return 1 if any("error" in entry for entry in entries) else 0


if __name__ == "__main__":
    sys.exit(main())
