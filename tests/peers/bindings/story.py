"""Key, request, enrolment, identity, mutual TLS, HTTP, renewal: story.py TOKEN-FILE PORT HTTPS-PORT."""

import sys

import enclasp
from enclasp import ClientOptions, EnclaspError, HttpHeader, HttpRequest, KeyType, TlsVersion

with open(sys.argv[1]) as file:
    token = file.read()
port, https_port = int(sys.argv[2]), int(sys.argv[3])

home = enclasp.Enclasp()
try:
    home.open_key("soft:name=laptop")
except EnclaspError.Absent as error:
    print(f"absent: {error}")
key = home.open_or_make_key("soft:name=laptop", KeyType.P256)
assert home.open_or_make_key("soft:name=laptop", KeyType.P256).public_key() == key.public_key()
with open("laptop.csr", "w") as file:
    file.write(key.csr("CN=laptop,O=Acme", ["dns:laptop", "ip:127.0.0.1"]))

identity = home.enroll(token, "laptop", key)
print(f"enrolled {identity.subject()} {key.uri()} {key.schemes()[0]}")
assert identity.renew_after() < identity.not_after()
assert home.renew(identity).chain() != identity.chain()
print("renewed")
identity = home.identity("laptop")

for version in [TlsVersion.TLS12, TlsVersion.TLS13]:
    client = enclasp.Client(identity, ClientOptions(tls=version))
    stream = client.connect("localhost", port)
    stream.write(b"ping\n")
    answer = b""
    while not answer.endswith(b"\n"):
        answer += stream.read(1024)
    evidence = stream.evidence()
    print(f"{evidence.version} {evidence.signed_with} {evidence.certificate_sent} {answer.decode().strip()}")
    stream.finish()
    stream.close()
    try:
        stream.read(1)
    except EnclaspError.Unavailable as error:
        print(f"closed: {error}")

client = enclasp.Client(identity)
request = HttpRequest(url=f"https://localhost:{https_port}/status", headers=[HttpHeader(name="accept", value="*/*")])
response = client.request(request)
print(f"HTTP {response.status} {response.body.decode().strip()}")

try:
    client.connect("localhost", port, "elsewhere.example")
except EnclaspError.Untrusted as error:
    print(f"untrusted: {error}")
try:
    home.enroll(token + "x", "other", key)
except EnclaspError.Invalid as error:
    print(f"token: {error}")
home.delete_identity("laptop")
