import torch

from hf_diffusion_kit.training.randomness import number, reseed


def test_layers_draw_as_after_manual_seed() -> None:
    seed, drawn = number(7, "dropout", 3), []
    with torch.random.fork_rng(devices=[]):
        for sow in (torch.manual_seed, lambda told: reseed(torch.device("cpu"), told)):
            sow(seed)
            drawn.append(torch.nn.functional.dropout(torch.ones(64), 0.5))
    assert torch.equal(*drawn) and 0 < int((drawn[0] == 0).sum()) < 64
