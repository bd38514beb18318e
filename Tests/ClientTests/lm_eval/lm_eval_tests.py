"""The Language Model Evaluation Harness: answers of chats and of prompts, and log-probabilities of given texts."""

import json
import pathlib
import tempfile

import lm_eval
from harness import test
from scripts import NAME, QUESTION, SCRIPTS


def evaluate(server, kind, route, documents, task, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "documents.jsonl"
        path.write_text("".join(json.dumps(document) + "\n" for document in documents))
        config = {
            "task": "capitals", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path)}},
            "test_split": "test", "doc_to_text": "{{question}}", "metadata": {"version": 1}} | task
        results = lm_eval.simple_evaluate(
            model=kind, tasks=[config], bootstrap_iters=0, log_samples=True, **options,
            model_args=f"model={NAME},base_url={server.base_url}/{route},num_concurrent=2,max_retries=1,"
            "tokenizer_backend=remote,max_length=4096")
    return results["results"]["capitals"], results["samples"]["capitals"]


GENERATE = {
    "output_type": "generate_until", "doc_to_target": "{{answer}}", "generation_kwargs": {"until": ["\n"], "max_gen_toks": 64},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]}
DOCUMENTS = [{"question": QUESTION, "answer": SCRIPTS["paris"]}, {"question": QUESTION, "answer": "Lyon"}]


@test
def lm_eval_asks_in_chats(server):
    results, samples = evaluate(
        server, "local-chat-completions", "chat/completions", DOCUMENTS, GENERATE, apply_chat_template=True)
    assert results["exact_match,none"] == 0.5, results
    assert samples[0]["resps"][0][0] == SCRIPTS["paris"], samples


@test
def lm_eval_asks_by_prompts(server):
    results, _ = evaluate(server, "local-completions", "completions", DOCUMENTS, GENERATE)
    assert results["exact_match,none"] == 0.5, results


@test
def lm_eval_compares_texts(server):
    # Every character is a token, and after a question each that is no script's costs the same.
    documents = [{"question": QUESTION, "choices": ["ab", "abcdef"], "answer": answer} for answer in (0, 1, 0, 0)]
    results, samples = evaluate(server, "local-completions", "completions", documents, {
        "output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]})
    assert results["acc,none"] == 0.75, (results, samples)
