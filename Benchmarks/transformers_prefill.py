#!/usr/bin/env python3
"""Times the prefill of T tokens by Hugging Face transformers on the CPU, with random weights of a configuration.

    python Benchmarks/transformers_prefill.py --model Benchmarks/models/small --tokens 4096 --threads 2

Prints one line of JSON: {"peer": "transformers", "tokens": T, "threads": N, "seconds": median, ...}.

The peer gets its better side: SDPA attention, and of {float32, bfloat16} x {grouped_mm, eager experts} the pair that
runs a short prefill fastest on this processor (`auto`, the default of both; the line says which, and the trials). The
prompt goes in chunks, because transformers makes tensors of [heads, chunk, context] and larger; with one model of this
kind, chunks of 128 to 512 took the least processor time. Only the last row's logits are computed.
"""

import argparse
import json
import pathlib
import resource
import statistics
import time

import torch
import transformers

TRIAL_TOKENS = 256
DTYPES = ("float32", "bfloat16")
EXPERTS = ("grouped_mm", "eager")


def random_model(directory, attention):
    """A float32 model with weights of a usual size, filled faster than its own initialization would."""
    config = transformers.AutoConfig.from_pretrained(directory)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, attn_implementation=attention)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 1:
            tensor.fill_(0.0 if name.endswith(("bias", "e_score_correction_bias")) else 1.0)
        else:
            tensor.uniform_(-1.0, 1.0, generator=generator).mul_((3.0 / tensor.shape[-1]) ** 0.5)
    # Frequencies are not in the state; they were computed on "meta" and are made anew.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    return model.eval()


@torch.inference_mode()
def prefill(model, ids, chunk):
    """Seconds for one prefill of `ids` with a key/value cache, the last row's logits included."""
    cache = transformers.DynamicCache(config=model.config)
    start = time.perf_counter()
    for at in range(0, len(ids), chunk):
        step = model(input_ids=ids[at:at + chunk].unsqueeze(0), past_key_values=cache, use_cache=True, logits_to_keep=1)
    seconds = time.perf_counter() - start
    if not torch.isfinite(step.logits).all():
        raise SystemExit("the logits are not finite; this was no prefill worth timing")
    return seconds


def trial(model, ids):
    """The faster of two short runs after one that warms up."""
    return min([prefill(model, ids[:TRIAL_TOKENS], TRIAL_TOKENS) for _ in range(3)][1:])


def in_dtype(model, name):
    """The model with matrices in `name`; the router's bias stays float32, as released."""
    bias = {key: value.clone() for key, value in model.named_buffers() if "e_score_correction_bias" in key}
    model.to(getattr(torch, name))
    for key, value in bias.items():
        owner, leaf = key.rsplit(".", 1)
        setattr(model.get_submodule(owner), leaf, torch.nn.Buffer(value))
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a directory with config.json")
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", choices=("auto", *DTYPES), default="auto")
    parser.add_argument("--chunk", type=int, default=512, help="tokens of one forward")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    parser.add_argument("--experts", choices=("auto", *EXPERTS), default="auto")
    parser.add_argument("--memory", type=float, help="GiB of address space at most; beyond it the run fails")
    options = parser.parse_args()
    if min(options.tokens, options.chunk, options.runs, options.threads) < 1:
        parser.error("--tokens, --chunk, --runs and --threads are at least 1")
    if options.memory:
        resource.setrlimit(resource.RLIMIT_AS, (int(options.memory * 2**30),) * 2)

    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    model = random_model(options.model, options.attention)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, model.config.vocab_size, (max(options.tokens, TRIAL_TOKENS),), generator=generator)
    trials = {}
    for dtype in DTYPES if options.dtype == "auto" else (options.dtype,):
        model = in_dtype(model, dtype)
        for experts in EXPERTS if options.experts == "auto" else (options.experts,):
            model.set_experts_implementation(experts)
            trials[dtype, experts] = trial(model, ids)
    dtype, experts = min(trials, key=trials.get)
    model = in_dtype(model, dtype)
    model.set_experts_implementation(experts)
    seconds = [prefill(model, ids[:options.tokens], options.chunk) for _ in range(options.runs)]
    print(json.dumps({
        "peer": "transformers", "tokens": options.tokens, "threads": options.threads,
        "seconds": round(statistics.median(seconds), 4), "dtype": dtype,
        "slowest": round(max(seconds), 4), "fastest": round(min(seconds), 4), "runs": options.runs,
        "chunk": options.chunk, "attention": options.attention, "experts": experts,
        "trials": {" ".join(names): round(value, 4) for names, value in trials.items()},
        "model": options.model.name, "version": transformers.__version__, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
