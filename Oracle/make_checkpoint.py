#!/usr/bin/env python3
"""Makes a random-weight checkpoint of DeepSeek V3, V3.2 or V4, or of GLM-5, in the form of the released ones.

    python Oracle/make_checkpoint.py --arch v32 --size tiny --seed 3 --out DIR
    python Oracle/make_checkpoint.py --arch v3 --size small --quant fp8_ue8m0 --shards 3 --mtp --out DIR
    python Oracle/make_checkpoint.py --config Benchmarks/models/small/config.json --out DIR
    python Oracle/make_checkpoint.py --config Benchmarks/models/large/config.json --count

DIR gets config.json, generation_config.json, tokenizer.json, tokenizer_config.json and the weights.
With --quant, DIR holds FP8 weights (fp8_fp4: and V4's routed experts in FP4) or INT8 ones, and DIR-dequant the same
numbers in float32, for implementations that cannot read them. Every tensor's numbers depend on the seed and on its name alone, so the same
tensor is the same whatever else is asked for. Nothing is downloaded.
"""

import argparse
import hashlib
import json
import math
import pathlib
import sys

import torch
from safetensors.torch import save_file

import tokenizer

BLOCK = 128  # rows and columns of one FP8 scale
E4M3_MAX = 448.0
FP4_BLOCK = 32  # columns of one FP4 scale
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])

# Sizes that divide badly on purpose: v_head_dim is not qk_nope_head_dim, and tiny has nothing that fills an FP8 block.
SIZES = {
    "tiny": dict(
        hidden_size=80, intermediate_size=208, moe_intermediate_size=40, num_attention_heads=4, q_lora_rank=48,
        kv_lora_rank=40, qk_nope_head_dim=24, qk_rope_head_dim=16, v_head_dim=20, n_routed_experts=16,
        num_experts_per_tok=4, n_group=4, topk_group=2, index_n_heads=8, index_head_dim=40, index_topk=32),
    "small": dict(
        hidden_size=352, intermediate_size=608, moe_intermediate_size=160, num_attention_heads=8, q_lora_rank=192,
        kv_lora_rank=136, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=56, n_routed_experts=32,
        num_experts_per_tok=6, n_group=8, topk_group=4, index_n_heads=16, index_head_dim=64, index_topk=64),
}

V4_SIZES = {
    "tiny": dict(
        hidden_size=64, moe_intermediate_size=32, num_attention_heads=4, q_lora_rank=40, head_dim=48,
        qk_rope_head_dim=16, o_groups=2, o_lora_rank=24, n_routed_experts=16, num_experts_per_tok=4, sliding_window=16,
        index_n_heads=8, index_head_dim=32, index_topk=24),
    "small": dict(
        hidden_size=352, moe_intermediate_size=160, num_attention_heads=8, q_lora_rank=192, head_dim=136,
        qk_rope_head_dim=32, o_groups=4, o_lora_rank=72, n_routed_experts=32, num_experts_per_tok=6, sliding_window=32,
        index_n_heads=16, index_head_dim=64, index_topk=48),
}
# Tokens per compressed entry of the first layers, repeated: all three kinds of attention.
V4_RATIOS = (0, 4, 128, 4, 128, 0, 4, 128)

YARN = {
    "type": "yarn", "factor": 8, "original_max_position_embeddings": 64,
    "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
}


# ---------------------------------------------------------------------------------------------- configuration


def configuration(arch, layers, vocab, sizes, rope_scaling=YARN, mtp=False):
    """config.json with the key names of the released models."""
    config = {
        "architectures": [{"v3": "DeepseekV3ForCausalLM", "v32": "DeepseekV32ForCausalLM",
                           "glm": "GlmMoeDsaForCausalLM"}[arch]],
        "model_type": {"v3": "deepseek_v3", "v32": "deepseek_v32", "glm": "glm_moe_dsa"}[arch],
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1, "ep_size": 1,
        "first_k_dense_replace": 1, "hidden_act": "silu", "initializer_range": 0.02, "max_position_embeddings": 512,
        "moe_layer_freq": 1, "n_shared_experts": 1, "norm_topk_prob": True, "num_hidden_layers": layers,
        "num_key_value_heads": sizes["num_attention_heads"], "num_nextn_predict_layers": int(mtp),
        "rms_norm_eps": 1e-06, "rope_scaling": rope_scaling, "rope_theta": 10000, "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid", "tie_word_embeddings": False, "topk_method": "noaux_tc", "torch_dtype": "float32",
        "use_cache": True, "vocab_size": vocab,
    }
    config.update(sizes)
    if arch == "v3":
        config = {key: value for key, value in config.items() if not key.startswith("index_")}
    if arch == "glm":
        for key in ("rope_theta", "rope_scaling"):
            del config[key]
        config |= {"rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}, "rms_norm_eps": 1e-05,
                   "head_dim": sizes["qk_rope_head_dim"], "indexer_rope_interleave": True, "n_group": 1,
                   "topk_group": 1}
    return dict(sorted(config.items()))


def v4_configuration(layers, vocab, sizes, yarn=True, mtp=False):
    """config.json with the key names of the released V4 models. The clamp is low enough to matter."""
    config = {
        "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "attention_bias": False,
        "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1, "hidden_act": "silu", "initializer_range": 0.02,
        "max_position_embeddings": 1024, "n_shared_experts": 1, "norm_topk_prob": True, "num_hidden_layers": layers,
        "num_key_value_heads": 1, "num_nextn_predict_layers": int(mtp), "rms_norm_eps": 1e-06, "rope_theta": 10000,
        "compress_rope_theta": 160000, "compress_ratios": [V4_RATIOS[i % len(V4_RATIOS)] for i in range(layers)] + [0],
        "num_hash_layers": min(2, layers - 1), "hc_eps": 1e-06, "hc_mult": 4, "hc_sinkhorn_iters": 20,
        "routed_scaling_factor": 1.5, "scoring_func": "sqrtsoftplus", "swiglu_limit": 1.5,
        "tie_word_embeddings": False, "topk_method": "noaux_tc", "torch_dtype": "float32", "use_cache": True,
        "vocab_size": vocab,
    }
    if yarn:
        config["rope_scaling"] = {"type": "yarn", "factor": 16, "original_max_position_embeddings": 64,
                                  "beta_fast": 32, "beta_slow": 1}
    return dict(sorted((config | sizes).items()))


def is_v4(config):
    return config["model_type"] == "deepseek_v4"


def selects(config, layer):
    """Whether a layer has an indexer of its own; others reuse the selection of the nearest earlier one that has."""
    if "index_topk" not in config:
        return False
    if layer >= config["num_hidden_layers"]:
        return True
    if types := config.get("indexer_types"):
        return types[layer] == "full"
    if pattern := config.get("index_topk_pattern"):
        return pattern[layer] == "F"
    offset = config.get("index_skip_topk_offset", 2)
    return max(layer - offset + 1, 0) % config.get("index_topk_freq", 1) == 0


def tensor_shapes(config):
    """The released tensor names and their shapes, `[out, in]` for matrices."""
    if is_v4(config):
        return v4_tensor_shapes(config)
    hidden, vocab, layers = config["hidden_size"], config["vocab_size"], config["num_hidden_layers"]
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,),
              "lm_head.weight": (vocab, hidden)}
    for layer in range(layers + config.get("num_nextn_predict_layers", 0)):
        prefix = f"model.layers.{layer}."
        shapes |= {prefix + name: shape for name, shape in layer_shapes(config, layer).items()}
        if layer >= layers:
            shapes |= {prefix + "enorm.weight": (hidden,), prefix + "hnorm.weight": (hidden,),
                       prefix + "eh_proj.weight": (hidden, 2 * hidden), prefix + "shared_head.norm.weight": (hidden,),
                       prefix + "embed_tokens.weight": (vocab, hidden),
                       prefix + "shared_head.head.weight": (vocab, hidden)}
    return shapes


def layer_shapes(config, layer):
    c = config
    hidden, heads, rope = c["hidden_size"], c["num_attention_heads"], c["qk_rope_head_dim"]
    shapes = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_a_proj.weight": (c["q_lora_rank"], hidden),
        "self_attn.q_a_layernorm.weight": (c["q_lora_rank"],),
        "self_attn.q_b_proj.weight": (heads * (c["qk_nope_head_dim"] + rope), c["q_lora_rank"]),
        "self_attn.kv_a_proj_with_mqa.weight": (c["kv_lora_rank"] + rope, hidden),
        "self_attn.kv_a_layernorm.weight": (c["kv_lora_rank"],),
        "self_attn.kv_b_proj.weight": (heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), c["kv_lora_rank"]),
        "self_attn.o_proj.weight": (hidden, heads * c["v_head_dim"]),
    }
    if selects(c, layer):
        shapes |= {
            "self_attn.indexer.wq_b.weight": (c["index_n_heads"] * c["index_head_dim"], c["q_lora_rank"]),
            "self_attn.indexer.wk.weight": (c["index_head_dim"], hidden),
            "self_attn.indexer.k_norm.weight": (c["index_head_dim"],),
            "self_attn.indexer.k_norm.bias": (c["index_head_dim"],),
            "self_attn.indexer.weights_proj.weight": (c["index_n_heads"], hidden),
        }
    if layer < c["first_k_dense_replace"]:
        return shapes | mlp_shapes("mlp.", hidden, c["intermediate_size"])
    experts, width = c["n_routed_experts"], c["moe_intermediate_size"]
    shapes |= {"mlp.gate.weight": (experts, hidden), "mlp.gate.e_score_correction_bias": (experts,)}
    shapes |= mlp_shapes("mlp.shared_experts.", hidden, width * c["n_shared_experts"])
    for expert in range(experts):
        shapes |= mlp_shapes(f"mlp.experts.{expert}.", hidden, width)
    return shapes


def v4_tensor_shapes(config):
    hidden, vocab, layers = config["hidden_size"], config["vocab_size"], config["num_hidden_layers"]
    shapes = {"embed.weight": (vocab, hidden), "norm.weight": (hidden,), "head.weight": (vocab, hidden)}
    shapes |= v4_stream_shapes(config, "hc_head_", is_head=True)
    for layer in range(layers):
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in v4_layer_shapes(config, layer).items()}
    if config.get("num_nextn_predict_layers", 0):
        block = v4_layer_shapes(config, layers) | v4_stream_shapes(config, "hc_head_", is_head=True)
        block |= {"e_proj.weight": (hidden, hidden), "h_proj.weight": (hidden, hidden), "enorm.weight": (hidden,),
                  "hnorm.weight": (hidden,), "norm.weight": (hidden,)}
        shapes |= {f"mtp.0.{name}": shape for name, shape in block.items()}
    return shapes


def v4_stream_shapes(config, prefix, is_head=False):
    streams = config["hc_mult"]
    mixes = streams if is_head else (2 + streams) * streams
    return {prefix + "fn": (mixes, streams * config["hidden_size"]), prefix + "base": (mixes,),
            prefix + "scale": (1 if is_head else 3,)}


def v4_layer_shapes(config, layer):
    c = config
    hidden, heads, width, rank = c["hidden_size"], c["num_attention_heads"], c["head_dim"], c["q_lora_rank"]
    groups, experts, inner = c["o_groups"], c["n_routed_experts"], c["moe_intermediate_size"]
    is_block = layer >= c["num_hidden_layers"]
    ratio = 0 if is_block else c["compress_ratios"][layer]

    def compressor(prefix, width):
        columns = 2 * width if ratio == 4 else width
        return {prefix + "wkv.weight": (columns, hidden), prefix + "wgate.weight": (columns, hidden),
                prefix + "ape": (ratio, columns), prefix + "norm.weight": (width,)}

    shapes = {
        "attn_norm.weight": (hidden,), "ffn_norm.weight": (hidden,),
        "attn.wq_a.weight": (rank, hidden), "attn.q_norm.weight": (rank,), "attn.wq_b.weight": (heads * width, rank),
        "attn.wkv.weight": (width, hidden), "attn.kv_norm.weight": (width,), "attn.attn_sink": (heads,),
        "attn.wo_a.weight": (groups * c["o_lora_rank"], heads * width // groups),
        "attn.wo_b.weight": (hidden, groups * c["o_lora_rank"]), "ffn.gate.weight": (experts, hidden),
    }
    shapes |= v4_stream_shapes(c, "hc_attn_") | v4_stream_shapes(c, "hc_ffn_")
    if ratio:
        shapes |= compressor("attn.compressor.", width)
    if ratio == 4:
        shapes |= compressor("attn.indexer.compressor.", c["index_head_dim"])
        shapes |= {"attn.indexer.wq_b.weight": (c["index_n_heads"] * c["index_head_dim"], rank),
                   "attn.indexer.weights_proj.weight": (c["index_n_heads"], hidden)}
    if not is_block and layer < c["num_hash_layers"]:
        shapes["ffn.gate.tid2eid"] = (c["vocab_size"], c["num_experts_per_tok"])
    else:
        shapes["ffn.gate.bias"] = (experts,)
    shared = inner * c["n_shared_experts"]
    for prefix, its in [("shared_experts.", shared)] + [(f"experts.{e}.", inner) for e in range(experts)]:
        shapes |= {f"ffn.{prefix}w1.weight": (its, hidden), f"ffn.{prefix}w3.weight": (its, hidden),
                   f"ffn.{prefix}w2.weight": (hidden, its)}
    return shapes


def mlp_shapes(prefix, hidden, width):
    return {prefix + "gate_proj.weight": (width, hidden), prefix + "up_proj.weight": (width, hidden),
            prefix + "down_proj.weight": (hidden, width)}


def parameter_counts(config):
    """(all parameters, those one token uses), next-token block left out. A token uses one row of the embedding."""
    main = {n: math.prod(s) for n, s in tensor_shapes(config | {"num_nextn_predict_layers": 0}).items()}
    idle = 1 - config["num_experts_per_tok"] / config["n_routed_experts"]
    routed = sum(count for name, count in main.items() if ".experts." in name)
    embedding = main["embed.weight" if is_v4(config) else "model.embed_tokens.weight"]
    return sum(main.values()), round(sum(main.values()) - routed * idle - embedding)


# ----------------------------------------------------------------------------------------------------- weights


def random_tensor(name, shape, seed, experts=0):
    """Numbers with enough spread that softmaxes, routers and indexers decide clearly; float32. A table of the experts of
    each token has numbers below `experts`, int64."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "little")
    generator = torch.Generator().manual_seed(key)
    if name.endswith("tid2eid"):
        return torch.stack([torch.randperm(experts, generator=generator)[: shape[1]] for _ in range(shape[0])])
    noise = torch.randn(shape, generator=generator)
    if name.endswith(("e_score_correction_bias", "gate.bias")):
        return 0.15 * noise
    for ending, scale in (("attn_sink", 0.7), (".ape", 0.8), ("_base", 0.5)):
        if name.endswith(ending):
            return scale * noise
    if name.endswith("_scale"):
        return 0.5 + torch.sigmoid(noise)
    if name.endswith("k_norm.bias"):
        return 0.1 * noise
    if len(shape) == 1:
        return 1.0 + 0.15 * noise
    if name in ("model.embed_tokens.weight", "embed.weight"):
        return noise
    gains = {"lm_head.": 1.6, "o_proj.": 0.7, "down_proj.": 0.7, "mlp.gate.": 1.6, "q_b_proj.": 1.5, "wq_b.": 1.5,
             "weights_proj.": 2.0, "wo_b.": 0.7, ".w2.": 0.7, "ffn.gate.": 1.6} | ({"head.weight": 1.6}
                                                                                 if name == "head.weight" else {})
    gain = next((g for part, g in gains.items() if part in name), 1.0)
    return noise * (gain / math.sqrt(shape[1]))


def random_tensors(config, seed, matrices=torch.float32, vectors=torch.float32):
    """All tensors of a configuration. The router's correction bias stays float32, as released, and so do V4's sinks, the
    mixes of its streams and what its compressors add by place."""
    always_float32 = ("e_score_correction_bias", "gate.bias", "attn_sink", ".ape", "_fn", "_base", "_scale")
    tensors = {}
    for name, shape in sorted(tensor_shapes(config).items()):
        dtype = matrices if len(shape) == 2 else vectors
        if name.endswith(always_float32):
            dtype = torch.float32
        # The next-token block repeats the embedding and the head; the released files hold equal copies.
        source = name
        if name.endswith("shared_head.head.weight"):
            source = "lm_head.weight"
        elif name.endswith("embed_tokens.weight"):
            source = "model.embed_tokens.weight"
        tensor = random_tensor(source, shape, seed, config["n_routed_experts"])
        tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return tensors


def stored_as_fp8(name, tensor):
    """Which matrices the released checkpoints quantize."""
    kept = ("embed_tokens", "lm_head", "shared_head", "eh_proj", "mlp.gate.", "weights_proj", "ffn.gate.", "compressor.",
            "_fn", "embed.weight")
    return tensor.dim() == 2 and name != "head.weight" and not any(part in name for part in kept)


def fp8_blocks(matrix, powers_of_two):
    """(E4M3 values, one float32 multiplier per 128x128 block; blocks at the edges are partial)."""
    rows, columns = matrix.shape
    grid = (math.ceil(rows / BLOCK), math.ceil(columns / BLOCK))
    scale = torch.empty(grid)
    values = torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
    for i in range(grid[0]):
        for j in range(grid[1]):
            where = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
            block = matrix[where].float()
            step = max(float(block.abs().max()), 1e-12) / E4M3_MAX
            if powers_of_two:
                step = 2.0 ** math.ceil(math.log2(step))
            scale[i, j] = step
            values[where] = (block / scale[i, j]).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    return values, scale


def fp4_rows(matrix):
    """(two E2M1 codes a byte, the even column's in the low half; one power of two per 32 columns of a row; the numbers
    that they stand for)."""
    rows, columns = matrix.shape
    if columns % FP4_BLOCK:
        raise SystemExit(f"FP4 needs rows of a multiple of {FP4_BLOCK} columns, not {columns}")
    blocks = matrix.float().view(rows, columns // FP4_BLOCK, FP4_BLOCK)
    scale = torch.exp2(torch.ceil(torch.log2(blocks.abs().amax(-1).clamp(min=6 * 2.0**-126) / 6)))
    magnitude = (blocks / scale.unsqueeze(-1)).abs().clamp(max=6)
    # To the nearest value, ties to even codes.
    between = (E2M1[1:] + E2M1[:-1]) / 2
    code = torch.bucketize(magnitude, between, right=False)
    for odd in between[1::2]:
        code += magnitude == odd
    negative = blocks < 0
    numbers = (torch.where(negative, -E2M1[code], E2M1[code]) * scale.unsqueeze(-1)).reshape(rows, columns)
    code = (code + 8 * negative).to(torch.uint8).reshape(rows, columns)
    return (code[:, 0::2] | code[:, 1::2] << 4).view(torch.int8), scale, numbers


def dequantized(values, scale):
    spread = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return values.float() * spread[: values.shape[0], : values.shape[1]]


def quantized(config, tensors, powers_of_two, fp4_experts=False):
    """(config, tensors) with FP8 weights, and the tensors of the float32 twin. V4's scales are always powers of two,
    stored as such; its routed experts may be FP4."""
    powers_of_two = powers_of_two or is_v4(config)
    block = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    if powers_of_two:
        block["scale_fmt"] = "ue8m0"
    stored, twin = {}, {}
    for name, tensor in tensors.items():
        if fp4_experts and ".ffn.experts." in name:
            stored[name], scale, twin[name] = fp4_rows(tensor)
            stored[name.removesuffix("weight") + "scale"] = scale.to(torch.float8_e8m0fnu)
        elif is_v4(config) and stored_as_fp8(name, tensor):
            stored[name], scale = fp8_blocks(tensor, powers_of_two)
            stored[name.removesuffix("weight") + "scale"] = scale.to(torch.float8_e8m0fnu)
            twin[name] = dequantized(stored[name], scale)
        elif is_v4(config) and name.endswith(("tid2eid", ".ape", "_fn")):
            stored[name] = twin[name] = tensor
        elif stored_as_fp8(name, tensor):
            stored[name], stored[name + "_scale_inv"] = fp8_blocks(tensor, powers_of_two)
            twin[name] = dequantized(stored[name], stored[name + "_scale_inv"])
        else:
            stored[name] = tensor.to(torch.bfloat16) if tensor.dim() == 2 else tensor
            twin[name] = stored[name].float()
    experts = {"expert_dtype": "fp4"} if fp4_experts else {}
    return config | experts | {"quantization_config": block, "torch_dtype": "bfloat16"}, stored, twin


INT8_FORMS = ("int8", "int8_blocks", "int8_compressed_tensors", "int8_modelslim", "int8_modelslim_static")
# ModelSlim's releases round what attention multiplies with one scale and offset for all tokens, and keep kv_b_proj.
STATIC = {"q_a_proj": (0.04, -3), "q_b_proj": (0.05, 11), "kv_a_proj_with_mqa": (0.03, 0), "o_proj": (0.002, -20)}


def int8_rows(matrix, scale_type=torch.float32):
    """(INT8 values, one multiplier per row)."""
    scale = (matrix.float().abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127).to(scale_type)
    return (matrix.float() / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def int8_blocks(matrix):
    """(INT8 values, one multiplier per 128x128 block; blocks at the edges are partial)."""
    rows, columns = matrix.shape
    padded = torch.nn.functional.pad(matrix.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.view(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK)
    scale = blocks.abs().amax((1, 3)).clamp(min=1e-12) / 127
    values = (matrix.float() / dequantized(torch.ones_like(matrix), scale)).round().clamp(-127, 127)
    return values.to(torch.int8), scale


def static_rounding(name, values, scale):
    """What ModelSlim stores of an INT8 matrix with static activation scales, beside its values."""
    step, offset = STATIC[name.split(".")[-2]]
    base = name.removesuffix("weight")
    return {base + "input_scale": torch.tensor([step]), base + "input_offset": torch.tensor([float(offset)]),
            base + "quant_bias": -offset * values.to(torch.int32).sum(-1, dtype=torch.int32),
            base + "deq_scale": step * scale.float().flatten()}


def quantized_int8(config, tensors, form):
    """(config, tensors) of a W8A8 checkpoint as released in one of INT8_FORMS, the tensors of the float32 twin, and what
    ModelSlim says of each tensor (None in other forms)."""
    if is_v4(config):
        raise SystemExit("INT8 checkpoints are those of V3, V3.2 and GLM-5")
    integers = {"num_bits": 8, "type": "int", "symmetric": True}
    quantization = {
        "int8": {"activation_scheme": "dynamic", "quant_method": "w8a8_int8"},
        "int8_blocks": {"activation_scheme": "dynamic", "quant_method": "blockwise_int8",
                        "weight_block_size": [BLOCK, BLOCK]},
        "int8_compressed_tensors": {
            "quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
            "kv_cache_scheme": None, "sparsity_config": {}, "ignore": ["lm_head"],
            "config_groups": {"group_0": {
                "targets": ["Linear"], "output_activations": None,
                "weights": integers | {"strategy": "channel", "dynamic": False},
                "input_activations": integers | {"strategy": "token", "dynamic": True}}}},
    }.get(form)
    stored, twin, kinds = {}, {}, {}
    for name, tensor in tensors.items():
        is_static = form == "int8_modelslim_static" and name.split(".")[-2] in STATIC
        if not stored_as_fp8(name, tensor) or form == "int8_modelslim_static" and "kv_b_proj" in name:
            stored[name] = tensor.to(torch.bfloat16) if tensor.dim() == 2 else tensor
            twin[name] = stored[name].float()
            kinds[name] = "FLOAT"
        elif is_static:
            stored[name], scale = int8_rows(tensor)
            twin[name] = stored[name].float() * scale
            others = static_rounding(name, stored[name], scale)
            stored |= others
            kinds |= dict.fromkeys([name, *others], "W8A8")
        elif form == "int8_blocks":
            stored[name], stored[name + "_scale_inv"] = int8_blocks(tensor)
            twin[name] = dequantized(stored[name], stored[name + "_scale_inv"])
        else:
            narrow = torch.bfloat16 if form == "int8_compressed_tensors" else torch.float32
            stored[name], scale = int8_rows(tensor, narrow)
            stored[name + "_scale"] = scale
            twin[name] = stored[name].float() * scale.float()
            if form.startswith("int8_modelslim"):
                stored[name + "_offset"] = torch.zeros_like(scale)
            kinds |= {name + suffix: "W8A8_DYNAMIC" for suffix in ("", "_scale", "_offset")}
    description = {"model_quant_type": "W8A8_DYNAMIC", "version": "1.0.0"} | kinds
    description = description if form.startswith("int8_modelslim") else None
    keys = {"torch_dtype": "bfloat16"} | ({"quantization_config": quantization} if quantization else {})
    return config | keys, stored, twin, description


# ------------------------------------------------------------------------------------------------------- files


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_checkpoint(directory, config, tensors, shards=1):
    """config.json and the weights, in one file or in `shards` files of about equal size and an index."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for old in (*directory.glob("*.safetensors"), *directory.glob("*.safetensors.index.json")):
        old.unlink()
    write_json(directory / "config.json", config)
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return
    total, before, weight_map, parts = sum(t.nbytes for t in tensors.values()), 0, {}, {}
    for name, tensor in sorted(tensors.items()):
        part = min(before * shards // total, shards - 1)
        weight_map[name] = f"model-{part + 1:05d}-of-{shards:06d}.safetensors"
        parts.setdefault(weight_map[name], {})[name] = tensor
        before += tensor.nbytes
    for file, part in parts.items():
        save_file(part, directory / file, metadata={"format": "pt"})
    write_json(directory / "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": weight_map})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--config", type=pathlib.Path, help="make the model of this config.json")
    parser.add_argument("--arch", choices=("v3", "v32", "v4", "glm"), default="v32")
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--layers", type=int, help="(default: 3; V4: 5)")
    parser.add_argument("--vocab", type=int, default=384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the matrices (default: the config's)")
    parser.add_argument("--quant", choices=("fp8", "fp8_ue8m0", "fp8_fp4", *INT8_FORMS),
                        help="FP8 blocks; ue8m0: scales are powers of two; fp4: and V4's routed experts in FP4; int8: W8A8 "
                             "with a scale per row, or per block, also as compressed-tensors and ModelSlim name it; static: "
                             "with one activation scale and offset for all tokens in attention")
    parser.add_argument("--mtp", action="store_true", help="add the next-token block")
    parser.add_argument("--no-yarn", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="change a key of config.json")
    parser.add_argument("--count", action="store_true", help="only print the parameter counts")
    options = parser.parse_args()

    if options.config:
        config = json.loads(options.config.read_text()) | ({"num_nextn_predict_layers": 1} if options.mtp else {})
    elif options.arch == "v4":
        config = v4_configuration(options.layers or 5, options.vocab, V4_SIZES[options.size], not options.no_yarn,
                                  options.mtp)
    else:
        config = configuration(options.arch, options.layers or 3, options.vocab, SIZES[options.size],
                               None if options.no_yarn else YARN, options.mtp)
    config |= {key: json.loads(value) for key, value in (item.split("=", 1) for item in options.set)}
    if options.count:
        total, active = parameter_counts(config)
        print(f"{total} parameters, {active} used by one token (output matrix included, embedding table not)")
        return
    if not options.out:
        parser.error("--out is needed")
    if options.dtype:
        config["torch_dtype"] = options.dtype
    matrices = torch.float32 if options.quant else getattr(torch, config["torch_dtype"])
    tensors = random_tensors(config, options.seed, matrices)
    made, description = [(options.out, config, tensors)], None
    if options.quant in INT8_FORMS:
        stored_config, stored, twin, description = quantized_int8(config, tensors, options.quant)
        made = [(options.out, stored_config, stored),
                (options.out.with_name(options.out.name + "-dequant"), config | {"torch_dtype": "float32"}, twin)]
    elif options.quant:
        stored_config, stored, twin = quantized(
            config, tensors, options.quant == "fp8_ue8m0", options.quant == "fp8_fp4")
        made = [(options.out, stored_config, stored),
                (options.out.with_name(options.out.name + "-dequant"), config | {"torch_dtype": "float32"}, twin)]
    for directory, its_config, its_tensors in made:
        write_checkpoint(directory, its_config, its_tensors, options.shards)
        tokenizer.write(directory, config["vocab_size"])
        print(f"wrote {directory}", file=sys.stderr)
    if description:
        write_json(options.out / "quant_model_description.json", description)


if __name__ == "__main__":
    main()
