/* A PKCS#11 module that is SoftHSM but for its C_Sign: that crashes once if there is the file that
   FAULTY_CRASH names, and hangs as long as there is the one that FAULTY_HANG names. */

#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

/* CK_FUNCTION_LIST (PKCS#11 2.40): a version and 68 functions, of which C_Sign is the 44th. */
struct functions {
    unsigned char version[2];
    void *entries[68];
};
enum { C_SIGN = 43 };

typedef unsigned long get_list(struct functions **);
typedef unsigned long sign(unsigned long, unsigned char *, unsigned long, unsigned char *, unsigned long *);

static sign *real_sign;
static struct functions ours;

static unsigned long faulty_sign(unsigned long session, unsigned char *data, unsigned long length,
                                 unsigned char *signature, unsigned long *signature_length) {
    if (unlink(getenv("FAULTY_CRASH")) == 0)
        abort();
    while (access(getenv("FAULTY_HANG"), F_OK) == 0)
        sleep(1);
    return real_sign(session, data, length, signature, signature_length);
}

unsigned long C_GetFunctionList(struct functions **list) {
    void *softhsm = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
    get_list *get = softhsm ? (get_list *)dlsym(softhsm, "C_GetFunctionList") : 0;
    struct functions *theirs;
    if (!get || get(&theirs) != 0)
        return 5; /* CKR_GENERAL_ERROR */
    ours = *theirs;
    real_sign = (sign *)ours.entries[C_SIGN];
    ours.entries[C_SIGN] = (void *)faulty_sign;
    *list = &ours;
    return 0;
}
