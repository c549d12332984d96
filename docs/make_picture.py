"""Draw demo.png from the record that `make demo` leaves. Usage: python docs/make_picture.py [RECORD] [PICTURE]"""

import io
import sys
from pathlib import Path

from PIL import Image

import workbench as wb
from workbench.views import entropy_curves, final_loss_against_lr

ROOT = Path(__file__).parents[1]
RECORD, PICTURE = ROOT / "demo" / "entropy_collapse.nc", ROOT / "docs" / "demo.png"


def draw(record: Path = RECORD, picture: Path = PICTURE) -> None:
    """Entropy against step, over final loss against learning rate, of the runs without warmup; a PNG of twice the charts' size."""
    found = wb.open(record).wb.where(warmup=0)
    chart = (entropy_curves(found) & final_loss_against_lr(found)).resolve_scale(color="independent", shape="independent")
    drawn = io.BytesIO()
    chart.save(drawn, format="png", scale_factor=2)
    Image.open(drawn).convert("RGB").quantize(128).save(picture, optimize=True)


if __name__ == "__main__":
    draw(*map(Path, sys.argv[1:]))
