/* The type `End`: making, waiting, closing. Receiving and sending have files of their own. */

#include "end.h"

#include <structmember.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* -- calls and locks ------------------------------------------------------------------- */

static PyThread_type_lock
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

/* No single wait for a lock is longer. */
#define LONGEST_LOCKING (NANOSECONDS * 1000)

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
        if (status == PY_LOCK_INTR && !look_for_signals()) {
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
        announce(&half->stream->alarm, self->out_bell);
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
            if (error == ETIMEDOUT && !look_for_signals())
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
    }
    half->relying++;
    return 1;
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
    if (half != NULL && lock_half(half, FOR_EVER) < 0) {
        finish(self, NULL);
        return -1;
    }
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

/* -- waiting, without the GIL ------------------------------------------------------------ */

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

enum outcome
wait_for_room(End *self, uint64_t position, uint64_t needed, int64_t longest)
{
    struct stream *stream = self->out.stream;
    uint64_t target = position + needed - self->out.size;
#define HAS_ROOM() \
    ((int64_t)(atomic_load_explicit(&stream->head, memory_order_acquire) - target) >= 0)
    int32_t budget = spin_budget(&self->out.patience);
    if (budget > 0 &&
        is_elsewhere(atomic_load_explicit(&stream->reader_cpu, memory_order_relaxed))) {
        int64_t end = now_ns() + budget;
        do {
            pause_a_little();
            if (HAS_ROOM()) {
                spin_result(&self->out.patience, true);
                return DONE;
            }
        } while (now_ns() < end);
        spin_result(&self->out.patience, false);
    }
    char tokens[64];
    ssize_t drained = recv(self->peer, tokens, sizeof tokens, MSG_DONTWAIT);
    (void)drained;
    atomic_store(&stream->room_wanted, target + 1);
    atomic_thread_fence(memory_order_seq_cst);
    enum outcome outcome = INTERRUPTED;
    if (HAS_ROOM())
        outcome = DONE;
    else if (self->closed)
        outcome = CLOSED;
    else if (atomic_load(&stream->stopped))
        outcome = BROKEN;
    else {
        struct pollfd ready = {.fd = self->peer, .events = POLLIN};
        int count =
            sleep_until(&ready, 1, longest < LONGEST_SLEEP_NS ? longest : LONGEST_SLEEP_NS);
        if (count >= 0 && HAS_ROOM())
            outcome = DONE;
        else if (count > 0 && (ready.revents & (POLLHUP | POLLERR)))
            outcome = BROKEN;
        else if (count == 0 && is_cut(&stream->head, &stream->getting))
            outcome = BROKEN;
    }
    atomic_store(&stream->room_wanted, 0);
    return outcome;
#undef HAS_ROOM
}

/* -- methods ------------------------------------------------------------------------------ */

/* Seconds that are for ever. */
#define LONGEST_TIMEOUT 1e9

int
read_timeout(PyObject *timeout, int64_t *longest)
{
    *longest = FOR_EVER;
    if (timeout == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds > 0))
        *longest = 0;
    else if (seconds < LONGEST_TIMEOUT)
        *longest = (int64_t)(seconds * 1e9) + 1;
    return 0;
}

static PyObject *
End_wait(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    End *self = (End *)object;
    int64_t longest;
    if (count > 1) {
        PyErr_SetString(PyExc_TypeError, "wait() takes at most one argument");
        return NULL;
    }
    if (read_timeout(count == 1 ? args[0] : Py_None, &longest) < 0)
        return NULL;
    int64_t end = longest == FOR_EVER ? FOR_EVER : now_ns() + longest;
    bool once = longest == 0;
    if (longest == FOR_EVER)
        longest = INT64_MAX;
    if (begin(self, NULL) < 0)
        return NULL;
    PyObject *result = NULL;
    if (self->in.stream == NULL || !self->readable)
        raise_outcome(self, CLOSED);
    else if (once) {
        struct stream *stream = self->in.stream;
        bool ready = has_data(stream) || peer_has_gone(self) ||
                     is_cut(&stream->tail, &stream->putting);
        result = PyBool_FromLong(ready);
    }
    else {
        for (bool first = true;; first = false) {
            enum outcome outcome;
            Py_BEGIN_ALLOW_THREADS
            outcome = wait_for_data(self, longest, first);
            Py_END_ALLOW_THREADS
            if (outcome == DONE || outcome == ENDED) {
                result = PyBool_FromLong(1);
                break;
            }
            if (outcome == INTERRUPTED && !look_for_signals())
                break;
            if (self->closed || outcome == CLOSED) {
                raise_outcome(self, CLOSED);
                break;
            }
            if (end != FOR_EVER) {
                longest = end - now_ns();
                if (longest <= 0) {
                    result = PyBool_FromLong(has_data(self->in.stream));
                    break;
                }
            }
        }
    }
    finish(self, NULL);
    return result;
}

/* Make a descriptor that is readable when a message, or the end, is there. */
static int
watch(End *self)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event data = {.events = EPOLLIN}, end = {.events = 0};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, self->in_bell, &data) < 0 ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, self->peer, &end) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        if (epoll >= 0)
            close(epoll);
        return -1;
    }
    self->epoll = epoll;
    struct stream *stream = self->in.stream;
    atomic_store(&stream->alarm.armed, 1);
    silence(self->in_bell);
    atomic_store(&stream->alarm.watched, 1);
    settle(&stream->alarm, self->in_bell, &stream->tail, &stream->head);
    return 0;
}

static PyObject *
End_fileno(PyObject *object, PyObject *unused)
{
    (void)unused;
    End *self = (End *)object;
    if (begin(self, NULL) < 0)
        return NULL;
    int fd = self->peer;
    if (self->readable) {
        if (self->epoll < 0 && watch(self) < 0)
            fd = -1;
        else
            fd = self->epoll;
    }
    finish(self, NULL);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

static PyObject *
End_descriptors(PyObject *object, PyObject *unused)
{
    (void)unused;
    End *self = (End *)object;
    if (begin(self, NULL) < 0)
        return NULL;
    PyObject *result = Py_BuildValue("(iiii)", self->memory, self->in_bell, self->out_bell,
                                     self->peer);
    finish(self, NULL);
    return result;
}

/* Tell a writer that sleeps or will come that a reader has gone; it looks for itself. */
static void
say_goodbye(End *self)
{
    struct stream *stream = self->in.stream;
    if (stream == NULL || self->memory < 0)
        return;
    atomic_fetch_add(&stream->left, 1);
}

void
close_end(End *self)
{
    if (self->closed)
        return;
    self->closed = 1;
    if (self->generation != fork_generation)
        self->users = 0; /* they are the parent's */
    say_goodbye(self);
    if (self->users == 0)
        give_back(self);
    else if (self->in.stream != NULL) {
        /* Threads of ours that sleep in `receive` look up. */
        atomic_store(&self->in.stream->alarm.armed, 0);
        ring(self->in_bell);
    }
}

static PyObject *
End_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    close_end((End *)object);
    return none();
}

void
stop_reading(End *self)
{
    if (!self->writable) {
        close_end(self);
        return;
    }
    self->readable = 0;
    say_goodbye(self);
    atomic_store(&self->in.stream->stopped, 1);
    wake_writer(self);
}

void
wake_writer(End *self)
{
    char token = 0;
    /* It fails when so many tokens are there that one more says nothing new. */
    ssize_t sent = send(self->peer, &token, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)sent;
}

/* -- making -------------------------------------------------------------------------------- */

static int
make_locks(struct stream *stream)
{
    int error = make_mutex(&stream->putting);
    if (error == 0)
        error = make_mutex(&stream->getting);
    if (error != 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    stream->lock_size = sizeof(pthread_mutex_t);
    return 0;
}

/* Find the ring at *offset*, and the lock of its side, which lies *side* behind its beginning. */
static int
set_half(End *self, struct half *half, Py_ssize_t offset, size_t side, bool create)
{
    if ((half->gate = new_gate()) == NULL)
        return -1;
    half->patience.budget = LONGEST_SPIN;
    if (offset < 0)
        return 0;
    if (offset % HEADER_SIZE != 0 || (size_t)offset > self->length - HEADER_SIZE) {
        PyErr_SetString(PyExc_ValueError, "no ring begins there");
        return -1;
    }
    char *header = self->map + offset;
    half->size = checked_size(header, STREAM_MAGIC, (size_t)offset, self->length);
    if (half->size == 0)
        return -1;
    half->data = header + HEADER_SIZE;
    half->stream = (struct stream *)header;
    half->side = (pthread_mutex_t *)(header + side);
    return create ? make_locks(half->stream) : check_lock_size(half->stream->lock_size);
}

static PyObject *
End_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    int memory, in_bell, out_bell, peer, create;
    Py_ssize_t in_offset, out_offset;
    PyObject *take;
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "End() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "iiiinnOp:End", &memory, &in_bell, &out_bell, &peer, &in_offset,
                          &out_offset, &take, &create))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    End *self = (End *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    /* The descriptors become ours at the very end: until then they are the caller's. */
    self->memory = self->in_bell = self->out_bell = self->peer = self->epoll = -1;
    self->generation = fork_generation;
    self->take = Py_NewRef(take);
    self->map = map_all(memory, &self->length);
    if (self->map == NULL ||
        set_half(self, &self->in, in_offset, offsetof(struct stream, getting), create) < 0 ||
        set_half(self, &self->out, out_offset, offsetof(struct stream, putting), create) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->readable = in_offset >= 0;
    self->writable = out_offset >= 0;
    if (self->writable)
        self->left_seen = atomic_load(&self->out.stream->left);
    self->memory = memory;
    self->in_bell = in_bell;
    self->out_bell = out_bell;
    self->peer = peer;
    return (PyObject *)self;
}

static void
End_dealloc(PyObject *object)
{
    End *self = (End *)object;
    close_end(self);
    give_back(self);
    if (self->in.gate != NULL)
        PyThread_free_lock(self->in.gate);
    if (self->out.gate != NULL)
        PyThread_free_lock(self->out.gate);
    Py_XDECREF(self->take);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"receive", (PyCFunction)(void (*)(void))End_receive, METH_FASTCALL,
     "receive(into=None, limit=None, /)\n--\n\nSee `procession.plugin.Channel.receive`."},
    {"send", (PyCFunction)(void (*)(void))End_send, METH_FASTCALL,
     "send(body, buffers=(), /)\n--\n\nSee `procession.plugin.Channel.send`."},
    {"wait", (PyCFunction)(void (*)(void))End_wait, METH_FASTCALL,
     "wait(timeout=None, /)\n--\n\nSee `procession.plugin.Channel.wait`."},
    {"wait_for_room", (PyCFunction)(void (*)(void))End_wait_for_room, METH_FASTCALL,
     "wait_for_room(length, timeout=None, /)\n--\n\n"
     "See `procession.plugin.Channel.wait_for_room`."},
    {"fileno", End_fileno, METH_NOARGS, "fileno()\n--\n\nSee `procession.plugin.Channel.fileno`."},
    {"descriptors", End_descriptors, METH_NOARGS,
     "descriptors()\n--\n\nReturn memory, bell in, bell out and peer; they stay this end's."},
    {"close", End_close, METH_NOARGS, "close()\n--\n\nSee `procession.plugin.Channel.close`."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"closed", T_BOOL, offsetof(End, closed), READONLY, "Whether this end was closed."},
    {"torn", T_BOOL, offsetof(End, torn), READONLY,
     "Whether a signal handler closed it by raising in the middle of a message."},
    {"readable", T_BOOL, offsetof(End, readable), READONLY, "Whether this end can receive."},
    {"writable", T_BOOL, offsetof(End, writable), READONLY, "Whether this end can send."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, End_new},
    {Py_tp_dealloc, End_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_doc,
     "End(memory, in_bell, out_bell, peer, in_offset, out_offset, take, create, /)\n--\n\n"
     "One end of a connection; takes over the descriptors if it can be made."},
    {0, NULL},
};

PyType_Spec end_spec = {
    .name = "procession_ring._native.End",
    .basicsize = sizeof(End),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
