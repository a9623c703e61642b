/* The type `Lane`: packets from many processes to many, for queues.

   Putting and getting have a lock each, a robust mutex of the C library: the kernel passes it
   on when its holder is killed. There is nothing to repair then, since a packet is put, or
   taken, by the one store of `tail`, or `head`, which comes last. */

#include "lane.h"

#include <stdlib.h>
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

/* Take up to *most* packets: TAKEN, or NOTHING, or -1 with an exception. */
static int
receive(Lane *self, size_t most, struct taking *taking)
{
    taking->most = most;
    taking->count = taking->used = 0;
    taking->data = taking->few;
    taking->room = sizeof taking->few;
    if (self->closed)
        return closed_error();
    struct lane *lane = self->lane;
    /* Most often nothing is there. */
    int result = NOTHING;
    if (atomic_load(&lane->tail) != atomic_load(&lane->head))
        result = do_locked(self, &lane->getting, take_all, taking);
    /* Also when nothing was there, as the bell may have rung in vain. */
    if (result >= 0 && !self->closed &&
        atomic_load_explicit(&lane->alarm.watched, memory_order_relaxed)) {
        enter_lane(self);
        Py_BEGIN_ALLOW_THREADS
        settle_if_watched(self);
        Py_END_ALLOW_THREADS
        leave_lane(self);
    }
    return result;
}

static void
done_with(struct taking *taking)
{
    if (taking->data != taking->few)
        free(taking->data);
}

/* The packet whose mark begins at *at*, which moves behind it; *padded* as `receive_padded`
   has it. */
static PyObject *
next_packet(const struct taking *taking, size_t *at, bool padded, uint32_t *kind)
{
    struct packet mark;
    memcpy(&mark, taking->data + *at, sizeof mark);
    const char *start = taking->data + *at + sizeof mark;
    *at += sizeof mark + mark.length;
    *kind = mark.kind & 1;
    PyObject *packet = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)mark.length + padded);
    if (packet == NULL)
        return NULL;
    char *bytes = PyBytes_AsString(packet);
    memcpy(bytes, start, mark.length);
    if (padded)
        bytes[mark.length] = *kind ? (char)0x80 : 0;
    return packet;
}

static PyObject *
Lane_receive(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct taking taking;
    size_t at = 0;
    uint32_t kind;
    int result = receive((Lane *)object, 1, &taking);
    PyObject *packet = result == TAKEN ? next_packet(&taking, &at, false, &kind) : NULL;
    done_with(&taking);
    if (packet != NULL)
        return Py_BuildValue("(Ni)", packet, (int)kind);
    return result == NOTHING ? none() : NULL;
}

static PyObject *
Lane_receive_padded(PyObject *object, PyObject *unused)
{
    (void)unused;
    struct taking taking;
    size_t at = 0;
    uint32_t kind;
    int result = receive((Lane *)object, 1, &taking);
    PyObject *packet = result == TAKEN ? next_packet(&taking, &at, true, &kind) : NULL;
    done_with(&taking);
    return result == NOTHING ? none() : packet;
}

static PyObject *
Lane_receive_many(PyObject *object, PyObject *argument)
{
    size_t most = PyLong_AsSize_t(argument);
    if (most == (size_t)-1 && PyErr_Occurred())
        return NULL;
    struct taking taking;
    int result = receive((Lane *)object, most, &taking);
    PyObject *packets = result < 0 ? NULL : PyList_New((Py_ssize_t)taking.count);
    size_t at = 0;
    for (size_t i = 0; packets != NULL && i < taking.count; i++) {
        uint32_t kind;
        PyObject *packet = next_packet(&taking, &at, true, &kind);
        if (packet == NULL || PyList_SetItem(packets, (Py_ssize_t)i, packet) < 0)
            Py_CLEAR(packets);
    }
    done_with(&taking);
    return packets;
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
