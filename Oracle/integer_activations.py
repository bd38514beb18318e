"""Activations rounded to INT8 where they are multiplied by INT8 weights, as an engine that computes W8A8 does."""

import pathlib
import re

import torch
from safetensors import safe_open
from torch.overrides import TorchFunctionMode

BLOCK = 128  # columns of one scale, in checkpoints with a scale per block
EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")


def slices(name, width):
    """The number of K-slices of a sum that ranks may share: each has scales of its own."""
    if not name.endswith(("o_proj.weight", "down_proj.weight", ".down_proj")):
        return 1
    return min(8, width & -width)


class IntegerActivations(TorchFunctionMode):
    """Sees every product of `model`, which has the weights of a W8A8 checkpoint in float32, while it is entered.

    Where the checkpoint has a scale and an offset for all tokens (`input_scale`, `input_offset`), activations become the
    nearest of the 256 integers around the offset. Otherwise, in each row and segment of a product's terms (a K-slice, or a block of 128 columns in it), activations become the
    nearest of 255 multiples of 1/127 of the largest magnitude. `kv_b_proj` is not among these products: attention in latent
    space multiplies it by queries, which are not rounded. `closest[row]` is how close the row's numbers came to the
    middle between two multiples, in steps: another order of summation may round to the other one, and both are right.
    """

    def __init__(self, model, directory):
        super().__init__()
        self.closest = {}
        self._products, self._hooks, self._rows, self._tokens = {}, [], None, None
        parameters = dict(model.named_parameters())
        for path in sorted(pathlib.Path(directory).glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                for name in file.keys():
                    if file.get_slice(name).get_dtype() == "I8":
                        fixed = [name.removesuffix("weight") + end for end in ("input_scale", "input_offset")]
                        fixed = [file.get_tensor(part).item() for part in fixed] if fixed[0] in file.keys() else None
                        self._add(parameters, name, name + "_scale_inv" in file.keys(), fixed)
        for block in model.model.layers:
            if hasattr(block.mlp, "experts"):
                self._hooks.append(block.mlp.experts.register_forward_pre_hook(self._enter_experts))

    def _add(self, parameters, name, has_blocks, fixed):
        expert = EXPERT.fullmatch(name)
        if expert:
            prefix, number, part = expert.groups()
            name = f"{prefix}.{'down_proj' if part == 'down' else 'gate_up_proj'}"
            weight = parameters.get(name)
            weight = None if weight is None else weight[int(number)]
        else:
            weight = parameters.get(name)
        if weight is None or name.endswith("kv_b_proj.weight"):
            return  # of a next-token block, or see above
        self._products[weight.data_ptr()] = (slices(name, weight.shape[-1]), has_blocks, fixed)

    def _enter_experts(self, module, arguments):
        self._tokens = arguments[0].reshape(-1, arguments[0].shape[-1])

    def __exit__(self, *exception):
        for hook in self._hooks:
            hook.remove()
        return super().__exit__(*exception)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.linear and args[1].data_ptr() in self._products:
            with torch._C.DisableTorchFunction():
                args = (self._rounded(args[0], *self._products[args[1].data_ptr()]), *args[1:])
        return function(*args, **(kwargs or {}))

    def _fixed(self, x, scale, offset):
        flat = x.reshape(-1, x.shape[-1])
        steps = flat * (1 / torch.tensor(scale)) + offset
        inside = (steps > -128) & (steps < 127)
        distance = torch.where(inside, (steps - steps.floor() - 0.5).abs(), 0.5).amin(-1)
        self._note(flat, distance)
        return ((steps.clamp(-128, 127).round() - offset) * scale).reshape(x.shape)

    def _rounded(self, x, count, has_blocks, fixed):
        if fixed:
            return self._fixed(x, *fixed)
        flat, width = x.reshape(-1, x.shape[-1]), x.shape[-1] // count
        ends = {width * (i + 1) for i in range(count)} | (set(range(BLOCK, x.shape[-1], BLOCK)) if has_blocks else set())
        parts, first, distance = [], 0, torch.full((len(flat),), torch.inf)
        for end in sorted(ends):
            part = flat[:, first:end]
            largest = part.abs().amax(-1, keepdim=True)
            steps = torch.where(largest > 0, part * (127 / largest), 0)
            parts.append(steps.round() * (largest / 127))
            distance = torch.minimum(distance, (steps - steps.floor() - 0.5).abs().amin(-1))
            first = end
        self._note(flat, distance)
        return torch.cat(parts, -1).reshape(x.shape)

    def _note(self, flat, distance):
        tokens = self._tokens
        rows, self._rows = self._rows, None
        if tokens is not None and flat.shape[-1] == tokens.shape[-1] and len(flat) <= len(tokens):
            # An expert gets some of the tokens; its second product has the rows of the first.
            same = (flat.unsqueeze(1) == tokens.unsqueeze(0)).all(-1)
            if same.any(-1).all():
                rows = self._rows = same.int().argmax(-1).tolist()
        if rows is None or len(rows) != len(flat):
            rows = range(len(flat))
        for row, gap in zip(rows, distance.tolist()):
            self.closest[row] = min(self.closest.get(row, torch.inf), gap)

    def closest_up_to(self, rows):
        """For each row, the smallest distance in it and in all rows before it."""
        worst, smallest = [], torch.inf
        for row in range(rows):
            smallest = min(smallest, self.closest.get(row, torch.inf))
            worst.append(smallest)
        return worst
