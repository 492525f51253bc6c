"""3×3 convolutions on the CPU in half the time: Winograd's F(4×4, 3×3).

Tiles of 6×6 pixels and the weights are transformed so that a convolution becomes 36 products of matrices, with a
quarter of the multiplications (Lavin and Gray, 2016, arXiv 1509.09308, section 4). The result is that of the
convolution up to rounding, about 1e-5 of its size. Made in bands of a few rows of tiles, so that what a band needs
lies in the caches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

TILE = 4
"""Pixels of the result, a side, that one tile gives."""
POINTS = TILE + 2
AT_ONCE = 240
"""Tiles that are transformed at once; of 120 to 480 the fastest for 256 channels."""
LEAST_CHANNELS = 128
"""With fewer the transforms cost what the products save."""

_WEIGHTS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""G: three weights in a line to six points."""


class WinogradConv2d(nn.Module):
    """A trained `nn.Conv2d` of kernel 3, stride 1 and padding 1, for inference in float32.

    Args:
        conv: Whose weights are taken.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        out_channels, channels = conv.weight.shape[:2]
        line = torch.tensor(_WEIGHTS, dtype=torch.float64)
        to_points = torch.kron(line, line).to(conv.weight)
        # Columns come before rows, as in `forward`
        taps = conv.weight.detach().permute(3, 2, 0, 1).reshape(9, -1)
        points = (to_points @ taps).view(POINTS**2, out_channels, channels).transpose(1, 2).contiguous()
        self.register_buffer("weight", points)
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone())

    weight: Tensor
    bias: Tensor | None

    def forward(self, x: Tensor, *, activated: bool = False) -> Tensor:
        """Convolves.

        Args:
            x: `(B, C, h, w)`; fastest in PyTorch's memory format channels last, in which the result is.
            activated: Whether negative values of `x` count as zero, as after a ReLU.

        Returns:
            `(B, O, h, w)`.
        """
        pixels = x.permute(0, 2, 3, 1)
        batch, height, width, channels = pixels.shape
        down, across = -(-height // TILE), -(-width // TILE)
        out_channels = self.weight.shape[2]
        made = x.new_empty(batch, TILE * down, TILE * across, out_channels)
        space = _Workspace(x)
        for some, first, count in _bands(batch, down, across):
            top, bottom = TILE * first - 1, min(TILE * (first + count) + 1, height)
            seen = pixels[some, max(top, 0) : bottom]
            band = space("band", len(seen), TILE * count + 2, TILE * across + 2, channels)
            inside = band[:, max(-top, 0) : bottom - top, 1 : width + 1]
            if activated:
                torch.clamp_min(seen, 0, out=inside)
            else:
                inside.copy_(seen)
            for border in (band[:, : max(-top, 0)], band[:, bottom - top :], band[:, :, :1], band[:, :, width + 1 :]):
                border.zero_()
            points = _tiles_to_points(band, count, across, space)
            products = space("products", *points.shape[:-1], out_channels)
            torch.bmm(points.flatten(2, 4).flatten(0, 1), self.weight, out=products.flatten(2, 4).flatten(0, 1))
            result = made[some, TILE * first : TILE * (first + count)]
            _points_to_tiles(products, result.view(len(seen), count, TILE, across, TILE, out_channels), space)
            if self.bias is not None:
                result += self.bias
        return made[:, :height, :width].permute(0, 3, 1, 2)


class _Workspace:
    """Memory that is used again for every band: it stays in the caches, and the system need not find new pages."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._taken: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Whatever was there before, in a shape; the first time a name is asked for must be the largest."""
        if name not in self._taken:
            self._taken[name] = self._like.new_empty(math.prod(shape))
        return self._taken[name][: math.prod(shape)].view(shape)


def _bands(batch: int, down: int, across: int) -> Iterator[tuple[slice, int, int]]:
    """What makes about `AT_ONCE` tiles: images, the first row of tiles, how many rows. The largest comes first."""
    rows = max(min(AT_ONCE // across, down), 1)
    images = max(min(AT_ONCE // (down * across), batch), 1)
    for one in range(0, batch, images):
        for row in range(0, down, rows):
            yield slice(one, min(one + images, batch)), row, min(rows, down - row)


def _tiles_to_points(band: Tensor, down: int, across: int, space: _Workspace) -> Tensor:
    """`(n, 4·down + 2, 4·across + 2, C)` → `(6, 6, n, down, across, C)`."""
    images, _, width, channels = band.shape
    rows = space("rows", POINTS, images, down, width, channels)
    _forward(
        [band[:, i : i + TILE * (down - 1) + 1 : TILE] for i in range(POINTS)], rows, space("row", 2, *rows[0].shape)
    )
    points = space("points", POINTS, POINTS, images, down, across, channels)
    columns = [rows[..., i : i + TILE * (across - 1) + 1 : TILE, :] for i in range(POINTS)]
    _forward(columns, points, space("column", 2, *points[0].shape))
    return points


def _points_to_tiles(points: Tensor, tiles: Tensor, space: _Workspace) -> None:
    """`(6, 6, n, down, across, O)` into `(n, down, 4, across, 4, O)`."""
    columns = space("columns", TILE, *points.shape[1:])
    _inverse(points, columns, space("sums of columns", 2, *points[0].shape))
    rows = columns.permute(1, 2, 3, 4, 0, 5)
    _inverse(rows, tiles.permute(2, 0, 1, 3, 4, 5), space("sums of rows", 2, *rows[0].shape))


def _forward(d: Sequence[Tensor] | Tensor, out: Tensor, scratch: Tensor) -> None:
    """Six pixels in a line to six points: Bᵀd, its common parts computed once."""
    even, odd = scratch
    torch.sub(d[4], d[2], alpha=5, out=out[0]).add_(d[0], alpha=4)
    torch.sub(d[5], d[3], alpha=5, out=out[5]).add_(d[1], alpha=4)
    torch.sub(d[4], d[2], alpha=4, out=even)
    torch.sub(d[3], d[1], alpha=4, out=odd)
    torch.add(even, odd, out=out[1])
    torch.sub(even, odd, out=out[2])
    torch.sub(d[4], d[2], out=even)
    torch.sub(d[3], d[1], out=odd)
    torch.add(even, odd, alpha=2, out=out[3])
    torch.sub(even, odd, alpha=2, out=out[4])


def _inverse(m: Tensor, out: Tensor, scratch: Tensor) -> None:
    """Six points to four pixels in a line: Aᵀm."""
    near, far = scratch
    torch.add(m[1], m[2], out=near)
    torch.add(m[3], m[4], out=far)
    torch.add(near, far, out=out[0]).add_(m[0])
    torch.add(near, far, alpha=4, out=out[2])
    torch.sub(m[1], m[2], out=near)
    torch.sub(m[3], m[4], out=far)
    torch.add(near, far, alpha=2, out=out[1])
    torch.add(near, far, alpha=8, out=out[3]).add_(m[5])
