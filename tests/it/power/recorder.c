/*
 * Records what a process does to the files below one directory, in the order in which it happens.
 *
 * Loaded with LD_PRELOAD. RECORDER_DIR is the directory, RECORDER_JOURNAL the file that the records are appended to, which
 * must lie outside of it. A record is
 *
 *     kind: 1 byte, a: 8 bytes, b: 8 bytes, length: 4 bytes (little-endian), then so many bytes
 *
 *     'O'  a file or directory was opened    a = inode, b = 1 if created, 2 if emptied, 4 if a directory; its path
 *     'W'  bytes were written                a = inode, b = offset; the bytes
 *     'T'  the length was set                a = inode, b = length
 *     'B'  a sync begins                     a = inode, b = number of the sync
 *     'E'  a sync has succeeded              a = inode, b = number of the sync
 *     'R'  a name was moved                  the old path, a zero byte, the new path
 *     'U'  a name was removed                its path
 *     'M'  a directory was made              its path
 *
 * Paths are relative to the directory. A sync covers what was recorded before its 'B'. sync_file_range gives no durability
 * (it neither writes metadata nor flushes the disk's cache), so it is not recorded.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define INODES_MAX 65536

enum { CREATED = 1, EMPTIED = 2, DIRECTORY = 4 };

/* Held while something is done and recorded, so that the order of records is the order of what happened. */
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_len;
static dev_t device;
static int journal = -1;
static uint64_t syncs;
/* A hash set of the inodes that were opened below the directory. */
static uint64_t inodes[INODES_MAX];

#define REAL(name) ((typeof(&name))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

__attribute__((constructor)) static void begin(void)
{
    const char *dir = getenv("RECORDER_DIR");
    const char *path = getenv("RECORDER_JOURNAL");
    struct stat found;
    if (!dir || !path || !realpath(dir, root) || stat(root, &found))
        return;
    root_len = strlen(root);
    device = found.st_dev;
    journal = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(char kind, uint64_t a, uint64_t b, const struct iovec *parts, int count)
{
    char head[21];
    struct iovec all[4] = { { head, sizeof head } };
    size_t len = 0;
    for (int i = 0; i < count; i++) {
        all[i + 1] = parts[i];
        len += parts[i].iov_len;
    }
    uint32_t short_len = len;
    head[0] = kind;
    memcpy(head + 1, &a, 8);
    memcpy(head + 9, &b, 8);
    memcpy(head + 17, &short_len, 4);
    /* A record that is not written whole would make the journal a lie. */
    if (syscall(SYS_writev, journal, all, count + 1) != (ssize_t)(sizeof head + len))
        abort();
}

static void put_path(char kind, uint64_t a, uint64_t b, const char *path)
{
    struct iovec part = { (void *)path, strlen(path) };
    put(kind, a, b, &part, 1);
}

/* The path below the directory, or NULL. The directory itself is "". */
static const char *below(const char *path)
{
    if (journal < 0 || !path || strncmp(path, root, root_len))
        return NULL;
    if (path[root_len] == '/')
        return path + root_len + 1;
    return path[root_len] ? NULL : path + root_len;
}

static uint64_t *slot(uint64_t inode)
{
    uint64_t at = inode * 0x9e3779b97f4a7c15u % INODES_MAX;
    while (inodes[at] && inodes[at] != inode)
        at = (at + 1) % INODES_MAX;
    return &inodes[at];
}

/* The inode, if the file was opened below the directory; else 0. The caller holds the lock. */
static uint64_t recorded(int fd, struct stat *found)
{
    if (journal < 0 || fstat(fd, found) || found->st_dev != device)
        return 0;
    return *slot(found->st_ino);
}

static int opened(int fd, const char *path, int flags, int was_there)
{
    struct stat found;
    int saved = errno;
    if (fd >= 0 && !fstat(fd, &found)) {
        uint64_t what = was_there ? 0 : CREATED;
        if (was_there && flags & O_TRUNC)
            what |= EMPTIED;
        if (S_ISDIR(found.st_mode))
            what |= DIRECTORY;
        *slot(found.st_ino) = found.st_ino;
        put_path('O', found.st_ino, what, below(path));
    }
    errno = saved;
    return fd;
}

static int open_any(const char *name, int dir, const char *path, int flags, mode_t mode)
{
    int (*open_real)(int, const char *, int, ...) = (typeof(open_real))real(name);
    if (!below(path))
        return open_real(dir, path, flags, mode);
    pthread_mutex_lock(&order);
    int was_there = !access(path, F_OK);
    int fd = opened(open_real(dir, path, flags, mode), path, flags, was_there);
    pthread_mutex_unlock(&order);
    return fd;
}

#define MODE(mode, flags)                                                                                              \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

int open(const char *path, int flags, ...)
{
    MODE(mode, flags)
    return open_any("openat", AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(mode, flags)
    return open_any("openat64", AT_FDCWD, path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
    MODE(mode, flags)
    return open_any("openat", dir, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...)
{
    MODE(mode, flags)
    return open_any("openat64", dir, path, flags, mode);
}

static ssize_t wrote(int fd, const void *bytes, ssize_t len, uint64_t inode, uint64_t offset)
{
    int saved = errno;
    struct iovec part = { (void *)bytes, len };
    (void)fd;
    if (inode && len > 0)
        put('W', inode, offset, &part, 1);
    errno = saved;
    return len;
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset)
{
    struct stat found;
    pthread_mutex_lock(&order);
    uint64_t inode = recorded(fd, &found);
    ssize_t done = wrote(fd, bytes, REAL(pwrite64)(fd, bytes, len, offset), inode, offset);
    pthread_mutex_unlock(&order);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    return pwrite64(fd, bytes, len, offset);
}

/* Where the next write goes. */
static uint64_t position(int fd, const struct stat *found)
{
    return fcntl(fd, F_GETFL) & O_APPEND ? found->st_size : lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *bytes, size_t len)
{
    struct stat found;
    pthread_mutex_lock(&order);
    uint64_t inode = recorded(fd, &found);
    if (!inode) {
        /* A pipe or socket, which may block. */
        pthread_mutex_unlock(&order);
        return REAL(write)(fd, bytes, len);
    }
    uint64_t offset = position(fd, &found);
    ssize_t done = wrote(fd, bytes, REAL(write)(fd, bytes, len), inode, offset);
    pthread_mutex_unlock(&order);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    struct stat found;
    pthread_mutex_lock(&order);
    uint64_t inode = recorded(fd, &found);
    pthread_mutex_unlock(&order);
    /* Part by part: short writes are allowed. */
    if (inode && count > 0)
        return write(fd, parts[0].iov_base, parts[0].iov_len);
    return REAL(writev)(fd, parts, count);
}

int ftruncate64(int fd, off64_t len)
{
    struct stat found;
    pthread_mutex_lock(&order);
    uint64_t inode = recorded(fd, &found);
    int failed = REAL(ftruncate64)(fd, len);
    if (inode && !failed)
        put('T', inode, len, NULL, 0);
    pthread_mutex_unlock(&order);
    return failed;
}

int ftruncate(int fd, off_t len)
{
    return ftruncate64(fd, len);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t len)
{
    struct stat found;
    pthread_mutex_lock(&order);
    uint64_t inode = recorded(fd, &found);
    int failed = REAL(fallocate64)(fd, mode, offset, len);
    /* Only growth is understood. */
    if (inode && !failed && mode)
        abort();
    if (inode && !failed && offset + len > found.st_size)
        put('T', inode, offset + len, NULL, 0);
    pthread_mutex_unlock(&order);
    return failed;
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    return fallocate64(fd, mode, offset, len);
}

int posix_fallocate64(int fd, off64_t offset, off64_t len)
{
    return fallocate64(fd, 0, offset, len) ? errno : 0;
}

static int sync_any(int fd, int (*sync_real)(int))
{
    struct stat found;
    pthread_mutex_lock(&order);
    uint64_t inode = recorded(fd, &found);
    uint64_t number = ++syncs;
    if (inode)
        put('B', inode, number, NULL, 0);
    pthread_mutex_unlock(&order);
    int failed = sync_real(fd);
    if (inode && !failed) {
        pthread_mutex_lock(&order);
        put('E', inode, number, NULL, 0);
        pthread_mutex_unlock(&order);
    }
    return failed;
}

int fsync(int fd)
{
    return sync_any(fd, REAL(fsync));
}

int fdatasync(int fd)
{
    return sync_any(fd, REAL(fdatasync));
}

static void moved(const char *from, const char *to)
{
    struct iovec parts[3] = { { (void *)below(from), 0 }, { "", 1 }, { (void *)below(to), 0 } };
    /* Whatever comes or goes is not understood. */
    if (!parts[0].iov_base || !parts[2].iov_base)
        abort();
    parts[0].iov_len = strlen(parts[0].iov_base);
    parts[2].iov_len = strlen(parts[2].iov_base);
    put('R', 0, 0, parts, 3);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    if (!below(from) && !below(to))
        return REAL(renameat)(from_dir, from, to_dir, to);
    pthread_mutex_lock(&order);
    int failed = REAL(renameat)(from_dir, from, to_dir, to);
    if (!failed)
        moved(from, to);
    pthread_mutex_unlock(&order);
    return failed;
}

int rename(const char *from, const char *to)
{
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlink(const char *path)
{
    if (!below(path))
        return REAL(unlink)(path);
    pthread_mutex_lock(&order);
    int failed = REAL(unlink)(path);
    if (!failed)
        put_path('U', 0, 0, below(path));
    pthread_mutex_unlock(&order);
    return failed;
}

/* How whole directories are removed: the path is relative to a directory that is open. */
int unlinkat(int dir, const char *path, int flags)
{
    char whole[PATH_MAX], name[64];
    ssize_t len = 0;
    if (dir != AT_FDCWD && path[0] != '/') {
        snprintf(name, sizeof name, "/proc/self/fd/%d", dir);
        len = readlink(name, whole, sizeof whole - 1);
    }
    if (len < 0)
        abort();
    snprintf(whole + len, sizeof whole - len, "%s%s", len ? "/" : "", path);
    if (!below(whole))
        return REAL(unlinkat)(dir, path, flags);
    pthread_mutex_lock(&order);
    int failed = REAL(unlinkat)(dir, path, flags);
    if (!failed)
        put_path('U', 0, 0, below(whole));
    pthread_mutex_unlock(&order);
    return failed;
}

int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdir(const char *path, mode_t mode)
{
    if (!below(path))
        return REAL(mkdir)(path, mode);
    pthread_mutex_lock(&order);
    int failed = REAL(mkdir)(path, mode);
    if (!failed)
        put_path('M', 0, 0, below(path));
    pthread_mutex_unlock(&order);
    return failed;
}
