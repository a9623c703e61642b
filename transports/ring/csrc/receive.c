/* Receiving: every length is checked before anything is done about it. */

#include "end.h"

#include <stdlib.h>

/* Shorter bodies are received as bytes, which is what most want of them; longer ones, and
   all buffers, into memory that `take` gives. */
#define LONGEST_BYTES (UINT64_C(256) << 10)
/* So many buffers are short, and are received into one piece of memory together. */
#define MOST_VIEWS 512

struct target {
    char *start;
    uint64_t length;
};

struct stream_in {
    const struct target *targets;
    size_t count, index;
    uint64_t done; /* of the current target */
    uint64_t position;
    uint64_t end; /* of the message; 0 as long as that is not known */
};

/* Give the memory up to *head* back to the writer. */
static void
consume(End *self, uint64_t head)
{
    struct stream *stream = self->in.stream;
    atomic_store_explicit(&stream->reader_cpu, this_cpu(), memory_order_relaxed);
    atomic_store_explicit(&stream->head, head, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t wanted = atomic_load_explicit(&stream->room_wanted, memory_order_relaxed);
    if (wanted != 0 && (int64_t)(head - (wanted - 1)) >= 0 &&
        atomic_compare_exchange_strong(&stream->room_wanted, &wanted, 0))
        wake_writer(self);
    if (atomic_load_explicit(&stream->alarm.watched, memory_order_relaxed) &&
        !has_data(stream))
        settle(&stream->alarm, self->in_bell, &stream->tail, &stream->head);
}

/* How many bytes can be taken at *position*; renewed if they are fewer than *needed*. */
static bool
available_at(struct half *half, uint64_t position, uint64_t needed, uint64_t *available)
{
    int64_t seen = (int64_t)(half->seen - position);
    if (seen < 0 || (uint64_t)seen < needed || (uint64_t)seen > half->size) {
        half->seen = atomic_load_explicit(&half->stream->tail, memory_order_acquire);
        if (!renew_size(half))
            return false;
        seen = (int64_t)(half->seen - position);
    }
    *available = (uint64_t)seen;
    return seen >= 0 && (uint64_t)seen <= half->size;
}

/* Without the GIL: go on until all is received or something has to be seen to. */
static enum outcome
read_targets(End *self, struct stream_in *state)
{
    struct half *half = &self->in;
    while (state->index < state->count) {
        const struct target *target = &state->targets[state->index];
        uint64_t left = target->length - state->done, available;
        if (left == 0) {
            state->index++;
            state->done = 0;
            continue;
        }
        if (!available_at(half, state->position, 1, &available))
            return CORRUPT;
        if (available == 0) {
            /* That is the end of a message, and by its own account there must be more. */
            if (!is_in_the_middle(state->position))
                return CORRUPT;
            /* The mark is left where it is as long as nothing else was taken; from here on
               it must not look like something to take. */
            if (atomic_load_explicit(&half->stream->head, memory_order_relaxed) !=
                state->position)
                consume(self, state->position);
            enum outcome outcome = wait_for_data(self, LONGEST_SLEEP_NS, true);
            if (outcome != DONE)
                return outcome;
            continue;
        }
        uint64_t piece = PIECE;
        if (piece > left)
            piece = left;
        if (piece > available)
            piece = available;
        copy_out(half->data, half->size, state->position, target->start + state->done, piece);
        state->done += piece;
        state->position += piece;
        /* Of a short message, nothing before all of it: who is killed meanwhile leaves it whole. */
        uint64_t head = atomic_load_explicit(&half->stream->head, memory_order_relaxed);
        if (state->position != state->end && state->position - head >= shortest_part(half))
            consume(self, part_up_to(state->position));
    }
    if (state->position == state->end)
        consume(self, state->end);
    return DONE;
}

/* Receive into *targets* from where the stream is, and return whether that succeeded. What
   comes after an incomplete message would be taken for the rest of it: so that closes. */
static bool
receive_stream(End *self, uint64_t *position, const struct target *targets, size_t count,
               uint64_t end)
{
    struct stream_in state = {
        .targets = targets, .count = count, .position = *position, .end = end};
    enum outcome outcome;
    do {
        Py_BEGIN_ALLOW_THREADS
        outcome = read_targets(self, &state);
        Py_END_ALLOW_THREADS
    } while (outcome == INTERRUPTED && look_for_signals() && !self->closed);
    *position = state.position;
    if (outcome == INTERRUPTED && !PyErr_Occurred())
        outcome = CLOSED; /* by the signal handler */
    if (outcome == DONE)
        return true;
    if (outcome == INTERRUPTED && !self->closed)
        self->torn = 1;
    close_end(self);
    if (outcome != INTERRUPTED)
        raise_outcome(self, outcome);
    return false;
}

/* With the side taken: read the mark of the next message, whose position goes to *position*.
   NOTHING means that another process was faster. */
static enum outcome
read_record(End *self, uint64_t *position, struct record *record)
{
    struct half *half = &self->in;
    uint64_t available;
    *position = atomic_load_explicit(&half->stream->head, memory_order_relaxed);
    if (is_in_the_middle(*position))
        return ENDED; /* of a message whose reader has gone */
    if (!available_at(half, *position, sizeof *record, &available))
        return CORRUPT;
    if (available < sizeof *record)
        return available == 0 ? NOTHING : CORRUPT;
    copy_out(half->data, half->size, *position, record, sizeof *record);
    if (record->mark != RECORD_MARK || record->body > LONGEST_MESSAGE ||
        record->buffers > MOST_BUFFERS)
        return CORRUPT;
    return DONE;
}

/* Wait until there is something to receive, or false with an exception. No other process is
   kept from it meanwhile. */
static bool
await_data(End *self, bool first)
{
    struct half *half = &self->in;
    enum outcome outcome;
    Py_BEGIN_ALLOW_THREADS
    outcome = wait_for_data(self, NANOSECONDS, first);
    Py_END_ALLOW_THREADS
    if (outcome == INTERRUPTED && !look_around(half))
        return false; /* nothing was taken */
    if (self->closed || !self->readable)
        raise_outcome(self, CLOSED);
    else if (half->busy)
        refuse_busy("receiving");
    else if (outcome != ENDED)
        return true;
    else if (is_in_the_middle(atomic_load(&half->stream->head)))
        raise_outcome(self, ENDED);
    else
        PyErr_SetString(PyExc_EOFError, "the other end was closed");
    return false;
}

/* Whether something was there when we last looked that was not taken: then the other processor is
   not asked for the word that it writes to all the time. Others may have taken it meanwhile. */
static bool
has_seen_data(const struct half *half)
{
    return (int64_t)(half->seen - atomic_load_explicit(&half->stream->head,
                                                       memory_order_relaxed)) > 0;
}

/* Wait for a message and read its mark; the position of the message is in *position*. The
   side is taken if that succeeds. */
static bool
next_record(End *self, uint64_t *position, struct record *record)
{
    struct half *half = &self->in;
    for (bool first = true;; first = false) {
        if (has_seen_data(half) || has_data(half->stream)) {
            if (take_side(self, half, FOR_EVER) < 0)
                return false;
            enum outcome outcome = read_record(self, position, record);
            if (outcome == DONE)
                return true;
            leave_side(self, half);
            if (outcome != NOTHING) {
                close_end(self);
                raise_outcome(self, outcome);
                return false;
            }
        }
        if (!await_data(self, first))
            return false;
    }
}

/* A short message that is there whole: the way of nearly all of them. */
static PyObject *
receive_short(End *self, uint64_t position, uint64_t length)
{
    struct half *half = &self->in;
    PyObject *body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
    if (body == NULL)
        return NULL;
    uint64_t start = position + sizeof(struct record);
    if (length >= WORTH_RELEASING) {
        half->busy = true;
        Py_BEGIN_ALLOW_THREADS
        copy_out(half->data, half->size, start, PyBytes_AsString(body), length);
        consume(self, start + aligned(length));
        Py_END_ALLOW_THREADS
        half->busy = false;
    }
    else {
        copy_out(half->data, half->size, start, PyBytes_AsString(body), length);
        consume(self, start + aligned(length));
    }
    return body;
}

/* The pieces of memory that one message is received into. */
struct parts {
    PyObject *body;
    PyObject *buffers; /* a list */
    struct target *targets;
    size_t count;
    Py_buffer *views;
    size_t held;
};

static bool
add_view(struct parts *parts, PyObject *memory, uint64_t length)
{
    Py_buffer *view = &parts->views[parts->held];
    if (PyObject_GetBuffer(memory, view, PyBUF_WRITABLE) < 0)
        return false;
    parts->held++;
    if ((uint64_t)view->len < length) {
        PyErr_SetString(PyExc_ValueError, "less memory was given than was asked for");
        return false;
    }
    parts->targets[parts->count++] = (struct target){view->buf, length};
    return true;
}

static PyObject *
take(End *self, uint64_t length)
{
    return PyObject_CallFunction(self->take, "K", (unsigned long long)length);
}

static bool
get_body(End *self, struct parts *parts, uint64_t length, uint32_t count, Py_buffer *into,
         PyObject *into_object)
{
    if (into != NULL && count == 0 && length <= (uint64_t)into->len) {
        parts->body = PySequence_GetSlice(into_object, 0, (Py_ssize_t)length);
        if (parts->body == NULL)
            return false;
        parts->targets[parts->count++] = (struct target){into->buf, length};
        return true;
    }
    if (length < LONGEST_BYTES) {
        parts->body = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)length);
        if (parts->body == NULL)
            return false;
        parts->targets[parts->count++] =
            (struct target){PyBytes_AsString(parts->body), length};
        return true;
    }
    parts->body = take(self, length);
    return parts->body != NULL && add_view(parts, parts->body, length);
}

static bool
get_buffers(End *self, struct parts *parts, const uint64_t *lengths, uint32_t count,
            uint64_t total)
{
    parts->buffers = PyList_New(0);
    if (parts->buffers == NULL)
        return false;
    PyObject *whole = NULL;
    bool good = true;
    if (count > MOST_VIEWS) {
        whole = take(self, total);
        if (whole == NULL)
            return false;
        good = add_view(parts, whole, total);
    }
    uint64_t start = 0;
    for (uint32_t i = 0; good && i < count; i++) {
        PyObject *memory;
        if (whole != NULL)
            memory = PySequence_GetSlice(whole, (Py_ssize_t)start,
                                         (Py_ssize_t)(start + lengths[i]));
        else
            memory = take(self, lengths[i]);
        good = memory != NULL && PyList_Append(parts->buffers, memory) == 0 &&
               (whole != NULL || add_view(parts, memory, lengths[i]));
        Py_XDECREF(memory);
        start += lengths[i];
    }
    Py_XDECREF(whole);
    return good;
}

static PyObject *
receive_long(End *self, uint64_t position, struct record record, Py_buffer *into,
             PyObject *into_object, PyObject **buffers)
{
    struct half *half = &self->in;
    struct parts parts = {0};
    uint32_t count = record.buffers;
    size_t most = (count > MOST_VIEWS ? 1 : count) + 3;
    uint64_t *lengths = NULL;
    bool good = false;
    half->busy = true;
    parts.targets = PyMem_Calloc(most, sizeof *parts.targets);
    parts.views = PyMem_Calloc(most, sizeof *parts.views);
    if (parts.targets == NULL || parts.views == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    position += sizeof record;
    uint64_t begun = position, total = 0;
    if (count > 0) {
        uint64_t size = count * sizeof *lengths;
        lengths = PyMem_Malloc(size);
        if (lengths == NULL) {
            PyErr_NoMemory();
            goto done;
        }
        struct target table = {(char *)lengths, size};
        if (!receive_stream(self, &position, &table, 1, 0))
            goto done;
        for (uint32_t i = 0; i < count; i++) {
            if (lengths[i] > LONGEST_MESSAGE || total > LONGEST_MESSAGE) {
                close_end(self);
                raise_outcome(self, CORRUPT);
                goto done;
            }
            total += lengths[i];
        }
    }
    if (!get_body(self, &parts, record.body, count, into, into_object) ||
        (count > 0 && !get_buffers(self, &parts, lengths, count, total)))
        goto closing;
    char padding[ALIGNMENT];
    uint64_t sum = count * sizeof *lengths + record.body + total;
    parts.targets[parts.count++] = (struct target){padding, aligned(sum) - sum};
    good = receive_stream(self, &position, parts.targets, parts.count, begun + aligned(sum));
    goto done;
closing:
    /* Without the lengths, which were taken, the rest means nothing. */
    if (count > 0)
        close_end(self);
done:
    half->busy = false;
    while (parts.held > 0)
        PyBuffer_Release(&parts.views[--parts.held]);
    PyMem_Free(lengths);
    PyMem_Free(parts.views);
    PyMem_Free(parts.targets);
    if (!good) {
        Py_XDECREF(parts.body);
        Py_XDECREF(parts.buffers);
        return NULL;
    }
    *buffers = parts.buffers;
    return parts.body;
}

/* With the side taken: receive the message at *position*. */
static PyObject *
receive_record(End *self, uint64_t position, struct record record, Py_buffer *into,
               PyObject *into_object, uint64_t limit, PyObject **buffers)
{
    uint64_t available;
    if (record.body > limit) {
        stop_reading(self);
        PyErr_Format(too_long_error,
                     "bad message length: %llu bytes have come and at most %llu were asked "
                     "for; nothing more can be received here",
                     (unsigned long long)record.body, (unsigned long long)limit);
        return NULL;
    }
    if (record.buffers == 0 && record.body < LONGEST_BYTES && into == NULL) {
        uint64_t needed = sizeof record + aligned(record.body);
        if (!available_at(&self->in, position, needed, &available)) {
            close_end(self);
            return raise_outcome(self, CORRUPT);
        }
        if (available >= needed)
            return receive_short(self, position, record.body);
    }
    return receive_long(self, position, record, into, into_object, buffers);
}

/* With the side taken, so that the luggage of messages comes in their order: replace a body of
   nothing and its buffers by what they are, or by NULL with an exception. */
static void
take_luggage(End *self, PyObject **body, PyObject **buffers)
{
    PyObject *message = call_out(self->luggage, *buffers), *real_body = NULL, *luggage = NULL;
    if (message != NULL && PyArg_ParseTuple(message, "OO", &real_body, &luggage)) {
        Py_INCREF(real_body);
        Py_INCREF(luggage);
    }
    Py_XDECREF(message);
    Py_DECREF(*body);
    Py_DECREF(*buffers);
    *body = real_body;
    *buffers = luggage;
}

static PyObject *
receive_one(End *self, Py_buffer *into, PyObject *into_object, uint64_t limit,
            PyObject **buffers)
{
    uint64_t position;
    struct record record;
    if (self->in.busy)
        return refuse_busy("receiving");
    if (!self->readable || self->closed)
        return raise_outcome(self, CLOSED);
    if (!next_record(self, &position, &record))
        return NULL;
    PyObject *body = receive_record(self, position, record, into, into_object, limit, buffers);
    if (body != NULL && record.body == 0 && record.buffers > 0 && self->luggage != NULL)
        take_luggage(self, &body, buffers);
    leave_side(self, &self->in);
    return body;
}

PyObject *
receive_message(End *self, Py_buffer *into, PyObject *into_object, uint64_t limit,
                PyObject **buffers)
{
    if (begin(self, &self->in) < 0)
        return NULL;
    PyObject *body = receive_one(self, into, into_object, limit, buffers);
    finish(self, &self->in);
    return body;
}

PyObject *
End_receive(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    End *self = (End *)object;
    Py_buffer view, *into = NULL;
    uint64_t limit = LONGEST_MESSAGE;
    if (count > 2) {
        PyErr_SetString(PyExc_TypeError, "receive() takes at most two arguments");
        return NULL;
    }
    if (count == 2 && args[1] != Py_None) {
        limit = PyLong_AsUnsignedLongLong(args[1]);
        if (limit == (uint64_t)-1 && PyErr_Occurred()) {
            if (!PyErr_ExceptionMatches(PyExc_OverflowError))
                return NULL;
            PyErr_Clear(); /* no message is so long */
            limit = LONGEST_MESSAGE;
        }
    }
    if (count >= 1 && args[0] != Py_None) {
        if (PyObject_GetBuffer(args[0], &view, PyBUF_WRITABLE) < 0)
            return NULL;
        into = &view;
    }
    PyObject *buffers = NULL, *message = NULL;
    PyObject *body = receive_message(self, into, into == NULL ? NULL : args[0], limit, &buffers);
    if (into != NULL)
        PyBuffer_Release(into);
    /* Not before the lock is free: making a tuple may run any code, of the collector. */
    if (body != NULL) {
        if (buffers == NULL)
            buffers = PyTuple_New(0);
        if (buffers != NULL)
            message = PyTuple_Pack(2, body, buffers);
    }
    Py_XDECREF(body);
    Py_XDECREF(buffers);
    return message;
}
