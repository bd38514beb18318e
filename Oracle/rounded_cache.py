"""A key/value cache that rounds what it is given once, when it is stored, as an engine with an FP8 cache does."""

import itertools

import torch
from transformers import DynamicCache

E4M3_MAX = 448.0
LATENT_GROUP = 128  # columns of a latent that share a scale; an index key has one scale
V4_GROUP = 64  # the same in V4, where scales are powers of two


def of_model(config):
    """An empty cache that rounds as an engine does that serves the model."""
    return RoundedV4Cache(config) if config.model_type == "deepseek_v4" else RoundedCache(config)


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
        positions = range(first, first + latents.shape[-2])
        kept = self._fp8(latents, LATENT_GROUP, positions), self._bf16(rotary, positions)
        return super().update(*kept, layer, *arguments, **options)

    def update_indexer(self, keys, layer, *arguments, **options):
        end = self.get_seq_length(layer)
        kept = self._index_keys(keys, range(end - keys.shape[-2], end))
        return super().update_indexer(kept, layer, *arguments, **options)

    def _index_keys(self, keys, positions):
        # Turned back, so that queries may stay as they are: q . Ht k = Hq . k.
        width = keys.shape[-1]
        rotation = hadamard(width) if width & (width - 1) == 0 else torch.eye(width)
        return self._fp8(keys @ rotation, width, positions) @ rotation

    def _fp8(self, x, group, positions, powers_of_two=False):
        return torch.cat([self._fp8_group(part, positions, powers_of_two) for part in x.split(group, -1)], -1)

    def _fp8_group(self, x, positions, powers_of_two):
        largest = x.abs().amax(-1, keepdim=True).clamp(min=1e-4)
        scale = largest / E4M3_MAX
        if powers_of_two:
            mantissa, exponent = torch.frexp(scale)
            scale = torch.exp2(exponent - (mantissa == 0.5).float())
            # The largest is between 224 and 448: beyond either, the scale would be another.
            self._note(torch.minimum(E4M3_MAX - largest / scale, largest / scale - E4M3_MAX / 2) / E4M3_MAX, positions)
        scaled = (x / scale).clamp(-E4M3_MAX, E4M3_MAX)
        kept = scaled.to(torch.float8_e4m3fn).float()
        # Numbers are 1/8 of their power of two apart, and the smallest of them 2^-9.
        step = torch.exp2(torch.frexp(scaled).exponent - 4.0).clamp(min=2.0**-9)
        self._note(((scaled - kept).abs() - step / 2).abs() / E4M3_MAX, positions)
        return kept * scale

    def _bf16(self, x, positions):
        kept = x.to(torch.bfloat16).float()
        step = torch.exp2(torch.frexp(x).exponent - 8.0)
        self._note(((x - kept).abs() - step / 2).abs() / x.abs().amax(-1, keepdim=True), positions)
        return kept

    def _note(self, distances, positions):
        rows = distances.flatten(0, -3).amin((0, 2)).tolist()
        for position, distance in zip(positions, rows, strict=True):
            self.closest[position] = min(distance, self.closest.get(position, float("inf")))


class RoundedV4Cache(RoundedCache):
    """Keys of the window and compressed entries, which are also the values: all but the rotary elements in E4M3 with a
    power of two as the scale of each group, rotary elements in BF16. Index keys as in `RoundedCache`."""

    def __init__(self, config):
        super().__init__(config)
        self._rotary = config.qk_rope_head_dim
        for layer in self.layers:
            if hasattr(layer, "update_compressor_states"):
                layer.update_compressor_states = self._rounding_entries(layer)

    def update(self, keys, values, layer, *arguments, **options):
        first = self.get_seq_length(layer)
        kept = self._key(keys, range(first, first + keys.shape[-2]))
        return DynamicCache.update(self, kept, kept, layer, *arguments, **options)

    def _rounding_entries(self, layer):
        """The layer's own way to append entries, for rounded ones. The last token of an entry stores it."""
        append = layer.update_compressor_states

        def update(name, entries):
            first, count = layer.entry_count[name], entries.shape[1]
            positions = range((first + 1) * layer.compress_rate - 1, (first + count + 1) * layer.compress_rate - 1,
                              layer.compress_rate)
            return append(name, (self._key if name == "compressor" else self._index_keys)(entries, positions))
        return update

    def _key(self, x, positions):
        latent, rotary = x[..., :-self._rotary], x[..., -self._rotary:]
        return torch.cat([self._fp8(latent, V4_GROUP, positions, powers_of_two=True), self._bf16(rotary, positions)], -1)


def hadamard(width):
    """The symmetric orthogonal matrix of Sylvester's construction."""
    matrix = torch.ones(1, 1)
    while len(matrix) < width:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)], 0)
    return matrix / width**0.5
