"""The settings that a process makes before it uses its GPUs, with stand-ins for `tf.config`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.verify import VerifyOptions
from regraft_core.runtime import gpu_setup
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.gpu_setup import (
    GpuSetup,
    device_name,
    precision_on,
    server_variables,
    session_options,
    set_up_gpus,
)
from tests.regraft_core.runtime.nvidia import install, report


class Config:
    """Records the settings of GPUs that this machine does not have."""

    def __init__(self, gpus: int = 1, *, used: bool = False) -> None:
        self.gpus = [SimpleNamespace(name=f"/physical_device:GPU:{i}") for i in range(gpus)]
        self.calls: list[Any] = []
        self.limits: dict[str, list[Any]] = {}
        self.used = used

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        listed = self.gpus
        cpu = [SimpleNamespace(name="CPU:0") for _ in listed]  # computes in place of the GPU
        for name, value in (
            ("list_physical_devices", lambda kind: listed),
            ("list_logical_devices", lambda kind: cpu),
            ("get_logical_device_configuration", lambda gpu: self.limits.get(gpu.name)),
            ("set_logical_device_configuration", self._limit),
        ):
            monkeypatch.setattr(tf.config, name, value)
        for name, value in (
            ("set_memory_growth", self._grow),
            ("enable_tensor_float_32_execution", lambda on: self.calls.append(("tf32", on))),
            ("enable_op_determinism", lambda: self.calls.append("deterministic")),
            ("get_device_details", lambda gpu: {"device_name": "NVIDIA H100"}),
        ):
            monkeypatch.setattr(tf.config.experimental, name, value)

    def _grow(self, gpu: Any, on: bool) -> None:
        if self.limits.get(gpu.name):
            raise ValueError("Cannot set memory growth on device when virtual devices configured")
        self._change(("growth", gpu.name[-1], on))

    def _limit(self, gpu: Any, devices: list[Any]) -> None:
        self._change(("limit", gpu.name[-1], [device.memory_limit for device in devices]))
        self.limits[gpu.name] = devices

    def _change(self, call: Any) -> None:
        if self.used:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        self.calls.append(call)


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    made = Config()
    made.install(monkeypatch)
    return made


def test_memory_grows_as_needed_on_every_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(gpus=2)
    config.install(monkeypatch)
    set_up_gpus(GpuSetup())
    assert config.calls == [("growth", "0", True), ("growth", "1", True), ("tf32", True)]


def test_growth_comes_before_the_limit_and_both_can_be_repeated(config: Config) -> None:
    set_up_gpus(GpuSetup(memory_mb=2000))
    assert config.calls == [("growth", "0", True), ("limit", "0", [2000]), ("tf32", True)]
    set_up_gpus(GpuSetup(memory_mb=2000))
    set_up_gpus(GpuSetup())  # a later step in the same process
    assert config.calls.count(("growth", "0", True)) == 1
    (limits,) = session_options().experimental.virtual_devices
    assert list(limits.memory_limit_mb) == [2000]


def test_a_session_lets_memory_grow_too(config: Config) -> None:
    options = session_options()
    assert options.allow_growth
    assert not options.experimental.virtual_devices


def test_a_process_that_has_used_its_gpu_keeps_it_as_it_is(config: Config) -> None:
    config.used = True
    set_up_gpus(GpuSetup())
    assert config.calls == [("tf32", True)]
    with pytest.raises(InputError, match="gpu-memory-mb: expected a process that has not used"):
        set_up_gpus(GpuSetup(memory_mb=2000))


def test_a_limit_larger_than_the_card_is_an_error(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    install(monkeypatch, tmp_path, report())
    with pytest.raises(InputError, match="gpu-memory-mb: expected at most 81559, the memory of"):
        set_up_gpus(GpuSetup(memory_mb=100_000))
    assert config.calls == []


def test_steps_choose_by_their_options() -> None:
    options = FineTuneOptions(gpu_memory_mb=3000, deterministic=True, require_gpu=True)
    assert GpuSetup.of(options) == GpuSetup(True, 3000, tf32=True, deterministic=True)
    assert GpuSetup.of(VerifyOptions(), tf32=False) == GpuSetup(tf32=False)


def test_tf32_off_and_determinism(config: Config) -> None:
    set_up_gpus(GpuSetup(tf32=False, deterministic=True))
    assert config.calls[1:] == [("tf32", False), "deterministic"]


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (tf.errors.InternalError(None, None, "no kernel image is available for execution"),
         InputError, "GPU: expected one that responds, got: no kernel image is available"),
        (tf.errors.InternalError(None, None, "cudaSetDevice() on GPU:0 failed. Status: out of "
                                 "memory"), RegraftError, "out of GPU memory"),
    ],
)  # fmt: skip
def test_a_gpu_that_is_only_listed_is_an_error(
    config: Config, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type, text: str
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(tf.linalg, "matmul", fail)
    with pytest.raises(kind, match=text) as raised:
        set_up_gpus(GpuSetup())
    assert raised.type is kind
    assert "\n" not in str(raised.value)


def test_a_gpu_that_computes_nonsense_is_an_error(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tf.linalg, "matmul", lambda a, b: tf.zeros([8, 8]))
    with pytest.raises(InputError, match="expected 8 as a product, got 0"):
        set_up_gpus(GpuSetup())


def test_several_machines_use_no_gpu_before_their_strategy(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CONFIG", "{}")
    monkeypatch.setattr(tf.linalg, "matmul", np.zeros)  # would fail
    set_up_gpus(GpuSetup())
    assert ("growth", "0", True) in config.calls


@pytest.mark.parametrize(
    ("override", "precision"), [(None, "float32"), ("", "float32"), ("0", "float32"), ("1", "tf32")]
)
def test_the_precision_is_what_the_environment_leaves(
    config: Config, monkeypatch: pytest.MonkeyPatch, override: str | None, precision: str
) -> None:
    monkeypatch.delenv(gpu_setup.TF32_VARIABLE, raising=False)
    if override is not None:
        monkeypatch.setenv(gpu_setup.TF32_VARIABLE, override)
    assert device_name() == "NVIDIA H100"
    assert precision_on("NVIDIA H100") == precision
    assert precision_on("CPU") == "float32"


def test_a_server_takes_memory_as_needed_and_has_no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpu_setup.TF32_VARIABLE, raising=False)
    assert server_variables()[gpu_setup.TF32_VARIABLE] == "0"
    assert server_variables()[gpu_setup.GROWTH_VARIABLE] == "true"
    monkeypatch.setenv(gpu_setup.TF32_VARIABLE, "1")
    assert server_variables()[gpu_setup.TF32_VARIABLE] == "1"
