"""Routers: each takes the server as a worker, and passes on requests of OpenAI's and SGLang's interfaces."""

import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from harness import test
from served import served
from scripts import NAME, QUESTION, SCRIPTS


def ask(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        return response.read().decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def router(*command):
    """Starts a router, and gives its address once it has a worker."""
    port, metrics = free_port(), free_port()
    with tempfile.TemporaryFile("w+") as log:
        program = subprocess.Popen(
            [pathlib.Path(sys.executable).parent / command[0], *command[1:], "--host", "127.0.0.1", "--port", str(port),
             "--prometheus-port", str(metrics)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
            while True:
                try:
                    with urllib.request.urlopen(f"{url}/v1/models", timeout=5) as response:
                        if NAME in response.read().decode():
                            break
                except OSError:
                    pass
                if time.monotonic() > deadline or program.poll() is not None:
                    log.seek(0)
                    raise AssertionError(f"{command[0]} has no worker; its log:\n{log.read()[-4000:]}")
                time.sleep(0.2)
            yield url
        finally:
            program.terminate()
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()


def answers(url):
    chat = {"model": NAME, "messages": [{"role": "user", "content": QUESTION}]}
    answer = json.loads(ask(f"{url}/v1/chat/completions", chat))
    assert answer["choices"][0]["message"]["content"] == SCRIPTS["paris"], answer
    events = [line[6:] for line in ask(f"{url}/v1/chat/completions", chat | {"stream": True}).splitlines()
              if line.startswith("data: ")]
    assert events[-1] == "[DONE]", events
    deltas = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
    assert "".join(deltas) == SCRIPTS["paris"], events
    answer = json.loads(ask(f"{url}/v1/completions", {"model": NAME, "prompt": QUESTION, "max_tokens": 100}))
    assert answer["choices"][0]["text"] == SCRIPTS["paris"], answer


def generates(url):
    answer = json.loads(ask(f"{url}/generate", {"text": QUESTION, "sampling_params": {"max_new_tokens": 100}}))
    assert answer["text"] == SCRIPTS["paris"], answer


@test
def smg(server):
    with router("smg", "launch", "--worker-urls", server.url) as url:
        answers(url)
        generates(url)


@test
def sglang_router(server):
    with router("sglang-router", "launch", "--worker-urls", server.url) as url:
        answers(url)
        generates(url)


@test
def vllm_router(server):
    with router("vllm-router", "--worker-urls", server.url, "--policy", "round_robin") as url:
        answers(url)


@contextlib.contextmanager
def prefill_and_decode(model):
    """A prefill server, its port for keys, and a decode server, which computes no prompt."""
    port = free_port()
    with served(model, NAME, "--disaggregation-mode", "prefill", "--disaggregation-bootstrap-port", str(port)) as prefill:
        options = ["--disaggregation-mode", "decode", "--disaggregation-prefill", f"127.0.0.1:{port}"]
        with served(model, NAME, *options, "--disaggregation-local-prefill", "0") as decode:
            deadline = time.monotonic() + 60
            while not state(decode.url)["connected"]:
                assert time.monotonic() < deadline, state(decode.url)
                time.sleep(0.1)
            yield prefill, port, decode
            prefill.is_good = decode.is_good = True


def state(url):
    with urllib.request.urlopen(f"{url}/server_info", timeout=60) as response:
        return json.load(response)["disaggregation"]


def transferred(url):
    """The number of bytes of keys that a server has sent or received."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("braid_kv_transfer_bytes_total{"))


def disaggregates(server, *command):
    with prefill_and_decode(server.model) as (prefill, port, decode):
        with router(*command, "--pd-disaggregation", "--prefill", prefill.url, str(port), "--decode", decode.url) as url:
            before = transferred(decode.url)
            answers(url)
            generates(url)
            assert transferred(decode.url) > before, "no keys were sent"
            body = {"text": QUESTION, "sampling_params": {"max_new_tokens": 5, "temperature": 0}, "return_logprob": True,
                    "logprob_start_len": 0, "top_logprobs_num": 2}
            found, alone = (json.loads(ask(f"{place}/generate", body)) for place in (url, server.url))
            for name in ("text", "output_ids"):
                assert found[name] == alone[name], (found, alone)
            for name in ("input_token_logprobs", "output_token_logprobs"):
                assert found["meta_info"][name] == alone["meta_info"][name], (name, found, alone)


@test
def sglang_router_disaggregates(server):
    disaggregates(server, "sglang-router", "launch")


@test
def smg_disaggregates(server):
    disaggregates(server, "smg", "launch")
