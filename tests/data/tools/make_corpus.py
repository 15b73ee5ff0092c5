#!/usr/bin/env python3
"""Writes the first inputs of tests/data/corpus: small and well-formed, from which a fuzzer goes on.

  make_corpus.py GOLDEN_DIR TOKENIZER_DIR THERMOCLINE OUT      (needs numpy, safetensors)

gguf: conversions of checkpoints cut down to a hidden size of 8; config: the golden configurations; the others are written out here.
"""
import json, pathlib, subprocess, sys, tempfile
import numpy as np
from safetensors.numpy import save_file

TEMPLATES = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "namespace": "{%- set ns = namespace(found=false, n=0) -%}{%- for m in messages -%}{%- if loop.first and m.role == 'system' -%}{%- set ns.found = true -%}{%- endif -%}{%- set ns.n = ns.n + loop.index0 -%}{%- endfor -%}{{ ns.found ~ ns.n }}",
    "macro": "{% macro f(x, y=2) %}{{ x }}-{{ y }}{% endmacro %}{{ f(1) }}{{ f(x=3, y='z') | upper }}{% filter trim %} a {% endfilter %}",
    "tools": "{% for t in tools %}{{ t.function | tojson }}{% for k, v in t.function.parameters.properties.items() %}{{ k }}: {{ v.type | default('any') }}{% endfor %}{% endfor %}",
    "slices": "{{ messages[1:][::-1] | length }}{{ 'abc'[::2] }}{{ messages[-1]['content'].split(' ')[0].strip() }}{{ [1, 2, 3] | join('+') }}{{ {'a': 1} | dictsort }}",
    "errors": "{% if messages | length > 99 %}{{ raise_exception('too many') }}{% endif %}{{ strftime_now('%Y') }}{{ undefined is defined }}{{ none is none }}{{ 3 // 2 ** 2 % 5 }}",
    "loops": "{% for i in range(3) %}{% for j in range(i) recursive %}{{ loop.cycle('a', 'b') }}{% endfor %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% else %}none{% endfor %}",
    "sets": "{% set x %}block{% endset %}{% set a, b = [1, 2] %}{{ x ~ a ~ b }}{% if not (a and b) or x in ['block'] %}y{% elif z is not string %}n{% endif %}",
}
INPUTS = [
    {"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": True},
    {"messages": [{"role": "system", "content": "a  b"}, {"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "assistant", "content": None}]},
    {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {"x": 1.5, "y": [True, None]}}}]}],
     "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "number"}}}}}]},
    {"messages": {"a": {"b": [[], {}]}}, "add_generation_prompt": 3},
    {"messages": "text", "tools": "more"},
    {"messages": [], "add_generation_prompt": "x"},
]
# As FuzzOutputParser numbers them: plain, harmony, then the order of tool_formats.cc.
OUTPUT_FORMATS = ("plain", "harmony", "deepseek-v4", "deepseek-dsml", "deepseek", "kimi", "minimax", "glm", "qwen-xml", "mistral", "hermes")
OUTPUTS = {
    "hermes": "<think>\nhm\n</think>\n\nyes\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"y\"}}\n</tool_call>",
    "glm": "<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>y</arg_value>\n</tool_call>",
    "qwen-xml": "<tool_call>\n<function=f>\n<parameter=n>\n1\n</parameter>\n</function>\n</tool_call>",
    "harmony": "<|channel|>analysis<|message|>t<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"x\": 1}<|call|>",
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek-dsml": "<｜DSML｜function_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"x\" string=\"true\">y</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜function_calls>",
    "deepseek-v4": "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"x\" string=\"true\">y</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜tool_calls>",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
    "mistral": "[TOOL_CALLS]f[CALL_ID]1[ARGS]{\"x\": \"y\"}",
    "minimax": "<minimax:tool_call><invoke name=\"f\"><parameter name=\"x\">y</parameter></invoke></minimax:tool_call>",
    "plain": "plain text with < and [ and { in it",
}


def tiny(config):
    """A configuration with small sizes, as far as it has them."""
    c = json.loads(json.dumps(config))
    small = dict(vocab_size=8, hidden_size=8, intermediate_size=8, moe_intermediate_size=8, shared_intermediate_size=8, shared_expert_intermediate_size=8,
                 num_attention_heads=2, num_key_value_heads=1, head_dim=4, num_experts_per_tok=1, num_local_experts=2, num_experts=2, max_position_embeddings=16)
    for key, value in small.items():
        if key in c:
            c[key] = value
    c["num_hidden_layers"] = 1
    return c


def tiny_model(folder, config):
    rng = np.random.default_rng(1)
    t = {"model.embed_tokens.weight": (8, 8), "lm_head.weight": (8, 8), "model.norm.weight": (8,)}
    p = "model.layers.0."
    t |= {p + "input_layernorm.weight": (8,), p + "post_attention_layernorm.weight": (8,), p + "self_attn.q_proj.weight": (8, 8),
          p + "self_attn.k_proj.weight": (4, 8), p + "self_attn.v_proj.weight": (4, 8), p + "self_attn.o_proj.weight": (8, 8)}
    kind = config["model_type"]
    if kind.startswith("qwen3"):
        t |= {p + "self_attn.q_norm.weight": (4,), p + "self_attn.k_norm.weight": (4,)}
    if kind in ("llama", "qwen3"):
        t |= {p + f"mlp.{n}.weight": (8, 8) for n in ("gate_proj", "up_proj", "down_proj")}
    elif kind == "mixtral":
        t[p + "block_sparse_moe.gate.weight"] = (2, 8)
        t |= {p + f"block_sparse_moe.experts.{e}.{n}.weight": (8, 8) for e in range(2) for n in ("w1", "w2", "w3")}
    else:
        t[p + "mlp.gate.weight"] = (2, 8)
        t |= {p + f"mlp.experts.{e}.{n}.weight": (8, 8) for e in range(2) for n in ("gate_proj", "up_proj", "down_proj")}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({k: rng.standard_normal(s).astype(np.float32) for k, s in t.items()}, folder / "model.safetensors")


def main(golden, tokenizers, thermocline, out):
    golden, out = pathlib.Path(golden), pathlib.Path(out)
    for name in ("gguf", "safetensors", "config", "tokenizer_json", "template_source", "template_input", "output_parser"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for path in sorted(golden.glob("*/config.json")):
        (out / "config" / path.parent.name).write_text(json.dumps(json.loads(path.read_text())))
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        for kind in ("llama", "llama3-rope", "mixtral", "qwen3", "qwen3_moe"):
            folder = work / kind
            tiny_model(folder, tiny(json.loads((golden / kind / "config.json").read_text())))
            for tokenizer in (None, "bpe-normalizer", "unigram"):
                if tokenizer and kind != "mixtral":
                    continue
                if tokenizer:
                    (folder / "tokenizer.json").write_bytes((pathlib.Path(tokenizers) / tokenizer / "tokenizer.json").read_bytes())
                target = out / "gguf" / f"{kind}{'-' + tokenizer if tokenizer else ''}"
                subprocess.run([thermocline, "convert", folder, target, "--force"], check=True, stderr=subprocess.DEVNULL)
            if kind == "mixtral":
                (out / "safetensors" / "mixtral").write_bytes((folder / "model.safetensors").read_bytes())
    blocks = {"x_blocks": np.arange(64, dtype=np.uint8).reshape(2, 2, 1, 16), "x_scales": np.full((2, 2, 1), 127, np.uint8)}
    save_file(blocks, out / "safetensors" / "mxfp4")
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4, 8], "data_offsets": [0, 32]}, "w_scale_inv": {"dtype": "F32", "shape": [2, 2], "data_offsets": [32, 48]}}).encode()
    (out / "safetensors" / "fp8").write_bytes(len(header).to_bytes(8, "little") + header + bytes(range(32)) + np.ones(4, np.float32).tobytes())
    for i, entry in enumerate(({"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}, {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]})):
        header = json.dumps({"t": entry, "__metadata__": {"format": "pt"}}).encode()
        (out / "safetensors" / f"entry{i}").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    for path in sorted(pathlib.Path(tokenizers).glob("*/tokenizer.json")):
        (out / "tokenizer_json" / path.parent.name).write_bytes(path.read_bytes())
    bpe = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "\u0120": 3}, "merges": ["a b"]}, "added_tokens": [{"id": 4, "content": "<s>", "special": True, "rstrip": True}],
           "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}, {"type": "Strip"}]},
           "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\d"}, "behavior": "Isolated"}, {"type": "Split", "pattern": {"String": "x"}, "behavior": "Removed"},
                                                                  {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False}]}}
    (out / "tokenizer_json" / "bpe").write_text(json.dumps(bpe))
    unigram = {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["\u2581", -2], ["a", -3.5]], "byte_fallback": False}, "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}}
    (out / "tokenizer_json" / "small-unigram").write_text(json.dumps(unigram))
    spm = {"model": {"type": "BPE", "byte_fallback": True, "vocab": {"<0x41>": 0, "\u2581": 1, "a": 2, "\u2581a": 3}, "merges": [["\u2581", "a"]]}, "normalizer": {"type": "Prepend", "prepend": "\u2581"},
           "decoder": {"type": "Sequence", "decoders": [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]}}
    (out / "tokenizer_json" / "small-bpe").write_text(json.dumps(spm))
    for name, text in TEMPLATES.items():
        (out / "template_source" / name).write_text(text)
    for i, value in enumerate(INPUTS):
        (out / "template_input" / f"input{i}").write_text(json.dumps(value))
    for name, text in OUTPUTS.items():
        (out / "output_parser" / name).write_bytes(bytes([OUTPUT_FORMATS.index(name)]) + text.encode())


main(*sys.argv[1:])
