/* Processes as holders of locks: who this one is, and who has ended.

   Whether a process lives is asked by its number, so that all must be of one pid namespace. */

#ifndef PROCESSION_RING_PEOPLE_H
#define PROCESSION_RING_PEOPLE_H

#include "support.h"

/* As `procession._locks.holder` lays it out. */
struct holder {
    uint64_t pid, start, thread;
    char name[40];
};

/* This process, and its mark: what fits into one word and is nobody else's. Of use after
   `know_myself` only. */
extern struct holder me;
extern uint64_t my_mark;
extern unsigned my_generation;

int find_out_who_i_am(void);

/* Learn who this process is, if that is not known; it is another one after a fork. */
static inline int
know_myself(void)
{
    return my_mark != 0 && my_generation == fork_generation ? 0 : find_out_who_i_am();
}

/* The process id, and the lower half of its start. */
static inline uint64_t
mark_of(uint64_t pid, uint64_t start)
{
    return pid << 32 | (start & UINT32_MAX);
}

static inline uint64_t
pid_of(uint64_t mark)
{
    return mark >> 32;
}

/* Whether the process has ended. What cannot be found out, for want of descriptors say, has
   not. A start of 0 is not known, and only the number is looked at then. */
bool has_ended(uint64_t pid, uint64_t start);
bool mark_has_ended(uint64_t mark);

/* The bytes of a holder, for Python. */
PyObject *record_of(const struct holder *holder);

/* Raise the error that says that this one died while it held so many units of a primitive of
   this kind, which are free again. */
void raise_owner_died(int kind, const struct holder *dead, uint64_t units);

#endif
