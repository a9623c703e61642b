/* What both kinds of ring need: time, spinning, bells, and copies into a circle. */

#ifndef PROCESSION_RING_SUPPORT_H
#define PROCESSION_RING_SUPPORT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "layout.h"

/* Errors of procession.errors, found when the module is imported. */
extern PyObject *busy_error;
extern PyObject *broken_error;
extern PyObject *too_long_error;

/* Grows by one in every forked child. */
extern unsigned fork_generation;

/* The type `End`. */
extern PyObject *end_type;

extern PyType_Spec end_spec;
extern PyType_Spec lane_spec;
extern PyType_Spec lock_spec;
extern PyType_Spec semaphore_spec;
extern PyType_Spec shortcuts_spec;

/* Make the names that `Shortcuts` looks up; false with an exception. */
bool name_shortcuts(void);

PyObject *set_people(PyObject *module, PyObject *args);

/* What an argument in seconds, or None, is in nanoseconds; -1 with an exception. */
int read_timeout(PyObject *timeout, int64_t *longest);

/* Map the whole of *fd*, whose size is stored; if it is *populated*, its pages are there already. */
void *map_all(int fd, size_t *length, bool populated);

/* The mapping of a ring that begins at *offset* of *length* mapped bytes must have this
   magic number and a size that is a power of two and ends within it; 0 if it has not. */
uint64_t checked_size(const void *header, uint64_t magic, size_t offset, size_t length);

/* Robust mutexes in shared memory. All return error numbers, the last two EOWNERDEAD with
   the lock held, and good for use, when its last holder died. */
int make_mutex(pthread_mutex_t *mutex);
int try_mutex(pthread_mutex_t *mutex);
/* Wait at most so many nanoseconds, without the GIL; ETIMEDOUT then. */
int wait_for_mutex(pthread_mutex_t *mutex, int64_t longest);

/* What a mutex says of the implementation that made it must be this; -1 with an exception. */
int check_lock_size(uint64_t lock_size);

/* Py_RETURN_NONE of newer headers counts on a None that is immortal, as it is not in 3.11. */
static inline PyObject *
none(void)
{
    return Py_NewRef(Py_None);
}

/* From so many bytes on, copying is worth letting other threads run. */
#define WORTH_RELEASING (UINT64_C(32) << 10)

#define NANOSECONDS INT64_C(1000000000)
#define FOR_EVER INT64_C(-1)
/* A wait for a lock is cut into such pieces, so that signals and a close are noticed. */
#define LONGEST_LOCKED_OUT_NS (NANOSECONDS / 10)

static inline int64_t
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NANOSECONDS + now.tv_nsec;
}

/* Changes every few milliseconds and costs next to nothing. */
static inline int64_t
tick(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return now.tv_sec * NANOSECONDS + now.tv_nsec;
}

static inline uint32_t
this_cpu(void)
{
    return (uint32_t)sched_getcpu() + 1;
}

/* Looking at a word another CPU writes to slows that CPU down, hence the pauses. */
static inline void
pause_a_little(void)
{
    for (int i = 0; i < 16; i++) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("isb");
#endif
    }
}

/* How long to look before going to sleep. What a look that was in vain costs is taken from
   the next ones; now and then it is tried again, as the habits of a peer change. */
#define LONGEST_SPIN 50000
#define SHORTEST_SPIN 2000
#define TRY_AGAIN 16

struct patience {
    int32_t budget; /* nanoseconds */
    int32_t skipped;
};

static inline int32_t
spin_budget(struct patience *patience)
{
    if (patience->budget >= SHORTEST_SPIN)
        return patience->budget;
    if (++patience->skipped < TRY_AGAIN)
        return 0;
    patience->skipped = 0;
    return LONGEST_SPIN;
}

static inline void
spin_result(struct patience *patience, bool worth_it)
{
    patience->budget = worth_it ? LONGEST_SPIN : patience->budget / 2;
}

static inline void
ring(int bell)
{
    uint64_t one = 1;
    /* It fails only when it could not be louder. */
    ssize_t written = write(bell, &one, sizeof one);
    (void)written;
}

static inline void
silence(int bell)
{
    uint64_t rings;
    ssize_t got = read(bell, &rings, sizeof rings);
    (void)got;
}

/* Called by a sender after it has committed, with where `tail` was before. */
static inline void
announce(struct alarm *alarm, int bell, uint64_t before, _Atomic uint64_t *head)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&alarm->armed, memory_order_relaxed)) {
        uint32_t armed = 1;
        if (atomic_compare_exchange_strong(&alarm->armed, &armed, 0))
            ring(bell);
    }
    else if (atomic_load_explicit(&alarm->watched, memory_order_relaxed) &&
             atomic_load(head) == before)
        /* Nothing was there, and the bell not armed: whoever took `armed` may have been killed
           before it rang. */
        ring(bell);
}

/* Called without the GIL by a receiver that found nothing: make the bell silent, and be
   sure that it rings for the next message. */
void settle(struct alarm *alarm, int bell, _Atomic uint64_t *tail, _Atomic uint64_t *head);

/* From so many bytes on, `copy_long` is as quick as the C library, or quicker. */
#define LONG_COPY (UINT64_C(16) << 10)

void copy_long(void *target, const void *source, size_t length);

static inline void
copy_bytes(void *target, const void *source, uint64_t length)
{
    if (length < LONG_COPY)
        memcpy(target, source, (size_t)length);
    else
        copy_long(target, source, (size_t)length);
}

static inline void
copy_in(char *data, uint64_t size, uint64_t position, const void *source, uint64_t length)
{
    uint64_t start = position & (size - 1), first = size - start;
    if (first > length)
        first = length;
    copy_bytes(data + start, source, first);
    copy_bytes(data, (const char *)source + first, length - first);
}

static inline void
copy_out(const char *data, uint64_t size, uint64_t position, void *target, uint64_t length)
{
    uint64_t start = position & (size - 1), first = size - start;
    if (first > length)
        first = length;
    copy_bytes(target, data + start, first);
    copy_bytes((char *)target + first, data, length - first);
}

static inline uint64_t
aligned(uint64_t length)
{
    return (length + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
}

#endif
