/* Putting packets into a lane and taking them out, with its locks held. */

#include "lane.h"

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
    return result == BAD ? corrupt_error() : (int)result;
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

/* Read the mark of the packet at *head*; false if there can be no such packet. */
static bool
read_mark(Lane *self, uint64_t head, uint64_t tail, struct packet *mark)
{
    uint64_t full = used(tail, head);
    copy_out(self->data, self->size, (uint64_t)PLACE(head) * ALIGNMENT, mark, sizeof *mark);
    return full <= self->size && mark->length <= self->limit &&
           aligned(sizeof *mark + mark->length) <= full;
}

size_t
look_ahead(Lane *self, size_t most, struct incoming *packets)
{
    uint64_t head = atomic_load(&self->lane->head), tail = atomic_load(&self->lane->tail);
    size_t count = (uint32_t)(COUNT(tail) - COUNT(head));
    if (head != tail && (count == 0 || count > self->size / ALIGNMENT))
        count = 1; /* whoever has the lock will see what is wrong */
    if (count > most)
        count = most;
    if (packets == NULL)
        return count;
    for (size_t i = 0; i < count; i++) {
        struct packet mark;
        /* Others may be taking and putting meanwhile: then this is wrong, and is seen to be. */
        if (!read_mark(self, head, tail, &mark)) {
            packets[i].length = 0;
            return i + 1;
        }
        packets[i].length = mark.length;
        head = advance(head, aligned(sizeof mark + mark.length));
    }
    return count;
}

enum result
take_all(Lane *self, void *job)
{
    struct taking *taking = job;
    struct lane *lane = self->lane;
    uint64_t head = atomic_load_explicit(&lane->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&lane->tail, memory_order_acquire);
    if (head == tail)
        return NOTHING;
    for (size_t i = 0; i < taking->count; i++) {
        struct incoming *packet = &taking->packets[i];
        struct packet mark;
        if (head == tail)
            return CHANGED;
        if (!read_mark(self, head, tail, &mark))
            return i == 0 ? BAD : CHANGED; /* what came before is good, and is taken alone */
        if (mark.length != packet->length)
            return CHANGED;
        packet->kind = mark.kind & 1;
        copy_out(self->data, self->size, (uint64_t)PLACE(head) * ALIGNMENT + sizeof mark,
                 packet->start, packet->length);
        head = advance(head, aligned(sizeof mark + mark.length));
    }
    atomic_store_explicit(&lane->head, head, memory_order_release);
    return TAKEN;
}
