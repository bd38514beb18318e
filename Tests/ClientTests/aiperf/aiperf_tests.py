"""NVIDIA AIPerf, over each of the routes that it knows of such a server."""

import json
import os
import pathlib
import tempfile

import harness
from harness import test
from scripts import NAME

REQUESTS, PROMPT, NEW = 4, 32, 16
# Told to ask no hub, it takes a tokenizer's folder for a name in a cache.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}


def profile(server, route, *options, requests=REQUESTS):
    """Runs a benchmark, and returns its results and the records of its requests. Tokens are counted by the server: the
    scripted model's answers are other tokens if their text is tokenized again."""
    with tempfile.TemporaryDirectory() as folder:
        harness.run(
            "aiperf", "profile", "--model", NAME, "--tokenizer", server.model, "--url", server.url, "--endpoint-type", route,
            "--synthetic-input-tokens-mean", PROMPT, "--synthetic-input-tokens-stddev", 0, "--output-tokens-mean", NEW,
            "--output-tokens-stddev", 0, "--request-count", requests, "--concurrency", 2, "--random-seed", 1,
            "--use-server-token-count", "--no-gpu-telemetry", "--ui", "none", "--artifact-dir", folder, *options,
            env=ENVIRONMENT)
        results = json.loads((pathlib.Path(folder) / "profile_export_aiperf.json").read_text())
        records = [json.loads(line) for line in (pathlib.Path(folder) / "profile_export.jsonl").read_text().splitlines()]
    return results, records


def check_lengths(results, requests=REQUESTS):
    """Fails unless every request succeeded with as many new tokens as were asked for."""
    lengths = results["output_sequence_length"]
    assert results["request_count"]["avg"] == requests and not results["error_summary"], results
    assert lengths["min"] == lengths["max"] == NEW and results["total_output_tokens"]["avg"] == requests * NEW, results
    assert results["input_sequence_length"]["min"] >= PROMPT, results


FULL = "--extra-inputs", "ignore_eos:true"


@test
def aiperf_chat(server):
    results, _ = profile(
        server, "chat", "--streaming", "--per-chunk-usage", "--wait-for-model-timeout", 60, "--wait-for-model-mode", "both",
        "--reset-kv-cache", *FULL)
    check_lengths(results)
    assert results["time_to_first_token"]["avg"] > 0, results


@test
def aiperf_chat_without_streams(server):
    results, _ = profile(server, "chat", "--use-legacy-max-tokens", *FULL)
    check_lengths(results)


@test
def aiperf_conversations(server):
    results, records = profile(
        server, "chat", "--streaming", "--conversation-num", 2, "--conversation-turn-mean", 3,
        "--conversation-turn-stddev", 0, *FULL, requests=6)
    check_lengths(results, requests=6)
    assert sorted(record["metadata"]["turn_index"] for record in records) == [0, 0, 1, 1, 2, 2], records


@test
def aiperf_completions(server):
    results, _ = profile(server, "completions", "--streaming", *FULL)
    check_lengths(results)


@test
def aiperf_messages(server):
    results, _ = profile(server, "messages", "--streaming", *FULL)
    check_lengths(results)


@test
def aiperf_responses(server):
    # It does not read the usage of a response that its limit has cut, so this one ends by itself.
    script = json.dumps({"temperature": 0} | server.say("hello"))
    results, _ = profile(server, "responses", "--streaming", "--extra-inputs", script)
    lengths = results["output_sequence_length"]
    assert results["request_count"]["avg"] == REQUESTS and not results["error_summary"], results
    assert 3 < lengths["min"] == lengths["max"] < NEW, results


@test
def aiperf_cancels_requests(server):
    # Those that it cancels end as soon as they are sent; the others are answered, and so is what comes after.
    results, records = profile(server, "chat", "--streaming", "--request-cancellation-rate", 50, *FULL, requests=8)
    cancelled = sum(record["metadata"]["was_cancelled"] for record in records)
    assert len(records) == 8 and 0 < cancelled < 8, records
    assert [error["error_details"]["code"] for error in results["error_summary"]] == [499], results
    assert results["total_output_tokens"]["avg"] == (8 - cancelled) * NEW, results
    check_lengths(profile(server, "chat", *FULL)[0])
