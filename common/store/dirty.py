"""Items that cannot be used: stop at the first, leave them out, or leave them out and remember them."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.blocks.content import is_file
from common.errors import ConfigError, ItemError, one_of

POLICIES = ("raise", "skip", "quarantine")


@dataclass(frozen=True)
class Failure:
    """An item that cannot be used.

    Attributes:
        item: The item as a person knows it.
        stage: Where on the path it failed.
        reason: Why.
    """

    item: str
    stage: str
    reason: str

    @classmethod
    def of(cls, error: ItemError) -> "Failure":
        """Returns what an ItemError says."""
        return cls(str(error.item), error.stage, error.reason)


@dataclass(frozen=True, kw_only=True)
class DirtyPolicy:
    """What happens to an item that cannot be used.

    Attributes:
        on_error: ``raise`` stops with the item's name; ``skip`` leaves it out, in every epoch, and lists it;
            ``quarantine`` lists it in a file too, and while the item is unchanged it is not tried again.
        quarantine: That file, one JSON object per line.
    """

    on_error: str = "raise"
    quarantine: str | Path = "quarantine.jsonl"

    def __post_init__(self) -> None:
        one_of("on_error", self.on_error, POLICIES)
        if Path(self.quarantine).is_dir():
            raise ConfigError(f"quarantine={self.quarantine} is a folder: name a file")

    @property
    def raises(self) -> bool:
        """Whether the first such item ends the work."""
        return self.on_error == "raise"

    def remembered(self) -> dict[str, tuple[Failure, str]]:
        """Returns the items in quarantine by name, each with what it looked like then."""
        path = Path(self.quarantine)
        if self.on_error != "quarantine" or not path.exists():
            return {}
        found: dict[str, tuple[Failure, str]] = {}
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            try:
                entry = json.loads(line)
                found[str(entry["item"])] = (
                    Failure(str(entry["item"]), str(entry["stage"]), str(entry["reason"])),
                    str(entry["state"]),
                )
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path}, line {number}: not an entry of a quarantine ({error})") from error
        return found

    def remember(self, failure: Failure, looks: str) -> None:
        """Appends an item to the quarantine, with what it looks like; see `state`."""
        if self.on_error != "quarantine":
            return
        path = Path(self.quarantine)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({**asdict(failure), "state": looks}, ensure_ascii=False) + "\n")


def state(raws: Sequence[Any], from_file: Sequence[bool] = ()) -> str:
    """Returns what tells whether an item has changed: size and times of what is a file, a digest of what is none.

    Args:
        raws: One raw value per field.
        from_file: Of each field, whether a string names a file (`Block.from_file`); empty: none does.
    """
    found: list[str] = []
    for raw, named in zip(raws, from_file or (False,) * len(raws), strict=True):
        try:
            looks = Path(raw).stat() if is_file(raw, named) else None
        except (OSError, ValueError):
            looks = None
        if looks is None:
            found.append(hashlib.blake2b(repr(raw).encode("utf-8", "replace"), digest_size=8).hexdigest())
        else:
            found.append(f"{looks.st_size} {looks.st_mtime_ns} {looks.st_ctime_ns}")
    return ", ".join(found)


class DirtyLog:
    """The items that were left out, each with its stage and reason.

    Args:
        policy: What to do with one.
        failures: Those that were found already.
    """

    def __init__(self, policy: DirtyPolicy, failures: Iterable[Failure] = ()) -> None:
        self.policy = policy
        self._early = list(failures)
        self._found: dict[int, Failure] = {}
        self._lock = threading.Lock()
        self.known = policy.remembered()
        for failure in self._early:
            if failure.item not in self.known:
                policy.remember(failure, "")

    def add(self, row: int, error: ItemError, looks: Callable[[], str]) -> None:
        """Takes in an item that failed; ``looks`` tells its `state`.

        Raises:
            ItemError: the same, where the policy is to stop.
        """
        if self.policy.raises:
            raise error
        with self._lock:
            if row not in self._found:
                self._found[row] = Failure.of(error)
                self.policy.remember(self._found[row], looks() if self.policy.on_error == "quarantine" else "")

    def recall(self, row: int, failure: Failure) -> None:
        """Takes in an item that is in quarantine, without writing it down again."""
        self._found[row] = failure

    @property
    def failures(self) -> list[Failure]:
        """Every item left out, in the order of the items."""
        return self._early + [self._found[row] for row in sorted(self._found)]

    def table(self) -> list[dict[str, Any]]:
        """Returns one row per item, for a report."""
        return [asdict(failure) for failure in self.failures]
