/* What every call to an `End` begins and ends with: its locks, against other threads and against
   other processes. */

#include "end.h"

#include <sys/mman.h>

PyThread_type_lock
new_gate(void)
{
    PyThread_type_lock gate = PyThread_allocate_lock();
    if (gate == NULL)
        PyErr_NoMemory();
    else
        PyThread_acquire_lock(gate, NOWAIT_LOCK);
    return gate;
}

static int
renew(End *self)
{
    /* In a forked child: the parent's threads will never release anything here. */
    struct half *halves[] = {&self->in, &self->out};
    for (int i = 0; i < 2; i++) {
        /* The old gate may be in use, and cannot be freed. */
        if ((halves[i]->gate = new_gate()) == NULL)
            return -1;
        halves[i]->open = false;
        halves[i]->depth = halves[i]->waiting = halves[i]->relying = 0;
        halves[i]->busy = false;
    }
    self->users = 0;
    self->generation = fork_generation;
    return 0;
}

bool
look_for_signals(void)
{
    unsigned generation = fork_generation;
    if (PyErr_CheckSignals() < 0)
        return false;
    if (generation == fork_generation)
        return true;
    PyErr_SetString(busy_error, "cannot go on here: a signal handler has forked this process in "
                                "the middle of a call, which is the parent's to finish");
    return false;
}

/* How often a wait looks whether anybody is left who could end it. */
#define LOOK_AGAIN_NS NANOSECONDS

bool
look_around(struct half *half)
{
    if (!look_for_signals())
        return false;
    if (half->look == NULL)
        return true;
    int64_t now = now_ns();
    if (half->since == 0)
        half->since = now;
    if (now - half->since < LOOK_AGAIN_NS)
        return true;
    half->since = now;
    unsigned generation = fork_generation;
    PyObject *look = Py_NewRef(half->look);
    PyObject *result = PyObject_CallNoArgs(look);
    Py_DECREF(look);
    Py_XDECREF(result);
    return result != NULL && generation == fork_generation;
}

PyObject *
call_out(PyObject *function, PyObject *argument)
{
    unsigned generation = fork_generation;
    PyObject *kept = Py_NewRef(function);
    PyObject *result = PyObject_CallFunctionObjArgs(kept, argument, NULL);
    Py_DECREF(kept);
    if (result != NULL && generation != fork_generation) {
        Py_DECREF(result);
        PyErr_SetString(busy_error, "cannot go on here: this process was forked in the middle of a "
                                    "call, which is the parent's to finish");
        return NULL;
    }
    return result;
}

/* No single wait for a lock is longer: a signal that comes just before it does not end it. */
#define LONGEST_LOCKING NANOSECONDS

/* Wait until no thread has the lock of *half*; as `lock_half`. */
static int
wait_for_half(struct half *half, int64_t longest)
{
    int64_t end = longest == FOR_EVER ? FOR_EVER : now_ns() + longest;
    int result = 1;
    half->waiting++;
    while (half->depth > 0) {
        if (end != FOR_EVER && (longest = end - now_ns()) <= 0) {
            result = 0;
            break;
        }
        if (longest == FOR_EVER || longest > LONGEST_LOCKING)
            longest = LONGEST_LOCKING;
        PyLockStatus status;
        Py_BEGIN_ALLOW_THREADS
        status = PyThread_acquire_lock_timed(half->gate, longest / 1000 + 1, 1);
        Py_END_ALLOW_THREADS
        if (status == PY_LOCK_ACQUIRED)
            half->open = false;
        if (status != PY_LOCK_ACQUIRED && !look_for_signals()) {
            result = -1;
            break;
        }
    }
    if (half->waiting > 0) /* it is 0 in a child that a signal handler has forked */
        half->waiting--;
    return result;
}

int
lock_half(struct half *half, int64_t longest)
{
    unsigned long me = PyThread_get_thread_ident();
    if (half->depth > 0 && half->owner != me) {
        int result = wait_for_half(half, longest);
        if (result <= 0)
            return result;
    }
    half->owner = me;
    half->depth++;
    return 1;
}

void
unlock_half(struct half *half)
{
    /* Not ours any more if this is a child that was forked in the middle of a call. */
    if (half->depth == 0 || half->owner != PyThread_get_thread_ident())
        return;
    if (--half->depth == 0 && half->waiting > 0 && !half->open) {
        half->open = true;
        PyThread_release_lock(half->gate);
    }
}

/* The last holder of the side may have committed something and not have told the other side. */
static void
speak_for_the_dead(End *self, struct half *half)
{
    if (half == &self->out)
        announce(&half->stream->alarm, self->out_bell, atomic_load(&half->stream->head),
                 &half->stream->head);
    else
        wake_writer(self);
}

int
take_side(End *self, struct half *half, int64_t end)
{
    if (half->relying == 0) {
        int error = try_mutex(half->side);
        while (error == EBUSY || error == ETIMEDOUT) {
            int64_t longest = LONGEST_LOCKED_OUT_NS;
            if (end != FOR_EVER) {
                int64_t left = end - now_ns();
                if (left <= 0)
                    return 0;
                if (left < longest)
                    longest = left;
            }
            Py_BEGIN_ALLOW_THREADS
            error = wait_for_mutex(half->side, longest);
            Py_END_ALLOW_THREADS
            if (error == ETIMEDOUT && !look_around(half))
                return -1;
            bool broken = error == ETIMEDOUT && half == &self->out && peer_has_gone(self);
            if (self->closed || broken) {
                if (error == 0 || error == EOWNERDEAD)
                    pthread_mutex_unlock(half->side);
                raise_outcome(self, self->closed ? CLOSED : BROKEN);
                return -1;
            }
        }
        if (error == EDEADLK) {
            /* Through another end of the same memory. */
            refuse_busy(half == &self->out ? "sending" : "receiving");
            return -1;
        }
        if (error == EOWNERDEAD)
            speak_for_the_dead(self, half);
        else if (error != 0) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        if (!renew_size(half)) {
            pthread_mutex_unlock(half->side);
            close_end(self);
            raise_outcome(self, CORRUPT);
            return -1;
        }
    }
    half->relying++;
    return 1;
}

bool
renew_size(struct half *half)
{
    uint64_t size = atomic_load_explicit(&half->stream->size, memory_order_acquire);
    if (size == half->size)
        return true;
    if (size < half->size || size > half->full || (size & (size - 1)) != 0)
        return false;
    half->size = size;
    return true;
}

void
leave_side(End *self, struct half *half)
{
    /* In a child that was forked in the middle of a call, it is gone if the end was closed,
       and else the C library refuses it. */
    if (half->relying > 0 && --half->relying == 0 && self->map != NULL)
        pthread_mutex_unlock(half->side);
}

int
begin(End *self, struct half *half)
{
    if (self->generation != fork_generation && renew(self) < 0)
        return -1;
    if (self->closed) {
        raise_outcome(self, CLOSED);
        return -1;
    }
    self->users++;
    if (half == NULL)
        return 0;
    if (lock_half(half, FOR_EVER) < 0) {
        finish(self, NULL);
        return -1;
    }
    half->since = 0;
    return 0;
}

void
finish(End *self, struct half *half)
{
    if (half != NULL)
        unlock_half(half);
    if (self->users > 0)
        self->users--;
    if (self->closed && self->users == 0)
        give_back(self);
}

void
give_back(End *self)
{
    if (self->map != NULL)
        munmap(self->map, self->length);
    self->map = NULL;
    self->in.stream = self->out.stream = NULL;
    int *descriptors[] = {&self->memory, &self->in_bell, &self->out_bell, &self->peer,
                          &self->epoll};
    for (int i = 0; i < 5; i++) {
        if (*descriptors[i] >= 0)
            close(*descriptors[i]);
        *descriptors[i] = -1;
    }
}

/* -- errors ------------------------------------------------------------------------------ */

PyObject *
raise_outcome(End *self, enum outcome outcome)
{
    (void)self;
    switch (outcome) {
    case BROKEN:
        errno = EPIPE;
        return PyErr_SetFromErrno(PyExc_OSError);
    case ENDED:
        PyErr_SetString(broken_error, "got end of file during message");
        return NULL;
    case CORRUPT:
        PyErr_SetString(PyExc_OSError, "bad message: the memory of the ring is corrupt");
        return NULL;
    default: {
        PyObject *arguments = Py_BuildValue("(is)", EBADF, "handle is closed");
        if (arguments != NULL) {
            PyErr_SetObject(PyExc_OSError, arguments);
            Py_DECREF(arguments);
        }
        return NULL;
    }
    }
}

PyObject *
refuse_busy(const char *doing)
{
    PyErr_Format(busy_error,
                 "cannot be used here: a signal handler has interrupted this thread while it "
                 "was %s a longer message through this very connection",
                 doing);
    return NULL;
}
