/* The type `Lane`: packets from many processes to many, for queues.

   Putting and getting have a lock each, a robust mutex of the C library: the kernel passes it
   on when its holder is killed. There is nothing to repair then, since a packet is put, or
   taken, by the one store of `tail`, or `head`, which comes last. */

#include "lane.h"

#include <structmember.h>
#include <sys/mman.h>

static int
closed_error(void)
{
    errno = EBADF;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
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

/* Read packet *object* into *packet*; -1 with an exception if it is none. */
static int
read_packet(Lane *self, PyObject *object, struct outgoing *packet)
{
    if (!PyBytes_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "a packet is bytes");
        return -1;
    }
    *packet = (struct outgoing){PyBytes_AsString(object), (uint64_t)PyBytes_Size(object)};
    if (packet->length > self->limit) {
        PyErr_Format(PyExc_ValueError, "the packet has %llu bytes, and the longest has %llu",
                     (unsigned long long)packet->length, (unsigned long long)self->limit);
        return -1;
    }
    return 0;
}

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
    struct outgoing packet;
    if (self->closed) {
        closed_error();
        return NULL;
    }
    if (read_packet(self, args[0], &packet) < 0)
        return NULL;
    if (kind < 0 || kind > 1) {
        PyErr_Format(PyExc_ValueError, "a packet is of kind 0 or 1, not %ld", kind);
        return NULL;
    }
    struct putting putting = {.packets = &packet, .count = 1, .kind = (uint32_t)kind};
    int result = do_locked(self, &self->lane->putting, put_all, &putting);
    return result < 0 ? NULL : PyBool_FromLong(result == TAKEN);
}

static PyObject *
Lane_send_many(PyObject *object, PyObject *packets)
{
    Lane *self = (Lane *)object;
    PyObject *result = NULL;
    /* Our own tuple: others may change the list while we wait. */
    PyObject *all = PySequence_Tuple(packets);
    if (all == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_Size(all);
    struct outgoing *outgoing = PyMem_Malloc((size_t)(count + 1) * sizeof *outgoing);
    if (outgoing == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    if (self->closed) {
        closed_error();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if (read_packet(self, PyTuple_GetItem(all, i), &outgoing[i]) < 0)
            goto done;
    struct putting putting = {.packets = outgoing, .count = (size_t)count};
    if (do_locked(self, &self->lane->putting, put_all, &putting) >= 0)
        result = PyLong_FromSize_t(putting.put);
done:
    PyMem_Free(outgoing);
    Py_DECREF(all);
    return result;
}

static void
drop(struct taking *taking)
{
    for (size_t i = 0; i < taking->count; i++)
        Py_XDECREF(taking->packets[i].object);
    if (taking->packets != taking->few)
        PyMem_Free(taking->packets);
    taking->packets = taking->few;
    taking->count = 0;
}

/* Look for up to *most* packets and make objects for them, *padded* as `receive_padded` has
   them: 0, or -1 with an exception. No code of others runs here. */
static int
plan(Lane *self, size_t most, bool padded, struct taking *taking)
{
    size_t room = look_ahead(self, most, NULL), count;
    if (room > Py_ARRAY_LENGTH(taking->few)) {
        taking->packets = PyMem_Malloc(room * sizeof *taking->packets);
        if (taking->packets == NULL) {
            taking->packets = taking->few;
            PyErr_NoMemory();
            return -1;
        }
    }
    count = look_ahead(self, room, taking->packets);
    for (; taking->count < count; taking->count++) {
        struct incoming *packet = &taking->packets[taking->count];
        packet->object =
            PyBytes_FromStringAndSize(NULL, (Py_ssize_t)packet->length + padded);
        if (packet->object == NULL)
            return -1;
        packet->start = PyBytes_AsString(packet->object);
    }
    return 0;
}

/* Take up to *most* packets: TAKEN, with what the caller drops, or NOTHING, or -1 with an
   exception. For more than one, *list* is a new list of them. */
static int
receive(Lane *self, size_t most, bool padded, struct taking *taking, PyObject **list)
{
    int result = NOTHING;
    taking->packets = taking->few;
    taking->count = 0;
    if (self->closed)
        return closed_error();
    /* Most often nothing is there. When others take what we have seen, we want less of it: so
       that who wants much is not always too late. */
    while (atomic_load(&self->lane->tail) != atomic_load(&self->lane->head)) {
        if (plan(self, most, padded, taking) < 0)
            result = -1;
        else if (taking->count == 0)
            result = CHANGED;
        else if (list != NULL && (*list = PyList_New((Py_ssize_t)taking->count)) == NULL)
            result = -1;
        else if (self->closed) /* by a collection of garbage */
            result = closed_error();
        else
            result = do_locked(self, &self->lane->getting, take_all, taking);
        if (result == TAKEN)
            break;
        most = taking->count > 1 ? taking->count / 2 : 1;
        drop(taking);
        if (list != NULL)
            Py_CLEAR(*list);
        if (result != CHANGED)
            break;
        result = NOTHING;
        if (self->closed)
            return closed_error();
    }
    /* Also when nothing was there, as the bell may have rung in vain. */
    if (result >= 0 && !self->closed &&
        atomic_load_explicit(&self->lane->alarm.watched, memory_order_relaxed)) {
        enter_lane(self);
        Py_BEGIN_ALLOW_THREADS
        settle_if_watched(self);
        Py_END_ALLOW_THREADS
        leave_lane(self);
    }
    return result;
}

/* A packet that was taken, *padded*. */
static PyObject *
finished(const struct incoming *packet, bool padded)
{
    if (padded)
        packet->start[packet->length] = packet->kind ? (char)0x80 : 0;
    return Py_NewRef(packet->object);
}

static PyObject *
Lane_receive(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct taking taking;
    PyObject *pair = PyTuple_New(2);
    if (pair == NULL)
        return NULL;
    int result = receive((Lane *)object, 1, false, &taking, NULL);
    if (result == TAKEN) {
        /* Neither needs memory: small numbers are always there. */
        PyTuple_SetItem(pair, 1, PyLong_FromLong((long)taking.packets[0].kind));
        PyTuple_SetItem(pair, 0, finished(&taking.packets[0], false));
    }
    else
        Py_CLEAR(pair);
    drop(&taking);
    return result == NOTHING ? none() : pair;
}

static PyObject *
Lane_receive_padded(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct taking taking;
    int result = receive((Lane *)object, 1, true, &taking, NULL);
    PyObject *packet = result == TAKEN ? finished(&taking.packets[0], true) : NULL;
    drop(&taking);
    return result == NOTHING ? none() : packet;
}

static PyObject *
Lane_receive_many(PyObject *object, PyObject *argument)
{
    size_t most = PyLong_AsSize_t(argument);
    if (most == (size_t)-1 && PyErr_Occurred())
        return NULL;
    struct taking taking;
    PyObject *packets = NULL;
    if (most == 0)
        return PyList_New(0);
    int result = receive((Lane *)object, most, true, &taking, &packets);
    if (result == TAKEN)
        for (size_t i = 0; i < taking.count; i++)
            PyList_SetItem(packets, (Py_ssize_t)i, finished(&taking.packets[i], true));
    drop(&taking);
    return result == NOTHING ? PyList_New(0) : packets;
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

void
give_lane_back(Lane *self)
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
        give_lane_back(self);
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
    self->map = map_all(memory, &self->length, true);
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
    {"send_many", Lane_send_many, METH_O,
     "send_many(packets, /)\n--\n\nSee `procession.plugin.Lane.send_many`."},
    {"receive", Lane_receive, METH_NOARGS, "receive()\n--\n\nSee `procession.plugin.Lane.receive`."},
    {"receive_padded", Lane_receive_padded, METH_NOARGS,
     "receive_padded()\n--\n\nSee `procession.plugin.Lane.receive_padded`."},
    {"receive_many", Lane_receive_many, METH_O,
     "receive_many(most, /)\n--\n\nSee `procession.plugin.Lane.receive_many`."},
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
