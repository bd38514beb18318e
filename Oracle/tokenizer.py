"""A small byte-level BPE in the form of the released DeepSeek tokenizers: their pre-tokenizer, their control tokens."""

import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"

# Added at the end of the vocabulary. As in the released files, only the DSML mark is "special", so the others
# survive `skip_special_tokens`.
CONTROLS = [
    "<think>", "</think>", "<｜User｜>", "<｜Assistant｜>",
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
    "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>",
    "<｜tool▁sep｜>", "｜DSML｜",
]

# Digits in threes; then runs of CJK; then punctuation-led words, words, symbols, line ends and spaces.
SPLITS = [
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]

CORPUS = [
    "A braid has many strands, and every strand carries a part of the same load.",
    "Each rank holds some rows of the context; the keys travel, or the queries do, and the answer is the same.",
    "She counted 7, 42, 365, 1999 and 2048 pages before the 16:30 train to Köln arrived, 12 minutes late.",
    "let total = rows.map { $0.count }.reduce(0, +)\nif total > limit {\n    throw LimitError(total: total)\n}\n",
    '{"name": "weather", "arguments": {"city": "Zürich", "unit": "celsius"}}\n',
    "¿Dónde está la biblioteca? À côté du café, où l'été dure. Straße, Ångström, Žižek, Łódź.",
    "今天天气很好，我们去公园散步。 これは短い文です。カタカナもあります。 한국어 문장도 있습니다.",
    "Что написано пером, того не вырубишь топором. Η γλώσσα είναι ζωντανή. שלום עולם. 🙂🚀",
    "The scheduler plans, the workers compute, the sampler chooses, and the reader reads the text as it comes.",
]


def write(directory, vocab):
    """tokenizer.json, tokenizer_config.json and generation_config.json; at most `vocab` entries."""
    directory = pathlib.Path(directory)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(CONTROLS), show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in (BOS, EOS, PAD)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    for token in CONTROLS:
        special = token == "｜DSML｜"
        add = tokenizer.add_special_tokens if special else tokenizer.add_tokens
        add([AddedToken(token, special=special, normalized=not special)])
    if tokenizer.get_vocab_size() > vocab:
        raise SystemExit(f"a tokenizer needs {tokenizer.get_vocab_size()} entries, the vocabulary has {vocab}")
    tokenizer.save(str(directory / "tokenizer.json"))

    def added(token):
        return {"__type": "AddedToken", "content": token, "lstrip": False, "normalized": True, "rstrip": False,
                "single_word": False}

    settings = {"add_bos_token": False, "add_eos_token": False, "bos_token": added(BOS), "eos_token": added(EOS),
                "pad_token": added(EOS), "clean_up_tokenization_spaces": False, "legacy": True,
                "model_max_length": 131072, "unk_token": None, "tokenizer_class": "PreTrainedTokenizerFast"}
    generation = {"bos_token_id": 0, "eos_token_id": 1, "do_sample": True, "temperature": 1.0, "top_p": 0.95}
    for name, value in (("tokenizer_config.json", settings), ("generation_config.json", generation)):
        (directory / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
