"""Checks what happens to a job and its clients when one of its processes is killed, stops or loses its network, and
when the job receives SIGTERM.

Most cases start a server in two processes, wait for a phase, send a signal to one process, and then expect: clients
get an error that names the rank, no process is left, and mpirun's exit status is not 0.
"""

import contextlib
import ctypes
import functools
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

from cases import run_cases
from mpi import BUILD, ROOT, free_port, mpirun

MODEL = ROOT / "Models" / "demo"
# Where a process is to be lost because it is silent, and where a process that ends is noticed without that.
WATCHDOG_OF_SILENCE = 6
WATCHDOG = 300
# These bounds only end what never ends. The last two are beyond the time after which a silent process is lost: to
# answer, and to end everything. Both take a second or two on a machine that does nothing else.
SECONDS_TO_START = 600
SECONDS_TO_ANSWER = 120
SECONDS_TO_END = 120
# More than any machine decodes before a test is over; the demo model's context has 131,072.
TOKENS_WITHOUT_END = 100_000
# How long a request takes that is to end while the job drains, and the most tokens that are tried for it.
SECONDS_OF_A_REQUEST = 5
MOST_TOKENS_OF_A_REQUEST = 60_000
# Cases wait more than they compute.
CASES_AT_A_TIME = 2
SUPERVISE = str(ROOT / "Scripts" / "supervise")


class Failure(Exception):
    """An expectation that did not hold."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


class Job:
    """A server, in two processes unless told otherwise. `mpirun` is the program that was started: that one, or who starts
    it."""

    def __init__(self, log, *supervisor, watchdog=WATCHDOG, options=(), hosts=False, processes=2,
                 layout=("--attn-cp-size", "2")):
        self.url = f"http://127.0.0.1:{free_port()}"
        self.hosts = hosts
        command = [str(BUILD / "braid"), "serve", "--model-path", str(MODEL), "--port", self.url.rsplit(":", 1)[1],
                   *layout, "--watchdog-timeout", str(watchdog), *options]
        self.mark = f"ports-{self.url.rsplit(':', 1)[1]}-{os.getpid()}"
        if processes > 1:
            command = [str(ROOT / "Scripts" / "namespaces"), "2", *command] if hosts else mpirun(processes, command)
        # mpirun kills the other processes of a job that lost one so many seconds later: they have to answer clients before.
        variables = {"BRAID_TEST_JOB": self.mark, "OMPI_MCA_odls_base_sigkill_timeout": "5"}
        self.mpirun = subprocess.Popen([*supervisor, *command], env=os.environ | variables,
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def everything(self):
        """Variables of all processes that the job has, those of MPI among them, by their pids."""
        found = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                variables = dict(entry.split("=", 1) for entry in open(f"/proc/{name}/environ").read().split("\0")
                                 if "=" in entry)
                ended = open(f"/proc/{name}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
            except OSError:
                continue
            if variables.get("BRAID_TEST_JOB") == self.mark and not ended:
                found[int(name)] = variables
        return found

    def processes(self):
        """Pids of the processes of braid, by their numbers."""
        return {int(variables["OMPI_COMM_WORLD_RANK"]): pid for pid, variables in self.everything().items()
                if "OMPI_COMM_WORLD_RANK" in variables}

    @contextlib.contextmanager
    def network(self):
        """Within, this thread is on the network of the first process's host."""
        if not self.hosts:
            yield
            return
        expect(0 in self.processes(), "the first process is gone")
        enter_network(self.processes()[0])
        try:
            yield
        finally:
            enter_network(os.getpid())

    def wait_for_processes(self):
        deadline = time.monotonic() + SECONDS_TO_START
        while len(self.processes()) < 2:
            expect(time.monotonic() < deadline, "the processes did not start")
            time.sleep(0.01)

    def wait_until_ready(self):
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            expect(self.mpirun.poll() is None, f"the job ended with status {self.mpirun.poll()} before it was ready")
            expect(time.monotonic() < deadline, "the job was not ready in time")
            try:
                with self.network(), urllib.request.urlopen(f"{self.url}/ready", timeout=5):
                    return
            except (OSError, Failure):
                time.sleep(0.05)

    def wait_until_running(self, tokens=1):
        """Until a request runs, and the pages of running requests hold so many tokens."""
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            expect(time.monotonic() < deadline, "no request began to run")
            with self.network(), urllib.request.urlopen(f"{self.url}/get_load", timeout=SECONDS_TO_START) as reply:
                load = json.load(reply)[0]
                if load["num_reqs"] > load["num_waiting_reqs"] and load["num_tokens"] >= tokens:
                    return
            time.sleep(0.01)

    def wait_for_end(self, seconds):
        """The exit status; nothing may be left then."""
        began = time.monotonic()
        try:
            status = self.mpirun.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            raise Failure(f"the job goes on {time.monotonic() - began:.1f} seconds later") from None
        expect(not self.processes(), f"processes are left: {self.processes()}")
        return status

    def clean(self):
        self.mpirun.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.mpirun.wait(2)
        for pid in self.everything():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.mpirun.wait()


def enter_network(pid):
    """From now on this thread's sockets are on the network of a process."""
    with open(f"/proc/{pid}/ns/net") as namespace:
        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")


class Client(threading.Thread):
    """Sends a request, and keeps the answer.

    text: a prompt, or several that are requests of their own with one answer.
    """

    def __init__(self, job, text, new_tokens):
        super().__init__(daemon=True)
        self.job = job
        body = {"text": text, "sampling_params": {"max_new_tokens": new_tokens, "temperature": 0, "ignore_eos": True}}
        self.request = urllib.request.Request(f"{job.url}/generate", json.dumps(body).encode(),
                                              {"Content-Type": "application/json"})
        self.text = None
        self.status = None
        self.ended = None

    def run(self):
        try:
            with self.job.network(), urllib.request.urlopen(self.request, timeout=600) as reply:
                self.status, self.text = reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            self.status, self.text = error.code, error.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self.text = f"no answer: {error}"
        self.ended = time.monotonic()


PROMPT = "Once upon a time"
# For each phase in which a request runs: its prompts, its new tokens, and how many tokens its pages hold in that phase.
# Each prompt begins in its own way, so that no prefix of it is in the cache.
PHASES = {
    "loading": None,
    "idle": None,
    "prefill": ([f"{number} {PROMPT * 6000}" for number in range(4)], 1, 2000),
    "decode": (PROMPT, TOKENS_WITHOUT_END, 256),
}


def is_named(victim, text, is_silent):
    """Whether a client was told that this process was lost. Of a process that is silent either it is noticed first that
    nothing was heard from it, or that its rank goes no further: that depends on what the rank did last."""
    lost = f"rank {victim} failed: process {victim} on"
    stuck = rf"rank {victim} failed: no progress for \d+ s \(--watchdog-timeout\): rank {victim} [^;]*process {victim}\b"
    return lost in text or is_silent and re.search(stuck, text) is not None


def case(log, phase, number, victim):
    """number: the signal; victim: the process it is sent to."""
    watchdog = WATCHDOG_OF_SILENCE if number == signal.SIGSTOP else WATCHDOG
    job = Job(log, watchdog=watchdog)
    try:
        job.wait_for_processes()
        client = None
        if phase != "loading":
            job.wait_until_ready()
        if PHASES[phase]:
            text, new_tokens, held = PHASES[phase]
            client = Client(job, text, new_tokens)
            client.start()
            job.wait_until_running(held)
            expect(client.ended is None, f"the answer came too soon: {client.text}")
        began = time.monotonic()
        os.kill(job.processes()[victim], number)
        patience = watchdog if number == signal.SIGSTOP else 0
        if client:
            client.join(patience + SECONDS_TO_ANSWER)
            expect(client.ended, f"the client waits after {patience + SECONDS_TO_ANSWER} seconds")
            # The first process is the server: without it the connection ends, which is an answer too.
            expect(victim == 0 or is_named(victim, client.text, is_silent=number == signal.SIGSTOP),
                   f"the client was told: {client.text[-300:]}")
        if phase == "loading" and number == signal.SIGSTOP:
            # Joining has a longer time limit.
            patience = 10
        expect(job.wait_for_end(patience + SECONDS_TO_END - (time.monotonic() - began)) != 0, "mpirun ended with status 0")
    finally:
        job.clean()


def lasting_tokens(job):
    """How many new tokens take this job some seconds."""
    few = 400
    probe = Client(job, PROMPT, few)
    began = time.monotonic()
    probe.run()
    expect(f'"completion_tokens": {few}' in probe.text, f"the first client was told: {probe.text[-300:]}")
    return min(MOST_TOKENS_OF_A_REQUEST, max(few, round(few * SECONDS_OF_A_REQUEST / (time.monotonic() - began))))


def drains(log, drain_timeout, ends_well):
    """A supervised job that receives SIGTERM lets the running request end, if there is time, and all processes end in
    order: mpirun's status is 0 only then."""
    job = Job(log, SUPERVISE, options=("--drain-timeout", str(drain_timeout)))
    try:
        job.wait_for_processes()
        job.wait_until_ready()
        new_tokens = lasting_tokens(job) if ends_well else TOKENS_WITHOUT_END
        client = Client(job, PROMPT, new_tokens)
        client.start()
        job.wait_until_running()
        expect(client.ended is None, f"the answer came too soon: {client.text}")
        job.mpirun.terminate()
        status = job.wait_for_end(drain_timeout + SECONDS_TO_END)
        expect((status == 0) == ends_well, f"the job ended with status {status}")
        client.join(30)
        expect(client.ended, "the client still waits")
        expect((f'"completion_tokens": {new_tokens}' in client.text) == ends_well, f"the client was told: {client.text}")
    finally:
        job.clean()


def loses_network(log):
    """A host is cut off: its process is lost, nothing of the old job is left on either host, mpirun and its daemons
    included, and the supervisor starts a new one."""
    watchdog = 20
    job = Job(log, SUPERVISE, watchdog=watchdog, hosts=True)
    try:
        job.wait_for_processes()
        job.wait_until_ready()
        text, new_tokens, held = PHASES["decode"]
        client = Client(job, text, new_tokens)
        client.start()
        job.wait_until_running(held)
        expect(client.ended is None, f"the answer came too soon: {client.text}")
        before = set(job.everything()) - {job.mpirun.pid}
        began = time.monotonic()
        subprocess.run(["nsenter", "-t", str(job.processes()[1]), "-n", "ip", "link", "set", "eth0", "down"], check=True)
        client.join(watchdog + SECONDS_TO_ANSWER)
        expect(client.ended, f"the client waits after {watchdog + SECONDS_TO_ANSWER} seconds")
        expect(is_named(1, client.text, is_silent=True), f"the client was told: {client.text[-300:]}")
        while left := before & set(job.everything()):
            expect(time.monotonic() < began + watchdog + SECONDS_TO_END,
                   f"left after {watchdog + SECONDS_TO_END} seconds: {left}")
            time.sleep(0.05)
        job.wait_for_processes()
        job.wait_until_ready()
    finally:
        job.clean()


def comes_back(log):
    """A supervised job serves again after one of its processes was killed, and ends on SIGTERM."""
    job = Job(log, SUPERVISE)
    try:
        job.wait_for_processes()
        job.wait_until_ready()
        before = job.processes()
        os.kill(before[1], signal.SIGKILL)
        deadline = time.monotonic() + SECONDS_TO_START
        while set(job.processes().values()) & set(before.values()) or len(job.processes()) < 2:
            expect(time.monotonic() < deadline, "the job was not started again")
            time.sleep(0.05)
        job.wait_until_ready()
        client = Client(job, PROMPT, 4)
        client.run()
        expect('"text"' in client.text, f"the new job answered: {client.text[-300:]}")
        job.mpirun.terminate()
        status = job.wait_for_end(SECONDS_TO_END)
        expect(status == 0, f"the job ended with status {status}")
    finally:
        job.clean()


def cases():
    """Names, and what to do with a log."""
    # The longest first, so that nothing waits for them alone at the end.
    refusal = subprocess.run([ROOT / "Scripts" / "namespaces", "2", "true"], stdout=subprocess.PIPE, text=True).stdout
    if refusal.startswith("NOT RUN"):
        print(f"NOT RUN: a host is cut off ({refusal.strip()})", flush=True)
    else:
        yield "a host is cut off, and the job comes back", loses_network
    for phase in PHASES:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for victim in (0, 1):
                yield (f"{number.name} of process {victim} while {phase}",
                       functools.partial(case, phase=phase, number=number, victim=victim))
    yield "a supervised job comes back", comes_back
    yield "SIGTERM lets a request end", functools.partial(drains, drain_timeout=300, ends_well=True)
    yield "SIGTERM cuts a long request short", functools.partial(drains, drain_timeout=1, ends_well=False)


def run():
    return run_cases(cases(), CASES_AT_A_TIME)
