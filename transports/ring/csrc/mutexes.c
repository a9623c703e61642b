/* The locks of the C library between processes, which the kernel passes on when their holder
   dies. They belong to threads, and every call gives back what it has taken. */

#include "support.h"

int
make_mutex(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attributes;
    int error = pthread_mutexattr_init(&attributes);
    if (error != 0)
        return error;
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    /* A thread that would wait for itself, in a signal handler, gets EDEADLK. */
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    error = pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return error;
}

static int
repaired(pthread_mutex_t *mutex, int error)
{
    if (error == EOWNERDEAD)
        pthread_mutex_consistent(mutex);
    return error;
}

int
try_mutex(pthread_mutex_t *mutex)
{
    return repaired(mutex, pthread_mutex_trylock(mutex));
}

int
wait_for_mutex(pthread_mutex_t *mutex, int64_t longest)
{
    int64_t end = now_ns() + longest;
    struct timespec limit = {.tv_sec = end / NANOSECONDS, .tv_nsec = end % NANOSECONDS};
    return repaired(mutex, pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &limit));
}

int
check_lock_size(uint64_t lock_size)
{
    if (lock_size == sizeof(pthread_mutex_t))
        return 0;
    PyErr_SetString(PyExc_OSError,
                    "the locks of this ring are of another implementation; all processes that "
                    "use it need the same one (PROCESSION_RING_IMPLEMENTATION forces one)");
    return -1;
}
