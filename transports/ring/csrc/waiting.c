/* Waiting for messages and for room, without the GIL. */

#include "end.h"

#include <sys/socket.h>

bool
peer_has_gone(End *self)
{
    struct pollfd peer = {.fd = self->peer, .events = 0};
    return poll(&peer, 1, 0) > 0 && (peer.revents & (POLLHUP | POLLERR)) != 0;
}

bool
is_cut(const _Atomic uint64_t *position, pthread_mutex_t *side)
{
    if (!is_in_the_middle(atomic_load(position)))
        return false;
    int error = try_mutex(side);
    if (error != 0 && error != EOWNERDEAD)
        return false; /* it is being worked on */
    bool cut = is_in_the_middle(atomic_load(position));
    pthread_mutex_unlock(side);
    return cut;
}

static int
sleep_until(struct pollfd *ready, nfds_t count, int64_t longest)
{
    struct timespec limit = {.tv_sec = longest / NANOSECONDS, .tv_nsec = longest % NANOSECONDS};
    return ppoll(ready, count, &limit, NULL);
}

static bool
is_elsewhere(uint32_t peer_cpu)
{
    return peer_cpu != 0 && peer_cpu != this_cpu();
}

enum outcome
wait_for_data(End *self, int64_t longest, bool spin)
{
    struct stream *stream = self->in.stream;
    if (has_data(stream))
        return DONE;
    int32_t budget = spin_budget(&self->in.patience);
    if (spin && budget > 0 && longest > 0 &&
        is_elsewhere(atomic_load_explicit(&stream->writer_cpu, memory_order_relaxed))) {
        int64_t end = now_ns() + (longest < budget ? longest : budget);
        do {
            pause_a_little();
            if (has_data(stream)) {
                spin_result(&self->in.patience, true);
                return DONE;
            }
        } while (now_ns() < end);
        spin_result(&self->in.patience, false);
    }
    settle(&stream->alarm, self->in_bell, &stream->tail, &stream->head);
    if (has_data(stream))
        return DONE;
    if (self->closed)
        return CLOSED;
    struct pollfd ready[] = {{.fd = self->in_bell, .events = POLLIN},
                             {.fd = self->peer, .events = 0}};
    if (longest > NANOSECONDS)
        longest = NANOSECONDS;
    int count = sleep_until(ready, 2, longest);
    if (count < 0)
        return INTERRUPTED;
    /* What was sent before the peer went is still there. */
    if (has_data(stream))
        return DONE;
    if (count > 0 && (ready[1].revents & (POLLHUP | POLLERR)))
        return has_data(stream) ? DONE : ENDED;
    if (count == 0 && is_cut(&stream->tail, &stream->putting))
        return has_data(stream) ? DONE : ENDED;
    return INTERRUPTED;
}

static inline bool
has_room(const struct stream *stream, uint64_t target)
{
    return (int64_t)(atomic_load_explicit(&stream->head, memory_order_acquire) - target) >= 0;
}

/* Sleep until the reader has come to *wake_at*, or has gone; NOTHING when it has not even come
   to *target* after *longest* nanoseconds. */
static enum outcome
sleep_for_room(End *self, uint64_t wake_at, uint64_t target, int64_t longest)
{
    struct stream *stream = self->out.stream;
    char tokens[64];
    ssize_t drained = recv(self->peer, tokens, sizeof tokens, MSG_DONTWAIT);
    (void)drained;
    atomic_store(&stream->room_wanted, wake_at + 1);
    atomic_thread_fence(memory_order_seq_cst);
    enum outcome outcome = INTERRUPTED;
    if (has_room(stream, wake_at))
        outcome = DONE;
    else if (self->closed)
        outcome = CLOSED;
    else if (atomic_load(&stream->stopped))
        outcome = BROKEN;
    else {
        struct pollfd ready = {.fd = self->peer, .events = POLLIN};
        int count = sleep_until(&ready, 1, longest);
        if (count >= 0 && has_room(stream, target))
            outcome = DONE;
        else if (count > 0 && (ready.revents & (POLLHUP | POLLERR)))
            outcome = BROKEN;
        else if (count == 0)
            outcome = NOTHING;
    }
    atomic_store(&stream->room_wanted, 0);
    return outcome;
}

enum outcome
wait_for_room(End *self, uint64_t position, uint64_t needed, int64_t longest)
{
    struct stream *stream = self->out.stream;
    uint64_t target = position + needed - self->out.size;
    int32_t budget = spin_budget(&self->out.patience);
    if (budget > 0 &&
        is_elsewhere(atomic_load_explicit(&stream->reader_cpu, memory_order_relaxed))) {
        int64_t end = now_ns() + budget;
        do {
            pause_a_little();
            if (has_room(stream, target)) {
                spin_result(&self->out.patience, true);
                return DONE;
            }
        } while (now_ns() < end);
        spin_result(&self->out.patience, false);
    }
    if (longest > LONGEST_SLEEP_NS)
        longest = LONGEST_SLEEP_NS;
    /* Sharing a processor with the reader, we would be woken for each message that it takes.
       So let it take some; but what we need is ours soon, also if it takes no more. */
    uint64_t plenty = self->out.size / 4;
    if (needed < plenty && longest > LONGEST_MODESTY_NS) {
        enum outcome outcome = sleep_for_room(self, position + plenty - self->out.size, target,
                                              LONGEST_MODESTY_NS);
        if (outcome != NOTHING)
            return outcome;
    }
    enum outcome outcome = sleep_for_room(self, target, target, longest);
    if (outcome != NOTHING)
        return outcome;
    return is_cut(&stream->head, &stream->getting) ? BROKEN : INTERRUPTED;
}
