"""DICOMweb over a folder: the few requests that OHIF makes, so that a viewer works without an archive.

DICOM files in the folder are answered as they are; volumes in other formats are presented as DICOM series of the same
voxels at the same place. Only segmentations are taken in.
"""
