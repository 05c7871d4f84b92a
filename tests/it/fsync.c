/* A disk that is slow or broken, for one process: LD_PRELOAD this, and QUORATE_TEST_FSYNC is `fail`, or how many
   milliseconds each call takes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int slow(void) {
    const char *how = getenv("QUORATE_TEST_FSYNC");
    if (how && !strcmp(how, "fail")) {
        errno = EIO;
        return -1;
    }
    long ms = how ? atol(how) : 0;
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, 0);
    return 0;
}

int fsync(int file) { (void)file; return slow(); }
int fdatasync(int file) { (void)file; return slow(); }
