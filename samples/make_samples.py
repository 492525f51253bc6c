"""The samples, made again from the packages they come from.

Everything in `samples/ct`, `samples/mr` and `samples/studies` is made by this script out of two packages of PyPI, so
that anyone can check where each voxel comes from:

    pip download --no-deps --no-binary :all: totalsegmentator==2.18.0
    pip download --no-deps nilearn==0.14.1
    python samples/make_samples.py totalsegmentator-2.18.0.tar.gz nilearn-0.14.1-py3-none-any.whl

A painted slice is the reference label on that one slice and nothing elsewhere. It is the axial slice on which the
least visible object still shows most of its largest cross-section.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from scipy import ndimage

SAMPLES = Path(__file__).resolve().parent
SHA256 = {
    "totalsegmentator": "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
    "nilearn": "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a",
}

# Value in the package's label map (TotalSegmentator's task "total", version 2) -> our value and name.
CT_ORGANS = {1: (1, "spleen"), 2: (2, "right kidney"), 3: (3, "left kidney"), 5: (4, "liver"), 6: (5, "stomach")}
CT_ORGANS |= {52: (6, "aorta")}
MR_TISSUES = {1: "white matter", 2: "lateral ventricles"}


def main() -> None:
    """Read both packages and write the samples beside this script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("totalsegmentator", type=Path, help="totalsegmentator-2.18.0.tar.gz")
    parser.add_argument("nilearn", type=Path, help="nilearn-0.14.1-py3-none-any.whl")
    arguments = parser.parse_args()
    for package, expected in SHA256.items():
        found = hashlib.sha256(getattr(arguments, package).read_bytes()).hexdigest()
        if found != expected:
            parser.error(f"{getattr(arguments, package)} is not the file the samples were made from (sha256 {found})")
    make_ct(arguments.totalsegmentator)
    make_mr(arguments.nilearn)


def make_ct(package: Path) -> None:
    """CT of abdomen and pelvis, six organs."""
    folder = "totalsegmentator-2.18.0/tests/reference_files/"
    with tarfile.open(package) as archive:
        image = read_nifti(read_member(archive, folder + "example_ct.nii.gz"))
        organs = read_nifti(read_member(archive, folder + "example_seg_fast_force_split.nii.gz"))
    source = np.asarray(organs.dataobj)
    label = np.zeros(source.shape, np.uint8)
    for value, (ours, _name) in CT_ORGANS.items():
        label[source == value] = ours
    write_sample("ct", np.asarray(image.dataobj).astype(np.int16), label, image.affine, dict(CT_ORGANS.values()))


def make_mr(package: Path) -> None:
    """T1-weighted MR of the brain, white matter and lateral ventricles, from the template's tissue maps."""
    folder = "nilearn/datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    with zipfile.ZipFile(package) as archive:
        image, gray, white = (read_nifti(archive.read(folder.format(name))) for name in ("t1", "gm", "wm"))
    voxels, gray_matter, white_matter = (np.asarray(part.dataobj) for part in (image, gray, white))
    brain = ndimage.binary_fill_holes(ndimage.binary_closing((gray_matter > 127) | (white_matter > 127), iterations=4))
    fluid, _count = ndimage.label(brain & (gray_matter.astype(int) + white_matter < 127) & (voxels > 0))
    label = np.zeros(voxels.shape, np.uint8)
    label[white_matter > 127] = 1
    label[fluid == fluid[90, 143, 90]] = 2  # a voxel inside the right frontal horn; both sides are connected
    box = tuple(slice(int(at.min()) - 5, int(at.max()) + 6) for at in np.nonzero(voxels))
    box = tuple(slice(max(part.start, 0), part.stop) for part in box)
    affine = image.affine.copy()
    affine[:3, 3] = (image.affine @ [*(part.start for part in box), 1])[:3]
    write_sample("mr", voxels[box], label[box], affine, MR_TISSUES)


def write_sample(
    name: str, voxels: NDArray[np.generic], label: NDArray[np.uint8], affine: NDArray[np.float64], names: dict[int, str]
) -> None:
    """Write image, reference label map, painted slice and names of one sample.

    Args:
        name: Folder under `samples/`.
        voxels: `(I, J, K)` image.
        label: `(I, J, K)` reference.
        affine: `(4, 4)` voxel index to mm, RAS+.
        names: Label value to name.
    """
    areas = np.stack([(label == value).sum(axis=(0, 1)) for value in names])
    index = int((areas / areas.max(axis=1, keepdims=True)).min(axis=0).argmax())
    painted = np.zeros_like(label)
    painted[:, :, index] = label[:, :, index]
    folder = SAMPLES / name
    folder.mkdir(exist_ok=True)
    write_nifti(folder / "image.nii.gz", voxels, affine)
    write_nifti(folder / "label.nii.gz", label, affine)
    write_nifti(folder / "painted.nii.gz", painted, affine)
    (folder / "labels.json").write_text(json.dumps(names, indent=2) + "\n")
    (SAMPLES / "studies").mkdir(exist_ok=True)
    shutil.copyfile(folder / "image.nii.gz", SAMPLES / "studies" / f"sample_{name}.nii.gz")
    shares = ", ".join(f"{names[v]} {a:.0%}" for v, a in zip(names, areas[:, index] / areas.max(axis=1), strict=True))
    print(f"{name}: shape {voxels.shape}, painted slice {index} (share of the largest area: {shares})")


def read_member(archive: tarfile.TarFile, name: str) -> bytes:
    """The bytes of one file of a tar archive."""
    member = archive.extractfile(name)
    if member is None:
        msg = f"{name} is not a file in {archive.name!r}"
        raise FileNotFoundError(msg)
    return member.read()


def read_nifti(data: bytes) -> Nifti1Image:
    """A NIfTI image from gzip-compressed bytes."""
    return Nifti1Image.from_bytes(gzip.decompress(data))


def write_nifti(path: Path, voxels: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    """Write a `.nii.gz` whose bytes depend on nothing but its content (no time stamp, no file name)."""
    image = nibabel.Nifti1Image(np.ascontiguousarray(voxels), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main()
