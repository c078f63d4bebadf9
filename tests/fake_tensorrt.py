"""A fake of TensorRT's Python API, as far as this project uses it.

It parses the ONNX file, records the calls, and its plan is text. It follows TensorRT's
documentation: `parse` returns False and keeps errors, a failed build returns None and logs the
reason, a timing cache of another version is rejected when it is set.
"""

import json
from enum import IntEnum
from types import ModuleType, SimpleNamespace

import onnx

CACHE_HEADER = b"cache of "


class _Logger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3

    def __init__(self) -> None:
        self.is_initialized = True  # TensorRT crashes if a subclass does not call __init__


class _Cache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> memoryview:
        return memoryview(self.content)


class _Profile:
    def __init__(self) -> None:
        self.shapes: dict = {}

    def set_shape(self, name, minimum, optimum, maximum) -> None:
        self.shapes[name] = (minimum, optimum, maximum)


class _Config:
    def __init__(self, trt) -> None:
        self.trt = trt
        self.flags = {trt.BuilderFlag.TF32}  # on by default
        self.limits: dict = {}
        self.profiles: list[_Profile] = []
        self.cache: _Cache | None = None

    def set_memory_pool_limit(self, pool, size) -> None:
        self.limits[pool] = size

    def clear_flag(self, flag) -> None:
        self.flags.discard(flag)

    def set_flag(self, flag) -> None:
        self.flags.add(flag)

    def add_optimization_profile(self, profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content):
        return None if content == b"garbage" else _Cache(bytes(content))

    def set_timing_cache(self, cache, ignore_mismatch) -> bool:
        own = CACHE_HEADER + self.trt.__version__.encode()
        if cache.content and not cache.content.startswith(own) and not ignore_mismatch:
            return False
        self.cache = cache
        return True


class _Parser:
    def __init__(self, network, logger) -> None:
        assert logger.is_initialized
        self.network, self.logger = network, logger
        self.errors: list[str] = []

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, place) -> str:
        return self.errors[place]

    def parse(self, content) -> bool:
        self.network.model = onnx.load_model_from_string(content)
        known = {"", "ai.onnx"}
        for place, node in enumerate(self.network.model.graph.node):
            if node.domain not in known:
                self.errors.append(f"In node {place}: no importer for {node.op_type}")
        return not self.errors


class _Builder:
    def __init__(self, trt, logger) -> None:
        assert logger.is_initialized
        self.trt, self.logger = trt, logger

    def create_network(self, flags):
        return SimpleNamespace(flags=flags, model=None)

    def create_builder_config(self):
        return _Config(self.trt)

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        self.trt.builds.append(SimpleNamespace(network=network, config=config))
        self.logger.log(_Logger.Severity.WARNING, "a warning")
        for message in self.trt.fails_with:
            self.logger.log(_Logger.Severity.ERROR, message)
        if self.trt.fails_with:
            return None
        if config.cache is not None:
            old = config.cache.content or CACHE_HEADER + self.trt.__version__.encode()
            config.cache.content = old + b"+"
        plan = {"version": self.trt.__version__, "flags": network.flags}
        return memoryview(json.dumps(plan).encode())


def fake_tensorrt(version: str = "10.13.3") -> ModuleType:
    """Return a fake tensorrt module.

    `builds` lists the built networks; `fails_with` are the error messages of the next builds.
    """
    trt = ModuleType("tensorrt")
    major = int(version.split(".")[0])
    # TensorRT 11 has only strongly typed networks and no flag for them.
    names = ["EXPLICIT_BATCH", "STRONGLY_TYPED"] if major == 10 else ["PREFER_JIT_PYTHON_PLUGINS"]
    trt.__version__ = version
    trt.builds, trt.fails_with = [], []
    trt.ILogger = _Logger
    trt.NetworkDefinitionCreationFlag = IntEnum("Flag", {n: i for i, n in enumerate(names)})
    trt.BuilderFlag = IntEnum("BuilderFlag", {"TF32": 7} | ({"FP16": 0} if major == 10 else {}))
    trt.MemoryPoolType = IntEnum("MemoryPoolType", {"WORKSPACE": 0})
    trt.Builder = lambda logger: _Builder(trt, logger)
    trt.OnnxParser = _Parser
    return trt
