// Mutual TLS with keys of the JVM's, behind signers in Kotlin: MainKt TOKEN-FILE PORT OTHER-PORT HTTPS-PORT.

import enclasp.Client
import enclasp.ClientOptions
import enclasp.Enclasp
import enclasp.EnclaspException
import enclasp.HttpRequest
import enclasp.Identity
import enclasp.KeyType
import enclasp.Scheme
import enclasp.Signer
import enclasp.SignerException
import enclasp.SigningRequest
import enclasp.TlsVersion
import java.io.ByteArrayOutputStream
import java.io.File
import java.security.KeyPairGenerator
import java.security.PrivateKey
import java.security.Signature
import java.security.spec.ECGenParameterSpec
import java.time.Duration
import java.util.concurrent.CompletableFuture
import java.util.concurrent.ConcurrentLinkedQueue
import java.util.concurrent.CountDownLatch
import java.util.concurrent.ExecutionException
import java.util.concurrent.TimeUnit.MILLISECONDS
import java.util.concurrent.TimeUnit.SECONDS

class JvmSigner(private val key: PrivateKey) : Signer {
    val reasons = ConcurrentLinkedQueue<String>()

    override fun sign(request: SigningRequest): ByteArray {
        reasons.add(request.reason())
        val algorithm = when (request.scheme()) {
            Scheme.ECDSA_SECP256R1_SHA256 -> "SHA256withECDSA"
            Scheme.ECDSA_SECP256R1_SHA384 -> "SHA384withECDSA"
            else -> throw SignerException.Unsupported("it is an EC key")
        }
        return signed(algorithm, request)
    }

    fun signed(algorithm: String, request: SigningRequest): ByteArray =
        Signature.getInstance(algorithm).run {
            initSign(key)
            update(request.message())
            sign()
        }
}

class Signs(private val answer: (SigningRequest) -> ByteArray) : Signer {
    override fun sign(request: SigningRequest) = answer(request)
}

class Main(private val port: Int, private val otherPort: Int) {
    private val home = Enclasp()
    private val pair =
        KeyPairGenerator.getInstance("EC").apply { initialize(ECGenParameterSpec("secp256r1")) }.generateKeyPair()
    private val good = JvmSigner(pair.private)

    /** From a token to an identity, with a key that only this JVM has. */
    fun enrol(token: String) {
        val key = home.signerKey("phone", pair.public.encoded, good)
        println("proved ${key.schemes()}")
        File("phone.csr").writeText(key.csr("CN=phone,O=Acme", listOf("dns:phone")))
        val identity = home.enroll(token, "phone", key)
        println("enrolled ${identity.subject()} ${identity.key().uri()}")
        home.renew(identity)
        println("renewed")
    }

    /** The identity, with its key behind `signer`. One that asks a person is not made to prove anything. */
    private fun identity(signer: Signer, asks: Boolean): Identity =
        home.identity("phone", home.signerKey("phone", pair.public.encoded, signer, asks))

    private fun connect(signer: Signer, asks: Boolean = false, port: Int = this.port, options: ClientOptions? = null): String =
        Client(identity(signer, asks), options).use { client ->
            client.connect("localhost", port.toUShort()).use { stream ->
                stream.write("ping\n".toByteArray())
                val answer = ByteArrayOutputStream()
                while (!answer.toString().endsWith("\n")) {
                    answer.write(stream.read(1024u))
                }
                val evidence = stream.evidence()
                stream.finish()
                "${evidence.version} ${evidence.signedWith} ${evidence.certificateSent} ${answer.toString().trim()}"
            }
        }

    fun connectInEachVersion() {
        for (version in TlsVersion.entries) {
            println(connect(good, options = ClientOptions(tls = version)))
        }
        check(good.reasons.contains("TLS client authentication to localhost:$port"))
    }

    fun ask(httpsPort: Int) {
        val response = Client(identity(good, false)).request(HttpRequest("https://localhost:$httpsPort/status"))
        println("HTTP ${response.status} ${String(response.body).trim()}")
    }

    fun misbehave() {
        refused("refuses") { throw SignerException.Denied("no finger on the sensor") }
        refused("throws") { throw IllegalStateException("the vault is\nempty " + "x".repeat(10_000)) }
        refused("lies") { request -> good.signed("SHA384withECDSA", request) }
    }

    private fun refused(what: String, answer: (SigningRequest) -> ByteArray) {
        try {
            println("$what: connected ${connect(Signs(answer), asks = true)}")
        } catch (refusal: EnclaspException) {
            val text = refusal.message!!
            check(text.length < 600 && text.count { it == '\n' } <= 1) { text }
            println("$what: ${refusal.javaClass.simpleName}: ${text.lines().first()}")
        }
    }

    /** While one signer blocks, another signs. Nobody lets the first one go before its caller has given up. */
    fun block() {
        val asked = CountDownLatch(1)
        val unwanted = CountDownLatch(1)
        val released = CountDownLatch(1)
        val blocks = Signs { request ->
            asked.countDown()
            while (request.isWanted()) {
                released.await(10, MILLISECONDS)
            }
            unwanted.countDown()
            released.await()
            ByteArray(0)
        }
        val options = ClientOptions(promptTimeout = Duration.ofSeconds(1))
        val waiting = CompletableFuture.supplyAsync { connect(blocks, asks = true, port = otherPort, options = options) }
        check(asked.await(60, SECONDS))
        println("meanwhile ${connect(good)}")
        try {
            println("blocks: connected ${waiting.get(60, SECONDS)}")
        } catch (failed: ExecutionException) {
            println("blocks: ${failed.cause!!.javaClass.simpleName}: ${failed.cause!!.message}")
        }
        check(unwanted.await(60, SECONDS)) { "a signer is told that nobody waits any more" }
        released.countDown()
    }

    /** A key of the user's agent, as the command `enclasp` has it. */
    fun useTheAgent() {
        val key = home.openOrMakeKey("soft:name=desktop", KeyType.ED25519)
        println("agent ${key.uri()} ${key.schemes()}")
    }
}

fun main(arguments: Array<String>) {
    val (token, port, otherPort, httpsPort) = arguments
    Main(port.toInt(), otherPort.toInt()).run {
        enrol(File(token).readText())
        connectInEachVersion()
        ask(httpsPort.toInt())
        misbehave()
        block()
        useTheAgent()
    }
}
