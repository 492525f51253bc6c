"""`xmem` for inference on the CPU in float32: the same function of its inputs, up to rounding, in less time.

- 3×3 convolutions of many channels by Winograd's method (winograd.py), activations within them.
- A convolution of what the image shows and what is known of an object, side by side, is the sum of two: the image's
  part is computed once for all objects.
- Batch norms, whose statistics are fixed, are part of the convolution before them.
- One object after the other where maps are large, and PyTorch's memory format channels last.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from imos.network.blocks import FeatureFusion, GroupResidualBlock, fold_objects, unfold_objects
from imos.network.encoders import IMAGE_CHANNELS
from imos.network.winograd import LEAST_CHANNELS, WinogradConv2d
from imos.network.xmem import XMem


def quickened(network: XMem) -> XMem:
    """A network that does what a given one does in evaluation mode; it can be neither trained nor saved.

    Args:
        network: On the CPU. It stays what it is; tensors that need no change are shared with it.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    quick = copy.deepcopy(network, shared).eval()
    for module in list(quick.modules()):
        _fuse_norms(module)
    _replace(quick)
    for module in quick.modules():
        if isinstance(module, nn.Conv2d):  # new weights: those of the given network keep their memory format
            weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
            module.weight = nn.Parameter(weight, requires_grad=False)
    quick.value_encoder.at_once = quick.decoder.at_once = 1
    return quick


class QuickResidualBlock(nn.Module):
    """A `GroupResidualBlock`."""

    def __init__(self, block: GroupResidualBlock) -> None:
        super().__init__()
        self.downsample = None if block.downsample is None else WinogradConv2d(block.downsample)
        self.conv1 = WinogradConv2d(block.conv1)
        self.conv2 = WinogradConv2d(block.conv2)

    def forward(self, x: Tensor) -> Tensor:
        """See `GroupResidualBlock`."""
        out: Tensor = self.conv2(self.conv1(x, activated=True), activated=True)
        return out.add_(x if self.downsample is None else self.downsample(x))


class QuickFeatureFusion(nn.Module):
    """A `FeatureFusion` whose first block convolves the image once for all objects."""

    def __init__(self, fusion: FeatureFusion) -> None:
        super().__init__()
        first = fusion.block1
        assert first.downsample is not None
        self.image_conv, self.object_conv = _split(first.conv1)
        self.image_shortcut, self.object_shortcut = _split(first.downsample)
        self.conv2 = WinogradConv2d(first.conv2)
        self.attention = fusion.attention
        self.block2 = QuickResidualBlock(fusion.block2)

    def forward(self, image: Tensor, objects: Tensor) -> Tensor:
        """See `FeatureFusion`."""
        count = objects.shape[1]
        known = fold_objects(objects).contiguous(memory_format=torch.channels_last)
        inner = _joined(self.image_conv(image, activated=True), self.object_conv(known, activated=True))
        shortcut = _joined(self.image_shortcut(image), self.object_shortcut(known))
        fused = self.conv2(inner, activated=True).add_(shortcut)
        return unfold_objects(self.block2(fused + self.attention(fused)), count)


def _joined(image: Tensor, objects: Tensor) -> Tensor:
    """`(B, C, h, w)` added to each object's part of `(B·K, C, h, w)`, in place."""
    objects.view(len(image), -1, *objects.shape[1:]).add_(image.unsqueeze(1))
    return objects


def _split(conv: nn.Conv2d) -> tuple[WinogradConv2d, WinogradConv2d]:
    """A convolution of joined channels as two whose results are added: of the image's channels, and of the others."""
    parts = []
    for weight, bias in ((conv.weight[:, :IMAGE_CHANNELS], None), (conv.weight[:, IMAGE_CHANNELS:], conv.bias)):
        part = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, bias=bias is not None, device="meta")
        part.weight = nn.Parameter(weight)
        if bias is not None:
            part.bias = nn.Parameter(bias)
        parts.append(WinogradConv2d(part))
    return parts[0], parts[1]


_BEFORE_NORM = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("conv", "bn1"), ("convT", "bn2"), ("0", "1"))
"""Names of a convolution and of the batch norm behind it: in encoders and blocks, in adapters, in shortcuts."""


def _fuse_norms(module: nn.Module) -> None:
    """Makes each convolution of a module do what the batch norm behind it did."""
    for first, second in _BEFORE_NORM:
        conv, norm = (module._modules.get(name) for name in (first, second))
        if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
            is_transposed = isinstance(conv, nn.ConvTranspose2d)
            setattr(module, first, fuse_conv_bn_eval(conv, norm, transpose=is_transposed))
            setattr(module, second, nn.Identity())


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        quick = _quick(child)
        if quick is None:
            _replace(child)
        else:
            setattr(module, name, quick)


def _quick(module: nn.Module) -> nn.Module | None:
    """What takes the place of a module, or None for one that stays."""
    if isinstance(module, GroupResidualBlock):
        return QuickResidualBlock(module)
    if isinstance(module, FeatureFusion):
        return QuickFeatureFusion(module)
    return WinogradConv2d(module) if isinstance(module, nn.Conv2d) and _gains(module) else None


def _gains(conv: nn.Conv2d) -> bool:
    """Whether Winograd's method is made for a convolution, and faster."""
    is_plain = conv.kernel_size == (3, 3) and conv.stride == (1, 1) and conv.groups == 1
    return is_plain and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS
