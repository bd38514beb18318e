"""Writes checkpoints of DeepSeek-V3.2's format whose model says what it is told.

A script is a text that the model says. Its pieces are tokens; from each the output matrix leads to the next one, and from
the last piece to the end of the text. A request chooses a script by a bias towards its first piece, the head, at
temperature 0, or by a cue: a word in the prompt. The first head of attention finds the cue that stands last in the list of
cues, wherever it is in the prompt, and the output matrix leads from it to the head of its script.

Calls of tools contain a control token, ｜DSML｜, again and again, and grammars require it. What is between two of them is
one piece, a segment. Scripts share segments; the cue tells whose they are, and the second head of attention finds the
segment that was said last. Clients, parsers and detokenizers can so be tested through the real engine with known output.
"""

import array
import json
import math
import pathlib
import random
import struct

SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]
MARKS = ["<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"]
END = 1
DSML = "｜DSML｜"
CONTEXT = 32768
HEADS, NOPE, VALUE, LATENT = 4, 16, 32, 64  # at most VALUE cues and VALUE segments, and LATENT of both
# Logits: of the next piece, of each head after any token that belongs to no script, of everything that a cue's script
# begins with or has as segments, and of the segments that follow the last one somewhere.
NEXT, ANY, CUE, SEGMENT = 400.0, 20.0, 60.0, 60.0
SCORE = 40.0  # of attention: the first cue or segment before all other tokens, and each before the one before it


def byte_alphabet():
    """The printable character by which a tokenizer file writes each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in alphabet)
    return alphabet | {byte: chr(256 + place) for place, byte in enumerate(others)}


ALPHABET = byte_alphabet()


def cut(text, used, source):
    """Cuts a script into pieces that occur nowhere else, at arbitrary bytes."""
    data, pieces, start = text.encode(), [], 0
    while start < len(data):
        end = start + source.randint(2, 12)
        while end < len(data) and (data[start:end] in used or len(data) - end == 1):
            end += 1
        piece = data[start:end]
        if piece in used or len(piece) < 2:  # only at the end of the text: join the last piece
            piece = pieces.pop() + piece
            used.discard(piece)
        assert piece not in used, (text, piece)
        used.add(piece)
        pieces.append(piece)
        start = min(end, len(data))
    return pieces


def write_weights(path, tensors):
    header, offset, parts = {}, 0, []
    for name, matrix in tensors.items():
        data = matrix.values.tobytes()
        header[name] = {"dtype": "F32", "shape": matrix.shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(b"".join([struct.pack("<Q", len(text)), text, *parts]))


def config(vocabulary, hidden):
    return {
        "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32", "torch_dtype": "float32",
        "vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": 1, "intermediate_size": 64,
        "first_k_dense_replace": 1, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "q_lora_rank": 32,
        "kv_lora_rank": LATENT, "qk_nope_head_dim": NOPE, "qk_rope_head_dim": 16, "v_head_dim": VALUE,
        "index_head_dim": 32, "index_n_heads": 4, "index_topk": CONTEXT, "n_routed_experts": 4, "n_shared_experts": 1,
        "num_experts_per_tok": 2, "moe_intermediate_size": 32, "moe_layer_freq": 1, "n_group": 1, "topk_group": 1,
        "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 1.0,
        "hidden_act": "silu", "attention_bias": False, "rms_norm_eps": 1e-6, "rope_theta": 10000, "rope_scaling": None,
        "max_position_embeddings": CONTEXT, "num_nextn_predict_layers": 0, "tie_word_embeddings": False,
        "bos_token_id": 0, "eos_token_id": END,
    }


class Matrix:
    def __init__(self, *shape):
        self.shape, self.values = list(shape), array.array("f", bytes(4 * math.prod(shape)))

    def __setitem__(self, place, value):
        self.values[place[0] * self.shape[1] + place[1]] = value


def ones(count):
    vector = Matrix(count)
    vector.values = array.array("f", [1.0] * count)
    return vector


class Vocabulary:
    """The words of a model, and what its scripts are in them."""

    def __init__(self, scripts, cues, source):
        control = [*SPECIAL, *MARKS, DSML]
        self.words = [*control, *(ALPHABET[byte] for byte in range(256))]
        self.dsml = control.index(DSML)
        self.ordinary = [token for token in range(len(self.words)) if token != self.dsml]
        used = {text.encode() for text in control}
        self.scripts = {name: self.pieces(text, used, source) for name, text in scripts.items()}
        self.cues = [(self.add(" " + cue), script) for cue, script in cues]

    def add(self, text):
        word = "".join(ALPHABET[byte] for byte in (text if isinstance(text, bytes) else text.encode()))
        if word not in self.words:
            self.words.append(word)
        return self.words.index(word)

    def pieces(self, text, used, source):
        if DSML not in text:
            return [self.add(piece) for piece in cut(text, used, source)]
        pieces = []
        for segment in text.split(DSML):
            pieces += [self.add(segment), self.dsml]
        return pieces[:-1]

    def segments(self):
        """All segments, each after those that come before it in any script."""
        followers = self.followers()
        order, left = [], {token for pair in followers for token in pair}
        while left:
            first = [token for token in sorted(left) if not any(pair[1] == token and pair[0] in left for pair in followers)]
            assert first, "segments of scripts do not have one order"
            order += first
            left -= set(first)
        return order

    def followers(self):
        """Pairs of segments with nothing but the control token between them."""
        return {(ids[place - 1], ids[place + 1]) for ids in self.scripts.values()
                for place, token in enumerate(ids) if token == self.dsml}


def output(words, hidden):
    """The output matrix. The norm before it scales the only element of a token's vector by the root of the width."""
    matrix, scale = Matrix(len(words.words), hidden), hidden**0.5
    segments = set(words.segments())
    for ids in words.scripts.values():
        for token in words.ordinary:
            matrix[ids[0], token] = ANY / scale
    for ids in words.scripts.values():
        for last, following in zip(ids, [*ids[1:], END]):
            matrix[following, last] = NEXT / scale
    for cue, script in words.cues:
        for token in {words.scripts[script][0], *segments.intersection(words.scripts[script])}:
            matrix[token, cue] = CUE / scale
    for last, following in words.followers():
        matrix[following, last] = SEGMENT / scale
    return matrix


def weights(words, hidden):
    embedding = Matrix(len(words.words), hidden)
    for token in range(len(words.words)):
        embedding[token, token] = 1
    # Every query is 1 in its first element. A cue or segment is one element of the latent, which the latent's norm makes
    # its width's root; then the score, and one element of a head's value; then the token's own element again.
    query, queries = Matrix(32, hidden), Matrix(HEADS * (NOPE + 16), 32)
    for token in range(hidden):
        query[0, token] = 1
    latent, keys, back = Matrix(LATENT + 16, hidden), Matrix(HEADS * (NOPE + VALUE), LATENT), Matrix(hidden, HEADS * VALUE)
    element = 0
    for head, tokens in enumerate(([cue for cue, _ in words.cues], words.segments())):
        queries[head * (NOPE + 16), 0] = 32**-0.5
        for place, token in enumerate(tokens):
            latent[element, token] = 1
            keys[head * (NOPE + VALUE), element] = SCORE * (place + 1) * (NOPE + 16) ** 0.5 / LATENT**0.5
            keys[head * (NOPE + VALUE) + NOPE + place, element] = LATENT**-0.5
            back[token, head * VALUE + place] = 1
            element += 1

    attention, layer = "model.layers.0.self_attn.", "model.layers.0."
    return {
        "model.embed_tokens.weight": embedding,
        layer + "input_layernorm.weight": ones(hidden), layer + "post_attention_layernorm.weight": ones(hidden),
        attention + "q_a_proj.weight": query, attention + "q_a_layernorm.weight": ones(32),
        attention + "q_b_proj.weight": queries, attention + "kv_a_proj_with_mqa.weight": latent,
        attention + "kv_a_layernorm.weight": ones(LATENT), attention + "kv_b_proj.weight": keys,
        attention + "o_proj.weight": back, attention + "indexer.wq_b.weight": Matrix(128, 32),
        attention + "indexer.wk.weight": Matrix(32, hidden), attention + "indexer.k_norm.weight": ones(32),
        attention + "indexer.k_norm.bias": Matrix(32), attention + "indexer.weights_proj.weight": Matrix(4, hidden),
        layer + "mlp.gate_proj.weight": Matrix(64, hidden), layer + "mlp.up_proj.weight": Matrix(64, hidden),
        layer + "mlp.down_proj.weight": Matrix(hidden, 64), "model.norm.weight": ones(hidden),
        "lm_head.weight": output(words, hidden),
    }


def write(folder, tokenizer, scripts, cues=(), seed=0):
    """Writes a checkpoint, and returns the head of each script.

    tokenizer is a tokenizer.json whose splitting into words is taken over. cues are pairs of a word and the name of a
    script; they are found where a blank stands before them. A script with calls needs one, and only then says them.
    """
    folder, words = pathlib.Path(folder), Vocabulary(scripts, cues, random.Random(seed))
    vocabulary = len(words.words)
    hidden = -(-vocabulary // 64) * 64
    model = json.loads(pathlib.Path(tokenizer).read_text())
    model["added_tokens"] = [
        {"id": place, "content": text, "special": special, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": not special}
        for place, (text, special) in enumerate(
            [*((text, True) for text in SPECIAL), *((text, False) for text in MARKS), (DSML, True)])]
    model["model"] |= {
        "vocab": {word: place for place, word in enumerate(words.words)}, "merges": [], "ignore_merges": True}
    files = {
        "tokenizer.json": model, "config.json": config(vocabulary, hidden),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "add_bos_token": True},
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": END},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False))
    write_weights(folder / "model.safetensors", weights(words, hidden))
    return {name: tokens[0] for name, tokens in words.scripts.items()}
