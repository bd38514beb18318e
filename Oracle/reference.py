"""The independent implementation: Hugging Face transformers, float32, its plainest code, observed from outside."""

import collections
import contextlib
import pathlib
from copy import deepcopy

import torch
from safetensors import safe_open
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils import logging

HIDDEN = -1e30  # scores below are masked ones


def load(directory, attention="eager", experts="eager"):
    """The model of a checkpoint directory, all weights widened to float32. Refuses one that does not fit exactly."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, info = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation=attention, experts_implementation=experts,
        output_loading_info=True)
    next_token = (f"model.layers.{model.config.num_hidden_layers}.", "mtp.")
    unknown = [name for name in info["unexpected_keys"] if not name.startswith(next_token)]
    for problem, names in (("lacks", info["missing_keys"]), ("has unknown", unknown),
                           ("has misshapen", info["mismatched_keys"])):
        if names:
            raise SystemExit(f"{directory}: the checkpoint {problem} tensors: {sorted(map(str, names))[:8]}")
    # transformers fixes the epsilon of these norms; what is served takes the configuration's.
    for layer in [] if is_v4(model) else model.model.layers:
        for norm in (layer.self_attn.q_a_layernorm, layer.self_attn.kv_a_layernorm):
            norm.variance_epsilon = model.config.rms_norm_eps
    return model.eval()


def is_v4(model):
    return model.config.model_type == "deepseek_v4"


@torch.no_grad()
def logits(model, ids, cache=None):
    """[len(ids), vocabulary] of one forward over all of them, without a cache or through a fresh one that rounds."""
    output = model(input_ids=torch.tensor([ids]), past_key_values=cache, use_cache=cache is not None)
    return output.logits[0].float()


@torch.no_grad()
def greedy(model, ids, count, new_cache=lambda: None):
    """(ids, logprobs, gaps to the second best) of a greedy continuation, recomputed from the start each time."""
    sequence, logprobs, gaps = list(ids), [], []
    for _ in range(count):
        best = torch.log_softmax(logits(model, sequence, new_cache())[-1], -1).topk(2)
        sequence.append(int(best.indices[0]))
        logprobs.append(float(best.values[0]))
        gaps.append(float(best.values[0] - best.values[1]))
    return sequence[len(ids):], logprobs, gaps


@torch.no_grad()
def greedy_with_cache(model, ids, count, chunk, cache=None):
    """The same ids by chunked prefill and a key/value cache."""
    cache, new, at, pending = cache or DynamicCache(config=model.config), [], 0, list(ids)
    while len(new) < count:
        step = model(input_ids=torch.tensor([pending[at:at + chunk]]), past_key_values=cache, use_cache=True)
        at += chunk
        if at >= len(pending):
            new.append(int(step.logits[0, -1].argmax()))
            pending, at = [new[-1]], 0
    return new


def random_ids(length, vocabulary, seed):
    """BOS, then uniformly random ids; never the three control ids at the start of the vocabulary."""
    generator = torch.Generator().manual_seed(7_000 + seed)
    return [0] + torch.randint(3, vocabulary, (length - 1,), generator=generator).tolist()


def tensors_of(directory, prefix):
    """The tensors whose names begin so, float32, without that beginning."""
    tensors = {}
    for path in sorted(pathlib.Path(directory).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                if name.startswith(prefix):
                    tensors[name.removeprefix(prefix)] = file.get_tensor(name).float()
    return tensors


def next_token_block(model, directory):
    """The checkpoint's next-token block: a decoder layer of transformers' own, and the tensors around it."""
    if is_v4(model):
        return v4_next_token_block(model, directory)
    tensors = tensors_of(directory, f"model.layers.{model.config.num_hidden_layers}.")
    around = {name: tensors.pop(name) for name in ("enorm.weight", "hnorm.weight", "eh_proj.weight",
                                                   "shared_head.norm.weight")}
    for copy in ("embed_tokens.weight", "shared_head.head.weight"):
        tensors.pop(copy, None)
    expert = "mlp.experts.{}.{}_proj.weight"
    experts = range(model.config.n_routed_experts)
    gate_up = [torch.cat([tensors.pop(expert.format(e, part)) for part in ("gate", "up")]) for e in experts]
    down = [tensors.pop(expert.format(e, "down")) for e in experts]
    tensors |= {"mlp.experts.gate_up_proj": torch.stack(gate_up), "mlp.experts.down_proj": torch.stack(down)}
    last = model.model.layers[-1]
    config = deepcopy(model.config)
    if hasattr(config, "indexer_types"):
        # The block has an indexer of its own, whatever the last layer has.
        config.indexer_types = ["full"] * config.num_hidden_layers
    layer = type(last)(config, config.num_hidden_layers - 1).float().eval()
    for norm in (layer.self_attn.q_a_layernorm, layer.self_attn.kv_a_layernorm):
        norm.variance_epsilon = config.rms_norm_eps
    layer.load_state_dict(tensors)
    return layer, around


def v4_next_token_block(model, directory):
    """As `next_token_block`; the layer has a window only and no compressor."""
    tensors = tensors_of(directory, "mtp.0.")
    around = {name: tensors.pop(name) for name in ("enorm.weight", "hnorm.weight", "norm.weight", "e_proj.weight",
                                                   "h_proj.weight", "hc_head_fn", "hc_head_base", "hc_head_scale")}
    experts = range(model.config.n_routed_experts)
    gate_up = [torch.cat([tensors.pop(f"ffn.experts.{e}.w{part}.weight") for part in (1, 3)]) for e in experts]
    down = [tensors.pop(f"ffn.experts.{e}.w2.weight") for e in experts]
    renamed = {"mlp.experts.gate_up_proj": torch.stack(gate_up), "mlp.experts.down_proj": torch.stack(down)}
    own_names = (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"), ("attn.", "self_attn."),
                 ("ffn.", "mlp."), ("attn_sink", "sinks"), ("q_norm", "q_a_norm"), ("wq_a", "q_a_proj"),
                 ("wq_b", "q_b_proj"), ("wkv", "kv_proj"), ("wo_a", "o_a_proj"), ("wo_b", "o_b_proj"),
                 ("gate.bias", "gate.e_score_correction_bias"), ("experts.w1", "experts.gate_proj"),
                 ("experts.w2", "experts.down_proj"), ("experts.w3", "experts.up_proj"), ("hc_attn_", "attn_hc."),
                 ("hc_ffn_", "ffn_hc."))
    for name, tensor in tensors.items():
        for released, own in own_names:
            name = name.replace(released, own)
        renamed[name] = tensor
    config = deepcopy(model.config)
    config.num_hidden_layers, config.layer_types, config.mlp_layer_types = 1, ["sliding_attention"], ["moe"]
    layer = type(model.model.layers[-1])(config, 0).float().eval()
    layer.load_state_dict(renamed)
    return layer, around


@torch.no_grad()
def v4_drafts(model, block, ids, count):
    """As `drafts`; the state of a row is its streams after the last layer, and the block has a head mix of its own."""
    layer, around = block
    config, inner = model.config, model.model
    epsilon = config.rms_norm_eps

    def norm(x, weight=1.0):
        return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon))

    kept = {}
    hook = inner.hc_head.register_forward_pre_hook(lambda _, arguments: kept.update(streams=arguments[0]))
    inner(input_ids=torch.tensor([ids]), use_cache=False)
    hook.remove()
    streams, tokens = kept["streams"][:, :-1], list(ids[1:])
    while True:
        embedded = inner.embed_tokens(torch.tensor([tokens]))
        x = (norm(embedded, around["enorm.weight"]) @ around["e_proj.weight"].T).unsqueeze(2)
        x = x + norm(streams, around["hnorm.weight"]) @ around["h_proj.weight"].T
        rows = torch.arange(len(tokens)).unsqueeze(0)
        distance = rows.T - rows
        hidden = (distance < 0) | (distance >= config.sliding_window)
        mask = torch.zeros(1, 1, len(tokens), len(tokens)).masked_fill(hidden, torch.finfo(torch.float32).min)
        angles = {kind: inner.rotary_emb(embedded, position_ids=rows, layer_type=kind) for kind in ("main", "compress")}
        own = layer(x, position_embeddings=angles, position_ids=rows, attention_mask=mask, past_key_values=None)
        mixes = norm(own.flatten(2)) @ around["hc_head_fn"].T * around["hc_head_scale"] + around["hc_head_base"]
        final = ((torch.sigmoid(mixes) + config.hc_eps).unsqueeze(-1) * own).sum(2)
        logits = model.lm_head(norm(final, around["norm.weight"]))[0].float()
        count -= 1
        if count == 0:
            return logits
        tokens.append(int(logits[-1].argmax()))
        streams = torch.cat([streams, own[:, -1:]], 1)


@torch.no_grad()
def drafts(model, block, ids, count):
    """[len(ids) - 2 + count, vocabulary]: what the next-token block says of the tokens after next, from position 0 on.

    Row i has the model's final state of position i and the token at i + 1. The last `count` - 1 rows have the block's own
    state of the row before instead, and the token that the row before drafts, the best one. In models that say so, they
    also have the selection of the last row before them, as SGLang's drafts have.
    """
    if is_v4(model):
        return v4_drafts(model, block, ids, count)
    layer, around = block
    config, inner = model.config, model.model
    last = len(ids) - 2

    def share(module, arguments, selected):
        selected[:, last + 1:] = selected[:, last:last + 1]
        return selected

    if getattr(config, "index_share_for_mtp_iteration", False) and not layer.self_attn.indexer._forward_hooks:
        layer.self_attn.indexer.register_forward_hook(share)

    def norm(x, name):
        return around[name] * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps))

    states = inner(input_ids=torch.tensor([ids]), use_cache=False).last_hidden_state[:, :-1]
    tokens = list(ids[1:])
    while True:
        embedded = inner.embed_tokens(torch.tensor([tokens]))
        x = torch.cat([norm(embedded, "enorm.weight"), norm(states, "hnorm.weight")], -1) @ around["eh_proj.weight"].T
        rows = torch.arange(len(tokens)).unsqueeze(0)
        mask = torch.full((1, 1, len(tokens), len(tokens)), torch.finfo(torch.float32).min).triu(1)
        x = layer(x, attention_mask=mask, position_ids=rows, position_embeddings=inner.rotary_emb(x, position_ids=rows),
                  past_key_values=None)
        own = norm(x[0] if isinstance(x, tuple) else x, "shared_head.norm.weight").reshape(1, len(tokens), -1)
        logits = model.lm_head(own)[0].float()
        count -= 1
        if count == 0:
            return logits
        tokens.append(int(logits[-1].argmax()))
        states = torch.cat([states, own[:, -1:]], 1)


class Decisions(TorchFunctionMode):
    """Sees every top-k inside indexers and routers while it is entered.

    `margins[kind]` lists (row, gap): for each row that had to leave something out, how far the last chosen
    score is above the first refused one, in standard deviations of such scores over all rows. Another order of
    summation may decide differently where that is tiny. `index_scores` and `index_choices` hold, by layer, the
    indexer's raw [rows, keys] scores and [rows, k] choices of the last forward.
    """

    def __init__(self, model, *further_layers):
        super().__init__()
        self.margins = collections.defaultdict(list)
        self.index_scores, self.index_choices = {}, {}
        self._inside, self._calls, self._hooks = None, 0, []
        # V3's routers ask three times: the two best of each group (a score, no decision), groups, experts.
        self._asked = ("expert",) if is_v4(model) else (None, "group", "expert")
        for layer, block in enumerate([*model.model.layers, *further_layers]):
            owner_of_indexer = getattr(block.self_attn, "compressor", None) or block.self_attn
            for kind, module in (("indexer", getattr(owner_of_indexer, "indexer", None)),
                                 ("router", getattr(block.mlp, "gate", None))):
                if module is not None:
                    self._hooks.append(module.register_forward_pre_hook(
                        lambda *_, owner=(kind, layer): self._enter(owner)))
                    self._hooks.append(module.register_forward_hook(lambda *_: self._enter(None)))

    def _enter(self, owner):
        self._inside, self._calls = owner, 0

    def __exit__(self, *exception):
        for hook in self._hooks:
            hook.remove()
        return super().__exit__(*exception)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if self._inside and function in (torch.topk, torch.Tensor.topk):
            kind, layer = self._inside
            if kind == "indexer":
                self.index_scores[layer] = args[0][0].clone()
                self.index_choices[layer] = result.indices[0].clone()
                self._note("indexer", args[0][0], result.values.shape[-1])
            else:
                kind = self._asked[self._calls]
                self._calls += 1
                if kind:
                    self._note(kind, args[0], result.values.shape[-1])
        return result

    def _note(self, kind, scores, k):
        if k >= scores.shape[-1]:
            return
        with torch._C.DisableTorchFunction():
            best = torch.topk(scores, k + 1, dim=-1).values
            spread = scores[scores > HIDDEN].std(unbiased=False).clamp(min=1e-12)
            gaps = (best[:, k - 1] - best[:, k]) / spread
            for row in (best[:, k] > HIDDEN).nonzero().flatten().tolist():
                self.margins[kind].append((row, float(gaps[row])))

    def smallest(self):
        """The smallest gap of each kind of decision."""
        return {kind: min(gap for _, gap in gaps) for kind, gaps in sorted(self.margins.items())}

    def smallest_up_to(self, rows):
        """For each row, the smallest gap in it and in all rows before it: what its result may hang on."""
        worst = [float("inf")] * rows
        for gaps in self.margins.values():
            for row, gap in gaps:
                worst[row] = min(worst[row], gap)
        for row in range(1, rows):
            worst[row] = min(worst[row], worst[row - 1])
        return worst


@torch.no_grad()
def stages(model, ids, cache=None):
    """Every stage of one forward over `ids`, by name; all [rows, ...], float32 or int32."""
    values = {"ids": torch.tensor(ids, dtype=torch.int32)}

    def keep(name):
        def hook(module, arguments, output):
            output = output[0] if isinstance(output, tuple) else output
            values[name] = output.reshape(len(ids), -1).float().clone()
        return hook

    def keep_choice(prefix):
        def hook(module, arguments, output):
            _, weights, experts = output
            order = experts.argsort(-1)
            values[prefix + "gate_experts"] = experts.gather(-1, order).int()
            values[prefix + "gate_weights"] = weights.gather(-1, order).float()
        return hook

    with contextlib.ExitStack() as stack:
        def watch(module, hook):
            stack.callback(module.register_forward_hook(hook).remove)

        watch(model.model.norm, keep("final_norm"))
        for layer, block in enumerate(model.model.layers):
            prefix = f"layers.{layer}."
            watch(block, keep(prefix + "output"))
            watch(block.input_layernorm, keep(prefix + "attention_norm"))
            query_norm, key_norm = (("q_a_norm", "kv_norm") if is_v4(model) else ("q_a_layernorm", "kv_a_layernorm"))
            watch(getattr(block.self_attn, query_norm), keep(prefix + "query_latent"))
            watch(getattr(block.self_attn, key_norm), keep(prefix + "latent"))
            watch(block.self_attn, keep(prefix + "attention"))
            watch(block.post_attention_layernorm, keep(prefix + "feed_forward_norm"))
            watch(block.mlp, keep(prefix + "feed_forward"))
            if hasattr(block.mlp, "gate"):
                watch(block.mlp.gate, keep_choice(prefix))
        with Decisions(model) as decisions:
            values["logits"] = logits(model, ids, cache)
    # The entries that a row sees: in V4 those of four tokens each that are complete.
    seen = torch.arange(1, len(ids) + 1).unsqueeze(1) // (4 if is_v4(model) else 1)
    for layer, scores in decisions.index_scores.items():
        unseen = torch.arange(scores.shape[1]) >= seen
        values[f"layers.{layer}.index_scores"] = scores.masked_fill(unseen, float("-inf"))
        values[f"layers.{layer}.selected"] = ascending(decisions.index_choices[layer], seen)
    return values


def ascending(choices, seen):
    """Chosen entries in ascending order, those beyond what a row sees dropped, padded with -1 at the end."""
    beyond = torch.iinfo(torch.int32).max
    ordered = torch.where(choices < seen, choices.int(), beyond).sort(-1).values
    return torch.where(ordered == beyond, -1, ordered).int()
