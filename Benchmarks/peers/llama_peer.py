#!/usr/bin/env python3
"""Times llama.cpp, through llama-cpp-python, on the processor.

    python Benchmarks/peers/llama_peer.py prefill --model DIR --lengths 4096,16384 --threads 1
    python Benchmarks/peers/llama_peer.py decode  --model DIR --lengths 4096,65536
    python Benchmarks/peers/llama_peer.py scores  --model DIR --lengths 1024

DIR holds the GGUF files bf16.gguf, f16.gguf and f32.gguf that `to_gguf.py` made. Prints a line of JSON for each length,
of decoding for each variant. The peer gets its better side: of {BF16, F16 weights} x {without, with flash attention}
the pair that is fastest on this processor; activations are then rounded to that type, and the cache keeps F16. Scores
are made in F32 throughout. To decode behind long contexts, their keys are copies of those of the first positions, put
there through the state that llama.cpp saves and restores.
"""

import ctypes
import struct

import llama_cpp
import numpy as np

import measuring

FILES = ("bf16", "f16")
ROOM = 256  # positions after a context, for decoding


def quiet(_level, _text, _data):
    pass


class Runner:
    """A model in one type with or without flash attention, and the cache of one request."""

    def __init__(self, directory, file, flash, positions, threads, cache="F16"):
        self.name = f"{file}{' flash attention' if flash else ''}"
        parameters = llama_cpp.llama_model_default_params()
        # On a processor with AMX, llama.cpp would repack F16 weights for it, and then finds no backend for one of this
        # model's operations: it ends in ggml_backend_sched_split_graph.
        parameters.use_extra_bufts = False
        self.model = llama_cpp.llama_model_load_from_file(str(directory / f"{file}.gguf").encode(), parameters)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {directory / file}.gguf")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = positions + ROOM
        settings.n_batch = settings.n_ubatch = measuring.CHUNK
        settings.n_threads = settings.n_threads_batch = threads
        settings.flash_attn_type = int(flash)
        settings.type_k = settings.type_v = getattr(llama_cpp, f"GGML_TYPE_{cache}")
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot make a context of {settings.n_ctx} positions")

    def close(self):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def forward(self, tokens, position, all_logits=False):
        """Computes the tokens; gives the logits of the last, or of all."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at] = token, position + at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            batch.logits[at] = all_logits or at + 1 == len(tokens)
        status = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_synchronize(self.context)
        llama_cpp.llama_batch_free(batch)
        if status:
            raise SystemExit(f"llama_decode failed with status {status} at position {position}")
        rows = len(tokens) if all_logits else 1
        first = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(first, shape=(rows, self.vocabulary)).copy()

    def fill(self, length):
        """Lets the cache hold `length` positions: computed ones, and copies of their keys."""
        self.clear()
        self.forward(measuring.prompt(measuring.COMPUTED, self.vocabulary), 0)
        size = llama_cpp.llama_state_seq_get_size(self.context, 0)
        saved = (ctypes.c_uint8 * size)()
        if llama_cpp.llama_state_seq_get_data(self.context, saved, size, 0) != size:
            raise SystemExit("llama.cpp did not save its state")
        self.clear()
        state = repeated_state(bytes(saved), length)
        restored = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        if llama_cpp.llama_state_seq_set_data(self.context, restored, len(state), 0) != len(state):
            raise SystemExit("llama.cpp did not take its state back")


def repeated_state(saved, length):
    """A saved state whose cells are repeated until there are `length`, at ascending positions.

    After eight bytes, of each of the two caches (latents, index keys): streams, cells; for each cell its position and
    its sequences; whether values are transposed, layers; for each layer a type, the bytes of a row, and rows. Neither
    cache has values.
    """
    out, at = bytearray(saved[:8]), 8

    def take(form):
        nonlocal at
        values = struct.unpack_from(form, saved, at)
        at += struct.calcsize(form)
        return values

    while at < len(saved):
        streams, cells = take("<II")
        if streams != 1:
            raise SystemExit(f"a state of {streams} streams; this llama.cpp is another version than expected")
        out += struct.pack("<II", 1, length)
        for _ in range(cells):
            _, sequences, _ = take("<iIi")
            if sequences != 1:
                raise SystemExit("a cell of several sequences; this llama.cpp is another version than expected")
        for position in range(length):
            out += struct.pack("<iIi", position, 1, 0)
        transposed, layers = take("<II")
        out += struct.pack("<II", transposed, layers)
        for _ in range(layers):
            kind, row = take("<iQ")
            rows = saved[at:at + cells * row]
            at += cells * row
            out += struct.pack("<iQ", kind, row) + (rows * -(-length // cells))[:length * row]
    return bytes(out)


def runners(options, positions):
    for file in FILES:
        for flash in (False, True):
            runner = Runner(options.model, file, flash, positions, options.threads)
            yield runner
            runner.close()


def fastest_prefill(options):
    """The variant that runs a short prompt fastest, in the better of two runs after one that warms up."""
    trials = {}
    for runner in runners(options, measuring.CHUNK):
        tokens, seconds = measuring.prompt(measuring.CHUNK, runner.vocabulary), []
        for _ in range(3):
            runner.clear()
            watch = measuring.Stopwatch()
            runner.forward(tokens, 0)
            seconds.append(watch.read()["processor_seconds"])
        trials[runner.name] = min(seconds[1:])
    file, _, flash = min(trials, key=trials.get).partition(" ")
    return Runner(options.model, file, bool(flash), options.lengths[-1], options.threads)


def main():
    options = measuring.arguments(__doc__).parse_args()
    silence = llama_cpp.llama_log_callback(quiet)
    llama_cpp.llama_log_set(silence, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    facts = {"peer": f"llama.cpp of llama-cpp-python {llama_cpp.__version__}", "threads": options.threads}
    if options.case == "scores":
        runner = Runner(options.model, "f32", False, options.lengths[-1], options.threads, cache="F32")
        tokens = measuring.prompt(options.lengths[-1], runner.vocabulary)
        rows = [runner.forward(tokens[at:at + measuring.CHUNK], at, all_logits=True)
                for at in range(0, len(tokens), measuring.CHUNK)]
        measuring.emit_scores(tokens, np.concatenate(rows))
    elif options.case == "prefill":
        runner = fastest_prefill(options)
        for length, times in measuring.prefill_points(options.lengths, runner.vocabulary, runner.forward):
            measuring.emit(case="prefill", tokens=length, variant=runner.name, **times, **facts)
    else:
        for length in options.lengths:
            for runner in runners(options, length):
                runner.fill(length)
                times = measuring.decode_point(options.steps, runner.forward, length)
                measuring.emit(case="decode", tokens=length, variant=runner.name, **times, **facts)


if __name__ == "__main__":
    main()
