#!/usr/bin/env python3
"""Trains a next-token block (MTP) for a small V3.2 checkpoint, and adds it, or puts it in the place of an earlier one.

    python Oracle/train_next_token.py --model Models/demo --text novels.txt [more.txt] --minutes 30 --out DIR
    python Oracle/train_next_token.py --model Models/demo --text novels.txt [more.txt] --measure

The block guesses the token after the next: row i reads the embedding of token i + 1 and the final hidden state of row
i, and predicts token i + 2. It guesses further by reading its own output in place of a hidden state. Both are trained,
for chains of three guesses, towards what the frozen model itself says in that place, on documents of planted pass keys
with questions, on prose, and on text that the model wrote. The block starts as a copy of the model's last layer, behind
a projection that restores what that layer reads, as far as a projection can.

DIR gets the checkpoint with the block: all old tensors byte for byte, the new ones in BF16 in a second file, with an
index. `--text` gives the prose; the last tenth of each file is kept for the measurement at the end, which is all that
`--measure` does. A plain CPU is enough. There are as many steps as the minutes allow: no two trainings are equal.
"""

import argparse
import json
import math
import pathlib
import random
import re
import shutil
import time

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import DynamicCache

import reference

ROWS = 320  # of one training sequence
CHAIN = (1.0, 0.7, 0.5)  # what the first, second and third guess weigh
BOS, END, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜></think>"


# -------------------------------------------------------------------------------------------------------- the block


def rms_norm(x, weight, epsilon):
    return F.rms_norm(x, weight.shape, weight, epsilon)


def rotated(x, angles, interleaved):
    """`x` [..., rows, width], its pairs turned by `angles` [..., rows, width / 2]; the order within a head is free."""
    first, second = (x[..., 0::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Block:
    """The tensors of `model.layers.N.` by their names after that, and what they compute from [batch, rows, …]."""

    def __init__(self, config, tensors):
        self.config, self.tensors = config, tensors

    def linear(self, x, name):
        return F.linear(x, self.tensors[name + ".weight"])

    def norm(self, x, name):
        return rms_norm(x, self.tensors[name + ".weight"], self.config["rms_norm_eps"])

    def rows(self, embeddings, states, positions):
        """What attention needs of each row: residual, queries, keys, values and the indexer's queries, keys, weights.

        The indexer learns from the attention alone, so it sees its inputs detached.
        """
        config = self.config
        batch, count, _ = states.shape
        heads, nope, rope = (config[key] for key in ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim"))
        frequencies = config["rope_theta"] ** (-torch.arange(0, rope, 2) / rope)
        angles = (positions.unsqueeze(-1) * frequencies).unsqueeze(1)
        residual = self.linear(torch.cat([self.norm(embeddings, "enorm"), self.norm(states, "hnorm")], -1), "eh_proj")
        x = self.norm(residual, "input_layernorm")

        latent_query = self.norm(self.linear(x, "self_attn.q_a_proj"), "self_attn.q_a_layernorm")
        query = self.linear(latent_query, "self_attn.q_b_proj").view(batch, count, heads, -1).transpose(1, 2)
        query = torch.cat([query[..., :nope], rotated(query[..., nope:], angles, interleaved=True)], -1)
        latent, key_rope = self.linear(x, "self_attn.kv_a_proj_with_mqa").split([config["kv_lora_rank"], rope], -1)
        key_rope = rotated(key_rope.unsqueeze(1), angles, interleaved=True).expand(-1, heads, -1, -1)
        expanded = self.linear(self.norm(latent, "self_attn.kv_a_layernorm"), "self_attn.kv_b_proj")
        key, value = expanded.view(batch, count, heads, -1).transpose(1, 2).split([nope, config["v_head_dim"]], -1)

        x, latent_query = x.detach(), latent_query.detach()
        index_query = self.linear(latent_query, "self_attn.indexer.wq_b")
        index_query = index_query.view(batch, count, config["index_n_heads"], -1).transpose(1, 2)
        index_key = F.layer_norm(self.linear(x, "self_attn.indexer.wk"), (config["index_head_dim"],),
                                 self.tensors["self_attn.indexer.k_norm.weight"],
                                 self.tensors["self_attn.indexer.k_norm.bias"], 1e-6).unsqueeze(1)
        index_query, index_key = (torch.cat([rotated(y[..., :rope], angles, interleaved=False), y[..., rope:]], -1)
                                  for y in (index_query, index_key))
        weights = self.linear(x, "self_attn.indexer.weights_proj") * (
            config["index_n_heads"] * config["index_head_dim"]) ** -0.5
        return dict(residual=residual, query=query, key=torch.cat([key, key_rope], -1), value=value,
                    index_query=index_query, index_key=index_key, index_weights=weights.transpose(1, 2).unsqueeze(-1))

    def attention(self, rows, keys, own, visible, top):
        """(the attention's output, the indexer's loss) of `rows` over `keys` where `visible`, and over one key each of
        every element of `own`: those that earlier guesses of the same chain left, and the row's own. Only the `top`
        best by the indexer count, or all if None."""
        scale = rows["query"].shape[-1] ** -0.5
        scores = rows["query"] @ keys["key"].transpose(2, 3) * scale
        index = (rows["index_query"] @ keys["index_key"].transpose(2, 3)).relu()
        index = (index * rows["index_weights"]).sum(1)
        scores, index = (x.masked_fill(~visible, -math.inf) for x in (scores, index))
        scores = torch.cat([scores] + [(rows["query"] * row["key"]).sum(-1, keepdim=True) * scale for row in own], -1)
        index = torch.cat([index] + [
            ((rows["index_query"] * row["index_key"]).sum(-1, keepdim=True).relu() * rows["index_weights"]).sum(1)
            for row in own], -1)
        if top and index.shape[-1] > top:
            refused = torch.ones_like(index, dtype=torch.bool).scatter_(-1, index.topk(top, -1).indices, False)
            scores, index = scores.masked_fill(refused.unsqueeze(1), -math.inf), index.masked_fill(refused, -math.inf)
        shares = scores.softmax(-1)
        output = shares[..., :keys["key"].shape[2]] @ keys["value"]
        for number, row in enumerate(own):
            output = output + shares[..., keys["key"].shape[2] + number, None] * row["value"]
        wanted = shares.detach().mean(1)
        loss = -(wanted * index.log_softmax(-1).masked_fill(wanted == 0, 0)).sum(-1).mean()
        return self.linear(output.transpose(1, 2).flatten(2), "self_attn.o_proj"), loss

    def mixture(self, x):
        """The routed experts and the shared one."""
        config, shape = self.config, x.shape
        x = x.reshape(-1, shape[-1])
        affinity = self.linear(x, "mlp.gate").sigmoid()
        with torch.no_grad():
            groups = (affinity + self.tensors["mlp.gate.e_score_correction_bias"]).view(len(x), config["n_group"], -1)
            best = groups.topk(2, -1).values.sum(-1).topk(config["topk_group"], -1).indices
            kept = torch.zeros(groups.shape[:2], dtype=torch.bool).scatter_(1, best, True).unsqueeze(-1)
            chosen = groups.masked_fill(~kept, -math.inf).flatten(1).topk(config["num_experts_per_tok"], -1).indices
        weights = affinity.gather(1, chosen)
        weights = weights / weights.sum(-1, keepdim=True) * config["routed_scaling_factor"]
        output = self.expert(x, "mlp.shared_experts.")
        for expert in range(config["n_routed_experts"]):
            row, slot = (chosen == expert).nonzero(as_tuple=True)
            result = self.expert(x[row], f"mlp.experts.{expert}.") * weights[row, slot].unsqueeze(-1)
            output = output.index_add(0, row, result)
        return output.view(shape)

    def expert(self, x, prefix):
        return self.linear(F.silu(self.linear(x, prefix + "gate_proj")) * self.linear(x, prefix + "up_proj"),
                           prefix + "down_proj")

    def chain(self, embeddings, states, positions, first=0, guesses=len(CHAIN), top=None):
        """The final states of each guess, [batch, rows from first + guess on, hidden], and the indexer's loss.

        Row i of `embeddings` is of token i + 1. The first guess of row i sees the keys of rows up to i. Guess g of row
        i belongs to a chain that began at row i - g: it sees the true keys up to there, and the chain's own after it.
        """
        keys = self.rows(embeddings, states, positions)
        count, outputs, losses, own = states.shape[1], [], [], []
        for guess in range(guesses):
            start = first + guess
            if guess == 0:
                rows = {name: x[..., start:, :] for name, x in keys.items()}
            else:
                rows = self.rows(embeddings[:, start:], outputs[-1][:, :-1], positions[:, start:])
                own = [{name: x[..., :count - start, :] for name, x in row.items()} for row in own] + [rows]
            visible = torch.arange(count) <= torch.arange(first, count - guess).unsqueeze(-1)
            attended, loss = self.attention(rows, keys, own, visible, top)
            x = rows["residual"] + attended
            x = x + self.mixture(self.norm(x, "post_attention_layernorm"))
            outputs.append(self.norm(x, "shared_head.norm"))
            losses.append(loss)
        return outputs, sum(losses)


def initial_block(model, config, directory, ids, positions, states):
    """A copy of the last layer, behind the projection that best restores, from what the block reads at row i, what that
    layer reads at row i + 1: there, it predicts token i + 2. Fitted by least squares over some sequences."""
    tensors = stored_tensors(directory, config["num_hidden_layers"] - 1)
    hidden, inputs = config["hidden_size"], []
    hook = model.model.layers[-1].register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    hidden_states(model, ids, positions)
    hook.remove()
    read = torch.cat([F.rms_norm(x, (hidden,), eps=config["rms_norm_eps"]).flatten(0, 1)
                      for x in (model.model.embed_tokens(ids[:, 1:]), states[:, :-1])], -1)
    tensors |= {"enorm.weight": torch.ones(hidden), "hnorm.weight": torch.ones(hidden),
                "eh_proj.weight": torch.linalg.lstsq(read, inputs[0][:, 1:].flatten(0, 1)).solution.T.contiguous(),
                "shared_head.norm.weight": model.model.norm.weight.detach().clone()}
    for name, tensor in tensors.items():
        tensor.requires_grad_(not name.endswith("e_score_correction_bias"))
    return Block(config, tensors)


def stored_tensors(directory, layer):
    """A layer's tensors in float32, by their names after `model.layers.N.`."""
    prefix, tensors = f"model.layers.{layer}.", {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors |= {name.removeprefix(prefix): file.get_tensor(name).float()
                        for name in file.keys() if name.startswith(prefix)}
    if not tensors:
        raise SystemExit(f"{directory}: no file has tensors named {prefix}…")
    return tensors


# --------------------------------------------------------------------------------------------------------- the text


class Documents:
    """Documents such as the embedded model was trained to read, made from lines of prose."""

    def __init__(self, lines, tokenizer, seed):
        self.lines, self.tokenizer, self.random = lines, tokenizer, random.Random(seed)
        self.words = sorted(set(re.findall(r"\b[a-z]{3,10}\b", " ".join(lines))))

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def prose(self, tokens):
        """Consecutive lines of about so many tokens."""
        at, lines = self.random.randrange(len(self.lines)), []
        while tokens > 0:
            lines.append(self.lines[at % len(self.lines)])
            tokens -= len(self.ids(" " + lines[-1]))
            at += 1
        return lines

    def fact(self):
        """(question, answer up to the value, value)"""
        word = lambda: self.random.choice(self.words)
        name = self.random.choice([word().capitalize(), word().capitalize(), f"the {word()} {word()}", word()])
        what = self.random.choice(["pass key for", "pass key for", "pass key for", "door code of"])
        value = "".join(self.random.choices("0123456789", k=self.random.choice([4, 5, 5, 5, 5, 6, 8])))
        return f"What is the {what} {name}?", f"The {what} {name} is", value

    def planted(self, facts, tokens):
        lines = self.prose(tokens - 16 * len(facts))
        for _, answer, value in facts:
            lines.insert(self.random.randint(0, len(lines)), f"{answer} {value}.")
        return " ".join(lines)

    def questions(self):
        """A document with some facts, and questions about them with their answers."""
        facts = [self.fact() for _ in range(self.random.randint(2, 6))]
        text = self.planted(facts, self.random.randint(60, 200)) + "\n\n"
        asked = [self.random.choice(facts) for _ in range(self.random.randint(2, 6))]
        if self.random.random() < 0.5:
            turns = [f"{question}{ASSISTANT}{answer} {value}.{END}" for question, answer, value in asked]
            return BOS + USER + text + USER.join(turns)
        return BOS + text + "\n".join(f"{question} {answer} {value}." for question, answer, value in asked)

    def filled(self, make):
        """Exactly ROWS tokens of one text after the other."""
        ids = []
        while len(ids) < ROWS:
            ids += self.ids(make())
        return ids[:ROWS]

    def positions(self):
        """Positions with a few jumps, so that distances far beyond ROWS are seen."""
        steps = torch.ones(ROWS, dtype=torch.int64)
        steps[0] = 0
        if self.random.random() < 0.6:
            for _ in range(self.random.randint(1, 6)):
                steps[self.random.randrange(1, ROWS)] += int(math.exp(self.random.uniform(0, 9.5)))
        return steps.cumsum(0)


@torch.no_grad()
def hidden_states(model, ids, positions):
    """[batch, rows, hidden] after the final norm."""
    # Without a mask transformers takes a jump in the positions for the beginning of another sequence.
    return model.model(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids),
                       use_cache=False).last_hidden_state


@torch.no_grad()
def continued(model, ids, count, temperature, chunk=512):
    """(ids [batch, rows] and `count` tokens more that the model says, all final states); temperature 0: greedy."""
    cache, states, rows = DynamicCache(config=model.config), [], ids.shape[1] + count
    for part in ids.split(chunk, 1):
        states.append(model.model(input_ids=part, past_key_values=cache, use_cache=True).last_hidden_state)
    while ids.shape[1] < rows:
        logits = model.lm_head(states[-1][:, -1])
        new = torch.multinomial((logits / temperature).softmax(-1), 1) if temperature else logits.argmax(-1, True)
        ids = torch.cat([ids, new], 1)
        states.append(model.model(input_ids=new, past_key_values=cache, use_cache=True).last_hidden_state)
    return ids, torch.cat(states, 1)


def training_data(model, documents, count, batch=16):
    """(ids, positions, the model's states) of `count` sequences: half questions, the rest prose and its own text."""
    ids = [documents.filled(documents.questions) for _ in range(count // 2)]
    ids += [documents.filled(lambda: BOS + " ".join(documents.prose(ROWS))) for _ in range(count // 4)]
    for temperature in (0, 0.7, 1.0):
        begun = [documents.filled(lambda: " ".join(documents.prose(ROWS)))[:ROWS // 5] for _ in range(count // 12)]
        written, _ = continued(model, torch.tensor(begun), ROWS - ROWS // 5, temperature)
        ids += written.tolist()
    ids = torch.tensor(ids)
    positions = torch.stack([documents.positions() for _ in ids])
    states = [hidden_states(model, *part) for part in zip(ids.split(batch), positions.split(batch))]
    return ids, positions, torch.cat(states)


# --------------------------------------------------------------------------------------------------------- training


def loss(block, model, ids, positions, states, top):
    """Cross entropy of each guess with the model's own distribution in that place, plus the indexer's loss. Places
    count by how sure the model is: what it leaves to chance is rarely guessed right, whatever the block learns."""
    embeddings = model.model.embed_tokens(ids[:, 1:])
    with torch.no_grad():
        wanted = model.lm_head(states[:, 1:]).softmax(-1)
        sure = wanted.max(-1).values
    outputs, index_loss = block.chain(embeddings, states[:, :-1], positions[:, :-1], top=top)
    losses = []
    for guess, output in enumerate(outputs):
        entropy = -(wanted[:, guess:] * model.lm_head(output).log_softmax(-1)).sum(-1)
        losses.append((entropy * sure[:, guess:]).sum() / sure[:, guess:].sum())
    return losses, sum(weight * one for weight, one in zip(CHAIN, losses)) + 0.3 * index_loss


def optimizers(block, rate):
    """Muon for the matrices; AdamW, with a tenth of the rate, for vectors and for what chooses keys and experts."""
    trained = {name: tensor for name, tensor in block.tensors.items() if tensor.requires_grad}
    chooses = ("self_attn.indexer.", "mlp.gate.")
    matrices = [x for name, x in trained.items() if x.dim() == 2 and not name.startswith(chooses)]
    rest = [x for name, x in trained.items() if x.dim() == 1 or name.startswith(chooses)]
    return ((torch.optim.Muon(matrices, lr=rate, weight_decay=0.01), rate),
            (torch.optim.AdamW(rest, lr=rate / 10, betas=(0.9, 0.95), weight_decay=0), rate / 10))


def train(block, model, data, minutes, batch, rate):
    """Attention over all keys first, then over the indexer's choice; the rate falls from the middle on."""
    began, step, order = time.monotonic(), 0, []
    steppers = optimizers(block, rate)
    while (done := (time.monotonic() - began) / 60 / minutes) < 1:
        if len(order) < batch:
            order = torch.randperm(len(data[0]))
        picked, order = order[:batch], order[batch:]
        top = block.config["index_topk"] if done > 0.5 else None
        losses, total = loss(block, model, *(part[picked] for part in data), top)
        total.backward()
        for optimizer, highest in steppers:
            optimizer.param_groups[0]["lr"] = highest * min((step + 1) / 20, 1 - 0.98 * max(0, done - 0.4) / 0.6)
            optimizer.step()
            optimizer.zero_grad()
        if step % 20 == 0:
            print(f"step {step}, {done:.0%}: cross entropy of the guesses {[round(x.item(), 3) for x in losses]}, "
                  f"all {total.item():.3f}", flush=True)
        step += 1


# ------------------------------------------------------------------------------------------------------ measurement


@torch.no_grad()
def acceptance(block, model, prompts, count, temperature):
    """For each guess of a chain, the share of those whose forerunners were right that are right themselves, over the
    `count` tokens that the model says after each prompt. Right is a greedy guess that equals the model's greedy token;
    at a temperature, a guess counts as the chance that exact rejection sampling accepts it."""
    reached, right = [0.0] * len(CHAIN), [0.0] * len(CHAIN)
    for prompt in prompts:
        ids, states = continued(model, torch.tensor([prompt]), count, temperature)
        embeddings, positions = model.model.embed_tokens(ids[:, 1:]), torch.arange(ids.shape[1] - 1).unsqueeze(0)
        first = len(prompt) - 1
        outputs, _ = block.chain(embeddings, states[:, :-1], positions, first, top=block.config["index_topk"])
        alive = torch.ones(count - len(CHAIN) + 1)
        for guess, output in enumerate(outputs):
            drafted, wanted = (model.lm_head(x)[0, :len(alive)] for x in (output, states[:, first + guess + 1:]))
            if temperature:
                chance = torch.minimum((drafted / temperature).softmax(-1), (wanted / temperature).softmax(-1)).sum(-1)
            else:
                chance = (drafted.argmax(-1) == wanted.argmax(-1)).float()
            reached[guess] += alive.sum().item()
            alive = alive * chance
            right[guess] += alive.sum().item()
    return [b / max(a, 1e-9) for a, b in zip(reached, right)]


def measure(block, model, documents):
    def question(tokens, chat):
        facts = [documents.fact() for _ in range(8)]
        text = documents.planted(facts, tokens) + "\n\n" + facts[0][0]
        return documents.ids(BOS + USER + text + ASSISTANT if chat else BOS + text + f" {facts[0][1]}")

    cases = [(f"answers at {length} tokens, {'chat' if chat else 'completion'}",
              [question(length, chat) for _ in range(max(4, 16384 // length))], 20 if chat else 7, 0)
             for length in (1024, 4096, 8192) for chat in (False, True)]
    prose = [documents.ids(BOS + " ".join(documents.prose(100))) for _ in range(12)]
    cases += [(f"prose at temperature {temperature}", prose, 100, temperature) for temperature in (0, 1.0)]
    for name, prompts, count, temperature in cases:
        rates = acceptance(block, model, prompts, count, temperature)
        length, alive = 1.0, 1.0
        for rate in rates:
            alive *= rate
            length += alive
        print(f"{name}: {', '.join(f'{rate:.3f}' for rate in rates)}; {length:.2f} tokens a step", flush=True)


# ------------------------------------------------------------------------------------------------------------ files


def write(block, config, source, directory):
    """The checkpoint with the block: old files as they are, the block in a file of its own, and an index of both."""
    if directory.resolve() != source.resolve():
        shutil.copytree(source, directory, dirs_exist_ok=True)
    prefix = f"model.layers.{config['num_hidden_layers']}."
    tensors = {prefix + name: tensor.detach().to(torch.bfloat16 if tensor.dim() == 2 else torch.float32).contiguous()
               for name, tensor in sorted(block.tensors.items())}
    weight_map, total = {}, 0
    save_file(tensors, directory / "model-next-token.safetensors", metadata={"format": "pt"})
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                weight_map[name] = path.name
                total += file.get_tensor(name).nbytes
    for name, value in (("config.json", config | {"num_nextn_predict_layers": 1}),
                        ("model.safetensors.index.json",
                         {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})):
        (directory / name).write_text(json.dumps(value, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument("--out", type=pathlib.Path, help="where to write the checkpoint with its block")
    parser.add_argument("--measure", action="store_true", help="measure the block that the model has")
    parser.add_argument("--minutes", type=float, default=30, help="of training (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=768, help="to train on (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=6, help="sequences of a step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=0.01,
                        help="the highest learning rate of matrices (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if bool(options.out) == options.measure:
        parser.error("give either --out or --measure")
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    config = json.loads((options.model / "config.json").read_text())
    model = reference.load(options.model, attention="sdpa").requires_grad_(False)
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    training, held_out = [], []
    for path in options.text:
        lines = [line for line in re.split(r"\n+|(?<=[.!?]) ", path.read_text()) if line]
        training += lines[:len(lines) * 9 // 10]
        held_out += lines[len(lines) * 9 // 10:]
    if options.measure:
        block = Block(config, stored_tensors(options.model, config["num_hidden_layers"]))
    else:
        data = training_data(model, Documents(training, tokenizer, options.seed), options.sequences)
        block = initial_block(model, config, options.model, *(part[::10] for part in data))
        print(f"{len(data[0])} sequences of {ROWS} tokens", flush=True)
        train(block, model, data, options.minutes, options.batch, options.rate)
        write(block, config, options.model, options.out)
        block = Block(config, stored_tensors(options.out, config["num_hidden_layers"]))
    measure(block, model, Documents(held_out, tokenizer, options.seed + 1))


if __name__ == "__main__":
    main()
