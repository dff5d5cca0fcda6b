"""How devices share one clip: who has which tokens and which heads, by arithmetic alone."""

from __future__ import annotations

from typing import NamedTuple

from framewake.errors import InputError

# Attention that takes so much longer than evenly shared is still cheaper than gathering all keys.
EVEN = 1.1


class Arrangement(NamedTuple):
    """Devices in ``groups`` of ``neighbours``: neighbours share out heads, groups gather each other's keys.

    ``is_halved``: the two samples of classic guidance go to two halves of the devices, each arranged like this.
    """

    neighbours: int = 1
    groups: int = 1
    is_halved: bool = False

    @property
    def size(self) -> int:
        """How many devices."""
        return self.neighbours * self.groups * (1 + self.is_halved)


ALONE = Arrangement()


def arrange(devices: int, heads: int, *, samples: int = 1, on_one_host: int | None = None) -> Arrangement:
    """Two samples apart, then as many neighbours as share heads evenly enough.

    Neighbours exchange less than groups do, and stand on one host, where links are fast. Of numbers that waste as
    little, the largest.
    """
    is_halved = samples == 2 and devices % 2 == 0
    count = devices // (1 + is_halved)
    host = on_one_host or count
    fitting = [n for n in range(1, min(count, heads, host) + 1) if count % n == 0 and host % n == 0]
    neighbours = min(fitting, key=lambda n: (max(wasted(heads, n), EVEN), -n))
    return Arrangement(neighbours, count // neighbours, is_halved)


def wasted(heads: int, neighbours: int) -> float:
    """What the busiest of the neighbours has to do, over the even share: 1 where heads divide."""
    return -(-heads // neighbours) * neighbours / heads


def runs(count: int, parts: int) -> tuple[tuple[int, int], ...]:
    """Consecutive runs [start, stop) of sizes that differ by one at most."""
    return tuple((part * count // parts, (part + 1) * count // parts) for part in range(parts))


class Division(NamedTuple):
    """The tokens and heads of one call for one device: part of what is built into a compiled block.

    ``tokens`` are the image's. Ranks go along groups, in them along neighbours, so a group's tokens are one run.
    """

    arrangement: Arrangement
    rank: int
    tokens: int
    heads: int

    @property
    def sample(self) -> int:
        """Which sample this device works at, where they are apart."""
        return self.rank // self._count if self.arrangement.is_halved else 0

    @property
    def run(self) -> tuple[int, int]:
        """This device's tokens."""
        return self.run_of(self.rank)

    def run_of(self, rank: int) -> tuple[int, int]:
        """A device's tokens."""
        return runs(self.tokens, self._count)[rank % self._count]

    def heads_of(self, rank: int) -> tuple[int, int]:
        """The heads that a device attends with."""
        neighbours = self.arrangement.neighbours
        return runs(self.heads, neighbours)[rank % neighbours]

    @property
    def held(self) -> tuple[tuple[int, int, int], ...]:
        """What each rank holds: sample, first token, and the one behind the last."""
        ranks = range(self.arrangement.size)
        return tuple((self._replace(rank=rank).sample, *self.run_of(rank)) for rank in ranks)

    @property
    def together(self) -> tuple[int, ...]:
        """The ranks that attend to each other's tokens, in the order of the tokens."""
        first = self.rank // self._count * self._count
        return tuple(range(first, first + self._count))

    @property
    def near(self) -> tuple[int, ...]:
        """The ranks of this one's neighbours and itself."""
        first = self.rank // self.arrangement.neighbours * self.arrangement.neighbours
        return tuple(range(first, first + self.arrangement.neighbours))

    def check(self) -> Division:
        """Itself.

        Raises: InputError for more devices than there are tokens or heads to share.
        """
        if self.tokens < self._count:
            raise InputError(f"{self._count} devices cannot share {self.tokens} tokens: take fewer devices.")
        if self.heads < self.arrangement.neighbours:
            raise InputError(
                f"{self.arrangement.neighbours} devices cannot share {self.heads} heads: put them into groups."
            )
        return self

    @property
    def _count(self) -> int:
        return self.arrangement.neighbours * self.arrangement.groups
