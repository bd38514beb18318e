"""Checks that a prefill and a decode server of several processes each answer as one server does: with pipeline stages, data
groups, copies and shares of the keys in different processes, and while a process of the prefill server is killed. A process
other than the first of either server stands still: clients are answered, and nothing is left on the other server.
"""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time

from cases import run_cases
from failing_processes import WATCHDOG, WATCHDOG_OF_SILENCE, Client, Failure, Job, expect, is_named
from mpi import ROOT, free_port

sys.path.append(str(ROOT / "Tests" / "EndToEndTests"))
from disaggregated_servers import DOCUMENT, answers, expect_equal, expect_idle, metric, state, wait_until  # noqa: E402

SECONDS_TO_CONNECT = 120
# A lost prefill server is noticed at once, or after 10 s of silence; the rest is time to compute on a busy machine.
SECONDS_TO_ANSWER = 120
# From the moment at which a process stands still until it is lost, with the same time for a busy machine; nothing has to be
# computed. It only ends what never ends: how long it took is printed.
SECONDS_TO_NOTICE = WATCHDOG_OF_SILENCE + SECONDS_TO_ANSWER
TOKENS = ["--max-total-tokens", "40000"]


class Servers:
    """The servers of one case, all of which are ended with it."""

    def __init__(self, log, secret, watchdog=WATCHDOG):
        self.log = log
        self.watchdog = watchdog
        self.secret = ["--disaggregation-secret-file", secret]
        self.jobs = contextlib.ExitStack()

    def start(self, processes, layout, options=()):
        job = Job(self.log, processes=processes, layout=layout, watchdog=self.watchdog, options=[*TOKENS, *options])
        self.jobs.callback(job.clean)
        return job

    def prefill(self, processes, *layout):
        """Starts a prefill server, and returns it and its port for decode servers."""
        port = free_port()
        return self.start(processes, layout, ["--page-size", "64", "--chunked-prefill-size", "64", "--disaggregation-mode",
                                              "prefill", "--disaggregation-bootstrap-port", str(port), *self.secret]), port

    def decode(self, port, processes, *layout):
        return self.start(processes, layout, ["--page-size", "16", "--disaggregation-mode", "decode",
                                              "--disaggregation-local-prefill", "0", "--disaggregation-prefill",
                                              f"127.0.0.1:{port}", *self.secret])

    @staticmethod
    def connect(*decodes):
        for server in decodes:
            server.wait_until_ready()
            wait_until(lambda url=server.url: state(url)["connected"], SECONDS_TO_CONNECT,
                       lambda url=server.url: f"no session: {state(url)}")


def compare(alone, prefill, decode, salt, when):
    """Compares answers, and expects that the prefill server has computed all prompts."""
    before, computed = metric(decode.url, "kv_transfer_bytes_total"), metric(prefill.url, "prompt_tokens_total")
    expect_equal(answers(decode.url, salt), alone, when)
    expect(metric(decode.url, "kv_transfer_bytes_total") > before + 1_000_000, f"{when}: no keys were received")
    expect(metric(prefill.url, "prompt_tokens_total") > computed + 1000, f"{when}: no prompt was computed")
    expect(state(decode.url)["connected"], f"{when}: the session has ended: {state(decode.url)}")


def answer_as_one(servers):
    one = servers.start(1, [])
    stages, stages_port = servers.prefill(2, "--pp-size", "2")
    single, single_port = servers.prefill(1)
    # Of one process; of two that each keep a half of the keys; of two that keep a copy each.
    decodes = [(stages, servers.decode(stages_port, 1)),
               (stages, servers.decode(stages_port, 2, "--attn-cp-size", "2", "--dcp-size", "2")),
               (single, servers.decode(single_port, 2, "--tp-size", "2"))]
    one.wait_until_ready()
    servers.connect(*(decode for _, decode in decodes))
    for number, (prefill, decode) in enumerate(decodes):
        compare(answers(one.url, f"case {number}"), prefill, decode, f"case {number}",
                ["2 processes to 1", "2 stages to 2 shares", "1 process to 2 copies"][number])


def disturb_while_asking(victim, decode, number):
    """Asks for answers, and sends a process a signal while the prefill server computes prompts for them. A machine may be so
    fast, or this program so slow, that all prompts are computed before anything is seen: so the process is stopped before
    it is looked whether transfers are left, and if none are it goes on and others are asked for.

    Returns the thread that asks, the list that gets its answers, and their salt."""
    for attempt in range(20):
        found, salt = [], f"disturbed {attempt}"
        before = metric(decode.url, "kv_transfer_bytes_total")
        asking = threading.Thread(target=lambda found=found, salt=salt: found.extend(answers(decode.url, salt)))
        asking.start()
        # Signs of life are fewer bytes.
        wait_until(lambda before=before: metric(decode.url, "kv_transfer_bytes_total") > before + 10_000,
                   SECONDS_TO_CONNECT, "no transfer has begun")
        os.kill(victim, signal.SIGSTOP)
        if metric(decode.url, "disaggregation_transfers") > 0:
            os.kill(victim, number)
            return asking, found, salt
        os.kill(victim, signal.SIGCONT)
        asking.join(SECONDS_TO_ANSWER)
        expect(not asking.is_alive(), f"no answer after {SECONDS_TO_ANSWER} s")
    raise Failure("all prompts were computed before a process could be disturbed")


def survive_a_kill(servers):
    one = servers.start(1, [])
    prefill, port = servers.prefill(2, "--attn-dp-size", "2")
    decode = servers.decode(port, 2, "--attn-cp-size", "2", "--dcp-size", "2")
    one.wait_until_ready()
    servers.connect(decode)
    compare(answers(one.url, "before"), prefill, decode, "before", "2 data groups to 2 shares")
    asking, found, salt = disturb_while_asking(prefill.processes()[1], decode, signal.SIGKILL)
    began = time.monotonic()
    asking.join(SECONDS_TO_ANSWER)
    expect(not asking.is_alive(), f"no answer after {SECONDS_TO_ANSWER} s")
    took = time.monotonic() - began
    wait_until(lambda: not state(decode.url)["connected"], SECONDS_TO_CONNECT, "the session has not ended")
    expect(metric(decode.url, "disaggregation_transfers") == 0, "transfers are left")
    expect_equal(found, answers(one.url, salt), "while a process of the prefill server is killed")
    expect_equal(answers(decode.url, "gone"), answers(one.url, "gone"), "without a prefill server")
    print(f"answered {took:.1f} s after the kill", flush=True)


def survive_processes_that_stand_still(servers):
    servers.watchdog = WATCHDOG_OF_SILENCE
    one = servers.start(1, [])
    prefill, port = servers.prefill(2, "--pp-size", "2")
    stopped = servers.decode(port, 2, "--attn-cp-size", "2", "--dcp-size", "2")
    decode = servers.decode(port, 2, "--tp-size", "2")
    one.wait_until_ready()
    servers.connect(stopped, decode)

    # Of the decode server, while prompts are computed for it: clients get an error that names the rank.
    document = DOCUMENT.read_text()
    clients = [Client(stopped, f"{number} {document}", 4) for number in range(3)]
    for client in clients:
        client.start()
    wait_until(lambda: metric(stopped.url, "disaggregation_transfers") > 0, SECONDS_TO_CONNECT, "no transfer has begun")
    victim = stopped.processes()[1]
    for client in clients:
        expect(client.ended is None, f"the answer came too soon: {client.text}")
    began = time.monotonic()
    os.kill(victim, signal.SIGSTOP)
    for client in clients:
        client.join(max(0, began + SECONDS_TO_NOTICE - time.monotonic()))
        expect(client.ended, f"no answer after {SECONDS_TO_NOTICE} s")
        expect(client.status == 500 and is_named(1, client.text, is_silent=True),
               f"status {client.status}, and the client was told: {client.text[-300:]}")
    took = max(client.ended for client in clients) - began
    expect(stopped.wait_for_end(SECONDS_TO_ANSWER) != 0, "the job ended with status 0")
    expect_idle(prefill.url, seconds=SECONDS_TO_ANSWER)
    compare(answers(one.url, "other"), prefill, decode, "other", "with another decode server")
    print(f"clients were answered {took:.1f} s after a process of the decode server stood still", flush=True)

    # Of the prefill server: the decode server computes what is missing.
    asking, found, salt = disturb_while_asking(prefill.processes()[1], decode, signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: not state(decode.url)["connected"], SECONDS_TO_NOTICE, "the session has not ended")
    took = time.monotonic() - began
    asking.join(SECONDS_TO_ANSWER)
    expect(not asking.is_alive(), f"no answer after {SECONDS_TO_ANSWER} s")
    print(f"answered {time.monotonic() - began:.1f} s after a process of the prefill server stood still, which was noticed "
          f"after {took:.1f} s", flush=True)
    expect_equal(found, answers(one.url, salt), "while a process of the prefill server stands still")
    expect(prefill.wait_for_end(SECONDS_TO_ANSWER) != 0, "the job ended with status 0")
    expect_idle(decode.url, seconds=SECONDS_TO_ANSWER)


CASES = [("servers of several processes answer as one", answer_as_one),
         ("also if a process of the prefill server is killed", survive_a_kill),
         ("also if processes other than the first stand still", survive_processes_that_stand_still)]


def with_servers(case, secret):
    """Returns the case as a function of the file for what its servers say."""
    def body(log):
        servers = Servers(log, secret)
        with servers.jobs:
            case(servers)
    return body


def run():
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write("a secret of these servers\n")
        secret.flush()
        return run_cases([(name, with_servers(case, secret.name)) for name, case in CASES])
