/*
 * Enclasp for C: keys, requests, enrolment, identities and mutual TLS, and signers that a program brings along.
 *
 * Every function that can fail returns an enclasp_status; enclasp_message() then says why. What a function makes it
 * writes to its last parameters, and what has a name ending in _free frees it: it may be given NULL. Text is UTF-8
 * and ends with a zero byte; what is given in is copied. Every call blocks until it is done or its time is over.
 * Objects may be used by several threads at once, but not after they were freed.
 */
#ifndef ENCLASP_H
#define ENCLASP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What came of a call, by what can be done about it. */
typedef enum {
    ENCLASP_OK = 0,
    ENCLASP_ABSENT = 1,          /* there is no key or identity of that name */
    ENCLASP_EXISTS = 2,          /* there is one already */
    ENCLASP_LOCKED = 3,          /* a PIN is missing or wrong, or the device locked itself */
    ENCLASP_DENIED = 4,          /* a person or a rule refused the signature */
    ENCLASP_BUSY = 5,            /* it may work later */
    ENCLASP_UNSUPPORTED = 6,     /* the key, the keystore or the peer can never do this */
    ENCLASP_DEADLINE = 7,        /* there was no answer in time */
    ENCLASP_WRONG_SIGNATURE = 8, /* the key's signature does not verify; it was not sent */
    ENCLASP_SIGNER = 9,          /* the program's own signer failed */
    ENCLASP_UNAVAILABLE = 10,    /* the other end cannot be reached, or the connection broke */
    ENCLASP_REFUSED = 11,        /* the server or the authority refused us */
    ENCLASP_UNTRUSTED = 12,      /* we refused the server */
    ENCLASP_INVALID = 13,        /* an argument cannot be used */
    ENCLASP_FAILED = 14          /* anything else */
} enclasp_status;

/* Why the last call of this thread that failed did; "" before any. It is good until the next one fails. A second line
 * that begins with "hint: " says what to do. */
const char *enclasp_message(void);

/* Frees text that a function made. */
void enclasp_text_free(char *text);

typedef struct enclasp enclasp;                   /* a user's keys and identities */
typedef struct enclasp_key enclasp_key;           /* a private key that can be used and not read */
typedef struct enclasp_identity enclasp_identity; /* a key with its certificate */
typedef struct enclasp_client enclasp_client;     /* makes connections as one identity */
typedef struct enclasp_stream enclasp_stream;     /* a connection over mutual TLS */

void enclasp_free(enclasp *home);
void enclasp_key_free(enclasp_key *key);
void enclasp_identity_free(enclasp_identity *identity);
void enclasp_client_free(enclasp_client *client);
void enclasp_stream_free(enclasp_stream *stream);

/* What is in FOLDER; NULL is where the command `enclasp` looks. */
enclasp_status enclasp_open(const char *folder, enclasp **home);

typedef enum {
    ENCLASP_P256 = 0,
    ENCLASP_P384 = 1,
    ENCLASP_ED25519 = 2,
    ENCLASP_RSA = 3
} enclasp_key_type;

/* A key in an agent, by its URI: "soft:name=web". */
enclasp_status enclasp_open_key(const enclasp *home, const char *uri, enclasp_key **key);

/* The same; it is made if there is none. ASKS is whether a new one asks a person before each signature. */
enclasp_status enclasp_open_or_make_key(const enclasp *home, const char *uri, enclasp_key_type type, bool asks,
                                        enclasp_key **key);

/* Gives the agent the PIN of a key or its token. */
enclasp_status enclasp_unlock(const enclasp *home, const char *uri, const char *pin);

/* How a signature is to be made (RFC 8446 section 4.2.3). ECDSA signatures are DER (RFC 3279 section 2.2.3), Ed25519
 * ones 64 bytes, RSA ones as long as the modulus; the salt of PSS is as long as the hash. */
typedef enum {
    ENCLASP_ECDSA_SECP256R1_SHA256 = 0,
    ENCLASP_ECDSA_SECP256R1_SHA384 = 1,
    ENCLASP_ECDSA_SECP384R1_SHA384 = 2,
    ENCLASP_ECDSA_SECP384R1_SHA256 = 3,
    ENCLASP_ED25519_SCHEME = 4,
    ENCLASP_RSA_PSS_RSAE_SHA256 = 5,
    ENCLASP_RSA_PSS_RSAE_SHA384 = 6,
    ENCLASP_RSA_PSS_RSAE_SHA512 = 7,
    ENCLASP_RSA_PKCS1_SHA256 = 8,
    ENCLASP_RSA_PKCS1_SHA384 = 9,
    ENCLASP_RSA_PKCS1_SHA512 = 10
} enclasp_scheme;

/* A signature that is wanted. It is good while the signer runs. */
typedef struct enclasp_signing_request enclasp_signing_request;

/* What is to be signed, not hashed. */
const uint8_t *enclasp_request_message(const enclasp_signing_request *request, size_t *length);
enclasp_scheme enclasp_request_scheme(const enclasp_signing_request *request);
/* For a person: "TLS client authentication to db.internal:5432". */
const char *enclasp_request_reason(const enclasp_signing_request *request);
/* How long an answer is worth something, in milliseconds. */
uint32_t enclasp_request_time_left(const enclasp_signing_request *request);
/* Whether somebody still waits. */
bool enclasp_request_is_wanted(const enclasp_signing_request *request);

/* The longest signature that a signer can return, in bytes. */
#define ENCLASP_MAX_SIGNATURE 1024
/* The longest reason for a refusal, in bytes with the zero byte. */
#define ENCLASP_MAX_REASON 256

/* A program's own code that signs. It writes the signature and its LENGTH and returns ENCLASP_OK; or it writes text to
 * REASON and returns ENCLASP_DENIED, ENCLASP_LOCKED, ENCLASP_UNSUPPORTED or, for anything else, ENCLASP_SIGNER. It is
 * called on threads of the library's, several at once if several signatures are wanted. */
typedef enclasp_status (*enclasp_sign)(void *context, const enclasp_signing_request *request,
                                       uint8_t signature[ENCLASP_MAX_SIGNATURE], size_t *length,
                                       char reason[ENCLASP_MAX_REASON]);

/* A key of the program's own, "signer:name=NAME". PUBLIC_KEY is DER SubjectPublicKeyInfo, or the point 04 X Y of a
 * P-256 or P-384 key. A key that asks nobody is made to prove now what it can do; one that ASKS a person is called
 * when it is needed. RELEASE, if it is not NULL, is called with CONTEXT when SIGN will not be called again, also if
 * this fails. */
enclasp_status enclasp_signer_key(const enclasp *home, const char *name, const uint8_t *public_key, size_t length,
                                  bool asks, enclasp_sign sign, void *context, void (*release)(void *context),
                                  enclasp_key **key);

/* The key's URI. */
enclasp_status enclasp_key_uri(const enclasp_key *key, char **uri);

/* A certification request in PEM. NAMES are COUNT subject alternative names: "dns:localhost". */
enclasp_status enclasp_key_csr(const enclasp_key *key, const char *subject, const char *const *names, size_t count,
                               char **pem);

/* Gets a certificate for the key with a one-time token, and stores both as the identity NAME. If a person has to
 * approve, it waits for WAIT milliseconds at most. */
enclasp_status enclasp_enroll(const enclasp *home, const char *token, const char *name, const enclasp_key *key,
                              uint32_t wait, enclasp_identity **identity);

/* Stores a certificate that any authority made for the key. CERTIFICATES and ROOTS are PEM; ROOTS may be NULL. */
enclasp_status enclasp_import_identity(const enclasp *home, const char *name, const enclasp_key *key,
                                       const char *certificates, const char *roots, enclasp_identity **identity);

/* An identity that is stored. KEY is needed for one whose key is behind a signer, and else NULL. */
enclasp_status enclasp_find_identity(const enclasp *home, const char *name, const enclasp_key *key,
                                     enclasp_identity **identity);

/* Gets a new certificate for the same names and the same key, and stores it in place of the old one. */
enclasp_status enclasp_renew(const enclasp *home, const enclasp_identity *identity, enclasp_identity **renewed);

/* From when on it should be renewed, and when it ends, in seconds since 1970. */
int64_t enclasp_identity_renew_after(const enclasp_identity *identity);
int64_t enclasp_identity_not_after(const enclasp_identity *identity);

/* Forgets an identity. Its key stays. */
enclasp_status enclasp_delete_identity(const enclasp *home, const char *name);

/* Settings of a client. All zero is the default. */
typedef struct {
    const char *roots;             /* the roots to trust servers by, in PEM; NULL: the identity's */
    const char *alpn;              /* a protocol to offer (ALPN); NULL: none */
    uint16_t version;              /* the one version to speak: 12 or 13; 0: TLS 1.3 or 1.2 */
    uint32_t timeout;              /* of a connection, and then of its handshake, in ms; 0: 10 s */
    uint32_t prompt_timeout;       /* how long a person has to answer, in ms; 0: 60 s */
} enclasp_client_options;

/* IDENTITY is presented to servers that ask; NULL: none. OPTIONS may be NULL. */
enclasp_status enclasp_client_new(const enclasp_identity *identity, const enclasp_client_options *options,
                                  enclasp_client **client);

/* NAME is what the server's certificate has to be for; NULL: HOST. */
enclasp_status enclasp_connect(const enclasp_client *client, const char *host, uint16_t port, const char *name,
                               enclasp_stream **stream);

/* Reads at most CAPACITY bytes. No byte means that the server has ended its direction. A TLS 1.3 server refuses our
 * certificate only here: ENCLASP_REFUSED. */
enclasp_status enclasp_read(const enclasp_stream *stream, uint8_t *buffer, size_t capacity, size_t *length);
/* Sends all of it. */
enclasp_status enclasp_write(const enclasp_stream *stream, const uint8_t *data, size_t length);
/* Ends our direction by TLS's close_notify. */
enclasp_status enclasp_finish(const enclasp_stream *stream);
/* Closes the connection at once; another thread that reads or writes gets an error. */
enclasp_status enclasp_close(const enclasp_stream *stream);
/* What the handshake established, as JSON. */
enclasp_status enclasp_evidence(const enclasp_stream *stream, char **json);

/* One HTTP/1.1 request on a connection of its own. BODY may be NULL; TIMEOUT is in ms, 0: 60 s. */
enclasp_status enclasp_http(const enclasp_client *client, const char *method, const char *url, const uint8_t *body,
                            size_t body_length, uint32_t timeout, uint16_t *status, uint8_t **answer,
                            size_t *answer_length);

/* Frees the answer of enclasp_http. */
void enclasp_bytes_free(uint8_t *bytes, size_t length);

#ifdef __cplusplus
}
#endif

#endif
