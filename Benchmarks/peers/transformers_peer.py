#!/usr/bin/env python3
"""Times Hugging Face transformers on the processor.

    python Benchmarks/peers/transformers_peer.py prefill --model DIR --lengths 4096,16384 --threads 1
    python Benchmarks/peers/transformers_peer.py decode  --model DIR --lengths 4096,65536
    python Benchmarks/peers/transformers_peer.py scores  --model DIR --lengths 1024

Prints a line of JSON for each length, of decoding for each variant. The peer gets its better side: SDPA attention, and
of {float32, bfloat16} x
{grouped_mm, eager experts} the pair that runs a short prompt, or a few tokens, fastest on this processor. A prompt goes
in chunks, because transformers makes tensors of [heads, chunk, context] and larger; only the last row's logits are
computed. To decode behind long contexts, their keys are copies of those of the first positions.
"""

import torch
import transformers

import measuring

DTYPES = ("float32", "bfloat16")
EXPERTS = ("grouped_mm", "eager")


class Runner:
    """A model in one type with one code for experts, and the cache of one request."""

    def __init__(self, directory, dtype, experts):
        self.name = f"{dtype} {experts}"
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype=getattr(torch, dtype), attn_implementation="sdpa", experts_implementation=experts).eval()
        self.vocabulary = self.model.config.vocab_size
        self.clear()

    def clear(self):
        self.cache = transformers.DynamicCache(config=self.model.config)

    @torch.inference_mode()
    def forward(self, tokens, position, logits=1):
        step = self.model(input_ids=torch.tensor([tokens]), past_key_values=self.cache, use_cache=True,
                          logits_to_keep=logits)
        if not torch.isfinite(step.logits).all():
            raise SystemExit("the logits are not finite: nothing worth timing")
        return step.logits[0].float()

    @torch.inference_mode()
    def fill(self, length):
        """Lets the cache hold `length` positions: computed ones, and copies of their keys."""
        self.clear()
        self.forward(measuring.prompt(measuring.COMPUTED, self.vocabulary), 0)

        def repeated(keys, dimension):
            parts = [keys] * -(-length // measuring.COMPUTED)
            return torch.cat(parts, dimension).narrow(dimension, 0, length).contiguous()

        for layer in self.cache.layers:
            layer.keys, layer.values = repeated(layer.keys, 2), repeated(layer.values, 2)
            layer.indexer_keys = repeated(layer.indexer_keys, 1)


def runners(options):
    for dtype in DTYPES:
        for experts in EXPERTS:
            yield Runner(options.model, dtype, experts)


def fastest_prefill(options):
    """The variant that runs a short prompt fastest, in the better of two runs after one that warms up."""
    def trial(runner):
        tokens, seconds = measuring.prompt(measuring.CHUNK, runner.vocabulary), []
        for _ in range(3):
            runner.clear()
            watch = measuring.Stopwatch()
            runner.forward(tokens, 0)
            seconds.append(watch.read()["processor_seconds"])
        runner.clear()
        return min(seconds[1:])

    return min(runners(options), key=trial)


def main():
    parser = measuring.arguments(__doc__)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts = {"peer": f"transformers {transformers.__version__}", "threads": options.threads}
    if options.case == "scores":
        runner = Runner(options.model, "float32", "eager")
        tokens = measuring.prompt(options.lengths[-1], runner.vocabulary)
        measuring.emit_scores(tokens, runner.forward(tokens, 0, logits=0))
    elif options.case == "prefill":
        runner = fastest_prefill(options)
        for length, times in measuring.prefill_points(options.lengths, runner.vocabulary, runner.forward):
            measuring.emit(case="prefill", tokens=length, variant=runner.name, **times, **facts)
    else:
        for length in options.lengths:
            for runner in runners(options):
                runner.fill(length)
                times = measuring.decode_point(options.steps, runner.forward, length)
                measuring.emit(case="decode", tokens=length, variant=runner.name, **times, **facts)


if __name__ == "__main__":
    main()
