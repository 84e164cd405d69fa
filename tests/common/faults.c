/* Preloaded into a master under test: lets the n-th call of one function fail, once (tests/faults.rs).
 *
 * FAULT is FUNCTION:N:ERRNO:FILE; FILE is made when the call fails. Children are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

static char function[32], file[4096];
static long left;
static int error;
static pid_t master;

__attribute__((constructor)) static void begin(int argc, char **argv) {
    const char *fault = getenv("FAULT");
    /* The master is started with -c; its helpers and workers are not. */
    if (!fault || argc < 2 || strcmp(argv[1], "-c") != 0)
        return;
    if (sscanf(fault, "%31[^:]:%ld:%d:%4095s", function, &left, &error, file) == 4)
        master = getpid();
}

static int fails(const char *name) {
    if (getpid() != master || strcmp(name, function) != 0 || --left != 0)
        return 0;
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    close(real_open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    errno = error;
    return 1;
}

#define WRAP(type, name, parameters, arguments)                                  \
    type name parameters {                                                       \
        static type (*real) parameters;                                          \
        if (!real)                                                               \
            real = dlsym(RTLD_NEXT, #name);                                      \
        return fails(#name) ? (type)-1 : real arguments;                         \
    }

WRAP(int, pipe2, (int fds[2], int flags), (fds, flags))
WRAP(int, socketpair, (int a, int b, int c, int fds[2]), (a, b, c, fds))
WRAP(int, accept4, (int fd, struct sockaddr *a, socklen_t *l, int f), (fd, a, l, f))
WRAP(int, epoll_ctl, (int e, int op, int fd, struct epoll_event *event), (e, op, fd, event))
WRAP(int, epoll_wait, (int e, struct epoll_event *events, int n, int ms), (e, events, n, ms))
/* It returns the error instead of setting errno. */
int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                const posix_spawnattr_t *attributes, char *const args[], char *const env[]) {
    static int (*real)(pid_t *, const char *, const posix_spawn_file_actions_t *,
                       const posix_spawnattr_t *, char *const[], char *const[]);
    if (!real)
        real = dlsym(RTLD_NEXT, "posix_spawn");
    return fails("posix_spawn") ? errno : real(pid, path, actions, attributes, args, env);
}
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags))
/* One byte wakes the poll from a signal handler; the signal itself is found by EINTR, mostly. */
ssize_t send(int fd, const void *data, size_t n, int flags) {
    static ssize_t (*real)(int, const void *, size_t, int);
    if (!real)
        real = dlsym(RTLD_NEXT, "send");
    return n != 1 && fails("send") ? -1 : real(fd, data, n, flags);
}
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags))
WRAP(ssize_t, recv, (int fd, void *data, size_t n, int flags), (fd, data, n, flags))
WRAP(ssize_t, read, (int fd, void *data, size_t n), (fd, data, n))
WRAP(ssize_t, write, (int fd, const void *data, size_t n), (fd, data, n))
WRAP(ssize_t, pread64, (int fd, void *data, size_t n, off64_t at), (fd, data, n, at))
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t n, off64_t at), (fd, data, n, at))
WRAP(int, waitid, (idtype_t type, id_t id, siginfo_t *info, int options), (type, id, info, options))
WRAP(pid_t, waitpid, (pid_t pid, int *status, int options), (pid, status, options))
WRAP(int, poll, (struct pollfd *fds, nfds_t n, int ms), (fds, n, ms))
WRAP(int, timerfd_create, (int clock, int flags), (clock, flags))
WRAP(int, timerfd_settime, (int fd, int flags, const struct itimerspec *new, struct itimerspec *old), (fd, flags, new, old))
WRAP(int, listen, (int fd, int backlog), (fd, backlog))
WRAP(int, getsockopt, (int fd, int l, int o, void *v, socklen_t *n), (fd, l, o, v, n))
WRAP(int, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
WRAP(int, renameat, (int a, const char *old, int b, const char *new), (a, old, b, new))
WRAP(int, linkat, (int a, const char *old, int b, const char *new, int flags), (a, old, b, new, flags))

int openat(int folder, const char *path, int flags, ...) {
    static int (*real)(int, const char *, int, ...);
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    if (!real)
        real = dlsym(RTLD_NEXT, "openat");
    return fails("openat") ? -1 : real(folder, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    static int (*real)(const char *, int, ...);
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    if (!real)
        real = dlsym(RTLD_NEXT, "open64");
    return fails("open64") ? -1 : real(path, flags, mode);
}
