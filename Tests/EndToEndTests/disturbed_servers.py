"""Checks what servers do for the other requests while they are disturbed: by clients that hang up at any moment, by a kill of
a worker behind a router, and by SIGTERM in the middle of requests. Afterwards nothing is left of what was given up: no
request, page, transfer or connection.

Random moments come from a seed, which is printed; `DISTURBED_SEED=N` repeats it.
"""

import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import struct
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from disaggregated_servers import (DECODE, DOCUMENT, PREFILL, SECONDS_TO_ANSWER, SECONDS_TO_CONNECT, Failure, events, expect,
                                   expect_equal, post, state, wait_until)
from routed_servers import ROUTER, together, workers

# Bounds that only end what never ends.
SECONDS_TO_END = 120
SECONDS_TO_BALANCE = 120
# Every server checks its pages and the states of its requests after each step.
CHECKED = ["--check-invariants"]
# Few pages, so that requests wait for those of others and are preempted.
LAYOUTS = {
    "context 2": ["--attn-cp-size", "2", "--page-size", "16", "--max-total-tokens", "6144"],
    "tensor 2, keys owned by 2, with drafts": [
        "--tp-size", "2", "--dcp-size", "2", "--dcp-min-keys", "1", "--speculative-algorithm", "NEXTN",
        "--speculative-num-steps", "2", "--max-total-tokens", "12288"],
    "2 stages of data 2, experts 2": [
        "--pp-size", "2", "--attn-dp-size", "2", "--ep-size", "2", "--moe-a2a-backend", "alltoall",
        "--max-total-tokens", "12288"]}
REQUESTS = 4
TOKENS = 120
CLIENTS_THAT_HANG_UP = 5
# Of each client. A number, and not a time: on a slow machine, hanging up for as long as others run would never end.
HANG_UPS = 24
# The most that servers may compute for requests whose clients are gone; one that is not noticed would compute far more.
TOKENS_TO_BALANCE = 1500
# What a request that was given up could leave behind, in metrics of servers and of routers.
LEFT = ["num_running_reqs", "num_queue_reqs", "kv_pages_used", "disaggregation_transfers", "router_running_requests",
        "router_queued_requests", "router_worker_running_requests", "router_worker_waiting_bytes"]


def request(number):
    """A request that streams if its number is even."""
    text = DOCUMENT.read_text()[number * 500:number * 500 + 300 + 400 * number]
    return {"text": f"{number}: {text}", "stream": number % 2 == 0, "sampling_params": {
        "max_new_tokens": TOKENS, "temperature": 0.9, "sampling_seed": number, "ignore_eos": True}}


def ask(url, number):
    """What every layout must answer alike."""
    text = post(f"{url}/generate", request(number))
    answer = events(text)[-1] if number % 2 == 0 else json.loads(text)
    return [answer["text"], answer["output_ids"], answer["meta_info"]["finish_reason"]]


def metrics(url):
    """All metrics of a page, each the sum of its series."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=SECONDS_TO_ANSWER) as reply:
        page = reply.read().decode()
    found = {}
    for name, value in re.findall(r"^braid_(\w+)(?:\{.*\})? (\S+)$", page, re.MULTILINE):
        found[name] = found.get(name, 0) + float(value)
    return found


def sockets(process):
    """The number of connections and listening sockets of a process."""
    count = 0
    for name in os.listdir(f"/proc/{process.pid}/fd"):
        # Others may be closed meanwhile.
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/{process.pid}/fd/{name}").startswith("socket:")
    return count


def expect_nothing_left(*urls):
    """No request, transfer or page is left, and the prefix cache gives back all its pages."""
    def is_balanced(url, limit):
        found = metrics(url)
        left = {name: found[name] for name in LEFT if found.get(name)}
        expect(not left or found.get("generation_tokens_total", 0) < limit, f"requests without a client go on: {left}")
        return not left

    for url in urls:
        limit = metrics(url).get("generation_tokens_total", 0) + TOKENS_TO_BALANCE
        wait_until(lambda url=url, limit=limit: is_balanced(url, limit), SECONDS_TO_BALANCE, "something is left")
        post(f"{url}/flush_cache", {})
        found = metrics(url)
        expect(found.get("kv_pages_free") == found.get("kv_pages"),
               f"of {found.get('kv_pages')} pages only {found.get('kv_pages_free')} are free without a cache")


class HangingUp(threading.Thread):
    """A client that sends requests of every kind, and hangs up at a random moment of each."""

    def __init__(self, url, seed):
        super().__init__(daemon=True)
        self.address = urllib.parse.urlsplit(url)
        self.random = random.Random(seed)
        self.document = DOCUMENT.read_text()
        self.problem = None

    def run(self):
        try:
            for _ in range(HANG_UPS):
                self.hang_up()
        except OSError as problem:
            self.problem = problem

    def message(self):
        start, length = self.random.randrange(10_000), self.random.choice([1, 50, 500, 3000])
        text = f"{self.random.random()} {self.document[start:start + length]}"
        stream = self.random.random() < 0.5
        path, body = self.random.choice([
            ("/generate", {"text": text, "sampling_params": {"max_new_tokens": 500, "ignore_eos": True}}),
            ("/generate", {"text": text, "sampling_params": {"max_new_tokens": 30, "n": 2}, "return_logprob": True}),
            ("/v1/completions", {"model": "demo", "prompt": text, "max_tokens": 200, "n": 2}),
            # As long as there are pages.
            ("/v1/chat/completions", {
                "model": "demo", "messages": [{"role": "user", "content": text}], "ignore_eos": True})])
        data = json.dumps(body | {"stream": stream}).encode()
        head = (f"POST {path} HTTP/1.1\r\nHost: {self.address.netloc}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\n\r\n")
        return head.encode() + data

    def hang_up(self):
        message = self.message()
        if self.random.random() < 0.1:
            message = message[:self.random.randrange(1, len(message))]
        with socket.create_connection((self.address.hostname, self.address.port), SECONDS_TO_ANSWER) as connection:
            if self.random.random() < 0.5:
                # The connection is reset in place of being closed.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(message)
            # From the arrival of the request to the middle of its answer.
            connection.settimeout(10 ** self.random.uniform(-4, -0.5))
            # The server may break off, too.
            with contextlib.suppress(OSError):
                wanted = self.random.choice([1, 300, 20_000])
                while wanted > 0 and (bytes_read := len(connection.recv(wanted))):
                    wanted -= bytes_read


def while_clients_hang_up(url, seed, ask_all):
    """Returns what ask_all() returns, which is called while clients hang up."""
    clients = [HangingUp(url, seed + number) for number in range(CLIENTS_THAT_HANG_UP)]
    for client in clients:
        client.start()
    found = ask_all()
    for client in clients:
        client.join()
        expect(client.problem is None, f"a client could not connect: {client.problem}")
    return found


def ask_all(url):
    """The answers to all requests, which are sent together."""
    threads, found = together(REQUESTS, lambda number: ask(url, number))
    for thread in threads:
        thread.join()
    return found


class Servers:
    """An ordinary server, whose answers are right, and those that are disturbed."""

    def __init__(self, start, port, secret, seed):
        self.start, self.seed, self.port = start, seed, port
        _, self.alone = self.serve([])
        self.expected = ask_all(self.alone)
        self.layouts = {name: self.serve(options) for name, options in LAYOUTS.items()}
        bootstrap = port()
        secret = ["--disaggregation-secret-file", secret]
        self.prefill = self.serve([*PREFILL, "--disaggregation-bootstrap-port", str(bootstrap), *secret])
        self.decode = self.serve([*DECODE, "--disaggregation-prefill", f"127.0.0.1:{bootstrap}", *secret])
        wait_until(lambda: state(self.decode[1])["connected"], SECONDS_TO_CONNECT, "no session")

    def serve(self, options, port=None):
        return self.start([*CHECKED, *options], port=port)

    def expect_right(self, found, when):
        for number, answer in enumerate(found):
            expect(not isinstance(answer, Exception), f"{when}: request {number} failed: {answer!r}")
        expect_equal(found, self.expected, when)

    def compare_while_clients_hang_up(self, name, server, url, *others):
        """The server at `url` gets the requests; `others` share its work."""
        self.expect_right(ask_all(url), name)
        expect_nothing_left(url, *others)
        before = sockets(server)
        found = while_clients_hang_up(url, self.seed, lambda: ask_all(url))
        self.expect_right(found, f"{name}, while clients hang up")
        expect(metrics(url)["aborted_requests_total"] > 0, f"{name}: no request was given up")
        expect_nothing_left(url, *others)
        wait_until(lambda: sockets(server) <= before, SECONDS_TO_BALANCE,
                   lambda: f"{name}: there were {before} sockets, and there are {sockets(server)}")
        self.expect_right(ask_all(url), f"{name}, afterwards")


def layouts_keep_streams(servers):
    for name, (server, url) in servers.layouts.items():
        servers.compare_while_clients_hang_up(name, server, url)


def a_pair_keeps_streams(servers):
    (_, prefill), (server, decode) = servers.prefill, servers.decode
    servers.compare_while_clients_hang_up("the decode server", server, decode, prefill)
    expect(metrics(decode)["kv_transfer_bytes_total"] > 0, "no keys were received")
    expect(metrics(decode)["disaggregation_session_failures_total"] == 0, "clients that hung up have ended the session")


class Asking(threading.Thread):
    """A client that repeats a request, and sorts the answers."""

    def __init__(self, url, number, expected):
        super().__init__(daemon=True)
        self.url, self.number, self.expected = url, number, expected
        self.is_over = threading.Event()
        self.right, self.broken, self.refused, self.wrong = 0, 0, 0, []

    def run(self):
        while not self.is_over.is_set():
            try:
                answer = ask(self.url, self.number)
                if answer == self.expected:
                    self.right += 1
                else:
                    self.wrong.append(answer)
            except urllib.error.HTTPError as error:
                self.refuse(error.code, error.read().decode(errors="replace"))
            except (OSError, http.client.HTTPException, Failure):
                # The connection ended before the answer did, which no client takes for the whole.
                self.broken += 1

    def refuse(self, status, text):
        """Counts an error that says what is wrong."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if status in (502, 503) and json.loads(text)["error"]["message"]:
                self.refused += 1
                return
        self.wrong.append((status, text))


def survive_kills(servers):
    """Workers are killed and started again at the same address, one after the other."""
    ports = [servers.port() for _ in range(2)]
    processes = {port: servers.serve([], port)[0] for port in ports}
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    _, router = servers.router = servers.start(["--worker-urls", *urls, *ROUTER], "router")

    def states():
        return [worker["state"] for worker in workers(router)]

    wait_until(lambda: states() == ["ready", "ready"], SECONDS_TO_CONNECT, "not all workers are ready")
    clients = [Asking(router, number, servers.expected[number]) for number in range(REQUESTS)]
    for client in clients:
        client.start()
    for port in ports:
        wait_until(lambda: all(worker["running_requests"] for worker in workers(router)), SECONDS_TO_ANSWER,
                   "not all workers have requests")
        processes[port].kill()
        processes[port].wait()
        wait_until(lambda: "ready" in states() and states() != ["ready", "ready"], SECONDS_TO_CONNECT,
                   "the router has not noticed")
        processes[port], _ = servers.serve([], port)
        wait_until(lambda: states() == ["ready", "ready"], SECONDS_TO_CONNECT, "the worker is not ready again")
        before = [client.right for client in clients]
        wait_until(lambda: all(client.right > count for client, count in zip(clients, before)) or any(c.wrong for c in clients),
                   SECONDS_TO_ANSWER, "nothing is answered after a kill")
    for client in clients:
        client.is_over.set()
    for client in clients:
        client.join(SECONDS_TO_ANSWER)
        expect(not client.is_alive(), f"request {client.number} hangs")
        expect(not client.wrong, f"request {client.number} was answered with {str(client.wrong[:1])[:600]}")
    broken = sum(client.broken for client in clients)
    counted = metrics(router)["router_broken_streams_total"]
    expect(broken == counted, f"{broken} answers have ended early, and {counted:.0f} were counted")
    expect_nothing_left(*urls, router)
    servers.workers = [(processes[port], url) for port, url in zip(ports, urls)]


def refuses(url):
    """Whether a new request is refused, with an error or with the connection."""
    try:
        post(f"{url}/generate", {"text": "new", "sampling_params": {"max_new_tokens": 1}})
        return False
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        expect(error.code == 503 and json.loads(text)["error"]["code"] == "shutting_down", f"{error.code}: {text}")
    except (OSError, http.client.HTTPException):
        pass  # it has ended
    return True


def end_in_the_middle(servers, name, server, url):
    """Sends SIGTERM while requests run: they end whole, others are refused, and the process ends with status 0."""
    running = "router_running_requests" if "router" in name else "num_running_reqs"
    for _ in range(20):
        threads, found = together(REQUESTS, lambda number: ask(url, number))
        wait_until(lambda: metrics(url)[running] == REQUESTS or not all(thread.is_alive() for thread in threads),
                   SECONDS_TO_ANSWER, f"{name}: the requests do not run")
        if all(thread.is_alive() for thread in threads):
            break
        for thread in threads:
            thread.join()
    else:
        expect(False, f"{name}: requests were always answered before anything could happen")
    server.send_signal(signal.SIGTERM)
    wait_until(lambda: refuses(url), SECONDS_TO_END, f"{name}: new requests are not refused")
    while any(thread.is_alive() for thread in threads):
        expect(refuses(url), f"{name}: a new request was answered after one was refused")
        time.sleep(0.02)
    servers.expect_right(found, f"{name}, after SIGTERM")
    expect(server.wait(SECONDS_TO_END) == 0, f"{name} ended with exit status {server.returncode}")


def end_whole(servers):
    end_in_the_middle(servers, "the router", *servers.router)
    expect_nothing_left(*(url for _, url in servers.workers))
    for name, (server, url) in servers.layouts.items():
        end_in_the_middle(servers, name, server, url)


def end_a_pair(servers):
    """The prefill server ends while it computes for the decode server, and then the decode server."""
    (prefill, _), (server, decode) = servers.prefill, servers.decode
    threads, found = together(REQUESTS, lambda number: ask(decode, number))
    wait_until(lambda: metrics(decode)["disaggregation_transfers"] > 0 or not any(thread.is_alive() for thread in threads),
               SECONDS_TO_ANSWER, "no transfer has begun")
    prefill.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    servers.expect_right(found, "the prefill server ends")
    expect(prefill.wait(SECONDS_TO_END) == 0, f"the prefill server ended with exit status {prefill.returncode}")
    expect_nothing_left(decode)
    end_in_the_middle(servers, "the decode server", server, decode)


def run(start, port, secret):
    """Runs all cases, and returns whether they passed.

    start: a function that takes options, the name of a command and a port, and returns the process and its address once
        it is ready.
    port: a function that returns a free port.
    secret: the name of a file with a secret.
    """
    failed, seed = 0, int(os.environ.get("DISTURBED_SEED") or random.SystemRandom().randrange(1_000_000))
    cases = [("streams keep their text in every layout while clients hang up", layouts_keep_streams),
             ("a prefill and a decode server keep theirs", a_pair_keeps_streams),
             ("workers are killed and started again: right answers or clear errors", survive_kills),
             ("requests end whole after SIGTERM, and new ones are refused", end_whole),
             ("so do those of a prefill and a decode server", end_a_pair)]
    print(f"DISTURBED_SEED={seed}", flush=True)
    servers = Servers(start, port, secret, seed)
    for name, case in cases:
        try:
            began = time.monotonic()
            case(servers)
            print(f"ok {name} ({time.monotonic() - began:.0f} s)", flush=True)
        except Exception as failure:  # one case must not keep the others from running
            failed += 1
            print(f"FAIL {name}: {type(failure).__name__}: {failure}", flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed", flush=True)
    return failed == 0
