#!/usr/bin/env python3
"""Writes tests/data/golden/templates: chat templates of published models, and what Jinja makes of them.

  select_templates.py SOURCE OUT     (SOURCE: the folder of all of them, ../shared/golden/templates)

Chosen are models under Apache 2.0, MIT or a licence like it, one of several with the same template. Of the cases those stay that
have up to 3000 bytes or that every template needs, but for tool_pending, which shows little that tool_turn does not.
"""
import json
import pathlib
import sys

MAX_CASE_BYTES = 3000
ALWAYS, NEVER = ("user", "tool_turn"), "tool_pending"
LICENCES = {
    "Apertus-8B-Instruct": "Apache 2.0", "Bielik-11B-v3.0-Instruct": "Apache 2.0", "GLM-4.7-Flash": "MIT", "GLM-5.2": "MIT",
    "GigaChat3.1-10B-A1.8B": "MIT", "Kimi-K2-Thinking": "modified MIT", "MiMo-VL": "MIT",
    "Qwen-Qwen2.5-7B-Instruct": "Apache 2.0", "Qwen-Qwen3-0.6B": "Apache 2.0", "Qwen3.5-4B": "Apache 2.0",
    "SmolLM2-135M-Instruct": "Apache 2.0", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": "MIT", "deepseek-ai-DeepSeek-V3.2": "MIT",
    "deepseek-ai-DeepSeek-V4": "MIT", "ibm-granite-granite-3.3-2B-Instruct": "Apache 2.0", "llama-cpp-deepseek-r1": "MIT",
    "llama-cpp-rwkv-world": "MIT", "meetkai-functionary-medium-v3.2": "MIT",
    "microsoft-Phi-3.5-mini-instruct": "MIT", "mistralai-Ministral-3-14B-Reasoning-2512": "Apache 2.0",
    "mistralai-Mistral-Nemo-Instruct-2407": "Apache 2.0", "moonshotai-Kimi-K2": "modified MIT", "openai-gpt-oss-120b": "Apache 2.0",
    "stepfun-ai-Step-3.5-Flash": "Apache 2.0", "tokenizer_deepseek_v3": "MIT",
}
README = """# Chat templates of published models

`<name>.jinja` is the template as its makers publish it, collected in llama.cpp's models/templates; test data, each under its model's
licence. `<name>.jsonl` has one case a line: `input`, and `text`, which transformers 5.23 renders from it (sandboxed Jinja, trim_blocks,
lstrip_blocks; bos_token `<s>`, eos_token `</s>`, pad_token `<pad>`, unk_token `<unk>`), or `error` where it refuses. `has_date`: today's
date appears. Written by tests/data/tools/select_templates.py.

| template | licence |
|---|---|
"""


def is_chosen(line):
    case = json.loads(line)["case"]
    return case in ALWAYS or (case != NEVER and len(line) <= MAX_CASE_BYTES)


def main(source, out):
    source, out = pathlib.Path(source), pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name in LICENCES:
        (out / f"{name}.jinja").write_bytes((source / f"{name}.jinja").read_bytes())
        cases = (source / f"{name}.jsonl").read_bytes().splitlines(keepends=True)
        (out / f"{name}.jsonl").write_bytes(b"".join(case for case in cases if is_chosen(case)))
    (out / "README.md").write_text(README + "".join(f"| {name} | {licence} |\n" for name, licence in LICENCES.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
