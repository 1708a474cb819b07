"""Items that cannot be used: stop at the first one, leave them out, or leave them out and record them in a file.

Floor: store; may import augment and below. Used by: data, deploy, recipes.
"""

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
        item: The item's name for people: a path or a row.
        stage: The stage of the data path at which it failed.
        reason: Why it failed.
    """

    item: str
    stage: str
    reason: str

    @classmethod
    def of(cls, error: ItemError) -> "Failure":
        """Returns the Failure of an ItemError."""
        return cls(str(error.item), error.stage, error.reason)


@dataclass(frozen=True, kw_only=True)
class DirtyPolicy:
    """What happens to an item that cannot be used.

    Attributes:
        on_error: ``raise`` stops with the item's name; ``skip`` leaves it out, in every epoch, and logs it;
            ``quarantine`` records it in a file too, and does not try it again while it is unchanged.
        quarantine: The file for ``quarantine``, one JSON object per line.
    """

    on_error: str = "raise"
    quarantine: str | Path = "quarantine.jsonl"

    def __post_init__(self) -> None:
        one_of("on_error", self.on_error, POLICIES)
        if Path(self.quarantine).is_dir():
            raise ConfigError(f"quarantine={self.quarantine} is a folder: name a file")

    @property
    def raises(self) -> bool:
        """Whether the first failing item raises."""
        return self.on_error == "raise"

    def remembered(self) -> dict[str, tuple[Failure, str]]:
        """Returns the items in quarantine by name, each with its `state` at that time."""
        path = Path(self.quarantine)
        if self.on_error != "quarantine" or not path.exists():
            return {}
        entries: dict[str, tuple[Failure, str]] = {}
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            try:
                entry = json.loads(line)
                entries[str(entry["item"])] = (
                    Failure(str(entry["item"]), str(entry["stage"]), str(entry["reason"])),
                    str(entry["state"]),
                )
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path}, line {number}: not an entry of a quarantine ({error})") from error
        return entries

    def remember(self, failure: Failure, looks: str) -> None:
        """Appends an item to the quarantine file, with its `state`."""
        if self.on_error != "quarantine":
            return
        path = Path(self.quarantine)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({**asdict(failure), "state": looks}, ensure_ascii=False) + "\n")


def state(raws: Sequence[Any], from_file: Sequence[bool] = ()) -> str:
    """Returns a string that changes with the item: size and times of a file, a digest of any other value.

    Args:
        raws: One raw value per field.
        from_file: For each field, whether a string names a file (`Block.from_file`); empty: none does.
    """
    states: list[str] = []
    for raw, named in zip(raws, from_file or (False,) * len(raws), strict=True):
        try:
            info = Path(raw).stat() if is_file(raw, named) else None
        except (OSError, ValueError):
            info = None
        if info is None:
            states.append(hashlib.blake2b(repr(raw).encode("utf-8", "replace"), digest_size=8).hexdigest())
        else:
            states.append(f"{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}")
    return ", ".join(states)


class DirtyLog:
    """The items that were left out, each with its stage and reason.

    Args:
        policy: What to do with such an item.
        failures: Failures from before this log.
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
        """Logs an item that failed; ``looks`` returns its `state`.

        Raises:
            ItemError: ``error``, where the policy is ``raise``.
        """
        if self.policy.raises:
            raise error
        with self._lock:
            if row not in self._found:
                self._found[row] = Failure.of(error)
                self.policy.remember(self._found[row], looks() if self.policy.on_error == "quarantine" else "")

    def recall(self, row: int, failure: Failure) -> None:
        """Logs an item that is already in quarantine, without writing it to the file again."""
        self._found[row] = failure

    @property
    def by_row(self) -> dict[int, Failure]:
        """The items left out by their positions; those that were left out before the store are not among them."""
        return dict(self._found)

    @property
    def failures(self) -> list[Failure]:
        """Every item left out, in the order of the items."""
        return self._early + [self._found[row] for row in sorted(self._found)]

    def table(self) -> list[dict[str, Any]]:
        """Returns one row per item, for a report."""
        return [asdict(failure) for failure in self.failures]
