"""`countermark export`: a generator as one ONNX file, for programs without torch."""

from __future__ import annotations

import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import write_atomic
from countermark.core.seeds import latents
from countermark.core.text import printable
from countermark.training.run import check_output_file
from countermark.training.trained import Trained, load_run

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-3
BATCHES = (1, 5)  # neither is the size that is exported with
MAX_BYTES = 2**31 - 1  # of one file of protocol buffers, weights included
PICTURES = "pictures"
UNMARKED = "pictures made with this file carry no marks"
_OPERATOR = re.compile(r"OpOverload\(op='([^']+)'")


def export_run(run: str | Path, *, out: str | Path, format: str = "onnx", model: str | None = None) -> dict[str, Any]:
    """Write the generator of `run` to the file `out`, for any batch size; nothing is written unless it computes alike.

    Inputs: z [N,num_z], standard normal, and one-hot c [N,num_classes] for a run with classes. Output: pictures
    [N,C,H,W] in [-1,1] (a network that ends without tanh goes a little beyond; clip them). Before the file appears,
    onnxruntime has run it at the batch sizes BATCHES within TOLERANCE of torch. Its metadata name the model, the run,
    the licence, and say that the pictures are unmarked: `protect` what you publish. model: FILE.py:SPEC for a run of a
    model of the user's own.
    Returns path, model, run, bytes and max_difference (of pixels in [-1,1]).
    Raises UsageError where the packages are missing, for another format and for a run without a generator,
    CountermarkError where ONNX lacks an operator, which it names, and where onnxruntime's pictures differ.
    """
    if format != "onnx":
        raise UsageError(f"format: {format} is not known; choose onnx")
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UsageError(f'format onnx needs {", ".join(missing)}: pip install "countermark[export]"')
    path = Path(out)
    trained = load_run(Path(run), model)
    check_output_file(path, ".onnx", "a generator")
    data = as_onnx(trained)
    difference = max(_difference(trained, data, num) for num in BATCHES)
    if not difference <= TOLERANCE:
        raise CountermarkError(
            f"onnxruntime's pictures differ from torch's by {difference:.2g}, over the {TOLERANCE:g} that may be; "
            "nothing was written"
        )
    write_atomic(path, data)
    name, run_id = trained.spec.name, trained.run_id
    return {"path": str(path), "model": name, "run": run_id, "bytes": len(data), "max_difference": difference}


def as_onnx(trained: Trained) -> bytes:
    """The generator as the bytes of an ONNX file; raises CountermarkError as `export_run` does."""
    G = trained.generator
    if sum(tensor.nbytes for tensor in G.state_dict().values()) > MAX_BYTES:
        raise CountermarkError("this generator takes more than the 2 GB of one ONNX file; nothing was written")
    inputs = _inputs(trained, 2)
    batch = torch.export.Dim("batch", min=1)
    sizes = tuple({0: batch} for _ in inputs)
    with _quiet(), _blaming_the_operator():
        # Strict: the code is read, not watched, so that len(x) stays free as x.shape[0] does.
        traced = torch.export.export(G, tuple(inputs.values()), dynamic_shapes=sizes, strict=True)
        program = torch.onnx.export(
            traced,
            dynamo=True,
            verbose=False,
            input_names=list(inputs),
            output_names=[PICTURES],
            dynamic_shapes=sizes,
            custom_translation_table={torch.ops.aten.convolution_backward.default: _convolved_back},
        )
    assert program is not None
    proto = program.model_proto
    for key, value in _metadata(trained).items():
        proto.metadata_props.add(key=key, value=value)
    return proto.SerializeToString()


def _convolved_back(
    y: Any,
    x: Any,
    weight: Any,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *rest: Any,
) -> Any:
    """aten.convolution_backward in x, as which nn/convolution.py transposes, as ONNX's ConvTranspose.

    Raises NotImplementedError for the gradients in weight and bias, which ONNX has not.
    """
    from onnxscript import opset18

    transposed, _, groups, wanted = rest
    if transposed or list(wanted) != [True, False, False]:
        raise NotImplementedError
    places = zip(x.shape[2:], y.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    left = [in_x - ((in_y - 1) * s - 2 * p + d * (kernel - 1) + 1) for in_x, in_y, kernel, s, p, d in places]
    gradient = opset18.ConvTranspose(
        y, weight, strides=stride, pads=[*padding, *padding], dilations=dilation, group=groups, output_padding=left
    )
    return gradient, gradient, gradient  # the other two are never read, but must be values


def _inputs(trained: Trained, num: int) -> dict[str, Tensor]:
    """z of the seeds 0 to num - 1, and their classes where there are any, under the names that the file has too."""
    z, c = latents(range(num), trained.spec.num_z(trained.settings)), trained.conditions(range(num), None)
    return {"z": z} if c is None else {"z": z, "c": c}


def _metadata(trained: Trained) -> Mapping[str, str]:
    imported = bool(trained.config.get("source"))
    return {
        "model": trained.spec.name,
        "paper": trained.spec.paper,
        "run": trained.run_id,
        "licence": f"that of {'the official checkpoint' if imported else 'whoever trained the weights'}",
        "marks": UNMARKED,
    }


def _difference(trained: Trained, data: bytes, num: int) -> float:
    """The greatest difference between the pixels of onnxruntime and of torch over `num` pictures."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    inputs = _inputs(trained, num)
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        found = session.run([PICTURES], {name: tensor.numpy() for name, tensor in inputs.items()})[0]
    except Exception as error:  # onnxruntime has a family of errors for what it cannot run
        raise CountermarkError(
            f"onnxruntime cannot run what torch exported for a batch of {num} ({_first_line(error)}); "
            "nothing was written"
        ) from error
    with torch.no_grad():
        expected = trained.generator(*inputs.values()).numpy()
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs what else it could have used, and graphs that it gave up: nothing of the user's to mend."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _blaming_the_operator() -> Iterator[None]:
    """What the exporter refuses, as one line that names the operator."""
    try:
        yield
    except Exception as error:  # the exporter's errors lie in private modules; the first cause says what it was
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        found = _OPERATOR.search(str(cause))
        what = f"ONNX has no operator {found[1]}" if found else f"torch cannot export it: {_first_line(cause)}"
        raise CountermarkError(f"this generator uses what ONNX forbids ({what}); nothing was written") from error


def _first_line(error: BaseException) -> str:
    return printable(next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200])
