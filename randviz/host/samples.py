"""Sample pictures: paintings and photographs of the package, and those inside scikit-image."""

import importlib.resources
import textwrap
import tomllib

from PIL import Image as Pillow

_FOLDER = importlib.resources.files("randviz") / "samples"
_OWN = tomllib.loads((_FOLDER / "samples.toml").read_text(encoding="utf-8"))

# Pictures that come inside scikit-image, with origin and licence as its docstrings state them.
_SCIKIT_IMAGE = {
    "astronaut": "Eileen Collins, 512×512; NASA, public domain",
    "chelsea": "a cat, 300×451; CC0 by Stefan van der Walt",
    "coffee": "a cup on a wooden table, 400×600; CC0 by Rachel Michetti",
    "rocket": "launch of DSCOVR, 427×640; SpaceX, public domain",
    "immunohistochemistry": "stained tissue, 512×512; CMMI, no known copyright restrictions",
    "hubble_deep_field": "galaxies, 872×1000; NASA, public domain; also called hubble",
    "retina": "the back of an eye, 1411×1411; CC0, Mikael Häggström's medical gallery",
    "brick": "grey texture, 512×512; CC0, from CC0Textures",
    "grass": "grey texture, 512×512; CC0, from DeviantArt (linolafett)",
    "gravel": "grey texture, 512×512; CC0, from CC0Textures",
    "camera": "a photographer, grey, 512×512; CC0 by Lav Varshney",
    "coins": "Greek coins from Pompeii, grey, 303×384; Brooklyn Museum, no known restrictions",
    "clock": "blurred by motion, grey, 300×400; public domain, by Stefan van der Walt",
}
_ALIASES = {"hubble": "hubble_deep_field"}

# Trained filters are normalised over these by default; more would change the results.
SCIKIT_IMAGE_SAMPLES = tuple(_SCIKIT_IMAGE)
SAMPLES = (*_OWN, *SCIKIT_IMAGE_SAMPLES)


def is_sample(name: str) -> bool:
    """Says whether a sample has this name."""
    return name in SAMPLES or name in _ALIASES


def open_sample(name: str) -> Pillow.Image:
    """Opens a sample; nothing is downloaded.

    Args:
      name: a name in `SAMPLES`, or "hubble".
    """
    name = _ALIASES.get(name, name)
    if name in _OWN:
        with (_FOLDER / f"{name}.jpg").open("rb") as file, Pillow.open(file) as picture:
            picture.load()
            return picture
    import skimage.data  # here, because it is slow to import and only its own samples need it

    return Pillow.fromarray(getattr(skimage.data, name)())


def describe_sample(name: str) -> str:
    """Says what a sample is, in a line."""
    if name in _SCIKIT_IMAGE:
        return _SCIKIT_IMAGE[name]
    about = _OWN[name]
    made = (about[key] for key in ("author", "year") if about[key] != "not recorded")
    return f"{', '.join([about['title'], *made])}; {about['licence']}"


def is_painting(name: str) -> bool:
    """Whether a sample is a painting or a print, not a photograph or a texture."""
    return _OWN.get(name, {}).get("author", "not recorded") != "not recorded"


def describe_samples(full: bool) -> str:
    """Names all samples, as text for `--help`.

    Args:
      full: whether each is described, on a line of its own.
    """
    if full:
        return "\n".join(f"  {name:<21} {describe_sample(name)}" for name in SAMPLES)
    ends = {"initial_indent": "  ", "subsequent_indent": "  "}
    return textwrap.fill(f"{', '.join(SAMPLES)}; --helpfull describes them.", 80, **ends)
