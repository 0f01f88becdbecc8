"""Settings that the figures share."""

import dataclasses

from randviz.commands.trials import StudySettings

PICTURES = ("astronaut", "chelsea", "coffee", "rocket", "camera", "clock")


@dataclasses.dataclass(frozen=True)
class FigureSettings(StudySettings):
    """Settings that every figure has."""

    network: str = "ranvgg"
    square: bool = True  # one program serves all pictures
