/* A PKCS#11 module that is SoftHSM but for its C_Sign. There may be files in the folder that FAULTY names:
   `crash`, for which it crashes once, `broken`, as long as which it always does, `hang`, as long as which it
   does not return, `leak`, as long as which it takes 16 MiB of memory more each time, `open`, as long as which
   it leaves 512 files open, and `lie`, as long as which a bit of each signature is wrong. */

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* CK_FUNCTION_LIST (PKCS#11 2.40): a version and 68 functions, of which C_Sign is the 44th. */
struct functions {
    unsigned char version[2];
    void *entries[68];
};
enum { C_SIGN = 43, GENERAL_ERROR = 5, HOST_MEMORY = 2, LEAK = 16 << 20, FILES = 512 };

typedef unsigned long get_list(struct functions **);
typedef unsigned long sign(unsigned long, unsigned char *, unsigned long, unsigned char *, unsigned long *);

static sign *real_sign;
static struct functions ours;
static void *leaked;

static const char *file(const char *name, char path[4096]) {
    snprintf(path, 4096, "%s/%s", getenv("FAULTY"), name);
    return path;
}

static int is_there(const char *name) {
    char path[4096];
    return access(file(name, path), F_OK) == 0;
}

static unsigned long faulty_sign(unsigned long session, unsigned char *data, unsigned long length,
                                 unsigned char *signature, unsigned long *signature_length) {
    char path[4096];
    if (unlink(file("crash", path)) == 0 || is_there("broken"))
        abort();
    while (is_there("hang"))
        sleep(1);
    if (is_there("leak")) {
        if (!(leaked = malloc(LEAK)))
            return HOST_MEMORY;
        memset(leaked, 1, LEAK);
    }
    if (is_there("open"))
        for (int file = 0; file < FILES; file++)
            dup(0);
    unsigned long outcome = real_sign(session, data, length, signature, signature_length);
    if (outcome == 0 && signature && *signature_length && is_there("lie"))
        signature[*signature_length - 1] ^= 1;
    return outcome;
}

unsigned long C_GetFunctionList(struct functions **list) {
    void *softhsm = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
    get_list *get = softhsm ? (get_list *)dlsym(softhsm, "C_GetFunctionList") : 0;
    struct functions *theirs;
    if (!get || get(&theirs) != 0)
        return GENERAL_ERROR;
    ours = *theirs;
    real_sign = (sign *)ours.entries[C_SIGN];
    ours.entries[C_SIGN] = (void *)faulty_sign;
    *list = &ours;
    return 0;
}
