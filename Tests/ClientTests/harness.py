"""What the tests of clients share. Tests/ClientTests/run starts this file in the virtual environment of a group:
`harness.py GROUP URL MODEL HEADS [WORD...]` runs the group's tests and prints `ok name` or `FAILED name` for each."""

import contextlib
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import traceback

HERE = pathlib.Path(__file__).resolve().parent
SECONDS = 300  # of a test, most of them for programs that import torch
TESTS = []


class Server:
    """Where the server and its checkpoint are, and the first token of each script."""

    def __init__(self, url, model, heads):
        self.url, self.model, self.heads = url, model, heads
        self.base_url = f"{url}/v1"

    def say(self, script):
        """The members of a request that make the model say a script. Tools whose names a grammar writes first begin
        at the first piece all the same."""
        return {"logit_bias": {str(self.heads[script]): 100}}


def test(function):
    TESTS.append(function)
    return function


@contextlib.contextmanager
def raises(kind):
    """Fails unless this kind of error is raised; what was raised is `error` of the value."""
    class Raised:
        error = None
    raised = Raised()
    try:
        yield raised
    except kind as error:
        raised.error = error
        return
    raise AssertionError(f"no {kind.__name__} was raised")


def run(*command, **options):
    """What a program of the group's virtual environment prints; fails if the program does."""
    command = [str(pathlib.Path(sys.executable).parent / command[0]), *map(str, command[1:])]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        **options)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout


def expire(*_):
    raise TimeoutError(f"the test took more than {SECONDS} seconds")


def main(group, url, model, heads, *words):
    # What clients print is theirs; standard output has nothing but results.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path[:0] = [str(HERE), str(HERE / group)]
    sys.modules["harness"] = sys.modules["__main__"]  # so that the tests register here
    # No client may ask another server than this one.
    os.environ |= {"OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                   "ANONYMIZED_TELEMETRY": "False", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    for path in sorted((HERE / group).glob("*_tests.py")):
        importlib.import_module(path.stem)
    importlib.import_module("snippets").register(group)
    server = Server(url, model, json.loads(heads))
    signal.signal(signal.SIGALRM, expire)
    for function in TESTS:
        if words and not any(word in function.__name__ for word in words):
            continue
        signal.alarm(SECONDS)
        try:
            function(server)
            print(f"ok      {group}.{function.__name__}", file=results, flush=True)
        except Exception:  # noqa: BLE001: whatever a client raises is a failure
            print(f"FAILED  {group}.{function.__name__}\n{traceback.format_exc()}", file=results, flush=True)
        finally:
            signal.alarm(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
