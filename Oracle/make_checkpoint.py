#!/usr/bin/env python3
"""Makes a random-weight checkpoint of DeepSeek V3, DeepSeek V3.2 or GLM-5 in the form of the released ones.

    python Oracle/make_checkpoint.py --arch v32 --size tiny --seed 3 --out DIR
    python Oracle/make_checkpoint.py --arch v3 --size small --quant fp8_ue8m0 --shards 3 --mtp --out DIR
    python Oracle/make_checkpoint.py --config Benchmarks/models/small/config.json --out DIR
    python Oracle/make_checkpoint.py --config Benchmarks/models/large/config.json --count

DIR gets config.json, generation_config.json, tokenizer.json, tokenizer_config.json and the weights.
With --quant, DIR holds FP8 weights and DIR-dequant the same numbers in float32, for implementations
that cannot read FP8. Every tensor's numbers depend on the seed and on its name alone, so the same
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


def mlp_shapes(prefix, hidden, width):
    return {prefix + "gate_proj.weight": (width, hidden), prefix + "up_proj.weight": (width, hidden),
            prefix + "down_proj.weight": (hidden, width)}


def parameter_counts(config):
    """(all parameters, those one token uses), next-token block left out. A token uses one row of the embedding."""
    main = {n: math.prod(s) for n, s in tensor_shapes(config | {"num_nextn_predict_layers": 0}).items()}
    idle = 1 - config["num_experts_per_tok"] / config["n_routed_experts"]
    routed = sum(count for name, count in main.items() if ".experts." in name)
    return sum(main.values()), round(sum(main.values()) - routed * idle - main["model.embed_tokens.weight"])


# ----------------------------------------------------------------------------------------------------- weights


def random_tensor(name, shape, seed):
    """Numbers with enough spread that softmaxes, routers and indexers decide clearly; float32."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7], "little")
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(key))
    if name.endswith("e_score_correction_bias"):
        return 0.15 * noise
    if name.endswith("k_norm.bias"):
        return 0.1 * noise
    if len(shape) == 1:
        return 1.0 + 0.15 * noise
    if name == "model.embed_tokens.weight":
        return noise
    gains = {"lm_head.": 1.6, "o_proj.": 0.7, "down_proj.": 0.7, "mlp.gate.": 1.6, "q_b_proj.": 1.5, "wq_b.": 1.5,
             "weights_proj.": 2.0}
    gain = next((g for part, g in gains.items() if part in name), 1.0)
    return noise * (gain / math.sqrt(shape[1]))


def random_tensors(config, seed, matrices=torch.float32, vectors=torch.float32):
    """All tensors of a configuration. The router's correction bias stays float32, as released."""
    tensors = {}
    for name, shape in sorted(tensor_shapes(config).items()):
        dtype = matrices if len(shape) == 2 else vectors
        if name.endswith("e_score_correction_bias"):
            dtype = torch.float32
        # The next-token block repeats the embedding and the head; the released files hold equal copies.
        source = name
        if name.endswith("shared_head.head.weight"):
            source = "lm_head.weight"
        elif name.endswith("embed_tokens.weight"):
            source = "model.embed_tokens.weight"
        tensors[name] = random_tensor(source, shape, seed).to(dtype)
    return tensors


def stored_as_fp8(name, tensor):
    """Which matrices the released checkpoints quantize."""
    kept = ("embed_tokens", "lm_head", "shared_head", "eh_proj", "mlp.gate.", "weights_proj")
    return tensor.dim() == 2 and not any(part in name for part in kept)


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


def dequantized(values, scale):
    spread = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return values.float() * spread[: values.shape[0], : values.shape[1]]


def quantized(config, tensors, powers_of_two):
    """(config, tensors) with FP8 weights, and the tensors of the float32 twin."""
    block = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}
    if powers_of_two:
        block["scale_fmt"] = "ue8m0"
    stored, twin = {}, {}
    for name, tensor in tensors.items():
        if stored_as_fp8(name, tensor):
            stored[name], stored[name + "_scale_inv"] = fp8_blocks(tensor, powers_of_two)
            twin[name] = dequantized(stored[name], stored[name + "_scale_inv"])
        else:
            stored[name] = tensor.to(torch.bfloat16) if tensor.dim() == 2 else tensor
            twin[name] = stored[name].float()
    return config | {"quantization_config": block, "torch_dtype": "bfloat16"}, stored, twin


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
    parser.add_argument("--arch", choices=("v3", "v32", "glm"), default="v32")
    parser.add_argument("--size", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocab", type=int, default=384)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="of the matrices (default: the config's)")
    parser.add_argument("--quant", choices=("fp8", "fp8_ue8m0"), help="FP8 blocks; ue8m0: scales are powers of two")
    parser.add_argument("--mtp", action="store_true", help="add the next-token block")
    parser.add_argument("--no-yarn", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="change a key of config.json")
    parser.add_argument("--count", action="store_true", help="only print the parameter counts")
    options = parser.parse_args()

    if options.config:
        config = json.loads(options.config.read_text()) | ({"num_nextn_predict_layers": 1} if options.mtp else {})
    else:
        config = configuration(options.arch, options.layers, options.vocab, SIZES[options.size],
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
    made = [(options.out, config, tensors)]
    if options.quant:
        stored_config, stored, twin = quantized(config, tensors, options.quant == "fp8_ue8m0")
        made = [(options.out, stored_config, stored),
                (options.out.with_name(options.out.name + "-dequant"), config | {"torch_dtype": "float32"}, twin)]
    for directory, its_config, its_tensors in made:
        write_checkpoint(directory, its_config, its_tensors, options.shards)
        tokenizer.write(directory, config["vocab_size"])
        print(f"wrote {directory}", file=sys.stderr)


if __name__ == "__main__":
    main()
