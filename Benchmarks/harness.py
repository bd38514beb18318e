"""Runs commands with a time limit, keeps results with the facts about the machine, prints tables."""

import datetime
import json
import os
import pathlib
import platform
import resource
import selectors
import signal
import subprocess
import sys
import time

RESULTS = pathlib.Path("Benchmarks/results")
BRAID = ".build/release/braid"


def run(*command, limit=None):
    """Runs a command to its end; what it prints goes to the terminal."""
    print("$", *command, flush=True)
    try:
        subprocess.run([str(part) for part in command], check=True, timeout=limit)
    except subprocess.CalledProcessError as error:
        sys.exit(f"bench: exit status {error.returncode}")


def lines(*command, limit):
    """Runs a command that prints a line of JSON for each result.

    `limit` is in seconds of processor time, so that what else the machine does decides nothing; a command that waits
    instead of working is ended after ten times as long. What it has printed by then is kept.

    Returns the results, and why it did not end well, or None.
    """
    def restrict():
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))

    print("$", *command, flush=True)
    began, patience = time.monotonic(), 10 * limit
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=restrict)
    kept, selector = {process.stdout: b"", process.stderr: b""}, selectors.DefaultSelector()
    for stream in kept:
        selector.register(stream, selectors.EVENT_READ)
    reason = None
    while selector.get_map():
        left = began + patience - time.monotonic()
        if left <= 0 and reason is None:
            reason = f"not done after {patience:.0f} s"
            process.kill()
        for key, _ in selector.select(max(left, 0.1)):
            data = os.read(key.fd, 1 << 16)
            kept[key.fileobj] += data
            if not data:
                selector.unregister(key.fileobj)
    status = process.wait()
    if status == -signal.SIGXCPU:
        reason = f"not done in {limit:.0f} s of processor time"
    elif reason is None and status:
        said = kept[process.stderr].decode(errors="replace").strip().splitlines()
        reason = f"exit status {status}" + (f": {said[-1][:200]}" if said else "")
    results = [json.loads(line) for line in kept[process.stdout].decode().splitlines() if line.startswith("{")]
    return results, reason


def command_lines(*command, limit=36000):
    """Lines of JSON of a command, which must succeed."""
    results, reason = lines(*command, limit=limit)
    if reason:
        sys.exit(f"bench: {reason}")
    return results


def braid(*command, limit=36000):
    """The same of a command of Braid."""
    return command_lines(BRAID, *command, limit=limit)


def braid_bench(kind, model, lengths, *flags):
    return braid("bench", kind, "--model-path", model, "--load-format", "dummy", "--lengths", lengths, "--json", *flags)


def processor():
    """The processor as the system calls it."""
    facts = dict(line.split(":", 1) for line in pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
                 if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if "cpu family" in facts else name


class Section:
    """The results of one section, with the facts needed to read them later."""

    def __init__(self, name):
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], stdout=subprocess.PIPE, text=True).stdout
        self.name, self.results = name, []
        self.facts = {"kind": name, "processor": processor(), "processors": os.cpu_count(), "commit": commit.strip(),
                      "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                      "load_average": round(os.getloadavg()[0], 1)}
        print(f"\n=== {name}: {os.cpu_count()} processors, load average {self.facts['load_average']}", flush=True)

    def add(self, **result):
        self.results.append(result)

    def write(self):
        """One object, a line for each result, so that two files can be compared line by line."""
        RESULTS.mkdir(exist_ok=True)
        facts = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in self.facts.items()]
        rows = ",\n".join(f"    {json.dumps(result, ensure_ascii=False)}" for result in self.results)
        file = RESULTS / f"{self.name}.json"
        file.write_text("{\n" + ",\n".join([*facts, f'  "results": [\n{rows}\n  ]']) + "\n}\n")
        print(f"written to {file}", flush=True)


def table(title, columns, rows):
    """A table as Markdown has them, so that it can be quoted."""
    cells = [[str(cell) for cell in row] for row in [columns, *rows]]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]

    def line(row):
        return "| " + " | ".join(cell.rjust(width) for cell, width in zip(row, widths)) + " |"

    print(f"\n{title}\n")
    print(line(cells[0]))
    print("|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")
    for row in cells[1:]:
        print(line(row))
    print(flush=True)
