#!/usr/bin/env python3
"""Writes tests/data/golden from full reference checkpoints: smaller files that are exactly as valid.

  shrink_golden.py SOURCE OUT [NAME...]     (Python alone; without names: every case below that SOURCE has)

Three things shrink, and none of them changes a number that the reference computed:
* weights hold bf16 values and become BF16; a tensor that would lose a bit stays as it is;
* of the vocabulary those ids stay that prompt, continuation and config.json name, and the lowest others up to a multiple of 16.
  Hidden states do not depend on the others, logits of the ids that stay do not either, and the largest of some logits that was
  the largest of all still is. A head that is normalised over the vocabulary keeps all of it; its embedding stays F32, because
  the normalised values are no bf16 values and `convert` writes all matrices in the embedding's type;
* of reference.safetensors stays what the tests read: prompt, greedy, logits, hidden.*.
"""
import json
import pathlib
import re
import struct
import sys

from gguf_file import GgufFile

ROUND = 16  # a vocabulary is a multiple of it
MAX_SHARD_BYTES = 1_000_000  # bigger models are cut into shards with an index, as published ones are
# What is special about some. `f32`: weights stay F32, so that this type is read too; `gguf`: the twin of llama.cpp's converter
# comes along; `whole`: the model stays as it is, and so does its twin with a tokenizer; `int4`: packed experts are written out.
SPECIAL = {"granitemoeshared": {"gguf"}, "kimi_k2": {"f32", "int4"}, "llama3-rope": {"whole"}}
# At least one of every architecture, and those variants that no other case stands for.
CASES = ("bailing_moe", "bailing_moe_v2", "deepseek_v2", "deepseek_v2-group", "deepseek_v3", "dots1", "ernie4_5_moe", "glm4_moe",
         "gpt_oss", "gpt_oss-mxfp4", "granitemoe", "granitemoeshared", "hunyuan_v1_moe", "kimi_k2", "lfm2_moe", "llama",
         "llama3-rope", "longcat_flash", "minimax_m2", "mixtral-swa", "olmoe-clip", "phimoe", "qwen2_moe", "qwen3", "qwen3_moe",
         "qwen3_moe-bf16", "qwen3_next")
SOURCES = {"kimi_k2": "deepseek_v3-int4"}  # where the folder has another name
BY_VOCABULARY = re.compile(r"(embed_tokens|word_embeddings|lm_head|^token_embd|^output)\.(weight|bias)$")


def read_safetensors(path):
    """name -> (dtype, shape, bytes), and the file's own metadata."""
    data = path.read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    header, base = json.loads(data[8:8 + size]), 8 + size
    metadata = header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[base + t["data_offsets"][0]:base + t["data_offsets"][1]])
            for name, t in header.items()}, metadata


def write_safetensors(path, tensors, metadata):
    header, offset = {} if metadata is None else {"__metadata__": metadata}, 0
    for name, (dtype, shape, data) in sorted(tensors.items()):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, (_, _, data) in sorted(tensors.items())))


def write_model(out, tensors, metadata):
    shards, size = [{}], 0
    for name, tensor in sorted(tensors.items()):
        size += len(tensor[2])
        if size > MAX_SHARD_BYTES:
            shards.append({})
            size = len(tensor[2])
        shards[-1][name] = tensor
    if len(shards) == 1:
        write_safetensors(out / "model.safetensors", tensors, metadata)
        return
    files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for file, shard in zip(files, shards):
        write_safetensors(out / file, shard, metadata)
    index = {"metadata": {"total_size": sum(len(data) for _, _, data in tensors.values())},
             "weight_map": {name: file for file, shard in zip(files, shards) for name in shard}}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def as_bf16(data):
    """The upper halves of f32 values, or None where a lower one is not zero."""
    if any(data[0::4]) or any(data[1::4]):
        return None
    out = bytearray(len(data) // 2)
    out[0::2], out[1::2] = data[2::4], data[3::4]
    return bytes(out)


def rows(data, count, keep):
    """Those of `count` equal parts of data that `keep` names."""
    size = len(data) // count
    return b"".join(data[i * size:(i + 1) * size] for i in keep)


def token_ids(config):
    """key -> ids, of whatever config.json calls a token id."""
    return {key: value if isinstance(value, list) else [value]
            for key, value in config.items() if key.endswith("_token_id") and value is not None}


def kept_ids(config, used):
    ids = used | {i for named in token_ids(config).values() for i in named if 0 <= i < config["vocab_size"]}
    size = min(config["vocab_size"], -(-len(ids) // ROUND) * ROUND)
    others = (i for i in range(config["vocab_size"]) if i not in ids)
    return sorted(ids | {next(others) for _ in range(size - len(ids))})


def written_out(tensors):
    """compressed-tensors' int4, (code - 8) times scale, eight codes to a word and the first lowest: every product is a bf16 value."""
    out = dict(tensors)
    for name in [n for n in tensors if n.endswith("weight_packed")]:
        base = name.removesuffix("_packed")
        words, scales = tensors[name], tensors[base + "_scale"]
        height, width = struct.unpack("<2q", tensors[base + "_shape"][2])
        codes = struct.unpack(f"<{height * width // 8}I", words[2])
        scale = [struct.unpack("<f", b"\0\0" + scales[2][i:i + 2])[0] for i in range(0, len(scales[2]), 2)]
        group = height * width // len(scale)
        values = [((codes[i // 8] >> 4 * (i % 8) & 15) - 8) * scale[i // group] for i in range(height * width)]
        for part in (name, base + "_scale", base + "_shape"):
            del out[part]
        out[base] = ("F32", [height, width], struct.pack(f"<{len(values)}f", *values))
    return out


def cut(tensors, vocab, keep):
    out = {}
    for name, (dtype, shape, data) in tensors.items():
        if BY_VOCABULARY.search(name):
            assert shape[0] == vocab, (name, shape)
            shape, data = [len(keep), *shape[1:]], rows(data, vocab, keep)
        out[name] = (dtype, shape, data)
    return out


def narrow(tensors, but=()):
    halves = {name: as_bf16(data) for name, (dtype, _, data) in tensors.items() if dtype == "F32" and name not in but}
    return {name: ("BF16", shape, halves[name]) if halves.get(name) is not None else (dtype, shape, data)
            for name, (dtype, shape, data) in tensors.items()}


def shrunk_reference(tensors, vocab, keep):
    new_id = {old: new for new, old in enumerate(keep)}
    out = {name: t for name, t in tensors.items() if name.startswith("hidden.")}
    for name in ("prompt", "greedy"):
        if name in tensors:
            dtype, shape, data = tensors[name]
            ids = [new_id[i] for i in struct.unpack(f"<{shape[0]}q", data)]
            out[name] = (dtype, shape, struct.pack(f"<{len(ids)}q", *ids))
    dtype, (count, _), data = tensors["logits"]
    width = len(data) // count
    out["logits"] = (dtype, [count, len(keep)],
                     b"".join(rows(data[t * width:(t + 1) * width], vocab, keep) for t in range(count)))
    return out


def shrink_model(source, out, special, config, keep):
    vocab = config["vocab_size"]
    tensors, metadata = read_safetensors(source / "model.safetensors")
    if "int4" in special:
        tensors = written_out(tensors)
        del config["quantization_config"]
    if "f32" not in special:
        tensors = narrow(tensors, but=["model.word_embeddings.weight"] if config.get("norm_head") else [])
    write_model(out, cut(tensors, vocab, keep), metadata)
    for key, ids in token_ids(config).items():
        new = [keep.index(i) for i in ids]
        config[key] = new if isinstance(config[key], list) else new[0]
    config["vocab_size"] = len(keep)
    config |= {key: "float32" if "f32" in special else "bfloat16" for key in ("dtype", "torch_dtype") if key in config}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if "gguf" in special:
        twin = GgufFile.read(source / "model-f32.gguf")
        twin.drop("tokenizer.")  # its tokens are no longer those of the embedding
        twin.set_uint32(twin.architecture() + ".vocab_size", len(keep))
        # Norms and biases stay F32, as the converter writes them.
        twin.tensors |= cut(narrow({name: t for name, t in twin.tensors.items() if len(t[1]) > 1}), vocab, keep)
        twin.write(out / "model-bf16.gguf")


def shrink(source, out, special):
    config = json.loads((source / "config.json").read_text())
    reference, metadata = read_safetensors(source / "reference.safetensors")
    used = {i for name in ("prompt", "greedy") if name in reference
            for i in struct.unpack(f"<{reference[name][1][0]}q", reference[name][2])}
    vocab = config["vocab_size"]
    whole = "whole" in special or config.get("norm_head", False)
    keep = list(range(vocab)) if whole else kept_ids(config, used)
    out.mkdir(parents=True, exist_ok=True)
    write_safetensors(out / "reference.safetensors", shrunk_reference(reference, vocab, keep), metadata)
    if "whole" in special:
        for name in ("config.json", "model.safetensors", "model-f32.gguf"):
            (out / name).write_bytes((source / name).read_bytes())
    else:
        shrink_model(source, out, special, config, keep)


def main(source, out, *names):
    source, out = pathlib.Path(source), pathlib.Path(out)
    for name in names or CASES:
        folder = source / SOURCES.get(name, name)
        if not folder.is_dir():
            if names:
                sys.exit(f"{folder} does not exist")
            print(f"{name}: left as it is, {folder} does not exist")
            continue
        shrink(folder, out / name, SPECIAL.get(name, set()))
        sizes = {f.name: f.stat().st_size // 1024 for f in sorted((out / name).iterdir())}
        print(f"{name}: {', '.join(f'{file} {size} KiB' for file, size in sizes.items())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
