/* Preloaded into a program, counts its steps: each time that it begins to change a file, or to say
   something to another process or machine. It is killed as it begins the one whose number is in
   KILLED_AT_STEP. What it starts itself is left alone. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int last;
static atomic_int begun;

__attribute__((constructor)) static void begin(void) {
    const char *number = getenv("KILLED_AT_STEP");
    last = number ? atoi(number) : 0;
    unsetenv("KILLED_AT_STEP");
    unsetenv("LD_PRELOAD");
}

static void step(void) {
    if (atomic_fetch_add(&begun, 1) + 1 == last) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
}

/* Not what wakes another thread. */
static void step_of(int descriptor) {
    struct stat stat;
    if (descriptor > 2 && fstat(descriptor, &stat) == 0 && (S_ISSOCK(stat.st_mode) || S_ISREG(stat.st_mode)))
        step();
}

ssize_t write(int descriptor, const void *bytes, size_t length) {
    step_of(descriptor);
    return syscall(SYS_write, descriptor, bytes, length);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    step_of(descriptor);
    return syscall(SYS_writev, descriptor, parts, count);
}

ssize_t send(int descriptor, const void *bytes, size_t length, int flags) {
    step_of(descriptor);
    return syscall(SYS_sendto, descriptor, bytes, length, flags, NULL, 0);
}

int fsync(int descriptor) {
    step();
    return syscall(SYS_fsync, descriptor);
}

int rename(const char *from, const char *to) {
    step();
    return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    step();
    return syscall(SYS_linkat, from_folder, from, to_folder, to, flags);
}

int unlink(const char *path) {
    step();
    return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}
