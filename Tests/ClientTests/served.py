"""Starts `braid serve` for the tests of this folder."""

import contextlib
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BRAID = ROOT / ".build" / "release" / "braid"
# Bounds that only end what hangs.
SECONDS_TO_START = 600
SECONDS_TO_END = 300


class Served:
    """A running server. What it said is shown at its end unless a test has set is_good."""

    def __init__(self, url):
        self.url = url
        self.is_good = False


def wait_until_ready(server, url):
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5):
                return
        except urllib.error.HTTPError as error:
            if error.code == 401:
                raise RuntimeError("start the server with --open-monitoring, so that /ready needs no key") from None
            time.sleep(0.1)
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"the server is not ready (exit status {server.poll()})")


@contextlib.contextmanager
def served(model, name, *options):
    """A server of a model on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile("w+") as log:
        command = [BRAID, "serve", "--model-path", model, "--served-model-name", name, "--port", str(port), *options]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        handle = Served(f"http://127.0.0.1:{port}")
        try:
            wait_until_ready(server, handle.url)
            yield handle
        finally:
            server.terminate()
            try:
                server.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                server.kill()
                raise RuntimeError(f"the server goes on {SECONDS_TO_END} seconds after SIGTERM") from None
            if not handle.is_good:
                log.seek(0)
                print(log.read()[-4000:], file=sys.stderr)
