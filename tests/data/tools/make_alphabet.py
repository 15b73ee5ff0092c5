#!/usr/bin/env python3
"""Writes tests/data/alphabet.gguf: a model whose every logit is known by hand, for tests of what happens around a model.

  make_alphabet.py OUT      (needs nothing but Python)

64 tokens, hidden size 64. A token's embedding is 8 at its own place, which the norm (1 everywhere) leaves as it is; attention and
experts are zero; so the logits after token t are 4 for t's successor, 2 for that one's successor and 0 for the other 62. SUCCESSORS
says who follows whom: letters go to z and end, digits go round for ever, and some tokens begin a character of three bytes, a control
token, a tool call or reasoning. Four experts a layer, two a token: of token t experts t % 4 and (t + 1) % 4 in layer 0, and
t // 16 and (t // 16 + 1) % 4 in layer 1, the first with the higher weight.
"""
import pathlib
import struct
import sys

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, EXPERTS, TOP_K, WIDTH = 64, 2, 2, 1, 16, 4, 2, 16
CONTEXT = 16384
STRING, BOOL, INT32, UINT32, FLOAT32, ARRAY = 8, 7, 5, 4, 6, 9
NORMAL, CONTROL = 1, 3

CALL = '{"name":"get","arguments":{"x":1}}'
# Bytes above 127 in GPT-2's alphabet: E2 82 AC is the euro sign. G with a dot is a space, C with a dot a line end.
EURO = ["\u00e2", "\u0124", "\u00ac"]
TOKENS = (["<s>", "</s>", "<|note|>", "<tool_call>", "</tool_call>", "<think>", "</think>"]
          + [chr(ord("a") + i) for i in range(26)] + [str(i) for i in range(10)]
          + ["\u0120", "\u010a", ".", ":", "+", "?", *EURO, CALL, "mull", "ok", "<", "|", ">", "_", "/", "{", "}", '"', "!"])
CONTROLS = TOKENS[:7]
CHAINS = ["<s> abcdefghijklmnopqrstuvwxyz </s> a", "01234567890"]
SEQUENCES = [["\u0120", *EURO, ".", "\u010a", "</s>"],
             [":", "<|note|>", "!", "</s>"],
             ["+", "<tool_call>", CALL, "</tool_call>", "</s>"],
             ["?", "<think>", "mull", "</think>", "ok", "</s>"]]

# The last token of the prompt, and so what is answered, is the last message's; the comment says which kinds of output there are.
TEMPLATE = ("{#- <tool_call> and </think> -#}{{ bos_token }}{% if tools %}{{ tools | length }}{% endif %}{{ extra }}"
            "{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}{{ message.role }}:{{ message.content }}"
            "{% endfor %}{% if not add_generation_prompt %}{{ '\\n' }}{% endif %}")


def successors():
    follows = {}
    for chain in CHAINS:
        parts = chain.split(" ")
        flat = [p for part in parts for p in ([part] if part in TOKENS else list(part))]
        follows.update(zip(flat, flat[1:]))
    for sequence in SEQUENCES:
        follows.update(zip(sequence, sequence[1:]))
    return [TOKENS.index(follows.get(token, "</s>")) for token in TOKENS]


def metadata():
    p = "qwen3moe."
    sizes = {"context_length": CONTEXT, "embedding_length": HIDDEN, "block_count": LAYERS, "feed_forward_length": WIDTH,
             "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "attention.key_length": HEAD_DIM,
             "attention.value_length": HEAD_DIM, "expert_count": EXPERTS, "expert_used_count": TOP_K,
             "expert_feed_forward_length": WIDTH, "vocab_size": len(TOKENS)}
    yield "general.architecture", STRING, "qwen3moe"
    for key, value in sizes.items():
        yield p + key, UINT32, value
    yield p + "attention.layer_norm_rms_epsilon", FLOAT32, 1e-12
    yield p + "rope.freq_base", FLOAT32, 10000.0
    t = "tokenizer.ggml."
    yield t + "model", STRING, "gpt2"
    yield t + "pre", STRING, "gpt-2"
    yield t + "tokens", (ARRAY, STRING), TOKENS
    yield t + "token_type", (ARRAY, INT32), [CONTROL if token in CONTROLS else NORMAL for token in TOKENS]
    yield t + "merges", (ARRAY, STRING), []
    yield t + "bos_token_id", UINT32, 0
    yield t + "eos_token_id", UINT32, 1
    yield t + "add_bos_token", BOOL, True
    yield "tokenizer.chat_template", STRING, TEMPLATE


def tensors():
    """Name, shape with rows first, and the places that are not zero (all ones for a norm)."""
    n = len(TOKENS)
    follows = successors()
    head = {}
    for t in range(n):
        head[follows[t], t] = 0.5
        head[follows[follows[t]], t] = 0.25
    yield "token_embd.weight", (n, HIDDEN), {(t, t): 8.0 for t in range(n)}
    yield "output_norm.weight", (HIDDEN,), None
    yield "output.weight", (n, HIDDEN), head
    for layer in range(LAYERS):
        p = f"blk.{layer}."
        for name, size in (("attn_norm", HIDDEN), ("ffn_norm", HIDDEN), ("attn_q_norm", HEAD_DIM), ("attn_k_norm", HEAD_DIM)):
            yield p + name + ".weight", (size,), None
        yield p + "attn_q.weight", (HEADS * HEAD_DIM, HIDDEN), {}
        yield p + "attn_k.weight", (KV_HEADS * HEAD_DIM, HIDDEN), {}
        yield p + "attn_v.weight", (KV_HEADS * HEAD_DIM, HIDDEN), {}
        yield p + "attn_output.weight", (HIDDEN, HEADS * HEAD_DIM), {}
        router = {}
        for t in range(n):
            first = t % EXPERTS if layer == 0 else t // 16
            router[first, t] = 1.0
            router[(first + 1) % EXPERTS, t] = 0.5
        yield p + "ffn_gate_inp.weight", (EXPERTS, HIDDEN), router
        yield p + "ffn_gate_exps.weight", (EXPERTS, WIDTH, HIDDEN), {}
        yield p + "ffn_up_exps.weight", (EXPERTS, WIDTH, HIDDEN), {}
        yield p + "ffn_down_exps.weight", (EXPERTS, HIDDEN, WIDTH), {}


def floats(shape, places):
    count = 1
    for size in shape:
        count *= size
    values = [1.0 if places is None else 0.0] * count
    for (row, col), value in (places or {}).items():
        values[row * shape[-1] + col] = value
    return struct.pack(f"<{count}f", *values)


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, v):
    if isinstance(kind, tuple):
        return struct.pack("<IQ", kind[1], len(v)) + b"".join(value(kind[1], x) for x in v)
    if kind == STRING:
        return string(v)
    return struct.pack({BOOL: "<?", INT32: "<i", UINT32: "<I", FLOAT32: "<f"}[kind], v)


def padded(data):
    return data + b"\0" * (-len(data) % 32)


def main(out):
    assert len(TOKENS) == len(set(TOKENS)) == HIDDEN
    fields, weights = list(metadata()), list(tensors())
    head = b"GGUF" + struct.pack("<IQQ", 3, len(weights), len(fields))
    for key, kind, v in fields:
        head += string(key) + struct.pack("<I", kind[0] if isinstance(kind, tuple) else kind) + value(kind, v)
    data = b""
    for name, shape, places in weights:
        head += string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", 0, len(data))
        data += padded(floats(shape, places))
    pathlib.Path(out).write_bytes(padded(head) + data)


main(sys.argv[1])
