"""Where a loader augments: it tries each place for some batches, keeps the fastest, and says which and why."""

import statistics
from dataclasses import dataclass, field

TRIAL = 16  # batches of one try
TRIES = 2  # of each place, in turns

NAMES = {
    "threads": "in threads beside the training loop",
    "caller": "between the steps of the training loop",
    "device": "on the device",
}


@dataclass
class Placement:
    """The choice of a place, by wall seconds a batch, the training step included.

    What is made is the same wherever it is made on a CPU; a device's pixels differ by what its arithmetic does.

    Attributes:
        places: Where it could be, the likeliest first; see `NAMES`.
        seconds: What was measured of each, seconds a batch.
    """

    places: tuple[str, ...] = ()
    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    @property
    def chosen(self) -> str | None:
        """The place that is kept, or None while others are still to be tried."""
        if len(self.places) == 1:
            return self.places[0]
        if not self.places or any(len(self.seconds.get(place, ())) < TRIES for place in self.places):
            return None
        return min(self.places, key=lambda place: statistics.median(self.seconds[place]))

    def turn(self) -> tuple[str, int | None]:
        """Returns where the next batches are made, and how many of them (None: all there are)."""
        chosen = self.chosen
        if chosen is not None:
            return chosen, None
        return min(self.places, key=lambda place: len(self.seconds.get(place, ()))), TRIAL

    def note(self, place: str, seconds: float) -> None:
        """Takes down what a batch cost at a place."""
        self.seconds.setdefault(place, []).append(seconds)

    def __str__(self) -> str:
        chosen = self.chosen
        if chosen is None:
            return "augmentation: not yet measured"
        said = f"augmentation runs {NAMES[chosen]}"
        found = {place: statistics.median(values) * 1e3 for place, values in self.seconds.items()}
        others = [f"{NAMES[place]} {found[place]:.1f}" for place in self.places if place != chosen and place in found]
        if chosen not in found or not others:
            return said
        return f"{said}: {found[chosen]:.1f} ms a batch with the step, {', '.join(others)}"
