/* What locks and semaphores have in common: their memory, arguments, and how they sleep. */

#ifndef PROCESSION_RING_PRIMITIVE_H
#define PROCESSION_RING_PRIMITIVE_H

#include "people.h"

#include <linux/futex.h>
#include <sys/syscall.h>

/* As `procession.plugin` numbers them. */
enum kind { LOCK, RECURSIVE, SEMAPHORE };

/* To look at a holder costs more than a hundred short critical sections, so that a first
   sleep comes before it. */
#define FIRST_SLEEP_NS (NANOSECONDS / 1000)
#define LONGEST_NAP_NS (NANOSECONDS / 10) /* NOTICE_SECONDS */

#define LOAD(word) atomic_load_explicit(&(word), memory_order_relaxed)
#define STORE(word, value) atomic_store_explicit(&(word), (value), memory_order_release)

/* Those who sleep until there is something for them.

   Whoever is about to sleep reads `turn`, says that there may be somebody, looks once more
   for what is wanted, and sleeps unless `turn` has changed meanwhile. Whoever has made it
   available looks at `waiting` afterwards. So one of the two sees what the other has done. */
struct sleepers {
    /* Grows whenever somebody is woken, which is what they sleep on. */
    _Atomic uint32_t turn;
    /* Whether somebody may be asleep. */
    _Atomic uint32_t waiting;
};

/* Whether to wake somebody, by `wake_one`. Who is woken says again that there may be others:
   if that one is killed before it does, they look again after their nap. */
static inline bool
call_sleeper(struct sleepers *sleepers)
{
    if (!atomic_load(&sleepers->waiting))
        return false;
    atomic_store_explicit(&sleepers->waiting, 0, memory_order_relaxed);
    atomic_fetch_add(&sleepers->turn, 1);
    return true;
}

static inline void
wake_one(struct sleepers *sleepers)
{
    syscall(SYS_futex, &sleepers->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Sleep without the GIL until somebody is woken, *until* has come, or a signal; *turn* is
   what it was before the last look. Fails with the exception of a handler. */
int sleep_until(struct sleepers *sleepers, uint32_t turn, int64_t until);

/* How long the arguments of `acquire` allow to wait: nanoseconds or FOR_EVER; 0 not at all. */
int read_patience(PyObject *const *args, Py_ssize_t count, PyObject *names, int64_t *longest);

/* When a wait that may last so long ends. */
static inline int64_t
end_of(int64_t longest)
{
    return longest == FOR_EVER ? FOR_EVER : now_ns() + longest;
}

/* Have *memory*, of *size* bytes and any number of pieces of *piece* bytes, in *view*. */
int hold_memory(PyObject *memory, size_t size, size_t piece, Py_buffer *view);

void free_object(PyObject *object, Py_buffer *view);

#endif
