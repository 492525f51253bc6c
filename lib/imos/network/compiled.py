"""The networks of `small`, compiled for the processor by OpenVINO.

The same float32 arithmetic as PyTorch's, to 1e-4 of a map's values, in a quarter (key encoder) to half (decoder) of the
time: one step is many small operations, and a compiled network spends no time between them (docs/performance.md).
PyTorch remains the definition: what is compiled is the traced module. Compiled networks are kept (compiled_files.py):
tracing and converting take most of a process's start.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from imos.network import compiled_files
from imos.network.efficientnet import CHANNELS, Finer
from imos.network.small import CUES, HIDDEN, VALUE, Decoded, Maps, SmallNetwork
from imos.network.steps import Encoded, Key, TorchSteps

if TYPE_CHECKING:
    from openvino import CompiledModel, InferRequest


def can_compile() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def _keep_quiet() -> None:
    """Let OpenVINO not find its telemetry package, through which it would tell the web that it was imported."""
    nothing: Any = None  # what Python takes for "cannot be imported"
    sys.modules.setdefault("openvino_telemetry", nothing)


class CompiledSteps:
    """`Steps` for pictures of one size; each network is compiled when it is first asked. May be used by many threads.

    Args:
        steps: To compile; on the CPU.
        grid: Pixels a side of every picture, S.
        at_once: Threads that ask at the same time.
    """

    def __init__(self, steps: TorchSteps, grid: int, at_once: int) -> None:
        self._steps = steps
        self._grid = grid
        self._at_once = at_once
        self._keeps = True
        self._same_but_decoder: CompiledSteps | None = None
        self._lock = threading.RLock()

    def decoding_with(self, network: SmallNetwork, *, keeps: bool = False) -> CompiledSteps:
        """The same with another network's decoder.

        Args:
            network: Differs in its decoder alone.
            keeps: Whether what is compiled of it is kept on disk; not for networks of a moment.
        """
        other = CompiledSteps(TorchSteps(self._steps.encoder, network), self._grid, self._at_once)
        other._keeps = keeps
        other._same_but_decoder = self._same_but_decoder or self
        return other

    def prepare(self, *, corrects: bool) -> None:
        """See `Steps`."""
        _ = (self._encoder, self._decoder, self._value_encoder) if corrects else self._finer

    def finer(self, image: Tensor) -> Finer:
        """See `Steps`."""
        return Finer(*self._finer(image))

    def encode(self, image: Tensor) -> Encoded:
        """See `Steps`."""
        made = self._encoder(image)
        return Encoded(Finer(*made[:3]), Maps(*made[3:6]), Key(*made[6:]))

    def decode(self, maps: Maps, readout: Tensor, hidden: Tensor, cues: Tensor) -> Decoded:
        """See `Steps`."""
        return Decoded(*self._decoder(*maps, readout, hidden, cues))

    def value(self, picture: Tensor, mask: Tensor, deep: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See `Steps`."""
        value, reinforced = self._value_encoder(picture, mask, deep, hidden)
        return value, reinforced

    @cached_property
    def _finer(self) -> _Compiled:
        if self._same_but_decoder is not None:
            return self._same_but_decoder._finer
        return self._compile("finer", self._steps.finer, [self._shape(3)])

    @cached_property
    def _encoder(self) -> _Compiled:
        if self._same_but_decoder is not None:
            return self._same_but_decoder._encoder

        def encode(image: Tensor) -> tuple[Tensor, ...]:
            made = self._steps.encode(image)
            return *made.finer, *made.maps, *made.key

        return self._compile("encoder", encode, [self._shape(3)])

    @cached_property
    def _decoder(self) -> _Compiled:
        def decode(f4: Tensor, f8: Tensor, f16: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
            return tuple(self._steps.decode(Maps(f4, f8, f16), *others))

        maps = [self._shape(channels, 4 * 2**level) for level, channels in enumerate(CHANNELS[1:])]
        others = [self._shape(VALUE, 16), self._shape(HIDDEN, 16), self._shape(CUES)]
        return self._compile("decoder", decode, [*maps, *others])

    @cached_property
    def _value_encoder(self) -> _Compiled:
        if self._same_but_decoder is not None:
            return self._same_but_decoder._value_encoder
        deep, hidden = self._shape(CHANNELS[3], 16), self._shape(HIDDEN, 16)
        return self._compile("value", self._steps.value, [self._shape(1), self._shape(1), deep, hidden])

    def _shape(self, channels: int, stride: int = 1) -> tuple[int, ...]:
        return 1, channels, self._grid // stride, self._grid // stride

    def _compile(
        self, what: str, function: Callable[..., Sequence[Tensor]], shapes: list[tuple[int, ...]]
    ) -> _Compiled:
        with self._lock:
            parts = what, repr(shapes), torch.__version__, version("openvino")
            name = compiled_files.name_of(parts, self._steps.state_dict()) if self._keeps else None
            return _Compiled(_Traced(function, self._steps).eval(), shapes, self._at_once, name)


class _Traced(nn.Module):
    """A function as a module, which is what can be traced; it owns the weights that the function uses."""

    def __init__(self, function: Callable[..., Sequence[Tensor]], weights: nn.Module) -> None:
        super().__init__()
        self._function = function
        self._weights = weights

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._function(*tensors))


def _converted(module: nn.Module, shapes: Sequence[tuple[int, ...]]) -> Any:
    """OpenVINO's model of a module that takes tensors of these shapes."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    examples = tuple(torch.zeros(shape) for shape in shapes)
    with torch.no_grad(), warnings.catch_warnings():
        # Tracing is deprecated, but torch.export takes ten times as long; and sizes are meant to become constants.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, examples, check_trace=False)
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, example_input=examples)  # must outlive the conversion
    model = frontend.convert(frontend.load(decoder))
    model.reshape({place: list(shape) for place, shape in zip(model.inputs, shapes, strict=True)})
    return model


class _Compiled:
    """A compiled module.

    One that several threads may ask hands its work to threads of its own, which costs as much as it gains. So there is
    a compiled model for each thread that does ask at the same time, and it works in the thread that asks.

    Args:
        module: To compile.
        shapes: Of what it takes.
        at_once: Compiled models at most; further threads wait.
        name: Under which it is kept on disk; None if it is not.
    """

    def __init__(self, module: nn.Module, shapes: Sequence[tuple[int, ...]], at_once: int, name: str | None) -> None:
        _keep_quiet()
        import openvino
        from openvino import properties

        self._settings = {
            properties.hint.inference_precision(): "f32",
            properties.inference_num_threads(): 1,
            properties.num_streams(): 1,
            properties.hint.enable_cpu_pinning(): False,  # the machine does other things as well
        }
        self._core = openvino.Core()
        first, self._another = self._compiled(module, shapes, name)
        self._to_come = at_once - 1
        self._lock = threading.Lock()
        self._free: SimpleQueue[InferRequest] = SimpleQueue()
        self._free.put(first.create_infer_request())

    def _compiled(
        self, module: nn.Module, shapes: Sequence[tuple[int, ...]], name: str | None
    ) -> tuple[CompiledModel, Callable[[], CompiledModel]]:
        """A compiled model, and what makes another one."""
        content = None if name is None else compiled_files.read(name)
        if content is not None:
            with contextlib.suppress(RuntimeError):  # OpenVINO does not know it any more
                return self._imported(content), lambda: self._imported(content)
        compiled = self._core.compile_model(_converted(module, shapes), "CPU", self._settings)
        content = compiled.export_model().getvalue()
        if name is not None:
            compiled_files.write(name, content)
        return compiled, lambda: self._imported(content)

    def _imported(self, content: bytes) -> CompiledModel:
        return self._core.import_model(content, "CPU", self._settings)

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        inputs: list[Any] = [tensor.detach().contiguous().numpy() for tensor in tensors]
        request = self._request()
        try:
            made = request.infer(inputs, share_inputs=True)
        finally:
            self._free.put(request)
        return [torch.from_numpy(array) for array in made.values()]

    def _request(self) -> InferRequest:
        """One that nobody else uses."""
        with contextlib.suppress(Empty):
            return self._free.get_nowait()
        with self._lock:
            makes = self._to_come > 0
            self._to_come -= makes
        return self._another().create_infer_request() if makes else self._free.get()
