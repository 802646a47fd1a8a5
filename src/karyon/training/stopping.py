"""When validation says that training is over."""

from __future__ import annotations


class EarlyStopping:
    """Stop after so many validations in a row without a better F1.

    Args:
        patience: How many; 0 never stops.

    Attributes:
        best: Highest F1 so far.
        waited: Validations since then.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = float("-inf")
        self.waited = 0

    def update(self, f1: float) -> bool:
        """Whether this validation is the best so far; NaN is not."""
        better = f1 > self.best
        self.best = f1 if better else self.best
        self.waited = 0 if better else self.waited + 1
        return better

    @property
    def is_over(self) -> bool:
        """Whether to stop."""
        return 0 < self.patience <= self.waited

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.best, self.waited = state["best"], int(state["waited"])
