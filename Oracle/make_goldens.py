#!/usr/bin/env python3
"""Makes Tests/Golden anew: tiny checkpoints, and what transformers computes from them stage by stage.

    python Oracle/make_goldens.py            # everything
    python Oracle/make_goldens.py v3 v32     # only these cases; the others stay (the manifest lists all)

For each case it tries seeds until every decision (indexer, expert group, expert, greedy token, and how a key is rounded
where the cache rounds) is clear, so that an engine that adds in another order still decides the same. Then it checks the reference against itself: another
attention and experts implementation, and a greedy continuation with chunked prefill and a cache.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import shutil
import tempfile

import torch
import transformers
from safetensors.torch import save_file

import make_checkpoint
import reference
import rounded_cache

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "Tests" / "Golden"
CLEAR_DECISION = 2e-4  # standard deviations of the competing scores
CLEAR_ROUNDING = 5e-7  # of the largest value with the same scale
CLEAR_TOKEN = 1e-2  # between the logprobs of the best and the second token
SELF_AGREEMENT = 1e-5  # between two code paths of the source, in logits of size about 5
NEW_TOKENS = 16
DRAFTS = 3


@dataclasses.dataclass
class Case:
    why: str
    arch: str
    layers: int
    prompt: int
    sizes: dict
    rope_scaling: dict | None = None
    matrices: torch.dtype = torch.float32
    vectors: torch.dtype = torch.float32
    quant: bool = False
    shards: int = 1
    newer_keys: bool = False
    rounded_cache: bool = False
    fp4_index: bool = False
    drafts: bool = False
    fp4_experts: bool = False
    last_rows: int | None = None  # how many rows of the stages to keep; all when None
    further_keys: dict = dataclasses.field(default_factory=dict)

    def new_cache(self, model):
        """What a forward is given: nothing, or an empty cache that rounds."""
        return rounded_cache.of_model(model.config, self.fp4_index) if self.rounded_cache else None


YARN = make_checkpoint.YARN | {"factor": 4, "original_max_position_embeddings": 32}

CASES = {
    "v3": Case(
        why="dense and MoE layers, expert groups, YaRN, v_head_dim unlike qk_nope_head_dim, BF16, three shards",
        arch="v3", layers=3, prompt=33, rope_scaling=YARN, shards=3,
        matrices=torch.bfloat16, vectors=torch.bfloat16,
        sizes=dict(hidden_size=64, intermediate_size=96, moe_intermediate_size=8, num_attention_heads=4,
                   q_lora_rank=24, kv_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12,
                   n_routed_experts=16, num_experts_per_tok=4, n_group=4, topk_group=2)),
    "v32": Case(
        why="index_topk 16 under a context of 75, YaRN with mscale, F32",
        arch="v32", layers=2, prompt=75, rope_scaling=YARN,
        sizes=dict(hidden_size=64, intermediate_size=48, moe_intermediate_size=8, num_attention_heads=4,
                   q_lora_rank=24, kv_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12,
                   n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2,
                   index_n_heads=8, index_head_dim=24, index_topk=16)),
    "v32-fp8": Case(
        why="FP8 E4M3 weights, whole and partial 128x128 blocks; the truth is that of the dequantized numbers",
        arch="v32", layers=2, prompt=37, rope_scaling=YARN, quant=True,
        sizes=dict(hidden_size=144, intermediate_size=160, moe_intermediate_size=16, num_attention_heads=4,
                   q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=20,
                   n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1,
                   index_n_heads=8, index_head_dim=32, index_topk=16)),
    "v32-norope-scaling": Case(
        why="no rope scaling, newer key spelling (rope_parameters, dtype), no expert groups, BF16 matrices, F32 norms",
        arch="v32", layers=2, prompt=50, matrices=torch.bfloat16, newer_keys=True,
        sizes=dict(hidden_size=64, intermediate_size=80, moe_intermediate_size=16, num_attention_heads=4,
                   q_lora_rank=24, kv_lora_rank=32, qk_nope_head_dim=8, qk_rope_head_dim=16, v_head_dim=16,
                   n_routed_experts=8, num_experts_per_tok=2, n_group=1, topk_group=1,
                   index_n_heads=8, index_head_dim=32, index_topk=12)),
    "v3-fp8-cache": Case(
        why="the key/value cache in FP8, a latent narrower than a group; V3, BF16",
        arch="v3", layers=2, prompt=30, rounded_cache=True, matrices=torch.bfloat16, vectors=torch.bfloat16,
        sizes=dict(hidden_size=48, intermediate_size=64, moe_intermediate_size=8, num_attention_heads=4,
                   q_lora_rank=24, kv_lora_rank=20, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12,
                   n_routed_experts=8, num_experts_per_tok=2, n_group=1, topk_group=1)),
    "v32-fp8-cache": Case(
        why="the key/value cache in FP8, one latent group whole and one partial, rotated index keys; BF16",
        arch="v32", layers=2, prompt=40, rope_scaling=YARN, rounded_cache=True,
        matrices=torch.bfloat16, vectors=torch.bfloat16,
        sizes=dict(hidden_size=48, intermediate_size=64, moe_intermediate_size=8, num_attention_heads=4,
                   q_lora_rank=24, kv_lora_rank=150, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=12,
                   n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1,
                   index_n_heads=8, index_head_dim=32, index_topk=12)),
    "v3-drafts": Case(
        why="a next-token block; V3, YaRN, F32",
        arch="v3", layers=2, prompt=26, rope_scaling=YARN, drafts=True,
        sizes=dict(hidden_size=48, intermediate_size=64, moe_intermediate_size=8, num_attention_heads=4,
                   q_lora_rank=24, kv_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12,
                   n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1)),
    "v32-drafts": Case(
        why="a next-token block with an indexer of its own, index_topk 12 under a context of 45; BF16 matrices",
        arch="v32", layers=2, prompt=45, drafts=True, matrices=torch.bfloat16,
        sizes=dict(hidden_size=48, intermediate_size=64, moe_intermediate_size=8, num_attention_heads=4,
                   q_lora_rank=24, kv_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12,
                   n_routed_experts=8, num_experts_per_tok=2, n_group=2, topk_group=1,
                   index_n_heads=4, index_head_dim=24, index_topk=12)),
    "glm": Case(
        why="GLM-5: interleaved rotary pairs in the indexer, all layers with one, index_topk 14 under a context of 60; BF16",
        arch="glm", layers=2, prompt=60, matrices=torch.bfloat16, vectors=torch.bfloat16,
        sizes=dict(hidden_size=64, intermediate_size=80, moe_intermediate_size=8, num_attention_heads=4,
                   q_lora_rank=32, kv_lora_rank=24, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=20,
                   n_routed_experts=8, num_experts_per_tok=2, index_n_heads=8, index_head_dim=24, index_topk=14)),
    "glm-shared": Case(
        why="GLM-5.2: two layers that reuse the selection of the first, index_topk 14 under a context of 60; F32",
        arch="glm", layers=3, prompt=60,
        sizes=dict(hidden_size=64, intermediate_size=48, moe_intermediate_size=8, num_attention_heads=4,
                   q_lora_rank=24, kv_lora_rank=24, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=20,
                   n_routed_experts=8, num_experts_per_tok=2, index_n_heads=8, index_head_dim=24, index_topk=14),
        further_keys=dict(indexer_types=["full", "shared", "shared"], mlp_layer_types=["dense", "sparse", "sparse"])),
    "glm-drafts": Case(
        why="a next-token block behind layers without indexers, whose further rows reuse its selection; BF16 matrices",
        arch="glm", layers=3, prompt=36, drafts=True, matrices=torch.bfloat16,
        sizes=dict(hidden_size=48, intermediate_size=64, moe_intermediate_size=8, num_attention_heads=4,
                   q_lora_rank=24, kv_lora_rank=24, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=12,
                   n_routed_experts=8, num_experts_per_tok=2, index_n_heads=4, index_head_dim=24, index_topk=12),
        further_keys=dict(index_topk_freq=3, index_skip_topk_offset=1, index_share_for_mtp_iteration=True)),
    "v4": Case(
        why="V4: the three kinds of attention, two layers with hash routing, index_topk 24 of 76 entries, two complete "
            "entries of 128; F32",
        arch="v4", layers=3, prompt=307, last_rows=60, sizes=make_checkpoint.V4_SIZES["tiny"] | dict(
            hidden_size=48, q_lora_rank=24, head_dim=24, qk_rope_head_dim=8, o_groups=4, o_lora_rank=12,
            n_routed_experts=8, num_experts_per_tok=3, moe_intermediate_size=16, index_n_heads=16, index_head_dim=16)),
    "v4-drafts": Case(
        why="V4: a next-token block, whose head mixes the streams by itself; BF16 matrices, hash routing first, few rounds "
            "and a large epsilon in the mix of the streams",
        arch="v4", layers=2, prompt=60, drafts=True, matrices=torch.bfloat16,
        sizes=make_checkpoint.V4_SIZES["tiny"] | dict(
            hidden_size=48, q_lora_rank=24, head_dim=24, qk_rope_head_dim=8, o_groups=4, o_lora_rank=12,
            n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=16, index_n_heads=16, index_head_dim=16,
            index_topk=6),
        further_keys=dict(num_hash_layers=1, hc_sinkhorn_iters=3, hc_eps=0.02)),
    "v4-fp8-fp4": Case(
        why="V4 as released: FP8 blocks with E8M0 scales, FP4 experts; the truth is that of the dequantized numbers",
        arch="v4", layers=3, prompt=140, last_rows=40, quant=True, fp4_experts=True,
        sizes=make_checkpoint.V4_SIZES["tiny"] | dict(
            hidden_size=160, q_lora_rank=136, head_dim=40, qk_rope_head_dim=8, o_groups=4, o_lora_rank=24,
            n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=32, index_n_heads=16, index_head_dim=16, index_topk=20)),
    "v4-fp8-cache": Case(
        why="V4: keys and compressed entries in an FP8 cache, one group of 64 whole and one partial, E8M0 scales, rotated "
            "index keys; BF16",
        arch="v4", layers=2, prompt=40, rounded_cache=True, matrices=torch.bfloat16,
        sizes=make_checkpoint.V4_SIZES["tiny"] | dict(
            hidden_size=48, q_lora_rank=24, head_dim=84, qk_rope_head_dim=8, o_groups=4, o_lora_rank=12,
            n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=8, index_n_heads=16, index_head_dim=16,
            index_topk=6)),
    "v4-fp4-index": Case(
        why="V4: index keys in FP4, four groups of 32 with a scale each, beside keys in an FP8 cache; BF16",
        arch="v4", layers=2, prompt=40, rounded_cache=True, fp4_index=True, matrices=torch.bfloat16,
        sizes=make_checkpoint.V4_SIZES["tiny"] | dict(
            hidden_size=48, q_lora_rank=24, head_dim=40, qk_rope_head_dim=8, o_groups=4, o_lora_rank=12,
            n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=8, index_n_heads=16, index_head_dim=128,
            index_topk=6)),
}


def checkpoint(case, seed):
    """(config, tensors to store, (config, tensors) that transformers reads)."""
    if case.arch == "v4":
        config = make_checkpoint.v4_configuration(case.layers, 256, case.sizes, mtp=case.drafts)
    else:
        config = make_checkpoint.configuration(
            case.arch, case.layers, 256, case.sizes, case.rope_scaling, case.drafts)
    config["torch_dtype"] = str(case.matrices).removeprefix("torch.")
    config |= case.further_keys
    if case.newer_keys:
        theta = config.pop("rope_theta")
        config |= {"rope_parameters": {"rope_theta": theta, "rope_type": "default"}, "dtype": config.pop("torch_dtype")}
    tensors = make_checkpoint.random_tensors(config, seed, case.matrices, case.vectors)
    if not case.quant:
        return config, tensors, (config, tensors)
    stored_config, stored, twin = make_checkpoint.quantized(
        config, tensors, powers_of_two=False, fp4_experts=case.fp4_experts)
    return stored_config, stored, (config, twin)


@dataclasses.dataclass
class Run:
    seed: int
    ids: list
    new: list
    logprobs: list
    gaps: list
    margins: dict
    rounding: float

    def is_clear(self):
        return (min(self.margins.values()) >= CLEAR_DECISION and min(self.gaps) >= CLEAR_TOKEN
                and self.rounding >= CLEAR_ROUNDING)


def first_clear_run(case, scratch):
    for seed in range(1000):
        config, tensors, readable = checkpoint(case, seed)
        make_checkpoint.write_checkpoint(scratch, *readable)
        model = reference.load(scratch)
        ids = reference.random_ids(case.prompt, config["vocab_size"], seed)
        new, logprobs, gaps = reference.greedy(model, ids, NEW_TOKENS, lambda: case.new_cache(model))
        cache = case.new_cache(model)
        block = reference.next_token_block(model, scratch) if case.drafts else None
        with reference.Decisions(model, *(block or [])[:1]) as decisions:
            reference.logits(model, ids + new, cache)
            if block:
                reference.drafts(model, block, ids, DRAFTS)
        run = Run(seed, ids, new, logprobs, gaps, decisions.smallest(),
                  min(cache.closest.values()) if cache else float("inf"))
        if run.is_clear():
            return run, config, tensors, model
    raise SystemExit("no seed decides clearly")


def disagreement(case, model, scratch, run):
    """The largest difference of logits from transformers' other code paths; refuses a cache that changes tokens."""
    for chunk in (1, 7, len(run.ids)):
        if reference.greedy_with_cache(model, run.ids, NEW_TOKENS, chunk, case.new_cache(model)) != run.new:
            raise SystemExit(f"transformers continues otherwise with a cache and chunks of {chunk}")
    # V4 has no other attention in transformers.
    attention = "eager" if case.arch == "v4" else "sdpa"
    other = reference.load(scratch, attention=attention, experts="batched_mm")
    a, b = (reference.logits(its, run.ids + run.new, case.new_cache(its)) for its in (model, other))
    difference = float((a - b).abs().max())
    if difference > SELF_AGREEMENT:
        raise SystemExit(f"transformers' code paths differ by {difference:.1e}")
    return difference


def make(name, case):
    """Writes one case and returns its note for the manifest."""
    directory = GOLDEN / name
    shutil.rmtree(directory, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        run, config, tensors, model = first_clear_run(case, scratch)
        difference = disagreement(case, model, scratch, run)
        make_checkpoint.write_checkpoint(directory / "checkpoint", config, tensors, case.shards)
        stages = reference.stages(model, run.ids, case.new_cache(model))
        if case.drafts:
            block = reference.next_token_block(model, scratch)
            stages["drafts"] = reference.drafts(model, block, run.ids, DRAFTS).contiguous()
        if case.last_rows:
            ids = stages.pop("ids")
            stages = {"ids": ids} | {stage: rows[-case.last_rows:].contiguous() for stage, rows in stages.items()}
        save_file(dict(sorted(stages.items())), directory / "stages.safetensors")
    for path in directory.rglob("*.safetensors"):
        path.chmod(0o644)
    rounded = {"logprobs": [round(x, 7) for x in run.logprobs], "gaps": [round(x, 7) for x in run.gaps],
               "margins": {kind: round(gap, 7) for kind, gap in run.margins.items()}}
    greedy = {"prompt": run.ids, "continuation": run.new} | rounded
    if case.rounded_cache:
        greedy["cache"] = "fp8_e4m3+fp4-index" if case.fp4_index else "fp8_e4m3"
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in greedy.items())
    (directory / "greedy.json").write_text("{\n" + lines + "\n}\n")
    note = {"why": case.why, "seed": run.seed, "prompt": case.prompt, "new": NEW_TOKENS,
            "margins": {kind: f"{gap:.1e}" for kind, gap in run.margins.items()},
            "token gap": f"{min(run.gaps):.1e}", "other path": f"{difference:.1e}",
            "versions": f"transformers {transformers.__version__}, torch {torch.__version__}"}
    if case.rounded_cache:
        note["margins"]["rounding"] = f"{run.rounding:.1e}"
    (directory / "note.json").write_text(json.dumps(note, indent=2) + "\n")
    print(name, note, flush=True)


MANIFEST = """# Golden values

Made by `python Oracle/make_goldens.py` with the versions in a case's `note.json`, or where it has none with transformers
5.23.0 and torch 2.13.0+cpu (float32, its eager code, one thread). Do not edit; make them anew. Other versions or another
processor may change the last bits of the values, never a decision.

Each case holds `checkpoint/` (released names and keys, random weights), `stages.safetensors` (every stage of one
forward over the prompt) and `greedy.json` (the prompt, its greedy continuation, logprobs, gaps to the second token).

Margins are the smallest gap at any cut between chosen and refused, over prompt and continuation, in standard
deviations of such scores over all rows; seeds were tried until all were at least {clear:.0e}. Where the cache rounds
keys, "rounding" is how near a key came to being rounded otherwise, relative to the largest with its scale, at least
{rounding:.0e}; `greedy.json` then names the cache. "Other path" is the
largest difference of a logit when the source computes with other code (SDPA attention, batched experts). Greedy
tokens were equal with chunked prefill and a cache.

Stages: `layers.N.` + `attention_norm`, `query_latent` (after its norm), `latent` (after its norm), `index_scores`
`[row, position]` (-inf where not causal), `selected` `[row, index_topk]` (ascending positions, -1 after the last),
`attention` (after the output projection, before the residual), `feed_forward_norm`, `gate_experts` (ascending),
`gate_weights` (same order, scaled), `feed_forward` (before the residual), `output` (the residual stream); and `ids`,
`final_norm`, `logits`. Where there is a next-token block, `drafts`: its logits of the token after next of every
position that has a next token, then of {drafts} rows more, fed with their own states and best tokens. All `[row, …]`, F32
or I32; of long prompts only the last rows. In V4, index scores and selections are of compressed entries of four tokens
each, and `output` is the residual streams.

| case | what it holds | seed | prompt + new | margins | token gap | other path |
|---|---|---|---|---|---|---|
{rows}

| SHA-256 | bytes | file |
|---|---|---|
{files}
"""


def write_manifest():
    rows, files = [], []
    for name in CASES:
        note = json.loads((GOLDEN / name / "note.json").read_text())
        margins = ", ".join(f"{kind} {gap}" for kind, gap in note["margins"].items())
        rows.append(f"| {name} | {note['why']} | {note['seed']} | {note['prompt']} + {note['new']} | {margins} | "
                    f"{note['token gap']} | {note['other path']} |")
    for path in sorted(GOLDEN.rglob("*")):
        if path.is_file() and path.name != "MANIFEST.md":
            data = path.read_bytes()
            files.append(f"| `{hashlib.sha256(data).hexdigest()}` | {len(data)} | {path.relative_to(GOLDEN)} |")
    (GOLDEN / "MANIFEST.md").write_text(MANIFEST.format(
        clear=CLEAR_DECISION, rounding=CLEAR_ROUNDING, drafts=DRAFTS - 1,
        rows="\n".join(rows), files="\n".join(files)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)} (default: all)")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    for name in options.cases or CASES:
        make(name, CASES[name])
    write_manifest()


if __name__ == "__main__":
    main()
