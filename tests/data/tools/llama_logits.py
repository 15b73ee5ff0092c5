"""Logits of llama.cpp (llama-cpp-python) for given token ids, in f32: `logits(path, ids)` -> [len(ids), vocab], or None when it
cannot load the file. As a program: prints how far a GGUF file's logits are from a reference.safetensors.

  llama_logits.py FILE.gguf REFERENCE.safetensors
"""
import ctypes, sys
import numpy as np
import llama_cpp

llama_cpp.llama_backend_init()


@llama_cpp.llama_log_callback
def _quiet(level, text, user):
    if level >= 4:
        sys.stderr.write(text.decode(errors="replace"))


llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))


def logits(path, ids):
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        return None
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = max(256, len(ids))
    params.n_threads, params.type_k, params.type_v, params.flash_attn_type = 2, 0, 0, 0
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = int(token), i, 1, 1
        batch.seq_id[i][0] = 0
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    out = None
    if llama_cpp.llama_decode(context, batch) == 0:
        out = np.array([np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (vocab,)).copy() for i in range(len(ids))])
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return out


if __name__ == "__main__":
    from safetensors.numpy import load_file
    reference = load_file(sys.argv[2])
    got = logits(sys.argv[1], reference["prompt"])
    if got is None:
        sys.exit("llama.cpp does not load it")
    print(f"{np.abs(got - reference['logits']).max() / np.abs(reference['logits']).max():.2e}")
