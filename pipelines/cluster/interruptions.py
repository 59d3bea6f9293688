"""The time that interruptions add to a step: reclaimed spot machines, drained and failed nodes.

Interruptions of a node are a Poisson process. An interrupted node loses the work since its last
checkpoint, and starts again after a wait.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Interruptions:
    """How often a node is interrupted, and what that costs.

    Attributes:
        per_hour: interruptions per node and hour.
        restart_s: seconds from an interruption until the node works again.
        checkpoint_s: seconds of work between two checkpoints.
    """

    per_hour: float = 0.0
    restart_s: float = 0.0
    checkpoint_s: float = 300.0

    def expected_s(self, work_s: float, segment_s: float = math.inf) -> float:
        """Return the expected time of some work on one node, with the work that is repeated.

        The formula is that of J. T. Daly, "A higher order estimate of the optimum checkpoint
        interval for restart dumps" (Future Generation Computer Systems 22, 2006), with checkpoints
        that take no time; restarts can be interrupted, too.

        Args:
            work_s: seconds without an interruption.
            segment_s: seconds of work that are lost at most, if fewer than between checkpoints.
        """
        if not self.per_hour or not work_s:
            return work_s
        mean_s = 3600 / self.per_hour
        segment = min(self.checkpoint_s, segment_s, work_s)
        try:
            of_segment = mean_s * math.exp(self.restart_s / mean_s) * math.expm1(segment / mean_s)
        except OverflowError:
            return math.inf
        return work_s / segment * of_segment

    def more_than(self, count: int, node_s: float) -> float:
        """Return the chance of more than `count` interruptions.

        Args:
            count: those after which a step still continues.
            node_s: seconds of all nodes together.
        """
        mean = self.per_hour * node_s / 3600
        if mean > 700:  # exp(-mean) is 0
            return 1.0
        term = cumulated = math.exp(-mean)
        for number in range(1, count + 1):
            term *= mean / number
            cumulated += term
        return max(0.0, 1.0 - cumulated)
