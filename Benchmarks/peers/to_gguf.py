#!/usr/bin/env python3
"""Writes a checkpoint as GGUF with llama.cpp's own converter, without a tokenizer: benchmarks feed tokens.

    python Benchmarks/peers/to_gguf.py --converter …/vendor/llama.cpp --model DIR --out FILE --type bf16
"""

import argparse
import pathlib
import sys


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--converter", type=pathlib.Path, required=True, help="the folder of convert_hf_to_gguf.py")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a checkpoint's directory")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--type", choices=("f32", "f16", "bf16"), default="bf16")
    options = parser.parse_args()
    sys.path.insert(0, str(options.converter.resolve()))
    sys.argv = ["convert_hf_to_gguf.py", str(options.model), "--outfile", str(options.out), "--outtype", options.type]
    import convert_hf_to_gguf
    from conversion.deepseek import DeepseekV32Model
    # The converter knows tokenizers by the hash of what they do; that of a random checkpoint is none of them.
    DeepseekV32Model.set_vocab = lambda model: model._set_vocab_none()
    convert_hf_to_gguf.main()


if __name__ == "__main__":
    main()
