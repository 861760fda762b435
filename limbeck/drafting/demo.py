"""The recipe of the demo, for whoever has installed the package alone."""

from pathlib import Path

import limbeck

SHIPPED = "demo.yaml"
IN_CHECKOUT = Path("recipes") / SHIPPED
PACKAGE = "limbeck/packs"


def read_demo() -> str:
    """The demo's recipe, with the package's own data named from anywhere."""
    package = Path(limbeck.__path__[0])
    shipped = package / "drafting" / SHIPPED
    path = shipped if shipped.is_file() else package.parent / IN_CHECKOUT
    text = path.read_text(encoding="utf-8")
    return text.replace(f"path: {PACKAGE}", f"path: {(package / 'packs').as_posix()}")
