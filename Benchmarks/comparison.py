"""Braid, transformers and llama.cpp on the same weights and prompts, one after the other, and Braid's roofline."""

import json
import pathlib
import statistics
import sys
import tempfile

import checkpoints
from harness import BRAID, Section, braid, lines, run, table
from server import Server

SCORED = 1024
CHUNK = "4096"  # prompt tokens of one of Braid's steps
COMPUTED = "4096"  # positions of a context before decoding: the others' keys are copies


PEERS = ("transformers", "llama")


def peer(name, case, model, lengths, options):
    types = ("f32",) if case == "scores" else ("bf16", "f16")
    directory = checkpoints.gguf(model, types) if name == "llama" else checkpoints.checkpoint(model)
    return lines(sys.executable, f"Benchmarks/peers/{name}_peer.py", case, "--model", directory,
                 "--lengths", ",".join(map(str, lengths)), "--threads", options.threads,
                 limit=options.limit * options.threads)


def peers(options):
    section = Section("peers")
    ranks = ("--attn-cp-size", str(options.threads)) if options.threads > 1 else ()
    peaks = measured_peaks(options.threads)
    section.facts |= {"threads": options.threads, "limit_processor_seconds": options.limit, "peaks": peaks}
    small = checkpoints.checkpoint("small")
    if not options.no_peers:
        agreement(section, small, options)

    if options.prefill:
        compare_prefill(section, small, options, peaks, ranks)
    for model in options.decoding_models:
        compare_decode(section, model, options, peaks, ranks)


def compare_prefill(section, small, options, peaks, ranks):
    points = braid("bench", "prefill", "--model-path", small, "--lengths", ",".join(map(str, options.prefill)),
                   "--chunked-prefill-size", CHUNK, "--warmup", "0", "--repeat", options.repeat, "--json", *ranks)
    others = {}
    for name in () if options.no_peers else PEERS:
        results, reason = peer(name, "prefill", "small", options.prefill, options)
        others[name] = {point["tokens"]: point for point in results}, reason
    report(section, "small", "prefill", points, others, peaks, "seconds", options)


def compare_decode(section, model, options, peaks, ranks):
    points = braid("bench", "decode", "--model-path", checkpoints.checkpoint(model), "--lengths",
                   ",".join(map(str, options.decode)), "--batch", "1", "--computed-tokens", COMPUTED,
                   "--chunked-prefill-size", CHUNK, "--json", *ranks)
    others = {}
    for name in () if options.no_peers else PEERS:
        found, reasons = {}, {}
        for length in options.decode:
            results, reasons[length] = peer(name, "decode", model, [length], options)
            if results:
                found[length] = min(results, key=lambda point: point["processor_seconds"])
        others[name] = found, "; ".join(sorted({reason for reason in reasons.values() if reason}))
    report(section, model, "decode", points, others, peaks, "tpot_seconds", options)
    near, far = points[0], points[-1]
    print(f"a token at {far['tokens']} takes {far['tpot_seconds'] / near['tpot_seconds']:.2f} times one at "
          f"{near['tokens']}")


# ------------------------------------------------------------------------------------------------- the same numbers?


def agreement(section, model, options):
    """Tells whether the three compute the same: log-probabilities and best tokens of one random prompt, in F32."""
    scores = {}
    for name in PEERS:
        results, reason = peer(name, "scores", "small", [SCORED], options)
        if reason:
            sys.exit(f"bench: {name} gives no scores: {reason}")
        scores[name] = results[0]
    sys.path.insert(0, "Benchmarks/peers")
    import measuring
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    tokens = measuring.prompt(SCORED, vocabulary)
    with Server(model, "--dtype", "float32") as server:
        meta = server.post("/generate", {
            "input_ids": tokens, "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": 1,
            "sampling_params": {"temperature": 0, "max_new_tokens": 1}})["meta_info"]
    logprobs = [entry[0] for entry in meta["input_token_logprobs"][1:]]
    best = [entries[0][1] for entries in meta["input_top_logprobs"][1:]]
    rows = []
    for name, other in scores.items():
        differences = [abs(a - b) for a, b in zip(logprobs, other["logprobs"])]
        same = sum(a == b for a, b in zip(best, other["best"])) / len(best)
        result = {"case": "agreement", "peer": name, "tokens": SCORED, "same_best_tokens": same,
                  "median_logprob_difference": statistics.median(differences),
                  "largest_logprob_difference": max(differences)}
        section.add(**result)
        rows.append([name, f"{same:.1%}", f"{statistics.median(differences):.1e}", f"{max(differences):.1e}"])
    table(f"the same numbers as Braid? {SCORED} random tokens, F32 (behind 512 positions, near-ties of the indexer may "
          "be chosen differently)", ["peer", "same best tokens", "median |Δ log p|", "largest"], rows)


# --------------------------------------------------------------------------------------------------------- the roofline


def measured_peaks(threads):
    """The processor's limits, measured now: operations and bytes a second."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "peaks.json"
        run(BRAID, "bench", "kernels", "--model-path", "Benchmarks/models/small", "--only", "no operation", "--json",
            file)
        peak = next(peak for peak in json.loads(file.read_text())["peaks"] if peak["threads"] == threads)
    # Products are made of tiles where the processor has them: the checkpoints' weights are BF16.
    flops = peak["tile_gflops_per_second"] or peak["fma_gflops_per_second"]
    return {"flops": flops * 1e9, "bytes": peak["memory_gbytes_per_second"] * 1e9}


def roofline(point, peaks):
    """Seconds that counted operations and bytes take at least; parts of a step come one after the other."""
    return sum(max(part["operations"] / peaks["flops"], part["bytes"] / peaks["bytes"])
               for part in point["work"].values())


# ---------------------------------------------------------------------------------------------------------- the tables


def report(section, model, case, points, others, peaks, key, options):
    """A row for each length: Braid, each peer with its ratio, and the share of the roofline.

    `processor_seconds` are what counts where the machine is shared: of one thread, both are the same when it is not.
    """
    unit, factor = ("s", 1) if case == "prefill" else ("ms", 1e3)
    columns = ["tokens", f"Braid {unit}", "processor", "of roofline"]
    for name in others:
        columns += [f"{name} {unit}", "processor", "ratio", "by processor"]
    rows = []
    notes = [f"{name}: {reason}, so something is missing" for name, (_, reason) in others.items() if reason]
    for point in points:
        own, work = point[key], point.get("processor_seconds")
        share = roofline(point, peaks) / ((work / options.threads) if work else own)
        section.add(case=case, model=model, tokens=point["tokens"], engine="braid", seconds=own, processor_seconds=work,
                    roofline_seconds=roofline(point, peaks), roofline_share=share, threads=point["threads"])
        row = [point["tokens"], f"{own * factor:.2f}", f"{work * factor:.2f}" if work else "-", f"{share:.0%}"]
        for name, (found, reason) in others.items():
            other = found.get(point["tokens"])
            if other is None:
                section.add(case=case, model=model, tokens=point["tokens"], engine=name, not_measured=reason)
                # Of prefill the limit is a bound: it was not done by then.
                bound = reason.startswith("not done in") and case == "prefill" and work
                row += ["-", "-", "-", f"> {options.limit * options.threads / work:.1f}" if bound else "-"]
                continue
            section.add(engine=name, model=model, ratio=other["seconds"] / own, **other)
            row += [f"{other['seconds'] * factor:.2f}", f"{other['processor_seconds'] * factor:.2f}",
                    f"{other['seconds'] / own:.1f}", f"{other['processor_seconds'] / work:.1f}" if work else "-"]
            if other["tokens"] == points[0]["tokens"]:
                notes.append(f"{name} is {other['peer']}; its fastest variant: {other['variant']}")
        rows.append(row)
    title = "prefill of a whole prompt" if case == "prefill" else "a token more behind a context, one request"
    table(f"{model} model, {title}; {options.threads} threads; the ratio is the peer's time to Braid's", columns, rows)
    for note in notes:
        print(note)
    section.write()
