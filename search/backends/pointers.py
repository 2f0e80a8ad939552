"""Pointers for compiled kernels: what numba's arrays are too heavy for.

A change here does not reach kernels that numba has already compiled and stored: their cache looks
at their own file alone, so touch that as well.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _type_data(_typing, array):
    """The address of an array's first item, as a pointer."""

    def generate(context, builder, signature, arguments):
        return context.make_array(signature.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


def _type_pointer(_typing, address, like):
    """An address as a pointer of the kind of `like`."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return like(address, like), generate


def _type_moved(_typing, pointer, offset):
    """The pointer to item `offset` of a pointer."""

    def generate(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.intp), generate


def _type_number(_typing, like, number):
    """A number as an item of the pointer `like`: a plain 1 would make float64 of a float32."""

    def generate(context, builder, signature, arguments):
        return context.cast(builder, arguments[1], signature.args[1], signature.return_type)

    return like.dtype(like, number), generate


def _type_prefetch(_typing, pointer, offset):
    """Asks for the cache line of `pointer[offset]`; changes nothing."""

    def generate(context, builder, signature, arguments):
        address = builder.gep(arguments[0], [arguments[1]])
        address = builder.bitcast(address, ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        call = builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind)
        # Read, keep in all caches, data.
        builder.call(call, [address, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(pointer, types.intp), generate


data: Any = intrinsic(_type_data)
pointer: Any = intrinsic(_type_pointer)
moved: Any = intrinsic(_type_moved)
number: Any = intrinsic(_type_number)
prefetch: Any = intrinsic(_type_prefetch)
