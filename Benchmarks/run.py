#!/usr/bin/env python3
"""Measures Braid on this machine, in sections; all of them when none is named.

kernels  each operation of a layer against the processor's limits and oneDNN
layers   one layer of each kind at the real sizes of V3.2 and V4-Flash, and what follows for the whole model
peers    prefill and decode against transformers and llama.cpp, and against the roofline
ranks    prefill on several ranks, in every strategy and exchange
crossing the same layouts as threads, as processes, and on hosts made of network namespaces
keys     decode of one request by how many ranks own its keys
drafts   decode of the embedded model with 0 to 3 draft tokens
serving  a server with 32 clients against the engine without a server, and /health meanwhile
loading  the first token of a cold start against reading the checkpoint once
plan     what braid plan predicts for this machine against what it does

Each section prints tables and writes Benchmarks/results/SECTION.json with processor, commit and date. On a busy machine
only ratios mean something, best those of processor time.
"""

import argparse
import pathlib
import re
import statistics
import subprocess
import sys

import comparison
import crossing
import loading
import planning
import serving
from harness import BRAID, RESULTS, Section, braid, braid_bench, run, table

DEMO = "Models/demo"


def kernels(options):
    """Every operation of a layer of the small model, and of one of eight ranks of DeepSeek-V3.2."""
    section = Section("kernels")
    for model, ranks in (("small", "1"), ("v3.2", "8")):
        file = f"{RESULTS}/kernels-{model}.json"
        RESULTS.mkdir(exist_ok=True)
        run(".build/release/braid", "bench", "kernels", "--model-path", f"Benchmarks/models/{model}",
            "--tp-size", ranks, "--json", file, "--commit", section.facts["commit"])
        if not options.no_peers:
            run(sys.executable, "Benchmarks/onednn_matmul.py", file)


def layers(options):
    """Weights as released and, of V3.2, in each of the other formats: what a model that does not fit here would do."""
    section, rows = Section("layers"), []
    for model, weights in (("v3.2", "stored,bfloat16,int8"), ("v4-flash", "stored")):
        for point in braid("bench", "layer", "--model-path", f"Benchmarks/models/{model}", "--weights", weights,
                           "--batch", "1,8,64", "--context", "4096", "--prefill", "1024",
                           "--threads-per-rank", str(options.threads), "--json"):
            section.add(**point)
            name = point.get("layer", "whole model")
            rows.append([model, point["weights"], name, point.get("layers", ""), point["rows"], point["context"],
                         f"{point['seconds'] * 1e3:.2f}", f"{point['limit_seconds'] * 1e3:.2f}", f"{point['share']:.0%}"])
    table("layers at real sizes; a context of 0 is a prompt's",
          ["model", "weights", "layer", "× layers", "rows", "context", "ms", "limit ms", "share"], rows)
    section.write()


def layouts():
    """Flags of one rank, of one with two threads, then of context degrees 2 and 8 in every strategy and both exchanges."""
    yield ()
    yield ("--threads-per-rank", "2")
    for degree in ("2", "8"):
        for strategy in ("interleave", "zigzag"):
            for exchange in ("none", "alltoall"):
                yield ("--attn-cp-size", degree, "--cp-strategy", strategy, "--moe-a2a-backend", exchange)


def ranks(options):
    section, rows, alone = Section("ranks"), [], {}
    for flags in layouts():
        chosen = dict(zip(flags[::2], flags[1::2]))
        for point in braid_bench("prefill", options.model, options.rank_lengths, "--chunked-prefill-size", "4096",
                                 "--warmup", "0", "--repeat", str(options.repeat), *flags):
            tokens, seconds = point["tokens"], point["seconds"]
            alone.setdefault(tokens, seconds)
            section.add(**point, ratio=alone[tokens] / seconds)
            rows.append([tokens, point["ranks"], point["threads"], chosen.get("--cp-strategy", "-"),
                         chosen.get("--moe-a2a-backend", "-"), f"{seconds:.2f}", f"{alone[tokens] / seconds:.2f}",
                         *(f"{point[key] / 1e6:.1f}" for key in ("bytes_measured", "bytes_predicted"))])
    table("prefill on several ranks or threads; the ratio is one rank's seconds to the layout's",
          ["tokens", "ranks", "threads", "strategy", "exchange", "seconds", "ratio", "MB moved", "MB predicted"], rows)
    section.write()


def keys(options):
    """Runs of four tokens, the longest with which two owners keep one rank's bits, are read faster from a cache that is
    shared."""
    section, rows = Section("keys"), []
    for model, lengths, *flags in ((options.model, "4K", "--dcp-sizes", "1,2,4,8", "--load-format", "dummy"),
                                   (DEMO, "4K,32K", "--dcp-sizes", "1,2,4,8"),
                                   (DEMO, "4K,32K", "--dcp-sizes", "1,2", "--dcp-interleave", "4")):
        for point in braid("bench", "decode", "--model-path", model, "--lengths", lengths, "--batch", "1", "--steps", "64",
                           "--chunked-prefill-size", "4096", "--json", *flags):
            unit = flags[flags.index("--dcp-interleave") + 1] if "--dcp-interleave" in flags else "1"
            section.add(**point, unit=unit)
            rows.append([point["model"], point["tokens"], point["dcp_size"], unit,
                         f"{point['tpot_seconds'] * 1e3:.2f}", f"{point['tpot_ratio']:.2f}",
                         f"{point['processor_seconds'] * 1e3:.2f}", f"{point['processor_ratio']:.2f}",
                         point["tokens_per_gib"]])
    table("decode of one request by how many ranks own its keys; ratios are to one owner",
          ["model", "context", "owners", "unit", "ms/token", "ratio", "processor ms/token", "ratio", "tokens/GiB of a rank"],
          rows)
    section.write()


def drafts(options):
    """Text that the embedded model generates after 17,000 tokens of prose."""
    section, rows, alone = Section("drafts"), [], None
    command = [BRAID, "generate", "--model-path", DEMO, "--prompt-file", f"{DEMO}/prompts/passkey-17k-prose.txt",
               "--max-new-tokens", "300", "--ignore-eos"]
    found = {count: [] for count in range(4)}
    # Alternately, so that other load of the machine affects all alike.
    for _ in range(3):
        for count, seen in found.items():
            flags = ["--speculative-algorithm", "NEXTN", "--speculative-num-steps", str(count)] if count else []
            said = subprocess.run(command + flags, check=True, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
            length = re.search(r"accept length ([0-9.]+)", said.stderr)
            seen.append((int(re.search(r"at (\d+) tokens/s", said.stderr)[1]), float(length[1]) if length else 1.0))
    for count, seen in found.items():
        rate, length = statistics.median(rate for rate, _ in seen), seen[0][1]
        alone = alone or rate
        section.add(drafts=count, tokens_per_second=rate, accept_length=length, ratio=rate / alone)
        rows.append([count, rate, f"{length:.2f}", f"{rate / alone:.2f}"])
    table("decode of the embedded model by the number of draft tokens", ["drafts", "tokens/s", "accept length", "ratio"], rows)
    section.write()


def lengths(text):
    return sorted(int(part) for part in text.split(",") if part)


SECTIONS = {"kernels": kernels, "layers": layers, "peers": comparison.peers, "ranks": ranks, "crossing": crossing.crossing, "keys": keys,
            "drafts": drafts, "serving": serving.serving, "loading": loading.loading,
            "plan": planning.plan}


def main():
    parser = argparse.ArgumentParser(
        prog="Scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--model", type=pathlib.Path, default="Benchmarks/models/small",
                        help="for ranks, crossing and keys")
    parser.add_argument("--rank-lengths", default="8192,32768", help="prompt lengths for ranks")
    parser.add_argument("--repeat", type=int, default=1, help="passes over each prompt; medians are shown")
    parser.add_argument("--threads", type=int, default=1, help="of each peer; Braid gets as many ranks; of a measured layer's rank")
    parser.add_argument("--prefill", type=lengths, default=(4096, 16384, 32768), help="prompt lengths for peers; empty for none")
    parser.add_argument("--decode", type=lengths, default=(4096, 65536), help="contexts to decode behind, for peers")
    parser.add_argument("--decoding-models", type=lambda text: text.split(","), default=("small", "large"),
                        help="for peers")
    parser.add_argument("--limit", type=float, default=300,
                        help="processor seconds, per thread, a peer may take for its prompts and for each context")
    parser.add_argument("--no-peers", action="store_true", help="Braid alone")
    options = parser.parse_args()
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"there is no section '{name}'; there are {', '.join(SECTIONS)}")
    for name in options.sections or SECTIONS:
        SECTIONS[name](options)


if __name__ == "__main__":
    main()
