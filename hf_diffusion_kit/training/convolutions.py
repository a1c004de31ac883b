"""Convolutions on a CPU: how their weights lie, and those that are better taken as a product of matrices.

These are frozen 3 by 3 ones where a picture has become small and its channels many. oneDNN reorders the weights at every call, which
costs more than the arithmetic: at 4 x 4 places and 2560 channels it takes 50 ms forward and 80 back, a product of matrices 21 and 25. Nor
does a frozen layer need its input on the way back, which torch keeps.

Shape suffixes: B batch, C channels in, O channels out, H W height and width, K = 9 C a window, P = B H W places.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import pad

from ..families.base import trim_memory

MOST_PLACES = 64
"""Of a batch; with more the convolution itself is as fast (measured at 256, in bfloat16 and float32)."""
FEWEST_WEIGHTS = 1 << 22
"""Of the kernel, 9 C O; smaller ones are cheap either way."""
TRIM_BYTES = 1 << 26
"""Weights laid out anew between two times that what they left goes back to the system."""


def turn(model: nn.Module, form: torch.memory_format) -> None:
    """Lays the weights of convolutions out anew, a layer at a time. What they leave behind is too cut up for glibc to use again: of
    SD1.5's U-Net 0.7 GB that would be the peak of a run's memory."""
    freed = 0
    for module in model.modules():
        own = [p for p in module.parameters(recurse=False) if p.dim() == 4]
        if own and not all(p.is_contiguous(memory_format=form) for p in own):
            module.to(memory_format=form)  # type: ignore[call-overload]
            freed += sum(p.nbytes for p in own)
            if freed > TRIM_BYTES:
                freed = 0
                trim_memory()


class Frozen(torch.autograd.Function):
    """A 3 by 3 convolution with a margin of one, as a product of matrices. The kernel gets no gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, x_BCHW: Tensor, kernel_OC33: Tensor) -> Tensor:
        batch, channels, height, width = x_BCHW.shape
        ctx.save_for_backward(kernel_OC33)
        ctx.shape = x_BCHW.shape  # type: ignore[attr-defined]
        padded = pad(x_BCHW.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
        b, h, w, c = padded.stride()
        windows_PK = padded.as_strided((batch, height, width, 3, 3, channels), (b, h, w, h, w, c)).reshape(-1, 9 * channels)
        return (windows_PK @ flat(kernel_OC33).T).view(batch, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BOHW: Tensor) -> tuple[Tensor, None]:
        (kernel_OC33,) = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        grad_PO = grad_BOHW.permute(0, 2, 3, 1).reshape(batch * height * width, -1)
        windows = (grad_PO @ flat(kernel_OC33)).view(batch, height, width, 3, 3, channels)
        sums = torch.promote_types(windows.dtype, torch.float32)
        padded = windows.new_zeros((batch, height + 2, width + 2, channels), dtype=sums)
        for down in range(3):
            for right in range(3):
                padded[:, down : down + height, right : right + width] += windows[:, :, :, down, right]
        return padded[:, 1:-1, 1:-1].to(grad_BOHW.dtype).permute(0, 3, 1, 2), None


def flat(kernel_OC33: Tensor) -> Tensor:
    """kernel_OK; no copy where the kernel lies channels last."""
    return kernel_OC33.permute(0, 2, 3, 1).reshape(len(kernel_OC33), -1)


def fits(x: Tensor, kernel: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    return (
        kernel.shape[2:] == (3, 3)
        and kernel.numel() >= FEWEST_WEIGHTS
        and x.dim() == 4
        and x.numel() <= MOST_PLACES * x.shape[1]
        and not kernel.requires_grad
        and (bias is None or not bias.requires_grad)
        and (tuple(stride), tuple(dilation), groups) == ((1, 1), (1, 1), 1)
        and padding in ((1, 1), [1, 1])
    )


def convolved(x_BCHW: Tensor, kernel_OC33: Tensor, bias_O: Tensor | None) -> Tensor:
    """What `conv2d` answers where it `fits`, within autocast too."""
    if torch.is_autocast_enabled("cpu"):
        x_BCHW, kernel_OC33 = (one.to(torch.get_autocast_dtype("cpu")) for one in (x_BCHW, kernel_OC33))
    y_BOHW: Tensor = Frozen.apply(x_BCHW, kernel_OC33)
    return y_BOHW if bias_O is None else y_BOHW + bias_O.to(y_BOHW.dtype)[:, None, None]
