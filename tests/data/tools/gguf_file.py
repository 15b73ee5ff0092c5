"""A GGUF file as Python values: read, change, write. Metadata that nobody asks about stay bytes.

Source: ggml/docs/gguf.md of llama.cpp. Versions 2 and 3; tensors of F32 and BF16.
"""
import struct

ALIGNMENT = 32
TYPES = {0: "F32", 30: "BF16"}
BYTES = {"F32": 4, "BF16": 2}
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, UINT32 = 8, 9, 4


class GgufFile:
    def __init__(self):
        self.metadata = {}  # key -> type and value, as they lie in the file
        self.tensors = {}   # name -> (dtype, shape with the rows first, bytes), like safetensors

    @classmethod
    def read(cls, path):
        data, file = path.read_bytes(), cls()
        magic, version, num_tensors, num_metadata = struct.unpack_from("<4sIQQ", data)
        assert magic == b"GGUF" and version in (2, 3), path
        at = 24

        def string(at):
            size = struct.unpack_from("<Q", data, at)[0]
            return data[at + 8:at + 8 + size].decode(), at + 8 + size

        def value_end(kind, at):
            if kind == STRING:
                return string(at)[1]
            if kind != ARRAY:
                return at + SCALAR_BYTES[kind]
            elem, count = struct.unpack_from("<IQ", data, at)
            at += 12
            for _ in range(count):
                at = value_end(elem, at)
            return at

        for _ in range(num_metadata):
            key, at = string(at)
            end = value_end(struct.unpack_from("<I", data, at)[0], at + 4)
            file.metadata[key], at = data[at:end], end
        infos = []
        for _ in range(num_tensors):
            name, at = string(at)
            rank = struct.unpack_from("<I", data, at)[0]
            *shape, kind, offset = struct.unpack_from(f"<{rank}QIQ", data, at + 4)
            infos.append((name, TYPES[kind], shape[::-1], offset))
            at += 4 + 8 * rank + 12
        base = at + -at % ALIGNMENT
        for name, dtype, shape, offset in infos:
            size = BYTES[dtype]
            for n in shape:
                size *= n
            file.tensors[name] = (dtype, shape, data[base + offset:base + offset + size])
        return file

    def architecture(self):
        return self.metadata["general.architecture"][12:].decode()

    def drop(self, prefix):
        self.metadata = {key: value for key, value in self.metadata.items() if not key.startswith(prefix)}

    def set_uint32(self, key, value):
        self.metadata[key] = struct.pack("<II", UINT32, value)

    def write(self, path):
        def string(text):
            return struct.pack("<Q", len(text.encode())) + text.encode()

        out = [struct.pack("<4sIQQ", b"GGUF", 3, len(self.tensors), len(self.metadata))]
        out += [string(key) + value for key, value in self.metadata.items()]
        kinds, offset = {dtype: kind for kind, dtype in TYPES.items()}, 0
        for name, (dtype, shape, data) in self.tensors.items():
            out.append(string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kinds[dtype], offset))
            offset += len(data) + -len(data) % ALIGNMENT
        size = sum(map(len, out))
        out.append(bytes(-size % ALIGNMENT))
        out += [data + bytes(-len(data) % ALIGNMENT) for _, _, data in self.tensors.values()]
        path.write_bytes(b"".join(out))
