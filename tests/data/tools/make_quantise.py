#!/usr/bin/env python3
"""Writes tests/data/quantise/inputs.safetensors: weights, an importance matrix, and the mean squared errors that llama.cpp's quantiser
(ggml_quantize_chunk of llama-cpp-python's libggml) makes on them.

  make_quantise.py DEMO_MODEL.gguf OUT      (needs numpy, gguf, safetensors, llama-cpp-python)

gaussian, heavy (Student's t, 3 degrees) and demo (decoded weights of the demo model) [16, 1024]; importance [1024];
<data>.<TYPE> [4]: mean squared error without a matrix, with it, and the two importance-weighted ones.
"""
import ctypes, pathlib, sys
import numpy as np, gguf, llama_cpp
from safetensors.numpy import save_file

library = ctypes.CDLL(next((pathlib.Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.so")), mode=ctypes.RTLD_GLOBAL)
library.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
library.ggml_quantize_chunk.restype = ctypes.c_size_t
TYPES = ["Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4"]


def main(demo, out):
    rng = np.random.default_rng(11)
    data = {"gaussian": rng.standard_normal((16, 1024)) * 0.02, "heavy": rng.standard_t(3, (16, 1024)) * 0.02}
    # Rows of 1024 from the values of a matrix with Q8_0 weights, which have few repetitions.
    tensor = next(t for t in gguf.GGUFReader(demo).tensors if t.name == "token_embd.weight")
    data["demo"] = gguf.dequantize(tensor.data[1000:1032], tensor.tensor_type).reshape(-1)[:16384].reshape(16, 1024)
    tensors = {k: np.ascontiguousarray(v, dtype=np.float32) for k, v in data.items()}
    importance = (rng.gamma(0.7, 1.0, 1024) + 1e-3).astype(np.float32)
    for name, x in list(tensors.items()):
        for type_name in TYPES:
            kind = getattr(gguf.GGMLQuantizationType, type_name)
            block, size = gguf.GGML_QUANT_SIZES[kind]
            errors = []
            for matrix in (None, importance):
                buffer = np.zeros((16, 1024 // block * size), np.uint8)
                library.ggml_quantize_chunk(int(kind), x.ctypes.data, buffer.ctypes.data, 0, 16, 1024, matrix.ctypes.data if matrix is not None else None)
                e = (gguf.dequantize(buffer, kind).astype(np.float64) - x) ** 2
                errors += [e.mean(), (e * importance).mean()]
            tensors[f"{name}.{type_name}"] = np.array([errors[0], errors[2], errors[1], errors[3]], np.float32)
    tensors["importance"] = importance
    save_file(tensors, out)


main(*sys.argv[1:])
