/* Putting packets into a lane and taking them out, with its locks held. */

#include "lane.h"

#include <stdlib.h>

#define PLACE(word) ((uint32_t)(word))

static inline uint64_t
advance(uint64_t word, uint64_t bytes)
{
    uint32_t place = PLACE(word) + (uint32_t)(bytes / ALIGNMENT);
    return ((uint64_t)(COUNT(word) + 1) << 32) | place;
}

static inline uint64_t
used(uint64_t tail, uint64_t head)
{
    return (uint64_t)(uint32_t)(PLACE(tail) - PLACE(head)) * ALIGNMENT;
}

void
enter_lane(Lane *self)
{
    if (self->generation != fork_generation) {
        self->generation = fork_generation; /* the threads that were here are the parent's */
        self->users = 0;
    }
    self->users++;
}

void
leave_lane(Lane *self)
{
    if (self->users > 0)
        self->users--;
    if (self->closed && self->users == 0)
        give_lane_back(self);
}

static int
corrupt_error(void)
{
    PyErr_SetString(PyExc_OSError, "bad packet: the memory of the ring is corrupt");
    return -1;
}

int
lock_error(int error)
{
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static int
settled(Lane *self, int error)
{
    if (error != EOWNERDEAD)
        return error;
    /* The dead may have put a packet and not have said so. */
    struct lane *lane = self->lane;
    announce(&lane->alarm, self->bell, atomic_load(&lane->head), &lane->head);
    return 0;
}

int
do_locked(Lane *self, pthread_mutex_t *mutex, work work, void *job)
{
    enum result result = BAD;
    int error = settled(self, try_mutex(mutex)); /* it nearly always is free */
    if (error == 0) {
        result = work(self, job);
        pthread_mutex_unlock(mutex);
    }
    while ((error == EBUSY || error == ETIMEDOUT) && !self->closed) {
        enter_lane(self);
        Py_BEGIN_ALLOW_THREADS
        error = settled(self, wait_for_mutex(mutex, LONGEST_LOCKED_OUT_NS));
        if (error == 0) {
            result = work(self, job);
            pthread_mutex_unlock(mutex);
        }
        Py_END_ALLOW_THREADS
        leave_lane(self);
        if (error == ETIMEDOUT && PyErr_CheckSignals() < 0)
            return -1;
    }
    if (error != 0)
        return lock_error(self->closed ? EBADF : error);
    if (result == BAD)
        return corrupt_error();
    if (result == NO_MEMORY) {
        PyErr_NoMemory();
        return -1;
    }
    return result;
}

/* -- putting and taking, with the lock held -------------------------------------------------- */

enum result
put_all(Lane *self, void *job)
{
    struct putting *putting = job;
    struct lane *lane = self->lane;
    uint64_t before = atomic_load_explicit(&lane->tail, memory_order_relaxed), tail = before;
    uint64_t head = atomic_load_explicit(&lane->head, memory_order_acquire);
    for (; putting->put < putting->count; putting->put++) {
        const struct outgoing *packet = &putting->packets[putting->put];
        uint64_t needed = aligned(sizeof(struct packet) + packet->length);
        uint64_t full = used(tail, head);
        if (full > self->size)
            return BAD;
        if (self->size - full < needed)
            break;
        struct packet mark = {.length = (uint32_t)packet->length, .kind = putting->kind};
        uint64_t place = (uint64_t)PLACE(tail) * ALIGNMENT;
        copy_in(self->data, self->size, place, &mark, sizeof mark);
        copy_in(self->data, self->size, place + sizeof mark, packet->start, packet->length);
        tail = advance(tail, needed);
    }
    if (putting->put == 0)
        return NOTHING;
    atomic_store_explicit(&lane->tail, tail, memory_order_release);
    announce(&lane->alarm, self->bell, before, &lane->head);
    return TAKEN;
}

static bool
make_room(struct taking *taking, size_t more)
{
    if (taking->room - taking->used >= more)
        return true;
    size_t room = 2 * (taking->used + more);
    char *data = malloc(room);
    if (data == NULL)
        return false;
    memcpy(data, taking->data, taking->used);
    if (taking->data != taking->few)
        free(taking->data);
    taking->data = data;
    taking->room = room;
    return true;
}

enum result
take_all(Lane *self, void *job)
{
    struct taking *taking = job;
    struct lane *lane = self->lane;
    uint64_t head = atomic_load_explicit(&lane->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&lane->tail, memory_order_acquire);
    for (; taking->count < taking->most && head != tail; taking->count++) {
        struct packet mark;
        uint64_t full = used(tail, head), place = (uint64_t)PLACE(head) * ALIGNMENT;
        copy_out(self->data, self->size, place, &mark, sizeof mark);
        uint64_t length = mark.length;
        if (full > self->size || length > self->limit || aligned(sizeof mark + length) > full) {
            if (taking->count == 0)
                return BAD;
            break; /* what came before is good, and the next call comes to this */
        }
        if (!make_room(taking, sizeof mark + length)) {
            if (taking->count == 0)
                return NO_MEMORY;
            break;
        }
        memcpy(taking->data + taking->used, &mark, sizeof mark);
        taking->used += sizeof mark;
        copy_out(self->data, self->size, place + sizeof mark, taking->data + taking->used, length);
        taking->used += length;
        head = advance(head, aligned(sizeof mark + length));
    }
    if (taking->count == 0)
        return NOTHING;
    atomic_store_explicit(&lane->head, head, memory_order_release);
    return TAKEN;
}
