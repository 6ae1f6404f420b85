"""Every model that Countermark trains, in one explicit tuple."""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from countermark.core.errors import CountermarkError, UsageError
from countermark.core.files import sha256_hex
from countermark.core.spec import Spec
from countermark.core.text import named, printable
from countermark.models.detect.npr import SPEC as NPR
from countermark.models.image.biggan import SPEC as BIGGAN
from countermark.models.image.biggan_deep import SPEC as BIGGAN_DEEP
from countermark.models.image.dcgan import SPEC as DCGAN
from countermark.models.image.gan import SPEC as GAN
from countermark.models.image.r3gan import SPEC as R3GAN
from countermark.models.image.sagan import SPEC as SAGAN
from countermark.models.image.sngan import SPEC as SNGAN
from countermark.models.image.stylegan2 import SPEC as STYLEGAN2
from countermark.models.image.stylegan3 import SPEC_R as STYLEGAN3_R
from countermark.models.image.stylegan3 import SPEC_T as STYLEGAN3_T
from countermark.models.image.wgan import SPEC as WGAN
from countermark.models.image.wgan_gp import SPEC as WGAN_GP

SPECS: tuple[Spec, ...] = (
    GAN,
    DCGAN,
    WGAN,
    WGAN_GP,
    SNGAN,
    SAGAN,
    BIGGAN,
    BIGGAN_DEEP,
    STYLEGAN2,
    STYLEGAN3_T,
    STYLEGAN3_R,
    R3GAN,
    NPR,
)
_OWN_FILE = re.compile(r"(.+\.py)(?::(\w*))?")


def find(name: str) -> Spec:
    """The model called `name`, or the one in a user's own file: `my_model.py` or `folder/my_model.py:SPEC`.

    A user's file is Python that runs with the user's rights, as it does when the user runs it.
    Raises UsageError when there is no such model, file or Spec.
    """
    for spec in SPECS:
        if spec.name == name:
            return spec
    if own := _OWN_FILE.fullmatch(name):
        return _load(Path(own[1]), own[2] or "SPEC")
    known = named(spec.name for spec in SPECS)
    raise UsageError(f"unknown model {printable(name)}; choose {known}, or a file of your own as my_model.py:SPEC")


def is_file(name: str) -> bool:
    """Whether `name` means a Python file of the user's own: `my_model.py` or `my_model.py:SPEC`."""
    return _OWN_FILE.fullmatch(name) is not None


def _load(path: Path, attribute: str) -> Spec:
    """The Spec called `attribute` in the Python file `path`."""
    if not path.is_file():
        raise UsageError(
            f"model file {printable(path)} does not exist; give a Python file that ends in SPEC = Spec(...)"
        )
    # A name of its own for each file; registered, since dataclasses look their module up.
    module_name = f"countermark_model_{sha256_hex(str(path.resolve()).encode())[:16]}"
    found = importlib.util.spec_from_file_location(module_name, path)
    assert found is not None  # a path that ends in .py always has a loader
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that exits must not end the command with its own status
        del sys.modules[module_name]
        message = printable(f"{type(error).__name__}: {error}")
        raise UsageError(f"model file {printable(path)} does not run ({message}); mend the file") from error
    spec = getattr(module, attribute, None)
    if not isinstance(spec, Spec):
        raise UsageError(
            f"model file {printable(path)} has no Spec called {printable(attribute)}; "
            f"end it in {printable(attribute)} = Spec(...)"
        )
    if not spec.presets:
        raise UsageError(f"model file {printable(path)}: {printable(attribute)} has no presets; give it one")
    return spec


@contextmanager
def blaming(name: str) -> Iterator[None]:
    """What goes wrong inside a user's own file, as one line that names the place; for other models nothing changes."""
    try:
        yield
    except CountermarkError:
        raise
    except Exception as error:
        if not is_file(name):
            raise
        file = Path(name.rpartition(":")[0] or name)
        lines = [at.lineno for at in traceback.extract_tb(error.__traceback__) if Path(at.filename).name == file.name]
        place = f"{file}:{lines[-1]}" if lines else str(file)
        reason = printable(f"{type(error).__name__}: {error}".splitlines()[0])
        raise UsageError(f"model file {printable(place)} fails ({reason}); mend the file") from error
