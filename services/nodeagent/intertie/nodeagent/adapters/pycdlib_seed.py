"""Seeds as ISO 9660 images."""

from collections.abc import Mapping
from io import BytesIO

from pycdlib import PyCdlib

from intertie.nodeagent.domain.seed import LABEL


def seed_image(files: Mapping[str, bytes]) -> bytes:
    """An image with the label and the file names that NoCloud asks for."""
    iso = PyCdlib()
    iso.new(interchange_level=3, vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    for number, (name, content) in enumerate(files.items()):
        iso.add_fp(
            BytesIO(content),
            len(content),
            f"/FILE{number}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
        )
    out = BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()
