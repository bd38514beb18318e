"""Checks what happens to a server when the machine fails it: files that become shorter, no descriptors, a full disk,
directories that cannot be written, a process that is paused, a port that is taken, a log that nobody reads.

A disk that fails while it is read, memory limits of a cgroup, a full /dev/shm and swapping cannot be made here without
rights that tests do not have; a clock that jumps changes nothing, because only monotonic clocks are read.
"""

import contextlib
import http.client
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BRAID = pathlib.Path(os.environ.get("BRAID") or ROOT / ".build" / "release" / "braid").resolve()
MODEL = ROOT / "Models" / "demo"
SECONDS_TO_START = 120
STATUS_OF_A_TRAP = 70


class Failure(Exception):
    """An expectation that did not hold."""


def expect(condition, message):
    if not condition:
        raise Failure(message)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server with a log of its own, which is killed at the end of a `with` statement.

    `output` is a file descriptor for standard output and error in place of that log."""

    def __init__(self, *options, model=MODEL, port=None, output=None, **arguments):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = tempfile.TemporaryFile()
        command = [str(BRAID), "serve", "--model-path", str(model), "--port", str(self.port), *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log if output is None else output, stderr=subprocess.STDOUT,
            **arguments)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def wait_until_ready(self):
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            expect(self.process.poll() is None, f"the server ended with {self.process.poll()}: {self.said()[-600:]}")
            expect(time.monotonic() < deadline, "the server was not ready in time")
            try:
                with urllib.request.urlopen(f"{self.url}/ready", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)

    def wait_for_end(self, seconds):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"the server goes on {seconds} seconds later") from None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.wait_for_end(120)

    def generate(self, prompt="Once upon a time", new_tokens=8, timeout=600):
        """The answer's text, or the body of an error."""
        body = {"text": prompt, "sampling_params": {"max_new_tokens": new_tokens, "temperature": 0, "ignore_eos": True}}
        request = urllib.request.Request(f"{self.url}/generate", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return json.load(reply)["text"]
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except (OSError, http.client.HTTPException) as error:
            return f"no answer: {error}"


def truncated_weights():
    """A weight file becomes shorter while it is mapped: clients and the log get the file's name."""
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "model"
        shutil.copytree(MODEL, model)
        with Server(model=model) as server:
            server.wait_until_ready()
            weights = model / "model.safetensors"
            with open(weights, "r+b") as file:
                file.truncate(4096)
            answer = server.generate(new_tokens=64)
            status = server.wait_for_end(120)
            for where, text in (("the client", answer), ("the log", server.said())):
                expect("SIGBUS" in text and str(weights) in text, f"{where} was told: {text[-400:]}")
            expect(status == STATUS_OF_A_TRAP, f"the server ended with exit status {status}")


def no_descriptors():
    """More connections than the process has descriptors: those that exist are served, and new ones again later."""
    limit = 96

    def restrict():
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    with Server(preexec_fn=restrict) as server:
        server.wait_until_ready()
        before = server.generate()
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        client.request("GET", "/health")
        expect(client.getresponse().read() is not None, "no answer")
        with contextlib.ExitStack() as stack:
            for _ in range(2 * limit):
                stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", server.port), timeout=60)))
            time.sleep(0.5)
            expect(server.process.poll() is None, f"the server ended: {server.said()[-600:]}")
            client.request("GET", "/health")
            expect(client.getresponse().status == 200, "an open connection is not served")
        deadline = time.monotonic() + 120
        while (answer := server.generate()) != before:
            expect(time.monotonic() < deadline, f"the server does not recover: {answer}; {server.said()[-600:]}")
            time.sleep(0.2)
        expect(server.stop() == 0, "the server did not end well")


def read_only_directories():
    """Neither the working directory nor HOME can be written, or HOME is missing: the server needs neither."""
    nowhere = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    homes = ((nowhere | {"HOME": "/proc"}, "/proc"), (nowhere, "/"), (nowhere | {"HOME": ""}, "/sys"))
    for variables, directory in homes:
        with Server(env=variables, cwd=directory) as server:
            server.wait_until_ready()
            expect(len(server.generate()) > 0, "no answer")
            expect(server.stop() == 0, f"the server did not end well: {server.said()[-400:]}")


def full_disk():
    """The trace cannot be written: the server says so once, goes on, and ends with an error."""
    with Server("--trace", "/dev/full") as server:
        server.wait_until_ready()
        expect("no answer" not in server.generate(), "no answer")
        status = server.stop()
        said = server.said()
        expect(said.count("writing to '/dev/full' failed") >= 1, f"it said: {said[-400:]}")
        expect(status == 1, f"the server ended with exit status {status}")


def full_disk_of_tune():
    """The tuning file cannot be written: an error that names the file."""
    for path in ("/dev/full/tuning.json", "/proc/tuning.json"):
        command = [str(BRAID), "tune", "--model-path", str(MODEL), "--output", path, "--repeat", "1"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=600)
        expect(done.returncode not in (0, STATUS_OF_A_TRAP) and done.returncode > 0, f"exit status {done.returncode}")
        expect(path in done.stdout, f"it said: {done.stdout[-400:]}")


def paused():
    """The process is stopped for longer than the watchdog waits: it goes on, and the answer is the same."""
    with Server("--watchdog-timeout", "5") as server:
        server.wait_until_ready()
        before = server.generate(new_tokens=1500)
        answers = []
        client = threading.Thread(target=lambda: answers.append(server.generate(new_tokens=1500)))
        client.start()
        time.sleep(0.2)
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(12)
        server.process.send_signal(signal.SIGCONT)
        client.join(600)
        expect(answers == [before], f"the answer was {answers[0][-300:] if answers else 'missing'}")
        expect(server.stop() == 0, "the server did not end well")


def unread_log():
    """Standard error is a pipe that nobody reads: requests are answered, and the lines that were dropped are counted."""
    reading, writing = os.pipe()
    with Server("--access-log", output=writing) as server, open(reading, "rb") as log:
        os.close(writing)
        server.wait_until_ready()
        # A line has almost 50 bytes: these are more than the pipe and the server keep together, 320 KiB.
        count = 12_000
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for _ in range(count):
            connection.request("GET", "/health")
            answer = connection.getresponse()
            answer.read()
            expect(answer.status == 200, f"/health answered {answer.status}")
        connection.close()
        lines = []
        reader = threading.Thread(target=lambda: lines.extend(log.read().decode().splitlines()))
        reader.start()
        status = server.stop()
        reader.join(60)
        expect(status == 0, f"the server ended with exit status {status}")
        written = sum("GET /health 200" in line for line in lines)
        dropped = sum(int(line.split()[0]) for line in lines if line.endswith("standard error did not take them"))
        expect(dropped > 0, "no line says that lines were dropped")
        # Those of /ready, of the start and of the end are not counted here, and some of the latter may be dropped, too.
        expect(0 <= written + dropped - count < 200, f"{written} lines were written and {dropped} dropped of {count}")


def port_taken():
    """Another program listens on the port: the server ends at once, and names port and option."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with Server(port=port) as server:
            status = server.wait_for_end(120)
            expect(status == 1, f"the server ended with exit status {status}")
            expect(f"127.0.0.1:{port}" in server.said() and "--port" in server.said(), f"it said: {server.said()}")


CASES = [truncated_weights, no_descriptors, read_only_directories, full_disk, full_disk_of_tune, paused, port_taken, unread_log]


def run(names=()):
    """Runs all cases, or those that are named, and returns whether they passed."""
    cases = [case for case in CASES if not names or case.__name__ in names]
    failed = 0
    for case in cases:
        name = case.__doc__.split("\n")[0]
        began = time.monotonic()
        try:
            case()
            print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception as failure:  # one case must not keep the others from running
            failed += 1
            print(f"FAIL {name} {type(failure).__name__}: {failure}", flush=True)
    print(f"{len(cases) - failed} passed, {failed} failed", flush=True)
    return failed == 0
