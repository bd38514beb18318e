"""Runs the cases of a part, and counts them."""

import concurrent.futures
import tempfile
import time


def passes(name, body):
    """Runs a case with a file for what its programs say, and prints its result."""
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        try:
            body(log)
            print(f"ok {name} ({time.monotonic() - began:.1f} s)", flush=True)
            return True
        except Exception as failure:  # one case must not keep the others from running
            log.seek(0)
            print(f"FAIL {name}: {type(failure).__name__}: {failure}\nits programs said:\n"
                  + log.read().decode(errors="replace")[-4000:], flush=True)
            return False


def run_cases(cases, at_a_time=1):
    """Runs all cases, pairs of a name and a function of a file, and returns whether they passed."""
    with concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
        results = list(pool.map(lambda named: passes(*named), cases))
    print(f"{sum(results)} passed, {len(results) - sum(results)} failed", flush=True)
    return all(results)
