"""A key/value cache that rounds what it is given once, when it is stored, as an engine with an FP8 cache does."""

import itertools

import torch
from transformers import DynamicCache

E4M3_MAX = 448.0
LATENT_GROUP = 128  # columns of a latent that share a scale; an index key has one scale


class RoundedCache(DynamicCache):
    """Latents in E4M3 with a scale per group, rotary keys in BF16, index keys rotated and in E4M3 with one scale.

    `closest` is, by position, how near a value came to where it would have been rounded to another number, relative to
    the largest value it shares its scale (or, in BF16, its row) with: an engine whose sums differ by that much may keep
    another number.
    """

    def __init__(self, config):
        super().__init__(config=config)
        self.closest = {}

    def closest_up_to(self, rows):
        """For each position, the smallest distance at it and at all before it: what its result may hang on."""
        return list(itertools.accumulate((self.closest[row] for row in range(rows)), min))

    def update(self, latents, rotary, layer, *arguments, **options):
        first = self.get_seq_length(layer)
        kept = self._fp8(latents, LATENT_GROUP, first), self._bf16(rotary, first)
        return super().update(*kept, layer, *arguments, **options)

    def update_indexer(self, keys, layer, *arguments, **options):
        # Turned back, so that queries may stay as they are: q . Ht k = Hq . k.
        rows, width = keys.shape[-2:]
        rotation = hadamard(width) if width & (width - 1) == 0 else torch.eye(width)
        kept = self._fp8(keys @ rotation, width, self.get_seq_length(layer) - rows) @ rotation
        return super().update_indexer(kept, layer, *arguments, **options)

    def _fp8(self, x, group, first):
        return torch.cat([self._fp8_group(part, first) for part in x.split(group, -1)], -1)

    def _fp8_group(self, x, first):
        largest = x.abs().amax(-1, keepdim=True).clamp(min=1e-4)
        scale = largest / E4M3_MAX
        scaled = (x / scale).clamp(-E4M3_MAX, E4M3_MAX)
        kept = scaled.to(torch.float8_e4m3fn).float()
        # Numbers are 1/8 of their power of two apart, and the smallest of them 2^-9.
        step = torch.exp2(torch.frexp(scaled).exponent - 4.0).clamp(min=2.0**-9)
        self._note(((scaled - kept).abs() - step / 2).abs() / E4M3_MAX, first)
        return kept * scale

    def _bf16(self, x, first):
        kept = x.to(torch.bfloat16).float()
        step = torch.exp2(torch.frexp(x).exponent - 8.0)
        self._note(((x - kept).abs() - step / 2).abs() / x.abs().amax(-1, keepdim=True), first)
        return kept

    def _note(self, distances, first):
        rows = distances.reshape(-1, *distances.shape[-2:]).amin((0, 2)).tolist()
        for position, distance in enumerate(rows, first):
            self.closest[position] = min(distance, self.closest.get(position, float("inf")))


def hadamard(width):
    """The symmetric orthogonal matrix of Sylvester's construction."""
    matrix = torch.ones(1, 1)
    while len(matrix) < width:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)], 0)
    return matrix / width**0.5
