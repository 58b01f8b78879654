// Not compiled where Enclasp is developed, for want of an Android SDK; see docs/android.md.

package com.example.enclasp

import android.security.keystore.KeyGenParameterSpec
import android.security.keystore.KeyPermanentlyInvalidatedException
import android.security.keystore.KeyProperties
import android.security.keystore.UserNotAuthenticatedException
import androidx.biometric.BiometricPrompt
import androidx.core.content.ContextCompat
import androidx.fragment.app.FragmentActivity
import enclasp.Scheme
import enclasp.Signer
import enclasp.SignerException
import enclasp.SigningRequest
import java.security.KeyPairGenerator
import java.security.KeyStore
import java.security.PrivateKey
import java.security.PublicKey
import java.security.Signature
import java.security.spec.ECGenParameterSpec
import java.util.concurrent.CompletableFuture
import java.util.concurrent.ExecutionException
import java.util.concurrent.TimeUnit.MILLISECONDS
import java.util.concurrent.TimeoutException

/** A P-256 key in the Android keystore. */
class DeviceKey(val alias: String, val asks: Boolean) {
    private val keyStore = KeyStore.getInstance(PROVIDER).apply { load(null) }

    /** The DER SubjectPublicKeyInfo, which is what `Enclasp.signerKey` takes. */
    val publicKey: PublicKey
        get() = keyStore.getCertificate(alias).publicKey

    val privateKey: PrivateKey
        get() = keyStore.getKey(alias, null) as PrivateKey

    /**
     * Makes the key, unless it is there. With `strongBox` it is made in the secure element or not at all
     * (StrongBoxUnavailableException): whether the TEE will do instead is for the caller to decide.
     */
    fun make(strongBox: Boolean) {
        if (keyStore.containsAlias(alias)) return
        val spec = KeyGenParameterSpec.Builder(alias, KeyProperties.PURPOSE_SIGN)
            .setAlgorithmParameterSpec(ECGenParameterSpec("secp256r1"))
            .setDigests(KeyProperties.DIGEST_SHA256)
            .setIsStrongBoxBacked(strongBox)
            .setUnlockedDeviceRequired(true)
        if (asks) {
            // A timeout of 0: a person for each signature.
            spec.setUserAuthenticationRequired(true)
                .setUserAuthenticationParameters(0, KeyProperties.AUTH_BIOMETRIC_STRONG)
                .setInvalidatedByBiometricEnrollment(true)
        }
        KeyPairGenerator.getInstance(KeyProperties.KEY_ALGORITHM_EC, PROVIDER).run {
            initialize(spec.build())
            generateKeyPair()
        }
    }

    private companion object {
        const val PROVIDER = "AndroidKeyStore"
    }
}

/** Signs with a key of the device; one that asks shows `BiometricPrompt` over `activity`. */
class AndroidSigner(private val key: DeviceKey, private val activity: () -> FragmentActivity?) : Signer {
    /** Called on a thread of the library's, never on the main thread. */
    override fun sign(request: SigningRequest): ByteArray {
        if (request.scheme() != Scheme.ECDSA_SECP256R1_SHA256) {
            throw SignerException.Unsupported("the key was made for SHA-256")
        }
        val signature = Signature.getInstance("SHA256withECDSA")
        try {
            signature.initSign(key.privateKey)
        } catch (e: KeyPermanentlyInvalidatedException) {
            throw SignerException.Locked("a finger was enrolled since the key was made: enrol again")
        } catch (e: UserNotAuthenticatedException) {
            throw SignerException.Locked("the device is locked")
        }
        val unlocked = if (key.asks) confirmed(signature, request) else signature
        unlocked.update(request.message())
        return unlocked.sign()
    }

    /** The signature object, once the person has agreed. The prompt goes away when nobody waits any more. */
    private fun confirmed(signature: Signature, request: SigningRequest): Signature {
        val activity = activity() ?: throw SignerException.Denied("the app is not in front")
        val answer = CompletableFuture<Signature>()
        val callback = object : BiometricPrompt.AuthenticationCallback() {
            override fun onAuthenticationSucceeded(result: BiometricPrompt.AuthenticationResult) {
                answer.complete(result.cryptoObject!!.signature!!)
            }

            override fun onAuthenticationError(code: Int, text: CharSequence) {
                val lockedOut = code == BiometricPrompt.ERROR_LOCKOUT || code == BiometricPrompt.ERROR_LOCKOUT_PERMANENT
                answer.completeExceptionally(
                    if (lockedOut) SignerException.Locked(text.toString()) else SignerException.Denied(text.toString()),
                )
            }
        }
        val main = ContextCompat.getMainExecutor(activity)
        lateinit var prompt: BiometricPrompt
        main.execute {
            prompt = BiometricPrompt(activity, main, callback)
            val info = BiometricPrompt.PromptInfo.Builder()
                .setTitle(request.reason())
                .setNegativeButtonText(activity.getString(android.R.string.cancel))
                .build()
            prompt.authenticate(info, BiometricPrompt.CryptoObject(signature))
        }
        while (true) {
            try {
                return answer.get(200, MILLISECONDS)
            } catch (e: TimeoutException) {
                if (!request.isWanted()) {
                    main.execute { prompt.cancelAuthentication() }
                    throw SignerException.Denied("nobody waits for it any more")
                }
            } catch (e: ExecutionException) {
                throw e.cause!!
            }
        }
    }
}
