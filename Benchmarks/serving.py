"""Measures the cost of serving: 32 clients of a server against the same requests in the engine itself."""

import json
import pathlib
import tempfile

from harness import BRAID, Section, run, table
from server import Server

MODEL = "Models/demo"
TRAFFIC = ("--num-prompts", "128", "--max-concurrency", "32", "--random-input-len", "1024", "--random-output-len",
           "128", "--random-range-ratio", "1")
ROUNDS = 3  # of each, alternately


def serving(options):
    section = Section("serving")
    section.facts |= {"model": MODEL, "traffic": " ".join(TRAFFIC)}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            file = pathlib.Path(folder) / f"{number}.json"
            run(BRAID, "bench", "offline", "--model-path", MODEL, *TRAFFIC, "--output-file", file)
            with Server(MODEL) as server:
                run(BRAID, "bench", "serving", "--port", server.port, *TRAFFIC, "--probe-health",
                    "--output-file", file)
            offline, served = (json.loads(line) for line in file.read_text().splitlines())
            share = served["output_throughput"] / offline["output_throughput"]
            section.add(offline=offline["output_throughput"], served=served["output_throughput"], share=share,
                        p99_health_ms=served["p99_health_ms"], p99_ttft_ms=served["p99_ttft_ms"],
                        median_tpot_ms=served["median_tpot_ms"])
            rows.append([f"{offline['output_throughput']:.0f}", f"{served['output_throughput']:.0f}", f"{share:.1%}",
                         f"{served['median_health_ms']:.1f}", f"{served['p99_health_ms']:.1f}"])
    table("output tokens a second, 32 at a time, 1024 tokens in and 128 out: the engine alone, and served; "
          "milliseconds of /health meanwhile", ["engine", "served", "share", "/health median", "p99"], rows)
    section.write()
