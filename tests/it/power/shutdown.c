/*
 * Cuts the power of one file system: what is not on its disk stays off it, and nothing more can be written.
 *
 * FS_IOC_SHUTDOWN with NOLOGFLUSH (linux/fs.h, fs/ext4/ioctl.c): the journal is not flushed first.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define FS_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define NOLOGFLUSH 2

int main(int count, char **arguments)
{
    uint32_t how = NOLOGFLUSH;
    int mount_point = count == 2 ? open(arguments[1], O_RDONLY) : -1;
    if (mount_point < 0 || ioctl(mount_point, FS_IOC_SHUTDOWN, &how)) {
        perror("shutdown");
        return 1;
    }
    return 0;
}
