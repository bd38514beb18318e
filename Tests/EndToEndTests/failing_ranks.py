"""Checks what happens to a server and its clients when a rank's thread traps.

The server has no code for this test: the signal that a trap raises is sent to the thread from outside.
"""

import contextlib
import ctypes
import http.client
import json
import pathlib
import signal
import threading
import time
import urllib.error
import urllib.request

# Bounds that only end what never ends: all take a second or two on a machine that does nothing else.
SECONDS_TO_ANSWER = 120
SECONDS_TO_END = 120
SECONDS_TO_START = 120
SECONDS_OF_A_REQUEST = 600
# More than any machine decodes before a test is over.
TOKENS_WITHOUT_END = 100_000
STATUS_OF_A_TRAP = 70
RANK = 1
OPTIONS = ["--attn-cp-size", "2"]


class Failure(Exception):
    """An expectation that did not hold."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


def trap(server, number):
    """Makes the thread of a rank trap."""
    for task in pathlib.Path(f"/proc/{server.pid}/task").iterdir():
        name = ""
        # Other threads may end meanwhile.
        with contextlib.suppress(OSError):
            name = (task / "comm").read_text().strip()
        if name == f"braid rank {RANK}":
            done = ctypes.CDLL(None, use_errno=True).tgkill(server.pid, int(task.name), number)
            expect(done == 0, f"tgkill: error {ctypes.get_errno()}")
            return
    raise Failure(f"no thread is called 'braid rank {RANK}'")


class Client(threading.Thread):
    """Sends more requests than the server can answer in time, and keeps what arrives."""

    def __init__(self, url, stream):
        super().__init__(daemon=True)
        body = {"text": "Once upon a time", "stream": stream,
                "sampling_params": {"max_new_tokens": TOKENS_WITHOUT_END, "temperature": 0, "ignore_eos": True}}
        self.request = urllib.request.Request(f"{url}/generate", json.dumps(body).encode(),
                                              {"Content-Type": "application/json"})
        self.stream = stream
        self.text = ""
        self.status = None
        self.ended = None

    def run(self):
        try:
            with urllib.request.urlopen(self.request, timeout=SECONDS_OF_A_REQUEST) as reply:
                self.status = reply.status
                for line in reply:
                    self.text = (self.text + line.decode())[-10_000:]
        except urllib.error.HTTPError as error:
            self.status = error.code
            self.text = error.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self.text += f"no answer: {error}"
        self.ended = time.monotonic()


def generate(url):
    body = {"text": "Once upon a time", "sampling_params": {"max_new_tokens": 8, "temperature": 0}}
    request = urllib.request.Request(f"{url}/generate", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS_OF_A_REQUEST) as reply:
        return json.load(reply)["text"]


def wait_until_running(url, clients):
    """Until all requests run, and those that stream have received something."""
    deadline = time.monotonic() + SECONDS_OF_A_REQUEST
    while True:
        with urllib.request.urlopen(f"{url}/get_load", timeout=SECONDS_OF_A_REQUEST) as reply:
            load = json.load(reply)[0]
        if (load["num_reqs"], load["num_waiting_reqs"]) == (len(clients), 0) and all(
                client.text for client in clients if client.stream):
            return
        expect(all(client.ended is None for client in clients), f"ended too soon: {[c.text[-200:] for c in clients]}")
        expect(time.monotonic() < deadline, f"the requests do not run: {load}")
        time.sleep(0.01)


def trap_under_load(server, url, number):
    """Makes the rank's thread trap while clients wait; each of them must get an error that names the rank."""
    clients = [Client(url, stream) for stream in (False, True, False)]
    for client in clients:
        client.start()
    wait_until_running(url, clients)
    expect(all(client.ended is None for client in clients), f"ended too soon: {[c.text[-200:] for c in clients]}")
    start = time.monotonic()
    trap(server, number)
    for client in clients:
        client.join(SECONDS_TO_ANSWER + 1)
        expect(client.ended and client.ended - start < SECONDS_TO_ANSWER, "a client waits forever")
        expect(f"rank {RANK} failed: its thread trapped ({number.name})" in client.text,
               f"a client received: {client.text[-300:]}")
        expect(client.stream or client.status == 500, f"a client got status {client.status}")


def ends(start, number):
    """Checks that the server ends with its exit status for traps, as it does by default."""
    server, url = start(OPTIONS)
    trap_under_load(server, url, number)
    status = server.wait(SECONDS_TO_END)
    expect(status == STATUS_OF_A_TRAP, f"the server ended with exit status {status}")


def starts_anew(start):
    """Checks that with --restart-on-failure the same process serves again, at the same address, with the same answers."""
    server, url = start([*OPTIONS, "--restart-on-failure"])
    before = generate(url)
    for _ in range(2):
        trap_under_load(server, url, signal.SIGILL)
        deadline = time.monotonic() + SECONDS_TO_START
        # Until it serves again, the server answers 503 or not at all.
        while True:
            expect(server.poll() is None, f"the server ended with exit status {server.poll()}")
            expect(time.monotonic() < deadline, "the server did not come back")
            try:
                with urllib.request.urlopen(f"{url}/ready", timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        expect(generate(url) == before, "the answer differs after the restart")
    server.send_signal(signal.SIGTERM)
    status = server.wait(SECONDS_TO_END)
    expect(status == 0, f"the server ended with exit status {status} after SIGTERM")


def run(start):
    """Runs all cases, and returns whether they passed.

    start: a function that takes options of `braid serve` and returns the process and its address once it is ready.
    """
    failed = 0
    cases = [("a trap ends the server", lambda: ends(start, signal.SIGILL)),
             ("so does a wild pointer", lambda: ends(start, signal.SIGSEGV)),
             ("with --restart-on-failure it serves again", lambda: starts_anew(start))]
    for name, case in cases:
        try:
            case()
            print(f"ok {name}", flush=True)
        except Exception as failure:  # one case must not keep the others from running
            failed += 1
            print(f"FAIL {name}: {type(failure).__name__}: {failure}", flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed", flush=True)
    return failed == 0
