#!/usr/bin/env python3
"""Mean squared errors of `thermocline quantize` and of llama.cpp's quantiser on the same model, type by type.

  compare_quantisers.py THERMOCLINE MODEL.gguf [WORK_DIR]      (needs numpy, gguf, llama-cpp-python)

Three data sets with the shapes of the model's matrices: its own decoded weights, Gaussian and heavy-tailed (Student's t, 3 degrees)
random ones. Both programs quantise the whole file with --pure, with and without an importance matrix (gamma-distributed, in the GGUF
format of llama-imatrix). Per type the ratio ours / theirs of the error over all tensors, the worst tensor's, and with a matrix the
same for the importance-weighted error. Prints JSON lines.
"""
import ctypes, json, pathlib, subprocess, sys, tempfile
import numpy as np
import gguf, llama_cpp

TYPES = {"q8_0": 7, "q4_0": 2, "q4_k": 15, "q5_k": 17, "q6_k": 18, "iq4_nl": 25, "mxfp4": 38}
MAX_ROWS = 256  # of each matrix that are compared


@llama_cpp.llama_log_callback
def quiet(level, text, user):
    pass


llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))


def tensors(path):
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def values(tensor, rows):
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(-1, int(tensor.shape[0]))[:rows]


def randomise(source, target, draw):
    """A copy of an F32 file with other values in its matrices."""
    data = bytearray(pathlib.Path(source).read_bytes())
    for t in gguf.GGUFReader(source).tensors:
        if len(t.shape) < 2 or int(t.tensor_type) != 0:
            continue
        new = (draw(t.n_elements) * 0.02).astype(np.float32).tobytes()
        data[t.data_offset:t.data_offset + len(new)] = new
    pathlib.Path(target).write_bytes(data)


def write_importance(path, model, rng):
    writer = gguf.GGUFWriter(path, "")
    writer.kv_data[0].pop("general.architecture", None)
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["random"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    out = {}
    for name, t in tensors(model).items():
        if len(t.shape) < 2:
            continue
        matrices = int(t.shape[2]) if len(t.shape) > 2 else 1
        w = rng.gamma(0.7, 1.0, (matrices, int(t.shape[0]))).astype(np.float32) + 1e-3
        writer.add_tensor(name + ".in_sum2", w)
        writer.add_tensor(name + ".counts", np.ones((matrices, 1), np.float32))
        out[name] = w
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
    return out


def theirs(source, target, ftype, importance):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.pure, params.allow_requantize, params.nthread = ftype, True, True, 2
    keep = []
    if importance:
        entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))() if hasattr(llama_cpp, "llama_model_imatrix_data") else None
        for i, (name, w) in enumerate(importance.items()):
            flat = np.ascontiguousarray(w.reshape(-1))
            keep += [flat, name.encode()]
            entries[i].name, entries[i].size = keep[-1], flat.size
            entries[i].data = flat.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        keep.append(entries)
        params.imatrix = ctypes.cast(entries, type(params.imatrix)) if not isinstance(params.imatrix, (int, type(None))) else ctypes.addressof(entries)
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) != 0:
        raise RuntimeError(f"llama.cpp does not quantise to {ftype}")


def main(thermocline, model, work):
    work = pathlib.Path(work)
    rng = np.random.default_rng(7)
    base = work / "model.f32.gguf"
    subprocess.run([thermocline, "quantize", model, base, "f32", "--requantize", "--force"], check=True, stdout=subprocess.DEVNULL)
    sets = {"model": base, "gaussian": work / "gaussian.gguf", "heavy": work / "heavy.gguf"}
    randomise(base, sets["gaussian"], lambda n: rng.standard_normal(n))
    randomise(base, sets["heavy"], lambda n: rng.standard_t(3, n))
    importance = write_importance(work / "importance.gguf", base, rng)
    for data, source in sets.items():
        original = tensors(source)
        for name, ftype in TYPES.items():
            for matrix in (None, importance):
                ours_path, theirs_path = work / "ours.gguf", work / "theirs.gguf"
                command = [thermocline, "quantize", source, ours_path, name, "--pure", "--force"]
                subprocess.run(command + (["--imatrix", work / "importance.gguf"] if matrix else []), check=True, stdout=subprocess.DEVNULL)
                theirs(source, theirs_path, ftype, matrix)
                a, b = tensors(ours_path), tensors(theirs_path)
                sums, worst, count = np.zeros(4), [0.0, 0.0], 0
                for t in original:
                    if a[t].tensor_type != b[t].tensor_type or int(a[t].tensor_type) in (0, 1, 30):
                        continue
                    x = values(original[t], MAX_ROWS)
                    errors = [(values(f[t], MAX_ROWS).astype(np.float64) - x) ** 2 for f in (a, b)]
                    w = 1.0
                    if matrix:
                        rows = int(original[t].shape[1])
                        w = np.repeat(matrix[t], rows, axis=0)[:MAX_ROWS].astype(np.float64)
                    row = [errors[0].sum(), errors[1].sum(), (errors[0] * w).sum(), (errors[1] * w).sum()]
                    sums += row
                    count += 1
                    if row[1] > 1e-20:
                        worst = [max(worst[0], row[0] / row[1]), max(worst[1], row[2] / row[3])]
                ratio = lambda p, q: round(p / q, 4) if q > 1e-20 else None
                print(json.dumps({"data": data, "type": name, "importance": bool(matrix), "tensors": count, "ratio": ratio(sums[0], sums[1]), "worst": round(worst[0], 4),
                                  "weighted_ratio": ratio(sums[2], sums[3]), "weighted_worst": round(worst[1], 4)}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        main(*sys.argv[1:4])
    else:
        with tempfile.TemporaryDirectory() as work:
            main(*sys.argv[1:3], work)
