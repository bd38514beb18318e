"""What `braid plan` predicts for this machine against what it does: six layouts of each benchmark model."""

import json
import pathlib
import statistics
import tempfile

from harness import Section, braid, braid_bench, run, table

# Prompt tokens by model. Decode steps come behind them.
TOKENS = {"small": 4096, "large": 2048}
STEPS = 32
# Ranks, and the words of a layout's name.
LAYOUTS = [(1, "one"), (2, "cp2 ep2 interleave gathered"), (2, "cp2 ep2 interleave alltoall"), (2, "tp2 ep2 dense2 gathered"),
           (2, "tp2 etp2 dense2 gathered"), (2, "dp2 ep2 gathered")]


def predictions(model, hardware, tokens):
    """Every layout's prediction by its name, on one core and on two."""
    found = {}
    for ranks in (1, 2):
        device = json.loads(hardware.read_text()) | {"devices_per_host": ranks}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(device, file)
            file.flush()
            plan, = braid("plan", "--model-path", model, "--hardware", file.name, "--input-tokens", tokens,
                          "--output-tokens", STEPS, "--concurrency", 1, "--chunked-prefill-size", tokens, "--top", 10000,
                          "--json")
        found |= {layout["layout"]: layout for layout in plan["layouts"]}
    return found


def plan(options):
    """Predictions are compared with the processor time of a rank: on a busy machine the clock measures other programs."""
    section, rows, errors = Section("plan"), [], {"ttft": [], "tpot": []}
    for name, tokens in TOKENS.items():
        model = f"Benchmarks/models/{name}"
        with tempfile.TemporaryDirectory() as folder:
            hardware = pathlib.Path(folder) / "this.json"
            run(".build/release/braid", "plan", "--measure", hardware, "--model-path", model)
            found = predictions(model, hardware, tokens)
        for ranks, layout in LAYOUTS:
            predicted, flags = found[layout], found[layout]["layout_flags"]
            prefill, = braid_bench("prefill", model, tokens, "--chunked-prefill-size", tokens, "--warmup", 0, "--repeat",
                                   options.repeat, *flags)
            decode, = braid_bench("decode", model, tokens, "--chunked-prefill-size", tokens, "--batch", 1, "--steps", STEPS,
                                  *flags)
            for quantity, point, key in (("ttft", prefill, "seconds"), ("tpot", decode, "tpot_seconds")):
                # Data groups get a prompt each only where several are sent; one prompt keeps one of them busy.
                busy = 1 if layout.startswith("dp") else ranks
                measured = point["processor_seconds"] / busy
                value = predicted[quantity]["value"]
                errors[quantity].append(value / measured - 1)
                section.add(model=name, layout=layout, quantity=quantity, predicted=value, measured=measured,
                            seconds=point[key], error=value / measured - 1)
                rows.append([name, layout, quantity, f"{value * 1e3:.1f}", f"{measured * 1e3:.1f}", f"{point[key] * 1e3:.1f}",
                             f"{100 * (value / measured - 1):+.0f} %"])
    table("predicted against a rank's processor time", ["model", "layout", "quantity", "predicted ms", "measured ms", "clock ms",
                                                        "error"], rows)
    for quantity, found in errors.items():
        sizes = [abs(error) for error in found]
        print(f"{quantity}: median error {100 * statistics.median(sizes):.0f} %, worst {100 * max(sizes):.0f} %, "
              f"{len(sizes)} layouts")
    section.write()
