"""Checks that prefixes survive a server: one that starts later, after SIGTERM or SIGKILL and in another layout, answers a
long prompt with the same tokens, without computing what the directory has.
"""

import json
import pathlib
import stat
import tempfile
import time
import urllib.request

import disaggregated_servers
from disaggregated_servers import DOCUMENT, expect, metric, same_members, wait_until

FIRST = ["--page-size", "64", "--max-total-tokens", "40000", "--chunked-prefill-size", "512"]
OTHERS = [["--attn-cp-size", "2", "--page-size", "16", "--max-total-tokens", "40000"],
          ["--tp-size", "2", "--page-size", "512", "--max-total-tokens", "40000", "--chunked-prefill-size", "300"]]


def ask(url, text):
    began = time.monotonic()
    answer = json.loads(disaggregated_servers.post(f"{url}/generate", {
        "text": text, "return_logprob": True, "top_logprobs_num": 2,
        "sampling_params": {"max_new_tokens": 8, "temperature": 0}}))
    return answer, time.monotonic() - began


def cached(answer):
    return answer["meta_info"]["cached_tokens"]


def state(url):
    with urllib.request.urlopen(f"{url}/server_info", timeout=60) as reply:
        return json.load(reply)["prefix_store"]


def blocks(folder):
    return len(list(folder.glob("*.keys")))


def whole_blocks(answer):
    """The number of blocks of 256 tokens in an answer's prompt."""
    return answer["meta_info"]["prompt_tokens"] // 256


def same_answers(start, folder):
    text = DOCUMENT.read_text()
    options = ["--prefix-cache-dir", str(folder), "--prefix-cache-size", "500MB"]
    server, url = start(FIRST + options)
    expect(state(url)["mode"] == "writing", "the first server does not write")
    expect(stat.S_IMODE(folder.stat().st_mode) == 0o700, "others may read the directory")
    first, cold = ask(url, text)
    expect(cached(first) == 0, "something was cached before anything was computed")
    wait_until(lambda: blocks(folder) >= whole_blocks(first), 120, "not all blocks are written")
    # A second server only reads, at the same time.
    _, reading = start(OTHERS[0] + options)
    expect(state(reading)["mode"] == "read-only", "two servers write one directory")
    found, seconds = ask(reading, text)
    expect(same_members(found) == same_members(first), "another server answers otherwise")
    expect(cached(found) >= first["meta_info"]["prompt_tokens"] - 257, f"only {cached(found)} tokens are restored")
    print(f"ok      a second server has {cached(found)} of {first['meta_info']['prompt_tokens']} tokens from disk: "
          f"{cold:.1f} s, then {seconds:.2f} s", flush=True)
    server.kill()
    server.wait()


def survives_kills(start, folder):
    text = DOCUMENT.read_text()[1000:]
    options = ["--prefix-cache-dir", str(folder), "--prefix-cache-size", "500MB", "--check-invariants"]
    _, alone = start(FIRST)
    expected, _ = ask(alone, text)
    for number in range(6):
        server, url = start((OTHERS[number % 2]) + options)
        before = blocks(folder)
        # The server is killed while it computes and writes.
        request = urllib.request.Request(
            f"{url}/generate", json.dumps({"text": text, "stream": True}).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60):
            wait_until(lambda: blocks(folder) > min(before + number, 60), 120, "nothing is written")
            server.kill()
            server.wait()
    server, url = start(OTHERS[0] + options)
    answer, _ = ask(url, text)
    known = cached(answer)
    expect(same_members(answer) == same_members(expected), "the answer changed after servers were killed")
    expect(known > 0, "nothing survived")
    expect(metric(url, "prefix_store_blocks_total") > 0, "no block was read")
    expect(not list(folder.glob("*.part")), "remains of killed servers are left")
    print(f"ok      after six kills {known} tokens are restored, and the answer is the same", flush=True)


def ends_with_everything_written(start, folder):
    server, url = start(FIRST + ["--prefix-cache-dir", str(folder)])
    answer, _ = ask(url, DOCUMENT.read_text()[:12000])
    server.terminate()
    wait_until(lambda: server.poll() is not None, 120, "the server does not end")
    expect(blocks(folder) >= whole_blocks(answer) > 3, f"{blocks(folder)} of {whole_blocks(answer)} blocks are written")
    print("ok      a server that is told to end writes the last prompt first", flush=True)


def run(start):
    cases, passed = (same_answers, survives_kills, ends_with_everything_written), 0
    for case in cases:
        with tempfile.TemporaryDirectory() as parent:
            try:
                case(start, pathlib.Path(parent) / "prefixes")
                passed += 1
            except disaggregated_servers.Failure as failure:
                print(f"FAILED  {case.__name__}: {failure}", flush=True)
    print(f"{passed} passed, {len(cases) - passed} failed", flush=True)
    return passed == len(cases)
