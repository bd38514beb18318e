"""transformers' modules computing as the numerics profile `bfloat16` does: operands of products rounded to BF16, all else in
float32, every sum in its documented order. A number that another order would round to its other neighbor changes
logprobs by as much as all rounding does, so without the orders nothing beyond the first rows could be compared."""

import contextlib
import functools
import math
import sys
from unittest import mock

import torch
from torch.nn.functional import linear, pad
from torch.overrides import TorchFunctionMode

import reference
import summation
from summation import exp, fma, product, rounded

CLASSES = (0, 4, 2, 6, 1, 5, 3, 7)  # of keys, by position modulo 8, in the order in which they are merged
# Linear layers that stay in float32. Routers and the mixes of V4's streams do, too.
FLOAT32 = ("lm_head", "weights_proj")
# Linear layers whose terms ranks may share.
SLICED = ("o_proj", "o_b_proj", "down_proj")


class BFloat16Profile(TorchFunctionMode):
    """Replaces what `model` computes while it is entered, once."""

    def __init__(self, model):
        super().__init__()
        self._latents, self._is_scoring, self._gates, self._weights = {}, False, None, None
        self._patches = contextlib.ExitStack()
        self._functions = {
            linear: self._linear, torch.bmm: lambda x, weight: product(x, weight.transpose(-1, -2)),
            torch.matmul: self._matmul, torch.Tensor.softmax: self._softmax, torch.Tensor.mul: self._multiply,
            torch.nn.functional.silu: lambda x, inplace=False: summation.silu(x),
            torch.Tensor.cos: lambda x: torch.cos(x.double()).float(),
            torch.Tensor.sin: lambda x: torch.sin(x.double()).float()}
        self._products = {}
        for name, module in model.named_modules():
            self._replace(name, module)
        modeling = sys.modules[type(model).__module__]
        rotate = last_interleaved if reference.is_v4(model) else halves
        for name, own in (("eager_attention_forward", self._attention), ("apply_rotary_pos_emb", rotate),
                          ("apply_rotary_pos_emb_interleave", interleaved)):
            if hasattr(modeling, name):
                self._patches.enter_context(mock.patch.object(modeling, name, own))

    def _replace(self, name, module):
        own, kind = None, type(module).__name__
        if isinstance(module, torch.nn.Linear):
            self._products[module.weight.data_ptr()] = (
                summation.float32_product if name.endswith(FLOAT32)
                else (lambda x, weight: summation.tree(summation.sliced_products(x, weight))) if name.endswith(SLICED)
                else product)
        if kind.endswith("RMSNorm"):
            own = rms_norm
        elif kind.endswith("LayerNorm"):
            own = lambda norm, x: summation.layer_norm(x, norm.weight, norm.bias, norm.eps)
        elif kind.endswith("HyperConnection"):
            own = stream_mixes
        elif kind.endswith("HyperHead"):
            own = head_mix
        elif kind == "DeepseekV4DecoderLayer":
            own = stream_layer
        elif name.endswith(".experts"):
            own = experts_output
        elif name.endswith("mlp.gate"):
            self._products[module.weight.data_ptr()] = summation.float32_product
            self._patches.callback(module.register_forward_hook(router_weights).remove)
        elif name.endswith(".indexer"):
            self._patches.callback(module.register_forward_pre_hook(self._enter_indexer).remove)
        elif name.endswith(".kv_b_proj"):
            self._patches.callback(module.register_forward_pre_hook(self._keep_latents).remove)
        if own:
            self._patches.enter_context(mock.patch.object(module, "forward", functools.partial(own, module)))

    def __exit__(self, *exception):
        self._patches.close()
        return super().__exit__(*exception)

    def _enter_indexer(self, module, arguments):
        self._is_scoring = True

    def _keep_latents(self, module, arguments):
        self._latents[module] = arguments[0]

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return self._functions.get(function, function)(*args, **(kwargs or {}))

    def _linear(self, x, weight, bias=None):
        return self._products[weight.data_ptr()](x, weight)

    def _matmul(self, x, y):
        # The first of an indexer's products; in the other one, head weights are not rounded.
        is_score, self._is_scoring = self._is_scoring, False
        return product(x, y.transpose(-1, -2)) if is_score else torch.matmul(x, y)

    def _softmax(self, gates, dim, dtype=None):
        """Of a compressor: what it multiplies next becomes its entry at once."""
        self._gates, self._weights = gates, gates.softmax(dim, dtype=dtype)
        return self._weights

    def _multiply(self, values, weights):
        if self._weights is None or weights is not self._weights:
            return values * weights
        return compressed(values, self._gates).unsqueeze(2)

    def _attention(self, module, query, key, value, mask, scaling, **_):
        tokens, scaling = query.shape[2], softmax_scale(query.shape[-1], scaling)
        if hasattr(module, "sinks"):
            width = key.shape[-1] - module.config.qk_rope_head_dim
            values, sums = attended(query, key[:, :, :tokens], key[:, :, :tokens], width, mask[..., :tokens], scaling)
            if key.shape[2] > tokens:
                of_entries = attended(
                    query, key[:, :, tokens:], key[:, :, tokens:], width, mask[..., tokens:], scaling)
                values, sums = merged((values, sums), of_entries)
            values = values * (1 / (1 + exp(module.sinks.view(1, -1, 1, 1) - sums)))
            return values.transpose(1, 2).contiguous(), None
        nope, up = module.qk_nope_head_dim, module.kv_b_proj
        latents, heads = self._latents[up], up.weight.view(module.num_heads, -1, up.in_features)
        query = torch.cat([product(query[..., :nope], heads[:, :nope].transpose(1, 2)), query[..., nope:]], -1)
        key = torch.cat([latents, key[:, :1, :, nope:]], -1)
        values = product(attended(query, key, latents, latents.shape[-1], mask, scaling)[0], heads[:, nope:])
        return values.transpose(1, 2).contiguous(), None


def softmax_scale(width, scaling):
    """The scale made of float32 numbers; besides the width it has the square of YaRN's factor."""
    factor = torch.tensor(math.sqrt(scaling * math.sqrt(width)))
    return 1 / summation.sqrt(torch.tensor(float(width))) * (factor * factor)


def attended(query, key, value, width, mask, scaling):
    """(sums of values, logarithms of sums of exponentials). The part of keys after `width` columns begins a block."""
    def parts(x):
        return torch.cat([pad(x[..., :width], (0, -width % summation.BLOCK)), x[..., width:]], -1)

    scores = product(parts(query), parts(key)) * scaling
    seen = (mask > torch.finfo(torch.float32).min / 2).expand_as(scores)
    classes = [attended_class(scores[..., first::8], seen[..., first::8], value[0, 0, first::8]) for first in CLASSES]
    while len(classes) > 1:
        classes = [merged(left, right) for left, right in zip(classes[::2], classes[1::2])]
    return classes[0]


def attended_class(scores, seen, values):
    # The keys that a row sees come first, so that they fill the blocks of a sum.
    count = int(seen.sum(-1).max()) if seen.numel() else 0
    order = torch.sort((~seen).int(), stable=True).indices[..., :count]
    scores, seen, values = scores.gather(-1, order), seen.gather(-1, order), values[order]
    if not count:
        nothing = torch.zeros(*scores.shape[:-1], 1)
        return nothing * torch.zeros(values.shape[-1]), nothing - torch.inf
    largest = scores.masked_fill(~seen, -torch.inf).amax(-1, keepdim=True)
    exponentials = torch.where(seen, exp(torch.where(seen, scores - largest, 0.0)), 0.0)
    total = summation.lanes_sum(exponentials)
    sums = product(exponentials.unsqueeze(-2), values.transpose(-1, -2)).squeeze(-2) * (1 / total)
    is_empty = largest == -torch.inf
    return torch.where(is_empty, 0.0, sums), torch.where(is_empty, -torch.inf, largest + summation.log(total))


def merged(left, right):
    largest = torch.maximum(left[1], right[1])
    is_empty = largest == -torch.inf
    weights = [torch.where(part == -torch.inf, 0.0, exp(part - largest)) for part in (left[1], right[1])]
    total = weights[0] + weights[1]
    values = fma(weights[1] / total, right[0], (weights[0] / total) * left[0])
    return torch.where(is_empty, 0.0, values), torch.where(is_empty, -torch.inf, largest + summation.log(total))


def rms_norm(norm, x):
    epsilon = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps
    normed = x * summation.inverse_root_mean_square(x, epsilon)
    return norm.weight * normed if hasattr(norm, "weight") else normed


def rotated(x, cosine, sine):
    return torch.stack(summation.rotation(x[..., 0::2], x[..., 1::2], cosine, sine), -1).flatten(-2)


def interleaved(query, key, cosine, sine, position_ids=None, unsqueeze_dim=1):
    cosine, sine = (part.chunk(2, -1)[0].unsqueeze(unsqueeze_dim) for part in (cosine, sine))
    return rotated(query, cosine, sine), rotated(key, cosine, sine)


def halves(query, key, cosine, sine, unsqueeze_dim=1):
    cosine, sine = (part.chunk(2, -1)[0].unsqueeze(unsqueeze_dim) for part in (cosine, sine))
    return tuple(torch.cat(summation.rotation(*x.chunk(2, -1), cosine, sine), -1) for x in (query, key))


def last_interleaved(x, cosine, sine, unsqueeze_dim=1):
    plain, rotary = x.split([x.shape[-1] - 2 * cosine.shape[-1], 2 * cosine.shape[-1]], -1)
    return torch.cat([plain, rotated(rotary, cosine.unsqueeze(unsqueeze_dim), sine.unsqueeze(unsqueeze_dim))], -1)


def router_weights(router, arguments, output):
    logits, _, experts = output
    experts = experts.sort(-1).values
    sigmoid = not hasattr(router, "score_fn")
    scores = summation.sigmoid(logits) if sigmoid else summation.sqrt(summation.softplus(logits))
    scores = scores.gather(1, experts)
    return logits, scores / (summation.chain(scores).unsqueeze(-1) + 1e-20) * router.routed_scaling_factor, experts


def experts_output(module, x, chosen, weights):
    """The router's weights are multiplied before activations are rounded; groups of experts and slices make a tree."""
    groups = summation.slices(len(module.down_proj))
    leaves = torch.zeros(groups, summation.slices(module.down_proj.shape[-1]), *x.shape)
    for expert in chosen.unique().tolist():
        rows, places = torch.where(chosen == expert)
        inner = module._apply_gate(product(x[rows], module.gate_up_proj[expert])) * weights[rows, places, None]
        group = expert // (len(module.down_proj) // groups)
        leaves[group][:, rows] += torch.stack(summation.sliced_products(inner, module.down_proj[expert]))
    return summation.tree(list(leaves.flatten(0, 1)))


def compressed(values, gates):
    exponentials = exp(gates - gates.amax(2, keepdim=True))
    out = torch.zeros(())
    for exponential, value in zip(exponentials.unbind(2), values.unbind(2)):
        out = fma(exponential, value, out)
    return out / summation.chain(exponentials.movedim(2, -1))


def mixes(streams, weight, epsilon):
    flat = streams.flatten(2)
    return summation.float32_product(flat, weight) * summation.inverse_root_mean_square(flat, epsilon)


def read(streams, factors):
    out = factors[..., :1] * streams[..., 0, :]
    for stream in range(1, streams.shape[2]):
        out = fma(factors[..., stream: stream + 1], streams[..., stream, :], out)
    return out


def stream_mixes(module, streams):
    count, epsilon = module.hc_mult, module.hc_eps
    products = mixes(streams, module.fn, module.input_norm.eps)
    scales = module.scale.repeat_interleave(torch.tensor([count, count, count * count]))
    reads, writes, mix = (products * scales + module.base).split([count, count, count * count], -1)
    mix = mix.unflatten(-1, (count, count))
    mix = exp(mix - mix.amax(-1, keepdim=True))
    mix = mix / summation.chain(mix).unsqueeze(-1) + epsilon
    for turn in range(2 * module.hc_sinkhorn_iters - 1):
        sums = summation.chain(mix.transpose(-1, -2)).unsqueeze(-2) if turn % 2 == 0 else summation.chain(mix).unsqueeze(-1)
        mix = mix / (sums + epsilon)
    return 2 * summation.sigmoid(writes), mix, read(streams, summation.sigmoid(reads) + epsilon)


def head_mix(module, streams):
    products = mixes(streams, module.hc_fn, module.input_norm.eps)
    return read(streams, summation.sigmoid(products * module.hc_scale + module.hc_base) + module.eps)


def stream_layer(layer, streams, input_ids=None, **options):
    def written(streams, output, writes, mix):
        out = writes.unsqueeze(-1) * output.unsqueeze(-2)
        for stream in range(streams.shape[2]):
            out = fma(mix[..., stream, :].unsqueeze(-1), streams[..., stream, :].unsqueeze(-2), out)
        return out

    writes, mix, x = layer.attn_hc(streams)
    streams = written(streams, layer.self_attn(layer.input_layernorm(x), **options)[0], writes, mix)
    writes, mix, x = layer.ffn_hc(streams)
    return written(streams, layer.mlp(layer.post_attention_layernorm(x), input_ids=input_ids), writes, mix)
