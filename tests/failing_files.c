/* A library to be preloaded: calls of the system on files below a folder fail when they are told to.

   fail(call, error, after, times, below): the first `after` calls pass, the next `times` fail with
   `error`; 0 in its place lets a read or a write do one byte alone. In a process that cannot call
   it, the variable FAIL says the same, as in "write 28 3 1000 /folder". */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static struct {
    char call[16], below[4096];
    int error, fired;
    long after, times;
} plan;

void fail(const char *call, int error, long after, long times, const char *below)
{
    snprintf(plan.call, sizeof plan.call, "%s", call);
    snprintf(plan.below, sizeof plan.below, "%s/", below);
    plan.error = error;
    plan.after = after;
    plan.times = times;
    plan.fired = 0;
}

int fired(void)
{
    return plan.fired;
}

__attribute__((constructor)) static void from_environment(void)
{
    char call[16], below[4000];
    int error;
    long after, times;
    const char *text = getenv("FAIL");
    if (text && sscanf(text, "%15s %d %ld %ld %3999s", call, &error, &after, &times, below) == 5)
        fail(call, error, after, times, below);
}

static int due(const char *call, const char *path)
{
    if (strcmp(call, plan.call) || strncmp(path, plan.below, strlen(plan.below)))
        return 0;
    if (__atomic_fetch_sub(&plan.after, 1, __ATOMIC_SEQ_CST) > 0)
        return 0;
    if (__atomic_fetch_sub(&plan.times, 1, __ATOMIC_SEQ_CST) <= 0)
        return 0;
    plan.fired++;
    errno = plan.error;
    return 1;
}

static int due_at(const char *call, int file)
{
    char link[64], path[4096];
    if (strcmp(call, plan.call))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return due(call, path);
}

#define NEXT(result, name, ...) \
    static result (*next)(__VA_ARGS__); \
    if (!next) \
        next = (result (*)(__VA_ARGS__)) dlsym(RTLD_NEXT, name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        NEXT(int, #name, const char *, int, ...); \
        va_list rest; \
        va_start(rest, flags); \
        int mode = va_arg(rest, int); \
        va_end(rest); \
        const char *call = flags & O_ACCMODE ? "create" : flags & O_DIRECTORY ? "folder" : "open"; \
        return due(call, path) ? -1 : next(path, flags, mode); \
    }

#define MOVE(name, bytes) \
    ssize_t name(int file, bytes data, size_t size) \
    { \
        NEXT(ssize_t, #name, int, bytes, size_t); \
        if (size && due_at(#name, file)) { \
            if (plan.error) \
                return -1; \
            size = 1; \
        } \
        return next(file, data, size); \
    }

OPEN(open)
OPEN(open64)
MOVE(read, void *)
MOVE(write, const void *)

ssize_t pread64(int file, void *data, size_t size, off64_t offset)
{
    NEXT(ssize_t, "pread64", int, void *, size_t, off64_t);
    return due_at("read", file) ? -1 : next(file, data, size, offset);
}

int fsync(int file)
{
    NEXT(int, "fsync", int);
    return due_at("fsync", file) ? -1 : next(file);
}

int rename(const char *from, const char *to)
{
    NEXT(int, "rename", const char *, const char *);
    return due("rename", to) ? -1 : next(from, to);
}

int unlink(const char *path)
{
    NEXT(int, "unlink", const char *);
    return due("unlink", path) ? -1 : next(path);
}

void *mmap64(void *where, size_t size, int protection, int flags, int file, off64_t offset)
{
    NEXT(void *, "mmap64", void *, size_t, int, int, int, off64_t);
    return file >= 0 && due_at("mmap", file) ? (void *) -1
                                             : next(where, size, protection, flags, file, offset);
}
