from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, scaled_dot_product_attention

from hf_diffusion_kit.training import convolutions, on_cpu
from hf_diffusion_kit.training.convolutions import Frozen, turn
from hf_diffusion_kit.training.on_cpu import checkpointed, faster

CPU = torch.device("cpu")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Kernels of toys count as large; how many convolutions were taken as products."""
    monkeypatch.setattr(convolutions, "FEWEST_WEIGHTS", 1)
    taken: list[int] = []
    whole = Frozen.forward

    def counted(ctx: object, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        taken.append(len(x))
        return whole(ctx, x, kernel)

    monkeypatch.setattr(Frozen, "forward", staticmethod(counted))
    yield taken


def layer(dtype: torch.dtype = torch.float32, **more: int) -> nn.Conv2d:
    torch.manual_seed(0)
    made = nn.Conv2d(24, 16, 3, padding=1, **more).to(dtype).requires_grad_(False)
    return made.to(memory_format=torch.channels_last)


def test_gradient_is_that_of_the_product() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(6, 3, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: Frozen.apply(x, kernel), (x,))
    torch.testing.assert_close(Frozen.apply(x, kernel), conv2d(x, kernel, padding=1))


@pytest.mark.parametrize(("dtype", "auto", "near"), [(torch.float32, False, 1e-5), (torch.bfloat16, True, 2e-2)])
@pytest.mark.parametrize(("batch", "side"), [(1, 8), (4, 4), (1, 1)])
def test_same_answer_and_gradient(few: list[int], dtype: torch.dtype, auto: bool, near: float, batch: int, side: int) -> None:
    conv, answers = layer(dtype), []
    for small in (False, True):
        torch.manual_seed(1)
        x = torch.randn(batch, 24, side, side, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=auto):
            y = conv(x) if not small else inside(conv, x)
        y.float().square().sum().backward()
        answers.append((y.detach().float(), x.grad))
    assert few == [batch]
    for plain, product in zip(*answers, strict=True):
        torch.testing.assert_close(plain, product, atol=near * float(plain.abs().max()), rtol=0)


def inside(conv: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with faster(CPU):
        return conv(x)


def test_the_way_back_keeps_no_input(few: list[int]) -> None:
    x, kept = torch.randn(1, 24, 4, 4, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.shape), lambda one: one):
        inside(layer(), x * 1.0)
    assert x.shape not in kept and few == [1]


def test_others_are_left_alone(few: list[int]) -> None:
    x = torch.randn(1, 24, 8, 8)
    learning = layer().requires_grad_(True)
    wide = torch.randn(1, 24, 9, 8)
    for conv, given in [(learning, x), (layer(), wide), (layer(stride=2), x), (layer(groups=8), x)]:
        torch.testing.assert_close(inside(conv, given), conv(given), rtol=0, atol=0)
    assert few == []


def test_toys_are_below_the_threshold() -> None:
    x = torch.randn(1, 24, 4, 4)
    torch.testing.assert_close(inside(layer(), x), layer()(x), rtol=0, atol=0)


def test_weights_turn_and_stay_the_same() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Linear(4, 4), nn.Sequential(nn.Conv2d(8, 4, 1)))
    before = {name: (id(p), p.detach().clone()) for name, p in model.named_parameters()}
    turn(model, torch.channels_last)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last) and not model[0].weight.is_contiguous()
    turn(model, torch.contiguous_format)
    assert model[0].weight.is_contiguous()
    for name, p in model.named_parameters():
        assert id(p) == before[name][0] and torch.equal(p, before[name][1])


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("units", [False, True])
def test_attention_in_bfloat16_is_summed_in_float32(monkeypatch: pytest.MonkeyPatch, named: bool, units: bool) -> None:
    monkeypatch.setattr(on_cpu, "has_matrix_units", lambda: units)
    torch.manual_seed(0)
    told = {name: torch.randn(1, 2, 32, 8).bfloat16() for name in ("query", "key", "value")}
    mask = torch.randn(32, 32).bfloat16()
    exact = scaled_dot_product_attention(*(one.float() for one in told.values()), mask.float()).bfloat16()
    with faster(CPU), torch.autocast("cpu", torch.bfloat16):
        asked = told if named else {}
        answer = scaled_dot_product_attention(*(() if named else told.values()), **asked, attn_mask=mask)
    assert answer.dtype == torch.bfloat16
    assert torch.equal(answer, exact) is not units


def test_on_other_devices_torch_is_asked_as_ever() -> None:
    with faster(torch.device("meta")):
        assert not torch.overrides._get_current_function_mode_stack()
    with faster(CPU):
        assert len(torch.overrides._get_current_function_mode_stack()) == 1


def test_checkpointed_layers_are_computed_anew_by_the_same_ways(few: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_cpu, "has_matrix_units", lambda: False)
    conv, grads = layer(torch.bfloat16), []

    def layers(x: torch.Tensor) -> torch.Tensor:
        heads = conv(x).flatten(2).transpose(1, 2)[:, None]
        return scaled_dot_product_attention(heads, heads, heads)

    for again in (False, True):
        torch.manual_seed(0)
        x = torch.randn(1, 24, 4, 4).bfloat16().requires_grad_()
        with faster(CPU), torch.autocast("cpu", torch.bfloat16):
            y = checkpointed(layers, x) if again else layers(x)
            loss = y.float().square().sum()
        loss.backward()
        grads.append(x.grad)
    assert torch.equal(*grads) and len(few) == 3
