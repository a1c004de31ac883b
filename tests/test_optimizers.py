"""Every optimizer goes on after a stop as if there had been none, moves what it is given, and says what it needs."""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hf_diffusion_kit.errors import CheckpointError, ConfigError
from hf_diffusion_kit.training import optimizers
from hf_diffusion_kit.training.optimizer_state import load_state, state_tensors
from hf_diffusion_kit.training.optimizers import Group
from hf_diffusion_kit.training.settings_optimizer import OptimizerSettings

BASE = OptimizerSettings(learning_rate=1e-2)
RATES = {"prodigy": 1.0}
HALF = {"prodigy": 45}
"""Steps before and after the stop, 3 for the others: it needs dozens to move its estimate, which is what must not be lost."""
NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(not importlib.util.find_spec(package), reason=f"{package} is not installed"))
    if (package := optimizers.EXTRAS.get(name))
    else name
    for name in optimizers.BUILDERS
]


def settings(name: str) -> OptimizerSettings:
    return replace(BASE, optimizer=name, learning_rate=RATES.get(name, 1e-2))  # type: ignore[arg-type]


def weights() -> dict[str, dict[str, nn.Parameter]]:
    """Two parts: a matrix and a convolution of more than 4096 values, the latter channels-last, a matrix that starts at 0 as an adapter
    does, one that lies turned in memory, a vector, and one that never has a gradient."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.randn(shape, generator=generator) / 10)

    conv = nn.Parameter(drawn(16, 32, 3, 3).data.to(memory_format=torch.channels_last))
    unet = {"wide": drawn(16, 300), "up.weight": nn.Parameter(torch.zeros(5, 4)), "conv.weight": conv, "idle": drawn(3, 3)}
    return {"unet": unet, "text_encoder": {"norm.bias": drawn(7), "turned": nn.Parameter(drawn(70, 80).data.t())}}


def groups(parts: dict[str, dict[str, nn.Parameter]], rate: float) -> list[Group]:
    return [Group(name, parameters, rate) for name, parameters in parts.items()]


def pull(
    parts: dict[str, dict[str, nn.Parameter]], step: int, scale: float = 1.0, learn: Sequence[str] = ("unet", "text_encoder")
) -> None:
    """Gradients that depend on the weights, so that one wrong bit spreads, and on the step."""
    generator = torch.Generator().manual_seed(step)
    for part, parameters in parts.items():
        for name, parameter in parameters.items():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.grad = None
            if name != "idle" and part in learn:
                # as backward leaves them: laid out as the weight is
                parameter.grad = torch.empty_like(parameter).copy_(scale * (parameter.detach() + 0.03 * noise))


def walk(optimizer: torch.optim.Optimizer, parts: dict[str, dict[str, nn.Parameter]], steps: range, **options: Any) -> None:
    for step in steps:
        pull(parts, step, **options)
        optimizers.set_rates(optimizer, dict.fromkeys(parts, 1 / (1 + step / 50)))
        optimizer.step()


def built(name: str) -> tuple[torch.optim.Optimizer, dict[str, dict[str, nn.Parameter]]]:
    parts, told = weights(), settings(name)
    optimizer = optimizers.build(told, groups(parts, told.learning_rate))
    optimizers.mode(optimizer, training=True)
    return optimizer, parts


def flat(parts: dict[str, dict[str, nn.Parameter]]) -> dict[str, Tensor]:
    return {f"{part}.{name}": p.detach().clone() for part, parameters in parts.items() for name, p in parameters.items()}


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As a checkpoint writes them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", NAMES)
def test_three_steps_a_file_and_three_steps_are_six_steps(name: str, tmp_path: Path) -> None:
    half = HALF.get(name, 3)
    whole, straight = built(name)
    walk(whole, straight, range(2 * half))

    first, before = built(name)
    walk(first, before, range(half))
    tensors, plain = state_tensors(first)
    save_file(contiguous(tensors), tmp_path / "optimizer.safetensors")
    save_file(contiguous(flat(before)), tmp_path / "weights.safetensors")
    (tmp_path / "state.json").write_text(json.dumps(plain))

    second, after = built(name)
    saved = load_file(tmp_path / "weights.safetensors")
    with torch.no_grad():
        for part, parameters in after.items():
            for key, parameter in parameters.items():
                parameter.copy_(saved[f"{part}.{key}"])
    load_state(second, load_file(tmp_path / "optimizer.safetensors"), json.loads((tmp_path / "state.json").read_text()))
    walk(second, after, range(half, 2 * half))

    for key, weight in flat(straight).items():
        assert torch.equal(flat(after)[key], weight), f"{key}: {(flat(after)[key] - weight).abs().max()}"
    (tensors, plain), (told, numbers) = state_tensors(whole), state_tensors(second)
    assert plain == numbers and tensors.keys() == told.keys()
    for key in tensors:
        assert torch.equal(tensors[key], told[key]) and tensors[key].stride() == told[key].stride(), key


@pytest.mark.parametrize("name", NAMES)
def test_each_optimizer_lowers_the_loss_of_every_part_that_has_gradients(name: str) -> None:
    optimizer, parts = built(name)
    goal = {key: weight + 0.05 for key, weight in flat(parts).items()}

    def losses() -> dict[str, float]:
        return {key: float((weight - goal[key]).square().sum()) for key, weight in flat(parts).items()}

    before = losses()
    optimizers.set_rates(optimizer, dict.fromkeys(parts, 1.0))
    for _ in range(150):
        for part, parameters in parts.items():
            for key, parameter in parameters.items():
                if key != "idle":
                    parameter.grad = torch.empty_like(parameter).copy_(1e-3 * (parameter.detach() - goal[f"{part}.{key}"]))
        optimizer.step()
    with optimizers.at_rest(optimizer):
        after = losses()
    for key in before:
        assert after[key] == before[key] if key.endswith("idle") else after[key] < before[key] / 2, key


@pytest.mark.parametrize("name", NAMES)
def test_a_part_without_gradients_keeps_every_bit(name: str) -> None:
    """After `text_encoder_stop_step` the text side stays in the optimizer; momentum must not carry it on."""
    optimizer, parts = built(name)
    walk(optimizer, parts, range(3))
    before = flat(parts)
    walk(optimizer, parts, range(3, 5), learn=("unet",))
    for key, weight in flat(parts).items():
        assert torch.equal(weight, before[key]) == (key.startswith("text_encoder") or key.endswith("idle")), key


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_those_of_the_run_and_not_of_the_checkpoint(name: str) -> None:
    first, parts = built(name)
    walk(first, parts, range(2))
    told = replace(settings(name), adam_weight_decay=0.5, learning_rate=0.7)
    second = optimizers.build(told, groups(parts, 0.7))
    load_state(second, *state_tensors(first))
    for group in second.param_groups:
        assert (group["weight_decay"], group["base_lr"], group["lr"]) == (0.5, 0.7, 0.7)


def test_another_optimizers_state_and_another_methods_are_refused() -> None:
    (first, parts), (other, _) = built("adamw"), built("adafactor")
    walk(first, parts, range(1))
    tensors, plain = state_tensors(first)
    with pytest.raises(CheckpointError, match="state of AdamW, not of Adafactor"):
        load_state(other, tensors, plain)
    alone = optimizers.build(settings("adamw"), groups({"unet": parts["unet"]}, 1e-2))
    with pytest.raises(CheckpointError, match=r"text_encoder\.norm\.bias, which is not trained here"):
        load_state(alone, tensors, plain)
    assert not alone.state
    with pytest.raises(CheckpointError, match="the groups unet, text_encoder, not unet"):
        load_state(alone, {}, {**plain, "numbers": {}})


@pytest.mark.parametrize("name", NAMES)
def test_a_model_may_change_its_memory_layout_between_steps(name: str) -> None:
    """The trainer turns the denoiser channels-last for speed and back for readers; kernels that walk raw memory must follow."""

    def run(layouts: Sequence[torch.memory_format]) -> Tensor:
        optimizer, parts = built(name)
        conv = parts["unet"]["conv.weight"]
        for step, layout in enumerate(layouts):
            conv.data = conv.data.to(memory_format=layout)
            walk(optimizer, parts, range(step, step + 1))
        return conv.detach().contiguous()

    wide, plain = torch.channels_last, torch.contiguous_format
    torch.testing.assert_close(run([wide, plain, plain, wide]), run([plain] * 4), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_leaves_every_weight_where_and_how_it_lay(name: str) -> None:
    """A resumed run has not taken the steps before; what it computes must not depend on layouts that they left behind."""
    optimizer, parts = built(name)

    def places() -> list[tuple[int, tuple[int, ...]]]:
        return [(p.data_ptr(), p.stride()) for parameters in parts.values() for p in parameters.values()]

    before = places()
    walk(optimizer, parts, range(2))
    assert places() == before


def test_gradients_that_lie_otherwise_than_their_weights_are_no_others() -> None:
    optimizer, parts = built("adamw")
    reference, same = built("adamw")
    for step in range(2):
        pull(parts, step)
        pull(same, step)
        conv = parts["unet"]["conv.weight"]
        conv.grad = conv.grad.contiguous() if conv.grad is not None else None
        optimizer.step()
        reference.step()
    assert torch.equal(parts["unet"]["conv.weight"], same["unet"]["conv.weight"])


def test_rates_are_base_rate_times_factor() -> None:
    parts = weights()
    made = [Group("unet", parts["unet"], 1e-3), Group("text_encoder", parts["text_encoder"], 1e-5)]
    optimizer = optimizers.build(BASE, made)
    optimizers.set_rates(optimizer, {"unet": 0.5, "text_encoder": 0.1})
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3 * 0.5, 1e-5 * 0.1]


def test_adamw_is_fused_and_its_numbers_are_the_plain_ones() -> None:
    optimizer, parts = built("adamw")
    same = weights()
    plain = torch.optim.AdamW([p for part in same.values() for p in part.values()], lr=1e-2, foreach=False)
    assert optimizer.defaults["fused"]
    for step in range(4):
        pull(parts, step)
        pull(same, step)
        optimizer.step()
        plain.step()
    for key, weight in flat(parts).items():
        torch.testing.assert_close(weight, flat(same)[key], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_adafactor_is_the_papers_with_steps_of_the_rate_also_for_small_gradients(scale: float) -> None:
    """transformers' Adafactor with `scale_parameter=False` is what others call Adafactor with a set rate."""
    from transformers.optimization import Adafactor

    optimizer, parts = built("adafactor")
    same = weights()
    reference = Adafactor(
        [p for part in same.values() for p in part.values()],
        lr=1e-2,
        weight_decay=1e-2,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )
    for step in range(5):
        pull(parts, step, scale)
        pull(same, step, scale)
        optimizer.step()
        reference.step()
    for key, weight in flat(parts).items():
        moved = (flat(weights())[key] - weight).abs().max()
        torch.testing.assert_close(weight, flat(same)[key], rtol=0, atol=float(moved) * 0.01)


def test_adafactor_survives_a_gradient_of_nothing_but_zeros() -> None:
    """The first step of an adapter: one of its two matrices is 0, so the other one's gradient is."""
    optimizer, parts = built("adafactor")
    before = flat(parts)
    for parameter in parts["unet"].values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, weight in flat(parts).items():
        torch.testing.assert_close(weight, before[key], rtol=1e-3, atol=0)


def test_schedule_free_weights_to_give_out_leave_no_trace() -> None:
    pytest.importorskip("schedulefree")
    optimizer, parts = built("schedulefree")
    with optimizers.at_rest(optimizer):
        assert optimizer.param_groups[0]["train_mode"] is False, "also before the first step"
    walk(optimizer, parts, range(3))
    before, (tensors, plain) = flat(parts), state_tensors(optimizer)
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    with pytest.raises(KeyError), optimizers.at_rest(optimizer):
        for key, inside in flat(parts).items():
            name = f"{key}.z"
            if name in tensors:  # y = 0.9 x + 0.1 z, so x = (y - 0.1 z) / 0.9
                assert not torch.equal(inside, before[key]) or key == "unet.up.weight"
                torch.testing.assert_close(inside, (before[key] - 0.1 * tensors[name]) / 0.9)
        raise KeyError("whatever happens inside")
    assert all(torch.equal(weight, before[key]) for key, weight in flat(parts).items())
    assert state_tensors(optimizer)[1] == plain
    optimizers.mode(optimizer, training=False)
    assert optimizer.param_groups[0]["train_mode"] is False
    with optimizers.at_rest(optimizer):
        assert optimizer.param_groups[0]["train_mode"] is False
    assert optimizer.param_groups[0]["train_mode"] is False


def test_prodigy_finds_a_rate_of_its_own_and_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("prodigyopt")
    optimizer, parts = built("prodigy")
    walk(optimizer, parts, range(90))
    assert optimizer.param_groups[0]["d"] > 10 * optimizer.param_groups[0]["d0"]
    assert capsys.readouterr() == ("", "")
    made = [Group("unet", parts["unet"], 1.0), Group("text_encoder", parts["text_encoder"], 0.5)]
    with pytest.raises(ConfigError, match=r"unet 1, text_encoder 0\.5"):
        optimizers.build(settings("prodigy"), made)


@pytest.mark.parametrize("name", optimizers.EXTRAS)
def test_a_missing_library_is_named_with_the_line_that_brings_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(ConfigError) as caught:
        optimizers.check(settings(name))
    assert f"{name} needs {optimizers.EXTRAS[name]}, which is not installed" in caught.value.line()
    assert f'pip install "hf-diffusion-kit[{name}]"' in caught.value.line()


def test_the_extras_are_those_of_the_project_file() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    for name, package in optimizers.EXTRAS.items():
        assert any(line.startswith(package) for line in project["optional-dependencies"][name])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"optimizer": "adam"}, "did you mean 'adamw'"),
        ({"adam_beta1": 1.0}, "adam_beta1: must be below 1"),
        ({"optimizer": "schedulefree", "adam_beta1": 0.0}, "must be above 0 for schedulefree"),
        ({"optimizer": "schedulefree", "ema_decay": 0.9}, "ema_decay: does not go with"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(wrong: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda package: package)
    with pytest.raises(ConfigError, match=said):
        optimizers.check(replace(BASE, **wrong))


def test_notes_say_what_plays_no_role_or_is_odd() -> None:
    assert not optimizers.notes(BASE)
    assert not optimizers.notes(settings("prodigy"))
    assert "wants learning_rate = 1.0; 0.0001 scales" in optimizers.notes(OptimizerSettings(optimizer="prodigy"))[0]
    assert "lr_scheduler = linear" in optimizers.notes(replace(BASE, optimizer="schedulefree", lr_scheduler="linear"))[0]
    assert "no use for adam_beta2" in optimizers.notes(replace(BASE, optimizer="adafactor", adam_beta2=0.9))[0]
