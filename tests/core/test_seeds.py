import torch

from countermark.core.seeds import derive, generator, latents


def test_streams_repeat_and_differ_by_every_name() -> None:
    seeds = {derive(0, "a", 1), derive(0, "a", 2), derive(1, "a", 1), derive(0, "b", 1), derive(0, "a", 11)}
    assert len(seeds) == 5
    assert derive(0, "a", 1) == derive(0, "a", 1)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert torch.equal(torch.rand(3, generator=generator(5, "x")), torch.rand(3, generator=generator(5, "x")))


def test_a_seed_s_latent_does_not_depend_on_its_neighbours() -> None:
    assert torch.equal(latents([3, 9], 16)[1], latents([9], 16)[0])
    z = latents(range(2000), 8)
    assert z.mean().abs() < 0.03
    assert (z.std() - 1).abs() < 0.03
