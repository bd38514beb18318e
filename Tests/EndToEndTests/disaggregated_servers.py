"""Checks that two servers, of which one computes prompts for the other, answer as one server does: over TCP, with
layouts, pages and chunks of their own, and while the prefill server is killed, stands still, and is started again. A second
pair sends keys over UCX.
"""

import ctypes
import json
import pathlib
import re
import signal
import tempfile
import threading
import time
import urllib.request

import routing_sidecar

SECONDS_TO_ANSWER = 600
SECONDS_TO_CONNECT = 60
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "Models" / "demo" / "prompts" / "passkey-17k-synthetic.txt"
PREFILL = ["--attn-cp-size", "2", "--ep-size", "2", "--page-size", "64", "--chunked-prefill-size", "64",
           "--max-total-tokens", "40000", "--disaggregation-mode", "prefill"]
DECODE = ["--tp-size", "2", "--page-size", "16", "--max-total-tokens", "40000", "--disaggregation-mode", "decode",
          "--disaggregation-local-prefill", "0"]


class Failure(Exception):
    """An expectation that did not hold."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


def wait_until(condition, seconds, message):
    deadline = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < deadline, f"{message() if callable(message) else message} after {seconds} s")
        time.sleep(0.02)


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS_TO_ANSWER) as reply:
        return reply.read().decode()


def state(url):
    with urllib.request.urlopen(f"{url}/server_info", timeout=60) as reply:
        return json.load(reply)["disaggregation"]


def metric(url, name):
    """The sum of a metric's series."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as reply:
        page = reply.read().decode()
    values = re.findall(rf"^braid_{name}\{{[^}}]*\}} (\S+)$", page, re.MULTILINE)
    expect(values, f"there is no metric {name}")
    return sum(float(value) for value in values)


def same_members(answer):
    """An answer without what differs between any two answers: its id, its times, and what was found in a cache."""
    if isinstance(answer, dict):
        return {name: same_members(value) for name, value in answer.items()
                if name not in ("id", "created", "created_at", "e2e_latency", "cached_tokens", "prompt_tokens_details", "rid")
                and not name.endswith(("_time", "_latency", "_ts"))}
    return [same_members(value) for value in answer] if isinstance(answer, list) else answer


def events(text):
    """The events of a stream."""
    found = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ") and line != "data: [DONE]"]
    expect(found and text.rstrip().endswith("data: [DONE]"), f"the stream ends with {text[-200:]}")
    return found


def bodies(salt):
    """Requests of every kind, half of them streams, whose prompts no earlier request has left in a cache."""
    document = DOCUMENT.read_text()
    for number, length in enumerate([1, 40, 900, 4000]):
        text = f"{salt} {number}: " + document[number * 100:number * 100 + length]
        for temperature in (0, 0.9):
            yield "/generate", {
                "text": text, "return_logprob": True, "logprob_start_len": 0 if length < 1000 else -1,
                "top_logprobs_num": 2, "stream": (number + (temperature > 0)) % 2 == 0,
                "sampling_params": {"max_new_tokens": 12, "temperature": temperature, "sampling_seed": number}}
        yield "/v1/completions", {
            "model": "demo", "prompt": text, "max_tokens": 10, "temperature": 0.9, "seed": number, "n": 2,
            "stream": number % 2 == 0}


def answer(url, path, body):
    """The answer to a request. The pieces of a stream are joined, because their number depends on the time."""
    text = post(url + path, body)
    if not body["stream"]:
        return same_members(json.loads(text))
    if path == "/generate":
        return same_members(events(text)[-1])
    pieces = {}
    for event in events(text):
        for choice in event["choices"]:
            pieces[choice["index"]] = pieces.get(choice["index"], "") + choice["text"]
    return pieces


def answers(url, salt):
    """The answers to all requests, which are sent together."""
    asked = list(bodies(salt))
    found = [None] * len(asked)

    def ask(index):
        try:
            found[index] = answer(url, *asked[index])
        except Exception as failure:  # reported where answers are compared
            found[index] = f"{type(failure).__name__}: {failure}"

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def expect_equal(found, expected, when):
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        expect(one == other and not isinstance(one, str), f"{when}: answer {index} is {str(one)[:600]} and not {str(other)[:600]}")


class Pair:
    """An ordinary server, and two that share its work."""

    def __init__(self, start, free_port, secret, alone=None, backend="tcp"):
        self.start = start
        self.free_port = free_port
        self.port = free_port()
        self.backend = backend
        self.secret = ["--disaggregation-secret-file", secret, "--disaggregation-transfer-backend", backend]
        self.alone = alone or start(["--max-total-tokens", "40000"])[1]
        self.prefill = None
        self.start_prefill()
        self.decoder, self.decode = start([*DECODE, "--disaggregation-prefill", f"127.0.0.1:{self.port}", *self.secret])

    def start_prefill(self):
        self.prefill, self.prefill_url = self.start(
            [*PREFILL, "--disaggregation-bootstrap-port", str(self.port), *self.secret])

    def connect(self):
        wait_until(lambda: state(self.decode)["connected"], SECONDS_TO_CONNECT,
                   lambda: f"no session: {state(self.decode)}")

    def received(self):
        return metric(self.decode, "kv_transfer_bytes_total")

    def compare(self, salt, when):
        expect_equal(answers(self.decode, salt), answers(self.alone, salt), when)

    def compare_while(self, salt, event, when):
        """Compares answers to requests during whose prefill something happens. A machine may be so fast, or this program so
        slow, that all is answered before anything is seen: then others are asked."""
        for attempt in range(20):
            found = []
            asking = threading.Thread(target=lambda: found.extend(answers(self.decode, f"{salt} {attempt}")))
            before = self.received()
            asking.start()
            wait_until(lambda: metric(self.decode, "disaggregation_transfers") > 0 and self.received() > before + 100_000
                       or not asking.is_alive(), SECONDS_TO_ANSWER, "no transfer has begun")
            is_early = asking.is_alive()
            if is_early:
                event()
            asking.join()
            expect_equal(found, answers(self.alone, f"{salt} {attempt}"), when)
            if is_early:
                return
        expect(False, f"{when}: all was answered before anything could happen")


def share_the_work(pair):
    pair.connect()
    before = pair.received()
    pair.compare("first", "with a session")
    expect(pair.received() > before + 1_000_000, "no keys were received")
    expect(metric(pair.prefill_url, "prompt_tokens_total") > 0, "the prefill server has computed nothing")
    found = state(pair.prefill_url)
    expect(found["mode"] == "prefill" and found["connected"] and found["peers"][0]["address"] == "127.0.0.1"
           and found["transfer_backend"] == pair.backend, f"{found}")
    # A prefill server serves its own clients as well.
    expect_equal(answers(pair.prefill_url, "own"), answers(pair.alone, "own"), "the prefill server's own")


def survive_a_kill(pair):
    pair.connect()
    pair.compare_while("killed", pair.prefill.kill, "while the prefill server is killed")
    pair.prefill.wait()
    wait_until(lambda: not state(pair.decode)["connected"], SECONDS_TO_CONNECT, "the session has not ended")
    expect(state(pair.decode)["peers"][0]["problem"], "there is no reason why there is no session")
    pair.compare("gone", "without a prefill server")
    pair.start_prefill()
    pair.connect()
    before = pair.received()
    pair.compare("again", "with a prefill server that was started again")
    expect(pair.received() > before + 1_000_000, "no keys were received after the start")


def survive_a_pause(pair):
    pair.connect()
    failures = metric(pair.decode, "disaggregation_session_failures_total")
    try:
        pair.compare_while("paused", lambda: pair.prefill.send_signal(signal.SIGSTOP), "while the prefill server stands still")
        wait_until(lambda: metric(pair.decode, "disaggregation_session_failures_total") > failures, SECONDS_TO_CONNECT,
                   "the session has not ended")
    finally:
        pair.prefill.send_signal(signal.SIGCONT)
    pair.connect()
    pair.compare("continued", "with a prefill server that goes on")


def refuse_a_stranger(pair):
    pair.connect()
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write("not what the others have")
        secret.flush()
        _, url = pair.start([*DECODE, "--disaggregation-prefill", f"127.0.0.1:{pair.port}",
                             "--disaggregation-secret-file", secret.name])
        wait_until(lambda: "same secret" in (state(url)["peers"][0]["problem"] or ""), SECONDS_TO_CONNECT,
                   lambda: f"not refused: {state(url)}")
        expect(state(pair.decode)["connected"], "a stranger has ended the session")
        body = {"text": "Once upon a time", "sampling_params": {"max_new_tokens": 8, "temperature": 0}}
        expect(json.loads(post(url + "/generate", body))["text"]
               == json.loads(post(pair.alone + "/generate", body))["text"], "answers differ")


def work_in_numbers(pair):
    """Two decode servers, of which the second has two prefill servers, of which one is killed."""
    pair.connect()
    port = pair.free_port()
    other, other_url = pair.start([*PREFILL, "--disaggregation-bootstrap-port", str(port), *pair.secret])
    _, second = pair.start([*DECODE, "--disaggregation-prefill", f"127.0.0.1:{pair.port},127.0.0.1:{port}", *pair.secret])
    wait_until(lambda: all(peer["connected"] for peer in state(second)["peers"]), SECONDS_TO_CONNECT,
               lambda: f"no sessions: {state(second)}")
    expect(len(state(pair.prefill_url)["peers"]) == 2, f"{state(pair.prefill_url)}")
    found = []
    asking = threading.Thread(target=lambda: found.extend(answers(second, "both")))
    asking.start()
    pair.compare("both", "beside another decode server")
    asking.join()
    expect_equal(found, answers(pair.alone, "both"), "with two prefill servers")
    for url in (pair.prefill_url, other_url):
        expect(metric(url, "kv_transfer_bytes_total") > 0, "a prefill server has sent nothing")
    other.kill()
    other.wait()
    expect_equal(answers(second, "one left"), answers(pair.alone, "one left"), "with one of two prefill servers")
    expect([peer["connected"] for peer in state(second)["peers"]] == [True, False], f"{state(second)}")


def two_step_bodies(salt):
    """Requests to every route that a router of two steps uses, half of them streams."""
    document = DOCUMENT.read_text()
    for number, (length, temperature) in enumerate([(900, 0), (3000, 0.9)]):
        text = f"{salt} {number}: " + document[number * 100:number * 100 + length]
        rest = {"model": "demo", "temperature": temperature, "seed": number}
        for stream in (False, True):
            rest["stream"] = stream
            yield "/v1/completions", rest | {"prompt": f"{stream} {text}", "max_tokens": 8, "min_tokens": 3, "logprobs": 2}
            yield "/v1/completions", rest | {"prompt": f"{stream} two {text}", "max_tokens": 6, "n": 2}
            yield "/v1/chat/completions", rest | {
                "messages": [{"role": "user", "content": f"{stream} {text}"}], "max_completion_tokens": 8}
            yield "/v1/responses", rest | {"input": f"{stream} {text}", "max_output_tokens": 8}


def words(path, text):
    """What the pieces of a stream say, by choice."""
    if path == "/v1/responses":
        found = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        expect(found and found[-1]["type"] in ("response.completed", "response.incomplete"), f"it ends with {text[-300:]}")
        return "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta")
    said = {}
    for event in events(text):
        for choice in event["choices"]:
            piece = choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            said[choice["index"]] = said.get(choice["index"], "") + piece
    return said


def reply(url, path, body):
    text = post(url + path, body)
    return words(path, text) if body["stream"] else same_members(json.loads(text))


def expect_same(url, pair, asked, when):
    for path, body in asked:
        found, expected = reply(url, path, body), reply(pair.alone, path, body)
        expect(found and found == expected, f"{when}: {path} answers {str(found)[:500]} and not {str(expected)[:500]}")


def expect_idle(*urls, seconds=60):
    """No request, page or transfer is left on these servers."""
    def load(url):
        with urllib.request.urlopen(f"{url}/get_load", timeout=60) as answer:
            return json.load(answer)[0]

    for url in urls:
        wait_until(lambda url=url: load(url)["num_reqs"] == 0 and load(url)["num_tokens"] == 0
                   and metric(url, "disaggregation_transfers") == 0, seconds, lambda url=url: f"something is left: {load(url)}")


def answer_in_two_steps(pair):
    pair.connect()
    sidecar = routing_sidecar.Sidecar(pair.prefill_url, pair.decode)
    try:
        before = pair.received()
        asked, found = (metric(pair.prefill_url, f"prefix_cache_{name}_tokens_total") for name in ("query", "hit"))
        expect_same(sidecar.url, pair, two_step_bodies("two steps"), "in two steps")
        expect(pair.received() > before + 1_000_000, "no keys were received")
        # Each prompt is asked for twice, and the second time it is there.
        asked = metric(pair.prefill_url, "prefix_cache_query_tokens_total") - asked
        found = metric(pair.prefill_url, "prefix_cache_hit_tokens_total") - found
        expect(found > 0.4 * asked > 0, f"of {asked:.0f} prompt tokens only {found:.0f} were kept between the steps")
        expect_idle(pair.prefill_url, pair.decode)
    finally:
        sidecar.close()


def refused(url, path, body):
    """The status and the text of a refusal."""
    status, text = routing_sidecar.post(url + path, body, "refused")
    expect(status != 200, f"{path} of {url} has not refused {body}")
    return status, text.decode()


def survive_what_goes_wrong_between_two_steps(pair):
    pair.connect()
    sidecar = routing_sidecar.Sidecar(pair.prefill_url, pair.decode)
    try:
        # The router dies after the first step: nothing is kept for it.
        sidecar.dies = True
        for path, body in two_step_bodies("abandoned"):
            try:
                post(sidecar.url + path, body)
                expect(False, "a router that died has answered")
            except OSError:
                pass
        expect_idle(pair.prefill_url, pair.decode)
        # What it had asked for can be used, also twice, and for another prompt: keys follow from the tokens alone.
        path, body = next(two_step_bodies("kept"))
        _, _, params = routing_sidecar.prefill(pair.prefill_url, path, body)
        other = body | {"prompt": body["prompt"][::-1]}
        for asked in (body, body, other):
            found = reply(pair.decode, path, asked | {"kv_transfer_params": params})
            expect(found == reply(pair.alone, path, asked), f"params that are used again give {found}")
        expect_idle(pair.prefill_url, pair.decode)
        # Servers say what they are not for.
        status, text = refused(pair.alone, path, body | {"kv_transfer_params": routing_sidecar.ASKED})
        expect(status == 400 and "--disaggregation-mode" in text, text)
        status, text = refused(pair.decode, path, body | {"kv_transfer_params": routing_sidecar.ASKED})
        expect(status == 400 and "do_remote_decode" in text, text)
        stranger = params | {"remote_engine_id": "of nobody", "remote_host": "10.255.255.1", "remote_port": 9}
        status, text = refused(pair.decode, path, body | {"kv_transfer_params": stranger})
        expect(status == 503 and "prefill_lost" in text, text)
        # The prefill server is lost between the steps, and then started again under its address.
        pair.prefill.kill()
        pair.prefill.wait()
        wait_until(lambda: not state(pair.decode)["connected"], SECONDS_TO_CONNECT, "the session has not ended")
        status, text = refused(pair.decode, path, body | {"kv_transfer_params": params})
        expect(status == 503 and "prefill_lost" in text, text)
        sidecar.dies = False
        expect_same(sidecar.url, pair, two_step_bodies("no prefill server"), "without a prefill server")
    finally:
        sidecar.close()
        if pair.prefill.poll() is not None:
            pair.start_prefill()
    pair.connect()
    found = reply(pair.decode, path, body | {"kv_transfer_params": params, "prompt": "anew " + body["prompt"]})
    expect(found == reply(pair.alone, path, body | {"prompt": "anew " + body["prompt"]}), f"old params give {found}")
    expect_idle(pair.prefill_url, pair.decode)


CASES = [("two servers answer as one", share_the_work), ("also if the prefill server is killed", survive_a_kill),
         ("also if it stands still", survive_a_pause), ("no server without the secret takes part", refuse_a_stranger),
         ("several servers on both sides answer as one", work_in_numbers),
         ("a router of two steps gets the answers of one", answer_in_two_steps),
         ("also if something goes wrong between the steps", survive_what_goes_wrong_between_two_steps)]
UCX_CASES = [("two servers answer as one over UCX", share_the_work),
             ("also if the prefill server is killed, over UCX", survive_a_kill)]


def has_ucx():
    try:
        ctypes.CDLL("libucp.so.0")
    except OSError:
        return False
    return True


def failures(pair, cases):
    """Runs cases, and returns the number of those that failed."""
    failed = 0
    for name, case in cases:
        try:
            began = time.monotonic()
            case(pair)
            print(f"ok {name} ({time.monotonic() - began:.0f} s)", flush=True)
        except Exception as failure:  # one case must not keep the others from running
            failed += 1
            print(f"FAIL {name}: {type(failure).__name__}: {failure}", flush=True)
    return failed


def run(start, free_port):
    """Runs all cases, and returns whether they passed.

    start: a function that takes options of `braid serve` and returns the process and its address once it is ready.
    free_port: a function that returns a port that nobody uses.
    """
    count, failed = len(CASES), 0
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write("a secret of these two servers\n")
        secret.flush()
        pair = Pair(start, free_port, secret.name)
        failed += failures(pair, CASES)
        if has_ucx():
            count += len(UCX_CASES)
            failed += failures(Pair(start, free_port, secret.name, pair.alone, "ucx"), UCX_CASES)
        else:
            print("NOT RUN: keys over UCX, as there is no libucp.so.0; make setup installs it", flush=True)
    print(f"{count - failed} passed, {failed} failed", flush=True)
    return failed == 0
