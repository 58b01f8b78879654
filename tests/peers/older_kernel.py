"""Runs a program as if the kernel had no Landlock: the system call by which it is asked for does not exist.

Arguments: the program and its arguments.
"""

import ctypes
import os
import struct
import sys

LANDLOCK_CREATE_RULESET = 444
ENOSYS = 38
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
RETURN_ERRNO, RETURN_ALLOW = 0x00050000, 0x7FFF0000
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06

# (code, jump if true, jump if false, value); the number of the system call is the first word.
FILTER = [
    (LOAD_WORD, 0, 0, 0),
    (JUMP_IF_EQUAL, 0, 1, LANDLOCK_CREATE_RULESET),
    (RETURN, 0, 0, RETURN_ERRNO | ENOSYS),
    (RETURN, 0, 0, RETURN_ALLOW),
]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def main():
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in FILTER)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = Program(len(FILTER), ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in [(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)]:
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
    os.execv(sys.argv[1], sys.argv[1:])


main()
