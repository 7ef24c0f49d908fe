"""What a kind of head must know."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from enrich.model.seen import Seen
from enrich.records import Evidence

if TYPE_CHECKING:
    from enrich.model.head import Head

Floats = NDArray[np.float64]
Overruled = tuple[dict[str, Any], dict[str, Any]]
"""Fields of a document, and what stands beside `override` in the evidence."""
SIGNS = {True: "✓", False: "✗", None: "?"}
"""How an answer is written for people: yes, no, unknown."""
WORDS = {True: "true", False: "false", None: "unknown"}
"""The same as people type it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one head says of a listing. `fields` names all of its fields, None where unknown."""

    fields: Mapping[str, Any]
    evidence: Evidence | None = None
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a filter demands of a document: a field that holds `value`, or a number no smaller or no greater
    than it; None: a field that holds nothing."""

    field: str
    value: bool | float | str | None
    at_least: bool = False
    at_most: bool = False


class Kind(ABC):
    """All that depends on a head's kind. A subclass names itself, and is known from then on:
    `class Binary(Kind, word="binary")`.

    Methods take the head, or its `name` alone where the fields of earlier bundles' heads are meant, too.
    """

    is_yes_or_no: ClassVar[bool] = False
    """Asked for by name alone (`--has X`); heads of other kinds with a value (`--type X=VALUE`)."""
    field: ClassVar[str]
    """The field that holds the answer, {} being the head's name."""

    def __init_subclass__(cls, word: str | None = None) -> None:
        if word is not None:
            KINDS[word] = cls()

    def answer_field(self, name: str) -> str:
        return self.field.format(name)

    # From logits to a listing's answer.

    @abstractmethod
    def outputs(self, head: "Head") -> int:
        """Logits per photo."""

    @abstractmethod
    def problems(self, head: "Head", thresholds: set[str]) -> Iterator[str]:
        """What is wrong with the head's entry in a manifest, which has `thresholds` of these names."""

    @abstractmethod
    def chances(self, scaled: Floats) -> Floats:
        """Probabilities of logits after temperature, [..., outputs] to the same shape."""

    @abstractmethod
    def answer(self, head: "Head", logits: Floats, seen: Seen) -> Answer:
        """The listing's answer; `logits` [photos seen, outputs], before temperature."""

    # Where the answer is found.

    @abstractmethod
    def fields(self, name: str) -> dict[str, str]:
        """The searchable fields of a document, each with its Elasticsearch type."""

    def kept(self, name: str) -> tuple[str, ...]:
        """Fields that documents carry and nobody can search."""
        return ()

    @abstractmethod
    def columns(self, name: str) -> dict[str, str]:
        """The columns of the view `listing_attributes`, each with its Postgres type."""

    def photo_columns(self, name: str) -> dict[str, str]:
        """Those of the view `photo_attributes`: `X_probability`, where there are classes of the likeliest."""
        return {f"{name}_probability": "double precision"}

    @abstractmethod
    def condition(self, head: "Head", value: str | None) -> Condition:
        """What a filter for `value` demands (None where `is_yes_or_no`).

        Raises:
            UsageError: the head never answers so.
        """

    def ranked_by(self, name: str) -> str | None:
        """The number by which those found are sorted, the highest first; None: there is none."""
        return None

    def turns(self, head: "Head") -> tuple[float, ...]:
        """Values of `ranked_by` at which the head's answer turns; () where there are none."""
        return ()

    # What people read.

    def title(self, name: str) -> str:
        """The heading over `shown`."""
        return name

    @abstractmethod
    def shown(self, name: str, document: Mapping[str, Any]) -> str:
        """A document's answer in a few words; yes, no and unknown begin with one of `SIGNS`."""

    @abstractmethod
    def plain(self, head: "Head", chances: Floats) -> Any:
        """A photo's probabilities [outputs] as JSON has them; not rounded: thresholds lie on them."""

    @abstractmethod
    def photo_shown(self, head: "Head", plain: Any) -> tuple[str, bool]:
        """What a photo's `plain` probabilities say, and whether that is enough for the listing's answer."""

    def explained(self, head: "Head", logits: Floats, seen: Seen) -> str:
        """Why the answer is what it is; `logits` as for `answer`."""
        if not seen.photos:
            return "no photo could be seen" if seen.total else "there are no photos"
        return self.why(head, logits, seen)

    @abstractmethod
    def why(self, head: "Head", logits: Floats, seen: Seen) -> str:
        """Probability and thresholds, and why unknown is unknown; some photos were seen."""


class Overridable(Kind):
    """A kind of which a person may say the answer."""

    @abstractmethod
    def read_override(self, head: "Head", text: str) -> Any:
        """The value that a person typed.

        Raises:
            UsageError: not a value that this head can have.
        """

    @abstractmethod
    def check_override(self, name: str, value: Any) -> Any:
        """The value as it is stored (JSON).

        Raises:
            UsageError: not a value of this kind.
        """

    @abstractmethod
    def overrule(self, name: str, value: Any, model: Mapping[str, Any]) -> Overruled:
        """What stands where a person said `value` and the model's fields are `model`."""


KINDS: dict[str, Kind] = {}
"""The kinds by their words in a manifest."""


def overridable(field: str) -> tuple[Overridable, str] | None:
    """The kind of the field and the name of its head; None where no person may say what it holds."""
    for kind in KINDS.values():
        before, _, after = kind.field.partition("{}")
        name = field.removeprefix(before).removesuffix(after)
        if isinstance(kind, Overridable) and name and kind.answer_field(name) == field:
            return kind, name
    return None
