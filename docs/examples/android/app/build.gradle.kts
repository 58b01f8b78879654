// Not run where Enclasp is developed, for want of an Android SDK; see docs/android.md.

plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "com.example.enclasp"
    compileSdk = 35

    defaultConfig {
        applicationId = "com.example.enclasp"
        // setUserAuthenticationParameters; StrongBox is there since 28, java.time since 26.
        minSdk = 30
        targetSdk = 35
        versionCode = 1
        versionName = "1"
    }
    sourceSets["main"].apply {
        // What `cargo run -p enclasp-bindings --example generate -- LIBRARY app/generated kotlin` writes.
        kotlin.srcDir("generated")
        // libenclasp_bindings.so for each ABI, as cargo-ndk builds it.
        jniLibs.srcDir("libraries")
    }
}

dependencies {
    implementation("androidx.biometric:biometric:1.1.0")
    implementation("androidx.fragment:fragment-ktx:1.8.5")
    implementation("androidx.lifecycle:lifecycle-runtime-ktx:2.8.7")
    implementation("net.java.dev.jna:jna:5.13.0@aar")
}
