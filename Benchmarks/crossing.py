"""Measures the cost of ranks in several processes: the same layouts as threads of one process, as processes, and on
hosts made of network namespaces."""

import os
import shutil
import statistics
import subprocess

from harness import BRAID, Section, command_lines, table

TURNS = 3
CONTEXT = 1024
STEPS = 32


def places(ranks):
    """The places where ranks can run, and how a command is started there."""
    start = ["mpirun", "--oversubscribe", "--bind-to", "none"]
    if os.geteuid() == 0:
        start.append("--allow-run-as-root")
    yield "threads", []
    for count in sorted({2, ranks}):
        yield f"{count} processes", [*start, "-np", str(count)]
    for count in sorted({2, ranks}):
        yield f"{count} hosts", ["Scripts/namespaces", str(count)]


def reason_not_to_run(start):
    """The reason why nothing can be started there, or None."""
    if not start:
        return None
    if not shutil.which("mpirun"):
        return "there is no mpirun; make setup installs it"
    if start[0] != "Scripts/namespaces":
        return None
    said = subprocess.run([*start, "true"], stdout=subprocess.PIPE, text=True).stdout.strip()
    return said.removeprefix("NOT RUN: ") if said.startswith("NOT RUN") else None


def measure(model, start, ranks):
    """Seconds of a prompt, seconds of a step after it, and for both what ranks exchanged."""
    flags = ["--model-path", model, "--load-format", "dummy", "--attn-cp-size", str(ranks), "--lengths", str(CONTEXT),
             "--json"]
    prefill, = command_lines(*start, BRAID, "bench", "prefill", *flags, "--warmup", "0", "--repeat", "1")
    decode, = command_lines(*start, BRAID, "bench", "decode", *flags, "--batch", "1", "--steps", str(STEPS))
    return prefill, decode


def crossing(options):
    section, rows, operations = Section("crossing"), [], []
    for ranks in (2, 4):
        found = {}
        for place, start in places(ranks):
            reason = reason_not_to_run(start)
            if reason:
                print(f"NOT RUN: {ranks} ranks on {place}: {reason}", flush=True)
                section.add(ranks=ranks, place=place, not_run=reason)
            else:
                found[place] = (start, [])
        # Alternately, so that other load of the machine affects all alike.
        for _ in range(TURNS):
            for start, seen in found.values():
                seen.append(measure(options.model, start, ranks))
        alone = None
        for place, (_, seen) in found.items():
            seconds = (statistics.median(prefill["seconds"] for prefill, _ in seen),
                       statistics.median(decode["tpot_seconds"] for _, decode in seen))
            alone = alone or seconds
            ratios = [own / threads for own, threads in zip(seconds, alone)]
            prefill, decode = seen[0]
            section.add(ranks=ranks, place=place, turns=TURNS, tokens=CONTEXT, prefill_seconds=seconds[0],
                        prefill_ratio=ratios[0], decode_seconds=seconds[1], decode_ratio=ratios[1],
                        decode_steps=STEPS, prefill_operations=prefill["operations"],
                        decode_operations=decode["operations"])
            rows.append([ranks, place, f"{seconds[0]:.2f}", f"{ratios[0]:.2f}", f"{seconds[1] * 1e3:.2f}",
                         f"{ratios[1]:.2f}",
                         *(f"{point['bytes_measured'] / 1e6:.2f} / {point['bytes_predicted'] / 1e6:.2f}"
                           for point in seen[0])])
            for name, cost in prefill["operations"].items():
                per_step = decode["operations"].get(name, {"bytes_measured": 0, "bytes_predicted": 0, "seconds": 0})
                operations.append([
                    ranks, place, name, f"{cost['bytes_measured'] / 1e6:.2f} / {cost['bytes_predicted'] / 1e6:.2f}",
                    f"{cost['seconds'] / ranks:.3f}",
                    f"{per_step['bytes_measured'] / STEPS:.0f} / {per_step['bytes_predicted'] / STEPS:.0f}",
                    f"{per_step['seconds'] / STEPS / ranks * 1e3:.3f}"])
    table(f"the same layout in several processes: context ranks, {CONTEXT} tokens, then {STEPS} steps behind them; "
          "ratios are to threads, bytes those all ranks got, measured / predicted",
          ["ranks", "where", "prefill s", "ratio", "decode ms", "ratio", "prefill MB", "decode MB"], rows)
    table("by operation, of the first turn; seconds are a rank's, waiting included",
          ["ranks", "where", "operation", "prefill MB", "prefill s", "bytes a step", "ms a step"], operations)
    section.write()
