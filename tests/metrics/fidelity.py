"""torch-fidelity, the reference for the metrics, with or without a torchvision that fits the torch installed."""

import importlib
import sys
import types

# What torch-fidelity names of torchvision when it is imported; none of it takes part in the metrics.
_NAMED_AT_IMPORT = {
    "torchvision": (),
    "torchvision.datasets": ("CIFAR10", "CIFAR100", "STL10"),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": (),
}


def import_fidelity(module: str) -> types.ModuleType:
    """`torch_fidelity.<module>`."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError):  # absent, or built for another torch: there is no build for every CPU
        _stand_in()
    return importlib.import_module(f"torch_fidelity.{module}")


def _stand_in() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    for name, classes in _NAMED_AT_IMPORT.items():
        module = types.ModuleType(name)
        for class_name in classes:
            setattr(module, class_name, type(class_name, (), {}))
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
