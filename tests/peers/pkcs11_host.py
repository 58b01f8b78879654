"""A host of our PKCS#11 module that signs in many threads, and after a fork, in the child and in the parent.

Arguments: the module, the CKA_LABEL of a P-256 key. It speaks PKCS#11 2.40 by the table of functions.
"""

import ctypes
import os
import sys
import threading

ULONG = ctypes.c_ulong
NAMES = (
    "Initialize Finalize GetInfo GetFunctionList GetSlotList GetSlotInfo GetTokenInfo GetMechanismList "
    "GetMechanismInfo InitToken InitPIN SetPIN OpenSession CloseSession CloseAllSessions GetSessionInfo "
    "GetOperationState SetOperationState Login Logout CreateObject CopyObject DestroyObject GetObjectSize "
    "GetAttributeValue SetAttributeValue FindObjectsInit FindObjects FindObjectsFinal EncryptInit Encrypt "
    "EncryptUpdate EncryptFinal DecryptInit Decrypt DecryptUpdate DecryptFinal DigestInit Digest DigestUpdate "
    "DigestKey DigestFinal SignInit Sign"
).split()
SERIAL_SESSION = 4
CLASS, LABEL, PRIVATE_KEY, ECDSA = 0, 3, 3, 0x1041
NOT_INITIALIZED, ALREADY_INITIALIZED, HANDLE_INVALID = 0x190, 0x191, 0xB3


class Attribute(ctypes.Structure):
    _fields_ = [("type", ULONG), ("value", ctypes.c_void_p), ("length", ULONG)]


class Mechanism(ctypes.Structure):
    _fields_ = [("mechanism", ULONG), ("parameter", ctypes.c_void_p), ("length", ULONG)]


class Module:
    def __init__(self, path):
        table = ctypes.POINTER(ctypes.c_void_p)()
        assert ctypes.CDLL(path).C_GetFunctionList(ctypes.byref(table)) == 0
        # The version takes the first word.
        self.functions = {name: table[1 + place] for place, name in enumerate(NAMES)}

    def code(self, name, *arguments):
        types = [type(argument) for argument in arguments]
        return ctypes.CFUNCTYPE(ULONG, *types)(self.functions[name])(*arguments)

    def call(self, name, *arguments):
        code = self.code(name, *arguments)
        assert code == 0, f"{name}: {code:#x}"

    def session(self):
        session = ULONG()
        self.call("OpenSession", ULONG(0), ULONG(SERIAL_SESSION), ctypes.c_void_p(), ctypes.c_void_p(),
                  ctypes.pointer(session))
        return session

    def key(self, session, label):
        kind, name = ULONG(PRIVATE_KEY), ctypes.create_string_buffer(label.encode(), len(label))
        template = (Attribute * 2)(
            Attribute(CLASS, ctypes.addressof(kind), ctypes.sizeof(kind)),
            Attribute(LABEL, ctypes.addressof(name), len(label)),
        )
        found, count = ULONG(), ULONG()
        self.call("FindObjectsInit", session, template, ULONG(2))
        self.call("FindObjects", session, ctypes.pointer(found), ULONG(1), ctypes.pointer(count))
        self.call("FindObjectsFinal", session)
        assert count.value == 1, "there is no such key"
        return found

    def begin(self, session, key):
        return self.code("SignInit", session, ctypes.pointer(Mechanism(ECDSA, None, 0)), key)

    def sign(self, session, key):
        assert self.begin(session, key) == 0
        digest, signature, length = (ctypes.c_ubyte * 32)(*range(32)), (ctypes.c_ubyte * 64)(), ULONG(64)
        self.call("Sign", session, digest, ULONG(32), signature, ctypes.pointer(length))
        assert length.value == 64 and any(signature)


def many(module, key, threads, signatures):
    """Signs in threads of its own, each with a session; what fails in one fails here."""
    failures = []

    def work():
        try:
            session = module.session()
            for _ in range(signatures):
                module.sign(session, key)
            module.call("CloseSession", session)
        except BaseException as failure:
            failures.append(failure)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not failures, failures


def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as failure:
            print("child:", failure, file=sys.stderr, flush=True)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0, "the child failed"


def main():
    module, label = Module(sys.argv[1]), sys.argv[2]
    assert module.code("Finalize", ctypes.c_void_p()) == NOT_INITIALIZED
    module.call("Initialize", ctypes.c_void_p())
    assert module.code("Initialize", ctypes.c_void_p()) == ALREADY_INITIALIZED
    session = module.session()
    key = module.key(session, label)
    module.sign(session, key)
    many(module, key, 16, 20)

    def goes_on():
        module.sign(session, key)
        many(module, key, 4, 5)

    def begins_anew():
        module.call("Initialize", ctypes.c_void_p())
        assert module.begin(session, key) == HANDLE_INVALID
        own = module.session()
        module.sign(own, module.key(own, label))

    in_child(goes_on)
    in_child(begins_anew)
    # While others sign, so that locks are held when it forks.
    busy = threading.Thread(target=many, args=(module, key, 4, 200))
    busy.start()
    for _ in range(20):
        in_child(lambda: module.sign(session, key))
    busy.join()
    module.sign(session, key)
    module.call("Finalize", ctypes.c_void_p())
    assert module.begin(session, key) == NOT_INITIALIZED
    module.call("Initialize", ctypes.c_void_p())
    session = module.session()
    module.sign(session, module.key(session, label))
    print("all is well")


main()
