"""How far an answer is from its target, value by value. No mean is taken here.

`huber` and `smooth_l1` are sd-scripts' pseudo-Huber losses with a constant c (its default lets c fall with the noise level).
"""

from collections.abc import Callable

from torch import Tensor


def l2(difference: Tensor, c: float) -> Tensor:
    return difference.square()


def huber(difference: Tensor, c: float) -> Tensor:
    """2c (sqrt(d² + c²) - c): like l2 where d is small against c, like 2c|d| where it is large (Charbonnier et al. 1994)."""
    return c * smooth_l1(difference, c)


def smooth_l1(difference: Tensor, c: float) -> Tensor:
    """2 (sqrt(d² + c²) - c): like l2 divided by c where d is small, like 2|d| where it is large."""
    square = difference.square()
    return 2 * square / ((square + c * c).sqrt() + c)  # the difference of two near numbers would lose its digits


MEASURES: dict[str, Callable[[Tensor, float], Tensor]] = {"l2": l2, "huber": huber, "smooth_l1": smooth_l1}
