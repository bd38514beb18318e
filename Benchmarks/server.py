"""A running `braid serve`."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from harness import BRAID


class Server:
    """Serves a model on a free port until the `with` ends."""

    def __init__(self, model, *flags):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [BRAID, "serve", "--model-path", str(model), "--port", str(self.port), *flags]

    def __enter__(self):
        print("$", *self.command, flush=True)
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=5):
                    return self
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"bench: the server ended with status {self.process.returncode}")
                time.sleep(0.1)
        self.process.kill()
        sys.exit("bench: the server was not ready after a minute")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def post(self, path, body, timeout=600):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)
