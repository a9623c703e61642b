/* The type `End`: making, asking, closing. What its calls share is in calls.c; waiting, receiving
   and sending have files of their own. */

#include "end.h"

#include <structmember.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

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
        if (!ready && self->epoll >= 0) {
            /* It may have rung in vain, and must not go on with that. */
            Py_BEGIN_ALLOW_THREADS
            settle(&stream->alarm, self->in_bell, &stream->tail, &stream->head);
            Py_END_ALLOW_THREADS
            ready = has_data(stream);
        }
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
End_watch(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    End *self = (End *)object;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "watch() takes two functions");
        return NULL;
    }
    struct half *halves[] = {&self->in, &self->out};
    for (int i = 0; i < 2; i++) {
        PyObject *old = halves[i]->look;
        halves[i]->look = Py_NewRef(args[i]);
        Py_XDECREF(old);
    }
    return PyBool_FromLong(1);
}

static PyObject *
End_carry(PyObject *object, PyObject *luggage)
{
    End *self = (End *)object;
    PyObject *old = self->luggage;
    self->luggage = Py_NewRef(luggage);
    Py_XDECREF(old);
    return none();
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
set_half(End *self, int memory, struct half *half, Py_ssize_t offset, size_t side, bool create)
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
    half->full = half->stream->full;
    size_t room = self->length - HEADER_SIZE - (size_t)offset;
    if ((half->full & (half->full - 1)) != 0 || half->full < half->size || half->full > room) {
        PyErr_SetString(PyExc_OSError, "not the memory of a ring, or of another version of it");
        return -1;
    }
    /* Its pages, as far as they are there, are to cost no faults when they are used. */
    if (mmap(header, HEADER_SIZE + half->size, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED | MAP_POPULATE, memory, offset) == MAP_FAILED) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
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
    self->map = map_all(memory, &self->length, false);
    if (self->map == NULL ||
        set_half(self, memory, &self->in, in_offset, offsetof(struct stream, getting),
                 create) < 0 ||
        set_half(self, memory, &self->out, out_offset, offsetof(struct stream, putting),
                 create) < 0) {
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
    Py_XDECREF(self->luggage);
    Py_XDECREF(self->in.look);
    Py_XDECREF(self->out.look);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"receive", (PyCFunction)(void (*)(void))End_receive, METH_FASTCALL,
     "receive(into=None, limit=None, /)\n--\n\nSee `procession.plugin.Channel.receive`."},
    {"send", (PyCFunction)(void (*)(void))End_send, METH_FASTCALL,
     "send(body, buffers=(), before=None, /)\n--\n\nSee `procession.plugin.Channel.send`.\n\n"
     "*before* is called with the side taken; if it says False, nothing is sent, and that is what\n"
     "is returned."},
    {"carry", End_carry, METH_O,
     "carry(luggage, /)\n--\n\nHave *luggage* called, with the buffers, for a message that has\n"
     "some and no body. What it returns is received then. It is called with the side taken."},
    {"wait", (PyCFunction)(void (*)(void))End_wait, METH_FASTCALL,
     "wait(timeout=None, /)\n--\n\nSee `procession.plugin.Channel.wait`."},
    {"wait_for_room", (PyCFunction)(void (*)(void))End_wait_for_room, METH_FASTCALL,
     "wait_for_room(length, timeout=None, /)\n--\n\n"
     "See `procession.plugin.Channel.wait_for_room`."},
    {"fileno", End_fileno, METH_NOARGS, "fileno()\n--\n\nSee `procession.plugin.Channel.fileno`."},
    {"descriptors", End_descriptors, METH_NOARGS,
     "descriptors()\n--\n\nReturn memory, bell in, bell out and peer; they stay this end's."},
    {"watch", (PyCFunction)(void (*)(void))End_watch, METH_FASTCALL,
     "watch(receiving, sending, /)\n--\n\nSee `procession.plugin.Channel.watch`."},
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
