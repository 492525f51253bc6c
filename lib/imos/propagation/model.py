"""What propagation needs of the weights: the loaded networks, and where they came from."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch

from imos.errors import UserError
from imos.network.compiled import CompiledSteps, can_compile
from imos.network.efficientnet import EfficientNetLite0
from imos.network.quickened import quickened
from imos.network.small import SmallNetwork, has_adapters
from imos.network.steps import Steps, TorchSteps
from imos.network.weights import Weights, WeightsInfo, load_strictly, read_weights, sha256, xmem_from_weights
from imos.network.xmem import XMem
from imos.propagation.cores import passes_at_once
from imos.propagation.existence import FEATURES, Judge
from imos.propagation.kinds import Kind, from_tensors
from imos.propagation.likeness import Seen
from imos.propagation.logistic import PixelSamples
from imos.propagation.region import GRID
from imos.propagation.taught import Taught

BUNDLED = Path(__file__).parents[3] / "weights" / "small.safetensors"
SMALL, XMEM = "small", "xmem"
ENCODER_PREFIX = "encoder."
NETWORK_PREFIX = "network."
JUDGE_PREFIX = "judge."
FLOOR_JUDGE_PREFIX = "floor_judge."
SHARE = "share"
USUAL_EDGES = 0.15
"""Mean over the objects of `adapt/`."""


class Share(NamedTuple):
    """How much of the network's correction is taken. Below 1 where it was found to go too far (docs/training.md).

    Attributes:
        volume: In volumes.
        gray_video: In videos without colour: microscopy, ultrasound.
        colour_video: In endoscopy and other videos with colour.
        edges: In volumes, how much more is taken for each unit by which the share of edges in the painted slice is
            above `USUAL_EDGES` (trust.py); 0: the same everywhere.
    """

    volume: float = 1.0
    gray_video: float = 1.0
    colour_video: float = 1.0
    edges: float = 0.0

    def of(self, *, is_video: bool, has_colour: bool) -> float:
        """The share for a kind of image."""
        if not is_video:
            return self.volume
        return self.colour_video if has_colour else self.gray_video

    def of_volume(self, edge_density: float) -> float:
        """The share for an object of a volume whose painted slice shows so many edges around it."""
        more = self.edges * max(edge_density - USUAL_EDGES, 0.0) if self.volume else 0.0
        return min(self.volume + more, 1.0)


ALL_OF_IT = Share()


@dataclass(frozen=True)
class Model:
    """Loaded weights.

    Attributes:
        name: File name of the weights.
        sha256: Digest of that file.
        device: Where the networks are.
        info: What the file says about itself.
        encoder: `small`: frozen key encoder, also the target model's features.
        network: `small`: memory network; None for the untrained floor alone.
        judge: `small`: when an object has ended, and how good a mask is, where the network corrects.
        floor_judge: `small`: the same for the floor alone, fitted on passes of the floor.
        share: `small`: how much of the network's correction is taken.
        kinds: `small`: what objects of the volumes look like that the adapter has learned from.
        seen: `small`: what the adapter has learned from; None: it is used for everything.
        taught: `small`: what the adapter's decoder was trained on; None: it is used for all that `seen` includes.
        plain: `small`: the same without the adapter, for what looks otherwise; None where `seen` is.
        xmem: `xmem`: the paper's network.
    """

    name: str
    sha256: str
    device: torch.device
    info: WeightsInfo
    encoder: EfficientNetLite0 | None = None
    network: SmallNetwork | None = None
    judge: Judge | None = None
    floor_judge: Judge | None = None
    share: Share = ALL_OF_IT
    kinds: tuple[Kind, ...] = ()
    seen: Seen | None = None
    taught: Taught | None = None
    plain: Model | None = None
    xmem: XMem | None = None

    @cached_property
    def steps(self) -> Steps:
        """`small`: the networks as a pass uses them, compiled where they run on the CPU.

        Raises:
            ValueError: These are no weights of `small`.
        """
        if self.encoder is None:
            msg = f"{self.name} holds no networks of configuration {SMALL}"
            raise ValueError(msg)
        if self.plain is not None and self.network is not None and isinstance(self.plain.steps, CompiledSteps):
            return self.plain.steps.decoding_with(self.network, keeps=True)
        steps = TorchSteps(self.encoder, self.network)
        if self.device.type == "cpu" and can_compile():
            return CompiledSteps(steps, GRID, passes_at_once(self))
        return steps

    @cached_property
    def xmem_of_passes(self) -> XMem:
        """`xmem`: the network as a pass uses it, on the CPU a faster one of the same function.

        Raises:
            ValueError: These are no weights of `xmem`.
        """
        if self.xmem is None:
            msg = f"{self.name} holds no xmem network"
            raise ValueError(msg)
        return quickened(self.xmem) if self.device.type == "cpu" else self.xmem

    def but(self, **changes: Any) -> Model:
        """The same networks with other fields, e.g. `share` or `judge`; what was compiled is kept.

        They hold for the adapter and for what is carried without it.
        """
        plain = None if self.plain is None else self.plain.but(**changes)
        other = replace(self, **({"plain": plain} | changes))
        for made in ("steps", "xmem_of_passes"):
            if made in self.__dict__:
                other.__dict__[made] = self.__dict__[made]
        return other

    def for_everything(self) -> Model:
        """The same with the adapter, if there is one, for whatever is painted."""
        return self.but(seen=None, taught=None, plain=None)

    def suited_to(self, features: torch.Tensor) -> Model:
        """What a painted object is carried with: with the adapter if it looks like something that that has seen.

        Args:
            features: `(F, P)` of the region around it (target.py).
        """
        if self.seen is None or self.plain is None or self.seen.includes(features):
            return self
        return self.plain

    def decoding_for(self, painted: PixelSamples) -> Model:
        """What a painted object is decoded with: with the adapter if that was trained on such objects.

        Args:
            painted: Its slice as the target model takes it.
        """
        if self.taught is None or self.plain is None or self.taught.includes(painted):
            return self
        return self.plain

    def decoding_with(self, network: SmallNetwork) -> Model:
        """The same with another network's decoder, for a while: nothing of that one is kept on disk."""
        other = replace(self, network=network)
        if isinstance(self.steps, CompiledSteps):
            other.__dict__["steps"] = self.steps.decoding_with(network)
        return other

    def corrects(self, *, is_video: bool, has_colour: bool) -> bool:
        """`small`: whether the memory network takes part in passes through a kind of image."""
        return self.network is not None and self.share.of(is_video=is_video, has_colour=has_colour) > 0

    def prepare(self, *, is_video: bool = False, has_colour: bool = False) -> None:
        """Do now, for a kind of image, what would make the first slice late."""
        if self.xmem is not None:
            _ = self.xmem_of_passes
        if self.encoder is not None:
            self.steps.prepare(corrects=self.corrects(is_video=is_video, has_colour=has_colour))


def load(
    weights: str | os.PathLike[str] | None = None,
    *,
    adapter: str | os.PathLike[str] | None = None,
    device: str = "auto",
    judged: bool = True,
) -> Model:
    """Loads weights.

    Args:
        weights: A `.safetensors` file of ours or a `.pth` of XMem or iMOS; None for the bundled `small` weights.
        adapter: A file of adapters made for these weights.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        judged: With the judges that the weights hold; False where new ones are to be fitted.

    Raises:
        UserError: A file is missing, damaged or does not fit; the device does not exist.
    """
    place = _device(device)
    path = BUNDLED if weights is None else Path(weights)
    base = read_weights(path)
    content = base if adapter is None else with_adapter(base, Path(adapter))
    configuration = content.info.configuration
    digest = sha256(path)
    if configuration == XMEM:
        xmem = xmem_from_weights(content).to(place).eval()
        return Model(path.name, digest, place, content.info, xmem=xmem)
    if configuration == SMALL:
        plain = _small(base, digest, place, judged=judged)
        return plain if adapter is None else _adapted(plain, content, judged=judged)
    raise UserError(
        f"{path.name} holds weights of configuration '{configuration}'; known are '{SMALL}' and '{XMEM}'."
        " Give a file made by iMOS, or an XMem or iMOS .pth."
    )


def _small(content: Weights, digest: str, place: torch.device, *, judged: bool) -> Model:
    encoder = EfficientNetLite0()
    load_strictly(encoder, _part(content, ENCODER_PREFIX), content.path.name)
    return Model(
        content.path.name,
        digest,
        place,
        content.info,
        encoder=encoder.to(place).eval(),
        network=_network(content, place),
        judge=_judge(content, JUDGE_PREFIX) if judged else None,
        floor_judge=_judge(content, FLOOR_JUDGE_PREFIX) if judged else None,
        share=Share(*content.tensors[SHARE].tolist()) if SHARE in content.tensors else Share(),
        kinds=from_tensors(content.tensors),
    )


def _adapted(plain: Model, content: Weights, *, judged: bool) -> Model:
    seen = Seen.from_tensors(content.tensors)
    return replace(
        plain,
        network=_network(content, plain.device),
        judge=_judge(content, JUDGE_PREFIX) if judged else None,
        kinds=from_tensors(content.tensors),
        seen=seen,
        taught=Taught.from_tensors(content.tensors),
        plain=None if seen is None else plain,
    )


def _network(content: Weights, place: torch.device) -> SmallNetwork | None:
    trained = _part(content, NETWORK_PREFIX)
    if not trained:
        return None
    network = SmallNetwork(adapters=has_adapters(trained))
    load_strictly(network, trained, content.path.name)
    return network.to(place).eval()


def _judge(content: Weights, prefix: str) -> Judge | None:
    fitted = {name: tensor.double().numpy() for name, tensor in _part(content, prefix).items()}
    if any(weights.shape != (FEATURES,) for weights in fitted.values()):
        raise UserError(f"the judge in {content.path.name} is of another version. Fit it again: python main.py judge.")
    return Judge(fitted["existence"], fitted["quality"]) if fitted.keys() == {"existence", "quality"} else None


def _part(weights: Weights, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.tensors.items() if name.startswith(prefix)}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("There is no CUDA GPU that this PyTorch can use. Choose --device cpu or auto.")
    if name not in {"cpu", "cuda"}:
        raise UserError(f"There is no device '{name}'. Choose auto, cpu or cuda.")
    return torch.device(name)


def with_adapter(base: Weights, path: Path) -> Weights:
    """Weights with an adapter's entries in place of their own.

    Args:
        base: What the adapter was made for.
        path: The adapter's file.

    Raises:
        UserError: It is missing or damaged, no adapter, or made for other weights.
    """
    adapter = read_weights(path)
    if adapter.info.extra.get("kind") != "adapter":
        raise UserError(f"{path.name} is not an adapter file. Give it as --weights, or give the adapter's file.")
    if adapter.info.configuration != base.info.configuration:
        raise UserError(
            f"{path.name} is an adapter for configuration '{adapter.info.configuration}',"
            f" and {base.path.name} is '{base.info.configuration}'. Give the weights that it was made for."
        )
    made_for = adapter.info.extra.get("base_sha256")
    if made_for is not None and made_for != sha256(base.path):
        raise UserError(
            f"{path.name} was made for other weights than {base.path.name}. Give those, or fine-tune again."
        )
    return Weights(base.path, base.tensors | adapter.tensors, base.info)
