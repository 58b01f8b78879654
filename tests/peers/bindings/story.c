/* Mutual TLS in C, with a key behind a signer of the program's own: story TOKEN-FILE PORT HTTPS-PORT.
 *
 * The key is in own.key, its public key in own.der, and OpenSSL signs with it. */

#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "enclasp.h"

static void must(const char *what, enclasp_status status) {
    if (status != ENCLASP_OK) {
        fprintf(stderr, "%s: %d: %s\n", what, status, enclasp_message());
        exit(1);
    }
}

/* The contents of a file, with a zero byte after them. */
static char *contents(const char *name, size_t *length) {
    FILE *file = fopen(name, "rb");
    char *text = calloc(1, 1 << 16);
    if (file == NULL || text == NULL) {
        perror(name);
        exit(1);
    }
    *length = fread(text, 1, (1 << 16) - 1, file);
    fclose(file);
    return text;
}

/* How the signer behaves. */
struct own {
    const char *digest;
    const char *refusal;
    int released;
};

static enclasp_status sign(void *context, const enclasp_signing_request *request,
                           uint8_t signature[ENCLASP_MAX_SIGNATURE], size_t *length,
                           char reason[ENCLASP_MAX_REASON]) {
    struct own *own = context;
    if (own->refusal != NULL) {
        snprintf(reason, ENCLASP_MAX_REASON, "%s", own->refusal);
        return ENCLASP_DENIED;
    }
    if (!enclasp_request_is_wanted(request) || enclasp_request_time_left(request) == 0 ||
        enclasp_request_reason(request)[0] == '\0') {
        return ENCLASP_SIGNER;
    }
    const char *digest = own->digest;
    if (digest == NULL) {
        digest = enclasp_request_scheme(request) == ENCLASP_ECDSA_SECP256R1_SHA384 ? "sha384" : "sha256";
    }
    char name[] = "message-XXXXXX";
    int file = mkstemp(name);
    FILE *message = file < 0 ? NULL : fdopen(file, "wb");
    if (message == NULL) {
        return ENCLASP_SIGNER;
    }
    size_t size;
    const uint8_t *bytes = enclasp_request_message(request, &size);
    fwrite(bytes, 1, size, message);
    fclose(message);
    char command[128];
    snprintf(command, sizeof command, "openssl dgst -%s -sign own.key %s", digest, name);
    FILE *openssl = popen(command, "r");
    *length = openssl == NULL ? 0 : fread(signature, 1, ENCLASP_MAX_SIGNATURE, openssl);
    int ended = openssl == NULL ? -1 : pclose(openssl);
    remove(name);
    return ended == 0 ? ENCLASP_OK : ENCLASP_SIGNER;
}

static void release(void *context) {
    ((struct own *)context)->released = 1;
}

static enclasp_status connected(const enclasp_identity *identity, uint16_t version, uint16_t port) {
    enclasp_client_options options = {.version = version};
    enclasp_client *client;
    must("client", enclasp_client_new(identity, &options, &client));
    enclasp_stream *stream = NULL;
    enclasp_status status = enclasp_connect(client, "localhost", port, NULL, &stream);
    enclasp_client_free(client);
    if (status != ENCLASP_OK) {
        return status;
    }
    must("write", enclasp_write(stream, (const uint8_t *)"ping\n", 5));
    uint8_t answer[16];
    size_t have = 0;
    while (have == 0 || answer[have - 1] != '\n') {
        size_t length;
        must("read", enclasp_read(stream, answer + have, sizeof answer - have, &length));
        have += length;
    }
    char *evidence;
    must("evidence", enclasp_evidence(stream, &evidence));
    const char *proof = strstr(evidence, version == 12 ? "\"TLSv1.2\"" : "\"TLSv1.3\"");
    printf("version %d %s %.*s", version, proof == NULL ? "?" : "as wanted", (int)have, (const char *)answer);
    enclasp_text_free(evidence);
    must("finish", enclasp_finish(stream));
    must("close", enclasp_close(stream));
    enclasp_stream_free(stream);
    return ENCLASP_OK;
}

int main(int count, char **arguments) {
    if (count != 4) {
        return 2;
    }
    uint16_t port = (uint16_t)atoi(arguments[2]);
    size_t length, key_length;
    char *token = contents(arguments[1], &length);
    uint8_t *public_key = (uint8_t *)contents("own.der", &key_length);

    enclasp *home;
    must("open", enclasp_open(NULL, &home));
    enclasp_key *key = NULL;
    if (enclasp_open_key(home, "soft:name=nobody", &key) == ENCLASP_ABSENT) {
        printf("absent: %s\n", enclasp_message());
    }
    if (enclasp_open_key(home, NULL, &key) == ENCLASP_INVALID) {
        printf("invalid: %s\n", enclasp_message());
    }

    struct own good = {0};
    must("key", enclasp_signer_key(home, "own", public_key, key_length, false, sign, &good, release, &key));
    char *pem;
    const char *names[] = {"dns:own"};
    must("request", enclasp_key_csr(key, "CN=own,O=Acme", names, 1, &pem));
    FILE *request = fopen("own.csr", "w");
    fputs(pem, request);
    fclose(request);
    enclasp_text_free(pem);

    enclasp_identity *identity;
    must("enroll", enclasp_enroll(home, token, "own", key, 0, &identity));
    enclasp_identity *renewed;
    must("renew", enclasp_renew(home, identity, &renewed));
    if (enclasp_identity_renew_after(renewed) < enclasp_identity_not_after(renewed)) {
        printf("enrolled and renewed\n");
    }
    must("TLS 1.2", connected(renewed, 12, port));
    must("TLS 1.3", connected(renewed, 13, port));

    enclasp_client *client;
    must("client", enclasp_client_new(renewed, NULL, &client));
    char url[64];
    snprintf(url, sizeof url, "https://localhost:%s/status", arguments[3]);
    uint16_t code;
    uint8_t *answer;
    must("HTTP", enclasp_http(client, "GET", url, NULL, 0, 0, &code, &answer, &length));
    printf("HTTP %d %.*s\n", code, (int)length, (const char *)answer);
    enclasp_bytes_free(answer, length);
    enclasp_client_free(client);
    enclasp_identity_free(identity);
    enclasp_identity_free(renewed);
    enclasp_key_free(key);
    printf("released %d\n", good.released);

    struct own bad[] = {{.refusal = "no finger on the sensor"}, {.digest = "sha384"}};
    for (size_t i = 0; i < 2; i++) {
        must("key", enclasp_signer_key(home, "own", public_key, key_length, true, sign, &bad[i], release, &key));
        must("find", enclasp_find_identity(home, "own", key, &identity));
        enclasp_status status = connected(identity, 13, port);
        printf("%d: %s\n", status, enclasp_message());
        enclasp_identity_free(identity);
        enclasp_key_free(key);
    }
    must("delete", enclasp_delete_identity(home, "own"));
    enclasp_free(home);
    free(token);
    free(public_key);
    return 0;
}
