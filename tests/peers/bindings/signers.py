"""Signers of a program's own: signers.py PORT OTHER-PORT, two servers.

The key is in own.key, its certificate in own.pem, and OpenSSL signs with it.
"""

import os
import subprocess
import sys
import threading
from datetime import timedelta

import enclasp
from enclasp import ClientOptions, EnclaspError, Scheme, SignerError, TlsVersion

port, other_port = int(sys.argv[1]), int(sys.argv[2])


def openssl(*arguments, stdin=b""):
    return subprocess.run(["openssl", *arguments], input=stdin, stdout=subprocess.PIPE, check=True).stdout


def read(name):
    with open(name) as file:
        return file.read()


class Good(enclasp.Signer):
    def __init__(self):
        self.calls = []

    def sign(self, request):
        self.calls.append((request.scheme(), request.reason()))
        digest = "-sha384" if request.scheme() == Scheme.ECDSA_SECP256R1_SHA384 else "-sha256"
        return openssl("dgst", digest, "-sign", "own.key", stdin=request.message())


class Refuses(enclasp.Signer):
    def sign(self, request):
        raise SignerError.Denied("no finger on the sensor")


class Throws(enclasp.Signer):
    def sign(self, request):
        raise ValueError("the vault is empty " + "x" * 10_000)


class Lies(enclasp.Signer):
    """Signs a SHA-384 digest, whatever it is asked for."""

    def sign(self, request):
        return openssl("dgst", "-sha384", "-sign", "own.key", stdin=request.message())


class AnswersNonsense(enclasp.Signer):
    def sign(self, request):
        return 7


class Blocks(enclasp.Signer):
    def __init__(self):
        self.asked, self.unwanted, self.released = threading.Event(), threading.Event(), threading.Event()

    def sign(self, request):
        assert request.is_wanted() and request.time_left() <= timedelta(seconds=1)
        self.asked.set()
        while request.is_wanted():
            self.released.wait(0.01)
        self.unwanted.set()
        self.released.wait()
        return b""


home = enclasp.Enclasp()
public_key = openssl("pkey", "-in", "own.key", "-pubout", "-outform", "DER")
root, certificate = read("ca/root.pem"), read("own.pem")


def connect(signer, asks, port=port, **options):
    """One line of an echo, by the key behind `signer`."""
    key = home.signer_key("own", public_key, signer, asks)
    identity = home.import_identity("own", key, certificate, root)
    client = enclasp.Client(identity, ClientOptions(**options))
    stream = client.connect("localhost", port)
    stream.write(b"ping\n")
    answer = b""
    while not answer.endswith(b"\n"):
        answer += stream.read(1024)
    evidence = stream.evidence()
    stream.close()
    return f"{evidence.version} {evidence.signed_with} {answer.decode().strip()}"


def refused(what, signer, asks=True, **options):
    try:
        print(f"{what}: connected {connect(signer, asks, **options)}")
    except EnclaspError as error:
        text = str(error)
        assert len(text) < 600 and text.count("\n") <= 1, text
        print(f"{what}: {type(error).__name__}: {text.splitlines()[0]}")


# One that asks a person is not called before it is needed; nothing is on record of it.
refused("refuses", Refuses())
refused("throws", Throws())
refused("lies", Lies())
refused("answers nonsense", AnswersNonsense())
refused("refuses the proof", Refuses(), asks=False)

# One that asks nobody proves at once what it can do. What a liar is proved to do TLS 1.3 has no use for.
print(f"a liar was proved to do {home.signer_key('own', public_key, Lies()).schemes()}")
refused("lies", Lies(), asks=False, tls=TlsVersion.TLS13)

good = Good()
key = home.signer_key("own", public_key, good)
print(f"proved {key.schemes()} by {len(good.calls)} calls")
good = Good()
assert home.signer_key("own", public_key, good).schemes() == key.schemes() and not good.calls, "it is on record"
with open("own.csr", "w") as file:
    file.write(key.csr("CN=own,O=Acme"))
for version in [TlsVersion.TLS12, TlsVersion.TLS13]:
    print(connect(good, False, tls=version))
print(good.calls[-1])

# While one signer blocks, another signs. Nobody lets the first one go before its caller has given up.
blocks, outcome = Blocks(), []


def give_up():
    try:
        connect(blocks, True, port=other_port, prompt_timeout=timedelta(seconds=1))
    except EnclaspError as error:
        outcome.append(error)


waiting = threading.Thread(target=give_up)
waiting.start()
assert blocks.asked.wait(60)
print(f"meanwhile {connect(Good(), False)}")
waiting.join(60)
assert blocks.unwanted.wait(60), "a signer is told that nobody waits any more"
print(f"blocks: {type(outcome[0]).__name__}: {outcome[0]}")
blocks.released.set()
# A thread of the library may still be in Python, which an interpreter that ends cannot bear.
sys.stdout.flush()
os._exit(0)
