"""Checks that two servers behind `braid router` answer as one server does, while one of them is killed and replaced, and
that a prefill and a decode server behind it do, too.
"""

import http.client
import json
import signal
import threading
import time
import urllib.request

from disaggregated_servers import (DECODE, PREFILL, SECONDS_TO_ANSWER, SECONDS_TO_CONNECT, Failure, answers, events, expect,
                                   expect_equal, post, same_members, state, wait_until)

WORKER = ["--max-total-tokens", "40000"]
# A machine that is busy is no reason to end requests.
ROUTER = ["--health-check-timeout-secs", "60", "--worker-timeout-secs", "0"]


def get(url):
    with urllib.request.urlopen(url, timeout=SECONDS_TO_ANSWER) as reply:
        return json.load(reply)


def workers(router):
    return get(f"{router}/workers")["workers"]


def metric(url, name):
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"braid_router_{name}"))


def change_worker(router, method, url):
    request = urllib.request.Request(f"{router}/workers", json.dumps({"url": url}).encode(),
                                     {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def long_request(number, stream):
    """A request that runs long enough for something to happen meanwhile."""
    return {"text": f"{number}: Once upon a time", "stream": stream, "sampling_params": {
        "max_new_tokens": 1500, "temperature": 0.9, "sampling_seed": number, "ignore_eos": True}}


def together(count, ask):
    """Starts count threads, and returns them with the list of their results."""
    found = [None] * count

    def run(number):
        try:
            found[number] = ask(number)
        except (OSError, http.client.HTTPException, Failure) as failure:
            found[number] = failure

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads, found


class Routed:
    """An ordinary server, and two behind a router."""

    def __init__(self, start, port, secret):
        self.start = start
        self.port = port
        self.secret = secret
        _, self.alone = start(WORKER)
        self.servers = dict(reversed(start(WORKER)) for _ in range(2))
        _, self.router = start(["--worker-urls", *self.servers, *ROUTER], "router")
        wait_until(lambda: all(worker["state"] == "ready" for worker in workers(self.router)), SECONDS_TO_CONNECT,
                   "not all workers are ready")

    def generate(self, number, stream, url=None):
        text = post((url or self.router) + "/generate", long_request(number, stream))
        return same_members(events(text)[-1] if stream else json.loads(text))

    def expected(self, number, stream=False):
        return self.generate(number, stream, self.alone)

    def kill_one_while(self, stream):
        """Kills a worker while requests run on both, and streams have begun, and returns the results. Where a request is
        answered before that is seen, others are sent."""
        for _ in range(20):
            before = metric(self.router, "time_to_first_byte_seconds_count")
            threads, found = together(8, lambda number: self.generate(number, stream))
            wait_until(lambda: all(worker["running_requests"] > 1 for worker in workers(self.router))
                       or not any(thread.is_alive() for thread in threads), SECONDS_TO_ANSWER, "not all workers have requests")
            if stream:
                wait_until(lambda: metric(self.router, "time_to_first_byte_seconds_count") >= before + 8,
                           SECONDS_TO_ANSWER, "not all streams have begun")
            if all(thread.is_alive() for thread in threads):
                break
            for thread in threads:
                thread.join()
        else:
            expect(False, "requests were always answered before anything could happen")
        url, server = next(iter(self.servers.items()))
        server.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
        server.wait()
        del self.servers[url]
        change_worker(self.router, "DELETE", url)
        return found

    def replace(self):
        """Starts a server in place of one that was killed."""
        server, url = self.start(WORKER)
        self.servers[url] = server
        change_worker(self.router, "POST", url)
        wait_until(lambda: [worker["state"] for worker in workers(self.router)] == ["ready", "ready"], SECONDS_TO_CONNECT,
                   "the new worker is not ready")


def answer_as_one(routed):
    for salt in ("first", "second"):
        expect_equal(answers(routed.router, salt), answers(routed.alone, salt), "behind a router")
    used = [worker["sent_requests"] for worker in workers(routed.router)]
    expect(all(count > 0 for count in used), f"requests of the workers: {used}")
    expect([model["id"] for model in get(f"{routed.router}/v1/models")["data"]] == ["demo"], "models differ")
    expect(len(get(f"{routed.router}/v1/loads")["loads"]) == 2, "not the loads of both workers")
    routes = {path for path in get(f"{routed.alone}/openapi.json")["paths"] if path != "/" and not path.startswith("/page/")}
    missing = routes - set(get(f"{routed.router}/openapi.json")["paths"])
    expect(not missing, f"a router lacks the routes {sorted(missing)}")


def survive_a_kill(routed):
    found = routed.kill_one_while(stream=False)
    expect_equal(found, [routed.expected(number) for number in range(8)], "after a worker was killed")
    expect(metric(routed.router, "retries_total") > 0, "nothing was sent again")
    routed.replace()


def break_no_other_stream(routed):
    found = routed.kill_one_while(stream=True)
    broken = [number for number, answer in enumerate(found) if isinstance(answer, Exception)]
    expect(0 < len(broken) < 8, f"{len(broken)} streams have ended early: {found}")
    for number in set(range(8)) - set(broken):
        expect(found[number] == routed.expected(number, stream=True), f"stream {number} is {str(found[number])[:600]}")
    expect(metric(routed.router, "broken_streams_total") == len(broken), "streams were not counted")
    routed.replace()


def share_the_work(routed):
    with open(routed.secret, "w") as secret:
        secret.write("a secret of these two servers\n")
    options = ["--disaggregation-secret-file", routed.secret]
    _, prefill = routed.start([*PREFILL, "--disaggregation-bootstrap-port", str(routed.port), *options])
    _, decode = routed.start([*DECODE, "--disaggregation-prefill", f"127.0.0.1:{routed.port}", *options])
    wait_until(lambda: state(decode)["connected"], SECONDS_TO_CONNECT, lambda: f"no session: {state(decode)}")
    _, router = routed.start(
        ["--pd-disaggregation", "--prefill", prefill, str(routed.port), "--decode", decode, *ROUTER], "router")
    expect_equal(answers(router, "pair"), answers(routed.alone, "pair"), "behind a router, with a prefill server")
    wait_until(lambda: all(worker["state"] == "ready" for worker in workers(router)), SECONDS_TO_CONNECT,
               "not all servers are ready")
    sent = {worker["worker_type"]: worker["sent_requests"] for worker in workers(router)}
    expect(sent["prefill"] == 0 and sent["decode"] > 0, f"{sent}")


def end_with_its_requests(routed):
    server, router = routed.start(["--worker-urls", *routed.servers, *ROUTER, "--drain-timeout", "1h"], "router")
    threads, found = together(1, lambda number: json.loads(post(router + "/generate", long_request(number, False))))
    wait_until(lambda: any(worker["running_requests"] for worker in workers(router)) or not threads[0].is_alive(),
               SECONDS_TO_ANSWER, "the request does not run")
    server.send_signal(signal.SIGTERM)
    threads[0].join()
    expect(isinstance(found[0], dict) and same_members(found[0]) == routed.expected(0), f"the answer is {found[0]}")
    expect(server.wait(SECONDS_TO_ANSWER) == 0, f"the router ended with exit status {server.returncode}")


def run(start, port, secret):
    """Runs all cases, and returns whether they passed.

    start: a function that takes options and the name of a command, and returns the process and its address once it is ready.
    port: a free port.
    secret: the name of a file to write.
    """
    failed = 0
    cases = [("two servers behind a router answer as one", answer_as_one),
             ("all requests are answered if one of them is killed", survive_a_kill),
             ("only its own streams end if one of them is killed", break_no_other_stream),
             ("a prefill and a decode server behind a router answer as one", share_the_work),
             ("a router that is stopped ends with its requests", end_with_its_requests)]
    routed = Routed(start, port, secret)
    for name, case in cases:
        try:
            began = time.monotonic()
            case(routed)
            print(f"ok {name} ({time.monotonic() - began:.0f} s)", flush=True)
        except Exception as failure:  # one case must not keep the others from running
            failed += 1
            print(f"FAIL {name}: {type(failure).__name__}: {failure}", flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed", flush=True)
    return failed == 0
