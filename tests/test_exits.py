"""One way out: only provenance/encode.py may turn pictures, sound or video into encoded bytes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "countermark"
THE_WAY_OUT = "provenance/encode.py"

# Functions that encode media, by the module that they come from. '*': the module has no other use.
WRITERS = {
    "cv2": ("imwrite", "imwritemulti", "imencode", "VideoWriter"),
    "imageio": ("*",),
    "matplotlib.image": ("imsave", "thumbnail"),
    "matplotlib.pyplot": ("imsave",),
    "moviepy": ("*",),
    "plotly.io": ("write_image",),
    "png": ("*",),
    "pydub": ("*",),
    "scipy.io.wavfile": ("write",),
    "skimage.io": ("imsave",),
    "soundfile": ("write",),
    "tifffile": ("*",),
    "torchaudio": ("save",),
    "torchvision.io": ("write_png", "write_jpeg", "write_video", "encode_png", "encode_jpeg"),
    "torchvision.utils": ("save_image",),
}
# Openers that write when their mode says so.
OPENERS = {"av": ("open",), "soundfile": ("SoundFile",), "wave": ("open",), "aifc": ("open",)}
# TensorBoard's writer encodes what these methods get: released bytes go in as a summary instead. The last three are of
# PyAV's containers, whatever opened them.
METHODS = (
    *("add_image", "add_images", "add_image_with_boxes", "add_figure", "add_video", "add_audio", "write_image"),
    *("add_stream", "add_stream_from_template", "mux"),
)
# `X.save` encodes a picture where pictures can be at hand, unless X is one of these modules, a module of the package or
# an object's own method.
PICTURE_LIBRARIES = ("PIL", "imageio", "matplotlib", "pillow_heif", "skimage", "torchvision")
SAVERS_OF_OTHER_THINGS = ("json", "numpy", "onnx", "safetensors", "torch")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".mp4")
ENCODING_PROGRAMS = ("ffmpeg", "convert", "magick", "cwebp", "sox", "lame")


def findings(code: str) -> list[str]:
    """What in a module's source would encode media: 'line: what', one for each."""
    tree = ast.parse(code)
    names = _imported(tree)
    own_methods = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    pictures_at_hand = any(origin.split(".")[0] in PICTURE_LIBRARIES for origin in names.values())
    found = []
    for node in ast.walk(tree):
        what = _call(node, names) if isinstance(node, ast.Call) else _use(node, names, own_methods, pictures_at_hand)
        if what:
            found.append(f"{node.lineno}: {what}")  # type: ignore[attr-defined]
    return found


def _imported(tree: ast.AST) -> dict[str, str]:
    """The dotted origin of each imported name."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def _use(node: ast.AST, names: dict[str, str], own_methods: set[str], pictures_at_hand: bool) -> str | None:
    if not isinstance(node, ast.Name | ast.Attribute):
        return None
    origin = _origin(node, names)
    if _is_writer(origin):
        return origin
    if isinstance(node, ast.Attribute) and node.attr in METHODS:
        return f".{node.attr}"
    if isinstance(node, ast.Attribute) and node.attr == "save" and pictures_at_hand:
        return _save(node, names, own_methods)
    return None


def _save(node: ast.Attribute, names: dict[str, str], own_methods: set[str]) -> str | None:
    origin = _origin(node.value, names)
    if origin and origin.split(".")[0] in (*SAVERS_OF_OTHER_THINGS, "countermark"):
        return None
    on_self = isinstance(node.value, ast.Name) and node.value.id == "self" and "save" in own_methods
    return None if on_self else ".save of something that may be a picture"


def _call(node: ast.Call, names: dict[str, str]) -> str | None:
    function = node.func
    if isinstance(function, ast.Attribute) and function.attr == "save" and _names_a_picture(node):
        return ".save to a picture's name"
    if isinstance(function, ast.Attribute) and function.attr == "savefig" and not _is_svg(node):
        return "savefig to a raster format"
    if isinstance(function, ast.Name) and function.id == "getattr" and _constant(node, 1) in ("save", *METHODS):
        return f"getattr of {_constant(node, 1)}"
    origin = _origin(function, names)
    for module, openers in OPENERS.items():
        if origin in [f"{module}.{name}" for name in openers] and not _opens_to_read(node):
            return f"{origin} for writing"
    if origin.split(".")[0] in ("subprocess", "os") and _runs_an_encoder(node):
        return "an encoding program"
    return None


def _origin(node: ast.AST, names: dict[str, str]) -> str:
    """`a.b.c` with its first name replaced by what was imported under it; '' for anything else."""
    tail: list[str] = []
    while isinstance(node, ast.Attribute):
        tail.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in names:
        return ""
    return ".".join([names[node.id], *reversed(tail)])


def _is_writer(origin: str) -> bool:
    for module, functions in WRITERS.items():
        if "*" in functions and (origin == module or origin.startswith(f"{module}.")):
            return True
        if origin in [f"{module}.{name}" for name in functions]:
            return True
    return False


def _names_a_picture(call: ast.Call) -> bool:
    texts = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return any(text.lower().endswith(PICTURE_SUFFIXES) for text in texts)


def _is_svg(call: ast.Call) -> bool:
    for keyword in call.keywords:
        if keyword.arg == "format":
            return isinstance(keyword.value, ast.Constant) and keyword.value.value == "svg"
    return str(_constant(call, 0)).endswith(".svg")


def _opens_to_read(call: ast.Call) -> bool:
    modes = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] or call.args[1:2]
    return all(isinstance(mode, ast.Constant) and mode.value in ("r", "rb") for mode in modes)


def _runs_an_encoder(call: ast.Call) -> bool:
    texts = [node.value for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return any(text.split("/")[-1].split(" ")[0] in ENCODING_PROGRAMS for text in texts if text.strip())


def _constant(call: ast.Call, position: int) -> object:
    argument = call.args[position] if len(call.args) > position else None
    return argument.value if isinstance(argument, ast.Constant) else None


def test_nothing_but_the_way_out_encodes() -> None:
    modules = sorted(SOURCE.rglob("*.py"))
    assert len(modules) > 20
    found = {
        str(module.relative_to(SOURCE)): findings(module.read_text(encoding="utf-8"))
        for module in modules
        if module.relative_to(SOURCE).as_posix() != THE_WAY_OUT
    }
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_the_way_out_is_seen() -> None:
    assert findings((SOURCE / THE_WAY_OUT).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "code",
    [
        "from PIL import Image\nImage.fromarray(x).save('a.png')",
        "import PIL.Image\nPIL.Image.open(p).save(b, 'JPEG')",
        "import PIL.Image\nf = picture.save\nf(name)",
        "def f(picture):\n    import PIL.Image\n    picture.resize((2, 2)).save(stream, format=kind)",
        "picture.save('a.PNG')",
        "picture.save(folder / f'{name}.jpg')",
        "getattr(picture, 'save')('a.png')",
        "import cv2\ncv2.imwrite('a.png', x)",
        "from cv2 import imencode as e\ne('.png', x)",
        "import imageio.v3 as iio\niio.imwrite('a.png', x)",
        "from imageio import mimsave\nmimsave('a.gif', x)",
        "import soundfile as sf\nsf.write('a.wav', x, 16000)",
        "import soundfile\nsoundfile.SoundFile('a.wav', 'w', 16000, 1)",
        "import wave\nwave.open('a.wav', 'wb')",
        "import wave\nwave.open('a.wav', mode)",
        "import av\nav.open('a.mp4', mode='w')",
        "import av\nav.open(stream, kind)",
        "from av import open as o\no(stream, 'w', format='mp4')",
        "stream = container.add_stream('libx264', rate=30)",
        "container.mux(packet)",
        "from scipy.io import wavfile\nwavfile.write('a.wav', 16000, x)",
        "import scipy.io.wavfile\nscipy.io.wavfile.write('a.wav', 16000, x)",
        "from torchvision.utils import save_image\nsave_image(x, 'a.png')",
        "import torchvision\ntorchvision.io.write_png(x, 'a.png')",
        "import torchaudio\ntorchaudio.save('a.wav', x, 16000)",
        "import matplotlib.pyplot as plt\nplt.imsave('a.png', x)",
        "figure.savefig('a.png')",
        "figure.savefig(stream)",
        "figure.savefig(stream, format='png')",
        "figure.savefig('a.svg', format=kind)",
        "writer.add_image('samples', x)",
        "writer.add_figure('curve', f)",
        "import subprocess\nsubprocess.run(['/usr/bin/ffmpeg', '-i', a, b])",
        "import os\nos.system('ffmpeg -i a b')",
        "from skimage.io import imsave\nimsave('a.png', x)",
    ],
)
def test_a_writer_is_found(code: str) -> None:
    assert findings(code)


@pytest.mark.parametrize(
    "code",
    [
        "from safetensors.torch import save_file\nsave_file(t, p)",
        "import safetensors.torch\nsafetensors.torch.save(t)",
        "import numpy as np\nnp.save(p, x)",
        "import torch\ntorch.save(x, p)",
        "from countermark.core import checkpoint\ncheckpoint.save(folder, state)",
        "calibration(reals).save(run)",
        "class Run:\n    def save(self): ...\n    def go(self): self.save()",
        "figure.savefig(stream, format='svg')",
        "figure.savefig('a.svg')",
        "import wave\nwave.open('a.wav', 'rb')",
        "import wave\nwave.open('a.wav')",
        "import soundfile as sf\nsf.read('a.wav')",
        "import cv2\ncv2.imread('a.png')",
        "import av\nav.open(stream, format='mov', options=limits)",
        "writer.add_scalar('loss', 1.0)",
        "import subprocess\nsubprocess.run(['git', 'log'])",
        "stream.write(data)",
    ],
)
def test_other_code_is_not(code: str) -> None:
    assert findings(code) == []
