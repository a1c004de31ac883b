"""The moving average: diffusers' numbers, weights that come back to the bit, and a state that goes on where it stopped."""

from pathlib import Path

import pytest
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_diffusion_kit.errors import CheckpointError, ConfigError
from hf_diffusion_kit.training.ema import Ema, decay_at


def weights() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    conv = torch.randn(4, 3, 3, 3, generator=generator).to(memory_format=torch.channels_last)
    return {"unet.conv": nn.Parameter(conv), "unet.bias": nn.Parameter(torch.randn(5, generator=generator))}


def move(weights: dict[str, nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    with torch.no_grad():
        for weight in weights.values():
            weight += torch.randn(weight.shape, generator=generator)


def copies(tensors: dict[str, nn.Parameter] | dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9999])
def test_averages_and_decays_are_diffusers(decay: float) -> None:
    trained = weights()
    ours, theirs = Ema(trained, decay), EMAModel(trained.values(), decay=decay)
    for step in range(30):
        move(trained, step)
        used = decay_at(ours.updates, decay)
        ours.update()
        theirs.step(trained.values())
        assert used == theirs.cur_decay_value
    for mine, other in zip(ours.averages.values(), theirs.shadow_params, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_the_first_average_is_the_first_weight_and_a_long_one_is_the_mean() -> None:
    trained = weights()
    ema = Ema(trained, 0.99)
    move(trained, 0)
    ema.update()
    assert equal(ema.averages, copies(trained))
    with torch.no_grad():
        trained["unet.bias"].fill_(2.0)
    for _ in range(3000):
        ema.update()
    torch.testing.assert_close(ema.averages["unet.bias"], torch.full((5,), 2.0))


def test_inside_the_weights_are_the_averages_and_afterwards_nothing_has_happened() -> None:
    trained = weights()
    ema = Ema(trained, 0.9)
    for step in range(4):
        move(trained, step)
        ema.update()
    before, averages = copies(trained), copies(ema.averages)
    where = {name: weight.data_ptr() for name, weight in trained.items()}
    with pytest.raises(KeyError), ema.swapped():
        assert equal(copies(trained), averages) and not equal(averages, before)
        assert {name: weight.data_ptr() for name, weight in trained.items()} == where
        raise KeyError("whatever happens inside")
    assert equal(copies(trained), before) and equal(ema.averages, averages)
    assert all(weight.grad_fn is None and weight.requires_grad for weight in trained.values())


def test_stopped_and_gone_on_the_average_is_the_same_to_the_bit(tmp_path: Path) -> None:
    straight = weights()
    whole = Ema(straight, 0.9)
    for step in range(8):
        move(straight, step)
        whole.update()

    trained = weights()
    first = Ema(trained, 0.9)
    for step in range(3):
        move(trained, step)
        first.update()
    tensors, plain = first.state()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "ema.safetensors")
    second = Ema(trained, 0.9)
    second.load_state(load_file(tmp_path / "ema.safetensors"), plain)
    for step in range(3, 8):
        move(trained, step)
        second.update()
    assert equal(second.averages, whole.averages) and second.updates == whole.updates == 8


def test_given_out_once_they_are_there_for_good() -> None:
    trained = weights()
    ema = Ema(trained, 0.9)
    for step in range(3):
        move(trained, step)
        ema.update()
    averages = copies(ema.averages)
    ema.give_out()
    ema.give_out()
    assert equal(copies(trained), averages)
    with ema.swapped():
        assert equal(copies(trained), averages)
    assert equal(copies(trained), averages)


def test_a_new_start_forgets_what_was() -> None:
    trained = weights()
    ema = Ema(trained, 0.9)
    for step in range(3):
        move(trained, step)
        ema.update()
    ema.restart()
    assert ema.updates == 0 and equal(ema.averages, copies(trained))


def test_averages_of_other_weights_and_of_coarse_ones_are_refused() -> None:
    ema = Ema(weights(), 0.9)
    with pytest.raises(CheckpointError, match="other weights"):
        ema.load_state({"unet.conv": torch.zeros(4, 3, 3, 3)}, {"updates": 1})
    with pytest.raises(ConfigError, match="needs float32"):
        Ema({"unet.bias": nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))}, 0.9)
