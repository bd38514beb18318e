"""What becomes of a job and its clients when one of its processes is killed, or stops.

Each case starts a server in two processes, waits for a phase, sends a signal to one process, and then expects: clients
are told which rank it was, no process is left, and mpirun's exit status is not 0.
"""

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

from mpi import BUILD, ROOT, free_port, mpirun

MODEL = ROOT / "Models" / "demo"
WATCHDOG = 3
SECONDS_TO_START = 60
# Beyond the time after which a silent process is lost: to answer, and to end everything.
SECONDS_TO_ANSWER = 3
SECONDS_TO_END = 9


class Failure(Exception):
    """What was not as it should be."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


class Job:
    """A server in two processes."""

    def __init__(self, log, *supervisor):
        self.url = f"http://127.0.0.1:{free_port()}"
        command = [str(BUILD / "braid"), "serve", "--model-path", str(MODEL), "--port", self.url.rsplit(":", 1)[1],
                   "--attn-cp-size", "2", "--watchdog-timeout", str(WATCHDOG)]
        self.mark = f"ports-{self.url.rsplit(':', 1)[1]}-{os.getpid()}"
        self.mpirun = subprocess.Popen([*supervisor, *mpirun(2, command, "-x", f"BRAID_TEST_JOB={self.mark}")],
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def processes(self):
        """Pids of the processes of braid, by their numbers."""
        found = {}
        for name in os.listdir("/proc"):
            try:
                variables = dict(entry.split("=", 1) for entry in open(f"/proc/{name}/environ").read().split("\0")
                                 if "=" in entry) if name.isdigit() else {}
                ended = name.isdigit() and open(f"/proc/{name}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
            except OSError:
                continue
            if variables.get("BRAID_TEST_JOB") == self.mark and "OMPI_COMM_WORLD_RANK" in variables and not ended:
                found[int(variables["OMPI_COMM_WORLD_RANK"])] = int(name)
        return found

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
                with urllib.request.urlopen(f"{self.url}/ready", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)

    def clean(self):
        for pid in self.processes().values():
            os.kill(pid, signal.SIGKILL)
        if self.mpirun.poll() is None:
            self.mpirun.kill()
        self.mpirun.wait()


class Client(threading.Thread):
    """Asks for more than the server can give in time, and keeps the answer."""

    def __init__(self, url, prompt, new_tokens):
        super().__init__(daemon=True)
        body = {"text": prompt, "sampling_params": {"max_new_tokens": new_tokens, "temperature": 0, "ignore_eos": True}}
        self.request = urllib.request.Request(f"{url}/generate", json.dumps(body).encode(),
                                              {"Content-Type": "application/json"})
        self.text = None
        self.ended = None

    def run(self):
        try:
            with urllib.request.urlopen(self.request, timeout=60) as reply:
                self.text = reply.read().decode()
        except urllib.error.HTTPError as error:
            self.text = error.read().decode()
        except OSError as error:
            self.text = f"no answer: {error}"
        self.ended = time.monotonic()


PHASES = {
    "loading": None,
    "idle": None,
    "prefill": ("Once upon a time " * 6000, 1),
    "decode": ("Once upon a time", 4000),
}


def case(log, phase, number, victim):
    """number: the signal; victim: the process it is sent to."""
    job = Job(log)
    try:
        job.wait_for_processes()
        client = None
        if phase != "loading":
            job.wait_until_ready()
        if PHASES[phase]:
            client = Client(job.url, *PHASES[phase])
            client.start()
            time.sleep(0.7)
            expect(client.ended is None, f"the answer came too soon: {client.text}")
        began = time.monotonic()
        os.kill(job.processes()[victim], number)
        patience = WATCHDOG if number == signal.SIGSTOP else 0
        if client:
            client.join(patience + SECONDS_TO_ANSWER)
            expect(client.ended, f"the client waits after {patience + SECONDS_TO_ANSWER} seconds")
            # The first process is the server: without it the connection ends, which is an answer too.
            expect(victim == 0 or f"rank {victim} failed: process {victim} on" in client.text,
                   f"the client was told: {client.text[-300:]}")
        if phase == "loading" and number == signal.SIGSTOP:
            # Joining is waited for longer.
            patience = 10
        try:
            status = job.mpirun.wait(patience + SECONDS_TO_END - (time.monotonic() - began))
        except subprocess.TimeoutExpired:
            raise Failure(f"the job goes on {time.monotonic() - began:.1f} seconds later") from None
        expect(status != 0, "mpirun ended with status 0")
        expect(not job.processes(), f"processes are left: {job.processes()}")
    finally:
        job.clean()


def comes_back(log):
    """A supervised job serves again after one of its processes was killed, and ends when it is told to."""
    job = Job(log, str(ROOT / "Scripts" / "supervise"))
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
        client = Client(job.url, *PHASES["decode"][:1], 4)
        client.run()
        expect('"text"' in client.text, f"the new job answered: {client.text[-300:]}")
        job.mpirun.terminate()
        job.mpirun.wait(SECONDS_TO_END)
        expect(not job.processes(), f"processes are left: {job.processes()}")
    finally:
        job.clean()


def run():
    cases = [(f"{number.name} of process {victim} while {phase}", case, (phase, number, victim))
             for phase in PHASES for number in (signal.SIGKILL, signal.SIGSTOP) for victim in (0, 1)]
    cases.append(("a supervised job comes back", comes_back, ()))
    failed = 0
    for name, body, arguments in cases:
        with tempfile.TemporaryFile() as log:
            began = time.monotonic()
            try:
                body(log, *arguments)
                print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
            except Exception as failure:  # one case must not keep the others from running
                failed += 1
                log.seek(0)
                print(f"FAIL {name}: {type(failure).__name__}: {failure}\nthe job said:\n"
                      + log.read().decode(errors="replace")[-2000:], flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed", flush=True)
    return failed == 0
