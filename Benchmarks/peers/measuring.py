"""Shared parts of the peers' programs: the prompts of `braid bench`, one command line, results as lines of JSON."""

import argparse
import json
import pathlib
import statistics
import time

import numpy as np

CHUNK = 512  # tokens of one forward: with models of this kind, both peers took the least time with 256 to 1024
COMPUTED = 512  # positions of a decoding request's context that are really computed; the others repeat their keys


def prompt(count, vocabulary, seed=1):
    """The tokens that `braid bench prefill --seed SEED` feeds: Philox4x32-10 with the counter (index, 0) and the key
    (seed, 0). Of a vocabulary that is a power of two each number gives one token."""
    assert vocabulary & (vocabulary - 1) == 0, f"a vocabulary of {vocabulary} is no power of two"
    mask = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    words = [np.arange(count, dtype=np.uint64)] + [np.zeros(count, dtype=np.uint64) for _ in range(3)]
    keys = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        first, second = words[0] * np.uint64(0xD2511F53), words[2] * np.uint64(0xCD9E8D57)
        words = [second >> shift ^ words[1] ^ np.uint64(keys[0]), second & mask,
                 first >> shift ^ words[3] ^ np.uint64(keys[1]), first & mask]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return (words[1] * np.uint64(vocabulary) >> shift).astype(np.int64).tolist()


class Stopwatch:
    """Seconds, and processor seconds of all threads, since it was made."""

    def __init__(self):
        self.began, self.processor_began = time.perf_counter(), time.process_time()

    def read(self):
        return {"seconds": round(time.perf_counter() - self.began, 5),
                "processor_seconds": round(time.process_time() - self.processor_began, 5)}


def emit(**members):
    print(json.dumps(members), flush=True)


def prefill_points(lengths, vocabulary, forward):
    """Feeds one prompt and reports the time so far at each length. `forward(tokens, position)` computes a chunk."""
    tokens, at, watch = prompt(lengths[-1], vocabulary), 0, Stopwatch()
    for length in lengths:
        while at < length:
            end = min(at + CHUNK, length)
            forward(tokens[at:end], at)
            at = end
        yield length, watch.read()


def decode_point(steps, forward, length):
    """Median seconds of a step of one token after `length` positions, after one that is not counted: of `steps`, or
    of as many as take twenty seconds."""
    seconds, processor, all_steps = [], [], Stopwatch()
    while len(seconds) <= steps and (len(seconds) < 2 or all_steps.read()["processor_seconds"] < 20):
        watch = Stopwatch()
        forward([5], length + len(seconds))
        taken = watch.read()
        seconds.append(taken["seconds"])
        processor.append(taken["processor_seconds"])
    return {"seconds": statistics.median(seconds[1:]), "processor_seconds": statistics.median(processor[1:])}


def arguments(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=("prefill", "decode", "scores"))
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a checkpoint's directory")
    parser.add_argument("--lengths", type=lambda text: [int(part) for part in text.split(",")], required=True,
                        help="of prompts, ascending; for scores, of one prompt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8, help="tokens decoded at each length, at most")
    return parser


def emit_scores(tokens, logits):
    """Log-probabilities of a prompt's tokens after the first, and the best token at each place."""
    values = np.asarray(logits, dtype=np.float64)[:-1]
    values -= values.max(axis=1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    emit(case="scores", tokens=len(tokens), best=values.argmax(axis=1).tolist(),
         logprobs=[round(float(values[at, token]), 6) for at, token in enumerate(tokens[1:])])
