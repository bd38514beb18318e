"""oneDNN's matrix products at the shapes that `braid bench kernels` measured, written beside them in its file.

    .build/release/braid bench kernels --model-path Benchmarks/models/small --json kernels.json
    python Benchmarks/onednn_matmul.py kernels.json

oneDNN is the one inside PyTorch. It gets one thread, weights in the layout it likes best for that many rows (packing is
not counted), and other weights in every run, so that they come from main memory as in `braid bench kernels`. BF16 means
BF16 weights and activations; Braid's activations stay F32.
"""

import argparse
import json
import math
import statistics
import time

import torch

TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
COLD_BYTES = 512 << 20  # weights read before any is read again: more than the caches hold
MOST_COPIES = 1024


def gflops(rows, outputs, inputs, dtype, repeat):
    """The median of some runs."""
    x = torch.rand(rows, inputs).to(dtype)
    weight = torch.rand(outputs, inputs).to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    copies = min(MOST_COPIES, math.ceil(COLD_BYTES / (weight.numel() * weight.element_size())))
    weights = [packed.clone() for _ in range(copies)]
    operations = 2 * rows * outputs * inputs
    runs = max(1, min(copies, int(2e8 / operations)))  # a few milliseconds together
    rates, place = [], 0
    for number in range(repeat + 1):
        start = time.thread_time()
        for _ in range(runs):
            torch.ops.mkldnn._linear_pointwise(x, weights[place], None, "none", [], "")
            place = (place + 1) % copies
        if number:  # the first makes oneDNN's code
            rates.append(runs * operations / (time.thread_time() - start) / 1e9)
    return statistics.median(rates)


def main():
    parser = argparse.ArgumentParser(description="oneDNN at the shapes of `braid bench kernels --json FILE`.")
    parser.add_argument("file", help="what it wrote; oneDNN's rates are added to it")
    parser.add_argument("--repeat", type=int, default=9, help="measurements of each product; medians count")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with open(options.file) as file:
        results = json.load(file)
    results["onednn"] = next(
        line.split("MKL-DNN")[1].split()[0] for line in torch.__config__.show().splitlines() if "MKL-DNN" in line)
    print(f"oneDNN {results['onednn']} of PyTorch {torch.__version__}, one thread; GFLOP/s, ratio of Braid's to oneDNN's")
    print(f"{'product':32}{'type':>6}{'rows':>6}{'braid':>10}{'oneDNN':>10}{'ratio':>8}")
    for measured in results["operations"]:
        if measured["operation"] != "matmul" or measured["type"] not in TYPES:
            continue
        rate = gflops(measured["rows"], measured["outputs"], measured["inputs"], TYPES[measured["type"]],
                      options.repeat)
        own = measured["gflops_per_second"]
        measured["onednn_gflops_per_second"] = rate
        print(f"{measured['shape']:32}{measured['type']:>6}{measured['rows']:>6}{own:>10.1f}{rate:>10.1f}"
              f"{own / rate:>8.2f}", flush=True)
    with open(options.file, "w") as file:
        file.write(text(results))


def text(results):
    """As `braid bench kernels` writes it: a line for each operation."""
    def member(name, value):
        if isinstance(value, list):
            lines = ",\n".join("    " + json.dumps(item, ensure_ascii=False) for item in value)
            return f'  "{name}": [\n{lines}\n  ]'
        return f'  "{name}": {json.dumps(value, ensure_ascii=False)}'
    return "{\n" + ",\n".join(member(*item) for item in results.items()) + "\n}\n"


if __name__ == "__main__":
    main()
