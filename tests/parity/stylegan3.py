"""What the parity tests of StyleGAN3-T and -R share."""

from __future__ import annotations

import dataclasses

import torch
from golden import Golden

from countermark.core.spec import Spec
from countermark.models.image.stylegan3 import generator, official_shape


@torch.no_grad()
def check(model: str, spec: Spec) -> None:
    """Styles and pictures equal the official ones, in place and transformed, and filters are designed alike."""
    golden = Golden(model, inputs=("z", "c", "transform"))
    settings = dataclasses.replace(spec.presets["ffhq1024"], **official_shape(golden.config["G"]))  # type: ignore[arg-type]
    assert spec.rename_official is not None
    G = generator(settings).eval()  # type: ignore[arg-type]
    designed = {key: taps.clone() for key, taps in G.state_dict().items() if key.endswith("_filter")}
    golden.load(G, "G.", spec.rename_official)
    for key, taps in designed.items():
        torch.testing.assert_close(taps, G.state_dict()[key], rtol=0, atol=1e-6)
    c = golden.io["c"] if golden.config["G"]["c_dim"] else None
    golden.check("ws_psi0p7", G.mapping(golden.io["z"], c, golden.config["truncation_psi"]))
    ws = golden.io["ws_psi0p7"]
    golden.check("img", G.synthesis(ws))
    G.synthesis.input.transform.copy_(golden.io["transform"])
    golden.check("img_transformed", G.synthesis(ws))
    assert not golden.unchecked
