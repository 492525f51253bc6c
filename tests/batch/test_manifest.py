"""The list of studies."""

from __future__ import annotations

from pathlib import Path

import pytest

from imos.batch.manifest import read_manifest
from imos.errors import UserError

SERIES = "https://pacs.example:8443/dicom-web/studies/1.2.3/series/1.2.3.4"


def listed(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_names_and_places_come_from_the_image(tmp_path: Path) -> None:
    studies = read_manifest(
        listed(tmp_path, f"image,prompt,plane,first,last\nscans/a.nii.gz,/p/a.nrrd,coronal,3,40\n{SERIES},b.dcm,,,\n")
    )
    one, other = studies
    assert (one.id, one.output, one.plane, one.first, one.last) == ("a", "a.nii.gz", "coronal", 3, 40)
    assert (one.image, one.prompt) == (str(tmp_path / "scans" / "a.nii.gz"), "/p/a.nrrd")
    assert (other.id, other.image, other.output) == ("1.2.3.4", SERIES, "1.2.3.4.dcm")
    assert (other.plane, other.first, other.time) == ("auto", None, False)


def test_a_folder_of_pictures_gets_a_folder_of_label_maps(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "video").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "video" / "0.png")
    (study,) = read_manifest(listed(tmp_path, "image\tprompt\ttime\nvideo\tpainted\tyes\n", "list.tsv"))
    assert (study.output, study.time) == ("video", True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,promt\na,b\n", "has no column 'prompt'"),
        ("image,prompt,colour\na,b,c\n", "has a column 'colour'"),
        ("image,prompt\n", "lists no study"),
        ("image,prompt\na.nii,b.nii\na.nii,c.nii\n", r"list.csv:3: a is there already, in line 2"),
        ("id,image,prompt,output\n1,a.nii,b.nii,x.nii\n2,c.nii,d.nii,x.nii\n", r":3: x.nii is there already"),
        ("image,prompt\na.nii\n", r":2: 2 columns are named"),
        ("image,prompt\na.nii,\n", r":2: prompt is empty"),
        ("id,image,prompt\n../a,a.nii,b.nii\n", r":2: the id '../a' is no name"),
        ("image,prompt,output\na.nii,b.nii,/etc/passwd\n", r":2: the output '/etc/passwd' must be a file's name"),
        ("image,prompt,plane\na.nii,b.nii,axal\n", r":2: there is no plane 'axal'"),
        ("image,prompt,first\na.nii,b.nii,-1\n", r":2: first is no slice number: '-1'"),
        ("image,prompt,first,last\na.nii,b.nii,9,3\n", r":2: first 9 lies behind last 3"),
        ("image,prompt,time\na.nii,b.nii,maybe\n", r":2: time must be yes or no"),
    ],
)
def test_what_is_wrong_is_said_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_manifest(listed(tmp_path, text))


def test_a_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_manifest(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(UserError, match="no text in UTF-8"):
        read_manifest(tmp_path / "binary.csv")
