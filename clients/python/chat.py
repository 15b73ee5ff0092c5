#!/usr/bin/env python3
"""Streams a chat answer from a Thermocline server, written from the .proto alone.

Needs grpcio and protobuf, and protoc with its gRPC plugin (Debian: python3-grpcio python3-protobuf protobuf-compiler
protobuf-compiler-grpc) or grpcio-tools from PyPI. The stubs are generated into a temporary folder, so there is nothing to keep in step:

    python3 clients/python/chat.py "Why is the sea salty?"
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

import grpc

PROTO_ROOT = pathlib.Path(__file__).resolve().parents[2] / "proto"


def load_stubs():
    """Compiles inference.proto and returns its message and service modules."""
    out = tempfile.mkdtemp(prefix="thermocline-stubs-")
    arguments = [f"-I{PROTO_ROOT}", f"--python_out={out}", f"--grpc_python_out={out}", "thermocline/v1/inference.proto"]
    plugin = shutil.which("grpc_python_plugin")
    if plugin and shutil.which("protoc"):
        command = ["protoc", f"--plugin=protoc-gen-grpc_python={plugin}"]
    else:
        command = [sys.executable, "-m", "grpc_tools.protoc"]
    if subprocess.run(command + arguments).returncode != 0:
        sys.exit("generating the stubs failed: is protoc with grpc_python_plugin, or grpcio-tools, installed?")
    sys.path.insert(0, out)
    from thermocline.v1 import inference_pb2, inference_pb2_grpc
    return inference_pb2, inference_pb2_grpc


def main():
    parser = argparse.ArgumentParser(description="Ask a Thermocline server one question.")
    parser.add_argument("message")
    parser.add_argument("--address", default="localhost:50051")
    parser.add_argument("--system", default="")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--timeout", type=float, default=120.0)
    args = parser.parse_args()

    pb2, pb2_grpc = load_stubs()
    request = pb2.ChatRequest()
    if args.system:
        request.messages.add(role="system", content=args.system)
    request.messages.add(role="user", content=args.message)
    request.params.max_tokens = args.max_tokens
    request.params.sampling.temperature = args.temperature

    with grpc.insecure_channel(args.address) as channel:
        try:
            for response in pb2_grpc.InferenceStub(channel).Chat(request, timeout=args.timeout):
                print(response.reasoning_content, end="", file=sys.stderr, flush=True)
                print(response.content, end="", flush=True)
            print()
            print(f"[{response.usage.prompt_tokens} prompt and {response.usage.completion_tokens} new tokens]",
                  file=sys.stderr)
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    main()
