#!/usr/bin/env python3
"""Writes tests/data/golden/bailing_moe and bailing_moe_v2: random Ling checkpoints and the logits of a program that knows them.

  make_bailing.py OUT THERMOCLINE     (needs numpy, safetensors, llama-cpp-python; for v2 also torch and transformers)

Neither architecture is part of transformers. The reference of both is llama.cpp on the GGUF that `thermocline convert`
writes; for the second generation transformers' sarvam_moe, which is GLM-4.5 over the same tensors, must agree with it.
`shrink_golden.py OUT OUT bailing_moe bailing_moe_v2` then makes them as small as the others.
"""
import json, pathlib, subprocess, sys
import numpy as np
from safetensors.numpy import save_file

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from llama_logits import logits

VOCAB, HIDDEN, LAYERS, HEADS, KV, DIM, EXPERTS, TOP_K, WIDTH, DENSE = 320, 64, 3, 4, 2, 16, 8, 2, 32, 96


def tensors(rng, v2):
    def matrix(rows, cols, scale=1.2):
        return (rng.standard_normal((rows, cols)) * scale / cols ** 0.5).astype(np.float32)

    def norm(n):
        return (1 + 0.2 * rng.standard_normal(n)).astype(np.float32)

    t = {"model.word_embeddings.weight": rng.standard_normal((VOCAB, HIDDEN)).astype(np.float32), "model.norm.weight": norm(HIDDEN),
         "lm_head.weight": matrix(VOCAB, HIDDEN)}

    def mlp(prefix, width):
        t[prefix + "gate_proj.weight"], t[prefix + "up_proj.weight"] = matrix(width, HIDDEN), matrix(width, HIDDEN)
        t[prefix + "down_proj.weight"] = matrix(HIDDEN, width)

    for l in range(LAYERS):
        p = f"model.layers.{l}."
        t[p + "input_layernorm.weight"], t[p + "post_attention_layernorm.weight"] = norm(HIDDEN), norm(HIDDEN)
        t[p + "attention.query_key_value.weight"] = matrix((HEADS + 2 * KV) * DIM, HIDDEN)
        t[p + "attention.dense.weight"] = matrix(HIDDEN, HEADS * DIM)
        if v2:
            t[p + "attention.query_layernorm.weight"], t[p + "attention.key_layernorm.weight"] = norm(DIM), norm(DIM)
        if v2 and l == 0:
            mlp(p + "mlp.", DENSE)
            continue
        t[p + "mlp.gate.weight"] = matrix(EXPERTS, HIDDEN, 1.5)
        if v2:
            t[p + "mlp.gate.expert_bias"] = (0.1 * rng.standard_normal(EXPERTS)).astype(np.float32)
        for e in range(EXPERTS):
            mlp(f"{p}mlp.experts.{e}.", WIDTH)
        mlp(p + "mlp.shared_experts.", WIDTH * (1 if v2 else 2))
    # bf16 values, as published weights are
    return {k: (x.view(np.uint32) & 0xFFFF0000).view(np.float32) for k, x in t.items()}


def config(v2):
    c = dict(vocab_size=VOCAB, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=DIM,
             intermediate_size=DENSE, moe_intermediate_size=WIDTH, num_experts=EXPERTS, num_experts_per_tok=TOP_K, norm_topk_prob=True,
             max_position_embeddings=512, rms_norm_eps=1e-6, rope_theta=10000.0, rope_scaling=None, tie_word_embeddings=False,
             use_qkv_bias=False, use_bias=False, torch_dtype="float32")
    if v2:
        c.update(model_type="bailing_moe", architectures=["BailingMoeV2ForCausalLM"], num_shared_experts=1, first_k_dense_replace=1, n_group=4,
                 topk_group=2, routed_scaling_factor=2.5, partial_rotary_factor=0.5, use_qk_norm=True, score_function="sigmoid",
                 moe_router_enable_expert_bias=True)
    else:
        c.update(model_type="bailing_moe", architectures=["BailingMoeForCausalLM"], num_shared_experts=2, first_k_dense_replace=0, norm_head=True)
    return c


def transformers_logits(folder, ids):
    import torch, transformers
    c = json.loads((folder / "config.json").read_text())
    c.update(model_type="sarvam_moe", architectures=["SarvamMoeForCausalLM"], n_routed_experts=EXPERTS, n_shared_experts=1,
             rope_parameters=dict(rope_theta=c.pop("rope_theta"), rope_type="default", partial_rotary_factor=0.5))
    c.pop("rope_scaling"), c.pop("partial_rotary_factor")
    twin = folder.parent / "sarvam"
    twin.mkdir(exist_ok=True)
    (twin / "config.json").write_text(json.dumps(c))
    (twin / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    model = transformers.AutoModelForCausalLM.from_pretrained(twin, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        out = model(torch.tensor([ids.tolist()])).logits[0].float().numpy()
    for f in twin.iterdir():
        f.unlink()
    twin.rmdir()
    return out


def main(out, thermocline):
    for v2 in (False, True):
        rng = np.random.default_rng(20261125 + v2)
        folder = pathlib.Path(out) / ("bailing_moe_v2" if v2 else "bailing_moe")
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors(rng, v2), folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config(v2), indent=2) + "\n")
        prompt = rng.integers(3, VOCAB, 40)
        gguf = folder / "model.gguf"
        subprocess.run([thermocline, "convert", folder, gguf, "--force"], check=True)
        expected = logits(str(gguf), prompt)
        gguf.unlink()
        if v2:
            theirs = transformers_logits(folder, prompt)
            error = np.abs(theirs - expected).max() / np.abs(theirs).max()
            print(f"bailing_moe_v2: transformers (sarvam_moe) and llama.cpp differ by {error:.1e} of the largest logit")
            assert error < 1e-4
        save_file({"prompt": prompt.astype(np.int64), "logits": expected}, folder / "reference.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
