"""A key/value cache that rounds what it is given once, when it is stored, as an engine with an FP8 cache does, and one that
keeps V4's index keys in FP4."""

import itertools

import torch
from transformers import DynamicCache

E4M3_MAX = 448.0
LATENT_GROUP = 128  # columns of a latent that share a scale; an index key has one scale
V4_GROUP = 64  # the same in V4, where scales are powers of two
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])  # by their codes, without the sign
FP4_GROUP = 32  # elements of an index key in FP4 that share a scale
FP4_LEAST = 6 * 2.0**-126  # the least magnitude that counts as the largest of such a group


def of_model(config, fp4_index=False):
    """An empty cache that rounds as an engine does that serves the model, with index keys in FP4 if asked."""
    if config.model_type == "deepseek_v4":
        return RoundedV4Cache(config, fp4_index)
    if fp4_index:
        raise ValueError(f"index keys in FP4 are for models of type deepseek_v4, and this one is of type {config.model_type}")
    return RoundedCache(config)


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
        return self._rotated_index_keys(keys @ rotation, positions) @ rotation

    def _rotated_index_keys(self, keys, positions):
        return self._fp8(keys, keys.shape[-1], positions)

    def _fp8(self, x, group, positions, powers_of_two=False):
        return torch.cat([self._fp8_group(part, positions, powers_of_two) for part in x.split(group, -1)], -1)

    def _fp8_group(self, x, positions, powers_of_two):
        largest = x.abs().amax(-1, keepdim=True).clamp(min=1e-4)
        scale = largest / E4M3_MAX
        if powers_of_two:
            scale = power_of_two_from(scale)
            # The largest is between 224 and 448: beyond either, the scale would be another.
            self._note(torch.minimum(E4M3_MAX - largest / scale, largest / scale - E4M3_MAX / 2) / E4M3_MAX, positions)
        scaled = (x / scale).clamp(-E4M3_MAX, E4M3_MAX)
        kept = scaled.to(torch.float8_e4m3fn).float()
        # Numbers are 1/8 of their power of two apart, and the smallest of them 2^-9.
        step = torch.exp2(torch.frexp(scaled).exponent - 4.0).clamp(min=2.0**-9)
        self._note(((scaled - kept).abs() - step / 2).abs() / E4M3_MAX, positions)
        return kept * scale

    def _fp4(self, x, positions):
        return torch.cat([self._fp4_group(part, positions) for part in x.split(FP4_GROUP, -1)], -1)

    def _fp4_group(self, x, positions):
        largest = x.abs().amax(-1, keepdim=True).clamp(min=FP4_LEAST)
        scale = power_of_two_from(largest / 6)
        # The largest is between 3 and 6: beyond either, the scale would be another.
        self._note(torch.minimum(6 - largest / scale, largest / scale - 3) / 6, positions)
        magnitudes = (x / scale).abs().unsqueeze(-1)
        middles = (E2M1[:-1] + E2M1[1:]) / 2
        self._note((magnitudes - middles).abs().amin(-1) / 6, positions)
        # A middle is rounded to the neighbour with the even code: up from an odd one.
        is_passed = (magnitudes > middles) | ((magnitudes == middles) & (torch.arange(7) % 2 == 1))
        return E2M1[is_passed.sum(-1)] * x.sign() * scale

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
    power of two as the scale of each group, rotary elements in BF16. Index keys as in `RoundedCache`, or in E2M1 with a power
    of two as the scale of each group, after the same rotation."""

    def __init__(self, config, fp4_index=False):
        super().__init__(config)
        self._rotary = config.qk_rope_head_dim
        self._has_fp4_index = fp4_index
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

    def _rotated_index_keys(self, keys, positions):
        return self._fp4(keys, positions) if self._has_fp4_index else super()._rotated_index_keys(keys, positions)

    def _key(self, x, positions):
        latent, rotary = x[..., :-self._rotary], x[..., -self._rotary:]
        return torch.cat([self._fp8(latent, V4_GROUP, positions, powers_of_two=True), self._bf16(rotary, positions)], -1)


def power_of_two_from(x):
    """The smallest power of two that is at least x, which is positive."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp(torch.ones_like(x), exponent - (mantissa == 0.5).int())


def hadamard(width):
    """The symmetric orthogonal matrix of Sylvester's construction."""
    matrix = torch.ones(1, 1)
    while len(matrix) < width:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)], 0)
    return matrix / width**0.5
