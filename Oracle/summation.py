"""Arithmetic in the orders that the headers in `CKernels/include` document, to the last bit, in whole tensors.

Sums run over the last dimension. `product` is that of the numerics profile `bfloat16`; all else is float32.
"""

import torch
from torch.nn.functional import pad

BLOCK = 32  # terms of a product that are added apart from others
LANES = 16  # accumulators of other sums
# The polynomial for e^r and the two parts of ln 2, as `reference/math.h` has them.
EXPONENTIAL = [float.fromhex(digits) for digits in (
    "0x1.6a98dap-10", "0x1.126fd8p-7", "0x1.5558b6p-5", "0x1.55548ep-3", "0x1.fffff8p-2", "0x1p0", "0x1p0")]
LOG2E, LN2_HIGH, LN2_LOW = (float.fromhex(digits) for digits in ("0x1.715476p+0", "0x1.62e400p-1", "0x1.7f7d1cp-20"))


def fma(a, b, c):
    """a * b + c, rounded once; that the sum is rounded to float64 before never shows but by a rare accident."""
    return (torch.as_tensor(a).double() * torch.as_tensor(b).double() + torch.as_tensor(c).double()).float()


def rounded(x):
    return x.to(torch.bfloat16).float()


def product(x, weight):
    """x times the transposed weight, both rounded to BF16: in each block, even and odd terms are added apart."""
    def blocks(operand):
        return pad(rounded(operand), (0, -operand.shape[-1] % BLOCK)).unflatten(-1, (-1, BLOCK // 2, 2))

    x, weight = blocks(x).unsqueeze(-4), blocks(weight).unsqueeze(-5)
    # Products of BF16 numbers are exact in float32, so these are the bits of fused multiply-adds.
    chains = sum(x[..., pair, :] * weight[..., pair, :] for pair in range(BLOCK // 2))
    return sum(chains.sum(-1).unbind(-1))


def float32_product(x, weight):
    """As `product`, without rounding operands: one chain for each output."""
    out = torch.zeros(())
    for x_term, weight_term in zip(x.unbind(-1), weight.unbind(-1)):
        out = fma(x_term.unsqueeze(-1), weight_term, out)
    return out


def slices(width):
    """The number of parts of a sum that ranks may share, at most eight."""
    return min(8, width & -width)


def tree(parts):
    while len(parts) > 1:
        parts = [left + right for left, right in zip(parts[::2], parts[1::2])]
    return parts[0]


def sliced_products(x, weight):
    count = slices(x.shape[-1])
    return [product(*part) for part in zip(x.chunk(count, -1), weight.chunk(count, -1))]


def chain(x):
    return sum(x.unbind(-1))


def lanes_sum(x, add=lambda term, total: total + term):
    total = torch.zeros(())
    for terms in pad(x, (0, -x.shape[-1] % LANES)).unflatten(-1, (-1, LANES)).unbind(-2):
        total = add(terms, total)
    while total.shape[-1] > 1:
        total = total[..., : total.shape[-1] // 2] + total[..., total.shape[-1] // 2:]
    return total


def inverse_root_mean_square(x, epsilon):
    mean = lanes_sum(x, lambda term, total: fma(term, term, total)) / torch.tensor(float(x.shape[-1]))
    return 1 / sqrt(mean + torch.tensor(epsilon))


def layer_norm(x, weight, bias, epsilon):
    centered = x - lanes_sum(x) / torch.tensor(float(x.shape[-1]))
    return fma(weight, centered * inverse_root_mean_square(centered, epsilon), bias)


def exp(x):
    count = fma(x, LOG2E, 12582912.0) - 12582912.0  # of halvings; the addend rounds to a whole number
    rest = fma(count, -LN2_LOW, fma(count, -LN2_HIGH, x))
    power = torch.tensor(EXPONENTIAL[0])
    for coefficient in EXPONENTIAL[1:]:
        power = fma(power, rest, coefficient)
    return torch.where(x < -87.33, 0.0, (power.double() * torch.exp2(count.double())).float())


def sqrt(x):
    """Rounded to nearest, as `sqrtf` is: a float64 root has digits enough that the second rounding changes nothing. Where
    torch takes float32 roots from MKL, one in six is the neighbor."""
    return torch.sqrt(x.double()).float()


def log(x):
    return torch.log(x.double()).float()


def sigmoid(x):
    return 1 / (1 + exp(-x))


def silu(x):
    return x / (1 + exp(-x))


def softplus(x):
    return torch.where(x > 20, x, torch.log1p(exp(x).double()).float())


def rotation(first, second, cosine, sine):
    return fma(first, cosine, -(second * sine)), fma(first, sine, second * cosine)
