"""What a busy second of each user costs, estimated from joules that many users cause together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from math import inf, isfinite, sqrt
from operator import mul
from typing import Generic, TypeVar

from .normal_equations import NormalEquations, Triangle, inverse_diagonal, inverse_root, solve

Key = TypeVar("Key", bound=Hashable)

PARTICIPANTS = 64
"""Most keys that are estimated, because a solution costs the cube of their number."""

WEIGHT_RANGE = (0.1, 10.0)
"""Least and greatest weight of a key."""

HALF_LIFE_SECONDS = 600.0
"""After this time an observation counts half."""

_RECENT_HALF_LIFE_SECONDS = 120.0
_NEGLIGIBLE_RATIO = 1e-4
"""A key whose recent busy seconds are below this share of the busiest key's no longer takes part."""

_REPLACING_RATIO = 2.0
"""A key takes another one's place when it was this much busier of late."""

_LONGEST_SECONDS = 10.0
"""An observation of more time than this says too little of who ran when."""

_KEYS_PER_OBSERVATION = 10
_LONGEST_MERGED_SECONDS = 5.0
"""With every ten keys one more observation is added to the next before the equations learn of them, up to this time:
they cost the square of the keys, and many keys become identifiable slowly anyway."""

_LEAST_OBSERVATIONS = 30.0
_GLITCH_DEVIATIONS = 5.0
"""Standard deviations from what is expected that make an observation a surprise."""

_SPREAD = 0.5
"""Prior standard deviation of a key of average load, relative to the mean, until the spread itself is estimated."""

_SPREAD_RANGE = (0.05, 1.0)
_OFFSET_SPREAD = 0.1
"""Prior standard deviation of the constant power, relative to the mean: idle power is subtracted only roughly."""

_CONDITION = 1e-6
_NOISE_RATIO = 1e-6
"""Least noise, relative to the variance of the joules: meters have digits."""

_IDENTIFIED_ERROR_RATIO = 0.1
_IDENTIFIED_VARIANCE_RATIO = 0.5
"""A key is identifiable if its standard error is below that share of its weight, and observations removed at least
half of the variance that the prior leaves open."""

_TOTAL, _TIME, _OTHER = range(3)
"""Regressors before those of the keys: all busy seconds, time, and busy seconds outside the keys."""

_FIRST_KEY = 3


@dataclass(frozen=True, slots=True)
class _Posterior:
    """Joules per busy second: the ``mean`` of all users, and by regressor (from `_TIME` on) what is added to it.

    ``rate`` is the joules per busy second that the prior was scaled with.
    """

    mean: float
    rate: float
    deviations: list[float]
    variances: list[float]
    prior_variances: list[float]


class _Observation(Generic[Key]):
    """Sums of one observation or several, ``merged``, and their busy seconds by key."""

    __slots__ = ("busy", "joules", "merged", "other_seconds", "seconds")

    def __init__(self) -> None:
        self.busy: dict[Key, float] = {}
        self.joules = 0.0
        self.seconds = 0.0
        self.other_seconds = 0.0
        self.merged = 0

    def add(self, busy_seconds: Mapping[Key, float], joules: float, seconds: float, other_seconds: float) -> None:
        """Add an observation."""
        busy = self.busy
        for key, used in busy_seconds.items():
            busy[key] = busy.get(key, 0.0) + used
        self.joules += joules
        self.seconds += seconds
        self.other_seconds += other_seconds
        self.merged += 1


class JointEstimator(Generic[Key]):
    """Relative joules per busy second of each key, from observations of Σ ``busy_seconds × price``.

    Recursive ridge regression with forgetting. The mean price and a constant power are estimated too; keys are pulled
    towards the mean, the less the more they are heard of, and so that keys whose loads are proportional have the same
    price. How far prices lie apart, and the noise, are estimated with them.

    At most `PARTICIPANTS` keys take part, the busiest of the last minutes; the others cost the mean. The equations cost
    the square of the keys that were busy; they are solved every few observations only.
    """

    def __init__(self, participants: int = PARTICIPANTS) -> None:
        """``participants`` is the largest number of keys that are estimated."""
        self._participants = participants
        self._equations = NormalEquations(_FIRST_KEY)
        self._slots: dict[Key, int] = {}
        self._loads = [0.0] * _FIRST_KEY  # decayed sums by regressor
        self._joules = 0.0  # decayed sum
        self._recent: dict[Key, float] = {}  # busy seconds, decayed faster, also of those that take no part
        self._noise: float | None = None  # joules² per second
        self._spread = _SPREAD
        self._expected: list[float] = []  # coefficients by regressor; later ones are not known yet
        self._surprised = False  # by the last observation
        self._waiting = _Observation[Key]()
        self._seconds = 0.0  # since the equations were last solved
        self._observations_left = 0  # until they are solved again
        self._weights: Mapping[Key, float] = {}
        self._prices: Mapping[Key, float] = {}

    @property
    def weights(self) -> Mapping[Key, float]:
        """Joules per busy second relative to the mean, within `WEIGHT_RANGE`; a key that is not in it has weight 1.

        Empty where no key is identifiable. Replaced by another mapping when the equations are solved.
        """
        return self._weights

    @property
    def prices(self) -> Mapping[Key, float]:
        """Joules per busy second of the identifiable keys: those whose price observations distinguish from others."""
        return self._prices

    def observe(
        self, busy_seconds: Mapping[Key, float], joules: float, seconds: float, other_seconds: float = 0.0
    ) -> None:
        """Add what was used in ``seconds``: busy seconds by key and outside the keys, and the joules of all.

        An observation without joules or busy seconds, or of more than 10 s, is ignored, and so is a single one whose
        joules are far from what is expected.
        """
        if not (0.0 < seconds <= _LONGEST_SECONDS and 0.0 < joules < inf and isfinite(other_seconds)):
            return
        other = max(0.0, other_seconds)
        busy = {key: used for key, used in busy_seconds.items() if 0.0 < used < inf}
        if not busy and not other:
            return
        if self._waiting.seconds + seconds > _LONGEST_SECONDS:
            self._waiting = _Observation[Key]()
        waiting = self._waiting
        waiting.add(busy, joules, seconds, other)
        enough = waiting.merged > len(waiting.busy) // _KEYS_PER_OBSERVATION
        if enough or waiting.seconds + seconds > _LONGEST_MERGED_SECONDS:
            self._waiting = _Observation[Key]()
            self._learn(waiting)

    def _learn(self, observation: _Observation[Key]) -> None:
        """Add an observation to the equations, and solve them if that is due."""
        values, seconds = self._values(observation), observation.seconds
        joules = observation.joules
        if self._is_glitch(joules, seconds, values):
            return
        self._equations.add(values, joules, seconds)
        for slot, value in values:
            self._loads[slot] += value
        self._joules += joules
        self._seconds += seconds
        self._observations_left -= observation.merged
        if self._observations_left <= 0:
            self._update()

    def _values(self, observation: _Observation[Key]) -> list[tuple[int, float]]:
        """Its regressors by ascending number."""
        recent, slots = self._recent, self._slots
        values = []
        total, other = 0.0, observation.other_seconds
        for key, busy in observation.busy.items():
            recent[key] = recent.get(key, 0.0) + busy
            slot = slots.get(key)
            if slot is not None or len(slots) < self._participants:
                values.append((self._join(key) if slot is None else slot, busy))
                total += busy
            else:
                other += busy
        values += [(_TOTAL, total + other), (_TIME, observation.seconds)]
        if other > 0.0:
            values.append((_OTHER, other))
        values.sort()
        return values

    def _is_glitch(self, joules: float, seconds: float, values: list[tuple[int, float]]) -> bool:
        """Whether the joules are far from what is expected, and those of the observation before were not.

        The second surprise in a row is news: a workload that changed, not a meter that failed once.
        """
        expected, last_slot = self._expected, values[-1][0]
        if self._noise is None or last_slot >= len(expected):
            return False
        error = joules - sum([expected[slot] * value for slot, value in values])
        before, self._surprised = self._surprised, error * error > _GLITCH_DEVIATIONS**2 * self._noise * seconds
        return self._surprised and not before

    # --- who takes part -----------------------------------------------------------------------------

    def _join(self, key: Key) -> int:
        slot = self._slots[key] = self._equations.append()
        self._loads.append(0.0)
        return slot

    def _leave(self, key: Key) -> None:
        slot = self._slots.pop(key)
        self._equations.eliminate(slot)
        self._loads[_OTHER] += self._loads.pop(slot)
        for other, number in self._slots.items():
            if number > slot:
                self._slots[other] = number - 1

    def _select(self) -> None:
        """Let the busiest keys of the last minutes take part."""
        recent, slots = self._recent, self._slots
        least = _NEGLIGIBLE_RATIO * max(recent.values(), default=0.0)
        for key in [key for key in slots if recent[key] <= least]:
            self._leave(key)
        others = [key for key, busy in recent.items() if key not in slots and busy > least]
        contenders = nlargest(self._participants, others, key=lambda key: recent[key])
        leaving = sorted(slots, key=lambda key: recent[key])
        free = self._participants - len(slots)
        for key in contenders[:free]:
            self._join(key)
        for key, weakest in zip(contenders[free:], leaving, strict=False):
            if recent[key] <= _REPLACING_RATIO * recent[weakest]:
                break
            self._leave(weakest)
            self._join(key)
        decay = 0.5 ** (self._seconds / _RECENT_HALF_LIFE_SECONDS)
        self._recent = {key: decay * recent[key] for key in dict.fromkeys((*slots, *contenders))}

    # --- what they cost -----------------------------------------------------------------------------

    def _update(self) -> None:
        """Solve the equations, then let what was observed count less."""
        self._expected = []
        self._select()
        posterior = self._solve()
        self._weights, self._prices = ({}, {}) if posterior is None else self._identified(posterior)
        decay = 0.5 ** (self._seconds / HALF_LIFE_SECONDS)
        self._equations.decay(decay)
        self._loads = [decay * load for load in self._loads]
        self._joules *= decay
        self._seconds = 0.0
        # So that all solutions together cost about as much as all observations.
        self._observations_left = min(60, max(15, len(self._equations) ** 2 // 12))

    def _solve(self) -> _Posterior | None:
        """None while too little is known.

        All busy seconds have a coefficient without a prior, the mean price; the other regressors' coefficients are
        what is added to it. They have priors, and those of keys and others add up to 0 over their loads.
        """
        equations, loads = self._equations, self._loads
        gram, total = equations.gram, equations.gram[_TOTAL][_TOTAL]
        if equations.weight < _LEAST_OBSERVATIONS or len(self._slots) < 2 or total <= 0.0:
            return None
        rate = equations.moments[_TOTAL] / total
        if rate <= 0.0:
            return None
        square = equations.square - equations.moments[_TOTAL] * rate
        least_noise = _NOISE_RATIO * equations.square / equations.weight
        noise = max(square / equations.weight if self._noise is None else self._noise, least_noise)
        matrix, target = _without_total(equations)
        priors = self._prior_variances(rate)
        # Without noise the equations of loads that move together could not be solved.
        least = [row[-1] * prior for row, prior in zip(gram[_TIME:], priors, strict=True) if row[-1] > 0.0]
        noise = max(noise, _CONDITION * max(least, default=0.0))
        penalties = [noise / prior for prior in priors]
        for row, penalty in zip(matrix, penalties, strict=True):
            row[-1] = max(row[-1], 0.0) + (penalty or 1.0)  # 1: this one was 0 throughout
        deviations, variances = _solve_balanced(matrix, target, [0.0, *loads[_OTHER:]])
        explained = sum(map(mul, deviations, target))
        explained += sum([penalty * value * value for penalty, value in zip(penalties, deviations, strict=True)])
        self._noise = max((square - explained) / max(1.0, equations.weight - 1.0), least_noise)
        mean = rate - sum([row[_TOTAL] * value for row, value in zip(gram[_TIME:], deviations, strict=True)]) / total
        if mean <= 0.0:
            return None
        self._expected = [mean, *deviations]
        return _Posterior(mean, rate, deviations, [noise * variance for variance in variances], priors)

    def _prior_variances(self, rate: float) -> list[float]:
        """Of the constant power, of the others and of each key: the smaller a load, the further it may be off.

        That gives keys whose loads are proportional the same price, whatever their proportion.
        """
        loads = self._loads
        watts = self._joules / loads[_TIME]
        per_load = (self._spread * rate) ** 2 * loads[_TOTAL] / len(self._slots)
        return [(_OFFSET_SPREAD * watts) ** 2, *[per_load / load if load > 0.0 else inf for load in loads[_OTHER:]]]

    def _identified(self, posterior: _Posterior) -> tuple[Mapping[Key, float], Mapping[Key, float]]:
        """Weights of all keys, and prices of those that are identifiable; both empty if none is."""
        low, high = WEIGHT_RANGE
        weights: dict[Key, float] = {}
        prices: dict[Key, float] = {}
        mean, total, squares = posterior.mean, self._loads[_TOTAL], 0.0
        for key, slot in self._slots.items():
            number = slot - _TIME
            load, variance = self._loads[slot], posterior.variances[number]
            if load <= 0.0:
                continue
            weight = weights[key] = min(max(1.0 + posterior.deviations[number] / mean, low), high)
            squares += load * (posterior.deviations[number] ** 2 + variance) / posterior.rate**2
            # The prior of a key that is nearly alone leaves nothing open: its price is the mean.
            open_variance = posterior.prior_variances[number] * (1.0 - load / total) * (_SPREAD / self._spread) ** 2
            exact = sqrt(variance) <= _IDENTIFIED_ERROR_RATIO * weight * mean
            if exact and variance <= _IDENTIFIED_VARIANCE_RATIO * open_variance:
                prices[key] = weight * mean
        count = max(2, len(weights))
        least, most = _SPREAD_RANGE
        self._spread = min(max(sqrt(squares / total * count / (count - 1)), least), most)
        return (weights, prices) if prices else ({}, {})


def _without_total(equations: NormalEquations) -> tuple[Triangle, list[float]]:
    """Matrix and right side of the regressors after `_TOTAL`, for what that one leaves unexplained."""
    gram, moments = equations.gram, equations.moments
    matrix: Triangle = []
    target: list[float] = []
    for row, moment in zip(gram[_TIME:], moments[_TIME:], strict=True):
        factor = row[_TOTAL] / gram[_TOTAL][_TOTAL]
        matrix.append([entry - factor * other[_TOTAL] for entry, other in zip(row[1:], gram[1:], strict=False)])
        target.append(moment - factor * moments[_TOTAL])
    return matrix, target


def _solve_balanced(
    matrix: Triangle, target: Sequence[float], loads: Sequence[float]
) -> tuple[list[float], list[float]]:
    """Solution whose sum over ``loads`` is 0, and the diagonal of its covariance for unit noise."""
    inverse = inverse_root(matrix)
    common = solve(inverse, loads)
    scale = sum(map(mul, common, loads))
    solution = solve(inverse, target)
    excess = sum(map(mul, solution, loads)) / scale
    solution = [value - excess * shift for value, shift in zip(solution, common, strict=True)]
    diagonal = inverse_diagonal(inverse)
    return solution, [max(0.0, value - shift * shift / scale) for value, shift in zip(diagonal, common, strict=True)]
