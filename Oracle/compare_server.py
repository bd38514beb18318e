#!/usr/bin/env python3
"""Compares a running server with transformers: logprobs of the prompt, logprobs and tokens of a greedy continuation.

    python Oracle/compare_server.py --url http://127.0.0.1:30000 --checkpoint DIR --seeds 0,1,2

DIR is what transformers reads: the served directory, or the `-dequant` twin of a quantized one. With `--integers SERVED`,
transformers rounds activations to INT8 where the served directory has INT8 weights, as W8A8 does. With `--dtype bfloat16`
it computes as that numerics profile does. Every prompt is sent to `/generate` as ids; all at once, so that the server
mixes them. Exit status 0: all agree; 1: some do not; 2: the server did not answer as it should.

A position is judged only if no indexer or router choice up to it was a close call (`--close-call`, see `Decisions`), and
no key or activation up to it was nearly rounded to another number (`--close-rounding`, `--close-step`): behind those,
both answers are right. Tokens are judged where the two best differ by at least `--token-gap`.
The continuation is judged on the server's own tokens, so one difference does not hide the rest.
"""

import argparse
import contextlib
import concurrent.futures
import dataclasses
import json
import math
import sys
import urllib.error
import urllib.request

import torch

import bfloat16_profile
import integer_activations
import reference
import rounded_cache

TOP = 8


class BadAnswer(Exception):
    """The server answered something that is not of the agreed form."""


def ask(url, ids, new_tokens, timeout):
    """The JSON that /generate answers, or BadAnswer."""
    body = {"input_ids": ids, "return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": TOP,
            "sampling_params": {"temperature": 0, "max_new_tokens": new_tokens, "ignore_eos": True}}
    request = urllib.request.Request(url.rstrip("/") + "/generate", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise BadAnswer(f"HTTP {error.code}: {error.read(500).decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise BadAnswer(str(error)) from error


def check_entries(entries, vocabulary):
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) >= 2 and isinstance(entry[0], (int, float))
                and math.isfinite(entry[0]) and isinstance(entry[1], int) and 0 <= entry[1] < vocabulary):
            raise BadAnswer(f"{entry} is not a logprob and a token")


def answered_rows(answer, ids, new_tokens, vocabulary):
    """(output ids, logprob of each token after the first, the top entries at each), both [prompt - 1 + new]."""
    try:
        meta, output = answer["meta_info"], answer["output_ids"]
        chosen = meta["input_token_logprobs"] + meta["output_token_logprobs"]
        top = meta["input_top_logprobs"] + meta["output_top_logprobs"]
    except (KeyError, TypeError) as error:
        raise BadAnswer(f"lacks {error}") from error
    sequence = ids + output
    if len(output) != new_tokens or len(chosen) != len(sequence) or len(top) != len(sequence):
        raise BadAnswer(f"{len(output)} tokens, {len(chosen)} logprobs, {len(top)} tops for {len(ids)} + {new_tokens}")
    if [entry[1] for entry in chosen] != sequence:
        raise BadAnswer("the ids beside the logprobs are not those of the prompt and the output")
    if chosen[0][0] is not None or top[0] is not None:
        raise BadAnswer("the first token has a logprob, though nothing came before it")
    check_entries(chosen[1:], vocabulary)
    for entries in top[1:]:
        check_entries(entries or [], vocabulary)
        if len({entry[1] for entry in entries or []}) != min(TOP, vocabulary):
            raise BadAnswer(f"a top list has not {min(TOP, vocabulary)} different tokens: {entries}")
    return output, [entry[0] for entry in chosen[1:]], top[1:]


@dataclasses.dataclass
class Result:
    seed: int
    length: int
    judged: int = 0
    rows: int = 0
    chosen: float = 0.0  # largest |difference| of a token's logprob
    top: float = 0.0  # largest |difference| in the top lists
    tokens: int = 0  # greedy tokens judged
    wrong_tokens: int = 0
    problem: str = ""

    def failed(self, tolerance):
        return bool(self.problem) or self.wrong_tokens > 0 or not max(self.chosen, self.top) <= tolerance

    def line(self, tolerance):
        verdict = self.problem or ("FAIL" if self.failed(tolerance) else "ok")
        return (f"{self.seed:>5} {self.length:>7} {self.judged:>7}/{self.rows:<7} {self.chosen:>10.2e} "
                f"{self.top:>10.2e} {self.wrong_tokens:>6}/{self.tokens:<6} {verdict}")


def top_difference(row, entries):
    """How far a top list is from the reference: its logprobs, its order, and whether something better is missing."""
    values = [value for value, *_ in entries]
    ids = [token for _, token, *_ in entries]
    if values != sorted(values, reverse=True):
        return math.inf
    missing = row.clone()
    missing[ids] = -math.inf
    beyond = float(missing.max()) - values[-1]
    return max([abs(float(row[token]) - value) for value, token in zip(values, ids)] + [beyond])


def judge(model, answer, ids, seed, options):
    """One prompt's answer against one forward of the reference over prompt and continuation."""
    result = Result(seed, len(ids))
    try:
        output, chosen, top = answered_rows(answer, ids, options.max_new_tokens, model.config.vocab_size)
    except BadAnswer as problem:
        result.problem = f"bad answer: {problem}"
        return result
    sequence = ids + output
    integers = integer_activations.IntegerActivations(model, options.integers) if options.integers else None
    profile = bfloat16_profile.BFloat16Profile(model) if options.dtype == "bfloat16" else None
    with reference.Decisions(model) as decisions, integers or profile or contextlib.nullcontext():
        has_cache = options.kv_cache_dtype == "fp8_e4m3"
        cache = rounded_cache.of_model(model.config, options.enable_deepseek_v4_fp4_indexer) if has_cache else None
        rows = torch.log_softmax(reference.logits(model, sequence[:-1], cache), -1)
    margins = decisions.smallest_up_to(len(rows))
    roundings = cache.closest_up_to(len(rows)) if cache else [math.inf] * len(rows)
    steps = integers.closest_up_to(len(rows)) if integers else [math.inf] * len(rows)
    result.rows = len(rows)
    for index, row in enumerate(rows):
        if margins[index] < options.close_call or roundings[index] < options.close_rounding:
            break
        if steps[index] < options.close_step:
            break
        result.judged += 1
        difference = abs(float(row[sequence[index + 1]]) - chosen[index])
        result.chosen = max(result.chosen, difference)
        result.top = max(result.top, top_difference(row, top[index]))
        if index + 1 >= len(ids):
            best = row.topk(2)
            if float(best.values[0] - best.values[1]) >= options.token_gap:
                result.tokens += 1
                result.wrong_tokens += int(best.indices[0]) != sequence[index + 1]
    return result


def whole_numbers(text):
    return [int(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--seeds", type=whole_numbers, default=[0, 1, 2], help="of the prompts")
    parser.add_argument("--lengths", type=whole_numbers, default=[1, 7, 40, 200], help="of the prompts, for each seed")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--kv-cache-dtype", choices=("float32", "fp8_e4m3"), default="float32", help="the server's")
    parser.add_argument("--enable-deepseek-v4-fp4-indexer", action="store_true", help="if the server has it")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of a logprob")
    parser.add_argument("--token-gap", type=float, default=1e-3)
    parser.add_argument("--close-call", type=float, default=2e-5, help="in standard deviations of competing scores")
    parser.add_argument("--close-rounding", type=float, default=2e-7,
                        help="of a key that the cache rounds, relative to the largest with its scale")
    parser.add_argument("--integers", help="the served directory, if its server rounds activations to INT8")
    parser.add_argument("--close-step", type=float, default=4e-5, help="of an activation that is rounded to INT8, in steps")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="the server's")
    parser.add_argument("--min-judged", type=float, default=0.5, help="smallest share of positions that must be judged")
    parser.add_argument("--one-by-one", action="store_true", help="send a prompt only when the last was answered")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one answer")
    options = parser.parse_args()
    if options.dtype == "bfloat16" and (options.integers or options.kv_cache_dtype != "float32"):
        parser.error("--dtype bfloat16: not together with --integers or --kv-cache-dtype fp8_e4m3")
    if options.enable_deepseek_v4_fp4_indexer and options.kv_cache_dtype != "fp8_e4m3":
        parser.error("--enable-deepseek-v4-fp4-indexer: only together with --kv-cache-dtype fp8_e4m3")

    model = reference.load(options.checkpoint)
    prompts = [(seed, reference.random_ids(length, model.config.vocab_size, seed * 1000 + length))
               for seed in options.seeds for length in options.lengths]
    workers = 1 if options.one_by_one else len(prompts)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        asked = [pool.submit(ask, options.url, ids, options.max_new_tokens, options.timeout) for _, ids in prompts]
        try:
            answers = [each.result() for each in asked]
        except BadAnswer as problem:
            print(f"{options.url}: {problem}", file=sys.stderr)
            pool.shutdown(cancel_futures=True)
            sys.exit(2)

    print(" seed  length  judged/rows      |Δ token|    |Δ top|  wrong/tokens")
    results = []
    for (seed, ids), answer in zip(prompts, answers):
        results.append(judge(model, answer, ids, seed, options))
        print(results[-1].line(options.tolerance), flush=True)
    share = sum(r.judged for r in results) / max(sum(r.rows for r in results), 1)
    failures = sum(r.failed(options.tolerance) for r in results)
    print(f"{len(results)} prompts, {failures} failed; {share:.0%} of the positions judged")
    if any(r.problem for r in results):
        sys.exit(2)
    if share < options.min_judged:
        print(f"too few positions could be judged (at least {options.min_judged:.0%}): choose other seeds")
        sys.exit(1)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
