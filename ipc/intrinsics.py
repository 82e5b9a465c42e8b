"""The processor's own operations, as functions that kernels call.

Numba has no CPU atomics, and a plain load in a spin loop is hoisted out of it and never sees the
writer; so shared cells are read and written here only. Each function works on an element of a
one-dimensional C-contiguous array. LLVM's named intrinsics are used instead of inline assembly,
which makes LLVM abort under Numba ("Inline asm not supported by this streamer").

With the JIT off the same names are plain Python: one thread, so every access is already ordered.

On x86 acquire loads and release stores are plain moves; what they buy is that the compiler keeps
the order. The price on other processors is theirs.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ipc.kernel import JIT, kernel

_I1 = ir.IntType(1)
_I8 = ir.IntType(8)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_VOID = ir.VoidType()
_WORD_MASK = (1 << 64) - 1


def _element(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Address of array[index], without wraparound and without a bounds check."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    index, index_type = arguments[1], signature.args[1]
    if index_type.bitwidth < 64:
        extend = builder.sext if index_type.signed else builder.zext
        index = extend(index, _I64)
    return builder.gep(array.data, [index])


def _is_vector(array: Any) -> bool:
    return isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"


def _is_cell(array: Any, index: Any) -> bool:
    return (
        _is_vector(array)
        and isinstance(array.dtype, types.Integer)
        and isinstance(index, types.Integer)
    )


def _load(order: str) -> Any:
    @intrinsic
    def load(typing_context: Any, array: Any, index: Any) -> Any:
        if not _is_cell(array, index):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _element(context, builder, signature, arguments)
            return builder.load_atomic(pointer, order, array.dtype.bitwidth // 8)

        return array.dtype(array, index), generate

    return load


def _store(order: str) -> Any:
    @intrinsic
    def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
        if not _is_cell(array, index):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _element(context, builder, signature, arguments)
            new = context.cast(builder, arguments[2], signature.args[2], array.dtype)
            builder.store_atomic(new, pointer, order, array.dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(array, index, array.dtype), generate

    return store


def _fence(order: str) -> Any:
    @intrinsic
    def fence(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            builder.fence(order)
            return context.get_dummy_value()

        return types.void(), generate

    return fence


def _nullary(name: str, result: Any, result_type: Any) -> Any:
    """Call an LLVM intrinsic that takes nothing: `pause`, the cycle counter."""

    @intrinsic
    def call(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(result, []), name
            )
            value = builder.call(function, [])
            return context.get_dummy_value() if result is _VOID else value

        return result_type(), generate

    return call


def _bit_scan(name: str) -> Any:
    @intrinsic
    def scan(typing_context: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            scan_of = getattr(builder, name)
            return scan_of(arguments[0], ir.Constant(_I1, 1))

        return types.int64(types.int64), generate

    return scan


# What follows exists twice, so its type is that of whatever replaces the other.
fetch_add: Any
compare_exchange: Any
prefetch: Any
address_of: Any
mix64: Any
fibonacci_hash: Any
add_wrapping: Any

if JIT:
    load_acquire = _load("acquire")
    load_relaxed = _load("monotonic")
    store_release = _store("release")
    store_relaxed = _store("monotonic")
    fence_acquire = _fence("acquire")
    fence_release = _fence("release")
    fence_full = _fence("seq_cst")
    pause = _nullary("llvm.x86.sse2.pause", _VOID, types.void)
    read_tsc = _nullary("llvm.readcyclecounter", _I64, types.int64)
    trailing_zeros = _bit_scan("cttz")
    leading_zeros = _bit_scan("ctlz")

    @intrinsic
    def fetch_add(typing_context: Any, array: Any, index: Any, amount: Any) -> Any:
        """Add to a cell that has several writers, and return what it held before."""
        if not _is_cell(array, index):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _element(context, builder, signature, arguments)
            value = context.cast(builder, arguments[2], signature.args[2], array.dtype)
            return builder.atomic_rmw("add", pointer, value, "acq_rel")

        return array.dtype(array, index, array.dtype), generate

    @intrinsic
    def compare_exchange(
        typing_context: Any, array: Any, index: Any, expected: Any, new: Any
    ) -> Any:
        """Replace a cell's value when it is `expected`; return whether it was."""
        if not _is_cell(array, index):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = _element(context, builder, signature, arguments)
            pair = builder.cmpxchg(pointer, arguments[2], arguments[3], "acq_rel", "acquire")
            return builder.extract_value(pair, 1)

        return types.boolean(array, index, array.dtype, array.dtype), generate

    @intrinsic
    def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
        """Ask for the cache line of array[index], to be written soon. Never faults.

        On a page that this process may not write yet (a fork's copy on write) it costs 55 ns.
        """
        if not (_is_vector(array) and isinstance(index, types.Integer)):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.bitcast(
                _element(context, builder, signature, arguments), _I8.as_pointer()
            )
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(_VOID, [_I8.as_pointer(), _I32, _I32, _I32]),
                "llvm.prefetch.p0",
            )
            builder.call(function, [pointer, _I32(1), _I32(3), _I32(1)])
            return context.get_dummy_value()

        return types.void(array, index), generate

    @intrinsic
    def address_of(typing_context: Any, array: Any, index: Any) -> Any:
        """Address of array[index], for a C function that a kernel calls."""
        if not (_is_vector(array) and isinstance(index, types.Integer)):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.ptrtoint(_element(context, builder, signature, arguments), _I64)

        return types.int64(array, index), generate

    @kernel(inline=True)
    def pick(condition: bool, chosen: int, other: int) -> int:
        """Return `chosen` if the condition holds, else `other`, without a branch.

        For conditions that are as good as random. LLVM turns an if back into a branch as soon as
        one of the values is loaded from memory.
        """
        return other ^ ((chosen ^ other) & -int(condition))

    @kernel(inline=True)
    def mix64(value: int) -> Any:
        """Scatter 64 bits (splitmix64's finaliser): equal inputs, equal outputs, no patterns."""
        word = np.uint64(value)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.int64(word ^ (word >> np.uint64(31)))

    @kernel(inline=True)
    def fibonacci_hash(value: int) -> Any:
        """Spread 64 bits over 32 by the golden ratio: one multiplication, for hash tables."""
        return np.int64((np.uint64(value) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32))

    @kernel(inline=True)
    def add_wrapping(left: int, right: int) -> int:
        """Add modulo 2^64: for hashes that are combined by sum."""
        return left + right

    @kernel(inline=True)
    def multiply_add_wrapping(word: int, factor: int, addend: int) -> int:
        """Return word x factor + addend modulo 2^64: for hashes of several words."""
        return word * factor + addend

else:

    def load_acquire(array: Any, index: int) -> Any:
        return array[index]

    def store_release(array: Any, index: int, value: int) -> None:
        array[index] = value

    load_relaxed = load_acquire
    store_relaxed = store_release

    def fence_acquire() -> None:
        return None

    fence_release = fence_full = pause = fence_acquire

    def read_tsc() -> int:
        return time.perf_counter_ns()

    def trailing_zeros(word: int) -> int:
        value = int(word) & _WORD_MASK
        return (value & -value).bit_length() - 1

    def leading_zeros(word: int) -> int:
        return 64 - (int(word) & _WORD_MASK).bit_length()

    def fetch_add(array: Any, index: int, amount: int) -> Any:
        before = array[index]
        array[index] = before + amount
        return before

    def compare_exchange(array: Any, index: int, expected: int, new: int) -> bool:
        if array[index] != expected:
            return False
        array[index] = new
        return True

    def prefetch(array: Any, index: int) -> None:
        return None

    def address_of(array: Any, index: int) -> int:
        return int(array.ctypes.data + array.itemsize * index)

    def pick(condition: bool, chosen: int, other: int) -> int:
        return chosen if condition else other

    def _signed(word: int) -> np.int64:
        word &= _WORD_MASK
        return np.int64(word - (1 << 64) if word >> 63 else word)

    def mix64(value: int) -> Any:
        word = int(value) & _WORD_MASK
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD_MASK
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD_MASK
        return _signed(word ^ (word >> 31))

    def fibonacci_hash(value: int) -> Any:
        return np.int64(((int(value) & _WORD_MASK) * 0x9E3779B97F4A7C15 & _WORD_MASK) >> 32)

    def add_wrapping(left: int, right: int) -> Any:
        return _signed(int(left) + int(right))

    def multiply_add_wrapping(word: int, factor: int, addend: int) -> Any:
        return _signed(int(word) * int(factor) + int(addend))
