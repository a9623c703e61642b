/* The type `Lane`: packets from many processes to many, for queues.

   Putting and getting have a lock each, a robust mutex of the C library: the kernel passes it
   on when its holder is killed. There is nothing to repair then, since a packet is put, or
   taken, by the one store of `tail`, or `head`, which comes last. */

#include "support.h"

#include <stdlib.h>
#include <structmember.h>
#include <sys/mman.h>

typedef struct {
    PyObject_HEAD
    char *map;
    size_t length;
    struct lane *lane;
    char *data;
    uint64_t size, limit;
    int memory, bell;
    /* How many calls of this process are being made without the GIL: as long as there is
       one, what was closed is not given back. */
    int users;
    unsigned generation;
    bool closed;
} Lane;

/* In front of each packet. */
struct packet {
    uint32_t length;
    uint32_t kind;
};

#define COUNT(word) ((uint32_t)((word) >> 32))
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

static int
closed_error(void)
{
    errno = EBADF;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static void give_back(Lane *self);

static void
enter(Lane *self)
{
    if (self->generation != fork_generation) {
        self->generation = fork_generation; /* the threads that were here are the parent's */
        self->users = 0;
    }
    self->users++;
}

static void
leave(Lane *self)
{
    if (self->users > 0)
        self->users--;
    if (self->closed && self->users == 0)
        give_back(self);
}

static int
corrupt_error(void)
{
    PyErr_SetString(PyExc_OSError, "bad packet: the memory of the ring is corrupt");
    return -1;
}

/* -- the locks ------------------------------------------------------------------------------- */

static int
settled(Lane *self, int error)
{
    if (error != EOWNERDEAD)
        return error;
    /* The dead may have put a packet and not have said so. */
    announce(&self->lane->alarm, self->bell);
    return 0;
}

/* Take a lock that is free, which it nearly always is; EBUSY if it is not. */
static int
try_lock(Lane *self, pthread_mutex_t *mutex)
{
    return settled(self, try_mutex(mutex));
}

/* Wait for a lock for some time, without the GIL; ETIMEDOUT so that signals are looked for. */
static int
wait_lock(Lane *self, pthread_mutex_t *mutex)
{
    return settled(self, wait_for_mutex(mutex, LONGEST_LOCKED_OUT_NS));
}

static int
lock_error(int error)
{
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* -- putting and taking, with the lock held -------------------------------------------------- */

enum result { TAKEN, NOTHING, BAD };

static enum result
put(Lane *self, const char *packet, uint64_t length, uint32_t kind)
{
    struct lane *lane = self->lane;
    uint64_t tail = atomic_load_explicit(&lane->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&lane->head, memory_order_acquire);
    uint64_t needed = aligned(sizeof(struct packet) + length), full = used(tail, head);
    if (full > self->size)
        return BAD;
    if (self->size - full < needed)
        return NOTHING;
    struct packet mark = {.length = (uint32_t)length, .kind = kind};
    uint64_t place = (uint64_t)PLACE(tail) * ALIGNMENT;
    copy_in(self->data, self->size, place, &mark, sizeof mark);
    copy_in(self->data, self->size, place + sizeof mark, packet, length);
    atomic_store_explicit(&lane->tail, advance(tail, needed), memory_order_release);
    announce(&lane->alarm, self->bell);
    return TAKEN;
}

/* Look at the first packet. */
static enum result
first(Lane *self, uint64_t *head, struct packet *mark)
{
    struct lane *lane = self->lane;
    *head = atomic_load_explicit(&lane->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&lane->tail, memory_order_acquire);
    if (tail == *head)
        return NOTHING;
    uint64_t full = used(tail, *head);
    copy_out(self->data, self->size, (uint64_t)PLACE(*head) * ALIGNMENT, mark, sizeof *mark);
    if (full > self->size || mark->length > self->limit ||
        aligned(sizeof *mark + mark->length) > full)
        return BAD;
    return TAKEN;
}

static void
take(Lane *self, uint64_t head, const struct packet *mark, char *target)
{
    struct lane *lane = self->lane;
    copy_out(self->data, self->size, (uint64_t)PLACE(head) * ALIGNMENT + sizeof *mark, target,
             mark->length);
    head = advance(head, aligned(sizeof *mark + mark->length));
    atomic_store_explicit(&lane->head, head, memory_order_release);
}

/* After taking, without the lock: let a descriptor that somebody watches fall silent. */
static void
settle_if_watched(Lane *self)
{
    struct lane *lane = self->lane;
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&lane->alarm.watched, memory_order_relaxed) &&
        atomic_load(&lane->tail) == atomic_load(&lane->head))
        settle(&lane->alarm, self->bell, &lane->tail, &lane->head);
}

/* -- methods --------------------------------------------------------------------------------- */

static PyObject *
Lane_send(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    Lane *self = (Lane *)object;
    long kind = 0;
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "send() takes a packet and, at most, its kind");
        return NULL;
    }
    if (count == 2) {
        kind = PyLong_AsLong(args[1]);
        if (kind == -1 && PyErr_Occurred())
            return NULL;
    }
    if (!PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "a packet is bytes");
        return NULL;
    }
    const char *packet = PyBytes_AsString(args[0]);
    uint64_t length = (uint64_t)PyBytes_Size(args[0]);
    if (self->closed) {
        closed_error();
        return NULL;
    }
    if (length > self->limit || kind < 0 || kind > 1) {
        PyErr_SetString(PyExc_ValueError, "the packet is too long, or of no known kind");
        return NULL;
    }
    pthread_mutex_t *mutex = &self->lane->putting;
    int error = try_lock(self, mutex);
    enum result result = BAD;
    if (error == 0) {
        result = put(self, packet, length, (uint32_t)kind);
        pthread_mutex_unlock(mutex);
    }
    while ((error == EBUSY || error == ETIMEDOUT) && !self->closed) {
        /* Whoever has a lock never waits for the GIL meanwhile. */
        enter(self);
        Py_BEGIN_ALLOW_THREADS
        error = wait_lock(self, mutex);
        if (error == 0) {
            result = put(self, packet, length, (uint32_t)kind);
            pthread_mutex_unlock(mutex);
        }
        Py_END_ALLOW_THREADS
        leave(self);
        if (error == ETIMEDOUT && PyErr_CheckSignals() < 0)
            return NULL;
    }
    if (error != 0) {
        lock_error(self->closed ? EBADF : error);
        return NULL;
    }
    if (result == BAD) {
        corrupt_error();
        return NULL;
    }
    return PyBool_FromLong(result == TAKEN);
}

/* Take the first packet into bytes with *extra* bytes behind it; NULL without an error when
   there is none. */
static PyObject *
receive(Lane *self, uint64_t extra, uint32_t *kind)
{
    if (self->closed) {
        closed_error();
        return NULL;
    }
    pthread_mutex_t *mutex = &self->lane->getting;
    struct packet mark;
    uint64_t head;
    enum result result = BAD;
    PyObject *bytes = NULL;
    char *copy = NULL;
    /* Most often nothing is there, or it is free. */
    if (atomic_load(&self->lane->tail) == atomic_load(&self->lane->head))
        return NULL;
    int error = try_lock(self, mutex);
    if (error == 0) {
        result = first(self, &head, &mark);
        if (result == TAKEN) {
            bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(mark.length + extra));
            if (bytes != NULL)
                take(self, head, &mark, PyBytes_AsString(bytes));
        }
        pthread_mutex_unlock(mutex);
        if (result == TAKEN && bytes == NULL)
            return NULL;
    }
    while ((error == EBUSY || error == ETIMEDOUT) && !self->closed) {
        /* Bytes cannot be made without the GIL, and nobody waits for it with a lock. */
        enter(self);
        Py_BEGIN_ALLOW_THREADS
        error = wait_lock(self, mutex);
        if (error == 0) {
            result = first(self, &head, &mark);
            if (result == TAKEN) {
                copy = malloc(mark.length + 1);
                if (copy != NULL)
                    take(self, head, &mark, copy);
            }
            pthread_mutex_unlock(mutex);
        }
        Py_END_ALLOW_THREADS
        leave(self);
        if (error == ETIMEDOUT && PyErr_CheckSignals() < 0)
            return NULL;
        if (error == 0 && result == TAKEN) {
            if (copy == NULL)
                return PyErr_NoMemory();
            bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(mark.length + extra));
            if (bytes != NULL)
                memcpy(PyBytes_AsString(bytes), copy, mark.length);
            free(copy);
            if (bytes == NULL)
                return NULL;
        }
    }
    if (error != 0) {
        lock_error(self->closed ? EBADF : error);
        return NULL;
    }
    if (result == BAD) {
        corrupt_error();
        return NULL;
    }
    if (result == TAKEN && !self->closed &&
        atomic_load_explicit(&self->lane->alarm.watched, memory_order_relaxed)) {
        enter(self);
        Py_BEGIN_ALLOW_THREADS
        settle_if_watched(self);
        Py_END_ALLOW_THREADS
        leave(self);
    }
    *kind = bytes == NULL ? 0 : mark.kind;
    return bytes;
}

static PyObject *
Lane_receive(PyObject *object, PyObject *unused)
{
    (void)unused;
    uint32_t kind;
    PyObject *packet = receive((Lane *)object, 0, &kind);
    if (packet == NULL) {
        if (PyErr_Occurred())
            return NULL;
        return none();
    }
    return Py_BuildValue("(Ni)", packet, (int)(kind & 1));
}

static PyObject *
Lane_receive_padded(PyObject *object, PyObject *unused)
{
    (void)unused;
    uint32_t kind;
    PyObject *packet = receive((Lane *)object, 1, &kind);
    if (packet == NULL) {
        if (PyErr_Occurred())
            return NULL;
        return none();
    }
    PyBytes_AsString(packet)[PyBytes_Size(packet) - 1] = (kind & 1) ? (char)0x80 : 0;
    return packet;
}

static PyObject *
Lane_pending(PyObject *object, PyObject *unused)
{
    (void)unused;
    Lane *self = (Lane *)object;
    if (self->closed) {
        closed_error();
        return NULL;
    }
    uint64_t head = atomic_load(&self->lane->head), tail, again;
    for (;; head = again) {
        tail = atomic_load(&self->lane->tail);
        again = atomic_load(&self->lane->head);
        if (again == head)
            break; /* at the moment when we looked at the tail, the head was this one */
    }
    return PyLong_FromUnsignedLong((uint32_t)(COUNT(tail) - COUNT(head)));
}

static PyObject *
Lane_fileno(PyObject *object, PyObject *unused)
{
    (void)unused;
    Lane *self = (Lane *)object;
    if (self->closed) {
        closed_error();
        return NULL;
    }
    if (!atomic_exchange(&self->lane->alarm.watched, 1)) {
        atomic_store(&self->lane->alarm.armed, 1);
        settle(&self->lane->alarm, self->bell, &self->lane->tail, &self->lane->head);
    }
    return PyLong_FromLong(self->bell);
}

static PyObject *
Lane_descriptors(PyObject *object, PyObject *unused)
{
    (void)unused;
    Lane *self = (Lane *)object;
    if (self->closed) {
        closed_error();
        return NULL;
    }
    return Py_BuildValue("(ii)", self->memory, self->bell);
}

static void
give_back(Lane *self)
{
    if (self->map != NULL)
        munmap(self->map, self->length);
    self->map = NULL;
    self->lane = NULL;
    if (self->memory >= 0) {
        close(self->memory);
        close(self->bell);
    }
    self->memory = self->bell = -1;
}

static void
close_lane(Lane *self)
{
    self->closed = true;
    if (self->users == 0 || self->generation != fork_generation)
        give_back(self);
}

static PyObject *
Lane_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    close_lane((Lane *)object);
    return none();
}

/* -- making ---------------------------------------------------------------------------------- */

static int
make_locks(struct lane *lane)
{
    int error = make_mutex(&lane->putting);
    if (error == 0)
        error = make_mutex(&lane->getting);
    if (error != 0)
        return lock_error(error);
    lane->lock_size = sizeof(pthread_mutex_t);
    return 0;
}

static PyObject *
Lane_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    int memory, bell, create;
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Lane() takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "iip:Lane", &memory, &bell, &create))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Lane *self = (Lane *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    /* The descriptors become ours at the very end: until then they are the caller's. */
    self->memory = self->bell = -1;
    self->generation = fork_generation;
    self->map = map_all(memory, &self->length);
    if (self->map == NULL)
        goto failed;
    struct lane *lane = (struct lane *)self->map;
    self->size = checked_size(lane, LANE_MAGIC, 0, self->length);
    if (self->size == 0 || (create && make_locks(lane) < 0))
        goto failed;
    if (check_lock_size(lane->lock_size) < 0)
        goto failed;
    self->lane = lane;
    self->data = self->map + HEADER_SIZE;
    /* So that some packets always find room, however long they are. */
    self->limit = self->size / 4 < (64 << 10) ? self->size / 4 : (64 << 10);
    self->memory = memory;
    self->bell = bell;
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static void
Lane_dealloc(PyObject *object)
{
    close_lane((Lane *)object);
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"send", (PyCFunction)(void (*)(void))Lane_send, METH_FASTCALL,
     "send(packet, kind=0, /)\n--\n\nSee `procession.plugin.Lane.send`."},
    {"receive", Lane_receive, METH_NOARGS, "receive()\n--\n\nSee `procession.plugin.Lane.receive`."},
    {"receive_padded", Lane_receive_padded, METH_NOARGS,
     "receive_padded()\n--\n\nSee `procession.plugin.Lane.receive_padded`."},
    {"pending", Lane_pending, METH_NOARGS, "pending()\n--\n\nSee `procession.plugin.Lane.pending`."},
    {"fileno", Lane_fileno, METH_NOARGS, "fileno()\n--\n\nSee `procession.plugin.Lane.fileno`."},
    {"descriptors", Lane_descriptors, METH_NOARGS,
     "descriptors()\n--\n\nReturn memory and bell; they stay this lane's."},
    {"close", Lane_close, METH_NOARGS, "close()\n--\n\nSee `procession.plugin.Lane.close`."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"limit", T_ULONGLONG, offsetof(Lane, limit), READONLY, "The longest packet, in bytes."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, Lane_new},
    {Py_tp_dealloc, Lane_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_doc,
     "Lane(memory, bell, create, /)\n--\n\n"
     "Packets in shared memory; takes over the descriptors if it can be made."},
    {0, NULL},
};

PyType_Spec lane_spec = {
    .name = "procession_ring._native.Lane",
    .basicsize = sizeof(Lane),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};
