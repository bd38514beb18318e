"""Checks that prefixes survive a server of several processes: servers of other layouts and numbers of processes, which start
later, answer a long prompt with the same tokens without computing what the directory has. A process that is killed while the
server reads or writes prefixes leaves whole files.
"""

import json
import os
import pathlib
import signal
import sys
import tempfile

from cases import run_cases
from failing_processes import SUPERVISE, Client, Job, expect, is_named
from mpi import ROOT

sys.path.append(str(ROOT / "Tests" / "EndToEndTests"))
from disaggregated_servers import DOCUMENT, metric, post, same_members, wait_until  # noqa: E402

SECONDS_TO_WRITE = 120
SECONDS_TO_ANSWER = 120
SECONDS_TO_END = 120
BLOCK = 256
TOKENS = ["--max-total-tokens", "40000", "--check-invariants"]
# What each server is given: processes, layout, and page size.
WRITING = (2, ["--pp-size", "2"], 64)
READING = [(2, ["--attn-cp-size", "2", "--dcp-size", "2"], 16), (4, ["--attn-dp-size", "2", "--tp-size", "4"], 128),
           (1, ["--attn-cp-size", "2"], 64)]


def start(log, folder, processes, layout, page, *supervisor):
    """Starts a server with the directory, and waits until it is ready."""
    job = Job(log, *supervisor, processes=processes, layout=layout,
              options=[*TOKENS, "--page-size", str(page), "--prefix-cache-dir", str(folder), "--prefix-cache-size", "500MB"])
    try:
        job.wait_until_ready()
    except BaseException:
        job.clean()
        raise
    return job


def ask(job, text):
    return json.loads(post(f"{job.url}/generate", {
        "text": text, "return_logprob": True, "top_logprobs_num": 2,
        "sampling_params": {"max_new_tokens": 8, "temperature": 0}}))


def cached(answer):
    return answer["meta_info"]["cached_tokens"]


def prompt(answer):
    return answer["meta_info"]["prompt_tokens"]


def blocks(folder):
    return len(list(folder.glob("*.keys")))


def end(job):
    """Tells a server, or its supervisor, to end, and expects that it does so in order."""
    job.mpirun.terminate()
    expect(job.wait_for_end(SECONDS_TO_END) == 0, "the job did not end in order")


def read_by_other_layouts(log, folder):
    text = DOCUMENT.read_text()[:24_000]
    writer = start(log, folder, *WRITING, SUPERVISE)
    try:
        first = ask(writer, text)
        expect(cached(first) == 0, "something was cached before anything was computed")
        # What is left is written when the server is told to end.
        end(writer)
    finally:
        writer.clean()
    expect(blocks(folder) >= prompt(first) // BLOCK > 10, f"{blocks(folder)} blocks are written of {prompt(first)} tokens")
    for processes, layout, page in READING:
        reader = start(log, folder, processes, layout, page, *([SUPERVISE] if processes > 1 else []))
        try:
            found = ask(reader, text)
            name = f"{' '.join(layout)} in {processes} processes"
            expect(same_members(found) == same_members(first), f"{name} answers otherwise")
            expect(cached(found) >= prompt(first) - BLOCK - 1, f"{name}: only {cached(found)} tokens are restored")
            expect(metric(reader.url, "prefix_store_restored_tokens_total") == cached(found), f"{name}: others were restored")
            expect(metric(reader.url, "prefix_store_blocks_total") > 0, f"{name}: no block was read")
            print(f"{name}: {cached(found)} of {prompt(found)} tokens from disk", flush=True)
            end(reader)
        finally:
            reader.clean()


def lose_second_process(job, client):
    """Kills the second process of a job, of which the waiting client must be told, and which ends the job."""
    os.kill(job.processes()[1], signal.SIGKILL)
    client.join(SECONDS_TO_ANSWER)
    expect(client.ended and is_named(1, client.text, is_silent=False), f"the client was told: {client.text}")
    expect(job.wait_for_end(SECONDS_TO_END) != 0, "the job ended with status 0")


def survive_kills(log, folder):
    text = DOCUMENT.read_text()[1000:40_000]
    # While the second process packs what is written.
    writer = start(log, folder, *WRITING)
    try:
        client = Client(writer, text, 8)
        client.start()
        wait_until(lambda: blocks(folder) > 2, SECONDS_TO_WRITE, "nothing is written")
        lose_second_process(writer, client)
    finally:
        writer.clean()
    written = blocks(folder)
    reader = start(log, folder, *READING[0])
    try:
        # While the second process is given what was read, or computes the rest.
        client = Client(reader, text, 8)
        client.start()
        wait_until(lambda: metric(reader.url, "prefix_store_blocks_total") > 0 or client.ended, SECONDS_TO_ANSWER,
                   "nothing is read")
        expect(client.ended is None, f"the answer came too soon: {client.text}")
        lose_second_process(reader, client)
    finally:
        reader.clean()
    last = start(log, folder, *READING[2])
    try:
        expect(metric(last.url, "prefix_store_blocks") >= written > 2, "blocks are lost")
        found = ask(last, text)
        expect(cached(found) >= written // 2 * BLOCK > 0, f"only {cached(found)} tokens of {written} blocks are restored")
        with tempfile.TemporaryDirectory() as parent:
            alone = start(log, pathlib.Path(parent) / "empty", *READING[2])
            try:
                expect(same_members(ask(alone, text)) == same_members(found), "the answer changed after processes were killed")
            finally:
                alone.clean()
        print(f"{cached(found)} of {prompt(found)} tokens from disk after processes were killed", flush=True)
    finally:
        last.clean()


CASES = [("prefixes that several processes have written are read in any layout", read_by_other_layouts),
         ("also if a process is killed while they are written or read", survive_kills)]


def with_folder(case):
    """Returns the case as a function of the file for what its servers say, with a new directory for prefixes."""
    def body(log):
        with tempfile.TemporaryDirectory() as parent:
            case(log, pathlib.Path(parent) / "prefixes")
    return body


def run():
    return run_cases([(name, with_folder(case)) for name, case in CASES])
