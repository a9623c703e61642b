/* Sending: short messages in one piece, longer ones as a stream. */

#include "end.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

struct span {
    const char *start;
    uint64_t length;
};

/* With the side taken: whether nobody can receive any more. The kernel is asked for nothing most of the time, as a system call
   would cost more than the message. A peer that goes in an orderly way says so; that it was
   killed is noticed when the clock has ticked (a few milliseconds) or the ring is full. */
static bool
is_broken(End *self)
{
    struct stream *stream = self->out.stream;
    if (self->alone || atomic_load_explicit(&stream->stopped, memory_order_relaxed))
        return true;
    /* Somebody began a message here and did not finish it; nobody can read past that. */
    if (is_in_the_middle(atomic_load_explicit(&stream->tail, memory_order_relaxed)))
        return true;
    uint32_t left = atomic_load_explicit(&stream->left, memory_order_acquire);
    int64_t time = tick();
    if (left == self->left_seen && time == self->looked)
        return false;
    self->left_seen = left;
    self->looked = time;
    self->alone = peer_has_gone(self) || is_cut(&stream->head, &stream->getting);
    return self->alone;
}

static void
commit(End *self, uint64_t tail)
{
    struct stream *stream = self->out.stream;
    atomic_store_explicit(&stream->writer_cpu, this_cpu(), memory_order_relaxed);
    uint64_t before = atomic_load_explicit(&stream->tail, memory_order_relaxed);
    atomic_store_explicit(&stream->tail, tail, memory_order_release);
    announce(&stream->alarm, self->out_bell, before, &stream->head);
}

/* How much room there is at *position*, if *needed* bytes suffice for the moment. */
static uint64_t
room_at(struct half *half, uint64_t position, uint64_t needed)
{
    uint64_t room = half->size - (position - half->seen);
    if (room >= needed && room <= half->size)
        return room;
    half->seen = atomic_load_explicit(&half->stream->head, memory_order_acquire);
    return half->size - (position - half->seen);
}

struct stream_out {
    const struct span *spans;
    size_t count, index;
    uint64_t done; /* of the current span */
    uint64_t begun, position, committed;
    uint64_t least; /* room to begin with */
    bool grows; /* the ring is to, as soon as it can */
};

/* So many times as long as the ring is a very long message. */
#define VERY_LONG 32

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Make the ring as large as it can be. What is read soon after it was written is still in the cache
   of the processor that wrote it, which has to give it away: a stream through a ring that is larger
   than that cache is quicker. But its memory costs more than a single stream gains by it, unless that
   is a very long one. Without memory the ring stays as it is. */
static void
grow(End *self)
{
    struct half *half = &self->out;
    char *more = half->data + half->size;
    uint64_t size = half->full - half->size;
    int error = posix_fallocate(self->memory, more - self->map, (off_t)size);
    if (error != 0) {
        half->stuck = error != EINTR;
        return;
    }
    /* An older kernel does not do that; then they come one by one. */
    (void)madvise(more, size, MADV_POPULATE_WRITE);
    half->size = half->full;
    atomic_store_explicit(&half->stream->size, half->size, memory_order_release);
}

/* Let the ring grow if all that was committed was read, so that nobody looks for anything where it
   was before. */
static void
grow_if_empty(End *self, struct stream_out *state)
{
    struct half *half = &self->out;
    uint64_t size = half->size, left = state->position - state->committed;
    char last[1];
    half->seen = atomic_load_explicit(&half->stream->head, memory_order_acquire);
    if (half->seen != state->committed || left > sizeof last)
        return;
    copy_out(half->data, size, state->committed, last, left);
    grow(self);
    copy_in(half->data, half->size, state->committed, last, left);
    state->grows = false;
}

static void
commit_part(End *self, struct stream_out *state)
{
    uint64_t tail = part_up_to(state->position);
    if (tail == state->committed)
        return;
    commit(self, tail);
    state->committed = tail;
}

/* Without the GIL: go on until all is written or something has to be seen to. */
static enum outcome
write_spans(End *self, struct stream_out *state)
{
    struct half *half = &self->out;
    if (state->grows && state->position == state->begun)
        grow_if_empty(self, state);
    while (state->index < state->count) {
        const struct span *span = &state->spans[state->index];
        uint64_t left = span->length - state->done;
        if (left == 0) {
            state->index++;
            state->done = 0;
            continue;
        }
        uint64_t least = state->position == state->begun ? state->least : 1;
        uint64_t room = room_at(half, state->position, least);
        if (room > half->size)
            return CORRUPT;
        if (room < least) {
            /* A reader of this message takes all that is there: let it take a good part. */
            uint64_t wanted = half->size / 4;
            if (state->position != state->begun) {
                commit_part(self, state);
                if (state->grows)
                    wanted = half->size - (state->position - state->committed);
            }
            enum outcome outcome = wait_for_room(self, state->position, wanted, LONGEST_SLEEP_NS);
            if (outcome != DONE)
                return outcome;
            if (state->grows)
                grow_if_empty(self, state);
            continue;
        }
        uint64_t piece = PIECE - (state->position - state->committed);
        if (piece > left)
            piece = left;
        if (piece > room)
            piece = room;
        copy_in(half->data, half->size, state->position, span->start + state->done, piece);
        state->done += piece;
        state->position += piece;
        if (state->position - state->committed >= PIECE)
            commit_part(self, state);
    }
    commit(self, state->position);
    return DONE;
}

static PyObject *
send_stream(End *self, const struct span *spans, size_t count, uint64_t total)
{
    struct half *half = &self->out;
    struct stream_out state = {.spans = spans, .count = count};
    if (total > half->size) {
        state.grows = half->size < half->full && !half->stuck &&
                      (half->streamed || total / VERY_LONG > half->size);
        half->streamed = true;
    }
    state.least = aligned(total);
    /* A part of a mark would be nothing that a reader can begin with. */
    if (state.least > shortest_part(half))
        state.least = 2 * sizeof(struct record);
    state.begun = state.position = state.committed =
        atomic_load_explicit(&half->stream->tail, memory_order_relaxed);
    half->busy = true;
    enum outcome outcome;
    do {
        Py_BEGIN_ALLOW_THREADS
        outcome = write_spans(self, &state);
        Py_END_ALLOW_THREADS
    } while (outcome == INTERRUPTED &&
             (state.committed == state.begun ? look_around(half) : look_for_signals()) &&
             !self->closed);
    half->busy = false;
    if (outcome == DONE)
        return none();
    if (outcome == INTERRUPTED && !PyErr_Occurred())
        outcome = CLOSED; /* by the signal handler */
    if (outcome == BROKEN) {
        self->alone = true; /* nobody will see the part; what the peer has sent is still there */
        return raise_outcome(self, outcome);
    }
    /* The next message would be taken for the rest of this one. */
    if (state.committed != state.begun) {
        if (outcome == INTERRUPTED && !self->closed)
            self->torn = 1;
        close_end(self);
    }
    return outcome == INTERRUPTED ? NULL : raise_outcome(self, outcome);
}

static PyObject *
send_whole(End *self, const char *body, uint64_t length)
{
    struct half *half = &self->out;
    struct stream *stream = half->stream;
    uint64_t needed = sizeof(struct record) + aligned(length), tail;
    for (;;) {
        tail = atomic_load_explicit(&stream->tail, memory_order_relaxed);
        uint64_t room = room_at(half, tail, needed);
        if (room > half->size)
            return raise_outcome(self, CORRUPT);
        if (room >= needed)
            break;
        enum outcome outcome;
        Py_BEGIN_ALLOW_THREADS
        outcome = wait_for_room(self, tail, needed, LONGEST_SLEEP_NS);
        Py_END_ALLOW_THREADS
        if (outcome == INTERRUPTED && !look_around(half))
            return NULL; /* nothing of it was written */
        if (self->closed)
            return raise_outcome(self, CLOSED);
        if (half->busy)
            return refuse_busy("sending");
        if (outcome == BROKEN) {
            self->alone = true;
            return raise_outcome(self, BROKEN);
        }
    }
    struct record record = {.body = length, .buffers = 0, .mark = RECORD_MARK};
    copy_in(half->data, half->size, tail, &record, sizeof record);
    if (length >= WORTH_RELEASING) {
        half->busy = true;
        Py_BEGIN_ALLOW_THREADS
        copy_in(half->data, half->size, tail + sizeof record, body, length);
        Py_END_ALLOW_THREADS
        half->busy = false;
    }
    else
        copy_in(half->data, half->size, tail + sizeof record, body, length);
    commit(self, tail + needed);
    return none();
}

static const char padding[ALIGNMENT];

/* Send a message with buffers, or a long one. */
static PyObject *
send_spans(End *self, const char *body, uint64_t length, PyObject *buffers, Py_ssize_t count)
{
    PyObject *result = NULL;
    if ((uint64_t)count > MOST_BUFFERS) {
        PyErr_Format(PyExc_OSError, "a message of %zd buffers is more than the %u allowed", count,
                     (unsigned)MOST_BUFFERS);
        return NULL;
    }
    size_t spans_count = (size_t)count + 4;
    struct span *spans = PyMem_Malloc(spans_count * sizeof *spans);
    Py_buffer *views = PyMem_Malloc((size_t)(count + 1) * sizeof *views);
    uint64_t *lengths = PyMem_Malloc((size_t)(count + 1) * sizeof *lengths);
    Py_ssize_t held = 0;
    if (spans == NULL || views == NULL || lengths == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    struct record record = {.body = length, .buffers = (uint32_t)count, .mark = RECORD_MARK};
    uint64_t total = sizeof record + (uint64_t)count * sizeof *lengths + length;
    spans[0] = (struct span){(const char *)&record, sizeof record};
    spans[1] = (struct span){(const char *)lengths, (uint64_t)count * sizeof *lengths};
    spans[2] = (struct span){body, length};
    for (; held < count; held++) {
        PyObject *buffer = PySequence_GetItem(buffers, held);
        if (buffer == NULL)
            goto done;
        int failed = PyObject_GetBuffer(buffer, &views[held], PyBUF_SIMPLE);
        Py_DECREF(buffer);
        if (failed < 0)
            goto done;
        lengths[held] = (uint64_t)views[held].len;
        spans[3 + held] = (struct span){views[held].buf, lengths[held]};
        total += lengths[held];
    }
    spans[3 + count] = (struct span){padding, aligned(total) - total};
    result = send_stream(self, spans, spans_count, total);
done:
    while (held-- > 0)
        PyBuffer_Release(&views[held]);
    PyMem_Free(lengths);
    PyMem_Free(views);
    PyMem_Free(spans);
    return result;
}

/* With the side taken: whether *before* lets the message go; -1 with an exception. */
static int
ask_before(End *self, PyObject *before)
{
    PyObject *answer = call_out(before, NULL);
    if (answer == NULL)
        return -1;
    int go = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    if (go > 0 && self->closed) {
        raise_outcome(self, CLOSED);
        return -1;
    }
    return go;
}

PyObject *
send_message(End *self, PyObject *message, PyObject *buffers, PyObject *before)
{
    Py_ssize_t count = buffers == NULL ? 0 : PySequence_Size(buffers);
    if (count < 0)
        return NULL;
    Py_buffer view;
    const char *body;
    Py_ssize_t length;
    bool is_bytes = PyBytes_CheckExact(message);
    if (is_bytes) {
        body = PyBytes_AsString(message);
        length = PyBytes_Size(message);
    }
    else {
        if (PyObject_GetBuffer(message, &view, PyBUF_SIMPLE) < 0)
            return NULL;
        body = view.buf;
        length = view.len;
    }
    PyObject *result = NULL;
    if (begin(self, &self->out) == 0) {
        if (self->out.busy)
            refuse_busy("sending");
        else if (!self->writable || self->closed)
            raise_outcome(self, CLOSED);
        else if (take_side(self, &self->out, FOR_EVER) > 0) {
            int go = 1;
            if (is_broken(self))
                raise_outcome(self, BROKEN);
            else if (before != NULL && (go = ask_before(self, before)) <= 0)
                result = go == 0 ? PyBool_FromLong(0) : NULL;
            else if (count == 0 && (uint64_t)length <= PIECE &&
                     (uint64_t)length <= self->out.size / 4)
                result = send_whole(self, body, (uint64_t)length);
            else
                result = send_spans(self, body, (uint64_t)length, buffers, count);
            leave_side(self, &self->out);
        }
        finish(self, &self->out);
    }
    if (!is_bytes)
        PyBuffer_Release(&view);
    return result;
}

PyObject *
End_send(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    if (count < 1 || count > 3) {
        PyErr_SetString(PyExc_TypeError,
                        "send() takes a body and, at most, buffers and what to call before");
        return NULL;
    }
    return send_message((End *)object, args[0], count >= 2 ? args[1] : NULL,
                        count == 3 && args[2] != Py_None ? args[2] : NULL);
}

/* Whether a send of so much would not wait for room to begin; its side is taken. */
static bool
could_begin(End *self, uint64_t needed)
{
    struct half *half = &self->out;
    /* In a message, or with nobody there, it does not wait but fails. */
    if (half->busy || is_broken(self))
        return true;
    uint64_t tail = atomic_load_explicit(&half->stream->tail, memory_order_relaxed);
    return room_at(half, tail, needed) >= needed;
}

/* The side is taken: senders wait for each other, and one at a time for room. */
static PyObject *
wait_until_it_could_begin(End *self, uint64_t needed, int64_t end)
{
    int64_t longest = INT64_MAX;
    for (;;) {
        if (self->closed)
            return raise_outcome(self, CLOSED);
        if (could_begin(self, needed))
            return PyBool_FromLong(1);
        if (end != FOR_EVER) {
            longest = end - now_ns();
            if (longest <= 0)
                return PyBool_FromLong(0);
        }
        uint64_t tail = atomic_load_explicit(&self->out.stream->tail, memory_order_relaxed);
        enum outcome outcome;
        Py_BEGIN_ALLOW_THREADS
        outcome = wait_for_room(self, tail, needed, longest);
        Py_END_ALLOW_THREADS
        if (outcome == BROKEN)
            self->alone = true;
        else if (outcome == INTERRUPTED && !look_for_signals())
            return NULL;
    }
}

PyObject *
End_wait_for_room(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    End *self = (End *)object;
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "wait_for_room() takes a length and a timeout");
        return NULL;
    }
    Py_ssize_t length = PyLong_AsSsize_t(args[0]);
    if (length < 0) {
        if (!PyErr_Occurred())
            PyErr_Format(PyExc_ValueError, "the length of a message cannot be %zd", length);
        return NULL;
    }
    int64_t longest;
    if (read_timeout(count == 2 ? args[1] : Py_None, &longest) < 0 || begin(self, NULL) < 0)
        return NULL;
    int64_t end = longest == FOR_EVER ? FOR_EVER : now_ns() + longest;
    struct half *half = &self->out;
    PyObject *result = NULL;
    int locked = 0, taken = 0;
    if (!self->writable)
        raise_outcome(self, CLOSED);
    else if ((locked = lock_half(half, longest)) == 0 ||
             (locked > 0 && (taken = take_side(self, half, end)) == 0))
        result = PyBool_FromLong(0);
    else if (taken > 0) {
        /* A longer message is streamed, and waits for so much itself. */
        uint64_t needed = half->size / 4;
        if ((uint64_t)length <= needed)
            needed = sizeof(struct record) + aligned((uint64_t)length);
        result = wait_until_it_could_begin(self, needed, end);
        leave_side(self, half);
    }
    finish(self, locked > 0 ? half : NULL);
    return result;
}
