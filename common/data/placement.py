"""Where a loader augments: it times each place for some batches, takes the fastest, and reports which and why.

Floor: data; may import store and below. Used by: its own room.
"""

import statistics
from dataclasses import dataclass, field

TRIAL = 16  # batches per trial
TRIES = 2  # trials of each place, alternating with those of the others

NAMES = {
    "threads": "in threads beside the training loop",
    "caller": "between the steps of the training loop",
    "device": "on the device",
}


@dataclass
class Placement:
    """The choice of a place, by wall seconds per batch, the training step included.

    Any place on the CPU gives identical pixels; those of a GPU differ by its rounding.

    Attributes:
        places: The candidates, the most promising first; see `NAMES`.
        seconds: The measured seconds per batch of each place.
    """

    places: tuple[str, ...] = ()
    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    @property
    def chosen(self) -> str | None:
        """The fastest place, or None while some are still to be timed."""
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
        """Records the seconds that a batch took at a place."""
        self.seconds.setdefault(place, []).append(seconds)

    def __str__(self) -> str:
        chosen = self.chosen
        if chosen is None:
            return "augmentation: not yet measured"
        where = f"augmentation runs {NAMES[chosen]}"
        times = {place: statistics.median(values) * 1e3 for place, values in self.seconds.items()}
        others = [f"{NAMES[place]} {times[place]:.1f}" for place in self.places if place != chosen and place in times]
        if chosen not in times or not others:
            return where
        return f"{where}: {times[chosen]:.1f} ms a batch with the step, {', '.join(others)}"
