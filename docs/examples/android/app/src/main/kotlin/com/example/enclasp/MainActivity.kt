// Not compiled where Enclasp is developed, for want of an Android SDK; see docs/android.md.

package com.example.enclasp

import android.os.Bundle
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.TextView
import androidx.fragment.app.FragmentActivity
import androidx.lifecycle.lifecycleScope
import enclasp.Client
import enclasp.Enclasp
import enclasp.EnclaspException
import enclasp.HttpRequest
import enclasp.Identity
import java.lang.ref.WeakReference
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext

/** Enrols with a token that is pasted, and asks a server that demands a client certificate. */
class MainActivity : FragmentActivity() {
    private lateinit var log: TextView

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        val token = EditText(this).apply { hint = "token, of `enclasp ca token`" }
        val url = EditText(this).apply { hint = "https://…" }
        val ask = Button(this).apply { text = "Ask" }
        log = TextView(this)
        setContentView(
            LinearLayout(this).apply {
                orientation = LinearLayout.VERTICAL
                listOf(token, url, ask, log).forEach(::addView)
            },
        )
        ask.setOnClickListener { ask(token.text.toString(), url.text.toString()) }
    }

    private fun ask(token: String, url: String) {
        lifecycleScope.launch {
            log.text = try {
                // Every call of the library blocks, so none is made on the main thread.
                withContext(Dispatchers.IO) {
                    Client(identity(token)).use { client ->
                        val answer = client.request(HttpRequest(url))
                        "${answer.status}\n${answer.body.decodeToString()}"
                    }
                }
            } catch (e: EnclaspException) {
                e.message
            }
        }
    }

    /** The stored identity; without one, that which the token gives. */
    private fun identity(token: String): Identity {
        val device = DeviceKey("enclasp", asks = true).apply { make(strongBox = true) }
        val shown = WeakReference(this)
        val signer = AndroidSigner(device) { shown.get() }
        val home = Enclasp(filesDir.resolve("enclasp").path)
        val key = home.signerKey("phone", device.publicKey.encoded, signer, device.asks)
        return try {
            home.identity("phone", key)
        } catch (e: EnclaspException.Absent) {
            home.enroll(token, "phone", key)
        }
    }
}
