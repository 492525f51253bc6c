"""Modalities: which series are images to work on.

New scanners bring new modalities, and people segment photographs as well as CT. What DICOM stores beside images is
therefore listed, and not the images.
"""

from __future__ import annotations

NOT_IMAGES = frozenset(
    (
        # Made from images: segmentations, measurements, registrations, meshes, doses and how to show them.
        *("SEG", "SR", "PR", "KO", "REG", "FID", "SMR", "RWV", "ANN", "M3D", "TEXTUREMAP"),
        *("RTSTRUCT", "RTPLAN", "RTRECORD", "RTDOSE", "RTINTENT", "RTRAD", "RTSEGANN", "PLAN"),
        # Documents and protocols.
        *("DOC", "CTPROTOCOL", "MRPROTOCOL", "XAPROTOCOL", "STAIN", "ASMT"),
        # Curves, sound and the measurements of eyes.
        *("ECG", "EEG", "EMG", "EOG", "EPS", "HD", "RESP", "POS", "AU"),
        *("AR", "IOL", "KER", "LEN", "OAM", "OPV", "SRF", "VA"),
    )
)
"""Values of Modality (PS3.3 C.7.3.1.1.1), current and retired ones, whose series hold no images to paint on."""


def is_image(modality: str) -> bool:
    """Whether a series of a modality may be an image to work on."""
    return modality.strip().upper() not in NOT_IMAGES
