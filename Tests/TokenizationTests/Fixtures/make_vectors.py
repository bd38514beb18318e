"""Makes vectors.json: tokens and words of texts.json and of random texts, by the `tokenizers` library.

usage: make_vectors.py FOLDER_OF_THE_V3.2_TOKENIZER FOLDER_OF_THE_GLM-5_TOKENIZER FOLDER_OF_THE_V4_TOKENIZER
"""
import json
import pathlib
import random
import sys

from tokenizers import Regex, Tokenizer, pre_tokenizers

HERE = pathlib.Path(__file__).parent
GLM = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
       r"|\s*[\r\n]+|\s+(?!\S)|\s+")
RANGES = [(0x20, 0x7e)] * 3 + [
    (0, 0x1f), (0x30, 0x39), (0x4e00, 0x9fff), (0x3040, 0x30ff), (0x3400, 0x4dbf), (0xac00, 0xd7a3), (0x300, 0x36f),
    (0x900, 0x97f), (0xe00, 0xe7f), (0x600, 0x6ff), (0x590, 0x5ff), (0x400, 0x4ff), (0xc0, 0x24f), (0x1f300, 0x1faff),
    (0x2000, 0x206f), (0x2150, 0x218f), (0xff00, 0xffef), (0x2190, 0x2bff), (0x20000, 0x2a6df), (0xe0100, 0xe01ef),
    (0x1ab0, 0x1aff), (0x80, 0x10ffff)]
STRINGS = [" ", "  ", "\n", "\r\n", "\t", "\u3000", "\u00a0", "\u2028", "\u0085", "'s", "'T", "'LL", "'\u017f", "don't",
           "\u200d", "\ufe0f", "ー", "・", "<think>", "</think>", "<｜User｜>", "<｜", "｜DSML｜", "<｜DSML｜", "the ", "123"]


def random_text(rng):
    sources = rng.sample(RANGES, rng.choice([1, 2, 4])) + [None]
    text = ""
    while len(text) < rng.choice([4, 12, 30]):
        source = rng.choice(sources)
        for _ in range(rng.choice([1, 1, 2, 4])):
            code = rng.randint(*source) if source else -1
            text += rng.choice(STRINGS) if code < 0 or 0xd800 <= code < 0xe000 else chr(code)
    return text


def main():
    rng = random.Random(20)
    texts = json.load(open(HERE / "texts.json")) + [random_text(rng) for _ in range(150)]
    real, released_glm, v4 = (Tokenizer.from_file(folder + "/tokenizer.json") for folder in sys.argv[1:4])
    demo = Tokenizer.from_file(str(HERE / "demo/tokenizer.json"))
    glm = pre_tokenizers.Split(Regex(GLM), "isolated")
    deepseek = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(step["pattern"]["Regex"]), "isolated")
        for step in json.load(open(HERE / "demo/tokenizer.json"))["pre_tokenizer"]["pretokenizers"][:3]])
    rows = []
    for text in texts:
        rows.append({
            "text": text,
            "v32": real.encode(text, add_special_tokens=False).ids,
            "v4": v4.encode(text, add_special_tokens=False).ids,
            "glm": released_glm.encode(text, add_special_tokens=False).ids,
            "demo": demo.encode(text, add_special_tokens=False).ids,
            "deepseekWords": [piece for piece, _ in deepseek.pre_tokenize_str(text)],
            "glmWords": [piece for piece, _ in glm.pre_tokenize_str(text)]})
    with open(HERE / "vectors.json", "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n")


main()
