"""Arguments for the boundary gate: good ones, and wrong ones of every kind, each with the answer whether it fits."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

NO_ARRAYS: list[Any] = [None, 1, 1.5, "array", b"\0" * 64, [0.0] * 5, (), {}, object(), np.float32(1), range(5)]
NO_INTS: list[Any] = [
    None,
    "1",
    b"1",
    1.5,
    float("nan"),
    [],
    object(),
    1j,
    np.array([1, 2]),
    -(2**63) - 1,
    2**64,
    2**200,
]
NO_FLOATS: list[Any] = [None, "1.0", b"1", [], object(), 1j, 2**2000]
NO_TEXTS: list[Any] = [None, 1, b"lockfree", b"\xff", [], object()]
BAD_TEXTS = ["", "Lockfree", "lock\0free", "\ud800", "ä" * 300, "lockfree "]
DTYPES = ["f4", "f8", "f2", "i8", "u8", "q", "i4", "u1", "?", ">f4", ">f8", ">i8", "O", "S4", "M8[s]", "c8", "V8"]


class Subclass(np.ndarray):
    pass


def fits(value: Any, dtype: str, shape: tuple[int | None, ...], write: bool = False) -> bool:
    """Whether the boundary should take `value` for an array of this dtype and shape (None: any length)."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.dtype(dtype)
        and value.ndim == len(shape)
        and all(want is None or want == have for want, have in zip(shape, value.shape, strict=True))
        and bool(value.flags.c_contiguous and value.flags.aligned)
        and (bool(value.flags.writeable) or not write)
    )


class Draw(random.Random):
    """Draws arguments; the same number gives the same ones."""

    def array(self, dtype: str, shape: tuple[int | None, ...], fill: Any = 0, write: bool = False) -> tuple[Any, bool]:
        """An array argument and whether it fits; two of three do."""
        sizes = tuple(self.randrange(6) if n is None else n for n in shape)
        good = np.full(sizes, fill, dtype) if np.isscalar(fill) else np.ascontiguousarray(fill, dtype).reshape(sizes)
        value = good if self.random() < 0.66 else self.wrong(good)
        return value, fits(value, dtype, shape, write)

    def wrong(self, good: np.ndarray) -> Any:
        """Something close to `good` that mostly does not fit. `good` has room behind it for nobody."""
        kinds = [
            lambda: self.choice(NO_ARRAYS),
            lambda: good.tolist(),
            lambda: memoryview(good),
            lambda: np.zeros(good.shape, self.choice(DTYPES)),
            lambda: good.astype(good.dtype.newbyteorder()),
            lambda: np.zeros([n + self.choice((-1, 1, 64)) if n else 1 for n in good.shape], good.dtype),
            lambda: good[np.newaxis],
            lambda: good.reshape(-1)[:0],
            lambda: np.zeros((), good.dtype),
            lambda: good[..., ::-1],
            lambda: np.repeat(good, 2, axis=-1)[..., ::2],
            lambda: np.broadcast_to(np.zeros(1, good.dtype), good.shape),
            lambda: good.T,
            lambda: np.asfortranarray(good),
            lambda: misaligned(good),
            lambda: read_only(good),
            lambda: good.view(Subclass),
            lambda: np.ma.masked_array(good),
            lambda: good.view("u1") if good.ndim == 1 else good.view("V1"),
        ]
        return self.choice(kinds)()

    def integer(self, low: int, high: int, limit: int | None = None) -> tuple[Any, bool]:
        """A number from low to high, or something that is none, or is below low or above the limit (None: high)."""
        limit = high if limit is None else limit
        pick = self.random()
        if pick < 0.8:
            number = self.randint(low, high)
            return (np.int64(number), True) if pick < 0.1 and high < 2**63 else (number, True)
        if pick < 0.9:
            return self.choice([low - 1, limit + 1]), False
        value = self.choice([*NO_INTS, -1, 2**31, 2**32, 2**63, 2**64 - 1])
        return value, isinstance(value, int) and low <= value <= limit

    def real(self, low: float, high: float) -> tuple[Any, bool]:
        """A finite number from low to high, or something that is none."""
        if self.random() < 0.85:
            return self.uniform(low, high), True
        value = self.choice([*NO_FLOATS, float("nan"), float("inf"), -float("inf")])
        return value, False

    def text(self, known: tuple[str, ...]) -> tuple[Any, bool]:
        pick = self.random()
        if pick < 0.85:
            return self.choice(known), True
        return self.choice(NO_TEXTS if pick < 0.92 else BAD_TEXTS), False

    def gradient(self, n: int) -> np.ndarray:
        """Small whole numbers, so that sums are exact; now and then one that is not finite."""
        grad = np.array([self.randint(-3, 3) for _ in range(n)], np.float32)
        if self.random() < 0.1:
            grad[self.randrange(n)] = self.choice([np.nan, np.inf, -np.inf])
        return grad


def misaligned(good: np.ndarray) -> np.ndarray:
    memory = np.zeros(good.nbytes + 1, np.uint8)
    return np.ndarray(good.shape, good.dtype, memory.data, offset=1)


def read_only(good: np.ndarray) -> np.ndarray:
    copy = good.copy()
    copy.flags.writeable = False
    return copy
